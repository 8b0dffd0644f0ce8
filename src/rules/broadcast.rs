//! A range within a window.

use super::range::{Range, RangeError};
use super::window::Window;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::num::NonZeroU32;

/// Compute where the [`range`](Self::range) ends and outside the window, and reuse the result in between.
///
/// As JSON and YAML: `{"range": 2, "window": {"timesteps": [100.0, 800.0]}}` or `{"range": {"timesteps": 50.0}}`; the window
/// is left out where it is the whole run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "BroadcastForm", into = "BroadcastForm")]
pub struct Broadcast {
    /// How far a site goes on what it computed last.
    pub range: Range,
    /// Where in the run broadcasting is allowed.
    pub window: Window,
}

impl Broadcast {
    /// A checked broadcast by a range in steps.
    ///
    /// # Errors
    /// [`BroadcastError::Range`] if `range` is below 2: range 1 computes at every step, so nothing would be broadcast.
    /// [`BroadcastError::Never`] if the only step of the window is one that the range computes.
    pub fn new(range: u32, window: Window) -> Result<Broadcast, BroadcastError> {
        Broadcast::of(Range::steps(range)?, window)
    }

    /// A checked broadcast by any range.
    ///
    /// # Errors
    /// [`BroadcastError::Never`] if the only step of the window is one that the range computes.
    pub fn of(range: Range, window: Window) -> Result<Broadcast, BroadcastError> {
        match (range, window) {
            (Range::Steps(steps), Window::Steps { first, last })
                if first == last && !range.reaches(first, f64::NAN, None) =>
            {
                Err(BroadcastError::Never {
                    range: steps,
                    step: first,
                })
            }
            _ => Ok(Broadcast { range, window }),
        }
    }

    /// Whether step `step` of a run of `steps` steps, which stands at `timestep`, may be broadcast, given that the
    /// cache is filled: the range reaches it and it is inside the window. `computed` is the timestep at which the sites
    /// were computed last.
    ///
    /// For a range in steps, `step % range != 0`, this is the rule of VideoSys (`videosys/core/pab/pab_mgr.py`,
    /// `if_broadcast_*`: `count % range != 0` and `threshold[0] < timestep < threshold[1]`) and of diffusers
    /// (`hooks/pyramid_attention_broadcast.py`, `skip_callback`), where `count` and `iteration` count the evaluations of the
    /// model from 0.
    pub fn allows(&self, step: usize, steps: usize, timestep: f64, computed: Option<f64>) -> bool {
        self.range.reaches(step, timestep, computed) && self.window.contains(step, steps, timestep)
    }

    /// Whether timesteps decide, and not the number of the step alone.
    pub fn needs_timesteps(&self) -> bool {
        matches!(self.range, Range::Timesteps(_)) || matches!(self.window, Window::Timesteps { .. })
    }
}

impl fmt::Display for Broadcast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.range, self.window)
    }
}

/// A broadcast that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum BroadcastError {
    /// The range.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// No step of the window can be broadcast.
    #[error("range {range} computes step {step}, the only one of the window, and broadcasts nothing")]
    Never {
        /// The range.
        range: NonZeroU32,
        /// The only step of the window.
        step: usize,
    },
}

/// The written form of a [`Broadcast`].
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BroadcastForm {
    range: Range,
    #[serde(default, skip_serializing_if = "Window::is_whole")]
    window: Window,
}

impl From<Broadcast> for BroadcastForm {
    fn from(broadcast: Broadcast) -> Self {
        BroadcastForm {
            range: broadcast.range,
            window: broadcast.window,
        }
    }
}

impl TryFrom<BroadcastForm> for Broadcast {
    type Error = BroadcastError;

    fn try_from(form: BroadcastForm) -> Result<Self, BroadcastError> {
        Broadcast::of(form.range, form.window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_the_form_of_the_rules() {
        let broadcast = Broadcast::new(2, Window::timesteps(100.0, 800.0).unwrap()).unwrap();
        assert_eq!(
            serde_json::to_string(&broadcast).unwrap(),
            r#"{"range":2,"window":{"timesteps":[100.0,800.0]}}"#
        );
        let whole: Broadcast = serde_json::from_str(r#"{"range": 6}"#).unwrap();
        assert_eq!(whole, Broadcast::new(6, Window::Whole).unwrap());
        assert_eq!(serde_json::to_string(&whole).unwrap(), r#"{"range":6}"#);
    }

    #[test]
    fn json_is_checked_too() {
        for text in [
            r#"{"range":1}"#,
            r#"{"range":2,"window":{"timesteps":[5,1]}}"#,
            r#"{"range":2,"window":{"steps":[4,4]}}"#,
            r#"{"range":2,"windows":"whole"}"#,
            r#"{"range":2,"window":{"fraction":[0,2]}}"#,
        ] {
            assert!(serde_json::from_str::<Broadcast>(text).is_err(), "{text}");
        }
    }
}
