//! The part of a run within which a rule may broadcast.

use super::indices::MAX_INDEX;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The part of a run within which a rule may broadcast.
///
/// As JSON and YAML: `{"timesteps": [100.0, 800.0]}`, `{"fraction": [0.15, 0.85]}`, `{"steps": [8, 42]}` or `"whole"`.
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
    /// Steps `i` with `first <= i <= last`, both ends included; steps count from 0.
    Steps {
        /// The first step at which broadcasting is allowed.
        first: usize,
        /// The last step at which broadcasting is allowed.
        last: usize,
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

    /// A checked window of steps, from the first to the last, both inside.
    ///
    /// # Errors
    /// If an end is no whole number from 0 to [`MAX_INDEX`], or the last stands before the first.
    pub fn steps(first: f64, last: f64) -> Result<Window, WindowError> {
        finite([first, last])?;
        let no_step = |end: &f64| end.fract() != 0.0 || !(0.0..=MAX_INDEX as f64).contains(end);
        if let Some(outside) = [first, last].into_iter().find(no_step) {
            return Err(WindowError::NoStep(outside));
        }
        if first > last {
            return Err(WindowError::Empty { low: first, high: last });
        }
        Ok(Window::Steps {
            first: first as usize,
            last: last as usize,
        })
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
            Window::Steps { first, last } => (first..=last).contains(&step),
        }
    }

    /// Whether this is the whole run.
    pub fn is_whole(&self) -> bool {
        matches!(self, Window::Whole)
    }

    /// Whether some step may be inside both; `None` where the two are in different units, so that it depends on the run.
    pub fn overlaps(&self, other: &Window) -> Option<bool> {
        let apart = match (*self, *other) {
            (Window::Whole, _) | (_, Window::Whole) => return Some(true),
            // The ends are outside, so that windows that touch are apart.
            (Window::Timesteps { low, high }, Window::Timesteps { low: start, high: end })
            | (Window::Fraction { start: low, end: high }, Window::Fraction { start, end }) => {
                high <= start || end <= low
            }
            (
                Window::Steps { first, last },
                Window::Steps {
                    first: start,
                    last: end,
                },
            ) => last < start || end < first,
            _ => return None,
        };
        Some(!apart)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Window::Whole => write!(f, "whole run"),
            Window::Timesteps { low, high } => write!(f, "timesteps {low} to {high}"),
            Window::Fraction { start, end } => write!(f, "fraction {start} to {end} of the run"),
            Window::Steps { first, last } => write!(f, "steps {first} to {last}"),
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
    /// A step is no whole number, negative or too large.
    #[error("{0} is no step: steps are whole numbers, counted from 0")]
    NoStep(f64),
    /// The lower end is not below the upper.
    #[error("the window [{low}, {high}] is empty: its first number has to be below its second")]
    Empty {
        /// The first number.
        low: f64,
        /// The second number.
        high: f64,
    },
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
    Steps([usize; 2]),
}

impl From<Window> for WindowForm {
    fn from(window: Window) -> Self {
        match window {
            Window::Whole => WindowForm::Whole,
            Window::Timesteps { low, high } => WindowForm::Timesteps([low, high]),
            Window::Fraction { start, end } => WindowForm::Fraction([start, end]),
            Window::Steps { first, last } => WindowForm::Steps([first, last]),
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
            WindowForm::Steps([first, last]) => Window::steps(first as f64, last as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_seventy_percent() {
        let middle = Window::fraction(0.15, 0.85).unwrap();
        for (steps, first, last) in [(50, 8, 42), (30, 5, 25), (10, 2, 8), (20, 4, 16), (100, 16, 84)] {
            let inside: Vec<usize> = (0..steps).filter(|&step| middle.contains(step, steps, 0.0)).collect();
            assert_eq!(inside, (first..=last).collect::<Vec<_>>(), "{steps} steps");
        }
    }

    #[test]
    fn ends_are_outside_but_those_of_steps() {
        let window = Window::timesteps(100.0, 800.0).unwrap();
        let inside = |t| window.contains(1, 10, t);
        assert_eq!(
            [99.0, 100.0, 100.5, 799.5, 800.0, f64::NAN].map(inside),
            [false, false, true, true, false, false]
        );
        let window = Window::steps(2.0, 4.0).unwrap();
        assert_eq!(
            [1, 2, 4, 5].map(|step| window.contains(step, 10, f64::NAN)),
            [false, true, true, false]
        );
    }

    #[test]
    fn impossible_windows_are_refused() {
        let empty = |window| matches!(window, Err(WindowError::Empty { .. }));
        assert!(empty(Window::timesteps(800.0, 100.0)) && empty(Window::timesteps(5.0, 5.0)));
        assert!(empty(Window::fraction(0.5, 0.5)) && empty(Window::steps(5.0, 4.0)));
        assert!(matches!(
            Window::timesteps(f64::NAN, 5.0),
            Err(WindowError::NotFinite(_))
        ));
        assert!(matches!(Window::fraction(0.5, 1.5), Err(WindowError::OutsideUnit(_))));
        for (first, last) in [(0.5, 3.0), (-1.0, 3.0), (0.0, 1e12)] {
            assert!(matches!(Window::steps(first, last), Err(WindowError::NoStep(_))));
        }
    }

    #[test]
    fn windows_that_touch_are_apart() {
        let timesteps = |low, high| Window::timesteps(low, high).unwrap();
        let steps = |first, last| Window::steps(first, last).unwrap();
        assert_eq!(timesteps(1.0, 5.0).overlaps(&timesteps(5.0, 9.0)), Some(false));
        assert_eq!(timesteps(1.0, 6.0).overlaps(&timesteps(5.0, 9.0)), Some(true));
        assert_eq!(steps(1.0, 5.0).overlaps(&steps(5.0, 9.0)), Some(true));
        assert_eq!(steps(6.0, 9.0).overlaps(&steps(1.0, 5.0)), Some(false));
        assert_eq!(steps(6.0, 9.0).overlaps(&timesteps(1.0, 5.0)), None);
        assert_eq!(steps(6.0, 9.0).overlaps(&Window::Whole), Some(true));
    }
}
