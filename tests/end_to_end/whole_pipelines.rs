//! Whole pipelines, original and patched in one command: `compare`, and `run --rules`, which patches on the way.
//!
//! Both make the very clips that `run` makes of transformers that were patched before.

use crate::program::{command, fail, json, lay_out_pipeline, run, succeed};
use ndarray::ArrayD;
use ndarray_npy::{NpzReader, WriteNpyExt};
use pab_patch::onnx::messages::{ModelProto, TensorShapeProto};
use prost::Message;
use serde_json::Value;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Rules for both transformers of the small Wan 2.2 pipeline.
const RULES: &str = "version: 1
rules:
  - name: self
    match: { kind: [full, spatial] }
    broadcast: { range: 2, window: { timesteps: [100, 990] } }
  - name: cross
    match: { kind: cross }
    broadcast: { range: 3, window: { timesteps: [100, 990] } }
";

struct Pipeline {
    folder: tempfile::TempDir,
}

impl Pipeline {
    fn of(name: &str) -> Pipeline {
        let folder = tempfile::tempdir().unwrap();
        lay_out_pipeline(name, &folder.path().join("pipeline"));
        std::fs::write(folder.path().join("rules.yaml"), RULES).unwrap();
        Pipeline { folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn rules(&self) -> String {
        self.file("rules.yaml").display().to_string()
    }

    /// A command over the pipeline, or a file of it, that writes into a folder.
    fn arguments(&self, command: &str, model: &str, output: &str, options: &[&str]) -> Vec<OsString> {
        let mut arguments = vec![command.into(), self.file(model).into_os_string()];
        arguments.extend(["-o".into(), self.file(output).into_os_string()]);
        arguments.extend(options.iter().map(OsString::from));
        arguments
    }

    /// `run` of the pipeline: what it printed, and the sample.
    fn run(&self, output: &str, options: &[&str]) -> (Value, ArrayD<f32>) {
        let shown = ["--animation", "apng", "--scale", "1"];
        let printed = json(self.arguments("run", "pipeline", output, &[&shown[..], options].concat()));
        (printed, self.sample(output))
    }

    fn sample(&self, output: &str) -> ArrayD<f32> {
        let mut archive = NpzReader::new(File::open(self.file(output).join("clip.npz")).unwrap()).unwrap();
        archive.by_name("sample").unwrap()
    }

    fn bytes(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.file(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
    }
}

#[test]
fn a_pipeline_is_compared_by_the_clips_that_run_makes() {
    let pipeline = Pipeline::of("latte");
    let clip = ["--steps", "6", "--guidance", "3", "--negative-prompt", "a ship"];
    let prompts = ["--prompt", "a red circle", "--prompt", "Blue square"];
    let compared = ["--rules", "latte", "--clips", "2", "--rounds", "1"];
    let all = [&clip[..], &prompts, &compared].concat();
    let output = command(pipeline.arguments("compare", "pipeline", "compared", &all))
        .arg("--json")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    // Its frames have eight pixels a side: the clips are there all the same.
    assert!(said.contains("SSIM needs frames of at least"), "{said}");
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(printed["quality"].is_null());
    assert_eq!(printed["run"]["clip_shape"], serde_json::json!([3, 3, 8, 8]));
    for key in ["patched_file", "animation", "figures"] {
        assert!(Path::new(printed[key].as_str().unwrap()).is_file(), "{key}");
    }
    // The second clip has the second prompt and the next seed.
    let second = [&clip[..], &["--prompt", "Blue square", "--seed", "1"]].concat();
    let (_, original) = pipeline.run("original", &second);
    let (on_the_way, patched) = pipeline.run("patched", &[&second[..], &["--rules", "latte"]].concat());
    assert_ne!(original, patched);
    for made in ["original", "patched"] {
        let compared = pipeline.bytes(&format!("compared/clips/{made}/clip_001.apng"));
        assert_eq!(compared, pipeline.bytes(&format!("{made}/clip.apng")), "{made}");
    }
    for (rule, broadcast) in printed["rules"]
        .as_array()
        .unwrap()
        .iter()
        .zip(on_the_way["broadcast"].as_array().unwrap())
    {
        assert_eq!(rule["name"], broadcast["rule"]);
        assert_eq!(rule["steps_broadcast"], broadcast["share"]);
    }
    // Patched before, and as variants.
    let file = ["--transformer", printed["patched_file"].as_str().unwrap()];
    assert_eq!(pipeline.run("before", &[&second[..], &file].concat()).1, patched);
    let variants = ["--rules", "latte", "--form", "variants"];
    assert_eq!(pipeline.run("variants", &[&second[..], &variants].concat()).1, patched);
}

#[test]
fn two_transformers_are_compared_each_by_its_own_steps() {
    let pipeline = Pipeline::of("wan22");
    let rules = pipeline.rules();
    let clip = [
        "--steps",
        "8",
        "--guidance",
        "3",
        "--guidance-2",
        "2",
        "--prompt",
        "a ship",
    ];
    let compared = ["--rules", &rules, "--clips", "1", "--rounds", "1"];
    let printed = json(pipeline.arguments("compare", "pipeline", "compared", &[&clip[..], &compared].concat()));
    assert!(printed["quality"]["psnr"]["mean"].as_f64().unwrap() > 10.0);
    assert!(printed["speed_up"]["allowed"].as_f64().unwrap() > 0.0);
    assert!(Path::new(printed["animation"].as_str().unwrap()).is_file());
    let transformers = printed["transformers"].as_array().unwrap();
    let steps: Vec<u64> = transformers.iter().map(|one| one["steps"].as_u64().unwrap()).collect();
    assert!(steps.len() == 2 && steps.iter().sum::<u64>() == 8, "{steps:?}");
    for (transformer, steps) in transformers.iter().zip(steps) {
        let plan = Path::new(transformer["patched_file"].as_str().unwrap()).with_extension("pab.json");
        let plan: Value = serde_json::from_slice(&std::fs::read(plan).unwrap()).unwrap();
        assert_eq!(plan["schedule"]["timesteps"].as_array().unwrap().len() as u64, steps);
    }
    pipeline.run("original", &clip);
    let keep = ["--rules", &rules, "--keep-transformers"];
    let (on_the_way, patched) = pipeline.run("patched", &[&clip[..], &keep].concat());
    for made in ["original", "patched"] {
        let compared = pipeline.bytes(&format!("compared/clips/{made}/clip_000.apng"));
        assert_eq!(compared, pipeline.bytes(&format!("{made}/clip.apng")), "{made}");
    }
    let broadcast = on_the_way["broadcast"].as_array().unwrap();
    for (rule, broadcast) in printed["rules"].as_array().unwrap().iter().zip(broadcast) {
        let [found, expected] = [&rule["steps_broadcast"], &broadcast["share"]].map(|share| share.as_f64().unwrap());
        assert!(expected > 0.0 && (found - expected).abs() < 1e-9, "{rule}");
        assert_eq!(rule["sites"], 4);
    }
    // Patched by hand, as the README says, and with the memory of both.
    let mut by_hand = clip.map(str::to_owned).to_vec();
    for component in ["transformer", "transformer_2"] {
        let model = pipeline.file(&format!("pipeline/{component}/model.onnx"));
        let patched = succeed([
            model.as_os_str(),
            "--rules".as_ref(),
            rules.as_ref(),
            "--steps".as_ref(),
            "8".as_ref(),
        ]);
        by_hand.extend([format!("--{}", component.replace('_', "-")), patched.trim().to_owned()]);
    }
    by_hand.extend(["--keep-transformers".to_owned(), "-v".to_owned()]);
    let by_hand: Vec<&str> = by_hand.iter().map(String::as_str).collect();
    let output = run(pipeline.arguments("run", "pipeline", "by_hand", &by_hand));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    for component in ["transformer", "transformer_2"] {
        let line = format!("memory for activations and caches of {component}: ");
        assert_eq!(said.matches(&line).count(), 1, "{said}");
    }
    assert_eq!(pipeline.sample("by_hand"), patched);
    let variants = ["--rules", &rules, "--form", "variants"];
    assert_eq!(pipeline.run("variants", &[&clip[..], &variants].concat()).1, patched);
}

#[test]
fn one_model_is_patched_on_the_way() {
    let pipeline = Pipeline::of("latte");
    let model = "pipeline/transformer/model.onnx";
    let text = pipeline.file("text.npy");
    let embeddings = ArrayD::from_shape_fn(ndarray::IxDyn(&[5, 24]), |index| {
        (index[0] as f32 - index[1] as f32) / 24.0
    });
    embeddings.write_npy(File::create(&text).unwrap()).unwrap();
    let clip = ["--steps", "6", "--prompt-embeds", text.to_str().unwrap()];
    let made = |model: &str, output: &str, options: &[&str]| {
        json(pipeline.arguments("run", model, output, &[&clip[..], options].concat()));
        pipeline.sample(output)
    };
    let patch = ["--rules", "latte", "--steps", "6"].map(OsString::from);
    succeed([pipeline.file(model).into_os_string()].into_iter().chain(patch));
    let patched = "pipeline/transformer/patched/model.onnx";
    let before = made(patched, "before", &[]);
    assert_eq!(made(model, "on_the_way", &["--rules", "latte"]), before);
    assert_ne!(made(model, "original", &[]), before);
    let rules = [&clip[..], &["--rules", "latte"]].concat();
    let error = fail(2, pipeline.arguments("run", patched, "refused", &rules));
    assert!(
        error.contains("is patched already") && error.contains("leave --rules out"),
        "{error}"
    );
    assert!(!pipeline.file("refused").exists());
}

#[test]
fn one_transformer_of_two_makes_no_clips() {
    let pipeline = Pipeline::of("wan22");
    let refused = |command: &str, model: &str, parts: &[&str]| {
        let error = fail(2, pipeline.arguments(command, model, "refused", &[]));
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        assert!(!pipeline.file("refused").exists(), "{command}");
    };
    let second = "pipeline/transformer_2/model.onnx";
    refused(
        "compare",
        second,
        &["`transformer_2`", "boundary_ratio", "give the folder"],
    );
    refused("calibrate", second, &["`transformer_2`", "pab-patch compare"]);
    refused(
        "calibrate",
        "pipeline",
        &["transformer/model.onnx", "pab-patch compare"],
    );
    let error = fail(2, ["bench".into(), pipeline.file("pipeline").into_os_string()]);
    assert!(error.contains("transformer/model.onnx"), "{error}");
    refused("compare", "pipeline", &["--prompt"]);
    // `run` makes what it is asked for, and says what that is.
    let options = ["--steps", "1", "--guidance", "1", "--prompt-embeds"];
    let text = pipeline.file("text.npy");
    ArrayD::<f32>::zeros(vec![512, 24])
        .write_npy(File::create(&text).unwrap())
        .unwrap();
    let options = [&options[..], &[text.to_str().unwrap()]].concat();
    let output = run(pipeline.arguments("run", second, "alone", &options));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("makes all steps here") && said.contains("boundary_ratio"),
        "{said}"
    );
}

/// What the second transformer cannot run is said of its own option, before the first has made its steps.
#[test]
fn a_fixed_batch_names_the_scale_of_guidance_that_does_not_fit() {
    let pipeline = Pipeline::of("wan22");
    for component in ["transformer", "transformer_2"] {
        let path = pipeline.file(&format!("pipeline/{component}/model.onnx"));
        let mut model = ModelProto::decode(std::fs::read(&path).unwrap().as_slice()).unwrap();
        let inputs = model.graph.as_mut().unwrap().input.iter_mut();
        let tensors = inputs.filter_map(|input| input.r#type.as_mut()?.tensor_type.as_mut());
        for shape in tensors.filter_map(|tensor| tensor.shape.as_mut()) {
            let shape: &mut TensorShapeProto = shape;
            for dimension in shape.dim.iter_mut().filter(|dimension| dimension.dim_param.is_some()) {
                dimension.dim_param = None;
                dimension.dim_value = Some(2);
            }
        }
        std::fs::write(&path, model.encode_to_vec()).unwrap();
    }
    let clip = ["--steps", "8", "--guidance", "3", "--prompt", "a ship"];
    for command in ["run", "compare"] {
        let options = [&clip[..], &["--guidance-2", "1"]].concat();
        let error = fail(2, pipeline.arguments(command, "pipeline", "refused", &options));
        assert!(
            error.contains("transformer_2/model.onnx") && error.contains("use --guidance-2 other than 1"),
            "{error}"
        );
        assert!(!pipeline.file("refused").exists(), "{command}");
    }
    pipeline.run("clip", &[&clip[..], &["--guidance-2", "2"]].concat());
}
