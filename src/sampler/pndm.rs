//! PNDM: Liu et al., "Pseudo Numerical Methods for Diffusion Models on Manifolds" (2202.09778).
//!
//! Three steps of Runge and Kutta with four model calls each, then linear multistep with one call each; with
//! `skip_prk_steps` the multistep begins at once, and its first step takes two calls (the way of Stable Diffusion). The
//! numbers follow diffusers' `PNDMScheduler`.

use ndarray::{ArrayD, ArrayViewD, Zip};

use super::arithmetic::{History, check_shapes, of_step, weighted_sum};
use super::configuration::SchedulerOptions;
use super::fields::Fields;
use super::trained::{BetaOptions, Trained, ZeroSnr};
use super::{Memory, NoiseSource, PredictionType, RunSettings, SamplerError, Scheduler, TimestepSpacing};

/// The order of the multistep, which takes one earlier step less from Runge and Kutta.
const ORDER: usize = 4;

/// The weights of the model's outputs, the newest first, by how many there are (Adams and Bashforth).
const MULTISTEP: [&[f32]; ORDER] = [
    &[1.0],
    &[3.0 / 2.0, -1.0 / 2.0],
    &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
    &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
];

/// The weights of the four calls of a step of Runge and Kutta.
const RUNGE_KUTTA: [f32; 4] = [1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 6.0];

/// What the model may predict.
const PREDICTIONS: &[(&str, PredictionType)] = &[
    ("epsilon", PredictionType::Epsilon),
    ("v_prediction", PredictionType::Velocity),
];

/// The options of diffusers' `PNDMScheduler`; missing keys have diffusers' defaults.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PndmConfig {
    trained: Trained,
    skip_prk_steps: bool,
    set_alpha_to_one: bool,
    prediction: PredictionType,
    spacing: TimestepSpacing,
    steps_offset: i64,
}

impl PndmConfig {
    pub(super) fn read(fields: &Fields<'_>) -> Result<PndmConfig, SamplerError> {
        let options = BetaOptions {
            zero_snr: ZeroSnr::Unknown,
            ..BetaOptions::COMMON
        };
        Ok(PndmConfig {
            trained: Trained::read(fields, options)?,
            skip_prk_steps: fields.boolean("skip_prk_steps", false)?,
            set_alpha_to_one: fields.boolean("set_alpha_to_one", false)?,
            prediction: fields.choice("prediction_type", PredictionType::Epsilon, PREDICTIONS)?,
            spacing: fields.choice("timestep_spacing", TimestepSpacing::Leading, TimestepSpacing::NAMES)?,
            steps_offset: Trained::read_offset(fields)?,
        })
    }

    /// The model calls of a run of `steps` steps.
    fn calls(&self, steps: usize) -> Result<Vec<Call>, SamplerError> {
        let trained = self.trained.timesteps();
        Trained::check_steps(steps, trained)?;
        let stride = (trained / steps) as i64;
        let falling = self.spacing.timesteps(steps, trained, self.steps_offset);
        let mut calls = Vec::with_capacity(steps + 9);
        let multistep = |timestep: i64| Call {
            timestep,
            from: timestep,
            to: timestep - stride,
            kind: Kind::Multistep,
        };
        if self.skip_prk_steps {
            for (index, &timestep) in falling.iter().enumerate() {
                calls.push(multistep(timestep));
                if index == 1 {
                    // The second timestep comes twice: first it corrects the first step.
                    let again = Call {
                        from: timestep + stride,
                        to: timestep,
                        kind: Kind::Correction,
                        timestep,
                    };
                    calls.insert(1, again);
                }
            }
            return Ok(calls);
        }
        if steps < ORDER {
            return Err(SamplerError::StepCount {
                steps,
                reason: format!("without `skip_prk_steps`, PNDM needs {ORDER} steps or more"),
            });
        }
        let half = stride / 2;
        for pair in falling.windows(2).take(ORDER - 1) {
            let [from, end] = [pair[0], pair[1]];
            let middle = end + half;
            let stages = [
                (from, from - half),
                (middle, middle),
                (middle, middle - half),
                (end, end),
            ];
            calls.extend(stages.into_iter().enumerate().map(|(stage, (timestep, to))| Call {
                timestep,
                from,
                to,
                kind: Kind::RungeKutta(stage),
            }));
        }
        calls.extend(falling.iter().skip(ORDER - 1).map(|&timestep| multistep(timestep)));
        Ok(calls)
    }

    /// The weights of sample and noise in a step between two timesteps: formula (11) of the paper.
    fn transfer(&self, from: i64, to: i64) -> Option<Transfer> {
        let alpha = self.trained.alpha(from)?;
        let next = match to {
            0.. => self.trained.alpha(to)?,
            _ if self.set_alpha_to_one => 1.0,
            _ => self.trained.alpha(0)?,
        };
        let (lack, next_lack) = (1.0 - alpha, 1.0 - next);
        Some(Transfer {
            signal: alpha.sqrt(),
            noise: lack.sqrt(),
            sample: (next / alpha).sqrt(),
            difference: next - alpha,
            divisor: alpha * next_lack.sqrt() + (alpha * lack * next).sqrt(),
        })
    }
}

