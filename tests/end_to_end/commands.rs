//! `inspect`, `run`, `compare`, `bench`, `doctor`, `setup`, `completions`.

use crate::program::{architectures, command, corpus, fail, files_below, json, root, run, shipped_model, succeed};
use ndarray::ArrayD;
use ndarray_npy::NpzReader;
use serde_json::Value;
use std::fs::File;

#[test]
fn inspect_lists_every_site() {
    let printed = json([
        "inspect".as_ref(),
        shipped_model().as_os_str(),
        "--size".as_ref(),
        "batch=2".as_ref(),
        "--size".as_ref(),
        "text=4".as_ref(),
    ]);
    let sites = printed["sites"].as_array().unwrap();
    // 18 attentions and a feed-forward in each of 12 blocks.
    assert_eq!(sites.len(), 18 + 12);
    for site in sites {
        for key in ["name", "kind", "block", "cut", "shape", "cache_bytes", "flops", "share"] {
            assert!(!site[key].is_null(), "{key} of {site}");
        }
    }
    let of = |name: &str| {
        sites
            .iter()
            .find(|site| site["name"] == name)
            .unwrap_or_else(|| panic!("no {name}"))
    };
    // 2 clips of 8 frames of 8x8 tokens of width 128, in float32.
    for name in ["spatial.0", "cross.5", "temporal.3"] {
        assert_eq!(of(name)["cache_bytes"], 2 * 8 * 64 * 128 * 4, "{name}");
    }
    let attention = sites.iter().filter(|site| site["kind"] != "mlp");
    let share: f64 = attention.map(|site| site["share"].as_f64().unwrap()).sum();
    assert!((0.2..0.7).contains(&share), "attention is {share} of a step");
}

#[test]
fn inspect_lists_every_exit() {
    let is_flux = |path: &&std::path::PathBuf| path.ends_with("flux/flux.dyn23.dynamic.onnx");
    let models = architectures();
    let printed = json(["inspect".as_ref(), models.iter().find(is_flux).unwrap().as_os_str()]);
    let site = &printed["sites"][0];
    assert_eq!(site["name"], "joint.0");
    let exits: Vec<&str> = site["exits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|exit| exit["part"].as_str().unwrap())
        .collect();
    assert_eq!(exits, ["latent", "text"]);
    assert_eq!(site["shape"], site["exits"][0]["shape"]);
    // An open batch of 16, 16 latent tokens and 16 text tokens of width 16, in float32.
    assert_eq!(site["cache_bytes"], 16 * (16 + 16) * 16 * 4);
}

#[test]
fn inspect_prints_a_table() {
    let printed = succeed(["inspect".as_ref(), corpus()[0].as_os_str()]);
    for word in ["spatial.0", "temporal.0", "cross.0", "mlp.0", "share"] {
        assert!(printed.contains(word), "{word} is not in:\n{printed}");
    }
}

#[test]
fn run_writes_frames_an_animation_and_arrays() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("clip");
    let arguments = |seed: &'static str| {
        [
            "run".into(),
            shipped_model(),
            "--prompt".into(),
            "red circle right black".into(),
            "--steps".into(),
            "3".into(),
            "--seed".into(),
            seed.into(),
            "-o".into(),
            output.clone(),
        ]
    };
    let sample = || -> ArrayD<f32> {
        NpzReader::new(File::open(output.join("clip.npz")).unwrap())
            .unwrap()
            .by_name("sample")
            .unwrap()
    };
    let printed = json(arguments("1"));
    assert_eq!(printed["frames"].as_array().unwrap().len(), 8);
    assert_eq!(files_below(&output).len(), 8 + 2);
    assert_eq!(&std::fs::read(output.join("clip.gif")).unwrap()[..6], b"GIF89a");
    let first = sample();
    assert_eq!(first.shape(), [1, 3, 8, 32, 32]);
    json(arguments("1"));
    assert_eq!(sample(), first, "the same seed gives the same clip");
    json(arguments("2"));
    assert_ne!(sample(), first, "another seed gives another clip");
}

#[test]
fn noise_of_another_shape_is_refused() {
    // [rows, width], which is no clip.
    let table = shipped_model().with_file_name("prompt_table.npy");
    let errors = fail(
        2,
        [
            "run".as_ref(),
            shipped_model().as_os_str(),
            "--noise".as_ref(),
            table.as_os_str(),
        ],
    );
    assert!(errors.contains("[1, 3, 8, 32, 32]"), "{errors}");
}

