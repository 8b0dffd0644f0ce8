//! What is written, on real exports.

mod wide;

use super::{
    CacheRole, CacheType, Plan, RewriteError, SwitchOptions, refuse_patched, select, switch, variant, without,
};
use crate::attention::Sites;
use crate::axes::{Axes, InputLabels};
use crate::graph::{Graph, ModelGraph};
use crate::onnx::{Model, validate};
use crate::rules::Rules;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

const TORCHSCRIPT: &str = "latte.ts17.dynamic.onnx";
const DYNAMO: &str = "latte.dyn23.static.onnx";

fn load(name: &str) -> ModelGraph {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/corpus")
        .join(name);
    ModelGraph::new(Model::load(&path).unwrap()).unwrap()
}

fn patched(name: &str, rules: &str) -> Result<(ModelGraph, Plan), RewriteError> {
    patched_as(name, rules, &SwitchOptions::default())
}

fn patched_as(name: &str, rules: &str, options: &SwitchOptions) -> Result<(ModelGraph, Plan), RewriteError> {
    let model = load(name);
    let axes = Axes::analyse(&model, &InputLabels::default()).unwrap();
    let sites = Sites::find(&model, &axes).unwrap();
    let rules = Rules::parse("test.yaml", rules).unwrap();
    let choices = select(&sites, &rules, None)?;
    let result = switch(model, &choices, &rules, options)?;
    Ok((result.model, result.plan))
}

const RULES: &str = "
version: 1
rules:
  - { name: first, match: { kind: spatial, blocks: 0 }, broadcast: never }
  - { name: spatial, match: { kind: spatial }, cut: gated, broadcast: { range: 2 } }
  - { name: rest, match: { kind: [temporal, cross] }, broadcast: { range: 3, window: { fraction: [0.15, 0.85] } } }
";

