//! Both drives and both forms, whole loops, equal to the bit.

use crate::equality::{Patched, inputs, open_unfused, patch_as, same, step};
use crate::program::{command, fail, json, root, shipped_model, succeed};
use ndarray::ArrayD;
use pab_patch::graph::ModelGraph;
use pab_patch::onnx::{Model, try_each_tensor};
use pab_patch::rewrite::{Drive, VariantIndex, variants};
use pab_patch::runtime::{self, Denoiser, Options, Provider, RuntimeError, SharedWeights, Tensor, VariantDenoiser};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Ranges, explicit steps and forecasts; none depends on timesteps.
const RULES: &str = "
version: 1
rules:
  - { name: attention, match: { kind: [spatial, joint] }, broadcast: { range: 2 } }
  - { name: temporal, match: { kind: temporal }, forecast: { order: 2, range: 3 } }
  - { name: cross, match: { kind: cross }, broadcast: { range: 6, window: { fraction: [0.05, 0.7] } } }
  - { name: mlp, match: { kind: mlp, blocks: 0 }, broadcast: { steps: [3, 4, 7] } }
";

const STEPS: &str = "10";

fn exports() -> [PathBuf; 4] {
    [
        "latte.ts17.static.onnx",
        "latte.dyn18.dynamic.onnx",
        "latte_fp16.ts17.static.onnx",
        "flux/flux.dyn23.dynamic.onnx",
    ]
    .map(|name| root().join("tests/data/corpus").join(name))
}

/// Everything that can run the loop.
enum Runner {
    Switch(Denoiser),
    Variants(VariantDenoiser),
}

impl Runner {
    fn step(&mut self, given: &[(String, Tensor)], flags: &[bool]) -> Vec<(String, Tensor)> {
        match self {
            Runner::Switch(denoiser) => step(denoiser, given, flags),
            Runner::Variants(denoiser) => {
                let given: Vec<(&str, &Tensor)> = given.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
                let outputs = denoiser.step(&given, flags);
                outputs.unwrap_or_else(|error| panic!("{error}"))
            }
        }
    }

    fn recordings(&self) -> usize {
        match self {
            Runner::Switch(_) => 0,
            Runner::Variants(denoiser) => denoiser.recordings(),
        }
    }

    fn reset(&mut self) {
        match self {
            Runner::Switch(denoiser) => denoiser.reset().unwrap(),
            Runner::Variants(denoiser) => denoiser.reset().unwrap(),
        }
    }
}

fn fed_back(patched: &Patched) -> Vec<(String, String)> {
    let pairs = patched.plan.fed_back();
    pairs
        .map(|(input, output)| (input.to_owned(), output.to_owned()))
        .collect()
}

/// The variants of a patched model, made in memory.
fn in_memory(patched: &Patched) -> VariantDenoiser {
    let graph = ModelGraph::new(Model::load(&patched.path).unwrap()).unwrap();
    let made = variants(&graph, &patched.plan, patched.plan.schedule.as_ref().unwrap()).unwrap();
    let options = Options {
        threads: Some(crate::program::THREADS),
        provider: Provider::Cpu,
        optimization: runtime::Optimization::Basic,
        ..Options::default()
    };
    let mut weights = SharedWeights::default();
    let sessions = made.into_iter().map(|variant| {
        let session = weights.open(&patched.path, variant.model.into_model().unwrap(), &options);
        (variant.flags, session.unwrap_or_else(|error| panic!("{error}")))
    });
    VariantDenoiser::new(sessions.collect(), fed_back(patched)).unwrap()
}

/// Writes the variants of a model into a folder.
fn write(model: &Path, rules: Option<&Path>, folder: &Path) -> VariantIndex {
    let mut arguments: Vec<&OsStr> = vec![
        "variants".as_ref(),
        model.as_ref(),
        "-o".as_ref(),
        folder.as_ref(),
        "--steps".as_ref(),
        STEPS.as_ref(),
    ];
    if let Some(rules) = rules {
        arguments.extend::<[&OsStr; 2]>(["--rules".as_ref(), rules.as_ref()]);
    }
    let printed = json(arguments);
    let index: VariantIndex = serde_json::from_value(printed["index"].clone()).unwrap();
    let written = std::fs::read_to_string(printed["index_file"].as_str().unwrap()).unwrap();
    assert_eq!(serde_json::from_str::<VariantIndex>(&written).unwrap(), index);
    index
}

/// Opens written variants by their index alone.
fn from_files(index: &VariantIndex, rules: &[String], folder: &Path) -> VariantDenoiser {
    let sessions = index.variants.iter().map(|variant| {
        let flags = rules.iter().map(|rule| variant.broadcast.contains(rule)).collect();
        (flags, open_unfused(&folder.join(&variant.file)))
    });
    let pairs = index.fed_back.iter();
    let pairs = pairs.map(|pair| (pair.input.clone(), pair.output.clone()));
    VariantDenoiser::new(sessions.collect(), pairs).unwrap()
}

