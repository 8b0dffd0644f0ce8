//! Whole clips by several ranks as threads, against those of one.

use crate::program::{command, fail, files_below, json, lay_out_pipeline, root, shipped_model, succeed};
use ndarray::ArrayD;
use ndarray_npy::NpzReader;
use serde_json::Value;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What samples may differ, as part of the largest value.
const TOLERANCE: f32 = 1e-5;

const RULES: &str = "
version: 1
rules:
  - { name: attention, match: { kind: [spatial, temporal, cross] }, broadcast: { range: 2 } }
  - { name: mlp, match: { kind: mlp }, broadcast: { range: 3 } }
";

struct Clips {
    folder: tempfile::TempDir,
}

impl Clips {
    fn new() -> Clips {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("rules.yaml"), RULES).unwrap();
        Clips { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `run` of a model into a folder of its own.
    fn arguments(&self, model: &Path, name: &str, options: &[&str]) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["run".into(), model.into(), "-o".into(), self.path(name).into()];
        arguments.extend(["--device", "cpu"].map(OsString::from));
        if !options.contains(&"--threads") && !options.contains(&"--ranks") {
            arguments.extend(["--threads", "1"].map(OsString::from));
        }
        arguments.extend(options.iter().map(OsString::from));
        arguments
    }

    /// The shipped model, patched by `rules`.
    fn patch(&self, rules: &Path, name: &str) -> PathBuf {
        let printed = succeed([
            shipped_model().as_os_str(),
            "--rules".as_ref(),
            rules.as_os_str(),
            "-o".as_ref(),
            self.path(&format!("{name}_model")).as_os_str(),
        ]);
        PathBuf::from(printed.trim())
    }

    fn run(&self, model: &Path, name: &str, options: &[&str]) -> (Value, ArrayD<f32>) {
        let printed = json(self.arguments(model, name, options));
        (printed, sample(&self.path(name)))
    }
}

fn sample(folder: &Path) -> ArrayD<f32> {
    array(folder, "sample")
}

/// The sample after each step.
fn every_sample(folder: &Path) -> ArrayD<f32> {
    array(folder, "samples")
}

fn array(folder: &Path, name: &str) -> ArrayD<f32> {
    let mut archive = NpzReader::new(File::open(folder.join("clip.npz")).unwrap()).unwrap();
    archive.by_name(name).unwrap()
}

#[track_caller]
fn close(found: &ArrayD<f32>, expected: &ArrayD<f32>, what: &str) {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let differences = found.iter().zip(expected).map(|(one, other)| (one - other).abs());
    let difference = differences.fold(0.0, f32::max) / largest;
    eprintln!("{what}: {difference:.1e}");
    assert!(difference <= TOLERANCE, "{what}: differs by {difference:.1e}");
}

#[track_caller]
fn assert_nothing_is_left(folder: &Path) {
    assert!(!folder.exists(), "{:?}", files_below(folder));
}

/// The shipped model as it is, and patched: two and three ranks give the clip of one, and where rules broadcast send less.
#[test]
fn ranks_make_the_clip_of_one() {
    let clips = Clips::new();
    let rules = clips.path("rules.yaml");
    let steps = ["--steps", "4"];
    let model = shipped_model();
    let (_, plain) = clips.run(&model, "plain", &steps);
    let patched = succeed([
        model.as_os_str(),
        "--rules".as_ref(),
        rules.as_os_str(),
        "-o".as_ref(),
        clips.path("patched").as_os_str(),
    ]);
    let patched = PathBuf::from(patched.trim());
    let (_, broadcast) = clips.run(&patched, "broadcast", &steps);

    let (report, two) = clips.run(&model, "two", &["--steps", "4", "--ranks", "2"]);
    close(&two, &plain, "two ranks");
    let ranks = &report["ranks"];
    assert_eq!(
        (&ranks["ranks"], &ranks["kind"], &ranks["mesh"]["sequence"]),
        (&2.into(), &"threads".into(), &2.into())
    );
    let bytes = |report: &Value| -> Vec<u64> { serde_json::from_value(report["ranks"]["step_bytes"].clone()).unwrap() };
    let of_plain = bytes(&report);
    assert!(of_plain.len() == 4 && of_plain[0] > 0 && of_plain.iter().all(|step| *step == of_plain[0]));

    // The patched model's original is split, and patched by the plan.
    let (report, two) = clips.run(&patched, "two_patched", &["--steps", "4", "--ranks", "2"]);
    close(&two, &broadcast, "two ranks, patched");
    assert_eq!(report["patched"], true);
    let of_patched = bytes(&report);
    assert!(
        of_patched[1] < of_plain[1] && of_patched[0] == of_plain[0],
        "{of_patched:?}"
    );
    // The same from the original and the rules, over three ranks, which do not divide the frames.
    let rules = rules.to_str().unwrap();
    let options = ["--steps", "4", "--ranks", "3", "--rules", rules, "--timeout", "60"];
    let (_, three) = clips.run(&model, "three", &options);
    close(&three, &broadcast, "three ranks, patched");
}

