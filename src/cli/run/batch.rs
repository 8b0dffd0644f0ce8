//! The clips that are to be made, and what there is of them.

use super::checkpoint::Checkpoint;
use super::noise::given_noise;
use super::options::RunOptions;
use super::pictures::Made;
use super::prompts::prompts_of;
use super::report::{ClipPlace, ClipRecord};
use super::watch::Watch;
use super::write::Arrays;
use crate::cli::Failure;
use crate::cli::in_memory;
use crate::cli::session::{library, scheduler};
use crate::cli::source::{Source, Stage, for_two, warn_of_one_of_two};
use crate::cli::terminal::Terminal;
use crate::cli::values::sizes;
use crate::generation::Conditioning;
use crate::sampler::{GivenLevels, RunSettings, SchedulerConfig};
use ndarray::ArrayD;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// What is to be made.
pub(super) struct Batch {
    pub(super) options: RunOptions,
    pub(super) source: Source,
    pub(super) config: SchedulerConfig,
    pub(super) settings: RunSettings,
    pub(super) stages: Vec<Stage>,
    pub(super) prompts: Vec<Option<String>>,
    pub(super) noise: Option<ArrayD<f32>>,
}

/// What there is of it.
#[derive(Default)]
pub(super) struct Clips {
    /// With pictures, as far as some are wanted.
    pub(super) complete: Vec<(ClipPlace, ClipRecord)>,
    /// To be decoded.
    pub(super) made: Vec<Made>,
}

impl Batch {
    /// Reads what the options name; `part` is the file of this rank, where they name a split. Nothing is opened yet.
    pub(super) fn read(options: &RunOptions, part: Option<PathBuf>, terminal: &Terminal) -> Result<Batch, Failure> {
        let mut source = Source::read(&options.asked(), part)?;
        if options.keep_transformers && source.second.is_none() {
            return Err(for_two("--keep-transformers", &options.model));
        }
        if options.model.is_file() {
            warn_of_one_of_two(&options.model, terminal);
        }
        let config = scheduler(&source.model, &options.sampling, terminal)?;
        let mut settings = source.settings(&options.asked());
        settings.levels = given_levels(options);
        if let Some(levels) = &settings.levels {
            settings.steps = levels.numbers().len();
        }
        let made = config.scheduler_for(&settings)?;
        if let Some(GivenLevels::Sigmas(_)) = settings.levels {
            // Some are given the level after the last step too.
            settings.steps = made.sigmas().len().saturating_sub(1);
        }
        let stages = Stage::all(&source, &config, made.as_ref(), usize::from(options.batch))?;
        let prompts = match &options.prompts {
            Some(path) => prompts_of(path)?,
            None => vec![options.prompt.clone()],
        };
        let noise = given_noise(options, &mut source)?;
        Ok(Batch {
            options: options.clone(),
            source,
            config,
            settings,
            stages,
            prompts,
            noise,
        })
    }

    /// Patches the originals in memory, where `--rules` says so: each for its own steps.
    pub(super) fn patch(&mut self, terminal: &Terminal) -> Result<(), Failure> {
        let rules = self.options.ranks.rules_options();
        if rules.rules.is_none() {
            return Ok(());
        }
        let scheduler = self.config.scheduler_for(&self.settings)?;
        for stage in &mut self.stages {
            let mut sizes = sizes(&self.options.sampling.sizes);
            let batch = stage.copies() * usize::from(self.options.batch);
            sizes.entry("batch".to_owned()).or_insert(batch);
            let (sizes, own) = (sizes.into_iter().collect(), stage.own(scheduler.timesteps()));
            let patched = in_memory::patch(&stage.model, &rules, sizes, own, terminal)?;
            stage.patched = Some(Arc::new(patched));
        }
        Ok(())
    }

    /// How many clips there are to be.
    pub(super) fn clips(&self) -> usize {
        self.prompts.len() * usize::from(self.options.batch)
    }