#[test]
fn run_says_what_a_prompt_may_be() {
    let errors = fail(
        2,
        [
            "run".as_ref(),
            shipped_model().as_os_str(),
            "--prompt".as_ref(),
            "purple circle".as_ref(),
        ],
    );
    assert!(errors.contains("purple") && errors.contains("magenta"), "{errors}");
}

#[test]
fn compare_writes_model_animation_and_figures() {
    let folder = tempfile::tempdir().unwrap();
    let printed = json([
        "compare".into(),
        shipped_model(),
        "--rules".into(),
        "latte".into(),
        "--clips".into(),
        "2".into(),
        "--rounds".into(),
        "2".into(),
        "--steps".into(),
        "10".into(),
        "-o".into(),
        folder.path().to_path_buf(),
    ]);
    for key in ["patched_file", "animation", "figures"] {
        assert!(std::path::Path::new(printed[key].as_str().unwrap()).is_file(), "{key}");
    }
    let figures: Value = serde_json::from_slice(&std::fs::read(folder.path().join("figures.json")).unwrap()).unwrap();
    assert_eq!(figures["clips"].as_array().unwrap().len(), 2);
    let ssim = figures["quality"]["ssim"]["mean"].as_f64().unwrap();
    assert!((0.3..1.0).contains(&ssim), "{ssim}");
    assert!(figures["speed_up"]["ratio_of_medians"].as_f64().unwrap() > 0.0);
    // 10 steps at timesteps 901, 801, …, 1: steps 2 to 8 are inside (100, 800).
    let shares: Vec<f64> = figures["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| rule["steps_broadcast"].as_f64().unwrap())
        .collect();
    assert_eq!(shares, [0.3, 0.5, 0.6]);
    // Nothing but the results is left: model, plan, animation, figures, and each clip twice.
    assert_eq!(
        files_below(folder.path()).len(),
        4 + 4,
        "{:?}",
        files_below(folder.path())
    );
    assert_eq!(figures["provenance"]["command"][1], "compare");
    // The clips are as exact as eight bits are.
    let quality = json([
        "quality",
        printed["clip_folders"]["original"].as_str().unwrap(),
        printed["clip_folders"]["patched"].as_str().unwrap(),
    ]);
    let psnr = |value: &Value| value["psnr"].as_f64().unwrap();
    for (judged, compared) in quality["clips"]
        .as_array()
        .unwrap()
        .iter()
        .zip(figures["clips"].as_array().unwrap())
    {
        let difference = psnr(judged) - psnr(&compared["quality"]);
        assert!(difference.abs() < 1.0, "{difference}");
    }
}

#[test]
fn compare_takes_several_rules() {
    let folder = tempfile::tempdir().unwrap();
    // The table of the feed-forwards at timesteps that ten steps have.
    let given = tempfile::tempdir().unwrap();
    for name in ["reuse-2-4-6.yaml", "reuse-2-4-6-mlp.yaml"] {
        let rules = std::fs::read_to_string(root().join("docs/strategies").join(name)).unwrap();
        let rules = rules.replace("[721, 641, 561, 481, 401]", "[701, 401]");
        std::fs::write(given.path().join(name), rules).unwrap();
    }
    let arguments = |first: &str, second: &str| -> Vec<std::path::PathBuf> {
        vec![
            "compare".into(),
            shipped_model(),
            "--rules".into(),
            given.path().join(first),
            "--rules".into(),
            given.path().join(second),
            "--clips".into(),
            "1".into(),
            "--rounds".into(),
            "1".into(),
            "--steps".into(),
            "10".into(),
            "-o".into(),
            folder.path().to_path_buf(),
        ]
    };
    let printed = json(arguments("reuse-2-4-6.yaml", "reuse-2-4-6-mlp.yaml"));
    let comparisons = printed["comparisons"].as_array().unwrap();
    assert_eq!(comparisons.len(), 2);
    for (comparison, name) in comparisons.iter().zip(["reuse-2-4-6", "reuse-2-4-6-mlp"]) {
        for key in ["patched_file", "animation", "figures"] {
            let path = std::path::Path::new(comparison[key].as_str().unwrap());
            assert!(path.is_file() && path.starts_with(folder.path().join(name)), "{key}");
        }
        // A time, of one round: how large it is depends on what else runs here.
        assert!(comparison["speed_up"]["allowed"].as_f64().unwrap() > 0.0);
    }
    // A page has what the file says, and both sets of clips, against the same originals.
    let page = folder.path().join("report.html");
    let file = folder.path().join("comparisons.json");
    let written = json(["report".as_ref(), file.as_os_str(), "-o".as_ref(), page.as_os_str()]);
    assert_eq!(written["warnings"].as_array().unwrap().len(), 0, "{written}");
    assert_eq!(std::fs::read_to_string(&page).unwrap().matches("<img ").count(), 2 * 3);
    // Both are compared with the same clip of the original.
    assert_eq!(comparisons[0]["original"], comparisons[1]["original"]);
    // Two timesteps of the table, two steps behind each, out of 10.
    let mlp = &comparisons[1]["rules"][3];
    assert_eq!(
        (mlp["name"].as_str(), mlp["steps_broadcast"].as_f64()),
        (Some("mlp"), Some(0.4))
    );
    let psnr = |comparison: &Value| comparison["quality"]["psnr"]["mean"].as_f64().unwrap();
    assert_ne!(psnr(&comparisons[1]), psnr(&comparisons[0]));
    let file: Value = serde_json::from_slice(&std::fs::read(folder.path().join("comparisons.json")).unwrap()).unwrap();
    assert_eq!(file, printed);
    let errors = fail(2, arguments("reuse-2-4-6.yaml", "reuse-2-4-6.yaml"));
    assert!(errors.contains("other rules have that name"), "{errors}");
}

#[test]
fn bench_compares_the_four_variants() {
    let model = shipped_model();
    let printed = json([
        "bench".as_ref(),
        model.as_os_str(),
        "--rounds".as_ref(),
        "2".as_ref(),
        "--size".as_ref(),
        "text=5".as_ref(),
    ]);
    for key in ["original", "computing", "keeping", "broadcasting", "removed"] {
        assert!(printed[key]["median"].as_f64().unwrap() > 0.0, "{key}");
    }
    assert!(printed["ratios"]["computing_over_original"].as_f64().unwrap() > 0.0);
}

#[test]
fn setup_then_doctor() {
    let setup = json(["setup"]);
    assert!(std::path::Path::new(setup["path"].as_str().unwrap()).is_file());
    let doctor = json(["doctor"]);
    assert!(doctor["library"]["version"].as_str().unwrap().starts_with("1."));
    assert!(
        doctor["providers"]
            .as_array()
            .unwrap()
            .contains(&Value::from("CPUExecutionProvider"))
    );
    assert!(doctor["default_threads"].as_u64().unwrap() >= 1);
    assert!(succeed(["doctor"]).contains("CPUExecutionProvider"));
}

#[test]
fn a_library_that_cannot_be_used_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libonnxruntime.so");
    std::fs::write(&library, "not a library").unwrap();
    let output = folder.path().join("clip");
    for (path, code) in [
        (library.as_path(), 7),
        (std::path::Path::new("/nowhere/libonnxruntime.so"), 7),
    ] {
        let errors = fail(
            code,
            [
                "run".as_ref(),
                shipped_model().as_os_str(),
                "--ort-lib".as_ref(),
                path.as_os_str(),
                "-o".as_ref(),
                output.as_os_str(),
            ],
        );
        assert!(errors.contains("pab-patch setup"), "{errors}");
    }
    let doctor = command(["doctor"]).env("ORT_DYLIB_PATH", &library).output().unwrap();
    assert_eq!(doctor.status.code(), Some(7));
    assert!(!output.exists());
}

