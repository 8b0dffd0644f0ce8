//! Guidance beside other rules: whole loops against what the original itself gives for halves of its batch.

use crate::equality::{Patched, inputs, open, open_unfused, patch_with, same, step};
use crate::forms::compute_the_same_loops;
use crate::program::{fail, root, shipped_model};
use crate::wide::{Outputs, Temporary, half, load, saved};
use ndarray::{ArrayD, Axis, Slice, concatenate};
use pab_patch::attention::{Sites, SpanEntry};
use pab_patch::axes::{Axes, InputLabels};
use pab_patch::graph::{ModelGraph, ValueId};
use pab_patch::onnx::messages::{DataType, Dimension, TensorShapeProto, TensorType, TypeProto, ValueInfoProto};
use pab_patch::rewrite::CacheRole;
use pab_patch::runtime::{Denoiser, RuntimeError, Tensor};
use pab_patch::schedule::Schedule;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// Steps at which sites and guidance are broadcast apart, together, and one behind the other: among them whole
/// broadcasts of what was computed for one half.
const SITES: &str = "
version: 1
rules:
  - { name: attention, match: { kind: [spatial, joint] }, broadcast: { steps: [1, 2, 4, 6, 8, 9, 11] } }
  - { name: others, match: { kind: [cross, mlp] }, broadcast: { steps: [2, 3, 5, 8, 9, 11] } }
  - { name: cfg, guidance: { steps: [2, 3, 5, 6, 9, 10] } }
";

const SPANS: &str = "
version: 1
rules:
  - { name: cfg, guidance: { steps: [2, 3, 5, 6, 9, 10] } }
  - { name: blocks, match: { blocks: 1..3 }, residual: { steps: [1, 2, 4, 6, 8, 9, 11] } }
";

const GATED: &str = "
version: 1
rules:
  - { name: attention, match: { kind: [spatial, joint], blocks: 1.. }, cut: gated, broadcast: { steps: [2, 3, 5, 8, 9, 11] } }
  - { name: cfg, guidance: { steps: [2, 3, 5, 6, 9, 10] } }
";

const STEPS: usize = 12;

fn models() -> Vec<PathBuf> {
    let corpus = root().join("tests/data/corpus");
    let names = [
        "latte.ts17.dynamic.onnx",
        "latte.dyn18.dynamic.onnx",
        "flux/flux.dyn23.dynamic.onnx",
        "stdit3/stdit3.dyn18.dynamic.onnx",
        "osp10/osp10.ts17.dynamic.onnx",
    ];
    let mut models = vec![shipped_model()];
    models.extend(names.map(|name| corpus.join(name)));
    models
}

fn schedule(patched: &Patched) -> Schedule {
    let counted: Vec<f64> = (0..STEPS).map(|step| step as f64).collect();
    patched.plan.schedule(&counted)
}

/// A float tensor of any sizes.
fn float(rank: Option<usize>) -> TypeProto {
    TypeProto {
        tensor_type: Some(TensorType {
            elem_type: Some(DataType::Float as i32),
            shape: rank.map(|rank| TensorShapeProto {
                dim: vec![Dimension::default(); rank],
            }),
        }),
        ..TypeProto::default()
    }
}

/// What a plan caches, by the names that the values have in the original.
struct Original {
    path: PathBuf,
    /// Name and rule of each value of a site.
    values: Vec<(String, usize)>,
    /// Entry, exit and rule of each stream of a span.
    streams: Vec<(String, String, usize)>,
    /// The original with some of these values given, and the others recorded.
    opened: HashMap<Vec<String>, (Temporary, Denoiser)>,
    guidance: usize,
    batched: Vec<String>,
    /// The axis in which each value has its halves, told from what it is for one and for both.
    axes: BTreeMap<String, Option<usize>>,
    caches: BTreeMap<String, ArrayD<f32>>,
    difference: Option<ArrayD<f32>>,
}