    /// The clips that an earlier run left, of prompts whose clips are all there.
    pub(super) fn earlier(&self, checkpoint: Option<&mut Checkpoint>) -> Clips {
        let mut clips = Clips::default();
        let Some(checkpoint) = checkpoint else { return clips };
        let batch = usize::from(self.options.batch);
        for prompt in 0..self.prompts.len() {
            let numbers = prompt * batch..(prompt + 1) * batch;
            let of_prompt = numbers.clone().map(|number| {
                let place = self.place(number);
                let mut record = checkpoint.clips.get(&number)?.clone();
                let there = |file: &str| place.folder.join(file).is_file();
                if let Some(pictures) = &record.pictures
                    && there(place.arrays)
                    && pictures.are_in(&place.folder)
                {
                    return Some((place, record, None));
                }
                record.pictures = None;
                let arrays = Arrays::read(&place.folder, self.options.arrays).ok()?;
                Some((place, record, Some(arrays)))
            });
            let Some(of_prompt) = of_prompt.collect::<Option<Vec<_>>>() else {
                // What was done of it is made again.
                numbers.for_each(|number| drop(checkpoint.clips.remove(&number)));
                continue;
            };
            for (place, record, arrays) in of_prompt {
                match arrays {
                    None => clips.complete.push((place, record)),
                    Some(arrays) => clips.made.push(Made { place, arrays, record }),
                }
            }
        }
        clips
    }

    /// The prompts whose clips are still to be made, as indices.
    pub(super) fn missing(&self, clips: &Clips) -> Vec<usize> {
        let complete = clips.complete.iter().map(|(place, _)| place.number);
        let there: Vec<usize> = complete
            .chain(clips.made.iter().map(|made| made.place.number))
            .collect();
        let first = |prompt: &usize| prompt * usize::from(self.options.batch);
        let prompts = 0..self.prompts.len();
        prompts.filter(|prompt| !there.contains(&first(prompt))).collect()
    }

    /// What clip `number` is and where it goes.
    pub(super) fn place(&self, number: usize) -> ClipPlace {
        let options = &self.options;
        let seed = options.seed.wrapping_add(number as u64);
        ClipPlace {
            number,
            prompt: self.prompts.get(number / usize::from(options.batch)).cloned().flatten(),
            seed: self.noise.is_none().then_some(seed),
            folder: match self.clips() {
                1 => options.output.clone(),
                _ => options.output.join(format!("clip_{number:03}")),
            },
            arrays: options.arrays.file(),
        }
    }

    /// What the clips of these prompts are made from. Afterwards ONNX Runtime is loaded.
    pub(super) fn conditionings(
        &self,
        prompts: &[usize],
        watch: &mut Watch,
        terminal: &Terminal,
    ) -> Result<Vec<Conditioning>, Failure> {
        let prompts = prompts.iter().filter_map(|prompt| self.prompts.get(*prompt));
        let prompts: Vec<Option<String>> = prompts.cloned().collect();
        let read = || self.source.conditionings(&self.options.asked(), &prompts, terminal);
        if self.source.pipeline.is_none() {
            // What a single model's prompts say is known without ONNX Runtime.
            let conditionings = read()?;
            library(&self.options.session, terminal)?;
            return Ok(conditionings);
        }
        library(&self.options.session, terminal)?;
        terminal.stop().check()?;
        let begun = Instant::now();
        let conditionings = read()?;
        watch.part("text encoders", begun);
        Ok(conditionings)
    }

    /// What clips are made from, as far as it is known before text encoders run.
    pub(super) fn known_conditionings(&self, terminal: &Terminal) -> Result<Vec<Conditioning>, Failure> {
        match self.source.pipeline {
            None => self
                .source
                .conditionings(&self.options.asked(), &self.prompts, &terminal.hushed()),
            Some(_) => Ok(vec![Conditioning {
                guidance: self.source.guidance,
                ..Conditioning::default()
            }]),
        }
    }
}

/// The noise levels that the options give.
fn given_levels(options: &RunOptions) -> Option<GivenLevels> {
    match (options.timesteps.as_slice(), options.sigmas.as_slice()) {
        ([], []) => None,
        ([], sigmas) => Some(GivenLevels::Sigmas(sigmas.to_vec())),
        (timesteps, _) => Some(GivenLevels::Timesteps(timesteps.to_vec())),
    }
}
