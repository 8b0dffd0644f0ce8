//! How far a rule goes on what was computed last.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::num::NonZeroU32;

/// How far a rule goes on what was computed last.
///
/// As JSON and YAML: `2`, or `{"timesteps": 50.0}`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RangeForm", into = "RangeForm")]
pub enum Range {
    /// A site computes at the steps that this divides (counted from 0), and may broadcast at all others. At least 2.
    Steps(NonZeroU32),
    /// A site may broadcast while the timestep is less than this away, up or down, from the one at which it was computed
    /// last. Above 0, in the scheduler's own unit (often 0 to 1000).
    ///
    /// It reaches equally far with any scheduler and number of steps: 50 broadcasts two steps out of three at 50 steps,
    /// which are 20 apart, and one out of two at 25. Where steps are a length `d` apart, `r * d` is the range of `r` steps,
    /// but counted from the step that computed last and not from the first of the run.
    Timesteps(f64),
}

impl Range {
    /// A checked range in steps.
    ///
    /// # Errors
    /// [`RangeError::Steps`] below 2: range 1 computes at every step, so nothing would be broadcast.
    pub fn steps(steps: u32) -> Result<Range, RangeError> {
        let range = NonZeroU32::new(steps).filter(|range| range.get() >= 2);
        range.map(Range::Steps).ok_or(RangeError::Steps(steps))
    }

    /// A checked range in timesteps.
    ///
    /// # Errors
    /// [`RangeError::Timesteps`] unless it is a finite number above 0.
    pub fn timesteps(timesteps: f64) -> Result<Range, RangeError> {
        match timesteps.is_finite() && timesteps > 0.0 {
            true => Ok(Range::Timesteps(timesteps)),
            false => Err(RangeError::Timesteps(timesteps)),
        }
    }

    /// Whether step `step`, which stands at `timestep`, may broadcast what was computed last at timestep `computed`; with
    /// `None` nothing was. A timestep that is no number is in reach of nothing.
    pub fn reaches(self, step: usize, timestep: f64, computed: Option<f64>) -> bool {
        match self {
            Range::Steps(range) => !(step as u64).is_multiple_of(u64::from(range.get())),
            Range::Timesteps(range) => computed.is_some_and(|computed| (timestep - computed).abs() < range),
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Range::Steps(range) => write!(f, "range {range}"),
            Range::Timesteps(range) => write!(f, "range of {range} timesteps"),
        }
    }
}

/// A range that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum RangeError {
    /// The number of steps is 0 or 1.
    #[error("range {0} broadcasts nothing: a range is 2 or more (compute once, reuse for range - 1 steps)")]
    Steps(u32),
    /// The length in timesteps is not above 0, or not finite.
    #[error(
        "{0} timesteps are no range: a cache is reused while the timestep is less than a finite number above 0 away"
    )]
    Timesteps(f64),
}

/// The written form of a [`Range`].
#[derive(Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum RangeForm {
    Steps(u32),
    Timesteps { timesteps: f64 },
}

impl From<Range> for RangeForm {
    fn from(range: Range) -> Self {
        match range {
            Range::Steps(range) => RangeForm::Steps(range.get()),
            Range::Timesteps(timesteps) => RangeForm::Timesteps { timesteps },
        }
    }
}

impl TryFrom<RangeForm> for Range {
    type Error = RangeError;

    fn try_from(form: RangeForm) -> Result<Self, RangeError> {
        match form {
            RangeForm::Steps(steps) => Range::steps(steps),
            RangeForm::Timesteps { timesteps } => Range::timesteps(timesteps),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_the_form_of_the_rules_and_is_checked() {
        for (text, range) in [
            ("6", Range::steps(6).unwrap()),
            (r#"{"timesteps":60.5}"#, Range::timesteps(60.5).unwrap()),
        ] {
            assert_eq!(serde_json::from_str::<Range>(text).unwrap(), range);
            assert_eq!(serde_json::to_string(&range).unwrap(), text);
        }
        for text in [
            "1",
            "-2",
            "2.5",
            "\"2\"",
            "{}",
            r#"{"timesteps":0}"#,
            r#"{"timesteps":-60}"#,
            r#"{"timesteps":60,"steps":2}"#,
        ] {
            assert!(serde_json::from_str::<Range>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn timesteps_reach_both_ways_and_not_their_end() {
        let range = Range::timesteps(50.0).unwrap();
        let reaches = |timestep| range.reaches(1, timestep, Some(500.0));
        assert_eq!(
            [451.0, 450.0, 549.0, 550.0, f64::NAN].map(reaches),
            [true, false, true, false, false]
        );
        assert!(!range.reaches(1, 500.0, None) && !range.reaches(1, 500.0, Some(f64::NAN)));
        assert!(Range::timesteps(f64::NAN).is_err() && Range::timesteps(f64::INFINITY).is_err());
    }
}
