//! What solvers in the logarithm of the signal-to-noise ratio share (DPM-Solver, UniPC): their noise levels.

use super::fields::Fields;
use super::flow_shift::Shift;
use super::sigmas::{FinalSigma, SigmaSpacing, SigmaTable, linspace};
use super::trained::Trained;
use super::{PredictionType, RunSettings, SamplerError, TimestepSpacing};

/// A noise level: weights of clean sample and noise, and half the logarithm of their squares' ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Level {
    pub(super) signal: f32,
    pub(super) noise: f32,
    pub(super) lambda: f32,
}

impl Level {
    /// The level of a sigma: of flows the weight of the noise itself, else the ratio of noise to signal in samples that
    /// preserve the variance.
    pub(super) fn new(sigma: f32, flow: bool) -> Level {
        let (signal, noise) = if flow {
            (1.0 - sigma, sigma)
        } else {
            let signal = 1.0 / (sigma * sigma + 1.0).sqrt();
            (signal, sigma * signal)
        };
        Level {
            signal,
            noise,
            lambda: libm::logf(signal) - libm::logf(noise),
        }
    }
}

/// The options that choose timesteps and sigmas.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SolverLevels {
    pub(super) class: &'static str,
    pub(super) trained: Trained,
    pub(super) spacing: TimestepSpacing,
    pub(super) steps_offset: i64,
    pub(super) sigmas: SigmaSpacing,
    /// Whether timesteps that come of Karras' sigmas are whole numbers before they are cut to such.
    pub(super) round_karras: bool,
    /// Timesteps whose logarithm of the ratio is below this are left out (`lambda_min_clipped`).
    pub(super) least_lambda: f64,
    /// `use_flow_sigmas` with its shift.
    pub(super) flow: Option<Shift>,
    pub(super) end: FinalSigma,
}

/// Timesteps and sigmas of a run; the last sigma is that after the last step.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RunLevels {
    pub(super) timesteps: Vec<f64>,
    pub(super) sigmas: Vec<f32>,
}

impl SolverLevels {
    /// Reads what both solvers' classes have in common; `class` names them in errors.
    pub(super) fn read(
        fields: &Fields<'_>,
        class: &'static str,
        trained: Trained,
    ) -> Result<SolverLevels, SamplerError> {
        let flow = if fields.boolean("use_flow_sigmas", false)? {
            Some(Shift::read(fields, "flow_shift", class)?)
        } else {
            Shift::read(fields, "flow_shift", class)?;
            None
        };
        Ok(SolverLevels {
            class,
            trained,
            spacing: TimestepSpacing::Linspace,
            steps_offset: 0,
            sigmas: SigmaSpacing::read(fields)?,
            round_karras: true,
            least_lambda: f64::NEG_INFINITY,
            flow,
            end: fields.choice("final_sigmas_type", FinalSigma::Zero, FinalSigma::NAMES)?,
        })
    }

    /// `prediction_type`, which must be a flow's where the sigmas are.
    pub(super) fn read_prediction(&self, fields: &Fields<'_>) -> Result<PredictionType, SamplerError> {
        let prediction = fields.choice(
            "prediction_type",
            PredictionType::Epsilon,
            PredictionType::NAMES_WITH_FLOW,
        )?;
        if prediction == PredictionType::Flow && self.flow.is_none() {
            return Err(fields.refuse("prediction_type", "\"flow_prediction\" with `use_flow_sigmas` only"));
        }
        Ok(prediction)
    }

    /// Whether sigmas are those of a flow.
    pub(super) fn is_flow(&self) -> bool {
        self.flow.is_some()
    }

    /// The table of trained sigmas.
    pub(super) fn table(&self) -> SigmaTable {
        SigmaTable::new(&self.trained.cumulated_alphas)
    }

