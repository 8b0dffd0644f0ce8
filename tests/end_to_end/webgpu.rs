//! Caches in the memory of a device that is not the processor: WebGPU, where its library and a Vulkan driver are found.
//!
//! A driver in software does: SwiftShader of Debian's `chromium-common`, by VK_ICD_FILENAMES and
//! ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER=1. The library is PyPI's `onnxruntime-ep-webgpu`, beside `onnxruntime` or in
//! PAB_PATCH_WEBGPU_LIB. Where they are not there, the test shows that asking for them is an error that says what to do.

use crate::equality::{inputs, patch_as};
use crate::program::root;
use ndarray::{Array2, ArrayD};
use pab_patch::generation::{Conditioning, Generator, LatentPlace};
use pab_patch::graph::ModelGraph;
use pab_patch::onnx::Model;
use pab_patch::rewrite::variants;
use pab_patch::runtime::{
    Denoiser, Feedback, Options, Provider, RuntimeError, Session, SharedWeights, Tensor, VariantDenoiser, ensure,
};
use pab_patch::sampler::{SchedulerConfig, SeededNoise, noise};
use std::path::Path;

const RULES: &str = "
version: 1
rules:
  - { name: spatial, match: { kind: spatial }, broadcast: { range: 2 } }
  - { name: mlp, match: { kind: mlp }, broadcast: { range: 3 } }
";
const STEPS: &str = "5";

fn options(provider: Provider) -> Options {
    Options {
        threads: Some(crate::program::THREADS),
        provider,
        ..Options::default()
    }
}

fn largest(array: &ArrayD<f32>) -> f32 {
    array.iter().fold(0.0, |largest, value| largest.max(value.abs()))
}

#[test]
fn caches_stay_in_the_memory_of_the_device() {
    ensure().unwrap();
    let patched = patch_as(
        &root().join("tests/data/corpus/latte.ts17.static.onnx"),
        RULES,
        &["--steps", STEPS],
    );
    let session = match Session::open(&patched.path, &options(Provider::WebGpu)) {
        Ok(session) => session,
        Err(error) => {
            assert!(matches!(&error, RuntimeError::WebGpuUnusable { .. }), "{error}");
            let message = error.to_string();
            assert!(
                ["pip install", "Vulkan"].iter().any(|advice| message.contains(advice)),
                "{message}"
            );
            return;
        }
    };
    assert_eq!(session.provider(), Provider::WebGpu);
    let feedback = || Feedback::try_from(&patched.plan).unwrap();
    let mut device = Denoiser::patched(session, feedback()).unwrap();
    let session = Session::open(&patched.path, &options(Provider::Cpu)).unwrap();
    let mut processor = Denoiser::patched(session, feedback()).unwrap();
    let schedule = patched.plan.schedule.clone().unwrap();
    let graph = ModelGraph::new(Model::load(&patched.path).unwrap()).unwrap();
    let mut weights = SharedWeights::default();
    let made = variants(&graph, &patched.plan, &schedule).unwrap().into_iter();
    let sessions = made.map(|variant| {
        let model = variant.model.into_model().unwrap();
        let session = weights.open(&patched.path, model, &options(Provider::WebGpu));
        (variant.flags, session.unwrap_or_else(|error| panic!("{error}")))
    });
    let sessions: Vec<_> = sessions.collect();
    let matrices = weights.bytes_on_device();
    eprintln!(
        "{} variants share {matrices} bytes of weights on the device",
        sessions.len()
    );
    assert!(matrices > 0);
    let fed_back = patched.plan.fed_back();
    let fed_back = fed_back.map(|(input, output)| (input.to_owned(), output.to_owned()));
    let mut variants = VariantDenoiser::new(sessions, fed_back).unwrap();
    for step in 0..schedule.steps() {
        let given = inputs(processor.session(), step as u64);
        let given: Vec<(&str, &Tensor)> = given.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let flags = schedule.flags(step);
        let expected = processor.step(&given, &flags).unwrap().remove(0).1.into_f32();
        for (form, outputs) in [
            ("switches", device.step(&given, &flags)),
            ("variants", variants.step(&given, &flags)),
        ] {
            let found = outputs
                .unwrap_or_else(|error| panic!("{form}: {error}"))
                .remove(0)
                .1
                .into_f32();
            let error = largest(&(&found - &expected)) / largest(&expected);
            assert!(error < 1e-4, "{form}, step {step}: off by {error}");
        }
    }
    assert!(device.held_bytes() > 0 && variants.held_bytes() > 0);
    assert_eq!((device.host_copies(), variants.host_copies()), (0, 0));
    // They cannot be read by the host as they lie there.
    assert!(device.caches().is_err());
}

