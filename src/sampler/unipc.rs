//! UniPC: Zhao et al., "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models"
//! (2302.04867).
//!
//! The numbers follow diffusers' `UniPCMultistepScheduler`. Predictor and corrector are sums of samples and predictions,
//! so their weights are made before the run.

use ndarray::{ArrayD, ArrayViewD};

use super::arithmetic::{History, check_shapes, of_step, weighted_sum};
use super::configuration::SchedulerOptions;
use super::fields::Fields;
use super::sigmas::{FinalSigma, linspace, rounded};
use super::solver::{Level, RunLevels, SolverLevels, check_numbers};
use super::trained::{BetaOptions, Trained, ZeroSnr};
use super::{Limit, Memory, NoiseSource, PredictionType, RunSettings, SamplerError, Scheduler, TimestepSpacing};

mod weights;

use weights::{Corrector, Predictor, Solver, SolverType};

/// The largest order (`solver_order`); beyond, the weights cannot be solved for in single precision.
const MOST_ORDER: i64 = 6;

/// A first sigma of a flow this near 1 is put below 1, where the logarithm of the ratio is a number.
const NEAR_ONE: f64 = 1e-6;

/// The options of diffusers' `UniPCMultistepScheduler`; missing keys have diffusers' defaults.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct UniPcConfig {
    levels: SolverLevels,
    prediction: PredictionType,
    limit: Limit,
    order: usize,
    solver: Solver,
    lower_order_final: bool,
    disable_corrector: Vec<usize>,
}

impl UniPcConfig {
    pub(super) fn read(fields: &Fields<'_>) -> Result<UniPcConfig, SamplerError> {
        let options = BetaOptions {
            zero_snr: ZeroSnr::Nearly,
            ..BetaOptions::COMMON
        };
        let trained = Trained::read(fields, options)?;
        let mut levels = SolverLevels::read(fields, "UniPCMultistepScheduler", trained)?;
        levels.spacing = fields.choice("timestep_spacing", TimestepSpacing::Linspace, TimestepSpacing::NAMES)?;
        levels.steps_offset = Trained::read_offset(fields)?;
        if fields.has("solver_p") {
            return Err(fields.refuse("solver_p", "null"));
        }
        let prediction = levels.read_prediction(fields)?;
        let clean = fields.boolean("predict_x0", true)?;
        if !clean && prediction == PredictionType::Flow {
            return Err(fields.refuse("predict_x0", "true with \"flow_prediction\""));
        }
        Ok(UniPcConfig {
            prediction,
            limit: Limit::read_threshold(fields, Limit::None)?,
            order: fields.integer("solver_order", 2, 1, MOST_ORDER)? as usize,
            solver: Solver {
                kind: fields.choice("solver_type", SolverType::Second, SolverType::NAMES)?,
                clean,
            },
            lower_order_final: fields.boolean("lower_order_final", true)?,
            disable_corrector: fields.indices("disable_corrector")?,
            levels,
        })
    }

    /// Timesteps and sigmas of a run.
    fn run_levels(&self, run: &RunSettings) -> Result<RunLevels, SamplerError> {
        let (steps, levels) = (run.steps, &self.levels);
        Trained::check_steps(steps, levels.trained.timesteps())?;
        let table = levels.table();
        let trained = levels.trained.timesteps() as f64;
        let mut last = None;
        if let Some(given) = &run.levels {
            levels.sigmas.check_unspread(given)?;
            if !levels.is_flow() {
                return Err(given.refuse("this scheduler takes them with `use_flow_sigmas` only".to_owned()));
            }
        }
        let (timesteps, mut sigmas) = if let Some((timesteps, sigmas)) = levels.spread(steps, &table) {
            if levels.is_flow() && levels.sigmas.is_karras() {
                let sigmas: Vec<f64> = sigmas.iter().map(|sigma| sigma / (sigma + 1.0)).collect();
                (sigmas.iter().map(|sigma| (sigma * trained).trunc()).collect(), sigmas)
            } else {
                (timesteps, sigmas)
            }
        } else if let Some(shift) = &levels.flow {
            let even = match &run.levels {
                Some(given) => given.numbers().to_vec(),
                None => {
                    let mut even = linspace(1.0, 1.0 / trained, steps + 1);
                    even.truncate(steps);
                    even
                }
            };
            let mut sigmas = shift.apply(&even, run, |number| number)?;
            if let Some(first) = sigmas.first_mut().filter(|first| (**first - 1.0).abs() < NEAR_ONE) {
                *first -= NEAR_ONE;
            }
            (sigmas.iter().map(|sigma| (sigma * trained).trunc()).collect(), sigmas)
        } else {
            last = Some(table.least());
            levels.at_trained(steps, &table)?
        };
        sigmas.push(match levels.end {
            FinalSigma::Zero => 0.0,
            FinalSigma::Least => last.or(sigmas.last().copied()).unwrap_or(0.0),
        });
        Ok(RunLevels {
            timesteps,
            sigmas: rounded(&sigmas),
        })
    }
}