    /// The trained timesteps of a run.
    pub(super) fn trained_timesteps(&self, steps: usize) -> Result<Vec<i64>, SamplerError> {
        let lambda = |alpha: f32| libm::logf(alpha.sqrt()) - libm::logf((1.0 - alpha).sqrt());
        let alphas = self.trained.cumulated_alphas.iter().rev();
        let left_out = alphas.take_while(|&&alpha| f64::from(lambda(alpha)) < self.least_lambda);
        let kept = self.trained.timesteps() - left_out.count();
        let most = match self.spacing {
            TimestepSpacing::Trailing => kept,
            _ => kept.saturating_sub(1),
        };
        Trained::check_steps(steps, most)?;
        if self.spacing == TimestepSpacing::Trailing && kept < self.trained.timesteps() {
            return Err(SamplerError::StepCount {
                steps,
                reason: "`lambda_min_clipped` goes with `timestep_spacing` \"linspace\" and \"leading\" only"
                    .to_owned(),
            });
        }
        Ok(self.spacing.solver_timesteps(steps, kept, self.steps_offset))
    }

    /// Timesteps and sigmas where the sigmas are spread by a formula between the trained ends.
    pub(super) fn spread(&self, steps: usize, table: &SigmaTable) -> Option<(Vec<f64>, Vec<f64>)> {
        let sigmas = self.sigmas.spread(table.most(), table.least(), steps)?;
        let whole = self.round_karras && self.sigmas.is_karras();
        let timestep = |&sigma: &f64| match table.timestep_of(sigma) {
            timestep if whole => timestep.round_ties_even(),
            timestep => timestep.trunc(),
        };
        Some((sigmas.iter().map(timestep).collect(), sigmas))
    }

    /// Timesteps and sigmas of `DPMSolverMultistepScheduler` and `DPMSolverSinglestepScheduler`.
    pub(super) fn of_dpm(&self, run: &RunSettings) -> Result<RunLevels, SamplerError> {
        let table = self.table();
        let steps = run.steps;
        Trained::check_steps(steps, self.trained.timesteps())?;
        let (timesteps, mut sigmas) = if let Some(levels) = &run.levels {
            self.sigmas.check_unspread(levels)?;
            if self.is_flow() {
                let reason = "with `use_flow_sigmas` this scheduler makes them of the number of steps; give that";
                return Err(levels.refuse(reason.to_owned()));
            }
            let timesteps: Vec<f64> = levels
                .whole_timesteps(self.trained.timesteps())?
                .into_iter()
                .map(|timestep| timestep as f64)
                .collect();
            let sigmas = timesteps.iter().map(|&timestep| table.at(timestep)).collect();
            (timesteps, sigmas)
        } else if let Some(both) = self.spread(steps, &table) {
            both
        } else if let Some(shift) = &self.flow {
            let trained = self.trained.timesteps() as f64;
            let even = linspace(1.0, 1.0 / trained, steps + 1).into_iter().skip(1).rev();
            let even: Vec<f64> = even.map(|signal| 1.0 - signal).collect();
            let sigmas = shift.by_factor(&even, run)?;
            (sigmas.iter().map(|sigma| (sigma * trained).trunc()).collect(), sigmas)
        } else {
            self.at_trained(steps, &table)?
        };
        sigmas.push(match self.end {
            FinalSigma::Zero => 0.0,
            FinalSigma::Least => table.least(),
        });
        Ok(RunLevels {
            timesteps,
            sigmas: super::sigmas::rounded(&sigmas),
        })
    }

    /// Trained timesteps with their sigmas.
    pub(super) fn at_trained(&self, steps: usize, table: &SigmaTable) -> Result<(Vec<f64>, Vec<f64>), SamplerError> {
        let timesteps = self.trained_timesteps(steps)?.into_iter();
        let timesteps: Vec<f64> = timesteps.map(|timestep| timestep as f64).collect();
        let sigmas = timesteps.iter().map(|&timestep| table.at(timestep)).collect();
        Ok((timesteps, sigmas))
    }
}

/// Refuses numbers that are not finite, which a step would go by.
pub(super) fn check_numbers(step: usize, timestep: f64, numbers: &[f32]) -> Result<(), SamplerError> {
    if numbers.iter().all(|number| number.is_finite()) {
        return Ok(());
    }
    Err(SamplerError::Coefficients {
        step,
        timestep,
        advice: "set `lower_order_final` to true, or `solver_order` to 1, or choose another number of steps",
    })
}
