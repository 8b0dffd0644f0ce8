//! When a rule broadcasts.

use super::after::{AfterError, AfterTable};
use super::broadcast::Broadcast;
use super::range::Range;
use super::steps::{StepSet, StepsError};
use super::window::Window;
use serde::{Deserialize, Serialize};
use std::fmt;

/// At which steps of a run a rule broadcasts, given that the caches of its sites are filled.
///
/// As JSON and YAML: `{"range": 2, "window": …}`, `{"range": {"timesteps": 50}, …}`, `{"windows": [{"range": 2, "window": …}, …]}`,
/// `{"steps": [9, 11, "13..20"]}` or `{"after": [864, 788], "skip": 2}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "TimingForm", into = "TimingForm")]
pub enum Timing {
    /// One or more windows that do not overlap, each with a range: the one that holds the step decides. Made with
    /// [`Timing::windows`].
    Windows(Vec<Broadcast>),
    /// Exactly these steps.
    Steps(StepSet),
    /// So many steps after each of some timesteps.
    After(AfterTable),
}

impl Timing {
    /// A checked timing of one or more windows.
    ///
    /// # Errors
    /// [`TimingError`] where there is none, or two overlap or are in different units.
    pub fn windows(windows: Vec<Broadcast>) -> Result<Timing, TimingError> {
        if windows.is_empty() {
            return Err(TimingError::NoWindow);
        }
        for (index, second) in windows.iter().enumerate() {
            for first in windows.iter().take(index) {
                apart(&first.window, &second.window)?;
            }
        }
        Ok(Timing::Windows(windows))
    }

    /// Whether step `step` of a run through `timesteps` may be broadcast. Outside the run nothing is.
    pub fn allows(&self, step: usize, timesteps: &[f64]) -> bool {
        match self {
            Timing::Steps(steps) => step < timesteps.len() && steps.contains(step),
            // What was computed before decides.
            Timing::Windows(_) | Timing::After(_) => self.over(timesteps).get(step).copied().unwrap_or(false),
        }
    }

    /// Whether timesteps decide, and not the number of the step alone.
    pub fn needs_timesteps(&self) -> bool {
        match self {
            Timing::Windows(windows) => windows.iter().any(Broadcast::needs_timesteps),
            Timing::Steps(_) => false,
            Timing::After(_) => true,
        }
    }

    /// For each step of a run through `timesteps` whether it may be broadcast.
    pub fn over(&self, timesteps: &[f64]) -> Vec<bool> {
        match self {
            Timing::Windows(windows) => {
                let mut computed = None;
                let allows = |(step, timestep): (usize, &f64)| {
                    let allowed = windows
                        .iter()
                        .any(|window| window.allows(step, timesteps.len(), *timestep, computed));
                    if !allowed {
                        computed = Some(*timestep);
                    }
                    allowed
                };
                timesteps.iter().enumerate().map(allows).collect()
            }
            Timing::Steps(steps) => (0..timesteps.len()).map(|step| steps.contains(step)).collect(),
            Timing::After(table) => table.over(timesteps),
        }
    }
}

impl From<Broadcast> for Timing {
    fn from(broadcast: Broadcast) -> Timing {
        Timing::Windows(vec![broadcast])
    }
}

/// # Errors
/// [`TimingError::Overlap`] and [`TimingError::Units`] where two windows cannot stand in one rule.
pub(super) fn apart(first: &Window, second: &Window) -> Result<(), TimingError> {
    let (first, second) = (*first, *second);
    match first.overlaps(&second) {
        Some(false) => Ok(()),
        Some(true) => Err(TimingError::Overlap { first, second }),
        None => Err(TimingError::Units { first, second }),
    }
}

impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Timing::Windows(windows) => {
                for (index, window) in windows.iter().enumerate() {
                    write!(f, "{}{window}", if index == 0 { "" } else { "; " })?;
                }
                Ok(())
            }
            Timing::Steps(steps) => steps.fmt(f),
            Timing::After(table) => table.fmt(f),
        }
    }
}

/// A timing that cannot be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TimingError {
    /// The list of windows is empty.
    #[error("there is no window")]
    NoWindow,
    /// Two windows hold the same step.
    #[error("the windows {first} and {second} overlap")]
    Overlap {
        /// The window that stands first.
        first: Window,
        /// The other.
        second: Window,
    },
    /// Two windows are in different units.
    #[error("whether the windows {first} and {second} overlap depends on the run")]
    Units {
        /// The window that stands first.
        first: Window,
        /// The other.
        second: Window,
    },
    /// The keys do not go together.
    #[error("write `range` with or without `window`, or `windows`, or `steps`, or `after` with `skip`")]
    Form,
    /// The list of steps.
    #[error(transparent)]
    Steps(#[from] StepsError),
    /// The table.
    #[error(transparent)]
    After(#[from] AfterError),
    /// A range.
    #[error(transparent)]
    Broadcast(#[from] super::BroadcastError),
}

/// The written form of a [`Timing`].
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TimingForm {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    range: Option<Range>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    window: Option<Window>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    windows: Option<Vec<Broadcast>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    steps: Option<StepSet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<Vec<u32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    skip: Option<u32>,
}

impl From<Timing> for TimingForm {
    fn from(timing: Timing) -> Self {
        let mut form = TimingForm::default();
        match timing {
            Timing::Windows(windows) => match windows.as_slice() {
                [one] => {
                    form.range = Some(one.range);
                    form.window = (!one.window.is_whole()).then_some(one.window);
                }
                _ => form.windows = Some(windows),
            },
            Timing::Steps(steps) => form.steps = Some(steps),
            Timing::After(table) => {
                form.skip = Some(table.skip());
                form.after = Some(table.timesteps().to_vec());
            }
        }
        form
    }
}

impl TryFrom<TimingForm> for Timing {
    type Error = TimingError;

    fn try_from(form: TimingForm) -> Result<Self, TimingError> {
        match form {
            TimingForm {
                range: Some(range),
                window,
                windows: None,
                steps: None,
                after: None,
                skip: None,
            } => Ok(Broadcast::of(range, window.unwrap_or_default())?.into()),
            TimingForm {
                range: None,
                window: None,
                windows: Some(windows),
                steps: None,
                after: None,
                skip: None,
            } => Timing::windows(windows),
            TimingForm {
                range: None,
                window: None,
                windows: None,
                steps: Some(steps),
                after: None,
                skip: None,
            } => Ok(Timing::Steps(steps)),
            TimingForm {
                range: None,
                window: None,
                windows: None,
                steps: None,
                after: Some(after),
                skip: Some(skip),
            } => Ok(Timing::After(AfterTable::new(after, skip)?)),
            _ => Err(TimingError::Form),
        }
    }
}
