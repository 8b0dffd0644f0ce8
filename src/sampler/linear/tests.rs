//! Runs by weights against the schedulers' own steps, for the configurations of `tests/data/sampler/schedulers.npz`.

use super::super::tests::{FILES, Run, oracle, relative, toy};
use super::*;
use crate::sampler::{GivenNoise, SchedulerConfig};
use ndarray::Axis;

/// How far a step by weights may be from the scheduler's, as part of the largest term: where terms cancel, their rounding stays.
const TOLERANCE: f32 = 1e-6;
/// The same as part of the largest value of the next sample, whatever cancels.
const OF_SAMPLE: f32 = 1e-5;

/// A run whose steps are taken by weights.
struct Walk {
    run: LinearRun,
    kept: Vec<ArrayD<f32>>,
}

impl Walk {
    /// The next sample, and the largest term of its sum.
    fn step(
        &mut self,
        index: usize,
        output: &ArrayD<f32>,
        sample: &ArrayD<f32>,
        fresh: &ArrayD<f32>,
    ) -> (ArrayD<f32>, f32) {
        let step = &self.run.steps[index];
        let clean = step.clean.map(|(of_output, of_sample)| {
            let range = self.run.clip.unwrap();
            (output * of_output + sample * of_sample).mapv_into(|value| value.clamp(-range, range))
        });
        let sum = |weights: &Weights| {
            let mut sum = sample * weights.sample + output * weights.output + fresh * weights.noise;
            sum += &clean
                .as_ref()
                .map_or_else(|| sample * 0.0, |clean| clean * weights.clean);
            for (weight, kept) in weights.kept.iter().zip(&self.kept) {
                sum += &(kept * *weight);
            }
            sum
        };
        let next = sum(&step.next);
        let own = [
            (step.next.sample, sample),
            (step.next.output, output),
            (step.next.noise, fresh),
        ];
        let kept = step.next.kept.iter().copied().zip(&self.kept);
        let terms = own
            .into_iter()
            .chain(kept)
            .map(|(weight, array)| weight.abs() * largest(array));
        let most = terms.fold(0.0, f32::max);
        let mut kept: Vec<ArrayD<f32>> = step.kept.iter().map(sum).collect();
        kept.resize(self.run.kept, ArrayD::zeros(sample.raw_dim()));
        self.kept = kept;
        (next, most)
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
    let mut wrong = Vec::new();
    for number in 0.. {
        let Some(run) = Run::read(&mut oracle, number) else {
            break;
        };
        let config = SchedulerConfig::parse("oracle", &run.config).unwrap();
        let mut scheduler = config.scheduler_for(&run.settings).unwrap();
        let made = match linear_run(scheduler.as_mut()) {
            Ok(made) => made,
            Err(reason) => {
                assert!(
                    run.config.contains(r#""thresholding": true"#),
                    "{reason}: {}",
                    run.what()
                );
                refused.push(reason);
                continue;
            }
        };
        by_sums += 1;
        clamped += usize::from(made.clip.is_some());
        assert_eq!(
            made.steps
                .iter()
                .rposition(LinearStep::draws)
                .map_or(0, |last| last + 1),
            scheduler.noise_draws(),
            "{}",
            run.what()
        );
        let zeros = vec![ArrayD::zeros(start.raw_dim()); made.kept];
        let mut walk = Walk { run: made, kept: zeros };
        let mut noise = GivenNoise::new(draws.slice_axis(Axis(0), (..scheduler.noise_draws()).into()).to_owned());
        let mut sample = &start * scheduler.initial_noise_sigma();
        for (index, timestep) in scheduler.timesteps().to_vec().into_iter().enumerate() {
            let scaled = scheduler.scale_model_input(index, sample.clone()).unwrap();
            let apart = relative(&(&sample * walk.run.scales[index]), &scaled);
            let output = toy(&scaled, timestep);
            let fresh = match index < scheduler.noise_draws() {
                true => draws.index_axis(Axis(0), index).to_owned(),
                false => ArrayD::zeros(start.raw_dim()),
            };
            let (next, most) = walk.step(index, &output, &sample, &fresh);
            sample = scheduler.step(index, output.view(), sample.view(), &mut noise).unwrap();
            let off = largest(&(&next - &sample));
            assert!(
                off < OF_SAMPLE * largest(&sample),
                "step {index} off by {off}: {}",
                run.what()
            );
            let apart = apart.max(off / most.max(largest(&sample)));
            if apart.is_nan() || apart >= TOLERANCE {
                wrong.push(format!("step {index} off by {apart:e}: {}", run.what()));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{} runs:\n{}", wrong.len(), wrong.join("\n"));
    assert!(
        by_sums > 200 && clamped > 10 && !refused.is_empty(),
        "{by_sums}, {clamped}, {refused:?}"
    );
}
