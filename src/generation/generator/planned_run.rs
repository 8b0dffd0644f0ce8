//! Whether a run is one that the model was patched for, and can count in its timesteps.

use super::Generator;
use crate::generation::GenerationError;
use crate::rewrite::{Drive, SchedulePlan};
use crate::runtime::ElementType;

impl Generator {
    /// Refuses a run that is not the one that the model's schedule was made for, where the model is driven by its step.
    pub(super) fn check_run(&self, timesteps: &[f64]) -> Result<(), GenerationError> {
        match self.plan.as_ref().filter(|plan| plan.drive == Drive::Step) {
            Some(plan) => check_steps(plan.schedule.as_ref(), timesteps),
            None => Ok(()),
        }
    }

    /// Refuses timesteps that the model's input would cut off.
    pub(super) fn check_timesteps(&self, timesteps: &[f64]) -> Result<(), GenerationError> {
        let port = &self.roles.timestep;
        if !matches!(port.element_type, Some(ElementType::Int32 | ElementType::Int64)) {
            return Ok(());
        }
        let cut = timesteps
            .iter()
            .enumerate()
            .find(|(_, timestep)| (*timestep / self.timestep_unit).fract() != 0.0);
        match cut {
            None => Ok(()),
            Some((step, timestep)) => Err(GenerationError::WholeTimesteps {
                input: port.name.clone(),
                description: port.description.clone(),
                step,
                timestep: *timestep,
            }),
        }
    }
}

/// Refuses a run through `timesteps` where `schedule` is for another one.
///
/// # Errors
/// [`GenerationError::OtherRun`].
pub fn check_steps(schedule: Option<&SchedulePlan>, timesteps: &[f64]) -> Result<(), GenerationError> {
    match schedule {
        Some(schedule) if schedule.is_for(timesteps) => Ok(()),
        schedule => Err(GenerationError::OtherRun {
            planned: described(
                schedule.map_or(0, SchedulePlan::steps),
                schedule.map_or(&[], |schedule| &schedule.timesteps),
            ),
            run: described(timesteps.len(), timesteps),
        }),
    }
}

/// A run in words.
fn described(steps: usize, timesteps: &[f64]) -> String {
    match timesteps {
        [first, .., last] => format!("{steps} steps (timesteps {first} to {last})"),
        [only] => format!("{steps} step (timestep {only})"),
        [] => format!("{steps} steps"),
    }
}
