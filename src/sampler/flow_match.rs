//! Euler's method on flows: Esser et al., "Scaling Rectified Flow Transformers" (2403.03206).
//!
//! The numbers follow diffusers' `FlowMatchEulerDiscreteScheduler`, called as diffusers' pipelines call it.

use ndarray::{ArrayD, ArrayViewD};

use super::arithmetic::{check_shapes, weighted_sum};
use super::configuration::SchedulerOptions;
use super::fields::Fields;
use super::flow_shift::{Rounding, Shift};
use super::sigmas::{SigmaSpacing, linspace, rounded};
use super::trained::Trained;
use super::{FlowSpacing, GivenLevels, Memory, NoiseSource, RunSettings, SamplerError, Scheduler};

/// The options of diffusers' `FlowMatchEulerDiscreteScheduler`; missing keys have diffusers' defaults.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FlowMatchConfig {
    trained: usize,
    shift: Shift,
    sigmas: SigmaSpacing,
    invert_sigmas: bool,
    stochastic_sampling: bool,
}

/// Rounds to the precision in which NumPy and PyTorch hold these numbers.
fn single(number: f64) -> f64 {
    f64::from(number as f32)
}

impl FlowMatchConfig {
    pub(super) fn read(fields: &Fields<'_>) -> Result<FlowMatchConfig, SamplerError> {
        Ok(FlowMatchConfig {
            trained: Trained::read_timesteps(fields)?,
            shift: Shift::read(fields, "shift", "FlowMatchEulerDiscreteScheduler")?,
            sigmas: SigmaSpacing::read(fields)?,
            invert_sigmas: fields.flag("invert_sigmas")?,
            stochastic_sampling: fields.flag("stochastic_sampling")?,
        })
    }

    /// The levels before the shift, and the precision of the shift.
    fn levels(&self, run: &RunSettings) -> Result<(Vec<f64>, Rounding), SamplerError> {
        let trained = self.trained as f64;
        match &run.levels {
            None => {}
            Some(GivenLevels::Sigmas(sigmas)) => return Ok((sigmas.iter().copied().map(single).collect(), single)),
            Some(levels) => {
                // The last training timestep counts as one, as it does in diffusers.
                let timesteps = levels.timesteps(self.trained + 1)?;
                return Ok((
                    timesteps
                        .into_iter()
                        .map(|timestep| single(timestep / trained))
                        .collect(),
                    single,
                ));
            }
        }
        Ok(
            match FlowSpacing::of(run.pipeline.as_deref(), self.shift.is_dynamic())? {
                FlowSpacing::Uniform => {
                    let uniform = linspace(1.0, 1.0 / run.steps as f64, run.steps).into_iter();
                    (uniform.map(single).collect(), single)
                }
                FlowSpacing::Trained => {
                    let end = |timestep: f64| {
                        let level = single(timestep / trained);
                        if self.shift.is_dynamic() {
                            return level * trained;
                        }
                        let factor = single(self.shift.factor);
                        let divisor = single(1.0 + single(single(self.shift.factor - 1.0) * level));
                        single(single(factor * level) / divisor) * trained
                    };
                    let even = linspace(end(trained), end(1.0), run.steps).into_iter();
                    (even.map(|timestep| timestep / trained).collect(), |number| number)
                }
            },
        )
    }
}

impl SchedulerOptions for FlowMatchConfig {
    fn scheduler(&self, run: &RunSettings) -> Result<Box<dyn Scheduler>, SamplerError> {
        Trained::check_steps(run.steps, self.trained)?;
        let (levels, round) = self.levels(run)?;
        let shifted = self.shift.apply(&levels, run, round)?;
        let ends = shifted.first().zip(shifted.last());
        let spread = ends.and_then(|(&most, &least)| self.sigmas.spread(most, least, run.steps));
        let mut sigmas = rounded(&spread.unwrap_or(shifted));
        if self.invert_sigmas {
            sigmas.iter_mut().for_each(|sigma| *sigma = 1.0 - *sigma);
        }
        let timesteps: Vec<f64> = match &run.levels {
            // The model is told the timesteps as they were given, whatever the shift makes of their levels.
            Some(GivenLevels::Timesteps(given)) if !self.invert_sigmas => given.iter().copied().map(single).collect(),
            _ => sigmas
                .iter()
                .map(|sigma| f64::from(sigma * self.trained as f32))
                .collect(),
        };
        sigmas.push(if self.invert_sigmas { 1.0 } else { 0.0 });
        for (step, (&timestep, sigma)) in timesteps.iter().zip(&sigmas).enumerate() {
            if !sigma.is_finite() {
                let advice = "choose another number of steps or another `shift_terminal`";
                return Err(SamplerError::Coefficients { step, timestep, advice });
            }
        }
        Ok(Box::new(FlowMatch {
            timesteps,
            sigmas,
            stochastic: self.stochastic_sampling,
        }))
    }
}

/// Euler's method on a flow for a certain number of steps.
#[derive(Clone, Debug)]
struct FlowMatch {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    stochastic: bool,
}

impl Scheduler for FlowMatch {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    fn noise_draws(&self) -> usize {
        let last = self.sigmas.iter().skip(1).rposition(|&sigma| sigma != 0.0);
        last.filter(|_| self.stochastic).map_or(0, |index| index + 1)
    }

    fn step(
        &mut self,
        index: usize,
        model_output: ArrayViewD<'_, f32>,
        sample: ArrayViewD<'_, f32>,
        noise: &mut dyn NoiseSource,
    ) -> Result<ArrayD<f32>, SamplerError> {
        let steps = self.timesteps.len();
        let Some(&[sigma, next]) = self.sigmas.get(index..=index.saturating_add(1)) else {
            return Err(SamplerError::NoSuchStep { index, steps });
        };
        check_shapes(&model_output, &sample)?;
        if !self.stochastic {
            return weighted_sum(&[(1.0, sample), (next - sigma, model_output)]);
        }
        // To the clean sample, and back to the next level with new noise.
        let signal = 1.0 - next;
        let fresh = match next {
            0.0 => None,
            _ => Some(noise.draw(index, sample.shape())?),
        };
        let mut terms = vec![(signal, sample), (-signal * sigma, model_output)];
        terms.extend(fresh.iter().map(|fresh| (next, fresh.view())));
        weighted_sum(&terms)
    }

    fn memory(&mut self) -> Option<Memory<'_>> {
        Some(Memory::default())
    }
}
