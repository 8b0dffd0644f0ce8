//! Caches in the memory of a device that is not the processor: WebGPU, where its library and a Vulkan driver are found.
//!
//! A driver in software does: SwiftShader of Debian's `chromium-common`, by VK_ICD_FILENAMES and
//! ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER=1. The library is PyPI's `onnxruntime-ep-webgpu`, beside `onnxruntime` or in
//! PAB_PATCH_WEBGPU_LIB. Where they are not there, the test shows that asking for them is an error that says what to do.

use crate::equality::{inputs, patch_as};
use crate::program::root;
use ndarray::ArrayD;
use pab_patch::graph::ModelGraph;
use pab_patch::onnx::Model;
use pab_patch::rewrite::variants;
use pab_patch::runtime::{
    Denoiser, Feedback, Options, Provider, RuntimeError, Session, SharedWeights, Tensor, VariantDenoiser, ensure,
};

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
    let fed_back = patched.plan.fed_back();
    let fed_back = fed_back.map(|(input, output)| (input.to_owned(), output.to_owned()));
    let mut variants = VariantDenoiser::new(sessions.collect(), fed_back).unwrap();
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
