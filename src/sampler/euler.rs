//! Euler's method, deterministic: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models"
//! (2206.00364), Algorithm 2 without churn.
//!
//! The numbers follow diffusers' `EulerDiscreteScheduler`.

use ndarray::{ArrayD, ArrayViewD, Zip};

use super::arithmetic::{check_index, check_shapes};
use super::configuration::SchedulerOptions;
use super::exploding::{ExplodingOptions, check_sigmas, scaled};
use super::fields::Fields;
use super::sigmas::{FinalSigma, SigmaSpacing, SigmaTable, linspace, rounded};
use super::trained::{BetaOptions, ZeroSnr};
use super::{GivenLevels, Memory, NoiseSource, PredictionType, RunSettings, SamplerError, Scheduler};

/// What the model may predict.
const PREDICTIONS: &[(&str, PredictionType)] = &[
    ("epsilon", PredictionType::Epsilon),
    ("v_prediction", PredictionType::Velocity),
    ("sample", PredictionType::Sample),
    ("original_sample", PredictionType::Sample),
];

/// How the sigmas between trained timesteps are found (`interpolation_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interpolation {
    /// From the two trained ones beside it.
    Linear,
    /// Evenly in the logarithm between the ends, whatever the timesteps.
    LogLinear,
}

/// What the model is told of the noise level (`timestep_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TimestepKind {
    /// The timestep.
    Discrete,
    /// A quarter of the logarithm of sigma, with `v_prediction`.
    Continuous,
}

/// The options of diffusers' `EulerDiscreteScheduler`; missing keys have diffusers' defaults.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct EulerConfig {
    common: ExplodingOptions,
    prediction: PredictionType,
    interpolation: Interpolation,
    sigmas: SigmaSpacing,
    kind: TimestepKind,
    end: FinalSigma,
}

impl EulerConfig {
    pub(super) fn read(fields: &Fields<'_>) -> Result<EulerConfig, SamplerError> {
        const INTERPOLATIONS: &[(&str, Interpolation)] = &[
            ("linear", Interpolation::Linear),
            ("log_linear", Interpolation::LogLinear),
        ];
        const KINDS: &[(&str, TimestepKind)] = &[
            ("discrete", TimestepKind::Discrete),
            ("continuous", TimestepKind::Continuous),
        ];
        let options = BetaOptions {
            zero_snr: ZeroSnr::Nearly,
            ..BetaOptions::COMMON
        };
        Ok(EulerConfig {
            common: ExplodingOptions::read(fields, options)?,
            prediction: fields.choice("prediction_type", PredictionType::Epsilon, PREDICTIONS)?,
            interpolation: fields.choice("interpolation_type", Interpolation::Linear, INTERPOLATIONS)?,
            sigmas: SigmaSpacing::read(fields)?,
            kind: fields.choice("timestep_type", TimestepKind::Discrete, KINDS)?,
            end: fields.choice("final_sigmas_type", FinalSigma::Zero, FinalSigma::NAMES)?,
        })
    }
}

impl SchedulerOptions for EulerConfig {
    fn scheduler(&self, run: &RunSettings) -> Result<Box<dyn Scheduler>, SamplerError> {
        let steps = run.steps;
        let table = SigmaTable::new(&self.common.trained.cumulated_alphas);
        let between = |timesteps: &[f64]| match self.interpolation {
            Interpolation::Linear => timesteps.iter().map(|&timestep| table.at(timestep)).collect(),
            Interpolation::LogLinear => {
                let (least, most) = table.logarithm_ends();
                let even = linspace(most, least, steps + 1).into_iter();
                even.map(|logarithm| libm::exp(f64::from(logarithm as f32))).collect()
            }
        };
        let continuous = (self.kind, self.prediction) == (TimestepKind::Continuous, PredictionType::Velocity);
        let (mut timesteps, sigmas) = match &run.levels {
            Some(GivenLevels::Sigmas(given)) => {
                // The last is the level after the last step.
                let before = given.split_last().map_or(&[][..], |(_, before)| before);
                let timesteps = before
                    .iter()
                    .map(|&sigma| f64::from(table.timestep_of(f64::from(sigma as f32)) as f32));
                (timesteps.collect(), given.clone())
            }
            Some(levels) if continuous => {
                let reason = "`timestep_type` \"continuous\" goes by sigmas; give those";
                return Err(levels.refuse(reason.to_owned()));
            }
            _ => {
                let (timesteps, mut sigmas) = self.common.spread(run, &table, &self.sigmas, between)?;
                sigmas.push(match self.end {
                    FinalSigma::Zero => 0.0,
                    FinalSigma::Least => table.least(),
                });
                // Evenly spaced logarithms come with an end of their own.
                sigmas.truncate(steps + 1);
                (timesteps, sigmas)
            }
        };
        let sigmas = rounded(&sigmas);
        if let (Some(levels), true) = (&run.levels, timesteps.is_empty()) {
            let reason = "there is one; the last is that after the last step, often 0".to_owned();
            return Err(levels.refuse(reason));
        }
        check_sigmas(&timesteps, &sigmas)?;
        if continuous {
            let quarter = |&sigma: &f32| f64::from(0.25 * libm::log(f64::from(sigma)) as f32);
            timesteps = sigmas.iter().map(quarter).take(timesteps.len()).collect();
        }
        Ok(Box::new(Euler {
            initial: self.common.initial_noise_sigma(&sigmas),
            timesteps,
            sigmas,
            prediction: self.prediction,
        }))
    }
}

/// Euler's method for a certain number of steps.
#[derive(Clone, Debug)]
struct Euler {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    initial: f32,
    prediction: PredictionType,
}

impl Euler {
    /// The noise levels before and after a step.
    fn levels(&self, index: usize) -> Result<(f32, f32), SamplerError> {
        let steps = self.timesteps.len();
        check_index(index, steps)?;
        match self.sigmas.get(index..=index + 1) {
            Some(&[sigma, next]) => Ok((sigma, next)),
            _ => Err(SamplerError::NoSuchStep { index, steps }),
        }
    }
}

impl Scheduler for Euler {
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
        Ok(scaled(sample, self.levels(index)?.0))
    }

    fn step(
        &mut self,
        index: usize,
        model_output: ArrayViewD<'_, f32>,
        sample: ArrayViewD<'_, f32>,
        _: &mut dyn NoiseSource,
    ) -> Result<ArrayD<f32>, SamplerError> {
        let (sigma, next) = self.levels(index)?;
        check_shapes(&model_output, &sample)?;
        let (of_output, of_sample) = self.prediction.exploding_weights(sigma);
        let change = next - sigma;
        Ok(Zip::from(&model_output).and(&sample).map_collect(|&output, &sample| {
            let clean = output * of_output + sample * of_sample;
            sample + (sample - clean) / sigma * change
        }))
    }

    fn memory(&mut self) -> Option<Memory<'_>> {
        Some(Memory::default())
    }
}
