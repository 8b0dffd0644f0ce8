//! A run as it is watched: the bar on the terminal, and the trace.

use crate::cli::terminal::Terminal;
use crate::collective::Communicator;
use crate::generation::StepDone;
use crate::report::{Trace, mean, number};
use crate::rewrite::Plan;
use indicatif::ProgressBar;
use serde_json::{Map, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A rule as it is shown.
#[derive(Clone, Debug)]
struct Rule {
    name: String,
    kinds: Vec<&'static str>,
}

/// Who watches a run.
pub struct Watch {
    bar: ProgressBar,
    rules: Vec<Rule>,
    trace: Option<Trace>,
    /// Of the clip at hand: milliseconds of each step, and whether it computed everything.
    steps: Vec<(f64, bool)>,
    /// Of these the first of each model: memory is allocated in it.
    firsts: Vec<usize>,
    /// How the clip at hand is called.
    clip: String,
    /// Of a rank: what it sends is counted there.
    communicator: Option<Arc<dyn Communicator>>,
    /// Of the clip at hand: bytes that this rank sent in each step.
    sent: Vec<u64>,
    /// The same once its steps were done, where ranks then put it together.
    gathered: Option<u64>,
}

impl Watch {
    /// Watches; keeps a trace where one is wanted.
    pub fn new(traced: bool) -> Watch {
        Watch {
            bar: ProgressBar::hidden(),
            rules: Vec::new(),
            trace: traced.then(Trace::begin),
            steps: Vec::new(),
            firsts: vec![0],
            clip: String::new(),
            communicator: None,
            sent: Vec::new(),
            gathered: None,
        }
    }

    /// Counts what this rank sends in each step.
    pub fn count(&mut self, communicator: Option<Arc<dyn Communicator>>) {
        self.communicator = communicator;
    }

    /// What this rank sent in each step of the clip at hand.
    pub fn sent(&self) -> &[u64] {
        &self.sent
    }

    /// What this rank sent for the clip at hand to be put together; none where it was whole all along.
    pub fn gathered(&self) -> Option<u64> {
        self.gathered
    }

    /// Counts what it took to put the clip at hand together, its steps being done.
    pub fn gather(&mut self) {
        let communicator = self.communicator.as_ref();
        self.gathered = communicator.map(|communicator| communicator.traffic().end_step().total());
    }

    /// Shows a bar for so many steps.
    pub fn begin(&mut self, steps: usize, terminal: &Terminal) {
        self.bar = terminal.denoising(steps);
    }

    /// The steps of a model with this plan begin; it is named where there are several.
    pub fn model(&mut self, plan: Option<&Plan>, component: Option<&str>) {
        let rules = plan.iter().flat_map(|plan| {
            plan.rules.iter().enumerate().map(|(index, rule)| {
                let kinds: BTreeSet<&'static str> = plan.sites_of(index).map(|site| site.kind.word()).collect();
                Rule {
                    name: rule.name.clone(),
                    kinds: kinds.into_iter().collect(),
                }
            })
        });
        self.rules = rules.collect();
        let is_again = self.firsts.contains(&self.steps.len());
        self.firsts.extend((!is_again).then_some(self.steps.len()));
        self.bar.set_prefix(match component {
            Some(component) => format!("{}, {component}", self.clip),
            None => self.clip.clone(),
        });
    }

    /// A clip begins.
    pub fn clip(&mut self, which: usize, of: usize) {
        self.steps.clear();
        self.firsts = vec![0];
        self.sent.clear();
        self.gathered = None;
        if let Some(communicator) = &self.communicator {
            // What was sent before the clip belongs to no step.
            communicator.traffic().end_step();
        }
        self.clip = match of {
            1 => "denoising".to_owned(),
            _ => format!("clip {} of {of}", which + 1),
        };
    }

    /// A step was done.
    pub fn step(&mut self, step: &StepDone<'_>) {
        if let Some(communicator) = &self.communicator {
            self.sent.push(communicator.traffic().end_step().total());
        }
        self.steps.push((step.milliseconds, !step.flags.contains(&true)));
        self.bar.inc(1);
        let broadcasting = || {
            self.rules
                .iter()
                .zip(step.flags)
                .filter(|(_, broadcast)| **broadcast)
                .map(|(rule, _)| rule)
        };
        let kinds: BTreeSet<&str> = broadcasting().flat_map(|rule| rule.kinds.iter().copied()).collect();
        let mut text = number::milliseconds(step.milliseconds);
        if let Some(speed_up) = self.speed_up().filter(|_| !self.rules.is_empty()) {
            text.push_str(&format!(", {speed_up:.2} ×"));
        }
        if !kinds.is_empty() {
            text.push_str(&format!(
                ", broadcasting {}",
                kinds.into_iter().collect::<Vec<_>>().join(", ")
            ));
        }
        self.bar.set_message(text);
        if let Some(trace) = &mut self.trace {
            let rules: Vec<&str> = self
                .rules
                .iter()
                .zip(step.flags)
                .filter(|(_, broadcast)| **broadcast)
                .map(|(rule, _)| rule.name.as_str())
                .collect();
            let lasted = Duration::from_secs_f64(step.milliseconds.max(0.0) / 1e3);
            let name = format!("step {}", step.index);
            let args = Map::from_iter([
                ("timestep".to_owned(), json!(step.timestep)),
                ("broadcast".to_owned(), json!(rules)),
            ]);
            for rule in &rules {
                trace.add(&format!("rule {rule}"), "broadcast", step.begun, lasted, Map::new());
            }
            trace.add(STEPS, name, step.begun, lasted, args);
        }
    }

    /// How much faster the clip's steps are so far than those that computed everything; of those the first of a model does not
    /// count, in which memory is allocated, where there are others.
    pub fn speed_up(&self) -> Option<f64> {
        let times = |wanted: &dyn Fn(usize, bool) -> bool| -> Vec<f64> {
            let steps = self.steps.iter().enumerate();
            let steps = steps.filter(|(step, (_, whole))| wanted(*step, *whole));
            steps.map(|(_, (milliseconds, _))| *milliseconds).collect()
        };
        let is_later = |step: usize| !self.firsts.contains(&step);
        let later = times(&|step, whole| whole && is_later(step));
        let (all, whole) = match later.is_empty() {
            false => (times(&|step, _| is_later(step)), later),
            true => (times(&|_, _| true), times(&|_, whole| whole)),
        };
        Some(mean(&whole)? / mean(&all)?).filter(|ratio| ratio.is_finite())
    }

    /// Something else was done, from `begun` until now.
    pub fn part(&mut self, name: &str, begun: Instant) {
        if let Some(trace) = &mut self.trace {
            trace.add(PARTS, name, begun, begun.elapsed(), Map::new());
        }
    }

    /// The steps are over.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }

    /// The trace, where one is kept.
    pub fn trace(&self) -> Option<&Trace> {
        self.trace.as_ref()
    }
}

/// A run that fails leaves no bar on the terminal.
impl Drop for Watch {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// The tracks of the trace.
const STEPS: &str = "steps";
const PARTS: &str = "parts";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_speed_up_leaves_the_first_step_out() {
        let mut watch = Watch::new(false);
        assert_eq!(watch.speed_up(), None);
        watch.steps = vec![(90.0, true)];
        assert_eq!(watch.speed_up(), Some(1.0));
        watch.steps = vec![(90.0, true), (20.0, true), (10.0, false), (10.0, false), (20.0, true)];
        assert_eq!(watch.speed_up(), Some(20.0 / 15.0));
        // So it is of a second model.
        watch.firsts.push(3);
        watch.steps[3] = (90.0, true);
        assert_eq!(watch.speed_up(), Some(20.0 * 3.0 / 50.0));
    }
}
