//! Where clips are made: schedulers, prompts and models as a calibration needs them.

use super::{CalibrateOptions, no_axes};
use crate::calibrate::RunRecord;
use crate::cli::Failure;
use crate::cli::args::{CacheOptions, SamplingOptions};
use crate::cli::caches::CacheSettings;
use crate::cli::course::Course;
use crate::cli::patch::{Order, Request, Written, patch};
use crate::cli::session::{Prompts, clip_shape, conditioning, generator, inputs};
use crate::cli::source::picture;
use crate::cli::terminal::Terminal;
use crate::generation::{Clip, Generator};
use crate::quality::{ClipQuality, compare, to_unit_range};
use crate::rewrite::Drive;
use crate::runtime::Tensor;
use crate::sampler::{RunSettings, SchedulerConfig, SeededNoise, noise};
use indicatif::ProgressBar;
use ndarray::ArrayD;
use std::path::Path;

/// A scheduler and its steps.
pub struct Run {
    config: SchedulerConfig,
    settings: RunSettings,
    /// What is said of it.
    pub record: RunRecord,
}

impl Run {
    /// A run by this scheduler.
    pub fn new(
        config: SchedulerConfig,
        settings: impl FnOnce(Option<&Path>) -> RunSettings,
        sampling: &SamplingOptions,
    ) -> Result<Run, Failure> {
        let settings = settings(sampling.scheduler.as_deref());
        let record = RunRecord {
            scheduler: config.class().to_owned(),
            steps: settings.steps,
            timesteps: config.scheduler_for(&settings)?.timesteps().to_vec(),
            guidance: f64::from(sampling.guidance()),
        };
        Ok(Run {
            config,
            settings,
            record,
        })
    }

    /// Whether a record is of this run: of what is read from a file the last bit may be another.
    pub fn is(&self, record: &RunRecord) -> bool {
        let (own, close) = (&self.record, |one: f64, other: f64| {
            (one - other).abs() <= 1e-9 * one.abs().max(1.0)
        });
        let timesteps = own.timesteps.iter().zip(&record.timesteps);
        own.scheduler == record.scheduler
            && own.steps == record.steps
            && own.timesteps.len() == record.timesteps.len()
            && close(own.guidance, record.guidance)
            && timesteps.into_iter().all(|(one, other)| close(*one, *other))
    }

    /// The same run in another number of steps.
    pub fn in_steps(&self, steps: usize) -> Result<Run, Failure> {
        let settings = RunSettings {
            steps,
            ..self.settings.clone()
        };
        let timesteps = self.config.scheduler_for(&settings)?.timesteps().to_vec();
        Ok(Run {
            config: self.config.clone(),
            settings,
            record: RunRecord {
                steps,
                timesteps,
                ..self.record.clone()
            },
        })
    }

    /// Calls of the model.
    pub fn calls(&self) -> usize {
        self.record.timesteps.len()
    }
}

/// Which of the two sets of clips, that have no seed and no prompt of the table in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// What everything is fitted on.
    Fit,
    /// What the result is judged on.
    Judge,
}

/// Prompts of the table that fitting leaves to judging: those from this place on.
const FIRST_JUDGED: usize = 500;

/// Where clips are made.
pub struct Studio<'a> {
    /// The options.
    pub options: &'a CalibrateOptions,
    /// Messages and bars.
    pub terminal: &'a Terminal,
    prompts: &'a Prompts,
}

