//! What the arithmetic of guidance and schedulers takes of a step of the shipped model: every class, on the shipped
//! model's latent and on one as large as Open-Sora's at 720p.
//!
//! The model's step is timed on as many elements as the latent has (side by side in the batch). That is a model of
//! 3 million parameters: with any that makes such videos the share is a small fraction of what is printed.

#![allow(missing_docs, clippy::unwrap_used)] // A bench that cannot go on should stop.

use ndarray::{ArrayD, IxDyn};
use pab_patch::runtime::{self, Denoiser, ElementType, Options, Provider, Session, Tensor};
use pab_patch::sampler::{
    CHANNEL_AXIS, NoiseSource, RunSettings, SchedulerConfig, SeededNoise, guide, noise, repeat_batch,
};
use std::path::Path;
use std::time::Instant;

const STEPS: usize = 10;
const ROUNDS: usize = 3;

/// Every class, and the variants of it that take most arithmetic.
const CONFIGURATIONS: &[(&str, &str)] = &[
    ("DDIM", r#"{"_class_name": "DDIMScheduler"}"#),
    (
        "DDIM, thresholding",
        r#"{"_class_name": "DDIMScheduler", "thresholding": true, "clip_sample": false}"#,
    ),
    ("DDPM", r#"{"_class_name": "DDPMScheduler"}"#),
    ("PNDM", r#"{"_class_name": "PNDMScheduler"}"#),
    ("Euler", r#"{"_class_name": "EulerDiscreteScheduler"}"#),
    (
        "Euler ancestral",
        r#"{"_class_name": "EulerAncestralDiscreteScheduler"}"#,
    ),
    ("Heun", r#"{"_class_name": "HeunDiscreteScheduler"}"#),
    (
        "DPM-Solver++",
        r#"{"_class_name": "DPMSolverMultistepScheduler", "solver_order": 3}"#,
    ),
    (
        "DPM-Solver++, stochastic",
        r#"{"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++"}"#,
    ),
    (
        "DPM-Solver++, single step",
        r#"{"_class_name": "DPMSolverSinglestepScheduler", "solver_order": 3}"#,
    ),
    (
        "UniPC",
        r#"{"_class_name": "UniPCMultistepScheduler", "solver_order": 3}"#,
    ),
    ("LCM", r#"{"_class_name": "LCMScheduler"}"#),
    (
        "flow-match Euler",
        r#"{"_class_name": "FlowMatchEulerDiscreteScheduler"}"#,
    ),
    ("CogVideoX DDIM", r#"{"_class_name": "CogVideoXDDIMScheduler"}"#),
    ("CogVideoX DPM", r#"{"_class_name": "CogVideoXDPMScheduler"}"#),
    ("Open-Sora's flow", r#"{"_class_name": "OpenSoraRFlowScheduler"}"#),
];

/// Milliseconds a step of everything but the model: scaling, both halves of guidance, the scheduler, its noise.
fn arithmetic(configuration: &str, shape: &[usize]) -> (f64, f64) {
    let config = SchedulerConfig::parse("bench.json", configuration).unwrap();
    let start = noise(shape, 1).unwrap();
    let output = noise(shape, 2).unwrap();
    let output = repeat_batch(output.view(), 2).unwrap();
    let mut best = f64::INFINITY;
    let mut drawing = f64::INFINITY;
    for _ in 0..ROUNDS {
        let mut scheduler = config.scheduler_for(&RunSettings::of_steps(STEPS)).unwrap();
        let mut source = SeededNoise::new(3);
        let mut sample: ArrayD<f32> = &start * scheduler.initial_noise_sigma();
        let calls = scheduler.timesteps().len();
        let begun = Instant::now();
        for index in 0..calls {
            let scaled = scheduler.scale_model_input(index, sample.clone()).unwrap();
            let both = repeat_batch(scaled.view(), 2).unwrap();
            std::hint::black_box(&both);
            let guided = guide(output.view(), 7.5, CHANNEL_AXIS, shape[1]).unwrap();
            sample = scheduler
                .step(index, guided.view(), sample.view(), &mut source)
                .unwrap();
        }
        std::hint::black_box(&sample);
        best = best.min(begun.elapsed().as_secs_f64() * 1e3 / calls as f64);
        let begun = Instant::now();
        for index in 0..scheduler.noise_draws() {
            std::hint::black_box(source.draw(index, shape).unwrap());
        }
        drawing = drawing.min(begun.elapsed().as_secs_f64() * 1e3 / calls as f64);
    }
    (best, drawing)
}

/// Milliseconds of a step of the shipped model, of two halves with `clips` clips each.
fn model_step(session: &mut Denoiser, clips: usize) -> f64 {
    let ports = session.session().inputs().to_vec();
    let inputs = ports.iter().map(|port| {
        let shape = port.shape.iter().zip(&port.symbols).map(|(size, symbol)| match size {
            Some(size) => *size as usize,
            None if symbol == "batch" => 2 * clips,
            None => 8,
        });
        let shape: Vec<usize> = shape.collect();
        let values = ArrayD::from_elem(IxDyn(&shape), 0.5_f32);
        let tensor = Tensor::from_array(values).cast(port.element_type.unwrap_or(ElementType::Float32));
        (port.name.clone(), tensor)
    });
    let inputs: Vec<(String, Tensor)> = inputs.collect();
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        session.step(&inputs, &[]).unwrap();
        best = best.min(begun.elapsed().as_secs_f64() * 1e3);
    }
    best
}

fn main() {
    runtime::ensure().unwrap();
    let options = Options {
        provider: Provider::Cpu,
        ..Options::default()
    };
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/latte-shapes/model.onnx");
    let mut session = Denoiser::plain(Session::open(&model, &options).unwrap());
    for (name, shape, clips) in [
        ("shipped model", vec![1, 3, 8, 32, 32], 1),
        ("Open-Sora 720p", vec![1, 4, 16, 90, 160], 38),
    ] {
        let step = model_step(&mut session, clips);
        println!("{name}, {shape:?}: a step of the model takes {step:.1} ms");
        for (class, configuration) in CONFIGURATIONS {
            let (milliseconds, drawing) = arithmetic(configuration, &shape);
            println!(
                "  {class:28} {:6.3} % of it, {:6.3} % drawing noise",
                100.0 * (milliseconds - drawing).max(0.0) / step,
                100.0 * drawing / step
            );
        }
    }
}
