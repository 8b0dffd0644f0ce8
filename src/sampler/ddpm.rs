//! DDPM: Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models" (2006.11239), on a subset of the timesteps.
//!
//! The numbers follow diffusers' `DDPMScheduler`, in `f32` and in its order of operations.

use ndarray::{ArrayD, ArrayViewD};

use super::arithmetic::{check_shapes, of_step, weighted_sum};
use super::configuration::SchedulerOptions;
use super::fields::Fields;
use super::trained::{BetaOptions, Trained};
use super::{
    BetaSchedule, Limit, Memory, NoiseSource, PredictionType, RunSettings, SamplerError, Scheduler, TimestepSpacing,
};

/// The variance of the noise that is added at each step (`variance_type`). Learned variances are no option here: the
/// channels that predict them are cut off before the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variance {
    /// That of the true posterior.
    Small,
    /// The same, through a logarithm.
    SmallLog,
    /// Beta itself.
    Large,
}

impl Variance {
    const NAMES: &'static [(&'static str, Variance)] = &[
        ("fixed_small", Variance::Small),
        ("fixed_small_log", Variance::SmallLog),
        ("fixed_large", Variance::Large),
    ];
}

/// The options of diffusers' `DDPMScheduler`; missing keys have diffusers' defaults.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DdpmConfig {
    trained: Trained,
    prediction: PredictionType,
    limit: Limit,
    variance: Variance,
    steps_offset: i64,
    spacing: TimestepSpacing,
}

impl DdpmConfig {
    pub(super) fn read(fields: &Fields<'_>) -> Result<DdpmConfig, SamplerError> {
        let options = BetaOptions {
            names: BetaSchedule::NAMES_OF_DDPM,
            ..BetaOptions::COMMON
        };
        Ok(DdpmConfig {
            trained: Trained::read(fields, options)?,
            prediction: fields.choice("prediction_type", PredictionType::Epsilon, PredictionType::NAMES)?,
            limit: Limit::read_threshold(fields, Limit::read_clip(fields, true)?)?,
            variance: fields.choice("variance_type", Variance::Small, Variance::NAMES)?,
            steps_offset: Trained::read_offset(fields)?,
            spacing: fields.choice("timestep_spacing", TimestepSpacing::Leading, TimestepSpacing::NAMES)?,
        })
    }
}

impl SchedulerOptions for DdpmConfig {
    fn scheduler(&self, run: &RunSettings) -> Result<Box<dyn Scheduler>, SamplerError> {
        Ok(Box::new(Ddpm::new(self, run)?))
    }
}

/// The numbers of one step.
#[derive(Clone, Copy, Debug)]
struct Coefficients {
    /// Square roots of the cumulated alpha and of what it lacks to 1.
    signal: f32,
    noise: f32,
    /// Weights of the clean sample, the sample and new noise in the next sample (formula 7 of the paper).
    clean: f32,
    sample: f32,
    fresh: f32,
}

/// DDPM for a certain number of steps.
#[derive(Clone, Debug)]
struct Ddpm {
    timesteps: Vec<f64>,
    coefficients: Vec<Coefficients>,
    prediction: PredictionType,
    limit: Limit,
}

impl Ddpm {
    fn new(config: &DdpmConfig, run: &RunSettings) -> Result<Ddpm, SamplerError> {
        let (trained, offset) = (config.trained.timesteps(), config.steps_offset);
        let timesteps = match &run.levels {
            Some(levels) => levels.whole_timesteps(trained)?,
            None => {
                Trained::check_steps(run.steps, trained)?;
                config.spacing.timesteps(run.steps, trained, offset)
            }
        };
        let steps = timesteps.len();
        let mut coefficients = Vec::with_capacity(steps);
        for (step, &timestep) in timesteps.iter().enumerate() {
            let out_of_range = SamplerError::Offset {
                step,
                steps,
                timestep,
                trained,
                offset,
            };
            let alpha = config.trained.alpha(timestep).ok_or(out_of_range)?;
            let next = timesteps.get(step + 1).and_then(|&next| config.trained.alpha(next));
            let next = next.unwrap_or(1.0);
            let at = config.coefficients(alpha, next, timestep > 0);
            if ![at.clean, at.sample, at.fresh, 1.0 / at.signal]
                .iter()
                .all(|number| number.is_finite())
                && config.prediction != PredictionType::Velocity
            {
                return Err(SamplerError::Singular {
                    step,
                    timestep,
                    alpha,
                    prediction: config.prediction.name(),
                    advice: "use a model with `v_prediction`, or turn `rescale_betas_zero_snr` off",
                });
            }
            coefficients.push(at);
        }
        Ok(Ddpm {
            timesteps: timesteps.into_iter().map(|timestep| timestep as f64).collect(),
            coefficients,
            prediction: config.prediction,
            limit: config.limit,
        })
    }
}

impl DdpmConfig {
    /// The numbers of a step from one cumulated alpha to the next; `noisy` steps add noise.
    fn coefficients(&self, alpha: f32, next: f32, noisy: bool) -> Coefficients {
        let (lack, next_lack) = (1.0 - alpha, 1.0 - next);
        let ratio = alpha / next;
        let beta = 1.0 - ratio;
        let variance = (next_lack / lack * beta).max(1e-20);
        let fresh = match self.variance {
            _ if !noisy => 0.0,
            Variance::Small => variance.sqrt(),
            Variance::SmallLog => libm::expf(0.5 * libm::logf(variance)),
            Variance::Large => beta.sqrt(),
        };
        Coefficients {
            signal: alpha.sqrt(),
            noise: lack.sqrt(),
            clean: next.sqrt() * beta / lack,
            sample: ratio.sqrt() * next_lack / lack,
            fresh,
        }
    }
}

impl Scheduler for Ddpm {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn noise_draws(&self) -> usize {
        let last = self.coefficients.iter().rposition(|at| at.fresh != 0.0);
        last.map_or(0, |index| index + 1)
    }

    fn step(
        &mut self,
        index: usize,
        model_output: ArrayViewD<'_, f32>,
        sample: ArrayViewD<'_, f32>,
        noise: &mut dyn NoiseSource,
    ) -> Result<ArrayD<f32>, SamplerError> {
        let at = *of_step(&self.coefficients, index)?;
        check_shapes(&model_output, &sample)?;
        let clean = self
            .prediction
            .clean(self.limit, &model_output, &sample, at.signal, at.noise);
        let mean = [(at.clean, clean.view()), (at.sample, sample.view())];
        if at.fresh == 0.0 {
            return weighted_sum(&mean);
        }
        let fresh = noise.draw(index, sample.shape())?;
        let [clean, sample] = mean;
        weighted_sum(&[clean, sample, (at.fresh, fresh.view())])
    }

    fn memory(&mut self) -> Option<Memory<'_>> {
        Some(Memory {
            kept: Vec::new(),
            limit: Some(&mut self.limit),
        })
    }

    fn clean_weights(&self, index: usize) -> Option<(f32, f32)> {
        let at = self.coefficients.get(index)?;
        Some(self.prediction.clean_weights(at.signal, at.noise))
    }
}
