//! What goes wrong while clips are made: interrupts, numbers that overflow, memory that ends, plans of other models.

use crate::program::{command, fail, failure, files_below, json, lay_out_pipeline, root, run, shipped_model, succeed};
use pab_patch::generation::{Conditioning, Generator};
use pab_patch::onnx::{Model, SaveOptions};
use pab_patch::report::read_matrix;
use pab_patch::runtime::{self, Options, Provider, Session};
use pab_patch::sampler::{SchedulerConfig, SeededNoise, noise};
use serde_json::Value;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const PROMPTS: &str = "red circle right black\nblue square left navy\ngreen triangle up black\n";

/// A folder with a file of prompts.
struct Batch {
    folder: tempfile::TempDir,
}

impl Batch {
    fn new() -> Batch {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("prompts.txt"), PROMPTS).unwrap();
        Batch { folder }
    }

    fn output(&self) -> PathBuf {
        self.folder.path().join("clips")
    }

    fn record(&self) -> PathBuf {
        self.output().join("run.json")
    }

    /// The shipped model with these prompts.
    fn arguments(&self, options: &[&str]) -> Vec<OsString> {
        self.of(&shipped_model(), options)
    }

    fn of(&self, model: &Path, options: &[&str]) -> Vec<OsString> {
        let prompts = self.folder.path().join("prompts.txt");
        let mut arguments: Vec<OsString> = vec!["run".into(), model.into(), "--prompts".into(), prompts.into()];
        arguments.extend(["-o".into(), self.output().into()]);
        arguments.extend(options.iter().map(OsString::from));
        arguments
    }

    /// The bytes of every file, by its place.
    fn contents(&self) -> Vec<(PathBuf, Vec<u8>)> {
        contents(&self.output())
    }
}

fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = files_below(folder)
        .into_iter()
        .map(|path| {
            (
                path.strip_prefix(folder).unwrap().to_owned(),
                std::fs::read(&path).unwrap(),
            )
        })
        .collect();
    files.sort();
    files
}

/// Without the record, which has times.
fn without_record(files: Vec<(PathBuf, Vec<u8>)>) -> Vec<(PathBuf, Vec<u8>)> {
    files
        .into_iter()
        .filter(|(path, _)| !path.ends_with("run.json"))
        .collect()
}

/// Files that nobody is meant to see.
fn temporary(folder: &Path) -> Vec<PathBuf> {
    let mut files = files_below(folder);
    files.retain(|path| {
        path.components()
            .any(|part| part.as_os_str().to_string_lossy().starts_with(".pab-"))
    });
    files
}

#[cfg(unix)]
mod interrupts {
    use super::*;
    use std::process::{Child, Output, Stdio};

    /// Starts the program; sends the signal when `ready` holds, and gives what came of it.
    #[track_caller]
    fn interrupted(arguments: Vec<OsString>, signals: &[&str], mut ready: impl FnMut() -> bool) -> Output {
        let mut child = command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while !ready() {
            if let Some(status) = child.try_wait().unwrap() {
                let output = child.wait_with_output().unwrap();
                panic!("ended too early: {status}, {}", String::from_utf8_lossy(&output.stderr));
            }
            assert!(begun.elapsed() < Duration::from_secs(240), "it never came so far");
            std::thread::sleep(Duration::from_millis(2));
        }
        for signal in signals {
            send(&child, signal);
            std::thread::sleep(Duration::from_millis(20));
        }
        child.wait_with_output().unwrap()
    }

    fn send(child: &Child, signal: &str) {
        let id = child.id().to_string();
        // It may have ended by then, at the second signal.
        std::process::Command::new("kill")
            .args(["-s", signal, &id])
            .output()
            .unwrap();
    }

