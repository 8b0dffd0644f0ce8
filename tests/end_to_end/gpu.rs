//! On a real device: the same clips as on the processor, neither caches nor latents through the host, CUDA graphs, the memory of
//! variants, and where nodes run.
//!
//! `PAB_PATCH_TEST_DEVICE` names the device (`cuda`, `cuda:1`, `tensorrt`, `webgpu`); without it these tests are skipped, and say
//! so. `tests/gpu/run.sh` runs them.

use crate::forms::{memory, with_four_variants};
use crate::program::{shipped_model, succeed};
use ndarray::{ArrayD, Axis};
use pab_patch::generation::{Conditioning, Generator, LatentPlace};
use pab_patch::graph::ModelGraph;
use pab_patch::onnx::Model;
use pab_patch::report::read_matrix;
use pab_patch::rewrite::{PLAN_KEY, Plan, SchedulePlan, variants};
use pab_patch::runtime::{self, Options, Provider, Session, SharedWeights, provider};
use pab_patch::sampler::{SchedulerConfig, SeededNoise, noise};
use std::path::{Path, PathBuf};

/// How far a device's arithmetic may lead the clip away, as part of the largest value: float32 in another order.
const TOLERANCE: f32 = 5e-3;

fn device() -> Option<(Provider, u32)> {
    match std::env::var("PAB_PATCH_TEST_DEVICE") {
        Ok(name) => Some(provider::parse(&name).unwrap()),
        Err(_) => {
            eprintln!("SKIPPED: no device is named in PAB_PATCH_TEST_DEVICE");
            None
        }
    }
}

/// What a device made.
struct Made {
    sample: ArrayD<f32>,
    /// Bytes of caches and latents that went through the host.
    copies: u64,
    latents: LatentPlace,
    recordings: usize,
}

/// How the model is run.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Switch,
    Variants,
    /// Variants that CUDA records.
    Recorded,
}

fn options((provider, device_index): (Provider, u32), form: Form) -> Options {
    Options {
        threads: Some(crate::program::THREADS),
        provider,
        device_index,
        cuda_graph: form == Form::Recorded,
        ..Options::default()
    }
}

fn generator(model: &Path, options: &Options, form: Form, timesteps: &[f64]) -> Generator {
    let graph = ModelGraph::new(Model::load(model).unwrap()).unwrap();
    let plan = graph.metadata(PLAN_KEY).map(|json| Plan::parse(json).unwrap());
    let (Form::Variants | Form::Recorded, Some(plan)) = (form, plan) else {
        let session = Session::open(model, options).unwrap();
        for operator in session.on_processor().unwrap_or_default() {
            eprintln!(
                "{}: on the processor: {} {}",
                model.display(),
                operator.nodes.len(),
                operator.operator
            );
        }
        return Generator::new(session, &[]).unwrap();
    };
    let schedule = SchedulePlan::new(&plan, timesteps);
    let mut weights = SharedWeights::default();
    if form == Form::Recorded {
        // What is reckoned from open sizes runs on the processor, which no recording takes.
        weights.fix_sizes([("batch".to_owned(), 2), ("text".to_owned(), 4)].into());
    }
    let made = variants(&graph, &plan, &schedule).unwrap().into_iter();
    let sessions = made.map(|variant| {
        let variant_model = variant.model.into_model().unwrap();
        let session = weights.open(model, variant_model, options);
        (variant.flags, session.unwrap_or_else(|error| panic!("{error}")))
    });
    let mut generator = Generator::of_variants(sessions.collect(), plan, &[]).unwrap();
    if form == Form::Recorded {
        generator.fix_addresses();
    }
    generator
}