/// Ranks that keep their parts of the latents from step to step make the clip of one, and in steps that broadcast everything
/// send nothing; also where a folder says that they do, and with every step's sample, several clips and noise at each step.
#[test]
fn latents_that_ranks_keep_send_nothing_where_all_is_broadcast() {
    let clips = Clips::new();
    let rules = clips.path("rules.yaml");
    let (model, rules) = (shipped_model(), rules.to_str().unwrap());
    let scheduler = clips.path("ancestral.json");
    // It draws noise at each step.
    let ancestral = r#"{"_class_name": "EulerAncestralDiscreteScheduler", "num_train_timesteps": 1000,
        "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear", "prediction_type": "epsilon"}"#;
    std::fs::write(&scheduler, ancestral).unwrap();
    let patched = succeed([
        model.as_os_str(),
        "--rules".as_ref(),
        rules.as_ref(),
        "-o".as_ref(),
        clips.path("patched").as_os_str(),
    ]);
    let patched = PathBuf::from(patched.trim());
    let steps = ["--steps", "10"];
    let (_, one) = clips.run(&patched, "one", &steps);

    let kept = ["--steps", "10", "--ranks", "2", "--keep-latents", "--rules", rules];
    let (report, two) = clips.run(&model, "two", &kept);
    close(&two, &one, "two ranks with their parts");
    let ranks = &report["ranks"];
    let bytes: Vec<u64> = serde_json::from_value(ranks["step_bytes"].clone()).unwrap();
    let silent: Vec<usize> = (0..10).filter(|step| bytes[*step] == 0).collect();
    assert!(silent.contains(&1) && silent.contains(&5), "{bytes:?}");
    assert!(!silent.contains(&0) && !silent.contains(&2), "{bytes:?}");
    assert_eq!(ranks["silent_steps"], silent.len());
    assert!(ranks["gathered_bytes"].as_u64().unwrap() > 0, "{ranks}");
    let (report, two) = clips.run(&model, "whole", &[&kept[..4], &kept[5..]].concat());
    close(&two, &one, "two ranks with whole latents");
    assert_eq!(report["ranks"]["silent_steps"], 0);
    assert!(report["ranks"]["gathered_bytes"].is_null());

    // Two clips side by side, noise at each step, and three ranks, which have different parts of eight frames.
    let further = [
        "--every-step",
        "--batch",
        "2",
        "--scheduler",
        scheduler.to_str().unwrap(),
    ];
    let options = [&["--steps", "4"][..], &further].concat();
    let samples = |name: &str| [0, 1].map(|number| every_sample(&clips.path(name).join(format!("clip_{number:03}"))));
    json(clips.arguments(&patched, "noisy", &options));
    let options = [&options[..], &["--ranks", "3", "--keep-latents", "--timeout", "60"]].concat();
    json(clips.arguments(&patched, "noisy_parts", &options));
    for (found, expected) in samples("noisy_parts").iter().zip(&samples("noisy")) {
        assert_eq!(found.shape()[0], 4);
        close(found, expected, "every sample of three ranks with their parts");
    }

    let folder = clips.path("split");
    let mut arguments: Vec<OsString> = vec!["split".into(), model.clone().into(), "-o".into(), folder.clone().into()];
    arguments.extend(["--rules", rules, "--sequence", "2", "--keep-latents"].map(OsString::from));
    succeed(arguments);
    let (report, two) = clips.run(&folder, "written", &steps);
    close(&two, &one, "a folder of ranks with their parts");
    assert_eq!(report["ranks"]["silent_steps"], silent.len());
}

