//! Euler's method with ancestral sampling: each step goes further down than it must and adds new noise.
//!
//! The numbers follow diffusers' `EulerAncestralDiscreteScheduler`.

use ndarray::{ArrayD, ArrayViewD, Zip};

use super::arithmetic::{check_shapes, of_step};
use super::configuration::SchedulerOptions;
use super::exploding::{ExplodingOptions, check_sigmas, scaled};
use super::fields::Fields;
use super::sigmas::{SigmaTable, rounded};
use super::trained::{BetaOptions, ZeroSnr};
use super::{Memory, NoiseSource, PredictionType, RunSettings, SamplerError, Scheduler};

/// What the model may predict.
const PREDICTIONS: &[(&str, PredictionType)] = &[
    ("epsilon", PredictionType::Epsilon),
    ("v_prediction", PredictionType::Velocity),
];

/// The options of diffusers' `EulerAncestralDiscreteScheduler`; missing keys have diffusers' defaults.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct EulerAncestralConfig {
    common: ExplodingOptions,
    prediction: PredictionType,
}

impl EulerAncestralConfig {
    pub(super) fn read(fields: &Fields<'_>) -> Result<EulerAncestralConfig, SamplerError> {
        let options = BetaOptions {
            zero_snr: ZeroSnr::Nearly,
            ..BetaOptions::COMMON
        };
        Ok(EulerAncestralConfig {
            common: ExplodingOptions::read(fields, options)?,
            prediction: fields.choice("prediction_type", PredictionType::Epsilon, PREDICTIONS)?,
        })
    }
}

impl SchedulerOptions for EulerAncestralConfig {
    fn scheduler(&self, run: &RunSettings) -> Result<Box<dyn Scheduler>, SamplerError> {
        let table = SigmaTable::new(&self.common.trained.cumulated_alphas);
        let timesteps = self.common.timesteps(run.steps)?;
        let mut sigmas: Vec<f64> = timesteps.iter().map(|&timestep| table.at(timestep)).collect();
        sigmas.push(0.0);
        let sigmas = rounded(&sigmas);
        check_sigmas(&timesteps, &sigmas)?;
        let levels = sigmas.windows(2).map(|pair| Levels::new(pair[0], pair[1]));
        Ok(Box::new(EulerAncestral {
            initial: self.common.initial_noise_sigma(&sigmas),
            levels: levels.collect(),
            timesteps,
            sigmas,
            prediction: self.prediction,
        }))
    }
}

/// The noise levels of a step: before it, after its deterministic part, and of the noise that is added.
#[derive(Clone, Copy, Debug)]
struct Levels {
    sigma: f32,
    down: f32,
    up: f32,
}

impl Levels {
    /// Down and up together come to `next`, and have the variance of the diffusion's posterior.
    fn new(sigma: f32, next: f32) -> Levels {
        let (from, to) = (sigma * sigma, next * next);
        let up = (to * (from - to) / from).sqrt();
        Levels {
            sigma,
            down: (to - up * up).sqrt(),
            up,
        }
    }
}

/// The method for a certain number of steps.
#[derive(Clone, Debug)]
struct EulerAncestral {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    levels: Vec<Levels>,
    initial: f32,
    prediction: PredictionType,
}

impl EulerAncestral {
    fn levels(&self, index: usize) -> Result<Levels, SamplerError> {
        of_step(&self.levels, index).copied()
    }
}

impl Scheduler for EulerAncestral {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    fn initial_noise_sigma(&self) -> f32 {
        self.initial
    }

    fn noise_draws(&self) -> usize {
        // The last step goes down to no noise, and adds none.
        self.levels.len().saturating_sub(1)
    }

    fn scale_model_input(&self, index: usize, sample: ArrayD<f32>) -> Result<ArrayD<f32>, SamplerError> {
        Ok(scaled(sample, self.levels(index)?.sigma))
    }

    fn step(
        &mut self,
        index: usize,
        model_output: ArrayViewD<'_, f32>,
        sample: ArrayViewD<'_, f32>,
        noise: &mut dyn NoiseSource,
    ) -> Result<ArrayD<f32>, SamplerError> {
        let Levels { sigma, down, up } = self.levels(index)?;
        check_shapes(&model_output, &sample)?;
        let (of_output, of_sample) = self.prediction.exploding_weights(sigma);
        let change = down - sigma;
        let mut next = Zip::from(&model_output).and(&sample).map_collect(|&output, &sample| {
            let clean = output * of_output + sample * of_sample;
            sample + (sample - clean) / sigma * change
        });
        if up > 0.0 {
            let fresh = noise.draw(index, next.shape())?;
            check_shapes(&fresh.view(), &next.view())?;
            next.zip_mut_with(&fresh, |next, fresh| *next += fresh * up);
        }
        Ok(next)
    }

    fn memory(&mut self) -> Option<Memory<'_>> {
        Some(Memory::default())
    }
}