#[test]
fn drives_and_forms_compute_the_same_loops() {
    for model in exports() {
        compute_the_same_loops(&model, RULES);
    }
}

/// Whole loops by every drive and form; the rules must not depend on timesteps.
pub fn compute_the_same_loops(model: &Path, rules: &str) {
    let flags = patch_as(model, rules, &["--steps", STEPS]);
    let steps = patch_as(model, rules, &["--steps", STEPS, "--drive", "step"]);
    assert_eq!((flags.plan.drive, steps.plan.drive), (Drive::Flags, Drive::Step));
    assert_eq!(flags.plan.schedule, steps.plan.schedule);
    let folder = tempfile::tempdir().unwrap();
    let index = write(&steps.path, None, folder.path());
    let names: Vec<String> = flags.plan.rules.iter().map(|rule| rule.name.clone()).collect();
    // Half precision needs a file in which the roundings stand.
    let half = crate::rounded::is_half(model);
    let mut reference = Runner::Switch(flags.opened_by(open_unfused));
    let mut others = vec![
        ("step", Runner::Switch(steps.opened_by(open_unfused))),
        ("written", Runner::Variants(from_files(&index, &names, folder.path()))),
    ];
    if !half {
        others.push(("in memory", Runner::Variants(in_memory(&flags))));
        others.push(("in memory, of step", Runner::Variants(in_memory(&steps))));
        // As CUDA graphs need it; the processor records nothing.
        let mut fixed = in_memory(&flags);
        fixed.fix_addresses();
        others.push(("at fixed addresses", Runner::Variants(fixed)));
    }
    let schedule = flags.plan.schedule.clone().unwrap();
    assert!(index.variants.len() > 3, "{} variants", index.variants.len());
    let session = open_unfused(model);
    let mut recordings: Vec<Vec<usize>> = Vec::new();
    // Twice, so that a second clip does not depend on the first.
    for clip in 0..2 {
        reference.reset();
        others.iter_mut().for_each(|(_, runner)| runner.reset());
        for step in 0..schedule.steps() {
            let given = inputs(&session, (100 * clip + step) as u64);
            let flags = schedule.flags(step);
            let expected = reference.step(&given, &flags);
            for (name, runner) in &mut others {
                let found = runner.step(&given, &flags);
                same(
                    &expected,
                    &found,
                    &format!("{}, {name}, clip {clip}, step {step}", model.display()),
                );
            }
        }
        recordings.push(others.iter().map(|(_, runner)| runner.recordings()).collect());
    }
    // In the second clip every value has its address, so that each variant is recorded at least once.
    let [first, second] = recordings.as_slice() else {
        panic!()
    };
    if !half {
        assert!(second.iter().sum::<usize>() >= index.variants.len(), "{recordings:?}");
        assert!(first.iter().sum::<usize>() > 0);
    }
}

#[test]
fn plans_follow_their_schema() {
    let schema = std::fs::read_to_string(root().join("docs/plan.schema.json")).unwrap();
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    for model in exports() {
        let ceiling = ["--memory", "4KiB", "--size", "batch=2", "--size", "text=5"];
        // Only open sizes may be given, and the batch.
        let is_open = model.to_string_lossy().contains(".dynamic.");
        let ceiling = if is_open { &ceiling[..] } else { &ceiling[..4] };
        for options in [&["--steps", STEPS, "--drive", "step"][..], ceiling] {
            let patched = patch_as(&model, RULES, options);
            let plan = serde_json::to_value(&patched.plan).unwrap();
            let faults = crate::schema::faults(&schema, &plan);
            assert!(faults.is_empty(), "{}: {faults:?}", model.display());
        }
    }
}

