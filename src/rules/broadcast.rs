//! A range within a window.

use super::window::Window;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::num::NonZeroU32;

/// Compute once every [`range`](Self::range) steps inside the window, and reuse that result in between.
///
/// As JSON and YAML: `{"range": 2, "window": {"timesteps": [100.0, 800.0]}}`; the window is left out where it is the
/// whole run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "BroadcastForm", into = "BroadcastForm")]
pub struct Broadcast {
    /// A site computes at the steps that this divides (counted from 0), and may broadcast at all others. At least 2.
    pub range: NonZeroU32,
    /// Where in the run broadcasting is allowed.
    pub window: Window,
}

impl Broadcast {
    /// A checked broadcast.
    ///
    /// # Errors
    /// [`BroadcastError::Range`] if `range` is below 2: range 1 computes at every step, so nothing would be broadcast.
    /// [`BroadcastError::Never`] if the only step of the window is one that the range computes.
    pub fn new(range: u32, window: Window) -> Result<Broadcast, BroadcastError> {
        let Some(range) = NonZeroU32::new(range).filter(|range| range.get() >= 2) else {
            return Err(BroadcastError::Range(range));
        };
        match window {
            Window::Steps { first, last } if first == last && computes(first, range) => {
                Err(BroadcastError::Never { range, step: first })
            }
            _ => Ok(Broadcast { range, window }),
        }
    }

    /// Whether step `step` of a run of `steps` steps, which stands at `timestep`, may be broadcast, given that the
    /// cache is filled: `step % range != 0` and the step is inside the window.
    ///
    /// This is the rule of VideoSys (`videosys/core/pab/pab_mgr.py`, `if_broadcast_*`: `count % range != 0` and
    /// `threshold[0] < timestep < threshold[1]`) and of diffusers (`hooks/pyramid_attention_broadcast.py`,
    /// `skip_callback`), where `count` and `iteration` count the evaluations of the model from 0.
    pub fn allows(&self, step: usize, steps: usize, timestep: f64) -> bool {
        !computes(step, self.range) && self.window.contains(step, steps, timestep)
    }
}

/// Whether the range computes this step, wherever it is.
fn computes(step: usize, range: NonZeroU32) -> bool {
    (step as u64).is_multiple_of(u64::from(range.get()))
}

impl fmt::Display for Broadcast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "range {}, {}", self.range, self.window)
    }
}

/// A broadcast that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum BroadcastError {
    /// The range is 0 or 1.
    #[error("range {0} broadcasts nothing: a range is 2 or more (compute once, reuse for range - 1 steps)")]
    Range(u32),
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
    range: u32,
    #[serde(default, skip_serializing_if = "Window::is_whole")]
    window: Window,
}

impl From<Broadcast> for BroadcastForm {
    fn from(broadcast: Broadcast) -> Self {
        BroadcastForm {
            range: broadcast.range.get(),
            window: broadcast.window,
        }
    }
}

impl TryFrom<BroadcastForm> for Broadcast {
    type Error = BroadcastError;

    fn try_from(form: BroadcastForm) -> Result<Self, BroadcastError> {
        Broadcast::new(form.range, form.window)
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
