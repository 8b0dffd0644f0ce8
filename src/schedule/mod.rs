//! Rules and timesteps make, for each step and rule: compute or broadcast.

#[cfg(test)]
mod tests;

use crate::rules::Timing;

/// For each step of a run and each rule, whether the rule's sites compute or broadcast.
///
/// The sites of a rule broadcast at a step that its [`Timing`] allows, if their cache is filled, that is, if they were
/// computed at an earlier step of this run. The first step of a run therefore always computes. VideoSys and diffusers
/// decide the same way (see [`crate::rules::Broadcast::allows`] and [`crate::rules::AfterTable`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    rules: usize,
    steps: usize,
    /// Step by step, one flag for each rule: true to broadcast.
    flags: Vec<bool>,
}

/// The steps of a run that broadcast the same rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DistinctSet {
    /// One flag for each rule: true to broadcast.
    pub flags: Vec<bool>,
    /// The number of steps with these flags.
    pub steps: usize,
    /// The first of them.
    pub first: usize,
}

impl Schedule {
    /// The schedule of a run that evaluates the model once at each of `timesteps`, in the order of the run.
    ///
    /// Samplers that evaluate the model several times a step (PNDM's warm-up, Heun) give one timestep for each
    /// evaluation: that is what VideoSys and diffusers count.
    pub fn new(rules: &[Timing], timesteps: &[f64]) -> Schedule {
        let allowed: Vec<Vec<bool>> = rules.iter().map(|rule| rule.over(timesteps)).collect();
        let mut flags = Vec::with_capacity(rules.len() * timesteps.len());
        for step in 0..timesteps.len() {
            // Every step computes or leaves the cache as it is, so that after the first it is filled.
            let filled = step > 0;
            let broadcasts = |over: &Vec<bool>| filled && over.get(step).copied().unwrap_or(false);
            flags.extend(allowed.iter().map(broadcasts));
        }
        Schedule {
            rules: rules.len(),
            steps: timesteps.len(),
            flags,
        }
    }

    /// A schedule with these flags: one list a step, each with one flag for each of `rules` rules; flags that are not
    /// given compute.
    pub fn from_flags(rules: usize, steps: &[Vec<bool>]) -> Schedule {
        let padded = |step: &Vec<bool>| -> Vec<bool> {
            let given = step.iter().copied().chain(std::iter::repeat(false));
            given.take(rules).collect()
        };
        Schedule {
            rules,
            steps: steps.len(),
            flags: steps.iter().flat_map(padded).collect(),
        }
    }

    /// Lets a rule broadcast at no step.
    pub fn compute_always(&mut self, rule: usize) {
        for step in 0..self.steps {
            let flag = (rule < self.rules).then(|| step * self.rules + rule);
            if let Some(flag) = flag.and_then(|flag| self.flags.get_mut(flag)) {
                *flag = false;
            }
        }
    }

    /// The number of steps.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// The number of rules.
    pub fn rules(&self) -> usize {
        self.rules
    }

    /// Whether the sites of rule `rule` broadcast at step `step`. Outside the run, and for rules that are not there,
    /// nothing is broadcast.
    pub fn broadcasts(&self, step: usize, rule: usize) -> bool {
        self.flags(step).get(rule).copied().unwrap_or(false)
    }

    /// The flags of a step, one for each rule: true to broadcast. Empty outside the run.
    pub fn flags(&self, step: usize) -> &[bool] {
        if step >= self.steps {
            return &[];
        }
        self.flags
            .get(step * self.rules..(step + 1) * self.rules)
            .unwrap_or_default()
    }

    /// The share of the steps at which a rule's sites broadcast, 0 to 1.
    pub fn share(&self, rule: usize) -> f64 {
        if self.steps == 0 {
            return 0.0;
        }
        let broadcast = (0..self.steps).filter(|&step| self.broadcasts(step, rule)).count();
        broadcast as f64 / self.steps as f64
    }

    /// One character for each step: `1` where the rule's sites compute, `0` where they broadcast.
    pub fn pattern(&self, rule: usize) -> String {
        let character = |step| if self.broadcasts(step, rule) { '0' } else { '1' };
        (0..self.steps).map(character).collect()
    }

    /// The distinct sets of flags, in the order in which they first come, each with how often it comes.
    ///
    /// Each is one static graph of the variant form: ranges 2, 3 and 6 in one window make 4 of them.
    pub fn distinct_sets(&self) -> Vec<DistinctSet> {
        let mut sets: Vec<DistinctSet> = Vec::new();
        for step in 0..self.steps {
            let flags = self.flags(step);
            match sets.iter_mut().find(|set| set.flags == flags) {
                Some(set) => set.steps += 1,
                None => sets.push(DistinctSet {
                    flags: flags.to_vec(),
                    steps: 1,
                    first: step,
                }),
            }
        }
        sets
    }
}
