//! Spans of blocks and guidance, on every export and the shipped model.

use crate::equality::{Patched, inputs, open, open_unfused, patch_with, same, step};
use crate::program::{self, architectures, corpus, fail, run, shipped_model};
use crate::rounded;
use pab_patch::attention::{Sites, Span, SpanEntry};
use pab_patch::axes::{Axes, InputLabels};
use pab_patch::graph::ModelGraph;
use pab_patch::onnx::messages::ValueInfoProto;
use pab_patch::onnx::{Model, SaveOptions};
use pab_patch::runtime::{Denoiser, Tensor};
use std::path::{Path, PathBuf};

pub type Outputs = Vec<(String, Tensor)>;

/// All blocks but the first, which every export has.
const BEHIND_THE_FIRST: &str =
    "{ version: 1, rules: [{ name: blocks, match: { blocks: '1..' }, residual: { range: 2 } }] }";

const GUIDANCE: &str = "{ version: 1, rules: [{ name: cfg, guidance: { range: 2 } }] }";

fn exports() -> Vec<PathBuf> {
    let mut exports = [corpus(), architectures(), vec![shipped_model()]].concat();
    // What optimizers and converters made of them is looked at in `equality`. In HunyuanImage's TorchScript export a length
    // that one block computes is used behind the last one, so that a span of blocks is refused.
    exports.retain(|path| {
        let folder = path.parent().and_then(Path::file_name);
        folder != Some("processed".as_ref()) && program::runs(path) && folder != Some("hunyuanimage".as_ref())
    });
    exports
}

/// Exports whose batch is open.
pub fn dynamic() -> Vec<PathBuf> {
    let is_open = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.contains(".dynamic.") && !path.to_string_lossy().contains("quantized") || *path == shipped_model()
    };
    exports().into_iter().filter(is_open).collect()
}

/// A model that stays only until it is dropped.
pub struct Temporary {
    _folder: tempfile::TempDir,
    pub path: PathBuf,
}

pub fn load(path: &Path) -> ModelGraph {
    ModelGraph::new(Model::load(path).unwrap()).unwrap()
}

pub fn saved(model: ModelGraph) -> Temporary {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    model
        .into_model()
        .unwrap()
        .save(&path, &SaveOptions::default())
        .unwrap();
    Temporary { _folder: folder, path }
}

#[track_caller]
fn close(one: &Outputs, other: &Outputs, most: f32, what: &str) {
    assert_eq!(one.len(), other.len(), "{what}");
    for ((name, one), (_, other)) in one.iter().zip(other) {
        assert_eq!(one.shape(), other.shape(), "{what}: `{name}`");
        let (one, other) = (one.clone().into_f32(), other.clone().into_f32());
        let largest = one.iter().fold(1.0_f32, |largest, value| largest.max(value.abs()));
        let differences = one.iter().zip(&other).map(|(one, other)| (one - other).abs());
        let difference = differences.fold(0.0, f32::max);
        assert!(
            difference <= most * largest,
            "{what}: `{name}` differs by {difference} of {largest}"
        );
    }
}

/// Behind a span of Latte nothing is fused with its last addition. In other exports ONNX Runtime fuses it with the norm
/// that follows, which an `If` between them prevents; the fused kernel rounds differently.
fn fuses_alike(model: &Path) -> bool {
    corpus().iter().any(|path| path == model) || *model == shipped_model()
}

fn both_ways(models: &[PathBuf], rules: &str) {
    for model in models {
        let what = model.display().to_string();
        let patched = patch_with(model, rules);
        let mut fused = (Denoiser::plain(open(model)), patched.open());
        let given = inputs(fused.0.session(), 3);
        let most = if rounded::is_half(model) { 4e-3 } else { 1e-6 };
        close(
            &step(&mut fused.0, &given, &[]),
            &step(&mut fused.1, &given, &[false]),
            most,
            &what,
        );
        // Opened once more only where fusions have to be left out.
        let (mut original, mut switched) = match fuses_alike(model) {
            true => fused,
            false => (Denoiser::plain(open_unfused(model)), patched.opened_by(open_unfused)),
        };
        for seed in [1, 2] {
            let inputs = inputs(original.session(), seed);
            let expected = step(&mut original, &inputs, &[]);
            let found = step(&mut switched, &inputs, &[false]);
            same(&expected, &found, &format!("{what}, step {seed}"));
            // Float16 rounds what is added and taken off.
            let most = if rounded::is_half(model) { 4e-3 } else { 1e-5 };
            for _ in 0..2 {
                let broadcast = step(&mut switched, &inputs, &[true]);
                close(&expected, &broadcast, most, &what);
            }
        }
    }
}

