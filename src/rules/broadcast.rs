//! How a rule broadcasts: the range, and the window in which it may.

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
    pub fn new(range: u32, window: Window) -> Result<Broadcast, BroadcastError> {
        match NonZeroU32::new(range) {
            Some(range) if range.get() >= 2 => Ok(Broadcast { range, window }),
            _ => Err(BroadcastError::Range(range)),
        }
    }

    /// Whether step `step` of a run of `steps` steps, which stands at `timestep`, may be broadcast, given that the
    /// cache is filled: `step % range != 0` and the step is inside the window.
    ///
    /// This is the rule of VideoSys (`videosys/core/pab/pab_mgr.py`, `if_broadcast_*`: `count % range != 0` and
    /// `threshold[0] < timestep < threshold[1]`) and of diffusers (`hooks/pyramid_attention_broadcast.py`,
    /// `skip_callback`), where `count` and `iteration` count the evaluations of the model from 0.
    pub fn allows(&self, step: usize, steps: usize, timestep: f64) -> bool {
        !(step as u64).is_multiple_of(u64::from(self.range.get())) && self.window.contains(step, steps, timestep)
    }
}

impl fmt::Display for Broadcast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "range {}, {}", self.range, self.window)
    }
}

/// The part of a run within which a rule may broadcast.
///
/// As JSON and YAML: `{"timesteps": [100.0, 800.0]}`, `{"fraction": [0.15, 0.85]}` or `"whole"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "WindowForm", into = "WindowForm")]
pub enum Window {
    /// The whole run. The first step computes all the same, since nothing is cached before it.
    #[default]
    Whole,
    /// Diffusion timesteps `t` with `low < t < high`, both ends excluded, in the scheduler's own unit (often 0 to 1000).
    Timesteps {
        /// The timestep above which broadcasting is allowed.
        low: f64,
        /// The timestep below which broadcasting is allowed.
        high: f64,
    },
    /// Steps `i` of a run of `n` steps with `start < i / n < end`, both ends excluded; steps count from 0.
    ///
    /// It depends on step indices alone, so that it holds for every scheduler and step count: `[0.15, 0.85]` is steps
    /// 8 to 42 of 50 (35 steps, 70 %), 5 to 25 of 30 (21 steps, 70 %), and 2 to 8 of 10 (7 steps, 70 %).
    Fraction {
        /// The fraction of the run after which broadcasting is allowed, 0 to 1.
        start: f64,
        /// The fraction of the run before which broadcasting is allowed, 0 to 1.
        end: f64,
    },
}

impl Window {
    /// A checked window of timesteps.
    ///
    /// # Errors
    /// If an end is not finite, or no number lies between the two.
    pub fn timesteps(low: f64, high: f64) -> Result<Window, WindowError> {
        finite([low, high])?;
        if low >= high {
            return Err(WindowError::Empty { low, high });
        }
        Ok(Window::Timesteps { low, high })
    }

    /// A checked window of fractions of the run.
    ///
    /// # Errors
    /// If an end is not finite or outside 0 to 1, or no number lies between the two.
    pub fn fraction(start: f64, end: f64) -> Result<Window, WindowError> {
        finite([start, end])?;
        if let Some(outside) = [start, end].into_iter().find(|end| !(0.0..=1.0).contains(end)) {
            return Err(WindowError::OutsideUnit(outside));
        }
        if start >= end {
            return Err(WindowError::Empty { low: start, high: end });
        }
        Ok(Window::Fraction { start, end })
    }

    /// Whether step `step` of `steps`, which stands at `timestep`, is inside. A timestep that is no number is inside no
    /// window of timesteps.
    pub fn contains(&self, step: usize, steps: usize, timestep: f64) -> bool {
        match *self {
            Window::Whole => true,
            Window::Timesteps { low, high } => low < timestep && timestep < high,
            Window::Fraction { start, end } => {
                // Division rounds correctly, so a step that stands exactly on an end written in decimals (3 of 20 on
                // 0.15) compares equal to it and is outside, as it should be.
                let fraction = step as f64 / steps as f64;
                start < fraction && fraction < end
            }
        }
    }

    /// Whether this is the whole run.
    pub fn is_whole(&self) -> bool {
        matches!(self, Window::Whole)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Window::Whole => write!(f, "whole run"),
            Window::Timesteps { low, high } => write!(f, "timesteps {low} to {high}"),
            Window::Fraction { start, end } => write!(f, "fraction {start} to {end} of the run"),
        }
    }
}

