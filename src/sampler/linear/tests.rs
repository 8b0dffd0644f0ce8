//! Runs by weights against the schedulers' own steps, for the configurations of `tests/data/sampler/schedulers.npz`.

use super::super::tests::{FILES, Run, oracle, relative, toy};
use super::*;
use crate::sampler::{GivenNoise, SchedulerConfig};
use ndarray::Axis;

/// How far steps by weights may be from the scheduler's, as part of the largest value before and behind the step: what a step
/// takes away leaves its rounding.
const TOLERANCE: f32 = 1e-6;
/// The same of the few runs in which the terms of a sum are larger than sample and result, as in last steps of third order.
const CANCELLING: f32 = 1e-5;

/// A run whose steps are taken by weights.
struct Walk {
    run: LinearRun,
    kept: Vec<ArrayD<f32>>,
}

impl Walk {
    fn step(&mut self, index: usize, output: &ArrayD<f32>, sample: &ArrayD<f32>, fresh: &ArrayD<f32>) -> ArrayD<f32> {
        let step = &self.run.steps[index];
        let clean = step.clean.map(|(of_output, of_sample)| {
            let range = self.run.clip.unwrap();
            (output * of_output + sample * of_sample).mapv_into(|value| value.clamp(-range, range))
        });
        let sum = |weights: &Weights| {
            let mut sum = sample * weights.sample + output * weights.output + fresh * weights.noise;
            if let Some(clean) = &clean {
                sum += &(clean * weights.clean);
            }
            for (weight, kept) in weights.kept.iter().zip(&self.kept) {
                sum += &(kept * *weight);
            }
            sum
        };
        let next = sum(&step.next);
        let mut kept: Vec<ArrayD<f32>> = step.kept.iter().map(sum).collect();
        kept.resize(self.run.kept, ArrayD::zeros(sample.raw_dim()));
        self.kept = kept;
        next
    }
}

fn largest(array: &ArrayD<f32>) -> f32 {
    array.iter().fold(0.0, |most, value| most.max(value.abs()))
}

#[test]
fn sums_make_the_steps_of_every_scheduler() {
    let mut oracle = oracle(FILES[0]);
    let start: ArrayD<f32> = oracle.by_name("start").unwrap();
    let draws: ArrayD<f32> = oracle.by_name("noise").unwrap();
    let (mut by_sums, mut clamped, mut refused) = (0, 0, Vec::new());
    let (mut wide, mut widest) = (Vec::new(), 0.0_f32);
    for number in 0.. {
        let Some(run) = Run::read(&mut oracle, number) else {
            break;
        };
        let config = SchedulerConfig::parse("oracle", &run.config).unwrap();
        let mut scheduler = config.scheduler_for(&run.settings).unwrap();
        let made = match linear_run(scheduler.as_mut()) {
            Ok(made) => made,
            Err(reason) => {
                let thresholding = run.config.contains(r#""thresholding": true"#);
                assert!(thresholding, "{reason}: {}", run.what());
                refused.push(reason);
                continue;
            }
        };
        by_sums += 1;
        clamped += usize::from(made.clip.is_some());
        let last = made.steps.iter().rposition(LinearStep::draws);
        let rows = scheduler.noise_draws();
        assert_eq!(last.map_or(0, |last| last + 1), rows, "{}", run.what());
        let zeros = vec![ArrayD::zeros(start.raw_dim()); made.kept];
        let mut walk = Walk { run: made, kept: zeros };
        let mut noise = GivenNoise::new(draws.slice_axis(Axis(0), (..rows).into()).to_owned());
        let mut sample = &start * scheduler.initial_noise_sigma();
        let mut most = 0.0_f32;
        for (index, timestep) in scheduler.timesteps().to_vec().into_iter().enumerate() {
            let scaled = scheduler.scale_model_input(index, sample.clone()).unwrap();
            let apart = relative(&(&sample * walk.run.scales[index]), &scaled);
            assert!(apart < TOLERANCE, "input of step {index}, {apart:e}: {}", run.what());
            let output = toy(&scaled, timestep);
            let fresh = match index < rows {
                true => draws.index_axis(Axis(0), index).to_owned(),
                false => ArrayD::zeros(start.raw_dim()),
            };
            let next = walk.step(index, &output, &sample, &fresh);
            let before = largest(&sample);
            sample = scheduler.step(index, output.view(), sample.view(), &mut noise).unwrap();
            let off = &next - &sample;
            assert!(
                off.iter().all(|value| value.is_finite()),
                "step {index}: {}",
                run.what()
            );
            most = most.max(largest(&off) / before.max(largest(&sample)));
        }
        if most >= TOLERANCE {
            wide.push(format!("{most:e}: {}", run.what()));
        }
        widest = widest.max(most);
    }
    let count = wide.len();
    eprintln!("the widest of {by_sums} runs is off by {widest:e}, {count} by more than {TOLERANCE:e}");
    assert!(
        widest < CANCELLING && count * 20 < by_sums,
        "{count} runs:\n{}",
        wide.join("\n")
    );
    assert!(
        by_sums > 200 && clamped >= 10 && !refused.is_empty(),
        "{by_sums}, {clamped}, {refused:?}"
    );
}