/// Rules for spans of blocks, as `calibrate` writes them: from the original and the rules, from the patched model by its plan, and
/// from a folder of ranks the clip of one, and steps that broadcast the span send nothing.
#[test]
fn calibrated_rules_make_the_clip_of_one() {
    let clips = Clips::new();
    let (model, rules) = (shipped_model(), root().join("docs/calibration/rules.yaml"));
    let patched = clips.patch(&rules, "patched");
    let steps = ["--steps", "16"];
    let (_, one) = clips.run(&patched, "one", &steps);
    let rules = rules.to_str().unwrap();
    let kept = ["--steps", "16", "--ranks", "2", "--keep-latents", "--rules", rules];
    let (report, two) = clips.run(&model, "two", &kept);
    close(&two, &one, "two ranks by calibrated rules");
    let bytes: Vec<u64> = serde_json::from_value(report["ranks"]["step_bytes"].clone()).unwrap();
    let silent = bytes.iter().filter(|bytes| **bytes == 0).count();
    // How many depends on the rules as they were fitted last.
    assert!(silent > 0 && bytes[0] > 0, "{bytes:?}");
    let (again, two) = clips.run(
        &patched,
        "planned",
        &["--steps", "16", "--ranks", "2", "--keep-latents"],
    );
    close(&two, &one, "two ranks by the plan");
    assert_eq!(again["ranks"]["step_bytes"], report["ranks"]["step_bytes"]);

    let folder = clips.path("split");
    let mut arguments: Vec<OsString> = vec!["split".into(), model.into(), "-o".into(), folder.clone().into()];
    arguments.extend(["--rules", rules, "--sequence", "2", "--keep-latents", "--steps", "16"].map(OsString::from));
    let table = json(arguments);
    let (written, two) = clips.run(&folder, "written", &steps);
    close(&two, &one, "a folder of ranks by calibrated rules");
    assert_eq!(written["ranks"]["step_bytes"], report["ranks"]["step_bytes"]);
    assert_eq!(table["bytes"]["steps"], report["ranks"]["step_bytes"]);
    assert_eq!(table["bytes"]["broadcasting"], 0);
}

/// Three ranks of eight frames have parts of three, three and two: what is too much for the first would fit the last, and all
/// give up the same sites, so that their steps go through.
#[test]
fn ranks_give_up_the_same_sites_for_a_ceiling() {
    let clips = Clips::new();
    let (model, rules) = (shipped_model(), clips.path("ceiling.yaml"));
    let kinds = ["spatial", "temporal", "cross"];
    let kinds =
        kinds.map(|kind| format!("  - {{ name: {kind}, match: {{ kind: {kind} }}, broadcast: {{ range: 2 }} }}\n"));
    std::fs::write(&rules, format!("version: 1\nmemory: 3MB\nrules:\n{}", kinds.concat())).unwrap();
    let sizes = ["--size", "text=4", "--size", "batch=2"];
    let folder = clips.path("split");
    let mut arguments: Vec<OsString> = vec!["split".into(), model.clone().into(), "-o".into(), folder.clone().into()];
    arguments.extend(["--rules".into(), rules.clone().into_os_string()]);
    arguments.extend(["--sequence", "3", "--along", "frames"].map(OsString::from));
    arguments.extend(sizes.map(OsString::from));
    json(arguments);
    let given_up = |rank: usize| -> Vec<String> {
        let plan = std::fs::read(folder.join(format!("model.rank{rank}.pab.json"))).unwrap();
        let plan: Value = serde_json::from_slice(&plan).unwrap();
        let dropped = plan["dropped"].as_array().unwrap();
        dropped
            .iter()
            .map(|site| site["site"].as_str().unwrap().to_owned())
            .collect()
    };
    assert!(!given_up(0).is_empty());
    assert_eq!((given_up(1), given_up(2)), (given_up(0), given_up(0)));
    let (_, three) = clips.run(&folder, "three", &["--steps", "3"]);
    // A run knows its sizes.
    let rules = rules.to_str().unwrap();
    let options = ["--steps", "3", "--ranks", "3", "--along", "frames", "--rules", rules];
    let (_, made) = clips.run(&model, "made", &options);
    close(&made, &three, "a ceiling in a run");
    let (_, one) = clips.run(&shipped_model(), "one", &["--steps", "3"]);
    // Broadcasting changes a clip, and not beyond recognition.
    let (worst, largest) = (&three - &one)
        .iter()
        .zip(&one)
        .fold((0.0_f32, 0.0_f32), |(worst, largest), (off, value)| {
            (worst.max(off.abs()), largest.max(value.abs()))
        });
    assert!(worst > 0.0 && worst < 0.5 * largest, "{worst} of {largest}");
}