#[test]
fn an_execution_provider_that_cannot_be_used_is_an_error() {
    let output = run([
        "run".as_ref(),
        shipped_model().as_os_str(),
        "--device".as_ref(),
        "cuda".as_ref(),
        "--steps".as_ref(),
        "1".as_ref(),
        "-o".as_ref(),
        std::env::temp_dir().join("pab-patch-cuda-probe").as_os_str(),
    ]);
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        // A machine with a GPU: then it must really have run there.
        let doctor = json(["doctor"]);
        assert!(
            doctor["providers"]
                .as_array()
                .unwrap()
                .contains(&Value::from("CUDAExecutionProvider"))
        );
        return;
    }
    assert_eq!(output.status.code(), Some(7), "{errors}");
    assert!(
        errors.contains("CUDA") && errors.contains("--device cpu") || errors.contains("onnxruntime-gpu"),
        "{errors}"
    );
}

#[test]
fn completions_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(succeed(["completions", shell]).contains("compare"), "{shell}");
    }
}

#[test]
fn help_names_every_exit_code_and_wrong_arguments_are_refused() {
    let help = succeed(["--help"]);
    for code in 0..=8 {
        assert!(help.contains(&format!("\n  {code}  ")), "{code}");
    }
    fail_usage(&["--no-such-flag"]);
    fail_usage(&[]);
    fail_usage(&["compare"]);
}

