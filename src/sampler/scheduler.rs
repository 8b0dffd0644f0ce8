//! What every scheduler offers to the denoising loop.

use ndarray::{ArrayD, ArrayViewD};

use super::{Memory, NoiseSource, SamplerError};

/// A scheduler made for a certain number of steps.
///
/// The loop goes over calls of the model, one for each of [`Scheduler::timesteps`]: most schedulers call the model once a
/// step, but PNDM and Heun call it more often, so that there are more timesteps than steps were asked for. Everywhere
/// else in this library "step" means such a call, as it does for VideoSys' and diffusers' broadcasting.
///
/// Samples and model outputs are `[batch, channels, ...]` in `f32`. A scheduler that looks back at earlier model
/// outputs keeps them itself and forgets them at index 0, so that one scheduler can make many clips one after another.
pub trait Scheduler: Send {
    /// The timesteps in the order of the run, one a call of the model, falling (some twice in a row). Whole numbers for
    /// schedulers that were trained on discrete timesteps; `f64` because flow-matching schedulers have fractional ones.
    fn timesteps(&self) -> &[f64];

    /// The noise levels before each call of the model and after the last one, for schedulers that reckon in sigmas;
    /// empty for others.
    fn sigmas(&self) -> &[f32] {
        &[]
    }

    /// The standard deviation that the starting noise must have: [`super::noise`] is multiplied by it.
    fn initial_noise_sigma(&self) -> f32 {
        1.0
    }

    /// How many steps, from the first on, draw noise: 0 for deterministic schedulers.
    fn noise_draws(&self) -> usize {
        0
    }

    /// What the model is given at call `index` for this sample; for many schedulers the sample itself.
    ///
    /// # Errors
    /// [`SamplerError::NoSuchStep`] where `index` is not below the number of timesteps.
    fn scale_model_input(&self, index: usize, sample: ArrayD<f32>) -> Result<ArrayD<f32>, SamplerError> {
        super::arithmetic::check_index(index, self.timesteps().len())?;
        Ok(sample)
    }

    /// The next sample, from the model's output (guided already) at call `index` and the sample before it. `noise` is
    /// asked by schedulers with [`Scheduler::noise_draws`] alone.
    ///
    /// # Errors
    /// [`SamplerError::NoSuchStep`] for an index out of range, [`SamplerError::Shape`] where the shapes differ,
    /// [`SamplerError::OutOfOrder`] where a scheduler that looks back is not at the next index, and those of `noise`.
    fn step(
        &mut self,
        index: usize,
        model_output: ArrayViewD<'_, f32>,
        sample: ArrayViewD<'_, f32>,
        noise: &mut dyn NoiseSource,
    ) -> Result<ArrayD<f32>, SamplerError>;

    /// What a step leaves to later ones, for [`super::linear_run`]; `None` where that is not told.
    fn memory(&mut self) -> Option<Memory<'_>> {
        None
    }

    /// The weights of the model's output and of the sample in the predicted clean sample at call `index`, of schedulers that
    /// have a limit in their [`Scheduler::memory`].
    fn clean_weights(&self, index: usize) -> Option<(f32, f32)> {
        let _ = index;
        None
    }
}
