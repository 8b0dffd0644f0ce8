//! CogVideoX's DDIM and DPM (2408.06072): noise levels shifted in the signal-to-noise ratio, and a second-order solver
//! with noise at each step.
//!
//! The numbers follow diffusers' `CogVideoXDDIMScheduler` and `CogVideoXDPMScheduler`, which reckon them in `f64`.

use ndarray::{ArrayD, ArrayViewD};

use super::arithmetic::{History, check_shapes, of_step, weighted_sum};
use super::configuration::SchedulerOptions;
use super::fields::Fields;
use super::solver::check_numbers;
use super::trained::{BetaOptions, Trained, ZeroSnr};
use super::{
    BetaSchedule, Limit, Memory, NoiseSource, PredictionType, RunSettings, SamplerError, Scheduler, TimestepSpacing,
};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Ddim,
    Dpm,
}

/// The options of diffusers' classes; missing keys have diffusers' defaults.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CogVideoXConfig {
    method: Method,
    cumulated_alphas: Vec<f64>,
    prediction: PredictionType,
    set_alpha_to_one: bool,
    steps_offset: i64,
    spacing: TimestepSpacing,
}

impl CogVideoXConfig {
    pub(super) fn read_ddim(fields: &Fields<'_>) -> Result<CogVideoXConfig, SamplerError> {
        CogVideoXConfig::read(fields, Method::Ddim)
    }

    pub(super) fn read_dpm(fields: &Fields<'_>) -> Result<CogVideoXConfig, SamplerError> {
        CogVideoXConfig::read(fields, Method::Dpm)
    }

    fn read(fields: &Fields<'_>, method: Method) -> Result<CogVideoXConfig, SamplerError> {
        let options = BetaOptions {
            start: 0.00085,
            end: 0.012,
            schedule: BetaSchedule::ScaledLinear,
            names: BetaSchedule::NAMES,
            zero_snr: ZeroSnr::Unknown,
        };
        let trained = Trained::read(fields, options)?;
        let schedule = fields.choice("beta_schedule", options.schedule, options.names)?;
        let mut alphas = if schedule == BetaSchedule::ScaledLinear && !fields.has("trained_betas") {
            let start = fields.number("beta_start", options.start, 0.0, 1.0)?;
            let end = fields.number("beta_end", options.end, 0.0, 1.0)?;
            scaled_linear_alphas(start, end, trained.timesteps())
        } else {
            trained.cumulated_alphas.iter().copied().map(f64::from).collect()
        };
        let shift = fields.number("snr_shift_scale", 3.0, 1e-6, f64::from(f32::MAX))?;
        for alpha in &mut alphas {
            *alpha /= shift + (1.0 - shift) * *alpha;
        }
        if fields.boolean("rescale_betas_zero_snr", false)? {
            rescale(&mut alphas);
        }
        // The classes have these, and their steps clip nothing.
        for key in ["clip_sample", "clip_sample_range", "sample_max_value"] {
            fields.has(key);
        }
        Ok(CogVideoXConfig {
            method,
            cumulated_alphas: alphas,
            prediction: fields.choice("prediction_type", PredictionType::Epsilon, PredictionType::NAMES)?,
            set_alpha_to_one: fields.boolean("set_alpha_to_one", true)?,
            steps_offset: Trained::read_offset(fields)?,
            spacing: fields.choice("timestep_spacing", TimestepSpacing::Leading, TimestepSpacing::NAMES)?,
        })
    }

    fn alpha(&self, timestep: i64) -> Option<f64> {
        let index = usize::try_from(timestep).ok()?;
        self.cumulated_alphas.get(index).copied()
    }
}

/// The cumulated alphas of betas whose square roots are evenly spaced.
fn scaled_linear_alphas(start: f64, end: f64, count: usize) -> Vec<f64> {
    let (start, end) = (start.sqrt(), end.sqrt());
    let step = (end - start) / count.saturating_sub(1).max(1) as f64;
    let mut product = 1.0;
    (0..count)
        .map(|index| {
            // From both ends to the middle, as PyTorch does.
            let root = if index < count.div_ceil(2) {
                start + step * index as f64
            } else {
                end - step * (count - 1 - index) as f64
            };
            product *= 1.0 - root * root;
            product
        })
        .collect()
}

/// Moves and stretches the square roots so that the last is 0 and the first stays (2305.08891, Algorithm 1).
fn rescale(alphas: &mut [f64]) {
    let (Some(&first), Some(&last)) = (alphas.first(), alphas.last()) else {
        return;
    };
    let (first, last) = (first.sqrt(), last.sqrt());
    let scale = first / (first - last);
    for alpha in alphas {
        let root = (alpha.sqrt() - last) * scale;
        *alpha = root * root;
    }
}

/// The weights of one step.
#[derive(Clone, Copy, Debug)]
struct Weights {
    /// Signal and noise before the step.
    signal: f32,
    noise: f32,
    sample: f32,
    /// Of the predicted clean sample, and of the one before it.
    clean: f32,
    earlier: f32,
    fresh: f32,
}

