//! Samples as Karras et al. (2206.00364) have them, `clean + sigma·noise`: what Euler's and Heun's methods share.

use ndarray::ArrayD;

use super::fields::Fields;
use super::sigmas::{SigmaSpacing, SigmaTable};
use super::trained::{BetaOptions, Trained};
use super::{RunSettings, SamplerError, TimestepSpacing};

/// The options that the classes have in common.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ExplodingOptions {
    pub(super) trained: Trained,
    pub(super) spacing: TimestepSpacing,
    pub(super) steps_offset: i64,
}

impl ExplodingOptions {
    pub(super) fn read(fields: &Fields<'_>, options: BetaOptions) -> Result<ExplodingOptions, SamplerError> {
        Ok(ExplodingOptions {
            trained: Trained::read(fields, options)?,
            spacing: fields.choice("timestep_spacing", TimestepSpacing::Linspace, TimestepSpacing::NAMES)?,
            steps_offset: Trained::read_offset(fields)?,
        })
    }

    /// The timesteps of a run, falling; some are fractions.
    pub(super) fn timesteps(&self, steps: usize) -> Result<Vec<f64>, SamplerError> {
        let trained = self.trained.timesteps();
        Trained::check_steps(steps, trained)?;
        Ok(self.spacing.fractional_timesteps(steps, trained, self.steps_offset))
    }

    /// The timesteps and sigmas of a run, spread as the configuration says.
    pub(super) fn spread(
        &self,
        run: &RunSettings,
        table: &SigmaTable,
        spacing: &SigmaSpacing,
        sigmas: impl FnOnce(&[f64]) -> Vec<f64>,
    ) -> Result<(Vec<f64>, Vec<f64>), SamplerError> {
        let steps = run.steps;
        let timesteps = match &run.levels {
            Some(levels) => {
                spacing.check_unspread(levels)?;
                levels.timesteps(self.trained.timesteps())?
            }
            None => self.timesteps(steps)?,
        };
        let sigmas = sigmas(&timesteps);
        let ends = sigmas.first().zip(sigmas.last());
        let Some(spread) = ends.and_then(|(&most, &least)| spacing.spread(most, least, steps)) else {
            return Ok((timesteps, sigmas));
        };
        let timesteps = spread.iter().map(|&sigma| f64::from(table.timestep_of(sigma) as f32));
        Ok((timesteps.collect(), spread))
    }

    /// The standard deviation of the starting noise.
    pub(super) fn initial_noise_sigma(&self, sigmas: &[f32]) -> f32 {
        let most = sigmas.iter().copied().fold(0.0, f32::max);
        match self.spacing {
            TimestepSpacing::Leading => (most * most + 1.0).sqrt(),
            TimestepSpacing::Trailing | TimestepSpacing::Linspace => most,
        }
    }
}

/// Refuses sigmas that a step would divide by and that are no numbers above 0.
pub(super) fn check_sigmas(timesteps: &[f64], sigmas: &[f32]) -> Result<(), SamplerError> {
    let mut both = timesteps.iter().zip(sigmas).enumerate();
    match both.find(|(_, (_, sigma))| !(sigma.is_finite() && **sigma > 0.0)) {
        None => Ok(()),
        Some((step, (&timestep, _))) => Err(SamplerError::Coefficients {
            step,
            timestep,
            advice: "choose a `beta_start` above 0 and a `beta_end` below 1, and sigmas above 0",
        }),
    }
}

/// What the model is given at a noise level: the sample with a variance of 1.
pub(super) fn scaled(mut sample: ArrayD<f32>, sigma: f32) -> ArrayD<f32> {
    let deviation = (sigma * sigma + 1.0).sqrt();
    sample.mapv_inplace(|value| value / deviation);
    sample
}
