//! DPM-Solver++: Lu et al., "Fast Solver for Guided Sampling of Diffusion Probabilistic Models" (2211.01095), in many
//! steps that look back and in single steps of several stages, deterministic or as a stochastic differential equation.
//!
//! The numbers follow diffusers' `DPMSolverMultistepScheduler` and `DPMSolverSinglestepScheduler`. Every step is a sum
//! of the sample, the last predicted clean samples and noise, so its weights are made before the run.

use ndarray::{ArrayD, ArrayViewD};

use super::arithmetic::{History, check_shapes, of_step, weighted_sum};
use super::configuration::SchedulerOptions;
use super::fields::Fields;
use super::sigmas::FinalSigma;
use super::solver::{Level, RunLevels, SolverLevels, check_numbers};
use super::trained::{BetaOptions, Trained, ZeroSnr};
use super::{
    BetaSchedule, Limit, Memory, NoiseSource, PredictionType, RunSettings, SamplerError, Scheduler, TimestepSpacing,
};

mod update;

use update::{Equation, MOST_ORDER, Rule, Update};

/// Runs of fewer steps end with steps of lower order (`lower_order_final`).
const FEW_STEPS: usize = 15;

/// Whether steps look back, or have stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Multistep,
    Singlestep,
}

/// The options of diffusers' `DPMSolverMultistepScheduler` and `DPMSolverSinglestepScheduler`; missing keys have
/// diffusers' defaults.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DpmSolverConfig {
    form: Form,
    levels: SolverLevels,
    prediction: PredictionType,
    limit: Limit,
    order: usize,
    equation: Equation,
    rule: Rule,
    lower_order_final: bool,
    euler_at_final: bool,
}

impl DpmSolverConfig {
    pub(super) fn read_multistep(fields: &Fields<'_>) -> Result<DpmSolverConfig, SamplerError> {
        let options = BetaOptions {
            zero_snr: ZeroSnr::Nearly,
            ..BetaOptions::COMMON
        };
        let mut config = DpmSolverConfig::read(fields, Form::Multistep, "DPMSolverMultistepScheduler", options)?;
        if fields.flag("use_lu_lambdas")? {
            return Err(fields.refuse("use_lu_lambdas", "false"));
        }
        config.levels.spacing = fields.choice("timestep_spacing", TimestepSpacing::Linspace, TimestepSpacing::NAMES)?;
        config.levels.steps_offset = Trained::read_offset(fields)?;
        config.euler_at_final = fields.boolean("euler_at_final", false)?;
        let schedule = fields.choice("beta_schedule", BetaSchedule::Linear, BetaSchedule::NAMES)?;
        config.levels.round_karras = schedule != BetaSchedule::SquaredCosine;
        Ok(config)
    }

    pub(super) fn read_singlestep(fields: &Fields<'_>) -> Result<DpmSolverConfig, SamplerError> {
        let options = BetaOptions {
            zero_snr: ZeroSnr::Unknown,
            ..BetaOptions::COMMON
        };
        DpmSolverConfig::read(fields, Form::Singlestep, "DPMSolverSinglestepScheduler", options)
    }

    fn read(
        fields: &Fields<'_>,
        form: Form,
        class: &'static str,
        options: BetaOptions,
    ) -> Result<DpmSolverConfig, SamplerError> {
        let mut levels = SolverLevels::read(fields, class, Trained::read(fields, options)?)?;
        if !fields.is_text("lambda_min_clipped", "-Infinity") {
            let lambda = fields.optional_number("lambda_min_clipped", f64::MIN, f64::MAX)?;
            levels.least_lambda = lambda.unwrap_or(f64::NEG_INFINITY);
        }
        // The channels of learned variances are cut off before the step.
        fields.has("variance_type");
        Ok(DpmSolverConfig {
            form,
            prediction: levels.read_prediction(fields)?,
            levels,
            limit: Limit::read_threshold(fields, Limit::None)?,
            order: fields.integer("solver_order", 2, 1, MOST_ORDER as i64)? as usize,
            equation: fields.choice("algorithm_type", Equation::Ordinary, Equation::NAMES)?,
            rule: fields.choice("solver_type", Rule::Midpoint, Rule::NAMES)?,
            lower_order_final: fields.boolean("lower_order_final", form == Form::Multistep)?,
            euler_at_final: false,
        })
    }

    /// The order of each step of a run.
    fn orders(&self, steps: usize) -> Vec<usize> {
        match self.form {
            Form::Multistep => (0..steps).map(|step| self.multistep_order(step, steps)).collect(),
            Form::Singlestep => self.singlestep_orders(steps),
        }
    }