impl Original {
    fn new(path: &Path, patched: &Patched) -> Original {
        let model = load(path);
        let axes = Axes::analyse(&model, &InputLabels::default()).unwrap();
        let sites = Sites::find(&model, &axes).unwrap();
        let name = |value: ValueId| model.graph.value(value).name().to_owned();
        let (mut values, mut streams, mut guidance) = (Vec::new(), Vec::new(), None);
        for planned in &patched.plan.sites {
            match planned.caches[0].role {
                CacheRole::Guidance => guidance = Some(planned.rule),
                CacheRole::Residual => {
                    let span = sites
                        .span(&model, &axes, planned.block..=planned.last_block.unwrap())
                        .unwrap();
                    for stream in &span.streams {
                        let SpanEntry::Value(entry) = stream.entry else {
                            panic!("streams that are put together have two entries")
                        };
                        streams.push((name(entry), name(stream.exit.value), planned.rule));
                    }
                }
                _ => {
                    let site = sites.sites.iter().find(|site| site.name == planned.name).unwrap();
                    let cuts = match planned.cut {
                        pab_patch::rules::CutPoint::Output => &site.output,
                        pab_patch::rules::CutPoint::Gated => site.gated.as_ref().unwrap(),
                    };
                    values.extend(cuts.iter().map(|cut| (name(cut.value), planned.rule)));
                }
            }
        }
        let session = open_unfused(path);
        let batched = session
            .inputs()
            .iter()
            .filter(|port| port.shape.first() == Some(&None) && !port.name.contains("ids"))
            .map(|port| port.name.clone())
            .collect();
        let mut original = Original {
            path: path.to_owned(),
            values,
            streams,
            opened: HashMap::new(),
            guidance: guidance.unwrap(),
            batched,
            axes: BTreeMap::new(),
            caches: BTreeMap::new(),
            difference: None,
        };
        let both = inputs(&session, 0);
        let one = original.second_half(&both);
        let (_, both) = original.evaluate(&both, &BTreeMap::new());
        let (_, one) = original.evaluate(&one, &BTreeMap::new());
        let differs = |name: &String| {
            let mut sizes = both[name].shape().iter().zip(one[name].shape());
            sizes.position(|(both, one)| both != one)
        };
        original.axes = both.keys().map(|name| (name.clone(), differs(name))).collect();
        assert!(original.axes.values().any(Option::is_some));
        original
    }

    fn second_half(&self, given: &Outputs) -> Outputs {
        let halved = |(name, tensor): &(String, Tensor)| match self.batched.contains(name) {
            true => (name.clone(), half(tensor, 1)),
            false => (name.clone(), tensor.clone()),
        };
        given.iter().map(halved).collect()
    }

    /// All values that are recorded or given.
    fn names(&self) -> Vec<String> {
        let streams = self.streams.iter();
        let of_streams = streams.flat_map(|(entry, exit, _)| [entry.clone(), exit.clone()]);
        self.values
            .iter()
            .map(|(name, _)| name.clone())
            .chain(of_streams)
            .collect()
    }

    /// The original's output, and the values that were not given.
    fn evaluate(
        &mut self,
        own: &Outputs,
        given: &BTreeMap<String, ArrayD<f32>>,
    ) -> (ArrayD<f32>, BTreeMap<String, ArrayD<f32>>) {
        let key: Vec<String> = given.keys().cloned().collect();
        let names = self.names();
        let path = &self.path;
        let (_, denoiser) = self.opened.entry(key).or_insert_with(|| {
            let mut model: ModelGraph = load(path);
            for (name, value) in given {
                let old = model.graph.find(name).unwrap();
                let info = ValueInfoProto {
                    name: Some(format!("given.{name}")),
                    r#type: Some(float(Some(value.ndim()))),
                    ..ValueInfoProto::default()
                };
                let new = model.graph.add_input(info).unwrap();
                model.graph.replace_uses(old, new);
            }
            for name in names.iter().filter(|name| !given.contains_key(*name)) {
                let value = model.graph.find(name).unwrap();
                let info = ValueInfoProto {
                    r#type: Some(float(None)),
                    ..ValueInfoProto::default()
                };
                model.graph.add_output(value, info);
            }
            model.graph.eliminate_dead_code();
            let file = saved(model);
            let denoiser = Denoiser::plain(open_unfused(&file.path));
            (file, denoiser)
        });
        let mut all = own.clone();
        for (name, value) in given {
            all.push((format!("given.{name}"), Tensor::from_array(value.clone())));
        }
        let mut outputs = step(denoiser, &all, &[]).into_iter();
        let output = outputs.next().unwrap().1.into_f32();
        (
            output,
            outputs.map(|(name, tensor)| (name, tensor.into_f32())).collect(),
        )
    }