    #[track_caller]
    fn check(output: &Output) -> String {
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(130), "{errors}");
        assert!(
            errors.contains("error: interrupted") && !errors.contains("panicked"),
            "{errors}"
        );
        errors
    }

    #[test]
    fn a_batch_keeps_its_complete_clips_and_goes_on_from_there() {
        let whole = Batch::new();
        json(whole.arguments(&["--steps", "6"]));

        let batch = Batch::new();
        let first = batch.output().join("clip_000/clip.gif");
        let output = interrupted(batch.arguments(&["--steps", "6"]), &["INT"], || first.exists());
        let errors = check(&output);
        assert!(errors.contains("--resume"), "{errors}");
        assert!(output.stdout.is_empty());
        assert_eq!(temporary(batch.folder.path()), Vec::<PathBuf>::new());
        // What is there is whole: what an uninterrupted run writes.
        let kept = without_record(batch.contents());
        let expected = without_record(whole.contents());
        assert!(!kept.is_empty() && kept.len() < expected.len());
        assert!(kept.iter().all(|file| expected.contains(file)));

        let time = |file: &str| {
            std::fs::metadata(batch.output().join(file))
                .unwrap()
                .modified()
                .unwrap()
        };
        let before = time("clip_000/clip.npz");
        let printed = json(batch.arguments(&["--steps", "6", "--resume"]));
        assert_eq!(without_record(batch.contents()), expected);
        assert_eq!(time("clip_000/clip.npz"), before, "it was made again");
        let clips = printed["clips"].as_array().unwrap();
        assert_eq!(clips.len(), 3);
        for (index, clip) in clips.iter().enumerate() {
            assert_eq!(clip["prompt"], PROMPTS.lines().nth(index).unwrap());
            assert_eq!(
                (clip["seed"].as_u64(), clip["step_milliseconds"]["count"].as_u64()),
                (Some(index as u64), Some(6))
            );
            assert_eq!(clip["frames"].as_array().unwrap().len(), 8);
        }
    }

    #[test]
    fn sigterm_ends_compare_and_bench_without_temporary_files() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("comparison");
        let mut arguments: Vec<OsString> = vec!["compare".into(), shipped_model().into()];
        arguments.extend(["--rules", "latte", "--steps", "50", "-o"].map(OsString::from));
        arguments.push(output.clone().into());
        // While the removed work is timed: in a temporary folder beside the patched model.
        let begun = interrupted(arguments, &["TERM"], || {
            let files = temporary(&output);
            files
                .iter()
                .any(|path| path.to_string_lossy().contains("/.pab-variants-"))
        });
        check(&begun);
        assert_eq!(temporary(folder.path()), Vec::<PathBuf>::new());
        // The patched model was finished.
        assert!(output.join("model.onnx").exists());

        let place = folder.path().join("temporary");
        std::fs::create_dir(&place).unwrap();
        let mut bench = command(["bench".into(), shipped_model().into_os_string()]);
        bench.args(["--rules", "latte", "--size", "text=4", "--rounds", "500"]);
        bench
            .env("TMPDIR", &place)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = bench.spawn().unwrap();
        while files_below(&place).is_empty() {
            assert!(child.try_wait().unwrap().is_none(), "it ended too early");
            std::thread::sleep(Duration::from_millis(2));
        }
        send(&child, "TERM");
        check(&child.wait_with_output().unwrap());
        assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0);
    }

    /// Half a gigabyte of weights is copied, and given up on the way.
    #[test]
    fn a_write_is_given_up_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let model = large_model(folder.path(), 512 << 20);
        let output = folder.path().join("patched");
        let arguments = vec![model.into_os_string(), "--rules".into(), "pab".into()];
        check(&interrupted(arguments, &["INT"], || !temporary(&output).is_empty()));
        assert!(!output.exists(), "{:?}", files_below(&output));
    }

    #[test]
    fn a_second_signal_ends_at_once() {
        let batch = Batch::new();
        let first = batch.output().join("clip_000/clip.gif");
        // Neither a step nor a clip comes to its end between the two.
        let output = interrupted(batch.arguments(&["--steps", "6"]), &["INT", "INT"], || first.exists());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{errors}");
    }

    /// The memory of a process has an end, and attention between 16,384 tokens takes more.
    #[test]
    fn memory_that_ends_is_told_from_other_failures() {
        let folder = tempfile::tempdir().unwrap();
        let model = root().join("tests/data/variants/open.onnx");
        let program = env!("CARGO_BIN_EXE_pab-patch");
        let line = format!(
            "ulimit -v 4000000; exec {program} run {} --scheduler {} --steps 1 --guidance 1 --threads 1 {} -o {}",
            model.display(),
            shipped_model()
                .with_file_name("scheduler/scheduler_config.json")
                .display(),
            "--height 256 --width 256 --frames 3",
            folder.path().join("clip").display(),
        );
        let text = folder.path().join("text.npy");
        ndarray_npy::write_npy(&text, &ndarray::Array2::<f32>::zeros((4, width_of_text(&model)))).unwrap();
        let line = format!("{line} --prompt-embeds {}", text.display());
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &line]).current_dir(root());
        let errors = failure(8, &mut shell);
        for part in [
            "takes more memory than there is",
            "--frames",
            "--cache-dtype",
            "--memory",
            "--batch",
        ] {
            assert!(errors.contains(part), "{errors}");
        }
    }

    fn width_of_text(model: &Path) -> usize {
        runtime::ensure().unwrap();
        let session = Session::open(model, &cpu()).unwrap();
        let generator = Generator::new(session, &[]).unwrap();
        let text = generator.roles().text.clone().unwrap();
        usize::try_from(text.shape[2].unwrap()).unwrap()
    }
}

