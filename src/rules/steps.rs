//! Steps that are named one by one.

use super::indices::{IndexRange, IndexSet};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A list of steps at which a rule broadcasts; it computes at all others. Steps count from 0, and step 0 always
/// computes.
///
/// As JSON and YAML: `[9, 11, "13..20"]`, where a range is without its end, or with it if written `13..=19`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<StepForm>", into = "Vec<StepForm>")]
pub struct StepSet(IndexSet);

impl StepSet {
    /// A checked list of steps.
    ///
    /// # Errors
    /// [`StepsError`] where there is none, one stands there twice, or step 0 does.
    pub fn new(ranges: &[IndexRange]) -> Result<StepSet, StepsError> {
        let mut seen = IndexSet::default();
        for range in ranges {
            seen = add(&seen, *range)?;
        }
        match seen.is_empty() {
            true => Err(StepsError::Nothing),
            false => Ok(StepSet(seen)),
        }
    }

    /// Whether a step is in the list.
    pub fn contains(&self, step: usize) -> bool {
        self.0.contains(step)
    }
}

/// The steps of `seen` and those of `range`.
///
/// # Errors
/// [`StepsError::First`] and [`StepsError::Twice`] where they cannot be in one list.
pub(super) fn add(seen: &IndexSet, range: IndexRange) -> Result<IndexSet, StepsError> {
    let added = IndexSet::union([range]);
    if added.contains(0) {
        return Err(StepsError::First);
    }
    if seen.meets(&added) {
        return Err(StepsError::Twice(range.to_string()));
    }
    Ok(IndexSet::union(seen.ranges().iter().copied().chain([range])))
}

impl fmt::Display for StepSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "steps {}", self.0)
    }
}

/// A list of steps that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepsError {
    /// The list is empty.
    #[error("no step is listed")]
    Nothing,
    /// Step 0 is in the list.
    #[error("step 0 always computes, since nothing is cached before it")]
    First,
    /// A step stands there twice.
    #[error("of `{0}` a step is listed twice")]
    Twice(String),
    /// What names no steps.
    #[error("{0}")]
    Form(String),
}

/// An entry of the written form.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum StepForm {
    Step(usize),
    Range(String),
}

impl From<StepSet> for Vec<StepForm> {
    fn from(steps: StepSet) -> Self {
        let entry = |range: &IndexRange| match range.end {
            Some(end) if range.start.checked_add(1) == Some(end) => StepForm::Step(range.start),
            _ => StepForm::Range(range.to_string()),
        };
        steps.0.ranges().iter().map(entry).collect()
    }
}

impl TryFrom<Vec<StepForm>> for StepSet {
    type Error = StepsError;

    fn try_from(entries: Vec<StepForm>) -> Result<Self, StepsError> {
        let read = |entry: StepForm| {
            let text = match entry {
                StepForm::Step(step) => step.to_string(),
                StepForm::Range(text) => text,
            };
            text.parse::<IndexRange>()
                .map_err(|error| StepsError::Form(error.to_string()))
        };
        let ranges: Vec<IndexRange> = entries.into_iter().map(read).collect::<Result<_, _>>()?;
        StepSet::new(&ranges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(entries: &[&str]) -> Result<StepSet, StepsError> {
        StepSet::new(&entries.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn lists_of_steps() {
        let list = steps(&["13..20", "9", "11"]).unwrap();
        let listed: Vec<usize> = (0..30).filter(|step| list.contains(*step)).collect();
        assert_eq!(listed, [9, 11, 13, 14, 15, 16, 17, 18, 19]);
        assert_eq!(serde_json::to_string(&list).unwrap(), r#"[9,11,"13..20"]"#);
        assert_eq!(list.to_string(), "steps 9, 11, 13..20");
    }

    #[test]
    fn impossible_lists() {
        assert_eq!(steps(&[]), Err(StepsError::Nothing));
        assert_eq!(steps(&["..4"]), Err(StepsError::First));
        assert!(matches!(steps(&["3..7", "5"]), Err(StepsError::Twice(_))));
        for json in ["[]", "[0]", "[1, 1]", "[-1]", "[\"a\"]", "[1.5]"] {
            assert!(serde_json::from_str::<StepSet>(json).is_err(), "{json}");
        }
    }
}
