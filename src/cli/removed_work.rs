//! The work that rules remove from a run, measured: times of static graphs without the modules that are broadcast.

use super::Failure;
use super::args::SessionOptions;
use super::patch::Written;
use super::terminal::Terminal;
use super::variants::{Times, Values, Variants};
use crate::report::median_of_ratios;
use crate::schedule::Schedule;
use std::path::Path;

/// Rounds of an opening, in which each is timed once. The static graphs are opened several times, since what memory an open model
/// happens to get makes it some percent faster or slower.
const ROUNDS: usize = 6;
/// Static graphs that are open at once: each may hold the weights.
const OPEN_AT_ONCE: usize = 4;

/// What rules remove.
#[derive(Debug)]
pub struct RemovedWork {
    /// By rule, the share of a step's time that goes when its modules are taken out, 0 to 1.
    pub shares: Vec<f64>,
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
        }
        let shares = left.iter().take(rules);
        Ok(RemovedWork {
            shares: shares
                .map(|left| left.map_or(0.0, |left| (1.0 - left).max(0.0)))
                .collect(),
            left: sets.into_iter().zip(left).collect(),
        })
    }

    /// The original's time over that of the static graphs which steps that broadcast `steps` come to: the speed-up that
    /// would be there if patching cost nothing. `None` where one of them was not timed.
    pub fn allowed(&self, steps: &[Vec<bool>]) -> Option<f64> {
        let times = steps.iter().map(|flags| {
            let timed = self.left.iter().find(|(timed, _)| timed == flags);
            timed.and_then(|(_, left)| *left)
        });
        let time: Option<f64> = times.sum();
        time.filter(|time| *time > 0.0).map(|time| steps.len() as f64 / time)
    }
}
