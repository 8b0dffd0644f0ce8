//! Tables of timesteps after which a rule broadcasts, as VideoSys has them for feed-forwards.

use std::collections::{HashMap, HashSet};
use std::fmt;

/// Timesteps at which a rule computes, and for how many steps it then broadcasts.
///
/// This is `if_skip_mlp` of VideoSys (`videosys/core/pab/pab_mgr.py`), for one value of `skip_count`. Timesteps are
/// compared as whole numbers, as VideoSys cuts them off before it compares.
/// - At a listed timestep the sites compute.
/// - A listed timestep that the run does not have is without effect, so a table is for one scheduler and step count.
/// - At a step whose timestep is among those of a listed timestep's step and the `skip` steps that follow it, and is not
///   listed itself, the sites broadcast. Where the run ends earlier they do so to its end.
/// - Where the stretches of two listed timesteps overlap, the later one computes inside the earlier's.
/// - A timestep that a run has twice counts by its value: both steps compute if it is listed, and a stretch begins at
///   the first of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AfterTable {
    /// The timesteps, in the order written.
    timesteps: Vec<u32>,
    /// How many steps broadcast after each.
    skip: u32,
}

/// The largest timestep and number of steps of a table; far above any scheduler's.
pub(super) const MAX_TIMESTEP: u32 = 1_000_000;

impl AfterTable {
    /// A checked table.
    ///
    /// # Errors
    /// [`AfterError`] where there is no timestep, one stands there twice, or nothing is skipped.
    pub fn new(timesteps: Vec<u32>, skip: u32) -> Result<AfterTable, AfterError> {
        let mut seen = HashSet::new();
        if timesteps.is_empty() {
            return Err(AfterError::Nothing);
        }
        if let Some(twice) = timesteps.iter().find(|timestep| !seen.insert(**timestep)) {
            return Err(AfterError::Twice(*twice));
        }
        if let Some(large) = timesteps.iter().chain([&skip]).find(|number| **number > MAX_TIMESTEP) {
            return Err(AfterError::TooLarge(*large));
        }
        match skip {
            0 => Err(AfterError::NoSkip),
            _ => Ok(AfterTable { timesteps, skip }),
        }
    }

    /// The timesteps, in the order written.
    pub fn timesteps(&self) -> &[u32] {
        &self.timesteps
    }

    /// How many steps broadcast after each.
    pub fn skip(&self) -> u32 {
        self.skip
    }

    /// For each step of a run whether it broadcasts.
    pub fn over(&self, timesteps: &[f64]) -> Vec<bool> {
        let whole: Vec<Option<u32>> = timesteps.iter().map(|timestep| cut_off(*timestep)).collect();
        let mut first: HashMap<u32, usize> = HashMap::new();
        for (step, timestep) in whole.iter().enumerate() {
            if let Some(timestep) = timestep {
                first.entry(*timestep).or_insert(step);
            }
        }
        let length = (self.skip as usize).saturating_add(1);
        let mut within: HashSet<u32> = HashSet::new();
        for listed in &self.timesteps {
            let Some(start) = first.get(listed) else { continue };
            within.extend(whole.iter().skip(*start).take(length).flatten());
        }
        for listed in &self.timesteps {
            within.remove(listed);
        }
        let broadcasts = |timestep: &Option<u32>| timestep.is_some_and(|timestep| within.contains(&timestep));
        whole.iter().map(broadcasts).collect()
    }
}

/// A timestep without what stands behind its point; `None` if it is negative or no number.
fn cut_off(timestep: f64) -> Option<u32> {
    let whole = timestep.trunc();
    (0.0..=f64::from(u32::MAX)).contains(&whole).then_some(whole as u32)
}

impl fmt::Display for AfterTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = if self.skip == 1 { "step" } else { "steps" };
        write!(f, "{} {steps} after ", self.skip)?;
        match self.timesteps.as_slice() {
            [timestep] => write!(f, "timestep {timestep}"),
            [first, .., last] if self.timesteps.len() > 5 => {
                write!(f, "each of {} timesteps, {first} to {last}", self.timesteps.len())
            }
            all => {
                let all: Vec<String> = all.iter().map(u32::to_string).collect();
                write!(f, "timesteps {}", all.join(", "))
            }
        }
    }
}

/// A table that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AfterError {
    /// There is no timestep.
    #[error("no timestep is listed")]
    Nothing,
    /// A timestep stands there twice.
    #[error("the timestep {0} is listed twice")]
    Twice(u32),
    /// A number is too large.
    #[error("{0} is out of reach: {MAX_TIMESTEP} is the largest number here")]
    TooLarge(u32),
    /// No step is skipped.
    #[error("`skip: 0` broadcasts nothing")]
    NoSkip,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(timesteps: &[u32], skip: u32, run: &[f64]) -> String {
        let table = AfterTable::new(timesteps.to_vec(), skip).unwrap();
        let over = table.over(run);
        over.iter()
            .map(|broadcast| if *broadcast { '0' } else { '1' })
            .collect()
    }

    #[test]
    fn stretches_after_listed_timesteps() {
        let run: Vec<f64> = (0..10).map(|step| f64::from(900 - 100 * step)).collect();
        assert_eq!(pattern(&[800, 400], 2, &run), "1100110011");
        // Not in the run; order does not matter; the end of the run cuts a stretch short.
        assert_eq!(pattern(&[850, 100, 800], 2, &run), "1100111110");
        // Stretches that overlap and that touch.
        assert_eq!(pattern(&[800, 700, 500], 2, &run), "1110100111");
        // Cut off, not rounded.
        assert_eq!(pattern(&[800], 1, &[900.5, 800.99, 700.1, 600.0]), "1101");
        assert_eq!(pattern(&[801], 1, &[900.5, 800.99, 700.1, 600.0]), "1111");
    }

    #[test]
    fn repeated_and_odd_timesteps_count_by_their_value() {
        assert_eq!(pattern(&[5], 1, &[9.0, 5.0, 5.0, 4.0]), "1111");
        assert_eq!(pattern(&[5], 2, &[9.0, 5.0, 4.0, 4.0, 4.0]), "11000");
        assert_eq!(pattern(&[0], 1, &[0.5, f64::NAN, -3.0, f64::INFINITY, 1e300]), "11111");
    }

    #[test]
    fn impossible_tables() {
        assert_eq!(AfterTable::new(vec![], 1), Err(AfterError::Nothing));
        assert_eq!(AfterTable::new(vec![1, 2, 1], 1), Err(AfterError::Twice(1)));
        assert_eq!(AfterTable::new(vec![1], 0), Err(AfterError::NoSkip));
        assert!(matches!(
            AfterTable::new(vec![u32::MAX], 1),
            Err(AfterError::TooLarge(_))
        ));
    }
}