    /// What a step that runs for one half or for both reads of a cache.
    fn read(&self, name: &str, axis: &str, one: bool) -> ArrayD<f32> {
        match self.axes[axis].filter(|_| one) {
            Some(axis) => part(&self.caches[name], axis, 1),
            None => self.caches[name].clone(),
        }
    }

    /// Each half of a cache is what was computed last for it.
    fn keep(&mut self, name: &str, axis: &str, new: ArrayD<f32>, one: bool) {
        let kept = match self.axes[axis].filter(|_| one) {
            Some(axis) => {
                let first = part(&self.caches[name], axis, 0);
                concatenate(Axis(axis), &[first.view(), new.view()]).unwrap()
            }
            None => new,
        };
        self.caches.insert(name.to_owned(), kept);
    }

    fn step(&mut self, own: &Outputs, flags: &[bool]) -> ArrayD<f32> {
        let one = flags[self.guidance];
        let own = if one { self.second_half(own) } else { own.clone() };
        let mut given = BTreeMap::new();
        for (name, rule) in &self.values {
            if flags[*rule] {
                given.insert(name.clone(), self.read(name, name, one));
            }
        }
        let streams = self.streams.clone();
        if streams.iter().any(|(_, _, rule)| flags[*rule]) {
            let (_, recorded) = self.evaluate(&own, &given);
            for (entry, exit, _) in &streams {
                let residual = self.read(exit, exit, one);
                given.insert(exit.clone(), &recorded[entry] + &residual);
            }
        }
        let (output, recorded) = self.evaluate(&own, &given);
        for (name, rule) in self.values.clone() {
            if !flags[rule] {
                self.keep(&name, &name, recorded[&name].clone(), one);
            }
        }
        for (entry, exit, rule) in &streams {
            if !flags[*rule] {
                self.keep(exit, exit, &recorded[exit] - &recorded[entry], one);
            }
        }
        if !one {
            self.difference = Some(part(&output, 0, 0) - part(&output, 0, 1));
            return output;
        }
        let first = &output + self.difference.as_ref().unwrap();
        concatenate(Axis(0), &[first.view(), output.view()]).unwrap()
    }
}

/// One half of an array along an axis.
fn part(all: &ArrayD<f32>, axis: usize, which: isize) -> ArrayD<f32> {
    let half = (all.len_of(Axis(axis)) / 2) as isize;
    let slice = Slice::new(which * half, Some((which + 1) * half), 1);
    all.slice_axis(Axis(axis), slice).to_owned()
}

/// Numbers of each clip, such as its height, are not negative: of a negative area some models take the root.
pub fn sensible(given: Outputs) -> Outputs {
    let of_one = |(name, tensor): (String, Tensor)| match tensor.shape() {
        [_] => {
            let element_type = tensor.element_type();
            let values = tensor.into_f32().mapv(f32::abs);
            (name, Tensor::from_array(values).cast(element_type))
        }
        _ => (name, tensor),
    };
    given.into_iter().map(of_one).collect()
}

fn equals_recomputation(model: &Path, rules: &str) {
    let what = model.display().to_string();
    let patched = patch_with(model, rules);
    let schedule = schedule(&patched);
    let mut original = Original::new(model, &patched);
    let mut switched = patched.opened_by(open_unfused);
    for number in 0..STEPS {
        let given = sensible(inputs(switched.session(), number as u64));
        let flags = schedule.flags(number);
        let found = step(&mut switched, &given, flags);
        let expected = vec![(found[0].0.clone(), Tensor::from_array(original.step(&given, flags)))];
        same(&expected, &found, &format!("{what}, step {number} {flags:?}"));
        // What is computed is the original's, and nothing else is.
        let (computed, _) = original.evaluate(&given, &BTreeMap::new());
        let found = found[0].1.clone().into_f32();
        assert!(found.iter().all(|value| value.is_finite()), "{what}, step {number}");
        let is_the_original = computed == found;
        assert_eq!(is_the_original, !flags.contains(&true), "{what}, step {number}");
    }
}

#[test]
fn sites_beside_guidance_equal_their_recomputation_from_the_original() {
    for model in models() {
        equals_recomputation(&model, SITES);
    }
}