impl<'a> Studio<'a> {
    /// Where clips of these prompts are made.
    pub fn new(options: &'a CalibrateOptions, prompts: &'a Prompts, terminal: &'a Terminal) -> Studio<'a> {
        Studio {
            options,
            terminal,
            prompts,
        }
    }

    /// Opens a model, original or patched.
    pub fn open(&self, model: &Path) -> Result<Generator, Failure> {
        let given = inputs(&self.options.sampling.inputs)?;
        let given: Vec<&str> = given.keys().map(String::as_str).collect();
        generator(model, &self.options.session, &given, self.terminal)
    }

    /// Patches the original by rules of a file or a preset, into a folder.
    pub fn patched(&self, rules: &str, run: &Run, folder: &Path) -> Result<Written, Failure> {
        let sampling = &self.options.sampling;
        let mut sizes = crate::cli::values::sizes(&sampling.sizes);
        let batch = if sampling.guidance() == 1.0 { 1 } else { 2 };
        sizes.entry("batch".to_owned()).or_insert(batch);
        let course = Course::Timesteps(run.record.timesteps.clone());
        let request = Request {
            model: &self.options.model,
            rules: &no_axes(Some(rules.to_owned())),
            caches: CacheSettings {
                options: &CacheOptions::default(),
                sizes: sizes.into_iter().collect(),
                given_up: None,
            },
            output: folder,
            order: Order::new(&course, Drive::Flags),
        };
        patch(&request, &self.terminal.hushed())
    }

    /// Seed and prompt of a clip.
    pub fn subject(&self, purpose: Purpose, index: usize) -> (u64, Option<String>) {
        let (first, given, offset) = match purpose {
            Purpose::Fit => (self.options.seed, &self.options.prompt, 0),
            Purpose::Judge => (self.options.judge_seed, &self.options.judge_prompt, FIRST_JUDGED),
        };
        let prompt = match (given.as_slice(), self.prompts) {
            ([], Prompts::Table(table)) => Some(table.sample(offset + index)),
            ([], _) => None,
            (given, _) => given.get(index % given.len()).cloned(),
        };
        (first.wrapping_add(index as u64), prompt)
    }

    /// Makes a clip; the bar is told of each step.
    pub fn clip(
        &self,
        generator: &mut Generator,
        run: &Run,
        purpose: Purpose,
        index: usize,
        bar: &ProgressBar,
    ) -> Result<Clip, Failure> {
        self.with_parts(
            generator,
            run,
            purpose,
            index,
            |generator, scheduler, noise, steps, given| {
                generator.generate(scheduler, noise, steps, given, &mut |_| bar.inc(1))
            },
        )
    }

    /// Makes a clip by a patched model with nothing broadcast, and tells of the caches behind each step.
    pub fn record(
        &self,
        generator: &mut Generator,
        run: &Run,
        index: usize,
        see: &mut dyn FnMut(usize, Vec<(String, Tensor)>),
    ) -> Result<Clip, Failure> {
        self.with_parts(
            generator,
            run,
            Purpose::Fit,
            index,
            |generator, scheduler, noise, steps, given| generator.record(scheduler, noise, steps, given, see),
        )
    }

    /// Two steps, so that memory is there and weights are read.
    pub fn warm_up(&self, generator: &mut Generator, run: &Run) -> Result<(), Failure> {
        self.with_parts(
            generator,
            run,
            Purpose::Fit,
            0,
            |generator, scheduler, noise, _, given| generator.warm_up(scheduler, noise, given),
        )
    }

    fn with_parts<T>(
        &self,
        generator: &mut Generator,
        run: &Run,
        purpose: Purpose,
        index: usize,
        make: impl FnOnce(
            &mut Generator,
            &mut dyn crate::sampler::Scheduler,
            ArrayD<f32>,
            &mut SeededNoise,
            &crate::generation::Conditioning,
        ) -> Result<T, crate::generation::GenerationError>,
    ) -> Result<T, Failure> {
        let (model, sampling) = (&self.options.model, &self.options.sampling);
        let (seed, prompt) = self.subject(purpose, index);
        let conditioning = conditioning(model, self.prompts, prompt.as_deref(), None, sampling)?;
        let noise = noise(&clip_shape(model, generator, sampling)?, seed)?;
        let mut scheduler = run.config.scheduler_for(&run.settings)?;
        make(
            generator,
            scheduler.as_mut(),
            noise,
            &mut SeededNoise::new(seed),
            &conditioning,
        )
        .map_err(Failure::of(model, Failure::generation))
    }
}

/// How far a clip is from the original's: the mean squared error, and the whole comparison where clips are pictures.
pub fn error(original: &ArrayD<f32>, sample: &ArrayD<f32>) -> Result<(f64, Option<ClipQuality>), Failure> {
    let (one, other) = (to_unit_range(original.view()), to_unit_range(sample.view()));
    if let (Some(one), Some(other)) = (picture(&one), picture(&other)) {
        let quality = compare(one, other)?;
        return Ok((quality.mean_squared_error, Some(quality)));
    }
    let squares = original
        .iter()
        .zip(sample)
        .map(|(one, other)| f64::from(one - other).powi(2));
    Ok((squares.sum::<f64>() / original.len().max(1) as f64, None))
}
