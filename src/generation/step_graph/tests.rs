//! A step's graph on the processor against guidance and the scheduler's own step on the host.

use ndarray::ArrayD;
use prost::Message;

use super::*;
use crate::runtime::{Denoiser, Options, Provider, Session, Tensor, ensure};
use crate::sampler::{
    CHANNEL_AXIS, NoiseSource, SchedulerConfig, SeededNoise, first_channels, guide, linear_run, noise, repeat_batch,
};
use std::path::Path;

const SHAPE: [usize; 4] = [2, 3, 4, 2];
const GUIDANCE: f32 = 4.5;

/// One with each kind of term: sums of what is kept, a clamp, noise, a scaled input, a step of several calls.
const CONFIGURATIONS: &[&str] = &[
    r#"{"_class_name": "DDIMScheduler", "clip_sample": true}"#,
    r#"{"_class_name": "DDPMScheduler", "clip_sample": false}"#,
    r#"{"_class_name": "PNDMScheduler"}"#,
    r#"{"_class_name": "EulerAncestralDiscreteScheduler"}"#,
    r#"{"_class_name": "HeunDiscreteScheduler"}"#,
    r#"{"_class_name": "DPMSolverMultistepScheduler", "solver_order": 3, "algorithm_type": "sde-dpmsolver++"}"#,
    r#"{"_class_name": "UniPCMultistepScheduler", "solver_order": 3}"#,
    r#"{"_class_name": "FlowMatchEulerDiscreteScheduler"}"#,
];

fn largest(array: &ArrayD<f32>) -> f32 {
    array.iter().fold(0.0, |most, value| most.max(value.abs()))
}

#[test]
fn a_graph_takes_the_steps_of_the_host() {
    ensure().unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/runtime/switch.onnx");
    let options = Options {
        provider: Provider::Cpu,
        threads: Some(1),
        ..Options::default()
    };
    // Without guidance and with it; with learned variances, told and untold.
    for (config, (copies, given, told)) in CONFIGURATIONS.iter().zip(
        [(1, 3, true), (2, 3, true), (2, 6, true), (2, 6, false), (1, 6, false)]
            .into_iter()
            .cycle(),
    ) {
        let config = SchedulerConfig::parse("scheduler_config.json", config).unwrap();
        let mut scheduler = config.scheduler(6).unwrap();
        let run = linear_run(scheduler.as_mut()).unwrap();
        let float = DataType::Float;
        let graph = StepGraph::new(&run, &SHAPE, told.then_some(given), copies, float, float);
        let session = Session::open_bytes(&model, &graph.model().encode_to_vec(), &options).unwrap();
        let mut step = Denoiser::plain(session);
        let start = noise(&SHAPE, 1).unwrap() * scheduler.initial_noise_sigma();
        let (mut host, mut device) = (start.clone(), start.clone());
        let mut kept_tensors = vec![ArrayD::zeros(start.raw_dim()); graph.kept()];
        for index in 0..run.steps.len() {
            let output = noise(&[copies * SHAPE[0], given, SHAPE[2], SHAPE[3]], 7 + index as u64).unwrap();
            assert!(graph.takes(output.shape()) && !graph.takes(&SHAPE[..3]));
            let guided = match copies {
                1 => first_channels(output.view(), CHANNEL_AXIS, SHAPE[1]),
                _ => guide(output.view(), GUIDANCE, CHANNEL_AXIS, SHAPE[1]),
            };
            let (guided, draws) = (guided.unwrap(), &mut SeededNoise::new(3));
            let before = host.clone();
            host = scheduler.step(index, guided.view(), host.view(), draws).unwrap();
            let fresh = draws.draw(index, &SHAPE).unwrap();
            let next_scale = run.scales.get(index + 1).copied().unwrap_or(1.0);
            let numbers = graph.numbers(&run.steps[index], GUIDANCE, next_scale);
            let mut inputs = vec![
                (OUTPUT.to_owned(), Tensor::from_array(output)),
                (SAMPLE.to_owned(), Tensor::from_array(device)),
                (NUMBERS.to_owned(), Tensor::new(&[numbers.len()], numbers).unwrap()),
            ];
            if graph.takes_noise() {
                inputs.push((NOISE.to_owned(), Tensor::from_array(fresh)));
            }
            for (place, tensor) in kept_tensors.iter().enumerate() {
                inputs.push((kept(place), Tensor::from_array(tensor.clone())));
            }
            let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
            let outputs = step.step(&inputs, &[]).unwrap();
            let find = |name: &str| {
                let found = outputs.iter().find(|(found, _)| found == name);
                found.unwrap().1.clone().into_f32()
            };
            device = find(NEXT_SAMPLE);
            kept_tensors = (0..graph.kept()).map(|place| find(&next_kept(place))).collect();
            // Beside the sample of the step before: what a step takes away leaves its rounding.
            let apart = largest(&(&device - &host)) / largest(&host).max(largest(&before));
            assert!(apart < 2e-6, "{}, step {index}: off by {apart:e}", config.class());
            let latent = repeat_batch((&host * next_scale).view(), copies).unwrap();
            let found = find(NEXT_LATENT);
            assert_eq!(found.shape(), latent.shape());
            assert!(
                largest(&(&found - &latent)) < 1e-5 * largest(&latent),
                "{}, step {index}",
                config.class()
            );
            let magnitude: f32 = host.iter().map(|value| value.abs()).sum();
            let found = find(MAGNITUDE);
            assert!((found.first().unwrap() - magnitude).abs() < 1e-4 * magnitude, "{found}");
        }
    }
}
