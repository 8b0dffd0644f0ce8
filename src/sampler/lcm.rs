//! Latent consistency models: Luo et al. (2310.04378), multistep sampling.
//!
//! The numbers follow diffusers' `LCMScheduler`.

use ndarray::{ArrayD, ArrayViewD};

use super::arithmetic::{check_shapes, of_step, weighted_sum};
use super::configuration::SchedulerOptions;
use super::fields::Fields;
use super::trained::{BetaOptions, Trained, ZeroSnr};
use super::{BetaSchedule, Limit, Memory, NoiseSource, PredictionType, RunSettings, SamplerError, Scheduler};

/// The deviation of the data that the boundary condition is made for.
const SIGMA_DATA: f32 = 0.5;

/// The options of diffusers' `LCMScheduler`; missing keys have diffusers' defaults.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LcmConfig {
    trained: Trained,
    original_steps: usize,
    prediction: PredictionType,
    limit: Limit,
    timestep_scaling: f32,
}

impl LcmConfig {
    pub(super) fn read(fields: &Fields<'_>) -> Result<LcmConfig, SamplerError> {
        let options = BetaOptions {
            start: 0.00085,
            end: 0.012,
            schedule: BetaSchedule::ScaledLinear,
            names: BetaSchedule::NAMES,
            zero_snr: ZeroSnr::Exact,
        };
        let trained = Trained::read(fields, options)?;
        let most = i64::try_from(trained.timesteps()).unwrap_or(i64::MAX);
        // The class has these too, and its timesteps do not depend on them.
        for key in ["set_alpha_to_one", "steps_offset", "timestep_spacing"] {
            fields.has(key);
        }
        Ok(LcmConfig {
            original_steps: fields.integer("original_inference_steps", 50.min(most), 1, most)? as usize,
            prediction: fields.choice("prediction_type", PredictionType::Epsilon, PredictionType::NAMES)?,
            limit: Limit::read_threshold(fields, Limit::read_clip(fields, false)?)?,
            timestep_scaling: fields.number("timestep_scaling", 10.0, 0.0, f64::from(f32::MAX))? as f32,
            trained,
        })
    }

    /// The timesteps of a run: of those that the model was distilled on, evenly from the noisiest.
    fn timesteps(&self, steps: usize) -> Result<Vec<i64>, SamplerError> {
        let (trained, original) = (self.trained.timesteps(), self.original_steps);
        if steps == 0 || steps > original {
            return Err(SamplerError::StepCount {
                steps,
                reason: format!("`original_inference_steps` is {original}; choose 1 to {original}"),
            });
        }
        let stride = trained / original;
        let apart = original as f64 / steps as f64;
        let at = |index: usize| {
            let skipped = (index as f64 * apart).floor() as usize;
            (original.saturating_sub(skipped) * stride) as i64 - 1
        };
        Ok((0..steps).map(at).collect())
    }
}

impl SchedulerOptions for LcmConfig {
    fn scheduler(&self, run: &RunSettings) -> Result<Box<dyn Scheduler>, SamplerError> {
        let timesteps = match &run.levels {
            Some(levels) => levels.whole_timesteps(self.trained.timesteps())?,
            None => self.timesteps(run.steps)?,
        };
        let mut coefficients = Vec::with_capacity(timesteps.len());
        for (step, &timestep) in timesteps.iter().enumerate() {
            let alpha = self.trained.alpha(timestep).unwrap_or(1.0);
            let next = timesteps.get(step + 1).and_then(|&next| self.trained.alpha(next));
            if self.prediction == PredictionType::Epsilon && alpha <= 0.0 {
                return Err(SamplerError::Singular {
                    step,
                    timestep,
                    alpha,
                    prediction: self.prediction.name(),
                    advice: "use a model with `v_prediction`, or turn `rescale_betas_zero_snr` off",
                });
            }
            let scaled = timestep as f32 * self.timestep_scaling;
            let variance = scaled * scaled + SIGMA_DATA * SIGMA_DATA;
            coefficients.push(Coefficients {
                signal: alpha.sqrt(),
                noise: (1.0 - alpha).sqrt(),
                clean: scaled / variance.sqrt(),
                sample: SIGMA_DATA * SIGMA_DATA / variance,
                next: next.map(|next| (next.sqrt(), (1.0 - next).sqrt())),
            });
        }
        Ok(Box::new(Lcm {
            timesteps: timesteps.into_iter().map(|timestep| timestep as f64).collect(),
            coefficients,
            prediction: self.prediction,
            limit: self.limit,
        }))
    }
}

/// The numbers of one step.
#[derive(Clone, Copy, Debug)]
struct Coefficients {
    signal: f32,
    noise: f32,
    /// Weights of the predicted clean sample and the sample in the consistency function.
    clean: f32,
    sample: f32,
    /// Signal and noise at the next timestep; none at the last.
    next: Option<(f32, f32)>,
}

/// LCM for a certain number of steps.
#[derive(Clone, Debug)]
struct Lcm {
    timesteps: Vec<f64>,
    coefficients: Vec<Coefficients>,
    prediction: PredictionType,
    limit: Limit,
}

impl Scheduler for Lcm {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn noise_draws(&self) -> usize {
        self.coefficients.len().saturating_sub(1)
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
        match at.next {
            None => weighted_sum(&[(at.clean, clean.view()), (at.sample, sample)]),
            Some((signal, deviation)) => {
                let fresh = noise.draw(index, sample.shape())?;
                weighted_sum(&[
                    (signal * at.clean, clean.view()),
                    (signal * at.sample, sample),
                    (deviation, fresh.view()),
                ])
            }
        }
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