#[test]
fn gated_cuts_and_spans_beside_guidance_equal_their_recomputation() {
    equals_recomputation(&shipped_model(), SPANS);
    for model in &models()[..3] {
        equals_recomputation(model, GATED);
    }
}

#[test]
fn drives_and_forms_compute_the_same_loops_beside_guidance() {
    for model in &models()[..4] {
        compute_the_same_loops(model, SITES);
    }
    compute_the_same_loops(&shipped_model(), SPANS);
}

#[test]
fn nothing_broadcast_beside_guidance_equals_the_original() {
    for model in models() {
        let patched = patch_with(&model, SITES);
        let flags = vec![false; patched.plan.rules.len()];
        let (mut original, mut switched) = (Denoiser::plain(open(&model)), patched.open());
        for seed in [1, 2] {
            let given = inputs(original.session(), seed);
            let expected = step(&mut original, &given, &[]);
            let found = step(&mut switched, &given, &flags);
            same(&expected, &found, &model.display().to_string());
        }
    }
}

/// Caches that are held only while they are needed, with types that are narrowed too.
#[test]
fn memory_is_held_only_while_a_half_is_needed() {
    for model in [
        shipped_model(),
        root().join("tests/data/corpus/flux/flux.dyn23.dynamic.onnx"),
    ] {
        for options in [&[][..], &["--cache-dtype", "f16"]] {
            let patched = crate::equality::patch_as(&model, SITES, options);
            let schedule = schedule(&patched);
            let (mut all, mut some) = (patched.open(), patched.open());
            some.begin(&schedule).unwrap();
            let mut held = Vec::new();
            for number in 0..STEPS {
                let given = inputs(all.session(), number as u64);
                let flags = schedule.flags(number);
                let expected = step(&mut all, &given, flags);
                let found = step(&mut some, &given, flags);
                same(&expected, &found, &format!("{}, step {number}", model.display()));
                assert!(some.held_bytes() <= all.held_bytes());
                held.push(some.held_bytes());
            }
            assert!(held.iter().any(|bytes| *bytes < all.held_bytes()), "{held:?}");
            assert_eq!(held[STEPS - 1], 0);
        }
    }
}

/// What was computed for the second half alone is no whole cache.
#[test]
fn a_first_half_that_was_never_computed_is_missed() {
    let patched = patch_with(&shipped_model(), SITES);
    // The schedule never reads the attentions' caches, so that they are not held.
    let [compute, guidance] = [vec![false; 3], vec![false, false, true]];
    let course = Schedule::from_flags(3, &[compute.clone(), guidance.clone(), vec![false, true, true]]);
    let mut switched = patched.open();
    switched.begin(&course).unwrap();
    let given = inputs(switched.session(), 1);
    step(&mut switched, &given, &compute);
    step(&mut switched, &given, &guidance);
    // Leaving the schedule: from here on everything is held, and a step of one half fills one half.
    let borrowed: Vec<(&str, &Tensor)> = given.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let missing = |switched: &mut Denoiser, flags: &[bool]| {
        matches!(switched.step(&borrowed, flags), Err(RuntimeError::CacheEmpty { .. }))
    };
    assert!(missing(&mut switched, &[true, false, true]));
    step(&mut switched, &given, &guidance);
    step(&mut switched, &given, &[true, true, true]);
    assert!(missing(&mut switched, &[true, false, false]));
    step(&mut switched, &given, &compute);
    step(&mut switched, &given, &[true, true, false]);
}

#[test]
fn forecasts_beside_guidance_are_refused_with_both_lines() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.yaml");
    let text = "version: 1
rules:
  - { name: cfg, guidance: { range: 2 } }
  - { name: spatial, match: { kind: spatial }, forecast: { range: 2 } }
";
    std::fs::write(&rules, text).unwrap();
    let model = shipped_model();
    let error = fail(
        4,
        [
            model.as_os_str(),
            "--rules".as_ref(),
            rules.as_os_str(),
            "-o".as_ref(),
            folder.path().as_os_str(),
        ],
    );
    assert!(
        error.contains("`cfg` (line 3)") && error.contains("`spatial` (line 4)") && error.contains("`residual`"),
        "{error}"
    );
}