fn operators(graph: &Graph) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, node) in graph.nodes() {
        *counts.entry(node.operator()).or_default() += 1;
    }
    counts
        .into_iter()
        .map(|(operator, count)| format!("{operator} {count}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Inputs, outputs and switches of a patched graph, for a snapshot.
fn shown(model: &ModelGraph) -> String {
    let graph = &model.graph;
    let mut text = String::new();
    let shape = |value| {
        let dims = graph
            .tensor_type(value)
            .and_then(|tensor| tensor.shape.as_ref())
            .map(|shape| &shape.dim);
        let dims = dims
            .into_iter()
            .flatten()
            .map(|dim| match (&dim.dim_param, dim.dim_value) {
                (Some(symbol), _) => symbol.clone(),
                (None, Some(size)) => size.to_string(),
                (None, None) => "?".to_owned(),
            });
        dims.collect::<Vec<_>>().join(", ")
    };
    for value in graph.inputs() {
        writeln!(text, "input {} [{}]", graph.value(value).name(), shape(value)).unwrap();
    }
    for value in graph.outputs() {
        writeln!(text, "output {} [{}]", graph.value(value).name(), shape(value)).unwrap();
    }
    for (_, node) in graph.nodes().filter(|(_, node)| node.is("If")) {
        let flag = node.input(0).map_or("", |value| graph.value(value).name());
        writeln!(text, "If {} on {flag}", node.name()).unwrap();
        for branch in ["then_branch", "else_branch"] {
            writeln!(text, "  {branch}: {}", operators(node.body(branch).unwrap())).unwrap();
        }
    }
    text
}

#[test]
fn the_switch_form_of_both_exporters() {
    for (name, export) in [("torchscript", TORCHSCRIPT), ("dynamo", DYNAMO)] {
        let (model, _) = patched(export, RULES).unwrap();
        insta::assert_snapshot!(name, shown(&model));
        let proto = model.into_model().unwrap().proto;
        validate(&proto).unwrap();
    }
}

#[test]
fn weights_are_held_once_and_unchanged() {
    let original = load(TORCHSCRIPT).into_model().unwrap().proto.graph.unwrap();
    let (model, _) = patched(TORCHSCRIPT, RULES).unwrap();
    let graph = model.into_model().unwrap().proto.graph.unwrap();
    let named = |graph: &crate::onnx::messages::GraphProto| -> BTreeMap<String, crate::onnx::messages::TensorProto> {
        graph
            .initializer
            .iter()
            .map(|tensor| (tensor.name.clone().unwrap(), tensor.clone()))
            .collect()
    };
    assert_eq!(named(&original), named(&graph));
    for node in graph.node.iter().filter(|node| node.op_type.as_deref() == Some("If")) {
        for attribute in &node.attribute {
            assert!(attribute.g.as_ref().unwrap().initializer.is_empty());
        }
    }
}

#[test]
fn the_plan_survives_its_json_and_refuses_others() {
    let (model, plan) = patched(TORCHSCRIPT, RULES).unwrap();
    assert_eq!(Plan::parse(&plan.to_json().unwrap()).unwrap(), plan);
    assert_eq!(Plan::parse(model.metadata(super::PLAN_KEY).unwrap()).unwrap(), plan);
    assert_eq!(
        plan.rules.iter().map(|rule| rule.name.as_str()).collect::<Vec<_>>(),
        ["spatial", "rest"]
    );
    let newer = plan.to_json().unwrap().replace("\"format\": 3", "\"format\": 4");
    assert!(Plan::parse(&newer).unwrap_err().to_string().contains("format 4"));
    let odd = plan.to_json().unwrap().replace("\"rule\": 1", "\"rule\": 9");
    assert!(Plan::parse(&odd).is_err());
    assert!(Plan::parse("{}").is_err());
}

#[test]
fn every_set_of_flags_makes_a_valid_static_graph() {
    for export in [TORCHSCRIPT, DYNAMO] {
        for flags in [[false, false], [true, false], [false, true], [true, true]] {
            let (model, plan) = patched(export, RULES).unwrap();
            let model = without(model, &plan, &flags).unwrap();
            assert!(model.graph.nodes().all(|(_, node)| !node.is("If")));
            let caches = model
                .graph
                .inputs()
                .filter(|value| model.graph.value(*value).name().starts_with("pab."));
            let broadcast = plan.sites.iter().filter(|site| flags[site.rule]).count();
            assert_eq!(caches.count(), broadcast, "{export} {flags:?}");
            let proto = model.into_model().unwrap().proto;
            validate(&proto).unwrap();
            if flags == [false, false] {
                // Nothing was taken out: the nodes are those of the original, but for constants that are now shared.
                let original = load(export).into_model().unwrap().proto.graph.unwrap();
                let count = |graph: crate::onnx::messages::GraphProto| {
                    let nodes = graph.node.iter();
                    nodes.filter(|node| node.op_type.as_deref() != Some("Constant")).count()
                };
                assert_eq!(count(proto.graph.unwrap()), count(original), "{export}");
            }
        }
    }
}

#[test]
fn a_cut_that_is_not_there_is_an_error() {
    let rules = "version: 1\nrules: [{ name: c, match: { kind: cross }, cut: gated, broadcast: { range: 2 } }]";
    let error = patched(TORCHSCRIPT, rules).unwrap_err();
    assert!(
        matches!(&error, RewriteError::NoGate { rule, site } if rule == "c" && site == "cross.0"),
        "{error}"
    );
}

#[test]
fn a_patched_model_is_refused() {
    let (model, _) = patched(TORCHSCRIPT, RULES).unwrap();
    let error = refuse_patched(&model).unwrap_err();
    assert!(error.to_string().contains("pab-patch"), "{error}");
}

#[test]
fn a_site_with_several_exits_is_one_if_with_a_cache_for_each() {
    let rules = "
version: 1
rules:
  - { name: joint, match: { kind: joint }, broadcast: { range: 2 } }
  - { name: feed, match: { kind: mlp, blocks: 1 }, cut: gated, broadcast: { range: 2 } }
";
    let (model, plan) = patched("flux/flux.dyn23.dynamic.onnx", rules).unwrap();
    insta::assert_snapshot!("exits", shown(&model));
    let caches: Vec<(&str, &str)> = plan
        .caches()
        .map(|(site, cache)| (site.name.as_str(), cache.input.as_str()))
        .collect();
    assert_eq!(
        caches,
        [
            ("joint.0", "pab.cache.joint.0.latent"),
            ("joint.0", "pab.cache.joint.0.text"),
            ("mlp.1", "pab.cache.mlp.1"),
            ("joint.1", "pab.cache.joint.1.latent"),
            ("joint.1", "pab.cache.joint.1.text"),
            ("joint.2", "pab.cache.joint.2"),
            ("joint.3", "pab.cache.joint.3"),
        ]
    );
    validate(&model.into_model().unwrap().proto).unwrap();
    // Both exits go when the module is broadcast.
    let (model, plan) = patched("flux/flux.dyn23.dynamic.onnx", rules).unwrap();
    let broadcast = without(model, &plan, &[true, true]).unwrap();
    assert!(broadcast.graph.nodes().all(|(_, node)| !node.is("Attention")));
    validate(&broadcast.into_model().unwrap().proto).unwrap();
}

/// Inputs and outputs of the rewrite, and its nodes: those of the rule, and those of the switches around the modules.
fn shown_in_full(model: &ModelGraph) -> String {
    let mut text = shown(model);
    let graph = &model.graph;
    for (_, node) in graph.nodes() {
        let name = |value: Option<crate::graph::ValueId>| value.map_or("", |value| graph.value(value).name());
        if node.name().starts_with("pab.forecast.") || node.name().starts_with("pab.state.") {
            let inputs: Vec<_> = node.inputs().map(name).collect();
            writeln!(
                text,
                "{} = {}({})",
                name(node.output(0)),
                node.operator(),
                inputs.join(", ")
            )
            .unwrap();
        }
        let Some(branch) = node.body("then_branch") else {
            continue;
        };
        let outputs: Vec<_> = node.outputs().iter().map(|output| name(*output)).collect();
        writeln!(text, "{}, as {}:", node.name(), outputs.join(", ")).unwrap();
        for (branch, all) in [(branch, true), (node.body("else_branch").unwrap(), false)] {
            let name = |value: Option<crate::graph::ValueId>| value.map_or("", |value| branch.value(value).name());
            let nodes = branch.nodes().map(|(_, node)| node);
            for node in nodes.filter(|node| all || node.name().starts_with("pab.")) {
                let inputs: Vec<_> = node.inputs().map(name).collect();
                let (output, operator) = (name(node.output(0)), node.operator());
                writeln!(text, "  {output} = {operator}({})", inputs.join(", ")).unwrap();
            }
            let outputs: Vec<_> = branch.outputs().map(|output| name(Some(output))).collect();
            writeln!(text, "  gives {}", outputs.join(", ")).unwrap();
        }
    }
    text
}

#[test]
fn the_switch_form_of_forecasts() {
    let rules = "
version: 1
rules:
  - { name: line, match: { kind: temporal, blocks: 0 }, forecast: { order: 1, range: 2 } }
  - { name: parabola, match: { kind: spatial, blocks: 1 }, forecast: { order: 2, range: 3 } }
";
    let (model, plan) = patched(TORCHSCRIPT, rules).unwrap();
    insta::assert_snapshot!("forecast", shown_in_full(&model));
    validate(&model.into_model().unwrap().proto).unwrap();
    let roles: Vec<_> = plan
        .caches()
        .map(|(_, cache)| (cache.input.as_str(), cache.role, cache.in_place))
        .collect();
    assert_eq!(
        roles,
        [
            ("pab.cache.temporal.0", CacheRole::Value, false),
            ("pab.cache.temporal.0.d1", CacheRole::FirstDifference, false),
            ("pab.cache.spatial.1", CacheRole::Value, false),
            ("pab.cache.spatial.1.d1", CacheRole::FirstDifference, false),
            ("pab.cache.spatial.1.d2", CacheRole::SecondDifference, false),
        ]
    );
    // Narrowed, each value is rounded on its way into the cache.
    let options = SwitchOptions {
        cache_type: Some(CacheType::F16),
    };
    let (model, _) = patched_as("flux/flux.dyn23.dynamic.onnx", ONE_OF_FLUX, &options).unwrap();
    insta::assert_snapshot!("forecast_narrowed", shown_in_full(&model));
    validate(&model.into_model().unwrap().proto).unwrap();
}

const ONE_OF_FLUX: &str =
    "{ version: 1, rules: [{ name: joint, match: { kind: joint, blocks: 0 }, forecast: { order: 1, range: 2 } }] }";

#[test]
fn the_switch_form_of_narrowed_caches() {
    let rules = ONE_OF_FLUX.replace("forecast: { order: 1, ", "broadcast: { ");
    let options = SwitchOptions {
        cache_type: Some(CacheType::Bf16),
    };
    let (model, _) = patched_as("flux/flux.dyn23.dynamic.onnx", &rules, &options).unwrap();
    insta::assert_snapshot!("narrowed", shown_in_full(&model));
    validate(&model.into_model().unwrap().proto).unwrap();
}

#[test]
fn static_graphs_of_forecasts_take_and_give_what_they_need() {
    let rules = "
version: 1
rules:
  - { name: line, match: { kind: temporal }, forecast: { order: 1, range: 2 } }
  - { name: rest, match: { kind: [spatial, cross] }, broadcast: { range: 3 } }
";
    for flags in [[false, false], [true, false], [false, true], [true, true]] {
        for chained in [false, true] {
            let (model, plan) = patched(TORCHSCRIPT, rules).unwrap();
            let model = if chained {
                variant(model, &plan, &flags).unwrap()
            } else {
                without(model, &plan, &flags).unwrap()
            };
            assert!(model.graph.nodes().all(|(_, node)| !node.is("If")));
            let named = |values: Vec<crate::graph::ValueId>| {
                let names = values
                    .into_iter()
                    .map(|value| model.graph.value(value).name().to_owned());
                names.filter(|name| name.starts_with("pab.")).collect::<Vec<_>>()
            };
            let (inputs, outputs) = (
                named(model.graph.inputs().collect()),
                named(model.graph.outputs().collect()),
            );
            let state = inputs.iter().any(|name| name == "pab.state.line");
            if chained {
                assert_eq!(outputs.len(), plan.fed_back().count());
                assert!(state);
                // What a forecast computes is made from the values before it; what is reused only when it is broadcast.
                let forecast = plan.sites_of(0).count() * if flags[0] { 2 } else { 1 };
                let reused = if flags[1] { plan.sites_of(1).count() } else { 0 };
                assert_eq!(inputs.len(), 1 + forecast + reused, "{inputs:?}");
            } else {
                assert!(outputs.is_empty());
                assert_eq!(state, flags[0]);
            }
            validate(&model.into_model().unwrap().proto).unwrap();
        }
    }
}

#[test]
fn bfloat16_needs_an_operator_set_that_has_it() {
    let model = load(TORCHSCRIPT);
    let axes = Axes::analyse(&model, &InputLabels::default()).unwrap();
    let sites = Sites::find(&model, &axes).unwrap();
    let rules = Rules::parse("test.yaml", RULES).unwrap();
    let choices = select(&sites, &rules, None).unwrap();
    let mut proto = model.clone().into_model().unwrap().proto;
    proto.opset_import[0].version = Some(15);
    let old = ModelGraph::new(Model::from_proto(proto)).unwrap();
    let patch = |cache_type| {
        let options = SwitchOptions {
            cache_type: Some(cache_type),
        };
        switch(old.clone(), &choices, &rules, &options)
    };
    let error = patch(CacheType::Bf16).unwrap_err().to_string();
    assert!(error.contains("need operator set 16, and the model has 15"), "{error}");
    patch(CacheType::F16).unwrap();
}

#[test]
fn a_plan_without_a_cache_is_refused() {
    let (_, plan) = patched(TORCHSCRIPT, RULES).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&plan.to_json().unwrap()).unwrap();
    json["sites"][0]["caches"] = serde_json::json!([]);
    let error = Plan::parse(&json.to_string()).unwrap_err().to_string();
    assert!(error.contains("has no cache"), "{error}");
}

#[test]
fn the_published_feed_forwards_of_latte_are_sites() {
    let text = include_str!("../../rules/latte.yaml");
    let (_, plan) = patched(TORCHSCRIPT, text).unwrap();
    let rule = plan.rules.iter().position(|rule| rule.name == "mlp").unwrap();
    let sites: Vec<&str> = plan.sites_of(rule).map(|site| site.name.as_str()).collect();
    assert_eq!(sites, ["mlp.0", "mlp.1", "mlp.2", "mlp.3"]);
    let json = serde_json::to_value(&plan.rules[rule]).unwrap();
    assert_eq!(json["strategy"], "reuse");
    assert_eq!(json["timing"]["skip"], 2);
}

#[test]
fn rules_that_ask_costs_need_sizes() {
    let rules = "version: 1\nrules: [{ name: r, match: { kind: mlp, share: '>= 0.01' }, broadcast: { range: 2 } }]";
    let error = patched(TORCHSCRIPT, rules).unwrap_err().to_string();
    assert!(
        error.contains("asks for the share of site `mlp.0`") && error.contains("--size"),
        "{error}"
    );
    let model = load(TORCHSCRIPT);
    let axes = Axes::analyse(&model, &InputLabels::default()).unwrap();
    let sites = Sites::find(&model, &axes).unwrap();
    let sizes = axes.symbols().map(|symbol| (symbol, 4)).collect::<Vec<_>>();
    let costs = sites.costs(&model, &axes, &crate::axes::Bindings::of(sizes));
    let rules = Rules::parse("test.yaml", rules).unwrap();
    let choices = select(&sites, &rules, Some(&costs)).unwrap();
    assert!(!choices.is_empty() && choices.iter().all(|choice| choice.site.kind.word() == "mlp"));
}