/// A scheduler of each kind with whole timesteps: a clamp, noise in every step, a scaled input, sums of what earlier steps
/// left.
const SCHEDULERS: &[&str] = &[
    r#"{"_class_name": "DDIMScheduler", "clip_sample": true, "clip_sample_range": 2.0}"#,
    r#"{"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "leading"}"#,
    r#"{"_class_name": "DPMSolverMultistepScheduler", "solver_order": 3, "lower_order_final": true}"#,
    r#"{"_class_name": "UniPCMultistepScheduler"}"#,
];

/// A clip of 6 steps; the model has a batch of two, so guidance is on.
fn clip(generator: &mut Generator, scheduler: &str) -> ArrayD<f32> {
    let config = SchedulerConfig::parse("scheduler_config.json", scheduler).unwrap();
    let mut scheduler = config.scheduler(6).unwrap();
    let text = |seed| {
        let rows: Array2<f32> = noise(&[5, 24], seed).unwrap().into_dimensionality().unwrap();
        Some(rows.into())
    };
    let conditioning = Conditioning {
        guidance: 3.0,
        prompt: text(10),
        empty: text(11),
        ..Conditioning::default()
    };
    let start = noise(&[1, 4, 3, 4, 4], 1).unwrap();
    let made = generator.generate(
        scheduler.as_mut(),
        start,
        &mut SeededNoise::new(5),
        &conditioning,
        &mut |_| {},
    );
    made.unwrap_or_else(|error| panic!("{error}")).sample
}

fn generators(path: &Path, plan: &pab_patch::rewrite::Plan, provider: Provider) -> Option<[Generator; 2]> {
    let session = Session::open(path, &options(provider)).ok()?;
    let switch = Generator::new(session, &[]).unwrap();
    let schedule = plan.schedule.clone().unwrap();
    let graph = ModelGraph::new(Model::load(path).unwrap()).unwrap();
    let mut weights = SharedWeights::default();
    let made = variants(&graph, plan, &schedule).unwrap().into_iter();
    let sessions = made.map(|variant| {
        let model = variant.model.into_model().unwrap();
        (variant.flags, weights.open(path, model, &options(provider)).unwrap())
    });
    Some([
        switch,
        Generator::of_variants(sessions.collect(), plan.clone(), &[]).unwrap(),
    ])
}

#[test]
fn latents_stay_in_the_memory_of_the_device() {
    ensure().unwrap();
    let patched = patch_as(
        &root().join("tests/data/corpus/latte.ts17.static.onnx"),
        RULES,
        &["--steps", "6"],
    );
    // The other test says what an error it is where there is no WebGPU.
    let Some(forms) = generators(&patched.path, &patched.plan, Provider::WebGpu) else {
        eprintln!("SKIPPED: no WebGPU");
        return;
    };
    let [mut processor, _] = generators(&patched.path, &patched.plan, Provider::Cpu).unwrap();
    for (form, mut generator) in ["switches", "variants"].into_iter().zip(forms) {
        for scheduler in SCHEDULERS {
            let before = generator.host_copies();
            let found = clip(&mut generator, scheduler);
            assert_eq!(
                generator.latents().map(|place| place.on_device),
                Some(true),
                "{scheduler}"
            );
            assert_eq!(generator.host_copies(), before, "{form}, {scheduler}");
            // The same with the arithmetic on the host: every step brings the output there, and the latent back.
            generator.keep_latents(false);
            let expected = clip(&mut generator, scheduler);
            let latent = 2 * 4 * 3 * 4 * 4 * 4;
            assert_eq!(
                generator.host_copies() - before,
                6 * (latent + 2 * latent),
                "{form}, {scheduler}"
            );
            generator.keep_latents(true);
            let apart = largest(&(&found - &expected)) / largest(&expected);
            eprintln!("{form}, {scheduler}: {apart:.1e} from the host's arithmetic");
            assert!(apart < 1e-5, "{form}, {scheduler}: {apart:e}");
            // The model itself rounds otherwise there, and the steps go on from that.
            let on_processor = clip(&mut processor, scheduler);
            let apart = largest(&(&found - &on_processor)) / largest(&on_processor);
            assert!(apart < 1e-2, "{form}, {scheduler}: {apart:e} from the processor");
        }
        // What is no sum is taken on the host, and that is said.
        clip(
            &mut generator,
            r#"{"_class_name": "DDIMScheduler", "clip_sample": false, "thresholding": true}"#,
        );
        let Some(LatentPlace {
            on_device: false,
            reason: Some(reason),
        }) = generator.latents()
        else {
            panic!("{:?}", generator.latents())
        };
        assert!(reason.contains("`thresholding`"), "{reason}");
    }
}
