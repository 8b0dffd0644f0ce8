//! Random rules and schedules: the switch form equals the static graphs of each step, chained.

use crate::equality::{Patched, inputs, open, patch_as, same, sizes, step};
use crate::program::root;
use pab_patch::graph::ModelGraph;
use pab_patch::onnx::{Model, SaveOptions};
use pab_patch::rewrite::{PlanSize, variant};
use pab_patch::runtime::{Denoiser, ElementType, Extent, Tensor};
use pab_patch::schedule::Schedule;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};

const STRATEGIES: [&str; 3] = [
    "broadcast: { range: 2 }",
    "forecast: { order: 1, range: 2 }",
    "forecast: { order: 2, range: 2 }",
];

/// A rule for one kind; none leaves it alone.
fn rule(kind: &'static str, strategies: &'static [&'static str]) -> impl Strategy<Value = Option<String>> {
    let blocks = ["", ", blocks: 0", ", blocks: 1"];
    // Attention to the text has no gate in Latte.
    let cuts = if kind == "cross" {
        &["output"][..]
    } else {
        &["output", "gated"][..]
    };
    let parts = (
        prop::sample::select(strategies.to_vec()),
        prop::sample::select(blocks.to_vec()),
        prop::sample::select(cuts.to_vec()),
    );
    let text = parts.prop_map(move |(strategy, blocks, cut)| {
        format!("  - {{ name: {kind}, match: {{ kind: {kind}{blocks} }}, cut: {cut}, {strategy} }}\n")
    });
    prop::option::weighted(0.8, text)
}

/// The rules of a file, at least one.
fn rules(strategies: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    let rule = |kind| rule(kind, strategies);
    let rules = (rule("spatial"), rule("temporal"), rule("cross"), rule("mlp"));
    let rules = rules.prop_map(|(one, two, three, four)| [one, two, three, four].into_iter().flatten().collect());
    rules.prop_filter("there is a rule", |rules: &Vec<String>| !rules.is_empty())
}

/// Flags for up to `rules` rules in each of some steps; the first step computes.
fn flags(rules: usize) -> impl Strategy<Value = Vec<Vec<bool>>> {
    prop::collection::vec(prop::collection::vec(any::<bool>(), rules), 2..7).prop_map(move |mut steps| {
        steps.insert(0, vec![false; rules]);
        steps
    })
}

/// The static graphs of a patched model, each opened once, and what the last step handed on.
struct Chain<'p> {
    patched: &'p Patched,
    opened: HashMap<Vec<bool>, Denoiser>,
    fed_back: BTreeMap<String, Tensor>,
}

impl<'p> Chain<'p> {
    /// Zeros are handed to the first step.
    fn new(patched: &'p Patched) -> Chain<'p> {
        let sizes = sizes().into_iter().map(|(name, size)| (name, size as i64)).collect();
        let caches = patched.plan.caches().map(|(_, cache)| {
            let size = |size: &PlanSize| match size {
                PlanSize::Number(number) => *number as usize,
                PlanSize::Symbol(formula) => Extent::Formula(formula.clone()).evaluate(&sizes).unwrap() as usize,
            };
            let shape: Vec<usize> = cache.shape.iter().map(size).collect();
            let element_type = ElementType::from_onnx(cache.element_type).unwrap();
            (cache.input.clone(), Tensor::zeros(element_type, &shape))
        });
        let states = patched.plan.rules.iter().filter_map(|rule| rule.state.as_ref());
        let states = states.map(|state| (state.input.clone(), Tensor::zeros(ElementType::Float32, &[3])));
        Chain {
            patched,
            opened: HashMap::new(),
            fed_back: caches.chain(states).collect(),
        }
    }

    fn step(&mut self, inputs: &[(String, Tensor)], flags: &[bool]) -> Vec<(String, Tensor)> {
        let Patched { path, plan, .. } = self.patched;
        let denoiser = self.opened.entry(flags.to_vec()).or_insert_with(|| {
            let graph = ModelGraph::new(Model::load(path).unwrap()).unwrap();
            let graph = variant(graph, plan, flags).unwrap();
            let file = path.with_file_name("chained.onnx");
            graph
                .into_model()
                .unwrap()
                .save(&file, &SaveOptions::default())
                .unwrap();
            Denoiser::plain(open(&file))
        });
        let taken = |name: &str| denoiser.session().inputs().iter().any(|port| port.name == name);
        let fed_back = self.fed_back.iter().filter(|(name, _)| taken(name));
        let given: Vec<(String, Tensor)> = inputs
            .iter()
            .cloned()
            .chain(fed_back.map(|(name, tensor)| (name.clone(), tensor.clone())))
            .collect();
        let mut own = Vec::new();
        for (name, tensor) in step(denoiser, &given, &[]) {
            match plan.fed_back().find(|(_, output)| *output == name) {
                Some((input, _)) => {
                    self.fed_back.insert(input.to_owned(), tensor);
                }
                None => own.push((name, tensor)),
            }
        }
        own
    }
}

/// Runs a schedule both ways.
fn check(export: &str, rules: &[String], steps: &[Vec<bool>], cache_type: Option<&str>) {
    let text = format!("version: 1\nrules:\n{}", rules.concat());
    let options: Vec<&str> = cache_type.map_or_else(Vec::new, |cache_type| vec!["--cache-dtype", cache_type]);
    let patched = patch_as(&root().join("tests/data/corpus").join(export), &text, &options);
    let schedule = Schedule::from_flags(patched.plan.rules.len(), steps);
    let mut switched = patched.open();
    let mut chain = Chain::new(&patched);
    switched.begin(&schedule).unwrap();
    for number in 0..schedule.steps() {
        let own = inputs(switched.session(), number as u64);
        let expected = chain.step(&own, schedule.flags(number));
        let found = step(&mut switched, &own, schedule.flags(number));
        same(
            &expected,
            &found,
            &format!("{export}, {options:?}, step {number} of {steps:?}, {text}"),
        );
    }
    assert_eq!(switched.held_bytes(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, max_shrink_iters: 20, ..ProptestConfig::default() })]

    #[test]
    fn the_switch_form_equals_the_static_graphs_chained(
        rules in rules(&STRATEGIES),
        steps in flags(4),
        export in prop::sample::select(vec!["latte.ts17.static.onnx", "latte.dyn18.dynamic.onnx"]),
        cache_type in prop::sample::select(vec![None, Some("f16"), Some("bf16")]),
    ) {
        check(export, &rules, &steps, cache_type);
    }

    /// The static graphs begin with caches of zeros, of which nothing is read: each half has to be computed before.
    #[test]
    fn so_it_does_beside_guidance(
        rules in rules(&STRATEGIES[..1]),
        steps in flags(5),
        export in prop::sample::select(vec!["latte.ts17.dynamic.onnx", "latte.dyn18.dynamic.onnx"]),
        cache_type in prop::sample::select(vec![None, Some("f16"), Some("bf16")]),
    ) {
        let guidance = "  - { name: cfg, guidance: { range: 2 } }\n".to_owned();
        check(export, &[vec![guidance], rules].concat(), &steps, cache_type);
    }
}