/// A window that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum WindowError {
    /// An end is infinite or no number.
    #[error("the ends of a window are finite numbers, not {0}")]
    NotFinite(f64),
    /// A fraction is below 0 or above 1.
    #[error("{0} is no fraction of a run: fractions are 0 to 1")]
    OutsideUnit(f64),
    /// The lower end is not below the upper.
    #[error("the window [{low}, {high}] is empty: its first number has to be below its second")]
    Empty {
        /// The first number.
        low: f64,
        /// The second number.
        high: f64,
    },
}

/// A broadcast that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum BroadcastError {
    /// The range is 0 or 1.
    #[error("range {0} broadcasts nothing: a range is 2 or more (compute once, reuse for range - 1 steps)")]
    Range(u32),
}

fn finite(ends: [f64; 2]) -> Result<(), WindowError> {
    match ends.into_iter().find(|end| !end.is_finite()) {
        Some(end) => Err(WindowError::NotFinite(end)),
        None => Ok(()),
    }
}

/// The written form of a [`Window`].
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WindowForm {
    Whole,
    Timesteps([f64; 2]),
    Fraction([f64; 2]),
}

impl From<Window> for WindowForm {
    fn from(window: Window) -> Self {
        match window {
            Window::Whole => WindowForm::Whole,
            Window::Timesteps { low, high } => WindowForm::Timesteps([low, high]),
            Window::Fraction { start, end } => WindowForm::Fraction([start, end]),
        }
    }
}

impl TryFrom<WindowForm> for Window {
    type Error = WindowError;

    fn try_from(form: WindowForm) -> Result<Self, WindowError> {
        match form {
            WindowForm::Whole => Ok(Window::Whole),
            WindowForm::Timesteps([low, high]) => Window::timesteps(low, high),
            WindowForm::Fraction([start, end]) => Window::fraction(start, end),
        }
    }
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
    use proptest::prelude::*;

    fn window() -> impl Strategy<Value = Window> {
        prop_oneof![
            Just(Window::Whole),
            (-100i32..1000, 1i32..1000).prop_map(|(low, width)| Window::Timesteps {
                low: f64::from(low) / 8.0,
                high: f64::from(low + width) / 8.0
            }),
            (0u32..100, 1u32..100).prop_map(|(start, width)| Window::Fraction {
                start: f64::from(start) / 200.0,
                end: f64::from(start + width) / 200.0
            }),
        ]
    }

    #[test]
    fn the_middle_seventy_percent() {
        let middle = Window::fraction(0.15, 0.85).unwrap();
        for (steps, first, last) in [(50, 8, 42), (30, 5, 25), (10, 2, 8), (20, 4, 16), (100, 16, 84)] {
            let inside: Vec<usize> = (0..steps).filter(|&step| middle.contains(step, steps, 0.0)).collect();
            assert_eq!(inside, (first..=last).collect::<Vec<_>>(), "{steps} steps");
        }
    }

    #[test]
    fn the_ends_are_outside() {
        let window = Window::timesteps(100.0, 800.0).unwrap();
        let inside = |t| window.contains(1, 10, t);
        assert_eq!(
            [99.0, 100.0, 100.5, 799.5, 800.0, f64::NAN].map(inside),
            [false, false, true, true, false, false]
        );
    }

    #[test]
    fn impossible_windows_are_refused() {
        assert!(matches!(
            Window::timesteps(800.0, 100.0),
            Err(WindowError::Empty { .. })
        ));
        assert!(matches!(Window::timesteps(5.0, 5.0), Err(WindowError::Empty { .. })));
        assert!(matches!(
            Window::timesteps(f64::NAN, 5.0),
            Err(WindowError::NotFinite(_))
        ));
        assert!(matches!(Window::fraction(0.5, 1.5), Err(WindowError::OutsideUnit(_))));
        assert!(matches!(Window::fraction(0.5, 0.5), Err(WindowError::Empty { .. })));
    }

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
            r#"{"range":2,"windows":"whole"}"#,
            r#"{"range":2,"window":{"fraction":[0,2]}}"#,
        ] {
            assert!(serde_json::from_str::<Broadcast>(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn json_round_trip(range in 2u32.., window in window()) {
            let broadcast = Broadcast::new(range, window).unwrap();
            let text = serde_json::to_string(&broadcast).unwrap();
            prop_assert_eq!(serde_json::from_str::<Broadcast>(&text).unwrap(), broadcast);
        }
    }
}