impl SchedulerOptions for UniPcConfig {
    fn scheduler(&self, run: &RunSettings) -> Result<Box<dyn Scheduler>, SamplerError> {
        let RunLevels { timesteps, sigmas } = self.run_levels(run)?;
        let steps = timesteps.len();
        let levels: Vec<Level> = sigmas
            .iter()
            .map(|&sigma| Level::new(sigma, self.levels.is_flow()))
            .collect();
        let order = |step: usize| {
            let left = if self.lower_order_final { steps - step } else { steps };
            self.order.min(left).min(step + 1)
        };
        let mut updates = Vec::with_capacity(steps);
        for (step, &timestep) in timesteps.iter().enumerate() {
            // The level after the step, before it, and before the steps before it.
            let newest_first: Vec<Level> = levels.iter().take(step + 2).rev().copied().collect();
            let predictor = self.solver.predictor(&newest_first, order(step));
            let corrects = step > 0 && !self.disable_corrector.contains(&(step - 1));
            let corrector = corrects.then(|| {
                let before = newest_first.get(1..).unwrap_or_default();
                self.solver.corrector(before, order(step - 1))
            });
            let corrected = corrector.iter().flat_map(Corrector::numbers);
            let numbers: Vec<f32> = corrected.chain(predictor.numbers()).collect();
            check_numbers(step, timestep, &numbers)?;
            updates.push((corrector, predictor));
        }
        Ok(Box::new(UniPc {
            timesteps,
            sigmas,
            levels,
            updates,
            prediction: self.prediction,
            limit: self.limit,
            clean: self.solver.clean,
            history: History::new(self.order),
            last: None,
        }))
    }
}

/// UniPC for a certain number of steps.
#[derive(Clone, Debug)]
struct UniPc {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    levels: Vec<Level>,
    updates: Vec<(Option<Corrector>, Predictor)>,
    prediction: PredictionType,
    limit: Limit,
    /// Whether steps go by predicted clean samples, or by predicted noise.
    clean: bool,
    history: History,
    /// The corrected sample of the step before.
    last: Option<ArrayD<f32>>,
}

impl UniPc {
    /// The sample, corrected by what the model says of it.
    fn corrected(
        &self,
        corrector: &Corrector,
        sample: ArrayViewD<'_, f32>,
        predicted: &ArrayD<f32>,
    ) -> Result<ArrayD<f32>, SamplerError> {
        let Some(last) = &self.last else {
            return Ok(sample.to_owned());
        };
        check_shapes(&last.view(), &sample)?;
        let mut terms = vec![(corrector.last, last.view())];
        terms.extend(self.history.weighted(&corrector.earlier));
        terms.push((corrector.newest, predicted.view()));
        weighted_sum(&terms)
    }
}

impl Scheduler for UniPc {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    fn step(
        &mut self,
        index: usize,
        model_output: ArrayViewD<'_, f32>,
        sample: ArrayViewD<'_, f32>,
        _: &mut dyn NoiseSource,
    ) -> Result<ArrayD<f32>, SamplerError> {
        let (corrector, predictor) = of_step(&self.updates, index)?;
        let level = of_step(&self.levels, index)?;
        check_shapes(&model_output, &sample)?;
        self.history.enter(index)?;
        let (signal, noise) = (level.signal, level.noise);
        let predicted = if self.clean {
            self.prediction.clean(self.limit, &model_output, &sample, signal, noise)
        } else {
            self.prediction.noise(&model_output, &sample, signal, noise)
        };
        let sample = match corrector {
            Some(corrector) => self.corrected(corrector, sample, &predicted)?,
            None => sample.to_owned(),
        };
        self.history.push(predicted);
        let mut terms = vec![(predictor.sample, sample.view())];
        terms.extend(self.history.weighted(&predictor.predictions));
        let next = weighted_sum(&terms)?;
        self.last = Some(sample);
        Ok(next)
    }

    fn memory(&mut self) -> Option<Memory<'_>> {
        let mut kept = self.history.arrays_mut();
        kept.extend(&mut self.last);
        let limit = Some(&mut self.limit);
        Some(Memory { kept, limit })
    }

    fn clean_weights(&self, index: usize) -> Option<(f32, f32)> {
        let level = self.levels.get(index)?;
        Some(self.prediction.clean_weights(level.signal, level.noise))
    }
}
