//! Whole pipelines in diffusers' layout, from the prompt to the frames.
//!
//! `tests/data/pipeline` is made by `tests/oracle/pipeline_diffusers.py`: text encoders, tokenizers and VAEs with random
//! weights, and what diffusers' own classes make with them, Latte plain and with Pyramid Attention Broadcast.

use crate::program::{command, fail, failure, files_below, json, lay_out_pipeline, root, run, succeed};
use ndarray::ArrayD;
use ndarray_npy::{NpzReader, ReadableElement, WriteNpyExt};
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};

/// What frames and latents may differ from diffusers', as part of the largest value. Measured is 5e-5 of Wan, 8e-6 of LTX,
/// else 2e-6.
const TOLERANCE: f32 = 1e-4;

/// The pipeline with its transformer, in a folder of its own.
struct Pipeline {
    folder: tempfile::TempDir,
}

impl Pipeline {
    fn new() -> Pipeline {
        Pipeline::of("latte")
    }

    fn of(name: &str) -> Pipeline {
        let folder = tempfile::tempdir().unwrap();
        lay_out_pipeline(name, &folder.path().join("pipeline"));
        Pipeline { folder }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("pipeline")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    fn output(&self) -> PathBuf {
        self.folder.path().join("clip")
    }

    /// `run` of the pipeline with 3 steps, unless the options say otherwise.
    fn arguments(&self, options: &[&str]) -> Vec<OsString> {
        let mut arguments = vec!["run".into(), self.root().into(), "-o".into(), self.output().into()];
        // Tests run side by side: more threads each would wait for one another, and take twice the time.
        arguments.extend(["--threads", "1"].map(OsString::from));
        if !["--steps", "--timesteps", "--sigmas"]
            .iter()
            .any(|given| options.contains(given))
        {
            arguments.extend(["--steps".into(), "3".into()]);
        }
        arguments.extend(options.iter().map(OsString::from));
        arguments
    }

    /// The transformer, patched with the preset of Latte, as the first step of users.
    fn patch(&self) -> String {
        let model = self.file("transformer/model.onnx");
        succeed([model.as_os_str(), "--rules".as_ref(), "latte".as_ref()])
            .trim()
            .to_owned()
    }
}

/// The rules of `tests/oracle/pipeline_flows.py` for two transformers.
const TWO_RULES: &str = "version: 1
rules:
  - name: self
    match: { kind: [full, spatial] }
    broadcast: { range: 2, window: { timesteps: [300, 990] } }
  - name: cross
    match: { kind: cross }
    broadcast: { range: 3, window: { timesteps: [300, 990] } }
";

impl Pipeline {
    /// Patches both transformers; the options that run them.
    fn patch_both(&self, options: &[&str]) -> Vec<String> {
        let rules = self.folder.path().join("rules.yaml");
        std::fs::write(&rules, TWO_RULES).unwrap();
        let one = |component: &str| {
            let model = self.file(&format!("{component}/model.onnx"));
            let mut arguments = vec![model.into_os_string(), "--rules".into(), rules.clone().into()];
            arguments.extend(options.iter().map(OsString::from));
            let option = format!("--{}", component.replace('_', "-"));
            [option, succeed(arguments).trim().to_owned()]
        };
        ["transformer", "transformer_2"].into_iter().flat_map(one).collect()
    }
}

fn array<T: ReadableElement>(file: &Path, name: &str) -> ArrayD<T> {
    let mut archive = NpzReader::new(File::open(file).unwrap()).unwrap();
    archive
        .by_name(name)
        .unwrap_or_else(|error| panic!("{}, {name}: {error}", file.display()))
}

#[track_caller]
fn close(found: &ArrayD<f32>, expected: &ArrayD<f32>, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let difference = found
        .iter()
        .zip(expected)
        .map(|(found, expected)| (found - expected).abs());
    let difference = difference.fold(0.0, f32::max) / largest;
    eprintln!("{what}: {difference:.1e}");
    assert!(difference < TOLERANCE, "{what} differ by {difference:.1e}");
}

/// Makes every clip of the oracle, and compares latents and frames.
fn compare_with_diffusers(name: &str, runs: usize) -> Pipeline {
    let pipeline = Pipeline::of(name);
    let oracle = pipeline.file("oracle.npz");
    let facts: Value = serde_json::from_slice(&std::fs::read(pipeline.file("oracle.json")).unwrap()).unwrap();
    let steps = facts["steps"].to_string();
    let noise = pipeline.folder.path().join("latents.npy");
    array::<f32>(&oracle, "latents")
        .write_npy(File::create(&noise).unwrap())
        .unwrap();
    let facts = facts["runs"].as_object().unwrap();
    assert_eq!(facts.len(), runs);
    let patched = facts
        .values()
        .any(|run| run["pab"] == true)
        .then(|| match name == "wan22" {
            true => pipeline.patch_both(&[]),
            false => vec!["--transformer".to_owned(), pipeline.patch()],
        });
    for (run, facts) in facts {
        let text = |key: &str| facts[key].as_str().unwrap();
        let guidance = facts["guidance"].to_string();
        let mut options = vec!["--steps", &steps, "--guidance", &guidance, "--prompt", text("prompt")];
        options.extend(["--decoded", "--noise", noise.to_str().unwrap()]);
        let guidance_2 = facts["guidance_2"].as_f64().map(|scale| scale.to_string());
        options.extend(guidance_2.iter().flat_map(|scale| ["--guidance-2", scale.as_str()]));
        if let Some(negative) = facts["negative_prompt"].as_str() {
            options.extend(["--negative-prompt", negative]);
        }
        let shown = ["frames", "height", "width"].map(|side| facts["size"][side].as_u64().map(|size| size.to_string()));
        for (option, size) in ["--frames", "--height", "--width"].iter().zip(&shown) {
            options.extend(size.iter().flat_map(|size| [*option, size.as_str()]));
        }
        let decode = ["decode_timestep", "decode_noise_scale"].map(|key| facts["decode"][key].as_f64());
        let decode = decode.map(|value| value.map(|value| value.to_string()));
        for (option, value) in ["--decode-timestep", "--decode-noise-scale"].iter().zip(&decode) {
            options.extend(value.iter().flat_map(|value| [*option, value.as_str()]));
        }
        let decode_noise = pipeline.folder.path().join("decode_noise.npy");
        if facts["decode"].is_object() {
            array::<f32>(&oracle, "decode_noise")
                .write_npy(File::create(&decode_noise).unwrap())
                .unwrap();
            options.extend(["--decode-noise", decode_noise.to_str().unwrap()]);
        }
        let patched = patched.as_ref().filter(|_| facts["pab"] == true);
        options.extend(patched.iter().flat_map(|options| options.iter().map(String::as_str)));
        for form in if patched.is_some() {
            &["switch", "variants"][..]
        } else {
            &["switch"]
        } {
            let mut options = options.clone();
            options.extend(["--form", form]);
            let printed = json(pipeline.arguments(&options));
            assert_eq!(printed["patched"], patched.is_some());
            let arrays = pipeline.output().join("clip.npz");
            let what = format!("{name}, {run} ({form})");
            close(
                &array(&arrays, "sample"),
                &array(&oracle, &format!("{run}.sample")),
                &format!("{what}: latents"),
            );
            // The decoder's are -1 to 1, diffusers' frames 0 to 1.
            let decoded = array::<f32>(&arrays, "decoded").mapv(|value| (value / 2.0 + 0.5).clamp(0.0, 1.0));
            let expected = array::<f32>(&oracle, &format!("{run}.frames"));
            assert_eq!(decoded.shape()[1..], *expected.shape());
            close(&decoded, &expected, &format!("{what}: frames"));
            assert_eq!(printed["frames"].as_array().unwrap().len(), expected.shape()[1]);
        }
    }
    pipeline
}

#[test]
fn frames_of_latte_equal_those_of_diffusers_with_and_without_broadcasts() {
    let pipeline = compare_with_diffusers("latte", 5);
    // The tolerance tells broadcasting from not broadcasting.
    let oracle = pipeline.file("oracle.npz");
    let difference = array::<f32>(&oracle, "pab.frames") - array::<f32>(&oracle, "plain.frames");
    assert!(difference.iter().any(|value| value.abs() > 50.0 * TOLERANCE));
}

/// Frames before channels, and a VAE that mixes frames.
#[test]
fn frames_of_cogvideox_equal_those_of_diffusers() {
    compare_with_diffusers("cogvideox", 2);
}

/// An image, and text with a mask.
#[test]
fn pictures_of_pixart_equal_those_of_diffusers() {
    compare_with_diffusers("pixart", 2);
}

/// Three text encoders, of which two have pooled embeddings and tokenizers of a vocabulary and merges.
#[test]
fn pictures_of_stable_diffusion_3_equal_those_of_diffusers() {
    compare_with_diffusers("sd3", 2);
}

/// A latent of tokens, dynamic shift, and a VAE whose statistics stand in its weights.
#[test]
fn frames_of_ltx_equal_those_of_diffusers() {
    let pipeline = compare_with_diffusers("ltx", 2);
    std::fs::remove_file(pipeline.file("vae/diffusion_pytorch_model.safetensors")).unwrap();
    let sizes = ["--frames", "5", "--height", "32", "--width", "64"];
    let mut options = vec!["--prompt", "a ship"];
    options.extend(sizes);
    let error = fail(3, pipeline.arguments(&options));
    assert!(
        error.contains("`latents_mean`") && error.contains("safetensors"),
        "{error}"
    );
    options.truncate(2);
    let error = fail(2, pipeline.arguments(&[&options[..], &["--latents-only"]].concat()));
    assert!(error.contains("--frames N"), "{error}");
}

/// A decoder that is a last step of denoising, with the default, one number for timestep and noise, and two.
#[test]
fn frames_of_ltx_with_a_timed_decoder_equal_those_of_diffusers() {
    let pipeline = compare_with_diffusers("ltx_timed", 3);
    // The tolerance tells a decoder with noise and timestep from one without.
    let oracle = pipeline.file("oracle.npz");
    let difference = array::<f32>(&oracle, "same.frames") - array::<f32>(&oracle, "plain.frames");
    assert!(difference.iter().any(|value| value.abs() > 50.0 * TOLERANCE));
    let prompts = pipeline.folder.path().join("prompts.txt");
    std::fs::write(&prompts, "a ship\na ship\n").unwrap();
    let clip = ["--frames", "5", "--height", "32", "--width", "64", "--decoded"];
    let of_file = [&clip[..], &["--prompts", prompts.to_str().unwrap(), "--seed", "3"]].concat();
    let noisy = [&of_file[..], &["--decode-timestep", "0.2"]].concat();
    json(pipeline.arguments(&noisy));
    let decoded = |clip: &str| array::<f32>(&pipeline.output().join(clip).join("clip.npz"), "decoded");
    let second = decoded("clip_001");
    // What is decoded again has the noise of its clip.
    let record = pipeline.output().join("run.json");
    let mut facts: Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    facts["clips"]["1"].as_object_mut().unwrap().remove("pictures").unwrap();
    std::fs::write(&record, facts.to_string()).unwrap();
    json(pipeline.arguments(&[&noisy[..], &["--resume"]].concat()));
    assert_eq!(decoded("clip_001"), second);
    let error = fail(2, pipeline.arguments(&[&of_file[..], &["--resume"]].concat()));
    assert!(
        error.contains("--decode-timestep was 0.2") && error.contains("is 0.0"),
        "{error}"
    );
    let one = [&clip[..], &["--prompt", "a ship", "--seed", "4"]].concat();
    json(pipeline.arguments(&[&one[..], &["--decode-timestep", "0.2"]].concat()));
    assert_eq!(decoded(""), second);
    json(pipeline.arguments(&[&one[..], &["--decode-timestep", "0.2", "--decode-noise-scale", "0"]].concat()));
    assert_ne!(decoded(""), second);
}

#[test]
fn decoders_and_their_options_that_do_not_go_together_are_refused() {
    let pipeline = Pipeline::of("ltx_timed");
    let clip = ["--prompt", "a ship", "--frames", "5", "--height", "32", "--width", "64"];
    let refused = |pipeline: &Pipeline, code: i32, options: &[&str], parts: &[&str]| {
        let error = fail(code, pipeline.arguments(&[&clip[..], options].concat()));
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    };
    refused(
        &pipeline,
        2,
        &["--decode-timestep", "1.5"],
        &["--decode-timestep 1.5", "from 0 to 1"],
    );
    let noise = pipeline.folder.path().join("noise.npy");
    ArrayD::<f32>::zeros(vec![1, 2, 3])
        .write_npy(File::create(&noise).unwrap())
        .unwrap();
    let of_file = ["--decode-noise", noise.to_str().unwrap()];
    refused(
        &pipeline,
        2,
        &of_file,
        &["--decode-noise", "[1, 4, 2, 2, 4]", "[1, 2, 3]"],
    );
    let plain = Pipeline::of("ltx");
    refused(
        &plain,
        2,
        &["--decode-timestep", "0.1"],
        &["--decode-timestep", "`timestep_conditioning`"],
    );
    // A decoder without the input that its configuration speaks of, and one with an input that it does not speak of.
    let decoder = "vae_decoder/model.onnx";
    let own = std::fs::read(pipeline.file(decoder)).unwrap();
    std::fs::copy(plain.file(decoder), pipeline.file(decoder)).unwrap();
    refused(
        &pipeline,
        3,
        &[],
        &[decoder, "no input `timestep`", "export the decoder"],
    );
    std::fs::write(plain.file(decoder), own).unwrap();
    refused(&plain, 3, &[], &[decoder, "`timestep`", "config.json"]);
}

/// UniPC on a flow, zeros in the place of padding, a VAE over frames with statistics of its channels.
#[test]
fn frames_of_wan_equal_those_of_diffusers() {
    compare_with_diffusers("wan", 2);
}

/// Two transformers in turn, with a scale of guidance for each, and broadcasts that each counts for itself.
#[test]
fn frames_of_wan_2_2_equal_those_of_diffusers_with_and_without_broadcasts() {
    let pipeline = compare_with_diffusers("wan22", 4);
    let oracle = pipeline.file("oracle.npz");
    let difference = array::<f32>(&oracle, "pab.frames") - array::<f32>(&oracle, "plain.frames");
    assert!(difference.iter().any(|value| value.abs() > 50.0 * TOLERANCE));
    // The tolerance tells one transformer from two.
    let noise = pipeline.folder.path().join("latents.npy");
    let first = pipeline.file("transformer/model.onnx");
    let options = [
        "--steps",
        "12",
        "--guidance",
        "3",
        "--prompt",
        "A red ship, moving left",
        "--noise",
        noise.to_str().unwrap(),
        "--latents-only",
        "--transformer-2",
        first.to_str().unwrap(),
    ];
    let printed = json(pipeline.arguments(&options));
    let steps = |place: usize| printed["transformers"][place]["steps"].as_u64().unwrap();
    assert_eq!(printed["transformers"].as_array().unwrap().len(), 2);
    assert_eq!((steps(0), steps(1)), (4, 8));
    let difference =
        array::<f32>(&pipeline.output().join("clip.npz"), "sample") - array::<f32>(&oracle, "plain.sample");
    assert!(difference.iter().any(|value| value.abs() > 50.0 * TOLERANCE));
}

/// A schedule in the model is that of its own steps, and so is the plan's.
#[test]
fn two_transformers_are_driven_by_their_own_steps() {
    let pipeline = Pipeline::of("wan22");
    let sample = |options: &[String]| {
        let mut all = vec!["--prompt", "a ship", "--steps", "12", "--latents-only"];
        all.extend(options.iter().map(String::as_str));
        let printed = json(pipeline.arguments(&all));
        (array::<f32>(&pipeline.output().join("clip.npz"), "sample"), printed)
    };
    let (by_flags, printed) = sample(&pipeline.patch_both(&["--steps", "12"]));
    let plan = pipeline.file("transformer_2/patched/model.pab.json");
    let plan: Value = serde_json::from_slice(&std::fs::read(plan).unwrap()).unwrap();
    assert_eq!(plan["schedule"]["timesteps"].as_array().unwrap().len(), 8);
    let plans = ["transformer", "transformer_2"].map(|component| {
        let plan = pipeline.file(&format!("{component}/patched/model.pab.json"));
        serde_json::from_slice::<Value>(&std::fs::read(plan).unwrap()).unwrap()
    });
    for (rule, share) in printed["broadcast"].as_array().unwrap().iter().enumerate() {
        let of_plan = |plan: &Value| {
            let steps = plan["schedule"]["broadcast"][rule].as_array().unwrap();
            assert_eq!(steps[0], false, "the first step of a transformer computes");
            steps.iter().filter(|step| **step == true).count()
        };
        let counts = plans.each_ref().map(of_plan);
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
        let expected = counts.iter().sum::<usize>() as f64 / 12.0;
        assert!((share["share"].as_f64().unwrap() - expected).abs() < 1e-9);
    }
    let by_step = pipeline.patch_both(&["--steps", "12", "--drive", "step"]);
    assert_eq!(sample(&by_step).0, by_flags);
    let mut other = vec!["--prompt", "a ship", "--steps", "6"];
    other.extend(by_step.iter().map(String::as_str));
    let error = fail(2, pipeline.arguments(&other));
    assert!(error.contains("made for 8 steps"), "{error}");
    // What the second cannot run is said before the first has.
    let mut all = vec!["--prompt", "a ship", "--steps", "6"];
    all.extend(by_step[2..].iter().map(String::as_str));
    let error = fail(2, pipeline.arguments(&all));
    assert!(
        error.contains("transformer_2/patched") && error.contains("made for 8 steps"),
        "{error}"
    );
    let mut all = vec!["--prompt", "a ship", "--steps", "12", "--form", "variants"];
    all.extend(by_step[..2].iter().map(String::as_str));
    let error = fail(2, pipeline.arguments(&all));
    assert!(error.contains("transformer_2/model.onnx is none"), "{error}");
    // One of them alone.
    let mut all = vec!["--prompt", "a ship", "--steps", "12", "--latents-only"];
    all.extend(by_step[..2].iter().map(String::as_str));
    let output = run(pipeline.arguments(&all));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("transformer_2/model.onnx is not patched"),
        "{said}"
    );
    let said = succeed([
        "inspect".into(),
        pipeline.file("transformer_2/model.onnx").into_os_string(),
    ]);
    assert!(
        said.contains("transformer_2 of WanPipeline") && said.contains("0.875"),
        "{said}"
    );
}