fn cpu() -> Options {
    Options {
        threads: Some(crate::program::THREADS),
        provider: Provider::Cpu,
        ..Options::default()
    }
}

/// A small export with a further output whose weights, in a file of their own, take so many bytes.
fn large_model(folder: &Path, bytes: u64) -> PathBuf {
    use pab_patch::onnx::messages::{NodeProto, StringStringEntryProto, TensorProto};
    let mut model = Model::load(&root().join("tests/data/corpus/latte.ts17.static.onnx")).unwrap();
    let data = std::fs::File::create(folder.join("large.bin")).unwrap();
    data.set_len(bytes).unwrap();
    let graph = model.proto.graph.as_mut().unwrap();
    let entry = |key: &str, value: &str| StringStringEntryProto {
        key: Some(key.to_owned()),
        value: Some(value.to_owned()),
    };
    graph.initializer.push(TensorProto {
        name: Some("large".to_owned()),
        dims: vec![bytes as i64 / 4],
        data_type: Some(1),
        data_location: Some(1),
        external_data: vec![entry("location", "large.bin"), entry("length", &bytes.to_string())],
        ..TensorProto::default()
    });
    graph.node.push(NodeProto {
        input: vec!["large".to_owned()],
        output: vec!["all".to_owned()],
        op_type: Some("Identity".to_owned()),
        ..NodeProto::default()
    });
    let mut output = graph.output[0].clone();
    output.name = Some("all".to_owned());
    let shape = output
        .r#type
        .as_mut()
        .and_then(|of| of.tensor_type.as_mut())
        .unwrap()
        .shape
        .as_mut()
        .unwrap();
    shape.dim.truncate(1);
    shape.dim[0].dim_param = None;
    shape.dim[0].dim_value = Some(bytes as i64 / 4);
    graph.output.push(output);
    let path = folder.join("large.onnx");
    let bytes = model.to_bytes();
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn resuming_another_batch_names_what_differs() {
    let batch = Batch::new();
    // Nothing is there yet: it begins.
    json(batch.arguments(&["--steps", "2", "--resume"]));
    let complete = batch.contents();
    // Nothing is left to do, and no model is opened.
    let output = run(batch.arguments(&["--steps", "2", "--resume", "--ort-lib", "/nowhere"]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(batch.contents(), complete);

    for (options, parts) in [
        (&["--steps", "3"][..], &["--steps was 2 and is 3"][..]),
        (
            &["--steps", "2", "--seed", "5", "--guidance", "3"],
            &["--seed was 0 and is 5", "--guidance was 2.0 and is 3.0"],
        ),
        (
            &["--steps", "2", "--animation", "apng"],
            &["--animation was [\"gif\"] and is [\"apng\"]"],
        ),
    ] {
        let mut options = options.to_vec();
        options.push("--resume");
        let errors = fail(2, batch.arguments(&options));
        assert!(
            errors.contains("run.json") && errors.contains("leave --resume out"),
            "{errors}"
        );
        for part in parts {
            assert!(errors.contains(part), "{errors}");
        }
    }
    // Another model, with the same files beside it, and then other prompts.
    let model = batch.folder.path().join("model/model.onnx");
    copy_shipped(model.parent().unwrap());
    let printed = succeed([model.as_os_str(), "--rules".as_ref(), "latte".as_ref(), "-q".as_ref()]);
    let errors = fail(2, batch.of(Path::new(printed.trim()), &["--steps", "2", "--resume"]));
    assert!(
        errors.contains("the model is another") && errors.contains("its plan"),
        "{errors}"
    );
    std::fs::write(batch.folder.path().join("prompts.txt"), "red circle right black\n").unwrap();
    let errors = fail(2, batch.arguments(&["--steps", "2", "--resume"]));
    assert!(errors.contains("--prompts"), "{errors}");
    assert_eq!(batch.contents(), complete);
    std::fs::write(batch.record(), "{}").unwrap();
    let errors = fail(2, batch.arguments(&["--steps", "2", "--resume"]));
    assert!(errors.contains("is no record of clips"), "{errors}");
}

/// The shipped model with what stands beside it.
fn copy_shipped(folder: &Path) {
    std::fs::create_dir_all(folder.join("scheduler")).unwrap();
    for file in [
        "model.onnx",
        "prompt_table.npy",
        "prompt_words.json",
        "scheduler/scheduler_config.json",
    ] {
        std::fs::copy(shipped_model().with_file_name(file), folder.join(file)).unwrap();
    }
}

/// Of a pipeline, latents come first and pictures after all of them.
#[test]
fn a_pipeline_goes_on_with_latents_and_with_pictures() {
    let batch = Batch::new();
    let pipeline = batch.folder.path().join("pipeline");
    lay_out_pipeline("latte", &pipeline);
    let prompts = "a red circle\nblue square moving left\n";
    std::fs::write(batch.folder.path().join("prompts.txt"), prompts).unwrap();
    json(batch.of(&pipeline, &["--steps", "3", "--batch", "2"]));
    let complete = without_record(batch.contents());

    // As an interrupt leaves it: the last prompt without latents, the third clip without pictures.
    let mut record: Value = serde_json::from_slice(&std::fs::read(batch.record()).unwrap()).unwrap();
    let clips = record["clips"].as_object_mut().unwrap();
    assert_eq!(clips.len(), 4);
    clips.remove("3").unwrap();
    clips["1"].as_object_mut().unwrap().remove("pictures").unwrap();
    std::fs::write(batch.record(), record.to_string()).unwrap();
    for file in ["clip_003/clip.npz", "clip_001/clip.gif", "clip_001/frame_000.png"] {
        std::fs::remove_file(batch.output().join(file)).unwrap();
    }
    let printed = json(batch.of(&pipeline, &["--steps", "3", "--batch", "2", "--resume"]));
    assert_eq!(without_record(batch.contents()), complete);
    assert_eq!(printed["clips"].as_array().unwrap().len(), 4);
    // A clip whose file is gone is made again, whatever the record says.
    std::fs::remove_file(batch.output().join("clip_000/clip.npz")).unwrap();
    json(batch.of(&pipeline, &["--steps", "3", "--batch", "2", "--resume"]));
    assert_eq!(without_record(batch.contents()), complete);
}

#[test]
fn numbers_that_overflow_are_named_with_their_step() {
    let folder = tempfile::tempdir().unwrap();
    copy_shipped(folder.path());
    let model = folder.path().join("model.onnx");
    let patched = succeed([model.as_os_str(), "--rules".as_ref(), "latte".as_ref(), "-q".as_ref()]);
    let run = |model: &Path| {
        let mut arguments: Vec<OsString> = vec!["run".into(), model.into(), "-o".into()];
        arguments.push(folder.path().join("clip").into());
        let options = [
            "--prompt",
            "red circle right black",
            "--steps",
            "4",
            "--guidance",
            "3e38",
        ];
        arguments.extend(options.map(OsString::from));
        fail(8, arguments)
    };
    let errors = run(&model);
    for part in [
        "after step 0 (timestep ",
        "nothing broadcast",
        "NaN or infinite",
        "smaller --guidance",
    ] {
        assert!(errors.contains(part), "{errors}");
    }
    assert!(!errors.contains("--cache-dtype"), "{errors}");
    let errors = run(Path::new(patched.trim()));
    for part in ["run the original model", "--cache-dtype f32"] {
        assert!(errors.contains(part), "{errors}");
    }
    assert!(!folder.path().join("clip").exists());
}

#[test]
fn fractions_of_timesteps_are_not_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    // 50 timesteps between 0 and 999 by diffusers' `linspace`.
    let scheduler = folder.path().join("scheduler_config.json");
    let text = r#"{"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "linspace"}"#;
    std::fs::write(&scheduler, text).unwrap();
    let model = root().join("tests/data/corpus/latte.ts17.static.onnx");
    let text = folder.path().join("text.npy");
    runtime::ensure().unwrap();
    let generator = Generator::new(Session::open(&model, &cpu()).unwrap(), &[]).unwrap();
    let shape = generator.roles().text.clone().unwrap().shape;
    let size = |axis: usize| usize::try_from(shape[axis].unwrap()).unwrap();
    ndarray_npy::write_npy(&text, &ndarray::Array2::<f32>::zeros((size(1), size(2)))).unwrap();
    let mut arguments: Vec<OsString> = vec!["run".into(), model.into(), "--scheduler".into(), scheduler.into()];
    arguments.extend([
        "--prompt-embeds".into(),
        text.into(),
        "-o".into(),
        folder.path().join("clip").into(),
    ]);
    let with = |steps: &str| {
        let mut arguments = arguments.clone();
        arguments.extend(["--steps".into(), steps.into()]);
        arguments
    };
    let errors = fail(2, with("50"));
    for part in [
        "`timestep`",
        "whole timesteps",
        "such as 978.6",
        "of step 1",
        "--scheduler FILE",
    ] {
        assert!(errors.contains(part), "{errors}");
    }
    // 999, 666, 333, 0.
    json(with("4"));
}

#[test]
fn the_plan_of_another_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    copy_shipped(folder.path());
    let model = folder.path().join("model.onnx");
    let patch = |model: &Path, rules: &str| {
        let printed = succeed([model.as_os_str(), "--rules".as_ref(), rules.as_ref(), "-q".as_ref()]);
        PathBuf::from(printed.trim())
    };
    let patched = patch(&model, "latte");
    let beside = patched.with_extension("pab.json");
    let own = std::fs::read_to_string(&beside).unwrap();
    let other = folder.path().join("other/model.onnx");
    std::fs::create_dir(other.parent().unwrap()).unwrap();
    std::fs::copy(root().join("tests/data/corpus/latte.ts17.dynamic.onnx"), &other).unwrap();
    let foreign = std::fs::read_to_string(patch(&other, "latte").with_extension("pab.json")).unwrap();
    let hash = |plan: &str| -> String {
        let plan: Value = serde_json::from_str(plan).unwrap();
        plan["original_sha256"].as_str().unwrap().to_owned()
    };
    assert_ne!(hash(&own), hash(&foreign));
    assert_eq!(hash(&own), Model::load(&model).unwrap().graph_sha256());

    let run = |model: &Path| {
        let mut arguments: Vec<OsString> = vec!["run".into(), model.into(), "-o".into()];
        arguments.push(folder.path().join("clip").into());
        arguments.extend(["--prompt", "red circle right black", "--steps", "2"].map(OsString::from));
        arguments
    };
    std::fs::write(&beside, &foreign).unwrap();
    let errors = fail(3, run(&patched));
    for part in ["model.pab.json", "original_sha256", "patch the original again"] {
        assert!(errors.contains(part), "{errors}");
    }
    let errors = fail(
        3,
        [
            "variants".as_ref(),
            patched.as_os_str(),
            "--steps".as_ref(),
            "4".as_ref(),
        ],
    );
    assert!(errors.contains("original_sha256"), "{errors}");
    // Of the same model by other rules.
    let rules = folder.path().join("rules.yaml");
    std::fs::write(
        &rules,
        "version: 1\nrules:\n  - { name: spatial, match: { kind: spatial }, broadcast: { range: 2 } }\n",
    )
    .unwrap();
    let again = folder.path().join("again");
    succeed([
        model.as_os_str(),
        "--rules".as_ref(),
        rules.as_os_str(),
        "-o".as_ref(),
        again.as_os_str(),
    ]);
    std::fs::copy(again.join("model.pab.json"), &beside).unwrap();
    let errors = fail(3, run(&patched));
    assert!(errors.contains("the rules differ"), "{errors}");
    // The original in the patched model's place.
    std::fs::write(&beside, &own).unwrap();
    succeed(run(&patched));
    let bytes = std::fs::read(&patched).unwrap();
    std::fs::remove_file(&patched).unwrap();
    std::fs::copy(&model, &patched).unwrap();
    let errors = fail(3, run(&patched));
    assert!(errors.contains("the model is not patched"), "{errors}");
    // The original has changed: what was patched still runs, with a warning.
    std::fs::write(&patched, bytes).unwrap();
    let mut changed = Model::load(&model).unwrap();
    changed.proto.graph.as_mut().unwrap().node[0].name = Some("renamed".to_owned());
    let replaced = folder.path().join("changed.onnx");
    changed.save(&replaced, &SaveOptions::default()).unwrap();
    std::fs::rename(&replaced, &model).unwrap();
    let output = crate::program::run(run(&patched));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && errors.contains("is another model than the one that"),
        "{errors}"
    );
}