/// Static graphs by ranks: the clip of one, what a step sends is no more than with switches and nothing where all is broadcast;
/// by tokens, weights and the batch, of a patched model and of a folder that was split. What cannot have any is refused.
#[test]
fn static_graphs_of_ranks_make_the_clip_of_one() {
    let clips = Clips::new();
    let (model, rules) = (shipped_model(), clips.path("rules.yaml"));
    let patched = clips.patch(&rules, "patched");
    let rules = rules.to_str().unwrap();
    let (_, one) = clips.run(&patched, "one", &["--steps", "4", "--form", "variants"]);
    let bytes = |report: &Value| -> Vec<u64> { serde_json::from_value(report["ranks"]["step_bytes"].clone()).unwrap() };
    let kept = ["--steps", "4", "--ranks", "2", "--keep-latents", "--rules", rules];
    let (report, _) = clips.run(&model, "switch", &kept);
    let with_switches = bytes(&report);
    let variants = |options: &[&'static str]| [&["--steps", "4", "--form", "variants"], options].concat();
    let (report, two) = clips.run(&model, "two", &[&kept[..], &["--form", "variants"]].concat());
    close(&two, &one, "static graphs of two ranks");
    let sent = bytes(&report);
    assert!(
        sent.iter().zip(&with_switches).all(|(sent, most)| sent <= most),
        "{sent:?} {with_switches:?}"
    );
    assert!(sent[0] > 0 && sent[1] == 0, "{sent:?}");
    for (name, options) in [
        ("tensor", &["--tensor", "2"][..]),
        ("mesh", &["--ranks", "4", "--guidance-ranks", "2"]),
    ] {
        let (report, found) = clips.run(&patched, name, &variants(options));
        close(&found, &one, name);
        assert!(bytes(&report).iter().any(|sent| *sent > 0), "{name}");
    }
    let split = |name: &str, options: &[&str]| {
        let folder = clips.path(name);
        let mut arguments: Vec<OsString> =
            vec!["split".into(), model.clone().into(), "-o".into(), folder.clone().into()];
        arguments.extend(["--sequence", "2"].iter().chain(options).map(OsString::from));
        succeed(arguments);
        folder
    };
    let folder = split("split", &["--rules", rules, "--keep-latents"]);
    let (report, found) = clips.run(&folder, "written", &variants(&[]));
    close(&found, &one, "static graphs of a folder");
    assert_eq!(bytes(&report), sent);

    let plain = split("plain", &["--plain"]);
    let error = fail(2, clips.arguments(&plain, "refused", &variants(&[])));
    assert!(error.contains("split the original again with --rules"), "{error}");
    let error = fail(2, clips.arguments(&model, "refused", &variants(&["--ranks", "2"])));
    assert!(error.contains("needs a patched model"), "{error}");
    let drift = clips.path("drift.yaml");
    let list = "{ name: blocks, match: { blocks: 1.. }, residual: { range: 5, adaptive: { threshold: 0.2 } } }";
    std::fs::write(&drift, format!("{{ version: 1, rules: [{list}] }}")).unwrap();
    let drifting = clips.patch(&drift, "drifting");
    let of_one = fail(3, clips.arguments(&drifting, "refused", &variants(&[])));
    let of_two = fail(3, clips.arguments(&drifting, "refused", &variants(&["--ranks", "2"])));
    assert!(of_one.contains("rule `blocks` is `adaptive`") && of_two.contains("rule `blocks` is `adaptive`"));
    assert_nothing_is_left(&clips.path("refused"));
}

/// Adaptive rules decide by ranks as by one, and guidance is left out where ranks have all of the batch.
#[test]
fn adaptive_rules_and_guidance_make_the_clip_of_one() {
    let clips = Clips::new();
    let lists = [
        (
            "drift",
            "{ name: blocks, match: { blocks: 1.. }, residual: { range: 5, adaptive: { threshold: 0.2 } } }",
        ),
        ("cfg", "{ name: cfg, guidance: { range: 2 } }"),
    ];
    for (name, list) in lists {
        let rules = clips.path(&format!("{name}.yaml"));
        std::fs::write(&rules, format!("{{ version: 1, rules: [{list}] }}")).unwrap();
        let patched = clips.patch(&rules, name);
        let (_, one) = clips.run(&patched, &format!("{name}_one"), &["--steps", "8"]);
        let options = ["--steps", "8", "--ranks", "3", "--timeout", "60"];
        let (report, three) = clips.run(&patched, &format!("{name}_three"), &options);
        close(&three, &one, name);
        let bytes: Vec<u64> = serde_json::from_value(report["ranks"]["step_bytes"].clone()).unwrap();
        assert!(bytes.iter().any(|step| *step < bytes[0]), "{name}: {bytes:?}");
    }
}

/// Latents that cannot be kept are gathered, and it is said why; a folder whose ranks have parts is refused where they would
/// have to be whole, and one whose ranks have none where they were to be kept.
#[test]
fn latents_that_cannot_be_kept_are_gathered_or_refused() {
    let clips = Clips::new();
    let model = shipped_model();
    let scheduler = clips.path("thresholding.json");
    let thresholding = r#"{"_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "beta_start": 0.0001,
        "beta_end": 0.02, "beta_schedule": "linear", "clip_sample": false, "thresholding": true}"#;
    std::fs::write(&scheduler, thresholding).unwrap();
    let threshold = ["--steps", "2", "--scheduler", scheduler.to_str().unwrap()];
    let (_, one) = clips.run(&model, "one", &threshold);
    let kept = ["--ranks", "2", "--keep-latents"];
    let output = command(clips.arguments(&model, "two", &[&threshold[..], &kept].concat()))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(
        errors.contains("latents: gathered in every step") && errors.contains("`thresholding`"),
        "{errors}"
    );
    close(&sample(&clips.path("two")), &one, "whole latents for thresholding");
    // Whole rows of patches are parts that can be kept, too.
    let (_, one) = clips.run(&model, "rows_of_one", &["--steps", "2"]);
    let along_space = ["--steps", "2", "--along", "space", "--ranks", "3", "--keep-latents"];
    let (report, three) = clips.run(&model, "rows", &along_space);
    close(&three, &one, "three ranks with their rows");
    assert!(report["ranks"]["gathered_bytes"].as_u64().unwrap() > 0);

    let split = |name: &str, options: &[&str]| {
        let folder = clips.path(name);
        let mut arguments: Vec<OsString> =
            vec!["split".into(), model.clone().into(), "-o".into(), folder.clone().into()];
        arguments.extend(["--plain", "--sequence", "2", "--along", "frames"].map(OsString::from));
        arguments.extend(options.iter().map(OsString::from));
        succeed(arguments);
        folder
    };
    let (parts, whole) = (split("parts", &["--keep-latents"]), split("whole", &[]));
    let error = fail(2, clips.arguments(&parts, "refused", &threshold));
    assert!(
        error.contains("needs them whole") && error.contains("--scheduler"),
        "{error}"
    );
    let error = fail(
        2,
        clips.arguments(&whole, "refused", &["--steps", "1", "--keep-latents"]),
    );
    assert!(error.contains("takes whole latents"), "{error}");
    let error = fail(
        2,
        clips.arguments(&model, "refused", &["--steps", "1", "--keep-latents"]),
    );
    assert!(error.contains("give --ranks N"), "{error}");
    // A rank of the one among those of the other.
    std::fs::copy(whole.join("model.rank1.onnx"), parts.join("model.rank1.onnx")).unwrap();
    let error = fail(10, clips.arguments(&parts, "refused", &["--steps", "1"]));
    assert!(error.contains("rank 1"), "{error}");
    assert_nothing_is_left(&clips.path("refused"));
}