/// Two clips of a model on a device, of which the second is given: recordings are made in the first.
fn clip(model: &Path, device: (Provider, u32), form: Form) -> Made {
    let config = SchedulerConfig::load(&shipped_model().with_file_name("scheduler/scheduler_config.json")).unwrap();
    let mut scheduler = config.scheduler(20).unwrap();
    let mut generator = generator(model, &options(device, form), form, scheduler.timesteps());
    let table = read_matrix(&shipped_model().with_file_name("prompt_table.npy")).unwrap();
    let text = |row: usize| Some(table.select(Axis(0), &[row; 4]).into());
    let conditioning = Conditioning {
        guidance: 2.0,
        prompt: text(0),
        empty: text(1),
        ..Conditioning::default()
    };
    let mut make = |seed| {
        let start = noise(&[1, 3, 8, 32, 32], seed).unwrap();
        let draws = &mut SeededNoise::new(seed);
        let made = generator.generate(scheduler.as_mut(), start, draws, &conditioning, &mut |_| {});
        made.unwrap_or_else(|error| panic!("{form:?}: {error}")).sample
    };
    make(1);
    let sample = make(0);
    Made {
        sample,
        copies: generator.host_copies(),
        latents: generator.latents().unwrap().clone(),
        recordings: generator.recordings(),
    }
}

fn patched(folder: &Path) -> PathBuf {
    let patched = succeed([
        shipped_model().as_os_str(),
        "--rules".as_ref(),
        "latte".as_ref(),
        "-o".as_ref(),
        folder.as_os_str(),
        "-q".as_ref(),
    ]);
    PathBuf::from(patched.trim())
}

fn largest(array: &ArrayD<f32>) -> f32 {
    array.iter().fold(0.0, |largest, value| largest.max(value.abs()))
}

#[test]
fn a_device_makes_the_clips_of_the_processor_and_copies_no_cache_and_no_latent() {
    let Some(device) = device() else { return };
    runtime::ensure().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let patched = patched(folder.path());
    for (model, form) in [
        (shipped_model(), Form::Switch),
        (patched.clone(), Form::Switch),
        (patched, Form::Variants),
    ] {
        let expected = clip(&model, (Provider::Cpu, 0), Form::Switch).sample;
        let found = clip(&model, device, form);
        let apart = largest(&(&expected - &found.sample)) / largest(&expected);
        eprintln!("{}, {form:?}: {apart:.1e} of the largest value", model.display());
        assert!(apart <= TOLERANCE, "{form:?}: {apart:e}");
        assert_eq!(
            found.copies, 0,
            "{form:?}: bytes went through the host; latents: {:?}",
            found.latents
        );
        assert!(found.latents.on_device, "{form:?}: {:?}", found.latents);
    }
}

#[test]
fn a_recorded_step_computes_what_the_kernels_one_by_one_do() {
    let Some(device) = device().filter(|(provider, _)| *provider == Provider::Cuda) else {
        eprintln!("SKIPPED: CUDA graphs are CUDA's");
        return;
    };
    runtime::ensure().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let patched = patched(folder.path());
    let expected = clip(&patched, device, Form::Variants);
    let found = clip(&patched, device, Form::Recorded);
    let apart = largest(&(&expected.sample - &found.sample)) / largest(&expected.sample);
    eprintln!(
        "recorded: {apart:.1e} of the largest value, {} recordings",
        found.recordings
    );
    assert!(apart <= TOLERANCE, "{apart:e}");
    assert!(found.recordings >= 2, "{}", found.recordings);
    assert_eq!(found.copies, 0, "{:?}", found.latents);
}

/// Only one variant runs at a time: the others hold no activations, and none has weights of its own.
#[test]
fn four_variants_take_the_memory_of_one_graph_on_cuda() {
    if device().is_none_or(|(provider, _)| provider != Provider::Cuda) {
        eprintln!("SKIPPED: variants have one arena on CUDA alone");
        return;
    }
    let device = std::env::var("PAB_PATCH_TEST_DEVICE").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let model = with_four_variants(folder.path());
    let (one, four) = (memory(&model, "switch", &device), memory(&model, "variants", &device));
    eprintln!("taken of {device}: {one} bytes by one graph, {four} by four variants");
    assert!(four as f64 <= 1.15 * one as f64, "one {one}, four {four}");
}