#[test]
fn a_span_that_computes_equals_the_original_and_broadcasts_what_it_computed() {
    both_ways(&exports(), BEHIND_THE_FIRST);
    // The default needs three blocks.
    let inner = "{ version: 1, rules: [{ name: blocks, residual: { range: 2 } }] }";
    let deep = |path: &PathBuf| {
        !["cogvideox", "dit.", "mochi", "pixart", "sana"]
            .iter()
            .any(|name| path.to_string_lossy().contains(name))
    };
    let deep: Vec<PathBuf> = exports().into_iter().filter(deep).collect();
    both_ways(&deep, inner);
    // Whole models, and several spans by one rule.
    let all = "{ version: 1, rules: [{ name: blocks, match: { blocks: '0..' }, residual: { range: 2 } }] }";
    both_ways(&[shipped_model(), corpus()[0].clone()], all);
    let two = "{ version: 1, rules: [{ name: blocks, match: { blocks: [1, 3..5] }, residual: { range: 2 } }] }";
    both_ways(&[shipped_model()], two);
}

#[test]
fn guidance_that_computes_equals_the_original_and_broadcasts_what_it_computed() {
    let models = dynamic();
    assert!(models.len() >= 5);
    both_ways(&models, GUIDANCE);
}

fn equals_static_graph(models: &[PathBuf], rules: &str) {
    for model in models {
        let what = model.display().to_string();
        let patched = patch_with(model, rules);
        let mut switched = patched.opened_by(open_unfused);
        let first = inputs(switched.session(), 1);
        step(&mut switched, &first, &[false]);
        let caches = switched.caches().unwrap();
        let second = inputs(switched.session(), 2);
        let broadcast = step(&mut switched, &second, &[true]);
        let mut variant = patched.variant(&[true], open_unfused);
        let mut given = second.clone();
        given.extend(caches);
        same(&step(&mut variant, &given, &[]), &broadcast, &what);
        assert_ne!(
            step(&mut switched, &second, &[false]),
            broadcast,
            "{what}: nothing was broadcast"
        );
        // And nothing broadcast is the original again.
        let mut computing = patched.variant(&[false], open_unfused);
        let mut original = Denoiser::plain(open_unfused(model));
        same(
            &step(&mut original, &second, &[]),
            &step(&mut computing, &second, &[]),
            &what,
        );
    }
}

#[test]
fn broadcast_steps_equal_static_graphs() {
    equals_static_graph(&exports(), BEHIND_THE_FIRST);
    equals_static_graph(&dynamic(), GUIDANCE);
}

#[test]
fn nothing_of_a_span_is_left_in_its_static_graph() {
    let rules = "{ version: 1, rules: [{ name: blocks, match: { blocks: '0..' }, residual: { range: 2 } }] }";
    let patched = patch_with(&shipped_model(), rules);
    let count = |flag| {
        let graph = pab_patch::rewrite::without(load(&patched.path), &patched.plan, &[flag]).unwrap();
        let nodes = graph.graph.nodes();
        nodes.filter(|(_, node)| node.is("Softmax")).count()
    };
    assert_eq!((count(false), count(true)), (18, 0));
}

/// The span that a patched model has, found again in the original.
fn span_of(model: &ModelGraph, patched: &Patched) -> Span {
    let axes = Axes::analyse(model, &InputLabels::default()).unwrap();
    let sites = Sites::find(model, &axes).unwrap();
    let site = &patched.plan.sites[0];
    sites.span(model, &axes, site.block..=site.last_block.unwrap()).unwrap()
}

