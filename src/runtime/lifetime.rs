//! How long a cache's memory is needed, where the whole schedule of a run is known.

use std::collections::BTreeMap;

use super::step::CachePort;
use crate::schedule::Schedule;

/// For each step of a run and each cache, whether its memory is kept behind the step.
///
/// A cache is needed from the last computed step before a broadcast to the last broadcast that reads it. Finite
/// differences reach further back: a step that computes the first one reads the value before it, and one that computes
/// the second reads the first before it. Where a step that reads a cache for the last time is followed by one that
/// computes it anew for other broadcasts, the memory stays, to be written again.
///
/// Where the model itself decides at the steps that the schedule allows, such a step may read the cache or compute it. What
/// the schedule has broadcast is kept as if it were, which is enough: a step that computes instead needs no more of it.
///
/// Beside guidance each half of the batch counts by itself: a step that broadcasts guidance reads or computes the second
/// alone, so that the first one is needed from the last step before that computed both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Step by step, one entry a cache.
    kept: Vec<Vec<bool>>,
}

impl Lifetimes {
    /// The lifetimes of `caches` in a run of this schedule.
    pub fn new(schedule: &Schedule, caches: &[CachePort]) -> Lifetimes {
        let rules = caches.iter().map(|cache| cache.rule + 1).max().unwrap_or(0);
        let order = |rule: usize| {
            let of_rule = caches.iter().filter(|cache| cache.rule == rule);
            of_rule.map(|cache| cache.difference).max().unwrap_or(0)
        };
        // By rule, step by step, whether the difference of each order is kept.
        let by_rule: Vec<Vec<Vec<bool>>> = (0..rules).map(|rule| kept(schedule, rule, order(rule))).collect();
        let mut by_half: BTreeMap<(usize, usize), Vec<bool>> = BTreeMap::new();
        for cache in caches {
            if let Some(guidance) = cache.halved_by {
                let kept = by_half.entry((cache.rule, guidance));
                kept.or_insert_with(|| kept_halves(schedule, cache.rule, guidance));
            }
        }
        let of_cache = |cache: &CachePort, step: usize| {
            let halves = cache
                .halved_by
                .and_then(|guidance| by_half.get(&(cache.rule, guidance)));
            if let Some(kept) = halves {
                return kept.get(step).copied().unwrap_or(false);
            }
            let kept = by_rule.get(cache.rule).and_then(|steps| steps.get(step));
            kept.and_then(|kept| kept.get(cache.difference))
                .copied()
                .unwrap_or(false)
        };
        let steps = 0..schedule.steps();
        Lifetimes {
            kept: steps
                .map(|step| caches.iter().map(|cache| of_cache(cache, step)).collect())
                .collect(),
        }
    }

    /// Whether cache number `cache` is kept behind step `step`. Behind the run, nothing is.
    pub fn keeps(&self, step: usize, cache: usize) -> bool {
        let kept = self.kept.get(step).and_then(|caches| caches.get(cache));
        kept.copied().unwrap_or(false)
    }
}

/// Step by step, whether the differences of a rule's caches are kept, by their order from 0 (the values themselves).
fn kept(schedule: &Schedule, rule: usize, order: usize) -> Vec<Vec<bool>> {
    let mut steps = Vec::with_capacity(schedule.steps());
    // Whether each is read behind the step at hand, and behind the following one.
    let mut read = vec![false; order + 1];
    let mut read_later = read.clone();
    for step in (0..schedule.steps()).rev() {
        let before: Vec<bool> = if schedule.broadcasts(step, rule) {
            vec![true; order + 1]
        } else {
            // A computed difference is made from those of lower order before it.
            (0..=order)
                .map(|place| read.iter().skip(place + 1).any(|higher| *higher))
                .collect()
        };
        let kept = before.iter().zip(&read).zip(&read_later);
        steps.push(kept.map(|((before, read), later)| *read || *before && *later).collect());
        read_later = std::mem::replace(&mut read, before);
    }
    steps.reverse();
    steps
}