/// Each prompt's clips are whole before the next begins; what is opened is in the trace.
#[test]
fn batches_of_two_transformers_are_resumed() {
    let pipeline = Pipeline::of("wan22");
    let prompts = pipeline.folder.path().join("prompts.txt");
    std::fs::write(&prompts, "a red circle\nblue square\n").unwrap();
    let trace = pipeline.folder.path().join("trace.json");
    let options = [
        "--prompts",
        prompts.to_str().unwrap(),
        "--latents-only",
        "--trace",
        trace.to_str().unwrap(),
    ];
    let made = |more: &[&str]| {
        let printed = json(pipeline.arguments(&[&options[..], more].concat()));
        assert_eq!(printed["clips"].as_array().unwrap().len(), 2);
        let text = std::fs::read_to_string(&trace).unwrap();
        let samples = [0, 1].map(|clip| {
            let file = pipeline.output().join(format!("clip_{clip:03}/clip.npz"));
            array::<f32>(&file, "sample")
        });
        (samples, text.matches("opening the model").count())
    };
    let (clips, opened) = made(&[]);
    assert_eq!(opened, 4);
    assert_eq!(made(&["--keep-transformers"]), (clips.clone(), 2));
    std::fs::remove_file(pipeline.output().join("clip_001/clip.npz")).unwrap();
    assert_eq!(made(&["--resume"]), (clips, 2));
    let resumed = [&options[..], &["--resume"]].concat();
    let error = fail(2, pipeline.arguments(&[&resumed[..], &["--guidance-2", "2"]].concat()));
    assert!(error.contains("--guidance-2 was 5.0 and is 2.0"), "{error}");
    let first = pipeline.file("transformer/model.onnx");
    let other = ["--transformer-2", first.to_str().unwrap()];
    let error = fail(2, pipeline.arguments(&[&resumed[..], &other].concat()));
    assert!(error.contains("the second model is another"), "{error}");
}