impl Weights {
    fn ddim(alpha: f64, next: f64) -> Weights {
        let sample = ((1.0 - next) / (1.0 - alpha)).sqrt();
        Weights {
            signal: alpha.sqrt() as f32,
            noise: (1.0 - alpha).sqrt() as f32,
            sample: sample as f32,
            clean: (next.sqrt() - alpha.sqrt() * sample) as f32,
            earlier: 0.0,
            fresh: 0.0,
        }
    }

    /// With the alpha before the last step, of second order.
    fn dpm(alpha: f64, next: f64, before: Option<f64>) -> Weights {
        let lambda = |alpha: f64| libm::log((alpha / (1.0 - alpha)).sqrt());
        let h = lambda(next) - lambda(alpha);
        let growth = -libm::expm1(-2.0 * h);
        let clean = growth * next.sqrt();
        let back = before.map_or(0.0, |before| {
            let ratio = (lambda(alpha) - lambda(before)) / h;
            1.0 / (2.0 * ratio)
        });
        Weights {
            signal: alpha.sqrt() as f32,
            noise: (1.0 - alpha).sqrt() as f32,
            sample: (((1.0 - next) / (1.0 - alpha)).sqrt() * libm::exp(-h)) as f32,
            clean: (clean * (1.0 + back)) as f32,
            earlier: (-clean * back) as f32,
            fresh: ((1.0 - next).sqrt() * (1.0 - libm::exp(-2.0 * h)).sqrt()) as f32,
        }
    }
}

impl SchedulerOptions for CogVideoXConfig {
    fn scheduler(&self, run: &RunSettings) -> Result<Box<dyn Scheduler>, SamplerError> {
        let (steps, trained, offset) = (run.steps, self.cumulated_alphas.len(), self.steps_offset);
        Trained::check_steps(steps, trained)?;
        let timesteps = self.spacing.timesteps(steps, trained, offset);
        let stride = (trained / steps) as i64;
        let last = if self.set_alpha_to_one {
            1.0
        } else {
            self.alpha(0).unwrap_or(1.0)
        };
        let mut weights = Vec::with_capacity(steps);
        let mut before = None;
        for (step, &timestep) in timesteps.iter().enumerate() {
            let alpha = self.alpha(timestep).ok_or(SamplerError::Offset {
                step,
                steps,
                timestep,
                trained,
                offset,
            })?;
            if self.prediction == PredictionType::Epsilon && alpha <= 0.0 {
                return Err(SamplerError::Singular {
                    step,
                    timestep,
                    alpha: alpha as f32,
                    prediction: self.prediction.name(),
                    advice: "use a model with `v_prediction`, or turn `rescale_betas_zero_snr` off",
                });
            }
            let next = self.alpha(timestep - stride);
            let at = match self.method {
                Method::Ddim => Weights::ddim(alpha, next.unwrap_or(last)),
                Method::Dpm => Weights::dpm(alpha, next.unwrap_or(last), before.filter(|_| next.is_some())),
            };
            let numbers = [at.sample, at.clean, at.earlier, at.fresh];
            check_numbers(step, timestep as f64, &numbers)?;
            before = Some(alpha);
            weights.push(at);
        }
        Ok(Box::new(CogVideoX {
            timesteps: timesteps.into_iter().map(|timestep| timestep as f64).collect(),
            weights,
            prediction: self.prediction,
            history: History::new(2),
        }))
    }
}

/// Either method for a certain number of steps.
#[derive(Clone, Debug)]
struct CogVideoX {
    timesteps: Vec<f64>,
    weights: Vec<Weights>,
    prediction: PredictionType,
    /// Predicted clean samples.
    history: History,
}

impl Scheduler for CogVideoX {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn noise_draws(&self) -> usize {
        let last = self.weights.iter().rposition(|at| at.fresh != 0.0);
        last.map_or(0, |index| index + 1)
    }

    /// diffusers draws twice in steps of second order and uses the second draw; here there is one draw a step.
    fn step(
        &mut self,
        index: usize,
        model_output: ArrayViewD<'_, f32>,
        sample: ArrayViewD<'_, f32>,
        noise: &mut dyn NoiseSource,
    ) -> Result<ArrayD<f32>, SamplerError> {
        let at = *of_step(&self.weights, index)?;
        check_shapes(&model_output, &sample)?;
        self.history.enter(index)?;
        let clean = self
            .prediction
            .clean(Limit::None, &model_output, &sample, at.signal, at.noise);
        self.history.push(clean);
        let fresh = match at.fresh {
            0.0 => None,
            _ => Some(noise.draw(index, sample.shape())?),
        };
        let mut terms = vec![(at.sample, sample)];
        terms.extend(self.history.weighted(&[at.clean, at.earlier]));
        terms.extend(fresh.iter().map(|fresh| (at.fresh, fresh.view())));
        weighted_sum(&terms)
    }

    fn memory(&mut self) -> Option<Memory<'_>> {
        Some(Memory {
            kept: self.history.arrays_mut(),
            limit: None,
        })
    }
}
