//! What every scheduler offers to the denoising loop.

use ndarray::{ArrayD, ArrayViewD};

use super::SamplerError;

/// A scheduler made for a certain number of steps.
///
/// Samples and model outputs are `[batch, channels, ...]` in `f32`. A scheduler that looks back at earlier model
/// outputs keeps them itself and forgets them at step 0, so that one scheduler can make many clips one after another.
pub trait Scheduler: Send {
    /// The timesteps in the order of the run, one a step, falling. Whole numbers for schedulers that were trained
    /// on discrete timesteps; `f64` because flow-matching schedulers have fractional ones.
    fn timesteps(&self) -> &[f64];

    /// The standard deviation that the starting noise must have: [`super::noise`] is multiplied by it.
    fn initial_noise_sigma(&self) -> f32;

    /// What the model is given at step `index` for this sample; for many schedulers the sample itself.
    ///
    /// # Errors
    /// [`SamplerError::NoSuchStep`] where `index` is not below the number of steps.
    fn scale_model_input(&self, index: usize, sample: ArrayD<f32>) -> Result<ArrayD<f32>, SamplerError>;

    /// The next sample: one step of the run, from the model's output (guided already) and the sample before it.
    ///
    /// # Errors
    /// [`SamplerError::NoSuchStep`] for an index out of range, [`SamplerError::Shape`] where the shapes differ.
    fn step(
        &mut self,
        index: usize,
        model_output: ArrayViewD<'_, f32>,
        sample: ArrayViewD<'_, f32>,
    ) -> Result<ArrayD<f32>, SamplerError>;
}
