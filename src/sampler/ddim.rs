//! DDIM: Song, Meng and Ermon, "Denoising Diffusion Implicit Models" (2010.02502), deterministic (eta = 0).
//!
//! The numbers follow diffusers' `DDIMScheduler`, in `f32` and in its order of operations.

use ndarray::{ArrayD, ArrayViewD, Zip};

use super::arithmetic::{check_shapes, of_step};
use super::configuration::SchedulerOptions;
use super::fields::Fields;
use super::trained::{BetaOptions, Trained};
use super::{Limit, Memory, NoiseSource, PredictionType, RunSettings, SamplerError, Scheduler, TimestepSpacing};

/// The options of diffusers' `DDIMScheduler`; missing keys have diffusers' defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct DdimConfig {
    /// The number of training timesteps.
    pub trained: usize,
    /// The cumulated products of `1 - beta`, one a training timestep: what `beta_schedule`, `beta_start`, `beta_end`,
    /// `trained_betas` and `rescale_betas_zero_snr` come to.
    pub cumulated_alphas: Vec<f32>,
    /// What the model predicts.
    pub prediction: PredictionType,
    /// How the predicted clean sample is kept in range.
    pub limit: Limit,
    /// Whether the step after the last has a cumulated alpha of 1, or that of timestep 0.
    pub set_alpha_to_one: bool,
    /// Added to the timesteps of `leading` spacing.
    pub steps_offset: i64,
    /// Which timesteps are visited.
    pub spacing: TimestepSpacing,
}

impl DdimConfig {
    pub(super) fn read(fields: &Fields<'_>) -> Result<DdimConfig, SamplerError> {
        let trained = Trained::read(fields, BetaOptions::COMMON)?;
        Ok(DdimConfig {
            trained: trained.timesteps(),
            cumulated_alphas: trained.cumulated_alphas,
            prediction: fields.choice("prediction_type", PredictionType::Epsilon, PredictionType::NAMES)?,
            limit: Limit::read_threshold(fields, Limit::read_clip(fields, true)?)?,
            set_alpha_to_one: fields.boolean("set_alpha_to_one", true)?,
            steps_offset: Trained::read_offset(fields)?,
            spacing: fields.choice("timestep_spacing", TimestepSpacing::Leading, TimestepSpacing::NAMES)?,
        })
    }
}

impl SchedulerOptions for DdimConfig {
    fn scheduler(&self, run: &RunSettings) -> Result<Box<dyn Scheduler>, SamplerError> {
        Ok(Box::new(Ddim::new(self, run.steps)?))
    }
}

/// The square roots of the cumulated alphas, and of what they lack to 1, before and after a step.
#[derive(Clone, Copy, Debug)]
struct Coefficients {
    signal: f32,
    noise: f32,
    next_signal: f32,
    next_noise: f32,
}

/// DDIM for a certain number of steps.
#[derive(Clone, Debug)]
pub struct Ddim {
    timesteps: Vec<f64>,
    coefficients: Vec<Coefficients>,
    prediction: PredictionType,
    limit: Limit,
}

impl Ddim {
    /// DDIM with this configuration for `steps` steps.
    ///
    /// # Errors
    /// [`SamplerError::Steps`] for 0 steps or more than training timesteps, [`SamplerError::Offset`] where
    /// `steps_offset` leads out of the trained range, [`SamplerError::Singular`] where a step would divide by zero
    /// (zero terminal SNR with `epsilon` prediction: diffusers goes on with infinities there).
    pub fn new(config: &DdimConfig, steps: usize) -> Result<Ddim, SamplerError> {
        let trained = config.trained;
        if steps == 0 || steps > trained {
            return Err(SamplerError::Steps { steps, trained });
        }
        let stride = (trained / steps) as i64;
        let alpha_at = |timestep: i64| {
            usize::try_from(timestep)
                .ok()
                .and_then(|t| config.cumulated_alphas.get(t))
        };
        let last = if config.set_alpha_to_one {
            1.0
        } else {
            alpha_at(0).copied().unwrap_or(1.0)
        };
        let timesteps = config.spacing.timesteps(steps, trained, config.steps_offset);
        let mut coefficients = Vec::with_capacity(steps);
        for (step, &timestep) in timesteps.iter().enumerate() {
            let offset = config.steps_offset;
            let alpha = *alpha_at(timestep).ok_or(SamplerError::Offset {
                step,
                steps,
                timestep,
                trained,
                offset,
            })?;
            let next = if timestep < stride {
                last
            } else {
                alpha_at(timestep - stride).copied().unwrap_or(last)
            };
            let advice = match config.prediction {
                PredictionType::Epsilon if alpha <= 0.0 => {
                    "use a model with `v_prediction`, or turn `rescale_betas_zero_snr` off"
                }
                PredictionType::Sample if alpha >= 1.0 => "choose a `beta_start` above 0",
                _ => "",
            };
            if !advice.is_empty() {
                let prediction = config.prediction.name();
                return Err(SamplerError::Singular {
                    step,
                    timestep,
                    alpha,
                    prediction,
                    advice,
                });
            }
            coefficients.push(Coefficients {
                signal: alpha.sqrt(),
                noise: (1.0 - alpha).sqrt(),
                next_signal: next.sqrt(),
                next_noise: (1.0 - next).sqrt(),
            });
        }
        Ok(Ddim {
            timesteps: timesteps.into_iter().map(|timestep| timestep as f64).collect(),
            coefficients,
            prediction: config.prediction,
            limit: config.limit,
        })
    }

    fn coefficients(&self, index: usize) -> Result<Coefficients, SamplerError> {
        of_step(&self.coefficients, index).copied()
    }
}

impl Scheduler for Ddim {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    /// Formula (12) of the paper with sigma = 0: `x' = sqrt(a')·clean + sqrt(1 - a')·noise`, where the clean sample is
    /// kept in range and the noise is the model's own, as in diffusers (`use_clipped_model_output=False`).
    fn step(
        &mut self,
        index: usize,
        model_output: ArrayViewD<'_, f32>,
        sample: ArrayViewD<'_, f32>,
        _: &mut dyn NoiseSource,
    ) -> Result<ArrayD<f32>, SamplerError> {
        let at = self.coefficients(index)?;
        check_shapes(&model_output, &sample)?;
        let prediction = self.prediction;
        let mut clean = prediction.clean(self.limit, &model_output, &sample, at.signal, at.noise);
        Zip::from(&mut clean)
            .and(&model_output)
            .and(&sample)
            .for_each(|clean, &output, &sample| {
                let noise = prediction.split(output, sample, at.signal, at.noise).1;
                *clean = at.next_signal * *clean + at.next_noise * noise;
            });
        Ok(clean)
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

#[cfg(test)]
mod tests;