/// The model up to the span's streams, and the model behind them.
fn parted(model: &Path, patched: &Patched) -> (Temporary, Temporary, Vec<(String, String)>) {
    let mut head = load(model);
    let span = span_of(&head, patched);
    let mut names = Vec::new();
    for stream in &span.streams {
        let SpanEntry::Value(entry) = &stream.entry else {
            panic!("streams that are put together have two entries")
        };
        for value in [*entry, stream.exit.value] {
            let info = ValueInfoProto {
                r#type: head.graph.value_type(value).cloned().or_else(|| {
                    let first = head.graph.inputs().next()?;
                    let mut known = head.graph.value_type(first)?.clone();
                    known.tensor_type.as_mut()?.shape = None;
                    Some(known)
                }),
                ..ValueInfoProto::default()
            };
            head.graph.add_output(value, info);
        }
        let name = |value| head.graph.value(value).name().to_owned();
        names.push((name(*entry), name(stream.exit.value)));
    }
    let mut tail = load(model);
    for stream in &span.streams {
        let mut info = ValueInfoProto {
            r#type: tail.graph.value_type(tail.graph.inputs().next().unwrap()).cloned(),
            name: Some(format!("given.{}", tail.graph.value(stream.exit.value).name())),
            ..ValueInfoProto::default()
        };
        let tensor = info.r#type.as_mut().unwrap().tensor_type.as_mut().unwrap();
        let dims = &mut tensor.shape.as_mut().unwrap().dim;
        dims.resize_with(stream.exit.shape.len(), Default::default);
        for dim in dims {
            (dim.dim_value, dim.dim_param) = (None, None);
        }
        let given = tail.graph.add_input(info).unwrap();
        tail.graph.replace_uses(stream.exit.value, given);
    }
    tail.graph.eliminate_dead_code();
    (saved(head), saved(tail), names)
}

/// Five steps, of which two broadcast, against what the original's own values give.
#[test]
fn a_loop_equals_its_recomputation_from_recorded_streams() {
    let flux = |path: &PathBuf| path.to_string_lossy().contains("flux");
    let models = exports()
        .into_iter()
        .filter(|path| !rounded::is_half(path) && !flux(path));
    for model in models {
        let what = model.display().to_string();
        let patched = patch_with(&model, BEHIND_THE_FIRST);
        let (head, tail, streams) = parted(&model, &patched);
        let mut switched = patched.opened_by(open_unfused);
        let mut head = Denoiser::plain(open_unfused(&head.path));
        let mut tail = Denoiser::plain(open_unfused(&tail.path));
        let mut residuals: Vec<ndarray::ArrayD<f32>> = Vec::new();
        for (number, broadcast) in [false, true, true, false, true].into_iter().enumerate() {
            let given = inputs(switched.session(), number as u64);
            let found = step(&mut switched, &given, &[broadcast]);
            let recorded = step(&mut head, &given, &[]);
            let value = |name: &str| {
                let (_, tensor) = recorded.iter().find(|(output, _)| output == name).unwrap();
                tensor.clone().into_f32()
            };
            if !broadcast {
                residuals = streams.iter().map(|(entry, exit)| value(exit) - value(entry)).collect();
                let own: Outputs = recorded.into_iter().take(found.len()).collect();
                same(&own, &found, &what);
                continue;
            }
            let wanted = |name: &str| tail.session().inputs().iter().any(|port| port.name == name);
            let mut behind: Outputs = given.into_iter().filter(|(name, _)| wanted(name)).collect();
            for ((entry, exit), residual) in streams.iter().zip(&residuals) {
                behind.push((format!("given.{exit}"), Tensor::from_array(value(entry) + residual)));
            }
            close(
                &step(&mut tail, &behind, &[]),
                &found,
                1e-5,
                &format!("{what}, step {number}"),
            );
        }
    }
}

/// One half of a batch of two.
pub fn half(tensor: &Tensor, which: usize) -> Tensor {
    let element_type = tensor.element_type();
    let all = tensor.clone().into_f32();
    let one = all.index_axis(ndarray::Axis(0), which).insert_axis(ndarray::Axis(0));
    Tensor::from_array(one.to_owned()).cast(element_type)
}

/// The original for the prompt alone, and the difference that it made to both at the last computed step.
#[test]
fn a_guided_loop_equals_its_recomputation_from_the_conditional_half() {
    for model in dynamic() {
        let what = model.display().to_string();
        let patched = patch_with(&model, GUIDANCE);
        let mut switched = patched.open();
        let mut original = Denoiser::plain(open(&model));
        let batched: Vec<String> = original
            .session()
            .inputs()
            .iter()
            .filter(|port| port.shape.first() == Some(&None) && !port.name.contains("ids"))
            .map(|port| port.name.clone())
            .collect();
        let mut difference = None;
        for (number, broadcast) in [false, true, true, false, true].into_iter().enumerate() {
            let given = inputs(original.session(), number as u64);
            let found = step(&mut switched, &given, &[broadcast]);
            if !broadcast {
                let computed = step(&mut original, &given, &[]);
                same(&computed, &found, &what);
                let output = &computed[0].1;
                difference = Some(half(output, 0).into_f32() - half(output, 1).into_f32());
                continue;
            }
            let conditional: Outputs = given
                .iter()
                .map(|(name, tensor)| match batched.contains(name) {
                    true => (name.clone(), half(tensor, 1)),
                    false => (name.clone(), tensor.clone()),
                })
                .collect();
            let output = step(&mut original, &conditional, &[]).remove(0).1.into_f32();
            let first = &output + difference.as_ref().unwrap();
            let both = ndarray::concatenate(ndarray::Axis(0), &[first.view(), output.view()]).unwrap();
            let expected = vec![(found[0].0.clone(), Tensor::from_array(both))];
            close(&expected, &found, 1e-6, &format!("{what}, step {number}"));
        }
    }
}