#[test]
fn written_variants_share_one_data_file_and_hold_no_more_than_they_need() {
    let model = root().join("tests/data/corpus/latte.ts17.static.onnx");
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.yaml");
    std::fs::write(&rules, RULES).unwrap();
    let output = folder.path().join("variants");
    let index = write(&model, Some(&rules), &output);
    let data: Vec<_> = std::fs::read_dir(&output)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".data"))
        .collect();
    assert_eq!(data, ["latte.ts17.static.onnx.data"]);
    for variant in &index.variants {
        let model = Model::load(&output.join(&variant.file)).unwrap();
        let mut inline = 0;
        try_each_tensor(&model.proto, &mut |tensor| {
            inline += tensor.raw_data.as_ref().map_or(0, |bytes| bytes.len());
            Ok::<_, ()>(())
        })
        .unwrap();
        assert!(inline < 64 * 1024, "{}: {inline} bytes of weights", variant.file);
        let graph = model.proto.graph.as_ref().unwrap();
        assert!(graph.node.iter().all(|node| node.op_type.as_deref() != Some("If")));
        let names = |ports: &[pab_patch::onnx::messages::ValueInfoProto]| -> Vec<String> {
            let names = ports.iter().filter_map(|port| port.name.clone());
            names.filter(|name| name.starts_with("pab.")).collect()
        };
        let set = |names: Vec<String>| -> BTreeSet<String> { names.into_iter().collect() };
        assert_eq!(
            set(names(&graph.input)),
            set(variant.caches_in.clone()),
            "{}",
            variant.file
        );
        assert_eq!(
            set(names(&graph.output)),
            set(variant.caches_out.clone()),
            "{}",
            variant.file
        );
    }
    // The first step takes of caches only what forecasts begin with, and the last gives nothing unless its variant is
    // used before.
    let first = &index.variants[index.steps[0]];
    assert!(first.broadcast.is_empty());
    assert!(first.caches_in.iter().all(|name| name.contains("temporal")));
    assert_eq!(index.steps.len(), 10);
    for (number, variant) in index.variants.iter().enumerate() {
        let used: Vec<usize> = (0..10).filter(|step| index.steps[*step] == number).collect();
        assert_eq!(variant.steps, used);
    }
}

/// Bytes that the program takes of a device's memory for the activations and caches of a clip.
pub fn memory(model: &Path, form: &str, device: &str) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let output = command([
        "run".as_ref(),
        model.as_os_str(),
        "--prompt".as_ref(),
        "red circle moving right on black".as_ref(),
        "--steps".as_ref(),
        "6".as_ref(),
        "--form".as_ref(),
        form.as_ref(),
        "--device".as_ref(),
        device.as_ref(),
        "-v".as_ref(),
        "-o".as_ref(),
        folder.path().as_os_str(),
    ])
    .output()
    .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    if form == "variants" {
        assert!(said.contains("4 sessions"), "{said}");
    }
    let line = said
        .lines()
        .find(|line| line.contains("memory for activations and caches"));
    let bytes = line.and_then(|line| line.split_once('(')?.1.split_once(" bytes)")?.0.parse().ok());
    bytes.unwrap_or_else(|| panic!("{said}"))
}

/// The shipped model by rules with which six steps have four variants.
pub fn with_four_variants(folder: &Path) -> PathBuf {
    let rules = folder.join("rules.yaml");
    let text = "version: 1
rules:
  - { name: spatial, match: { kind: spatial }, broadcast: { range: 2 } }
  - { name: temporal, match: { kind: temporal }, broadcast: { range: 3 } }
";
    std::fs::write(&rules, text).unwrap();
    let printed = json([
        shipped_model().as_os_str(),
        "--rules".as_ref(),
        rules.as_os_str(),
        "-o".as_ref(),
        folder.join("patched").as_os_str(),
    ]);
    PathBuf::from(printed["model"].as_str().unwrap())
}

/// Only one variant runs at a time: the others hold no activations.
#[test]
fn four_variants_take_the_memory_of_one_graph() {
    let folder = tempfile::tempdir().unwrap();
    let model = with_four_variants(folder.path());
    let (one, four) = (memory(&model, "switch", "cpu"), memory(&model, "variants", "cpu"));
    assert!(four as f64 <= 1.15 * one as f64, "one {one}, four {four}");
}

/// The sample of a clip by the program.
fn clip(model: &Path, options: &[&str]) -> ArrayD<f32> {
    let folder = tempfile::tempdir().unwrap();
    let mut arguments: Vec<&OsStr> = vec![
        "run".as_ref(),
        model.as_ref(),
        "--prompt".as_ref(),
        "red circle moving right on black".as_ref(),
        "-o".as_ref(),
        folder.path().as_ref(),
    ];
    arguments.extend(options.iter().map(OsStr::new));
    succeed(arguments);
    let file = std::fs::File::open(folder.path().join("clip.npz")).unwrap();
    ndarray_npy::NpzReader::new(file).unwrap().by_name("sample").unwrap()
}

