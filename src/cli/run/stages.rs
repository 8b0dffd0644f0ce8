//! The open transformers of a run: of two, the one whose steps they are.

use super::Batch;
use super::report::Broadcast;
use super::watch::Watch;
use crate::cli::Failure;
use crate::cli::session::report_memory;
use crate::cli::source::Stage;
use crate::cli::terminal::Terminal;
use crate::generation::{Conditioning, Generator};
use crate::rewrite::Plan;
use std::time::Instant;

/// The open transformers of a run.
pub struct Transformers {
    /// One place a stage.
    open: Vec<Option<Generator>>,
    /// Whether those that are not needed at the moment stay open.
    keep: bool,
    /// Whether the memory of each was reported.
    reported: Vec<bool>,
}

impl Transformers {
    /// None is open yet.
    pub fn of(batch: &Batch) -> Transformers {
        Transformers {
            open: batch.stages.iter().map(|_| None).collect(),
            keep: batch.options.keep_transformers,
            reported: vec![false; batch.stages.len()],
        }
    }

    /// The only one, which is open.
    pub fn only(generator: Generator) -> Transformers {
        Transformers {
            open: vec![Some(generator)],
            keep: true,
            reported: vec![false],
        }
    }

    /// The transformer of stage `place`, opened where it is not; before that the others are closed, unless they are to stay.
    pub fn at(
        &mut self,
        batch: &Batch,
        place: usize,
        conditioning: &Conditioning,
        watch: &mut Watch,
        terminal: &Terminal,
    ) -> Result<&mut Generator, Failure> {
        let nothing = || Failure::Usage("no transformer makes these steps; give --steps 1 or more".to_owned());
        if !self.keep {
            let others = self.open.iter_mut().enumerate().filter(|(other, _)| *other != place);
            others.for_each(|(_, other)| *other = None);
        }
        let slot = self.open.get_mut(place).ok_or_else(nothing)?;
        if slot.is_none() {
            let stage = batch.stages.get(place).ok_or_else(nothing)?;
            let begun = Instant::now();
            let mut generator = batch.opened(stage, conditioning, terminal)?;
            generator.show_samples(batch.options.every_step);
            watch.part("opening the model", begun);
            *slot = Some(generator);
        }
        slot.as_mut().ok_or_else(nothing)
    }

    /// Says, with -v, what memory the transformer of a stage has taken, once it has made steps; of each once.
    pub fn report(&mut self, place: usize, stage: &Stage, terminal: &Terminal) {
        if let (Some(Some(generator)), Some(reported)) = (self.open.get(place), self.reported.get_mut(place))
            && !std::mem::replace(reported, true)
        {
            report_memory(stage.component, generator, terminal);
        }
    }

    /// The open one, of several the last.
    pub fn latest(&self) -> Option<&Generator> {
        self.open.iter().flatten().last()
    }
}

/// For each rule the share of all steps at which it broadcasts, by the plans of the stages.
pub fn shares(plans: &[Option<Plan>], stages: &[Stage], timesteps: &[f64]) -> Vec<Broadcast> {
    let mut shares: Vec<Broadcast> = Vec::new();
    for (plan, stage) in plans.iter().zip(stages) {
        let Some(plan) = plan else { continue };
        let schedule = plan.schedule(stage.own(timesteps));
        for (index, rule) in plan.rules.iter().enumerate() {
            let share = schedule.share(index) * stage.steps.len() as f64 / timesteps.len().max(1) as f64;
            match shares.iter_mut().find(|found| found.rule == rule.name) {
                Some(found) => found.share += share,
                None => shares.push(Broadcast {
                    rule: rule.name.clone(),
                    share,
                }),
            }
        }
    }
    shares
}
