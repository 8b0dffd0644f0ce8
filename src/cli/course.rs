//! What is known of the runs of a model that is to be patched: the scheduler's timesteps, or the number of steps alone.

use super::Failure;
use super::args::CourseOptions;
use super::session::{run_settings, scheduler_beside};
use super::terminal::Terminal;
use crate::pipeline::OneOfTwo;
use crate::rewrite::{Plan, RewriteError, SchedulePlan};
use crate::sampler::{SamplerError, SchedulerConfig};
use std::path::Path;

/// The steps of a run where nobody says how many.
const STEPS: usize = 50;

/// What is known of the runs of a model.
#[derive(Clone, Debug, PartialEq)]
pub enum Course {
    /// Nothing.
    Unknown,
    /// The number of steps.
    Steps(usize),
    /// All timesteps.
    Timesteps(Vec<f64>),
    /// Two steps for measuring: the first computes everything, the second broadcasts everything.
    ComputeThenBroadcast(
        /// What is known of real runs.
        Box<Course>,
    ),
}

impl Course {
    /// What the options and the files beside the model say.
    pub fn of(model: &Path, options: &CourseOptions, terminal: &Terminal) -> Result<Course, Failure> {
        let unknown = options.steps.map_or(Course::Unknown, Course::Steps);
        let Some(path) = scheduler_beside(model, options.scheduler.as_deref()) else {
            return Ok(unknown);
        };
        let steps = options.steps.unwrap_or(STEPS);
        let run = run_settings(model, options.scheduler.as_deref(), steps, &options.clip);
        let read = || -> Result<(Vec<f64>, u32), SamplerError> {
            let config = SchedulerConfig::load(&path)?;
            Ok((
                config.scheduler_for(&run)?.timesteps().to_vec(),
                config.train_timesteps(),
            ))
        };
        match read() {
            Ok((timesteps, trained)) => match OneOfTwo::of_file(model) {
                None => Ok(Course::Timesteps(timesteps)),
                Some(one) => {
                    let own = one.own(&timesteps, trained);
                    let own = own.map_err(|error| Failure::pipeline(model, error))?;
                    Ok(Course::part(own, &one, timesteps.len(), terminal))
                }
            },
            Err(error) if options.scheduler.is_some() => Err(error.into()),
            // Nobody asked for this file, and a plan does without.
            Err(error) => {
                terminal.warning(format!("the plan does not say which steps broadcast: {error}"));
                Ok(unknown)
            }
        }
    }

    /// The course of a transformer that makes some steps of a run, with `own` as its timesteps.
    fn part(own: Vec<f64>, one: &OneOfTwo, steps: usize, terminal: &Terminal) -> Course {
        if own.is_empty() {
            terminal.warning(format!(
                "the plan does not say which steps broadcast: of the {steps} steps of a run none are this transformer's (boundary_ratio \
                 {})",
                one.boundary.ratio()
            ));
            return Course::Unknown;
        }
        terminal.note(format!(
            "{} of the {steps} steps of a run are this transformer's, and its rules count these alone (boundary_ratio {})",
            own.len(),
            one.boundary.ratio()
        ));
        Course::Timesteps(own)
    }

    /// The timesteps of real runs, where they are known.
    pub fn timesteps(&self) -> Option<&[f64]> {
        match self {
            Course::Timesteps(timesteps) => Some(timesteps),
            Course::ComputeThenBroadcast(course) => course.timesteps(),
            Course::Unknown | Course::Steps(_) => None,
        }
    }

    /// The timesteps of a run, as far as they are known; otherwise even ones from 1000 down, 50 unless the number is known. Good
    /// enough to weigh rules against each other.
    pub fn likely_timesteps(&self) -> Vec<f64> {
        match self {
            Course::Timesteps(timesteps) => timesteps.clone(),
            Course::ComputeThenBroadcast(course) => course.likely_timesteps(),
            Course::Unknown => Course::Steps(STEPS).likely_timesteps(),
            Course::Steps(steps) => {
                let left = |step: usize| (steps - step) as f64 / *steps as f64;
                (0..*steps).map(|step| (1000.0 * left(step)).round()).collect()
            }
        }
    }

    /// The schedule of a plan's rules, as far as it is known.
    pub fn schedule(&self, plan: &Plan) -> Option<SchedulePlan> {
        match self {
            Course::Unknown => None,
            Course::Steps(steps) => SchedulePlan::of_steps(plan, *steps),
            Course::Timesteps(timesteps) => Some(SchedulePlan::new(plan, timesteps)),
            Course::ComputeThenBroadcast(_) => Some(SchedulePlan {
                timesteps: Vec::new(),
                broadcast: vec![vec![false, true]; plan.rules.len()],
            }),
        }
    }

    /// Why there is no schedule where one is needed.
    pub fn refusal(&self, model: &Path) -> Failure {
        match self {
            Course::Steps(_) => Failure::Usage(format!(
                "the rules depend on timesteps, and no scheduler_config.json stands beside {}; give diffusers' file with \
                 --scheduler FILE, or write the rules in steps or fractions of the run",
                model.display()
            )),
            _ => Failure::rewrite(model.to_owned(), RewriteError::NoSchedule),
        }
    }
}