    fn multistep_order(&self, step: usize, steps: usize) -> usize {
        let few = self.lower_order_final && steps < FEW_STEPS;
        let left = steps - step;
        let last = left == 1 && (self.euler_at_final || few || self.levels.end == FinalSigma::Zero);
        let most = if last {
            1
        } else if left == 2 && few {
            2
        } else {
            MOST_ORDER
        };
        self.order.min(step + 1).min(most)
    }

    /// Stages 1, 2, ... up to the order, again and again; the last step is of the first order where the run would not
    /// come out whole or ends at no noise.
    fn singlestep_orders(&self, steps: usize) -> Vec<usize> {
        let order = self.order;
        let mut orders: Vec<usize> = (0..steps).map(|step| step % order + 1).collect();
        let ends_lower = self.lower_order_final || !steps.is_multiple_of(order) || self.levels.end == FinalSigma::Zero;
        if let Some(last) = orders.last_mut()
            && ends_lower
            && (*last == order || self.levels.end == FinalSigma::Zero)
        {
            *last = 1;
        }
        orders
    }
}

impl SchedulerOptions for DpmSolverConfig {
    fn scheduler(&self, run: &RunSettings) -> Result<Box<dyn Scheduler>, SamplerError> {
        let RunLevels { timesteps, sigmas } = self.levels.of_dpm(run)?;
        let levels: Vec<Level> = sigmas
            .iter()
            .map(|&sigma| Level::new(sigma, self.levels.is_flow()))
            .collect();
        let mut updates = Vec::with_capacity(timesteps.len());
        for (step, order) in self.orders(timesteps.len()).into_iter().enumerate() {
            // The level after the step, before it, and before the steps before it.
            let newest_first: Vec<Level> = levels.iter().take(step + 2).rev().copied().collect();
            let update = match self.form {
                Form::Multistep => Update::looking_back(&newest_first, order, self.equation, self.rule),
                Form::Singlestep => Update::of_stage(&newest_first, order, self.equation, self.rule),
            };
            check_numbers(step, timesteps.get(step).copied().unwrap_or(0.0), &update.numbers())?;
            updates.push(update);
        }
        Ok(Box::new(DpmSolver {
            timesteps,
            sigmas,
            levels,
            updates,
            form: self.form,
            prediction: self.prediction,
            limit: self.limit,
            history: History::new(self.order),
            base: None,
        }))
    }
}

/// DPM-Solver++ for a certain number of steps.
#[derive(Clone, Debug)]
struct DpmSolver {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    levels: Vec<Level>,
    updates: Vec<Update>,
    form: Form,
    prediction: PredictionType,
    limit: Limit,
    /// Predicted clean samples.
    history: History,
    /// The sample at the first of several stages.
    base: Option<ArrayD<f32>>,
}

impl Scheduler for DpmSolver {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    fn noise_draws(&self) -> usize {
        let last = self.updates.iter().rposition(|update| update.noise != 0.0);
        last.map_or(0, |index| index + 1)
    }

    fn step(
        &mut self,
        index: usize,
        model_output: ArrayViewD<'_, f32>,
        sample: ArrayViewD<'_, f32>,
        noise: &mut dyn NoiseSource,
    ) -> Result<ArrayD<f32>, SamplerError> {
        let (update, level) = (*of_step(&self.updates, index)?, of_step(&self.levels, index)?);
        check_shapes(&model_output, &sample)?;
        self.history.enter(index)?;
        let clean = self
            .prediction
            .clean(self.limit, &model_output, &sample, level.signal, level.noise);
        self.history.push(clean);
        if self.form == Form::Singlestep && update.order == 1 {
            self.base = Some(sample.to_owned());
        }
        let base = self.base.as_ref().map_or(sample, |base| base.view());
        let fresh = match update.noise {
            0.0 => None,
            _ => Some(noise.draw(index, base.shape())?),
        };
        let mut terms = vec![(update.sample, base)];
        terms.extend(self.history.weighted(&update.clean));
        terms.extend(fresh.iter().map(|fresh| (update.noise, fresh.view())));
        weighted_sum(&terms)
    }

    fn memory(&mut self) -> Option<Memory<'_>> {
        let mut kept = self.history.arrays_mut();
        kept.extend(&mut self.base);
        let limit = Some(&mut self.limit);
        Some(Memory { kept, limit })
    }

    fn clean_weights(&self, index: usize) -> Option<(f32, f32)> {
        let level = self.levels.get(index)?;
        Some(self.prediction.clean_weights(level.signal, level.noise))
    }
}
