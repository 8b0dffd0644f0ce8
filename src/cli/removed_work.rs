//! The work that rules remove from a run, measured: times of static graphs without the modules that are broadcast.

use super::Failure;
use super::args::SessionOptions;
use super::patch::Written;
use super::terminal::Terminal;
use super::variants::{Times, Values, Variants};
use crate::report::{median, median_of_ratios};
use crate::schedule::Schedule;
use std::path::Path;

/// Rounds of an opening, in which each is timed once. The static graphs are opened several times, since what memory an open model
/// happens to get makes it some percent faster or slower.
const ROUNDS: usize = 6;
/// Static graphs that are open at once: each may hold the weights.
const OPEN_AT_ONCE: usize = 4;

/// What rules remove.
#[derive(Debug, Default)]
pub struct RemovedWork {
    /// By rule, the share of a step's time that goes when its modules are taken out, 0 to 1.
    pub shares: Vec<f64>,
    /// The median time of a step of the original, timed beside the static graphs.
    pub original_milliseconds: Option<f64>,
    /// By set of flags, the time of the static graph over the original's.
    left: Vec<(Vec<bool>, Option<f64>)>,
}

impl RemovedWork {
    /// Times the static graphs of each rule alone and of each set of rules that steps of `schedule` broadcast together, in this
    /// many rounds.
    pub fn measure(
        original: &Path,
        written: &Written,
        schedule: &Schedule,
        options: &SessionOptions,
        values: &Values,
        rounds: usize,
        terminal: &Terminal,
    ) -> Result<RemovedWork, Failure> {
        let rules = written.plan.rules.len();
        let alone = (0..rules).map(|rule| (0..rules).map(|other| other == rule).collect());
        let mut sets: Vec<Vec<bool>> = alone.collect();
        for set in schedule.distinct_sets() {
            // Where adaptive rules may broadcast, the model may also compute them.
            let rules = written.plan.rules.iter();
            let computed: Vec<bool> = rules
                .zip(&set.flags)
                .map(|(rule, flag)| *flag && rule.adaptive.is_none())
                .collect();
            for flags in [set.flags, computed] {
                if !sets.contains(&flags) {
                    sets.push(flags);
                }
            }
        }
        let mut left = Vec::with_capacity(sets.len());
        let mut original_times = Vec::new();
        for sets in sets.chunks(OPEN_AT_ONCE) {
            let mut times = Times::default();
            for (opening, begun) in (0..rounds).step_by(ROUNDS).enumerate() {
                let backwards = opening % 2 == 1;
                let mut variants = Variants::open(original, written, options, sets, values, backwards, terminal)?;
                times.extend(variants.time_removed(ROUNDS.min(rounds - begun), "timing the removed work", terminal)?);
            }
            // Ratios within a round, where the machine was in one state, and their median: robust against what else it does.
            let ratio = |removed: &Vec<f64>| median_of_ratios(removed, &times.original);
            left.extend(times.removed.iter().map(ratio));
            original_times.extend(times.original);
        }
        let shares = left.iter().take(rules);
        Ok(RemovedWork {
            shares: shares
                .map(|left| left.map_or(0.0, |left| (1.0 - left).max(0.0)))
                .collect(),
            original_milliseconds: median(&original_times),
            left: sets.into_iter().zip(left).collect(),
        })
    }

    /// The times in milliseconds of the original's steps, and of the static graphs which steps that broadcast `steps` come to: what
    /// they would take if patching cost nothing. `None` where one of them was not timed.
    fn times(&self, steps: &[Vec<bool>]) -> Option<[f64; 2]> {
        let ratios = steps.iter().map(|flags| {
            let timed = self.left.iter().find(|(timed, _)| timed == flags);
            timed.and_then(|(_, left)| *left)
        });
        let ratios: Option<f64> = ratios.sum();
        let original = self.original_milliseconds?;
        Some([original * steps.len() as f64, original * ratios?])
    }
}

/// The original's time over that of the static graphs which the steps of a run come to, the steps of all its models added: the
/// speed-up that would be there if patching cost nothing. Each model comes with what each of its steps broadcast. `None` where one
/// of them was not timed.
pub fn allowed<'a>(models: impl IntoIterator<Item = (&'a RemovedWork, &'a [Vec<bool>])>) -> Option<f64> {
    let times = models.into_iter().map(|(work, steps)| work.times(steps));
    let times: Option<Vec<[f64; 2]>> = times.collect();
    let [original, left] = times?
        .into_iter()
        .fold([0.0, 0.0], |sum, times| [sum[0] + times[0], sum[1] + times[1]]);
    (left > 0.0).then(|| original / left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(original: f64, left: f64) -> RemovedWork {
        RemovedWork {
            shares: vec![1.0 - left],
            original_milliseconds: Some(original),
            left: vec![(vec![false], Some(1.0)), (vec![true], Some(left))],
        }
    }

    #[test]
    fn the_work_of_all_models_is_added_by_the_time_that_each_takes() {
        let (slow, fast) = (work(30.0, 0.5), work(10.0, 0.25));
        let [whole, half] = [vec![false], vec![true]];
        let steps = [whole.clone(), half.clone()];
        assert_eq!(allowed([(&slow, &steps[..])]), Some(60.0 / 45.0));
        let of_fast = [whole, half.clone(), half];
        let both = allowed([(&slow, &steps[..]), (&fast, &of_fast[..])]);
        assert_eq!(both, Some(90.0 / (45.0 + 15.0)));
        // A set that was not timed.
        assert_eq!(allowed([(&slow, &[vec![true, true]][..])]), None);
        assert_eq!(allowed([(&RemovedWork::default(), &steps[..])]), None);
    }
}
