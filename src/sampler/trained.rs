//! The noise levels that a model was trained on: what `num_train_timesteps` and the beta options come to.

use super::betas::{cumulated_alphas, rescale_to_zero_terminal_snr};
use super::fields::Fields;
use super::{BetaSchedule, SamplerError};

/// The cumulated alpha that solvers in sigmas have in the place of 0 under `rescale_betas_zero_snr`: sigma would be
/// infinite.
const NEARLY_NO_SIGNAL: f32 = 1.0 / (1 << 24) as f32;

/// What a class does with `rescale_betas_zero_snr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ZeroSnr {
    /// It has no such key.
    Unknown,
    /// The last timestep has no signal.
    Exact,
    /// The last timestep has next to no signal, so that its sigma is a number.
    Nearly,
}

/// The beta options that differ between classes.
#[derive(Clone, Copy, Debug)]
pub(super) struct BetaOptions {
    /// Default of `beta_start`.
    pub(super) start: f64,
    /// Default of `beta_end`.
    pub(super) end: f64,
    /// Default of `beta_schedule`.
    pub(super) schedule: BetaSchedule,
    /// The names that `beta_schedule` may have.
    pub(super) names: &'static [(&'static str, BetaSchedule)],
    /// Whether there is `rescale_betas_zero_snr`.
    pub(super) zero_snr: ZeroSnr,
}

impl BetaOptions {
    /// Those of most classes.
    pub(super) const COMMON: BetaOptions = BetaOptions {
        start: 0.0001,
        end: 0.02,
        schedule: BetaSchedule::Linear,
        names: BetaSchedule::NAMES,
        zero_snr: ZeroSnr::Exact,
    };
}

/// The noise levels that a model was trained on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Trained {
    /// The cumulated products of `1 - beta`, one a training timestep.
    pub(super) cumulated_alphas: Vec<f32>,
}

impl Trained {
    /// More training timesteps than any model has; keeps a hostile file from asking for all memory.
    pub(super) const MOST_TIMESTEPS: i64 = 1_000_000;

    /// `num_train_timesteps` alone.
    pub(super) fn read_timesteps(fields: &Fields<'_>) -> Result<usize, SamplerError> {
        let timesteps = fields.integer("num_train_timesteps", 1000, 1, Self::MOST_TIMESTEPS)?;
        Ok(timesteps as usize)
    }

    /// `num_train_timesteps` and the beta options.
    pub(super) fn read(fields: &Fields<'_>, options: BetaOptions) -> Result<Trained, SamplerError> {
        let betas = Trained::read_betas(fields, options)?;
        let rescale = options.zero_snr != ZeroSnr::Unknown && fields.boolean("rescale_betas_zero_snr", false)?;
        let mut cumulated = if rescale {
            cumulated_alphas(&rescale_to_zero_terminal_snr(&betas))
        } else {
            cumulated_alphas(&betas)
        };
        if let (true, ZeroSnr::Nearly, Some(last)) = (rescale, options.zero_snr, cumulated.last_mut()) {
            *last = NEARLY_NO_SIGNAL;
        }
        Ok(Trained {
            cumulated_alphas: cumulated,
        })
    }

    /// The betas themselves.
    fn read_betas(fields: &Fields<'_>, options: BetaOptions) -> Result<Vec<f32>, SamplerError> {
        let trained = Trained::read_timesteps(fields)?;
        let start = fields.number("beta_start", options.start, 0.0, 1.0)?;
        let end = fields.number("beta_end", options.end, 0.0, 1.0)?;
        let schedule = fields.choice("beta_schedule", options.schedule, options.names)?;
        match fields.numbers("trained_betas", 0.0, 1.0)? {
            None => Ok(schedule.betas(start, end, trained)),
            Some(betas) if betas.len() == trained => Ok(betas.into_iter().map(|beta| beta as f32).collect()),
            Some(_) => {
                let needed = format!("null, or as many numbers as `num_train_timesteps`, {trained}");
                Err(fields.refuse("trained_betas", needed))
            }
        }
    }

    /// `steps_offset`.
    pub(super) fn read_offset(fields: &Fields<'_>) -> Result<i64, SamplerError> {
        fields.integer("steps_offset", 0, -Self::MOST_TIMESTEPS, Self::MOST_TIMESTEPS)
    }

    /// The number of training timesteps.
    pub(super) fn timesteps(&self) -> usize {
        self.cumulated_alphas.len()
    }

    /// The cumulated alpha at a timestep, if it is one.
    pub(super) fn alpha(&self, timestep: i64) -> Option<f32> {
        let index = usize::try_from(timestep).ok()?;
        self.cumulated_alphas.get(index).copied()
    }

    /// Refuses a number of steps that is not in `1..=most`.
    pub(super) fn check_steps(steps: usize, most: usize) -> Result<(), SamplerError> {
        if steps == 0 || steps > most {
            return Err(SamplerError::Steps { steps, trained: most });
        }
        Ok(())
    }
}