#[test]
fn over_a_whole_loop_no_cache_is_copied() {
    let folder = tempfile::tempdir().unwrap();
    let patched = succeed([
        shipped_model().as_os_str(),
        "--rules".as_ref(),
        "latte".as_ref(),
        "-o".as_ref(),
        folder.path().as_os_str(),
        "-q".as_ref(),
    ]);
    runtime::ensure().unwrap();
    let session = Session::open(Path::new(patched.trim()), &cpu()).unwrap();
    let mut generator = Generator::new(session, &[]).unwrap();
    let config = SchedulerConfig::load(&shipped_model().with_file_name("scheduler/scheduler_config.json")).unwrap();
    let mut scheduler = config.scheduler(12).unwrap();
    let table = read_matrix(&shipped_model().with_file_name("prompt_table.npy")).unwrap();
    let text = |row: usize| Some(table.select(ndarray::Axis(0), &[row; 4]).into());
    let conditioning = Conditioning {
        guidance: 2.0,
        prompt: text(0),
        empty: text(1),
        ..Conditioning::default()
    };
    let mut broadcast = 0;
    let start = noise(&[1, 3, 8, 32, 32], 0).unwrap();
    generator
        .generate(
            scheduler.as_mut(),
            start,
            &mut SeededNoise::new(0),
            &conditioning,
            &mut |step| {
                broadcast += step.flags.iter().filter(|flag| **flag).count();
            },
        )
        .unwrap();
    assert!(broadcast > 5, "{broadcast}");
    assert_eq!(generator.host_copies(), 0);
}