impl SchedulerOptions for PndmConfig {
    fn scheduler(&self, run: &RunSettings) -> Result<Box<dyn Scheduler>, SamplerError> {
        Ok(Box::new(Pndm::new(self, run.steps)?))
    }
}

/// What is done with a model output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One of the four stages of a step of Runge and Kutta.
    RungeKutta(usize),
    /// A step from this sample, by this output and the ones before it.
    Multistep,
    /// The last step once more, by the mean of its output and this one.
    Correction,
}

/// One call of the model, and the step after it.
#[derive(Clone, Copy, Debug)]
struct Call {
    timestep: i64,
    from: i64,
    to: i64,
    kind: Kind,
}

/// The numbers of a step between two timesteps.
#[derive(Clone, Copy, Debug)]
struct Transfer {
    signal: f32,
    noise: f32,
    sample: f32,
    difference: f32,
    divisor: f32,
}

/// PNDM for a certain number of steps.
#[derive(Clone, Debug)]
struct Pndm {
    timesteps: Vec<f64>,
    calls: Vec<(Kind, Transfer)>,
    prediction: PredictionType,
    /// Outputs at the beginnings of steps.
    history: History,
    /// The sample at the beginning of a step that takes several calls.
    base: Option<ArrayD<f32>>,
    /// The weighted sum of the outputs of a step of Runge and Kutta.
    gathered: Option<ArrayD<f32>>,
}

impl Pndm {
    fn new(config: &PndmConfig, steps: usize) -> Result<Pndm, SamplerError> {
        let trained = config.trained.timesteps();
        let mut timesteps = Vec::new();
        let mut calls = Vec::new();
        for (step, call) in config.calls(steps)?.into_iter().enumerate() {
            let transfer = config.transfer(call.from, call.to).ok_or(SamplerError::Offset {
                step,
                steps,
                timestep: call.from,
                trained,
                offset: config.steps_offset,
            })?;
            let timestep = call.timestep as f64;
            if !(transfer.divisor > 0.0 && transfer.sample.is_finite()) {
                let advice = "choose a `beta_start` above 0 and a `beta_end` below 1";
                return Err(SamplerError::Coefficients { step, timestep, advice });
            }
            timesteps.push(timestep);
            calls.push((call.kind, transfer));
        }
        Ok(Pndm {
            timesteps,
            calls,
            prediction: config.prediction,
            history: History::new(ORDER),
            base: None,
            gathered: None,
        })
    }

    /// The output that a step goes by, out of this one and the ones before it.
    fn gather(&mut self, kind: Kind, output: ArrayViewD<'_, f32>) -> Result<ArrayD<f32>, SamplerError> {
        match kind {
            Kind::Multistep => {
                self.history.push(output.to_owned());
                let weights = MULTISTEP.get(self.history.len() - 1).copied().unwrap_or(&[1.0]);
                weighted_sum(&self.history.weighted(weights))
            }
            Kind::Correction => {
                let mut terms = self.history.weighted(&[0.5]);
                terms.push((0.5, output));
                weighted_sum(&terms)
            }
            Kind::RungeKutta(stage) => {
                if stage == 0 {
                    self.history.push(output.to_owned());
                    self.gathered = None;
                }
                let weight = RUNGE_KUTTA.get(stage).copied().unwrap_or(0.0);
                let mut terms = vec![(weight, output.view())];
                terms.extend(self.gathered.iter().map(|gathered| (1.0, gathered.view())));
                let gathered = weighted_sum(&terms)?;
                if stage + 1 == RUNGE_KUTTA.len() {
                    self.gathered = None;
                    return Ok(gathered);
                }
                self.gathered = Some(gathered);
                Ok(output.to_owned())
            }
        }
    }
}

impl Scheduler for Pndm {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn step(
        &mut self,
        index: usize,
        model_output: ArrayViewD<'_, f32>,
        sample: ArrayViewD<'_, f32>,
        _: &mut dyn NoiseSource,
    ) -> Result<ArrayD<f32>, SamplerError> {
        let (kind, at) = *of_step(&self.calls, index)?;
        check_shapes(&model_output, &sample)?;
        self.history.enter(index)?;
        let output = self.gather(kind, model_output)?;
        // A step of several calls is taken from its beginning again by each of them.
        let corrected_next = matches!(self.calls.get(index + 1), Some((Kind::Correction, _)));
        match kind {
            Kind::RungeKutta(0) => self.base = Some(sample.to_owned()),
            Kind::Multistep if corrected_next => self.base = Some(sample.to_owned()),
            Kind::Multistep => self.base = None,
            Kind::RungeKutta(_) | Kind::Correction => {}
        }
        let base = self.base.as_ref().map_or(sample.view(), |base| base.view());
        check_shapes(&output.view(), &base)?;
        let velocity = self.prediction == PredictionType::Velocity;
        Ok(Zip::from(&output).and(&base).map_collect(|&output, &sample| {
            let noise = if velocity {
                at.signal * output + at.noise * sample
            } else {
                output
            };
            at.sample * sample - at.difference * noise / at.divisor
        }))
    }

    fn memory(&mut self) -> Option<Memory<'_>> {
        let mut kept = self.history.arrays_mut();
        kept.extend(&mut self.base);
        kept.extend(&mut self.gathered);
        Some(Memory { kept, limit: None })
    }
}
