//! The stages of a clip: which steps which transformer makes. Most pipelines have one; Wan 2.2 has two.

use super::Source;
use crate::cli::Failure;
use crate::cli::args::{FormChoice, SessionOptions};
use crate::cli::in_memory;
use crate::cli::session::{VariantSessions, generator, run_sizes};
use crate::cli::terminal::Terminal;
use crate::generation::{Conditioning, GenerationError, Generator, check_batch, check_steps};
use crate::onnx::Model;
use crate::pipeline::TRANSFORMERS;
use crate::rewrite::{Drive, PLAN_KEY, Patched, Plan};
use crate::sampler::{Scheduler, SchedulerConfig};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The option that sets the scale of guidance of each transformer.
const GUIDANCE: [&str; 2] = ["--guidance", "--guidance-2"];

/// Steps that one transformer makes.
#[derive(Clone, Debug)]
pub struct Stage {
    /// The component, where there are several.
    pub component: Option<&'static str>,
    /// Its model.
    pub model: PathBuf,
    /// What rules made of the model in memory, where that is run in its place.
    pub patched: Option<Arc<Patched>>,
    /// Its steps; never none.
    pub steps: Range<usize>,
    /// The scale of classifier-free guidance.
    pub guidance: f32,
    /// The option that sets it.
    option: &'static str,
}

/// How the models of stages are opened.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    /// What the clips are made with.
    pub source: &'a Source,
    /// Where models run.
    pub session: &'a SessionOptions,
    /// How a patched model is run.
    pub form: FormChoice,
    /// Whether variants are recorded.
    pub cuda_graph: bool,
    /// Clips that are made side by side.
    pub batch: usize,
    /// The timesteps of the whole run.
    pub timesteps: &'a [f64],
}

impl Stage {
    /// The stages of a run that makes so many clips side by side.
    pub fn all(
        source: &Source,
        config: &SchedulerConfig,
        scheduler: &dyn Scheduler,
        clips: usize,
    ) -> Result<Vec<Stage>, Failure> {
        let timesteps = scheduler.timesteps();
        let [first, second] = GUIDANCE;
        let Some(other) = &source.second else {
            return Ok(vec![Stage {
                component: None,
                model: source.model.clone(),
                patched: None,
                steps: 0..timesteps.len(),
                guidance: source.guidance,
                option: first,
            }]);
        };
        let parts = other.boundary.parts(timesteps, config.train_timesteps());
        let parts = parts.map_err(|error| Failure::pipeline(&source.model, error))?;
        let scales = [
            (&source.model, source.guidance, first),
            (&other.model, other.guidance, second),
        ];
        let stages = TRANSFORMERS.into_iter().zip(parts).zip(scales);
        let stages = stages.map(|((component, steps), (model, guidance, option))| Stage {
            component: Some(component),
            model: model.clone(),
            patched: None,
            steps,
            guidance,
            option,
        });
        let stages: Vec<Stage> = stages.filter(|stage| !stage.steps.is_empty()).collect();
        for stage in &stages {
            // The second would refuse it when the first has made its steps. What is fixed is the same in both.
            if let Some(latent) = source.ports.iter().find(|port| port.name == source.latent_input) {
                check_batch(latent, stage.copies(), clips).map_err(|error| stage.failure(error))?;
            }
        }
        Ok(stages)
    }

    /// How often a clip stands in the batch of its model.
    pub fn copies(&self) -> usize {
        if self.guidance == 1.0 { 1 } else { 2 }
    }

    /// The same steps by another file.
    pub fn by(&self, model: PathBuf) -> Stage {
        Stage {
            model,
            patched: None,
            ..self.clone()
        }
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

    /// The plan of its model, where that is patched.
    pub fn plan(&self) -> Result<Option<Plan>, Failure> {
        match &self.patched {
            Some(patched) => Ok(Some(patched.plan.clone())),
            None => plan_of(&self.model),
        }
    }

    /// Refuses a model that could not make these steps, before those of the others are made.
    pub fn check(&self, plan: Option<&Plan>, form: FormChoice, timesteps: &[f64]) -> Result<(), Failure> {
        match plan {
            None if form == FormChoice::Variants => Err(Failure::Usage(format!(
                "--form variants needs patched models, and {0} is none; give --rules, or patch it with `pab-patch {0}` first",
                self.model.display()
            ))),
            Some(plan) if plan.drive == Drive::Step => check_steps(plan.schedule.as_ref(), self.own(timesteps))
                .map_err(Failure::of(&self.model, Failure::generation)),
            _ => Ok(()),
        }
    }

    /// Opens its model in the form that is wanted; `conditioning` is its own.
    pub fn open(
        &self,
        how: &Opening<'_>,
        conditioning: &Conditioning,
        terminal: &Terminal,
    ) -> Result<Generator, Failure> {
        let (model, source, session) = (&self.model, how.source, how.session);
        let given = source.given();
        let cuda_graph = match how.cuda_graph {
            true => Some(run_sizes(model, &source.latent.in_model(how.batch), conditioning)?),
            false => None,
        };
        let own = self.own(how.timesteps);
        let mut generator = match (how.form, &self.patched) {
            (FormChoice::Switch, None) => generator(model, session, &given, terminal)?,
            (FormChoice::Switch, Some(patched)) => in_memory::generator(model, patched, session, &given, terminal)?,
            (FormChoice::Variants, patched) => {
                let variants = VariantSessions {
                    model,
                    options: session,
                    cuda_graph,
                    given: &given,
                    timesteps: own,
                };
                match patched {
                    None => variants.open_file(terminal)?,
                    Some(patched) => variants.open(patched.model.clone(), terminal)?,
                }
            }
        };
        generator.count_timesteps_in(source.timestep_unit());
        Ok(generator)
    }

    /// A failure of its steps, which names the options that are its own.
    pub fn failure(&self, error: GenerationError) -> Failure {
        Failure::generation(self.model.clone(), error.with_guidance_option(self.option))
    }
}

/// The plan in a model's file, where it is patched.
pub fn plan_of(model: &Path) -> Result<Option<Plan>, Failure> {
    let loaded = Model::load(model)?;
    Ok(loaded.proto.metadata(PLAN_KEY).map(Plan::parse).transpose()?)
}