fn fail_usage(arguments: &[&str]) {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    assert!(output.stdout.is_empty());
}

#[test]
fn a_patched_model_finds_the_prompts_of_its_original() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("far/away");
    let patched = succeed([
        shipped_model().as_os_str(),
        "--rules".as_ref(),
        "latte".as_ref(),
        "-o".as_ref(),
        output.as_os_str(),
    ]);
    let clip = folder.path().join("clip");
    let printed = json([
        "run".as_ref(),
        patched.trim().as_ref(),
        "--prompt".as_ref(),
        "green square still grey".as_ref(),
        "--steps".as_ref(),
        "2".as_ref(),
        "-o".as_ref(),
        clip.as_os_str(),
    ]);
    assert_eq!(printed["patched"], true);
    assert_eq!(printed["broadcast"].as_array().unwrap().len(), 3);
}

#[test]
fn frames_of_an_earlier_clip_go() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["frame_099.png", "notes.txt"] {
        std::fs::write(folder.path().join(name), "earlier").unwrap();
    }
    let output = folder.path().as_os_str();
    json([
        "run".as_ref(),
        shipped_model().as_os_str(),
        "--steps".as_ref(),
        "1".as_ref(),
        "-o".as_ref(),
        output,
    ]);
    assert!(!folder.path().join("frame_099.png").exists());
    assert!(folder.path().join("notes.txt").exists());
}

#[test]
fn numbers_that_cannot_be_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("clip");
    let model = shipped_model();
    for (option, value) in [
        ("--guidance", "nan"),
        ("--guidance", "inf"),
        ("--size", "batch=0"),
        ("--size", "nowhere=3"),
        ("--fps", "0"),
        ("--scale", "100000"),
        ("--steps", "0"),
    ] {
        let arguments = [
            "run".as_ref(),
            model.as_os_str(),
            option.as_ref(),
            value.as_ref(),
            "-o".as_ref(),
            output.as_os_str(),
        ];
        fail(2, arguments);
        assert!(!output.exists(), "{option} {value}");
    }
    fail(
        2,
        [
            "inspect".as_ref(),
            model.as_os_str(),
            "--size".as_ref(),
            "nowhere=3".as_ref(),
        ],
    );
}

#[test]
fn a_window_that_no_step_reaches_is_warned_about() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.yaml");
    let text = "version: 1\nrules:\n  - name: late\n    match: { kind: spatial }\n    \
                broadcast: { range: 2, window: { timesteps: [5000, 6000] } }\n";
    std::fs::write(&rules, text).unwrap();
    let output = run([
        shipped_model().as_os_str(),
        "--rules".as_ref(),
        rules.as_os_str(),
        "-o".as_ref(),
        folder.path().join("out").as_os_str(),
    ]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("warning: rule `late` never broadcasts"),
        "{said}"
    );
}

#[test]
fn a_scheduler_that_nobody_named_does_not_stop_patching() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("transformer/model.onnx");
    std::fs::create_dir_all(folder.path().join("scheduler")).unwrap();
    std::fs::create_dir_all(folder.path().join("transformer")).unwrap();
    std::fs::copy(&corpus()[0], &model).unwrap();
    let config = folder.path().join("scheduler/scheduler_config.json");
    std::fs::write(&config, r#"{"_class_name": "KarrasVeScheduler"}"#).unwrap();
    let output = run([&model]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("KarrasVeScheduler"), "{said}");
    // Named, it is an error.
    let errors = fail(2, [model.as_os_str(), "--scheduler".as_ref(), config.as_os_str()]);
    assert!(errors.contains("DDIMScheduler"), "{errors}");
}

#[cfg(target_os = "linux")]
#[test]
fn messages_that_nobody_can_read_are_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut patch = command([corpus()[0].as_os_str(), "-o".as_ref(), folder.path().as_os_str()]);
    assert!(patch.stderr(full).status().unwrap().success());
}