#[test]
fn two_transformers_that_do_not_go_together_are_refused() {
    let pipeline = Pipeline::of("wan22");
    let prompt = ["--prompt", "a ship"];
    let of_ltx = root().join("tests/data/pipeline/ltx/transformer/model.onnx");
    for (options, code, parts) in [
        (&["--ranks", "2"][..], 2, &["boundary_ratio", "ranks"][..]),
        (
            &["--transformer-2", of_ltx.to_str().unwrap()],
            3,
            &["input `", "unlike", "export them alike"],
        ),
        (&["--form", "variants"], 2, &["needs a patched model"]),
    ] {
        let error = fail(code, pipeline.arguments(&[&prompt[..], options].concat()));
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
    std::fs::remove_file(pipeline.file("transformer_2/model.onnx")).unwrap();
    let error = fail(3, pipeline.arguments(&prompt));
    assert!(
        error.contains("transformer_2/model.onnx") && error.contains("--transformer-2 FILE"),
        "{error}"
    );
    let alone = Pipeline::of("wan");
    for option in [&["--guidance-2", "2"][..], &["--keep-transformers"]] {
        let error = fail(2, alone.arguments(&[&prompt[..], option].concat()));
        assert!(
            error.contains(option[0]) && error.contains("two transformers"),
            "{error}"
        );
    }
}

/// A timestep for each token.
#[test]
fn frames_of_wan_with_expanded_timesteps_equal_those_of_diffusers() {
    compare_with_diffusers("wan_ti2v", 1);
}

/// Patches with places, guidance as an input, a pooled encoder beside another.
#[test]
fn pictures_of_flux_equal_those_of_diffusers() {
    let pipeline = compare_with_diffusers("flux", 2);
    let size = ["--prompt", "a ship", "--height", "8", "--width", "12", "--steps", "1"];
    let output = run(pipeline.arguments(&[&size[..], &["--negative-prompt", "a circle"]].concat()));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("--negative-prompt does nothing"),
        "{said}"
    );
    let error = fail(
        2,
        pipeline.arguments(&["--prompt", "a ship", "--height", "10", "--width", "12"]),
    );
    assert!(error.contains("--height 10") && error.contains("8 and 12"), "{error}");
}