/// Step by step, whether a rule's caches are kept, which hold both halves of a batch of which rule `guidance` leaves the
/// first out.
fn kept_halves(schedule: &Schedule, rule: usize, guidance: usize) -> Vec<bool> {
    let mut steps = Vec::with_capacity(schedule.steps());
    // Whether the first and the second half are read behind the step at hand, and either behind the following one.
    let mut read = [false; 2];
    let mut read_later = false;
    for step in (0..schedule.steps()).rev() {
        let (broadcasts, half) = (schedule.broadcasts(step, rule), schedule.broadcasts(step, guidance));
        // What is computed for the second half alone hands the first half on.
        let first = if half { read[0] } else { broadcasts };
        let before = [first, broadcasts];
        let (needed, needed_before) = (read.contains(&true), before.contains(&true));
        steps.push(needed || needed_before && read_later);
        read_later = needed;
        read = before;
    }
    steps.reverse();
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ElementType;
    use proptest::prelude::*;

    fn schedule(pattern: &str) -> Schedule {
        let flags: Vec<Vec<bool>> = pattern.chars().map(|character| vec![character == 'b']).collect();
        Schedule::from_flags(1, &flags)
    }

    fn caches(order: usize) -> Vec<CachePort> {
        let cache = |difference| CachePort {
            input: String::new(),
            output: String::new(),
            rule: 0,
            element_type: ElementType::Float32,
            shape: Vec::new(),
            difference,
            in_place: order == 0,
            halved_by: None,
            adaptive: false,
        };
        (0..=order).map(cache).collect()
    }

    /// A line for each cache: `#` where it is kept behind the step.
    fn shown(pattern: &str, order: usize) -> Vec<String> {
        let lifetimes = Lifetimes::new(&schedule(pattern), &caches(order));
        let line = |cache| {
            let steps = 0..pattern.len();
            steps
                .map(|step| if lifetimes.keeps(step, cache) { '#' } else { '.' })
                .collect()
        };
        (0..=order).map(line).collect()
    }

    #[test]
    fn a_value_is_kept_from_the_step_before_its_broadcasts_to_the_last_of_them() {
        assert_eq!(shown("ccccc", 0), ["....."]);
        assert_eq!(shown("cccbbccc", 0), ["..##...."]);
        // In the middle of a window the memory stays, to be written again.
        assert_eq!(shown("ccbcbbccbc", 0), [".####..#.."]);
        assert_eq!(shown("cb", 0), ["#."]);
    }

    #[test]
    fn differences_reach_further_back() {
        assert_eq!(shown("ccccbbcc", 1), ["..###...", "...##..."]);
        assert_eq!(shown("ccccbbcc", 2), [".####...", "..###...", "...##..."]);
        assert_eq!(shown("cccbcbccc", 1), [".####....", "..###...."]);
    }

    /// A line for a cache of the first rule where the second one is guidance, `#` where it is kept behind the step. Each
    /// step is `c` or `b` for its own rule, upper case where guidance is broadcast.
    fn halves(pattern: &str) -> String {
        let flags = flags_of(pattern);
        let lifetimes = Lifetimes::new(&Schedule::from_flags(2, &flags), &[halved()]);
        let steps = 0..flags.len();
        steps
            .map(|step| if lifetimes.keeps(step, 0) { '#' } else { '.' })
            .collect()
    }

    fn flags_of(pattern: &str) -> Vec<Vec<bool>> {
        let flags = pattern
            .chars()
            .map(|step| vec![step.eq_ignore_ascii_case(&'b'), step.is_ascii_uppercase()]);
        flags.collect()
    }

    fn halved() -> CachePort {
        CachePort {
            in_place: false,
            halved_by: Some(1),
            ..caches(0).remove(0)
        }
    }

    #[test]
    fn beside_guidance_the_first_half_is_kept_from_the_last_step_that_computed_it() {
        assert_eq!(halves("ccbbcc"), ".##...");
        assert_eq!(halves("cccCCbcc"), "..###...");
        // Only the second half is broadcast: the first is not needed.
        assert_eq!(halves("cccCBBcc"), "...##...");
        assert_eq!(halves("ccCBcCbcc"), "..####...");
        assert_eq!(halves("cCBCBbc"), "#####..");
        assert_eq!(halves("cCcC"), "....");
    }

    /// Random schedules, with both halves of a cache as the number of the step that computed each.
    fn check_halves(flags: &[Vec<bool>]) {
        let lifetimes = Lifetimes::new(&Schedule::from_flags(2, flags), &[halved()]);
        let mut all = [Some(0); 2];
        let mut some = [None; 2];
        for (step, flags) in flags.iter().enumerate() {
            match (flags[0], flags[1]) {
                (true, false) => assert_eq!(all, some, "step {step}"),
                (true, true) => assert_eq!(all[1], some[1], "step {step}"),
                (false, false) => (all, some) = ([Some(step); 2], [Some(step); 2]),
                (false, true) => (all[1], some[1]) = (Some(step), Some(step)),
            }
            if !lifetimes.keeps(step, 0) {
                some = [None; 2];
            }
        }
        assert_eq!(some, [None; 2], "nothing is kept behind the run");
    }

    /// What a run that keeps only what the lifetimes say reads is there, and equals what a run that keeps all reads.
    fn check(flags: &[bool], order: usize) {
        let schedule = Schedule::from_flags(1, &flags.iter().map(|flag| vec![*flag]).collect::<Vec<_>>());
        let lifetimes = Lifetimes::new(&schedule, &caches(order));
        // What a cache holds, as text; `None` where its memory was given up.
        let mut all: Vec<Option<String>> = vec![Some("zero".to_owned()); order + 1];
        let mut some = vec![None; order + 1];
        for (step, broadcast) in flags.iter().enumerate() {
            if *broadcast {
                assert_eq!(all, some, "step {step}");
            } else {
                let computed = |before: &[Option<String>]| -> Vec<Option<String>> {
                    let mut new = vec![Some(format!("f{step}"))];
                    for place in 0..before.len() - 1 {
                        let (lower, old) = (new[place].clone(), before[place].clone());
                        new.push(lower.zip(old).map(|(lower, old)| format!("({lower}-{old})")));
                    }
                    new
                };
                all = computed(&all);
                some = computed(&some);
            }
            for (place, held) in some.iter_mut().enumerate() {
                if !lifetimes.keeps(step, place) {
                    *held = None;
                }
            }
        }
        assert!(some.iter().all(Option::is_none), "nothing is kept behind the run");
    }

    proptest! {
        /// Whatever the model decides at the steps that are allowed, a broadcast reads what the last computed step gave, and
        /// the drift behind a step that was not allowed is told by the step before it.
        #[test]
        fn decided_steps_find_their_caches(steps in prop::collection::vec((any::<bool>(), any::<bool>()), 1..30)) {
            let mut steps = steps;
            steps.insert(0, (false, false));
            let allowed: Vec<Vec<bool>> = steps.iter().map(|(allowed, _)| vec![*allowed]).collect();
            let lifetimes = Lifetimes::new(&Schedule::from_flags(1, &allowed), &caches(0));
            let (mut computed, mut held, mut indicator) = (0, None, None);
            for (step, (allowed, below)) in steps.iter().enumerate() {
                if *allowed {
                    prop_assert_eq!(indicator, Some(step - 1), "step {}", step);
                }
                if *allowed && *below {
                    prop_assert_eq!(held, Some(computed), "step {}", step);
                } else {
                    (computed, held) = (step, Some(step));
                }
                indicator = Some(step);
                if !lifetimes.keeps(step, 0) {
                    (held, indicator) = (None, None);
                }
            }
        }

        #[test]
        fn halves_that_are_read_are_there(flags in prop::collection::vec(prop::collection::vec(any::<bool>(), 2), 1..30)) {
            let mut flags = flags;
            flags.insert(0, vec![false; 2]);
            check_halves(&flags);
        }

        #[test]
        fn what_is_read_is_there(flags in prop::collection::vec(any::<bool>(), 1..30), order in 0usize..3) {
            // A difference needs as many computed steps before the first broadcast, or else it begins with zeros.
            let mut flags = flags;
            flags.splice(0..0, vec![false; order + 1]);
            check(&flags, order);
        }
    }
}