/// The halves of guidance, and a mesh of both; and what cannot be.
#[test]
fn nccl_needs_ranks_and_gpus() {
    let clips = Clips::new();
    let refused = |options: &[&str]| fail(2, clips.arguments(&shipped_model(), "refused", options));
    let alone = refused(&["--steps", "1", "--communicator", "nccl"]);
    assert!(alone.contains("give --ranks N"), "{alone}");
    let options = ["--steps", "1", "--ranks", "2", "--communicator", "nccl"];
    let without_gpus = refused(&options);
    assert!(without_gpus.contains("give --device cuda"), "{without_gpus}");
    assert_nothing_is_left(&clips.path("refused"));
}

#[test]
fn guidance_and_tokens_are_divided_together() {
    let clips = Clips::new();
    let model = shipped_model();
    let (_, plain) = clips.run(&model, "plain", &["--steps", "2"]);
    let mesh = ["--steps", "2", "--guidance-ranks", "2", "--sequence", "2"];
    let (report, four) = clips.run(&model, "mesh", &mesh);
    close(&four, &plain, "guidance 2 × sequence 2");
    assert_eq!(report["ranks"]["rank_bytes"].as_array().unwrap().len(), 4);

    let refused = |code, options: &[&str]| fail(code, clips.arguments(&model, "refused", options));
    let error = refused(2, &["--ranks", "3", "--guidance-ranks", "2"]);
    assert!(error.contains("3 ranks cannot be guidance 2"), "{error}");
    let error = refused(2, &["--guidance-ranks", "2", "--guidance", "1"]);
    assert!(error.contains("the batch is 1"), "{error}");
    let error = refused(2, &["--ranks", "2", "--form", "variants"]);
    assert!(error.contains("--form variants"), "{error}");
    let error = refused(2, &["--ranks", "64", "--along", "frames"]);
    assert!(error.contains("for 64 ranks"), "{error}");
    assert_nothing_is_left(&clips.path("refused"));
}