#[test]
fn the_program_runs_every_drive_and_form_to_the_same_clip() {
    let folder = tempfile::tempdir().unwrap();
    let patch = |drive: &str| {
        let output = folder.path().join(drive);
        let printed = json([
            shipped_model().as_os_str(),
            "--rules".as_ref(),
            "latte".as_ref(),
            "--steps".as_ref(),
            "8".as_ref(),
            "--drive".as_ref(),
            drive.as_ref(),
            "-o".as_ref(),
            output.as_os_str(),
        ]);
        PathBuf::from(printed["model"].as_str().unwrap())
    };
    let (flags, steps) = (patch("flags"), patch("step"));
    let expected = clip(&flags, &["--steps", "8"]);
    for (model, form) in [(&flags, "variants"), (&steps, "switch"), (&steps, "variants")] {
        let found = clip(model, &["--steps", "8", "--form", form]);
        assert!(expected == found, "{} as {form}", model.display());
    }
    // External weights are found from memory too.
    let output = folder.path().join("variants");
    succeed([
        "variants".as_ref(),
        flags.as_os_str(),
        "--steps".as_ref(),
        "8".as_ref(),
        "-o".as_ref(),
        output.as_os_str(),
    ]);
    let beside = clip(&output.join("model.onnx"), &["--steps", "8", "--form", "variants"]);
    assert!(expected == beside);
    let other = ["run".as_ref(), steps.as_os_str(), "--steps".as_ref(), "9".as_ref()];
    let errors = fail(2, other);
    assert!(
        errors.contains("made for 8 steps") && errors.contains("--drive flags"),
        "{errors}"
    );
    let shipped = shipped_model();
    let plain = [
        "run".as_ref(),
        shipped.as_os_str(),
        "--form".as_ref(),
        "variants".as_ref(),
    ];
    assert!(fail(2, plain).contains("needs a patched model"));
}

#[test]
fn a_schedule_has_to_be_known_for_the_step_drive_and_for_variants() {
    let model = root().join("tests/data/corpus/latte.ts17.static.onnx");
    let folder = tempfile::tempdir().unwrap();
    let run = |command: &[&str], rest: &[&str]| {
        let mut arguments: Vec<&OsStr> = command.iter().map(OsStr::new).collect();
        arguments.extend::<[&OsStr; 3]>([model.as_ref(), "-o".as_ref(), folder.path().as_ref()]);
        arguments.extend(rest.iter().map(OsStr::new));
        fail(2, arguments)
    };
    let errors = run(&[], &["--drive", "step"]);
    assert!(errors.contains("--scheduler FILE"), "{errors}");
    assert!(run(&["variants"], &[]).contains("--scheduler FILE"));
    let errors = run(&["variants"], &["--rules", "latte", "--steps", "10"]);
    assert!(errors.contains("depend on timesteps"), "{errors}");
}

#[test]
fn a_step_outside_the_table_is_refused_by_onnx_runtime() {
    let model = root().join("tests/data/corpus/latte.ts17.static.onnx");
    let patched = patch_as(&model, RULES, &["--steps", STEPS, "--drive", "step"]);
    let session = open_unfused(&patched.path);
    let mut given = inputs(&session, 1);
    given.push(("pab.step".to_owned(), Tensor::scalar(10_i64)));
    for port in session
        .inputs()
        .iter()
        .filter(|port| port.name.starts_with("pab.") && port.name != "pab.step")
    {
        let shape: Vec<usize> = port.shape.iter().map(|size| size.unwrap() as usize).collect();
        given.push((port.name.clone(), Tensor::zeros(port.element_type.unwrap(), &shape)));
    }
    let given: Vec<(&str, &Tensor)> = given.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let mut plain = Denoiser::plain(session);
    let error = plain.step(&given, &[]).unwrap_err();
    assert!(
        matches!(&error, RuntimeError::Run { reason, .. } if reason.contains("out of data bounds")),
        "{error}"
    );
    // Flags that no step has are refused before.
    let mut driven = patched.open();
    let rules = patched.plan.rules.len();
    let own = inputs(driven.session(), 1);
    let own: Vec<(&str, &Tensor)> = own.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    driven.step(&own, &vec![false; rules]).unwrap();
    let mut odd = vec![false; rules];
    odd[2] = true;
    let error = driven.step(&own, &odd).unwrap_err().to_string();
    assert!(error.contains("--drive flags"), "{error}");
}

#[test]
fn compare_and_bench_take_drives_and_forms() {
    let model = shipped_model();
    let folder = tempfile::tempdir().unwrap();
    let compared = json([
        "compare".as_ref(),
        model.as_os_str(),
        "--rules".as_ref(),
        "latte".as_ref(),
        "--steps".as_ref(),
        "6".as_ref(),
        "--rounds".as_ref(),
        "1".as_ref(),
        "--clips".as_ref(),
        "1".as_ref(),
        "--drive".as_ref(),
        "step".as_ref(),
        "--form".as_ref(),
        "variants".as_ref(),
        "-o".as_ref(),
        folder.path().as_os_str(),
    ]);
    assert!(compared["patched_file"].is_string());
    let timed = json([
        "bench".as_ref(),
        model.as_os_str(),
        "--rules".as_ref(),
        "latte".as_ref(),
        "--rounds".as_ref(),
        "1".as_ref(),
        "--size".as_ref(),
        "text=4".as_ref(),
        "--drive".as_ref(),
        "step".as_ref(),
    ]);
    assert!(timed["broadcasting"]["median"].is_number());
}