/// Sizes that are odd or one have no halves, and still compute.
#[test]
fn batches_without_halves_compute_as_before() {
    let model = shipped_model();
    let patched = patch_with(&model, GUIDANCE);
    let mut original = Denoiser::plain(open(&model));
    for count in [1, 3] {
        let mut switched = patched.open();
        let given: Outputs = inputs(original.session(), 1)
            .into_iter()
            .map(|(name, tensor)| {
                let element_type = tensor.element_type();
                let rows: Vec<_> = (0..count).map(|row| half(&tensor, row % 2).into_f32()).collect();
                let rows: Vec<_> = rows.iter().map(|row| row.view()).collect();
                let all = ndarray::concatenate(ndarray::Axis(0), &rows).unwrap();
                (name, Tensor::from_array(all).cast(element_type))
            })
            .collect();
        let expected = step(&mut original, &given, &[]);
        same(
            &expected,
            &step(&mut switched, &given, &[false]),
            &format!("batch {count}"),
        );
    }
}

#[test]
fn a_static_batch_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.yaml");
    std::fs::write(&rules, GUIDANCE).unwrap();
    let model = corpus()
        .into_iter()
        .find(|path| path.to_string_lossy().contains("static"))
        .unwrap();
    let arguments = [
        model.as_os_str(),
        "--rules".as_ref(),
        rules.as_os_str(),
        "-o".as_ref(),
        folder.path().as_os_str(),
    ];
    let error = fail(3, arguments);
    assert!(error.contains("export the model with a dynamic batch"), "{error}");
}

#[test]
fn spans_and_guidance_run_through_the_commands() {
    let folder = tempfile::tempdir().unwrap();
    let beside = "{ version: 1, rules: [{ name: s, match: { kind: spatial }, broadcast: { range: 2 } }, \
                  { name: cfg, guidance: { range: 3 } }] }";
    for (name, rules) in [("span", BEHIND_THE_FIRST), ("guidance", GUIDANCE), ("spatial", beside)] {
        let file = folder.path().join("rules.yaml");
        std::fs::write(&file, rules).unwrap();
        let output = folder.path().join(name);
        let arguments = [
            "compare",
            "models/latte-shapes/model.onnx",
            "--clips",
            "1",
            "--rounds",
            "1",
            "--steps",
            "4",
            "--json",
            "--rules",
        ];
        let mut arguments: Vec<&std::ffi::OsStr> = arguments.iter().map(|argument| argument.as_ref()).collect();
        arguments.extend([file.as_os_str(), "-o".as_ref(), output.as_os_str()]);
        let printed = run(&arguments);
        let errors = String::from_utf8_lossy(&printed.stderr);
        assert!(printed.status.success(), "{name}: {errors}");
        let report: serde_json::Value = serde_json::from_slice(&printed.stdout).unwrap();
        assert_eq!(report["rules"][0]["kind"], name, "{report}");
        // Without guidance the model runs for the prompt alone, and nothing of it can be left out.
        let model = output.join("model.onnx");
        let clip = folder.path().join("clip");
        let mut arguments: Vec<&std::ffi::OsStr> = vec!["run".as_ref(), model.as_os_str(), "--prompt".as_ref()];
        arguments.extend(
            [
                "red circle moving right on black",
                "--steps",
                "3",
                "--guidance",
                "1",
                "-o",
            ]
            .map(|argument| -> &std::ffi::OsStr { argument.as_ref() }),
        );
        arguments.push(clip.as_os_str());
        let printed = run(&arguments);
        assert!(
            printed.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&printed.stderr)
        );
    }
}