/// What a pipeline is told in the place of a number of steps.
#[test]
fn levels_are_given_in_the_place_of_steps() {
    let pipeline = Pipeline::of("flux");
    let size = ["--prompt", "a ship", "--height", "8", "--width", "12"];
    let sample = |options: &[&str]| {
        let printed = json(pipeline.arguments(&[&size[..], options].concat()));
        assert_eq!(printed["steps"], 4);
        array::<f32>(&pipeline.output().join("clip.npz"), "sample")
    };
    // What this pipeline makes of four steps itself.
    assert_eq!(sample(&["--steps", "4"]), sample(&["--sigmas", "1,0.75,0.5,0.25"]));
    let timesteps = sample(&["--timesteps", "1000,700,300,100"]);
    assert_eq!(
        array::<f64>(&pipeline.output().join("clip.npz"), "timesteps")
            .into_raw_vec_and_offset()
            .0,
        [1000.0, 700.0, 300.0, 100.0]
    );
    assert_ne!(timesteps, sample(&["--sigmas", "1,0.7,0.3,0.2"]));
    for (options, part) in [
        (&["--timesteps", "5,6"][..], "5 comes before 6"),
        (&["--timesteps", "5", "--steps", "4"], "cannot be used with"),
        (&["--timesteps", "5", "--sigmas", "4"], "cannot be used with"),
    ] {
        let mut arguments = pipeline.arguments(&[&size[..], &["--steps", "1"]].concat());
        arguments.truncate(arguments.len() - 2);
        arguments.extend(options.iter().map(OsString::from));
        let error = fail(2, arguments);
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_file_of_prompts_makes_a_folder_for_each() {
    let pipeline = Pipeline::new();
    let prompts = pipeline.folder.path().join("prompts.txt");
    std::fs::write(&prompts, "a red circle\n\n  blue square moving left  \n").unwrap();
    let prompts = prompts.to_str().unwrap();
    let printed = json(pipeline.arguments(&[
        "--prompts",
        prompts,
        "--batch",
        "2",
        "--seed",
        "7",
        "--animation",
        "gif,apng",
    ]));
    let clips = printed["clips"].as_array().unwrap();
    assert_eq!(clips.len(), 4);
    assert!(printed.get("frames").is_none());
    for (index, clip) in clips.iter().enumerate() {
        let prompt = ["a red circle", "blue square moving left"][index / 2];
        assert_eq!(
            (clip["prompt"].as_str(), clip["seed"].as_u64()),
            (Some(prompt), Some(7 + index as u64))
        );
        let folder = pipeline.output().join(format!("clip_{index:03}"));
        let arrays = folder.join("clip.npz");
        assert_eq!(Path::new(clip["arrays"].as_str().unwrap()), arrays);
        // Three frames, two animations and the arrays.
        assert_eq!(files_below(&folder).len(), 3 + 2 + 1, "{:?}", files_below(&folder));
        // Alone, the clip is the same.
        let seed = (7 + index).to_string();
        let output = pipeline.folder.path().join("alone");
        let alone = ["--prompt", prompt, "--seed", &seed, "-o", output.to_str().unwrap()];
        let mut arguments = pipeline.arguments(&alone);
        arguments.drain(2..4);
        json(arguments);
        assert_eq!(
            array::<f32>(&arrays, "noise"),
            array::<f32>(&output.join("clip.npz"), "noise")
        );
        close(
            &array(&arrays, "sample"),
            &array(&output.join("clip.npz"), "sample"),
            "a clip of a batch",
        );
    }
}

#[test]
fn animated_pngs_hold_every_frame() {
    let pipeline = Pipeline::new();
    json(pipeline.arguments(&[
        "--prompt",
        "a ship",
        "--animation",
        "apng",
        "--scale",
        "1",
        "--fps",
        "5",
    ]));
    let decoder = png::Decoder::new(std::io::BufReader::new(
        File::open(pipeline.output().join("clip.apng")).unwrap(),
    ));
    let mut reader = decoder.read_info().unwrap();
    assert_eq!(reader.info().animation_control().unwrap().num_frames, 3);
    for frame in 0..3 {
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        let control = reader.info().frame_control().unwrap();
        assert_eq!((control.delay_num, control.delay_den), (1, 5));
        let picture = image::open(pipeline.output().join(format!("frame_{frame:03}.png"))).unwrap();
        assert_eq!(picture.to_rgb8().into_raw(), pixels);
    }
    assert!(!pipeline.output().join("clip.gif").exists());
}

#[test]
fn a_trace_says_which_rules_broadcast() {
    let pipeline = Pipeline::new();
    let patched = pipeline.patch();
    let trace = pipeline.folder.path().join("trace.json");
    let options = [
        "--prompt",
        "a ship",
        "--steps",
        "10",
        "--transformer",
        &patched,
        "--trace",
        trace.to_str().unwrap(),
    ];
    let printed = json(pipeline.arguments(&options));
    assert!(printed["speed_up"].as_f64().unwrap() > 0.0);
    let trace: Value = serde_json::from_slice(&std::fs::read(trace).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let steps: Vec<&Value> = events
        .iter()
        .filter(|event| event["args"]["timestep"].is_number())
        .collect();
    assert_eq!(steps.len(), 10);
    // Timesteps 901, 801, …, 1: steps 2 to 8 are inside (100, 800), with ranges 2, 3 and 6.
    let broadcast = |rule: &str| -> Vec<usize> {
        let with = |step: &&Value| {
            step["args"]["broadcast"]
                .as_array()
                .unwrap()
                .iter()
                .any(|name| name == rule)
        };
        let number = |step: &Value| step["name"].as_str().unwrap()["step ".len()..].parse().unwrap();
        steps.iter().copied().filter(with).map(number).collect()
    };
    assert_eq!(broadcast("spatial"), [3, 5, 7]);
    assert_eq!(broadcast("temporal"), [2, 4, 5, 7, 8]);
    assert_eq!(broadcast("cross"), [2, 3, 4, 5, 7, 8]);
    let named = |name: &str| events.iter().filter(|event| event["name"] == name).count();
    assert_eq!(
        (named("broadcast"), named("text encoders"), named("decoding")),
        (3 + 5 + 6, 1, 1)
    );
    assert!(steps.iter().all(|step| step["dur"].as_f64().unwrap() > 0.0));
}

#[test]
fn latents_are_written_as_safetensors_and_read_back() {
    let pipeline = Pipeline::new();
    json(pipeline.arguments(&["--prompt", "a ship", "--arrays", "safetensors", "--latents-only"]));
    let file = pipeline.output().join("clip.safetensors");
    assert_eq!(files_below(&pipeline.output()), std::slice::from_ref(&file));
    let bytes = std::fs::read(&file).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.tensor("sample").unwrap().shape(), [1, 4, 3, 4, 4]);
    let sample = tensors.tensor("sample").unwrap().data().to_vec();
    // The noise of that file makes the same clip, without a VAE.
    std::fs::remove_file(pipeline.file("vae_decoder/model.onnx")).unwrap();
    let again = pipeline.folder.path().join("again.safetensors");
    std::fs::copy(&file, &again).unwrap();
    let options = [
        "--noise",
        again.to_str().unwrap(),
        "--prompt",
        "a ship",
        "--arrays",
        "safetensors",
        "--latents-only",
    ];
    assert!(json(pipeline.arguments(&options))["seed"].is_null());
    let bytes = std::fs::read(&file).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.tensor("sample").unwrap().data(), sample);
}

#[test]
fn a_single_model_takes_all_its_inputs_from_one_file() {
    let pipeline = Pipeline::new();
    let model = pipeline.file("transformer/model.onnx");
    let text = ArrayD::from_shape_fn(ndarray::IxDyn(&[2, 5, 24]), |index| {
        (index[1] as f32 - index[2] as f32) / 24.0
    });
    let noise = array::<f32>(&pipeline.file("oracle.npz"), "latents");
    let inputs = pipeline.folder.path().join("inputs.npz");
    let mut archive = ndarray_npy::NpzWriter::new(File::create(&inputs).unwrap());
    archive.add_array("encoder_hidden_states", &text).unwrap();
    archive.add_array("hidden_states", &noise).unwrap();
    archive.finish().unwrap();
    let output = pipeline.output();
    let arguments = |inputs: &str| -> Vec<OsString> {
        let arguments = [
            "run",
            model.to_str().unwrap(),
            "--steps",
            "2",
            "--input",
            inputs,
            "-o",
            output.to_str().unwrap(),
        ];
        arguments.iter().map(OsString::from).collect()
    };
    json(arguments(inputs.to_str().unwrap()));
    assert_eq!(array::<f32>(&output.join("clip.npz"), "noise"), noise);
    let sample = array::<f32>(&output.join("clip.npz"), "sample");
    // The same in two files.
    let (own, latents) = (
        pipeline.folder.path().join("text.npy"),
        pipeline.folder.path().join("latents.npy"),
    );
    text.write_npy(File::create(&own).unwrap()).unwrap();
    noise.write_npy(File::create(&latents).unwrap()).unwrap();
    let mut two = arguments(&format!("encoder_hidden_states={}", own.display()));
    two.extend(["--noise".into(), latents.into()]);
    json(two);
    assert_eq!(array::<f32>(&output.join("clip.npz"), "sample"), sample);
    let error = fail(2, arguments(&format!("nothing={}", own.display())));
    assert!(
        error.contains("no such input") && error.contains("encoder_hidden_states"),
        "{error}"
    );
}

#[test]
fn a_prompt_that_is_too_long_is_cut_with_a_warning() {
    let pipeline = Pipeline::new();
    let prompt = "green ship ".repeat(150);
    let output = run(pipeline.arguments(&["--prompt", &prompt]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("warning: prompt `green ship") && said.contains("has 301 tokens"),
        "{said}"
    );
    assert!(said.contains("takes 120"), "{said}");
}

#[test]
fn what_is_missing_is_named_before_anything_is_computed() {
    let prompt = ["--prompt", "a ship"];
    for (missing, code, parts) in [
        (
            "model_index.json",
            3,
            &["model_index.json is in it", "give the folder"][..],
        ),
        (
            "transformer/model.onnx",
            3,
            &["transformer/model.onnx", "--transformer FILE"],
        ),
        (
            "text_encoder/model.onnx",
            3,
            &["text_encoder/model.onnx", "--prompt-embeds"],
        ),
        (
            "vae_decoder/model.onnx",
            3,
            &["vae_decoder/model.onnx", "--latents-only"],
        ),
        (
            "vae_decoder/config.json",
            3,
            &["vae_decoder/config.json", "how latents are scaled"],
        ),
        ("tokenizer/tokenizer.json", 3, &["tokenizer", "AutoTokenizer"]),
        (
            "scheduler/scheduler_config.json",
            2,
            &["scheduler_config.json", "--scheduler"],
        ),
    ] {
        let pipeline = Pipeline::new();
        std::fs::remove_file(pipeline.file(missing)).unwrap();
        let error = fail(code, pipeline.arguments(&prompt));
        for part in parts {
            assert!(error.contains(part), "{missing}: {error}");
        }
        assert!(!pipeline.output().exists(), "{missing}");
    }
}

#[test]
fn sizes_that_the_pipeline_cannot_have_are_refused() {
    let pipeline = Pipeline::new();
    for (options, parts) in [
        (["--height", "9"], ["--height 9", "8 and 10"]),
        (["--width", "16"], ["--width 16", "made for 8"]),
        (["--frames", "4"], ["--frames 4", "made for 3"]),
    ] {
        let mut all = vec!["--prompt", "a ship"];
        all.extend(options);
        let error = fail(2, pipeline.arguments(&all));
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
    json(pipeline.arguments(&[
        "--prompt", "a ship", "--height", "8", "--width", "8", "--frames", "3", "--steps", "1",
    ]));
    let error = fail(2, pipeline.arguments(&[]));
    assert!(
        error.contains("--prompt") && error.contains("encoder_hidden_states"),
        "{error}"
    );
    let empty = pipeline.folder.path().join("empty.txt");
    std::fs::write(&empty, "\n\n").unwrap();
    let error = fail(2, pipeline.arguments(&["--prompts", empty.to_str().unwrap()]));
    assert!(error.contains("no prompts"), "{error}");
}

#[test]
fn models_whose_inputs_do_not_fit_are_refused() {
    // A transformer with more inputs than have a role.
    let pipeline = Pipeline::new();
    let flux = root().join("tests/data/corpus/flux/flux.dyn23.dynamic.onnx");
    std::fs::copy(flux, pipeline.file("transformer/model.onnx")).unwrap();
    let error = fail(2, pipeline.arguments(&["--prompt", "a ship"]));
    assert!(error.contains("--input ") && error.contains("=FILE"), "{error}");
    // A decoder in the place of the text encoder, and the other way round.
    let pipeline = Pipeline::new();
    let (encoder, decoder) = (
        pipeline.file("text_encoder/model.onnx"),
        pipeline.file("vae_decoder/model.onnx"),
    );
    let data = root().join("tests/data/pipeline/latte");
    std::fs::copy(data.join("vae_decoder/model.onnx"), &encoder).unwrap();
    let error = fail(3, pipeline.arguments(&["--prompt", "a ship"]));
    assert!(
        error.contains("text_encoder/model.onnx") && error.contains("`latent_sample`"),
        "{error}"
    );
    std::fs::copy(data.join("text_encoder/model.onnx"), &encoder).unwrap();
    std::fs::copy(data.join("text_encoder/model.onnx"), &decoder).unwrap();
    let error = fail(3, pipeline.arguments(&["--prompt", "a ship"]));
    assert!(
        error.contains("vae_decoder/model.onnx") && error.contains("`input_ids`"),
        "{error}"
    );
    // A class that is not known.
    let index = pipeline.file("model_index.json");
    let text = std::fs::read_to_string(&index)
        .unwrap()
        .replace("LattePipeline", "MochiPipeline");
    std::fs::write(&index, text).unwrap();
    let error = fail(3, pipeline.arguments(&["--prompt", "a ship"]));
    assert!(
        error.contains("`MochiPipeline`") && error.contains("LattePipeline"),
        "{error}"
    );
}

/// By the real program, where it is installed: as many frames as the clip has, in its colours.
#[test]
fn films_of_an_installed_ffmpeg_have_the_frames() {
    let ffmpeg = |arguments: &[&OsStr]| std::process::Command::new("ffmpeg").args(arguments).output();
    if ffmpeg(&["-version".as_ref()]).is_err() {
        eprintln!("no ffmpeg is installed: nothing was shown");
        return;
    }
    let pipeline = Pipeline::new();
    json(pipeline.arguments(&["--prompt", "a ship", "--animation", "mp4", "--scale", "4"]));
    let (film, raw) = (pipeline.output().join("clip.mp4"), pipeline.folder.path().join("raw"));
    let options = ["-f", "rawvideo", "-pix_fmt", "rgb24"].map(OsStr::new);
    let mut arguments = vec![OsStr::new("-i"), film.as_os_str()];
    arguments.extend(options);
    arguments.push(raw.as_os_str());
    assert!(ffmpeg(&arguments).unwrap().status.success());
    // Three frames of 8 x 8 pixels, each 4 x 4.
    let found = std::fs::read(raw).unwrap();
    assert_eq!(found.len(), 3 * 32 * 32 * 3);
    let frames = (0..3).map(|index| {
        image::open(pipeline.output().join(format!("frame_{index:03}.png")))
            .unwrap()
            .to_rgb8()
    });
    let mean = |levels: &[u8]| levels.iter().map(|level| f64::from(*level)).sum::<f64>() / levels.len() as f64;
    for (frame, found) in frames.zip(found.chunks_exact(32 * 32 * 3)) {
        // What compression and colours at half the size leave.
        assert!((mean(frame.as_raw()) - mean(found)).abs() < 12.0);
    }
}

#[cfg(unix)]
#[test]
fn films_are_made_by_ffmpeg_where_it_is_installed() {
    use std::os::unix::fs::PermissionsExt;
    let pipeline = Pipeline::new();
    let arguments = pipeline.arguments(&["--prompt", "a ship", "--animation", "mp4", "--scale", "1"]);
    // Nothing is on the path: it is said before anything is computed.
    let programs = pipeline.folder.path().join("programs");
    std::fs::create_dir(&programs).unwrap();
    let error = failure(6, command(&arguments).env("PATH", &programs));
    assert!(error.contains("ffmpeg") && error.contains("--animation"), "{error}");
    assert!(!pipeline.output().exists());
    // One that keeps what it is given: three frames of 8 x 8 pixels.
    let path = std::env::join_paths([programs.clone(), "/usr/bin".into(), "/bin".into()]).unwrap();
    let program = programs.join("ffmpeg");
    let write = |text: &str| {
        std::fs::write(&program, text).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    };
    write("#!/bin/sh\n[ \"$1\" = -version ] && exit 0\nfor last; do :; done\ncat > \"$last\"\n");
    let output = command(&arguments).env("PATH", &path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(
        std::fs::read(pipeline.output().join("clip.mp4")).unwrap().len(),
        3 * 8 * 8 * 3
    );
    // One that fails, and says why.
    write("#!/bin/sh\n[ \"$1\" = -version ] && exit 0\necho 'no encoder for that' >&2\nexit 3\n");
    let error = failure(6, command(&arguments).env("PATH", &path));
    assert!(
        error.contains("clip.mp4") && error.contains("no encoder for that"),
        "{error}"
    );
}