/// A folder that `split` wrote is run as it is; where a rank has another's model, all end, and nothing is written.
#[test]
fn a_split_folder_is_run_and_a_foreign_rank_is_found() {
    let clips = Clips::new();
    let model = shipped_model();
    let steps = ["--steps", "2"];
    let (_, plain) = clips.run(&model, "plain", &steps);
    let split = |name: &str, along: &str| {
        let folder = clips.path(name);
        let mut arguments: Vec<OsString> =
            vec!["split".into(), model.clone().into(), "-o".into(), folder.clone().into()];
        arguments.extend(["--plain", "--sequence", "2", "--along", along].map(OsString::from));
        succeed(arguments);
        folder
    };
    let frames = split("frames", "frames");
    let (report, two) = clips.run(&frames, "two", &steps);
    close(&two, &plain, "a split folder");
    assert_eq!(report["ranks"]["ranks"], 2);
    let error = fail(2, clips.arguments(&frames, "refused", &["--ranks", "3"]));
    assert!(error.contains("3 ranks cannot be sequence 2"), "{error}");

    let space = split("space", "space");
    let file = "model.rank1.onnx";
    std::fs::copy(space.join(file), frames.join(file)).unwrap();
    let begun = Instant::now();
    let error = fail(10, clips.arguments(&frames, "foreign", &steps));
    assert!(error.contains("has model ") && error.contains("rank 1"), "{error}");
    std::fs::write(frames.join(file), "no model").unwrap();
    let error = fail(3, clips.arguments(&frames, "foreign", &steps));
    assert!(error.contains(file), "{error}");
    std::fs::remove_file(frames.join(file)).unwrap();
    let error = fail(2, clips.arguments(&frames, "foreign", &steps));
    assert!(error.contains("has no model of rank 1"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert_nothing_is_left(&clips.path("foreign"));
}

/// A pipeline: rank 0 makes the texts and decodes. A batch of prompts goes on where it was.
#[test]
fn a_pipeline_is_run_by_ranks() {
    let clips = Clips::new();
    let pipeline = clips.path("pipeline");
    lay_out_pipeline("latte", &pipeline);
    let prompts = clips.path("prompts.txt");
    std::fs::write(&prompts, "a red circle\na blue square\n").unwrap();
    let options = ["--steps", "2", "--prompts", prompts.to_str().unwrap()];
    let samples = |name: &str| [0, 1].map(|number| sample(&clips.path(name).join(format!("clip_{number:03}"))));
    json(clips.arguments(&pipeline, "plain", &options));
    let ranks = [&options[..], &["--ranks", "2"]].concat();
    json(clips.arguments(&pipeline, "two", &ranks));
    for (found, expected) in samples("two").iter().zip(&samples("plain")) {
        close(found, expected, "a pipeline");
    }
    assert!(clips.path("two/clip_001/clip.gif").is_file());
    let again = json(clips.arguments(&pipeline, "two", &[&ranks[..], &["--resume"]].concat()));
    assert!(again["ranks"].is_null() && again["clips"].as_array().unwrap().len() == 2);
}

/// A pipeline whose latent is a row of tokens for the transformer, which are not as the noise lies: ranks keep some tokens.
#[test]
fn tokens_are_kept_as_the_transformer_has_them() {
    let clips = Clips::new();
    let pipeline = clips.path("pipeline");
    lay_out_pipeline("flux", &pipeline);
    let options = ["--steps", "2", "--prompt", "a ship", "--height", "8", "--width", "12"];
    let (_, one) = clips.run(&pipeline, "one", &options);
    assert_eq!(one.shape(), [1, 6, 16]);
    let ranks = [&options[..], &["--ranks", "2", "--keep-latents"]].concat();
    let (report, two) = clips.run(&pipeline, "two", &ranks);
    close(&two, &one, "tokens that ranks keep");
    assert!(report["ranks"]["gathered_bytes"].as_u64().unwrap() > 0, "{report}");
}

/// A step that gives no numbers ends all ranks with the error of one, and leaves nothing.
#[test]
fn a_rank_that_fails_ends_all() {
    let clips = Clips::new();
    let model = shipped_model();
    let noise = clips.path("noise.npy");
    // Finite, and too large for what the model computes.
    let start = ArrayD::from_elem(vec![1, 3, 8, 32, 32], 3e38_f32);
    ndarray_npy::write_npy(&noise, &start).unwrap();
    let options = ["--steps", "2", "--ranks", "2", "--noise", noise.to_str().unwrap()];
    let begun = Instant::now();
    let error = fail(8, clips.arguments(&model, "failed", &options));
    assert!(error.contains("step 0"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert_nothing_is_left(&clips.path("failed"));
}

/// Ctrl-C ends all ranks, soon and with its own code.
#[cfg(unix)]
#[test]
fn an_interrupt_ends_all_ranks() {
    let clips = Clips::new();
    let trace = clips.path("stopped");
    let options = ["--steps", "500", "--ranks", "2"];
    let mut program = command(clips.arguments(&shipped_model(), "stopped", &options));
    let child = program
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while !trace.exists() && begun.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(5));
    }
    // Well into the steps.
    std::thread::sleep(Duration::from_secs(3));
    let id = child.id().to_string();
    std::process::Command::new("kill")
        .args(["-s", "INT", &id])
        .output()
        .unwrap();
    let sent = Instant::now();
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{errors}");
    assert!(errors.contains("error: interrupted"), "{errors}");
    assert!(sent.elapsed() < Duration::from_secs(20), "{:?}", sent.elapsed());
    assert_nothing_is_left(&trace);
}

/// Without MPI the program says so, once, where mpirun starts it.
#[cfg(not(feature = "mpi"))]
#[test]
fn mpirun_needs_the_feature() {
    let clips = Clips::new();
    let mut program = command(clips.arguments(&shipped_model(), "refused", &[]));
    let error = crate::program::failure(
        2,
        program.envs([("OMPI_COMM_WORLD_SIZE", "2"), ("OMPI_COMM_WORLD_RANK", "0")]),
    );
    assert!(error.contains("--features mpi"), "{error}");
    let mut program = command(clips.arguments(&shipped_model(), "refused", &[]));
    let output = program
        .envs([("OMPI_COMM_WORLD_SIZE", "2"), ("OMPI_COMM_WORLD_RANK", "1")])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}
