//! DDIM: Song, Meng and Ermon, "Denoising Diffusion Implicit Models" (2010.02502), deterministic (eta = 0).
//!
//! The numbers follow diffusers' `DDIMScheduler`, in `f32` and in its order of operations.

use ndarray::{ArrayD, ArrayViewD, Axis, Zip};

use super::{DdimConfig, Limit, SamplerError, Scheduler};

/// What the model predicts (`prediction_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PredictionType {
    /// The noise.
    Epsilon,
    /// The clean sample.
    Sample,
    /// The velocity, `sqrt(alpha)·noise - sqrt(1 - alpha)·clean` (Salimans and Ho, 2202.00512, section 4).
    Velocity,
}

impl PredictionType {
    /// diffusers' names.
    pub(super) const NAMES: &'static [(&'static str, PredictionType)] = &[
        ("epsilon", PredictionType::Epsilon),
        ("sample", PredictionType::Sample),
        ("v_prediction", PredictionType::Velocity),
    ];

    fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(_, prediction)| *prediction == self)
            .map_or("", |(name, _)| name)
    }

    /// The predicted clean sample and noise, from the model's output and the sample.
    fn split(self, output: f32, sample: f32, signal: f32, noise: f32) -> (f32, f32) {
        match self {
            PredictionType::Epsilon => ((sample - noise * output) / signal, output),
            PredictionType::Sample => (output, (sample - signal * output) / noise),
            PredictionType::Velocity => (signal * sample - noise * output, signal * output + noise * sample),
        }
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
        let steps = self.coefficients.len();
        self.coefficients
            .get(index)
            .copied()
            .ok_or(SamplerError::NoSuchStep { index, steps })
    }
}

impl Scheduler for Ddim {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn initial_noise_sigma(&self) -> f32 {
        1.0
    }

    fn scale_model_input(&self, index: usize, sample: ArrayD<f32>) -> Result<ArrayD<f32>, SamplerError> {
        self.coefficients(index).map(|_| sample)
    }

    /// Formula (12) of the paper with sigma = 0: `x' = sqrt(a')·clean + sqrt(1 - a')·noise`, where the clean sample is
    /// kept in range and the noise is the model's own, as in diffusers (`use_clipped_model_output=False`).
    fn step(
        &mut self,
        index: usize,
        model_output: ArrayViewD<'_, f32>,
        sample: ArrayViewD<'_, f32>,
    ) -> Result<ArrayD<f32>, SamplerError> {
        let at = self.coefficients(index)?;
        if model_output.shape() != sample.shape() {
            let (output, sample) = (model_output.shape().to_vec(), sample.shape().to_vec());
            return Err(SamplerError::Shape { output, sample });
        }
        let prediction = self.prediction;
        let mut clean = Zip::from(&model_output)
            .and(&sample)
            .map_collect(|&output, &sample| prediction.split(output, sample, at.signal, at.noise).0);
        match self.limit {
            Limit::None => {}
            Limit::Clip(range) => clean.mapv_inplace(|value| clamped(value, range)),
            Limit::Threshold { ratio, most } if clean.ndim() > 0 => {
                clean
                    .axis_iter_mut(Axis(0))
                    .for_each(|element| threshold(element, ratio, most));
            }
            Limit::Threshold { .. } => {}
        }
        Zip::from(&mut clean)
            .and(&model_output)
            .and(&sample)
            .for_each(|clean, &output, &sample| {
                let noise = prediction.split(output, sample, at.signal, at.noise).1;
                *clean = at.next_signal * *clean + at.next_noise * noise;
            });
        Ok(clean)
    }
}

/// The value held between minus and plus `range`; NaN stays NaN, as in PyTorch.
fn clamped(value: f32, range: f32) -> f32 {
    if value > range {
        range
    } else if value < -range {
        -range
    } else {
        value
    }
}

/// Dynamic thresholding of one batch element, see [`Limit::Threshold`].
fn threshold(mut element: ndarray::ArrayViewMutD<'_, f32>, ratio: f32, most: f32) {
    let mut magnitudes: Vec<f32> = element.iter().map(|value| value.abs()).collect();
    magnitudes.sort_unstable_by(f32::total_cmp);
    // NaN sorts last and makes the quantile NaN in PyTorch; here the elements that are numbers stay numbers.
    let bound = quantile(&magnitudes, ratio).max(1.0).min(most);
    element.mapv_inplace(|value| clamped(value, bound) / bound);
}

/// The quantile of sorted values with linear interpolation, in `f32` and with the rounding of PyTorch's `quantile`.
fn quantile(sorted: &[f32], ratio: f32) -> f32 {
    let rank = ratio * sorted.len().saturating_sub(1) as f32;
    let at = |index: f32| sorted.get(index as usize).copied().unwrap_or(0.0);
    let (low, high, weight) = (at(rank.floor()), at(rank.ceil()), rank - rank.floor());
    if weight < 0.5 {
        low + weight * (high - low)
    } else {
        high - (high - low) * (1.0 - weight)
    }
}

#[cfg(test)]
mod tests;
