//! Heun's method: Karras et al. (2206.00364), Algorithm 2 without churn. Every step but the last calls the model twice.
//!
//! The numbers follow diffusers' `HeunDiscreteScheduler`.

use ndarray::{ArrayD, ArrayViewD, Zip};

use super::arithmetic::{History, check_index, check_shapes};
use super::configuration::SchedulerOptions;
use super::exploding::{ExplodingOptions, check_sigmas, scaled};
use super::fields::Fields;
use super::sigmas::{SigmaSpacing, SigmaTable, rounded};
use super::trained::{BetaOptions, ZeroSnr};
use super::{BetaSchedule, Limit, Memory, NoiseSource, PredictionType, RunSettings, SamplerError, Scheduler};

/// The options of diffusers' `HeunDiscreteScheduler`; missing keys have diffusers' defaults.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct HeunConfig {
    common: ExplodingOptions,
    prediction: PredictionType,
    sigmas: SigmaSpacing,
    limit: Limit,
}

impl HeunConfig {
    pub(super) fn read(fields: &Fields<'_>) -> Result<HeunConfig, SamplerError> {
        let options = BetaOptions {
            start: 0.00085,
            end: 0.012,
            schedule: BetaSchedule::Linear,
            names: BetaSchedule::NAMES_OF_HEUN,
            zero_snr: ZeroSnr::Unknown,
        };
        Ok(HeunConfig {
            common: ExplodingOptions::read(fields, options)?,
            prediction: fields.choice("prediction_type", PredictionType::Epsilon, PredictionType::NAMES)?,
            sigmas: SigmaSpacing::read(fields)?,
            limit: Limit::read_clip(fields, false)?,
        })
    }
}

impl SchedulerOptions for HeunConfig {
    fn scheduler(&self, run: &RunSettings) -> Result<Box<dyn Scheduler>, SamplerError> {
        let table = SigmaTable::new(&self.common.trained.cumulated_alphas);
        let at = |timesteps: &[f64]| timesteps.iter().map(|&timestep| table.at(timestep)).collect();
        let (timesteps, sigmas) = self.common.spread(run, &table, &self.sigmas, at)?;
        // All but the first come twice: at the end of one step and at the beginning of the next.
        let twice = |index: usize| if index == 0 { 1 } else { 2 };
        let repeated = |numbers: &[f64]| -> Vec<f64> {
            let numbers = numbers.iter().enumerate();
            numbers
                .flat_map(|(index, &number)| std::iter::repeat_n(number, twice(index)))
                .collect()
        };
        let timesteps = repeated(&timesteps);
        let mut sigmas = rounded(&repeated(&sigmas));
        sigmas.push(0.0);
        check_sigmas(&timesteps, &sigmas)?;
        Ok(Box::new(Heun {
            initial: self.common.initial_noise_sigma(&sigmas),
            timesteps,
            sigmas,
            prediction: self.prediction,
            limit: self.limit,
            begun: History::new(2),
        }))
    }
}

/// Heun's method for a certain number of steps.
#[derive(Clone, Debug)]
struct Heun {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    initial: f32,
    prediction: PredictionType,
    limit: Limit,
    /// Of the step that has begun: its slope, then its sample.
    begun: History,
}

impl Heun {
    fn sigma(&self, index: usize) -> Result<f32, SamplerError> {
        let steps = self.timesteps.len();
        check_index(index, steps)?;
        let sigma = self.sigmas.get(index).copied();
        sigma.ok_or(SamplerError::NoSuchStep { index, steps })
    }
}

impl Scheduler for Heun {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    fn initial_noise_sigma(&self) -> f32 {
        self.initial
    }

    fn scale_model_input(&self, index: usize, sample: ArrayD<f32>) -> Result<ArrayD<f32>, SamplerError> {
        Ok(scaled(sample, self.sigma(index)?))
    }

    fn step(
        &mut self,
        index: usize,
        model_output: ArrayViewD<'_, f32>,
        sample: ArrayViewD<'_, f32>,
        _: &mut dyn NoiseSource,
    ) -> Result<ArrayD<f32>, SamplerError> {
        let sigma = self.sigma(index)?;
        check_shapes(&model_output, &sample)?;
        self.begun.enter(index)?;
        let (of_output, of_sample) = self.prediction.exploding_weights(sigma);
        let mut slope = Zip::from(&model_output)
            .and(&sample)
            .map_collect(|&output, &sample| output * of_output + sample * of_sample);
        self.limit.apply(&mut slope);
        slope.zip_mut_with(&sample, |slope, &sample| *slope = (sample - *slope) / sigma);
        if index.is_multiple_of(2) {
            let change = self.sigmas.get(index + 1).copied().unwrap_or(0.0) - sigma;
            let next = Zip::from(&sample)
                .and(&slope)
                .map_collect(|&sample, &slope| sample + slope * change);
            self.begun.push(sample.to_owned());
            self.begun.push(slope);
            return Ok(next);
        }
        // From the beginning again, by the mean of the slopes at both ends.
        let change = sigma - self.sigma(index - 1)?;
        let begun = self.begun.weighted(&[1.0, 1.0]);
        let [(_, first_slope), (_, first_sample)] = begun.as_slice() else {
            return Err(SamplerError::OutOfOrder { index, expected: 0 });
        };
        check_shapes(first_sample, &sample)?;
        Zip::from(&mut slope)
            .and(first_slope)
            .and(first_sample)
            .for_each(|slope, &first, &sample| *slope = sample + (first + *slope) / 2.0 * change);
        Ok(slope)
    }

    fn memory(&mut self) -> Option<Memory<'_>> {
        Some(Memory {
            kept: self.begun.arrays_mut(),
            limit: Some(&mut self.limit),
        })
    }

    fn clean_weights(&self, index: usize) -> Option<(f32, f32)> {
        Some(self.prediction.exploding_weights(self.sigma(index).ok()?))
    }
}
