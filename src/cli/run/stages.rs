//! The stages of a clip: which steps which transformer makes. Most pipelines have one; Wan 2.2 has two.

use super::Batch;
use super::report::{Broadcast, TransformerReport};
use super::source::Source;
use super::watch::Watch;
use crate::cli::Failure;
use crate::cli::args::FormChoice;
use crate::cli::terminal::Terminal;
use crate::generation::{Conditioning, Generator, check_steps};
use crate::onnx::Model;
use crate::pipeline::TRANSFORMERS;
use crate::rewrite::{Drive, PLAN_KEY, Plan};
use crate::sampler::{Scheduler, SchedulerConfig};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Steps that one transformer makes.
#[derive(Clone, Debug)]
pub struct Stage {
    /// The component, where there are several.
    pub component: Option<&'static str>,
    /// Its model.
    pub model: PathBuf,
    /// Its steps; never none.
    pub steps: Range<usize>,
    /// The scale of classifier-free guidance.
    pub guidance: f32,
}

impl Stage {
    /// The stages of a run.
    pub fn all(source: &Source, config: &SchedulerConfig, scheduler: &dyn Scheduler) -> Result<Vec<Stage>, Failure> {
        let timesteps = scheduler.timesteps();
        let Some(second) = &source.second else {
            return Ok(vec![Stage {
                component: None,
                model: source.model.clone(),
                steps: 0..timesteps.len(),
                guidance: source.guidance,
            }]);
        };
        let parts = second.boundary.parts(timesteps, config.train_timesteps());
        let parts = parts.map_err(|error| Failure::pipeline(&source.model, error))?;
        let scales = [(&source.model, source.guidance), (&second.model, second.guidance)];
        let stages = TRANSFORMERS.into_iter().zip(parts).zip(scales);
        let stages = stages.map(|((component, steps), (model, guidance))| Stage {
            component: Some(component),
            model: model.clone(),
            steps,
            guidance,
        });
        Ok(stages.filter(|stage| !stage.steps.is_empty()).collect())
    }

    /// What its clips are made from.
    pub fn conditioning(&self, conditioning: &Conditioning) -> Conditioning {
        Conditioning {
            guidance: self.guidance,
            ..conditioning.clone()
        }
    }

    /// Its own of the timesteps of the run.
    pub fn own<'a>(&self, timesteps: &'a [f64]) -> &'a [f64] {
        timesteps.get(self.steps.clone()).unwrap_or_default()
    }

    /// Refuses a model that could not make these steps, before those of the others are made.
    pub fn check(&self, plan: Option<&Plan>, form: FormChoice, timesteps: &[f64]) -> Result<(), Failure> {
        match plan {
            None if form == FormChoice::Variants => Err(Failure::Usage(format!(
                "--form variants needs patched models, and {0} is none; patch it with `pab-patch {0}` first",
                self.model.display()
            ))),
            Some(plan) if plan.drive == Drive::Step => check_steps(plan.schedule.as_ref(), self.own(timesteps))
                .map_err(Failure::of(&self.model, Failure::generation)),
            _ => Ok(()),
        }
    }

    /// What is told of it, where there are several.
    pub fn report(&self) -> Option<TransformerReport> {
        Some(TransformerReport {
            component: self.component?.to_owned(),
            model: self.model.as_path().into(),
            steps: self.steps.len(),
            guidance: self.guidance,
        })
    }
}

/// The open transformers of a run.
pub struct Transformers {
    /// One place a stage.
    open: Vec<Option<Generator>>,
    /// Whether those that are not needed at the moment stay open.
    keep: bool,
}

impl Transformers {
    /// None is open yet.
    pub fn of(batch: &Batch) -> Transformers {
        Transformers {
            open: batch.stages.iter().map(|_| None).collect(),
            keep: batch.options.keep_transformers,
        }
    }

    /// The only one, which is open.
    pub fn only(generator: Generator) -> Transformers {
        Transformers {
            open: vec![Some(generator)],
            keep: true,
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

    /// The open one, of several the last.
    pub fn latest(&self) -> Option<&Generator> {
        self.open.iter().flatten().last()
    }
}

/// The plan in a model's file, where it is patched.
pub fn plan_of(model: &Path) -> Result<Option<Plan>, Failure> {
    let loaded = Model::load(model)?;
    Ok(loaded.proto.metadata(PLAN_KEY).map(Plan::parse).transpose()?)
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
