//! `pab-patch run`: clips by one model or pipeline.

mod checkpoint;
mod noise;
mod options;
mod pictures;
mod prompts;
mod ranks;
mod report;
mod settings;
mod stages;
mod watch;
mod write;

pub use options::RunOptions;
pub use write::picture;

use super::Failure;
use super::folder::OutputFolder;
use super::in_memory;
use super::session::{check_cuda_graph, library, report_latents, scheduler};
use super::source::{Opening, Source, Stage, for_two, warn_of_one_of_two};
use super::terminal::Terminal;
use super::values::sizes;
use crate::collective::is_first_process;
use crate::generation::{Conditioning, Generator};
use crate::pipeline::{Boundary, Folder};
use crate::report::{FramesPerSecond, ReportError, check_ffmpeg};
use crate::rewrite::Plan;
use crate::sampler::{GivenLevels, RunSettings, SchedulerConfig};
use checkpoint::Checkpoint;
use ndarray::{ArrayD, Axis, concatenate};
use noise::{given_noise, start, step_noise};
use options::AnimationChoice;
use pictures::{Made, decode, finish};
use prompts::prompts_of;
use ranks::{Part, RanksReport, Team, Wanted};
use report::{ClipPlace, ClipRecord, ClipReport, Head, Report, TransformerReport};
use stages::{Transformers, shares};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use watch::Watch;
use write::{Arrays, remove_earlier};

/// What is to be made.
struct Batch {
    options: RunOptions,
    source: Source,
    config: SchedulerConfig,
    settings: RunSettings,
    stages: Vec<Stage>,
    prompts: Vec<Option<String>>,
    noise: Option<ArrayD<f32>>,
}

/// What there is of it.
#[derive(Default)]
struct Clips {
    /// With pictures, as far as some are wanted.
    complete: Vec<(ClipPlace, ClipRecord)>,
    /// To be decoded.
    made: Vec<Made>,
}

/// Generates and writes clips.
pub fn run(options: &RunOptions, terminal: &Terminal) -> Result<(), Failure> {
    let report = match asked(options).map_err(shown_once)? {
        None => {
            let mut batch = Batch::read(options, None, terminal)?;
            batch.patch(terminal)?;
            Some(lead(&batch, None, terminal)?)
        }
        Some(wanted) => ranks::run(options, wanted, terminal)?,
    };
    report.map_or(Ok(()), |report| terminal.result(&report, || report.text()))
}

/// Whether there are to be several ranks, once what can be wrong with the options alone is not.
fn asked(options: &RunOptions) -> Result<Option<Wanted>, Failure> {
    FramesPerSecond::new(options.sampling.fps)?;
    check_cuda_graph(options.form, options.cuda_graph, &options.session)?;
    if options.animation.contains(&AnimationChoice::Mp4) {
        check_ffmpeg(&options.output.join(AnimationChoice::Mp4.file()))?;
    }
    let wanted = Wanted::of(options)?;
    if wanted.is_some() && options.cuda_graph {
        return Err(Failure::Usage(
            "--cuda-graph is not for several ranks, which meet in every step: CUDA would repeat one without the others; leave it \
             out"
                .to_owned(),
        ));
    }
    let folder = Folder::open(&options.model).ok().filter(|_| wanted.is_some());
    if let Some(folder) = folder
        && let Some(boundary) = Boundary::of(&folder).map_err(|error| Failure::pipeline(&options.model, error))?
    {
        return Err(Failure::Usage(format!(
            "several ranks run one transformer, and {} has two (boundary_ratio {}); leave the options of ranks out",
            options.model.display(),
            boundary.ratio()
        )));
    }
    Ok(wanted)
}

/// What all processes find wrong before they know of each other, the first shows.
fn shown_once(failure: Failure) -> Failure {
    match is_first_process() {
        true => failure,
        false => Failure::Shown(Box::new(failure)),
    }
}

/// Makes the clips, as the only rank or the first.
fn lead(batch: &Batch, team: Option<&Team>, terminal: &Terminal) -> Result<Report, Failure> {
    let mut checkpoint = match batch.options.prompts {
        Some(_) => Some(Checkpoint::of(&batch.options, settings::of(batch)?)?),
        None => None,
    };
    let made = batch.make(&mut checkpoint, team, terminal);
    if let (Err(_), Some(checkpoint)) = (&made, &checkpoint)
        && !checkpoint.clips.is_empty()
    {
        let complete = checkpoint.clips.values().filter(|clip| clip.pictures.is_some()).count();
        terminal.note(format!(
            "{complete} of {} clips are complete, of {} the latents; the same command with --resume goes on from there ({})",
            batch.clips(),
            checkpoint.clips.len(),
            checkpoint.path().display()
        ));
    }
    made
}

impl Batch {
    /// Reads what the options name; `part` is the file of this rank, where they name a split. Nothing is opened yet.
    fn read(options: &RunOptions, part: Option<PathBuf>, terminal: &Terminal) -> Result<Batch, Failure> {
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
    fn patch(&mut self, terminal: &Terminal) -> Result<(), Failure> {
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
    fn clips(&self) -> usize {
        self.prompts.len() * usize::from(self.options.batch)
    }

    /// Makes all clips that are not there yet.
    fn make(
        &self,
        checkpoint: &mut Option<Checkpoint>,
        team: Option<&Team>,
        terminal: &Terminal,
    ) -> Result<Report, Failure> {
        let options = &self.options;
        let mut watch = Watch::new(options.trace.is_some());
        let mut clips = self.earlier(checkpoint.as_mut());
        let missing = self.missing(&clips);
        let head = checkpoint.as_ref().and_then(|checkpoint| checkpoint.head.clone());
        let folder = OutputFolder::make(&options.output)?;
        if let Some(team) = team {
            team.agree(&missing)?;
        }
        let (head, ranks) = match head.filter(|_| missing.is_empty()) {
            Some(head) => {
                // Only to be decoded, or not even that.
                if !clips.made.is_empty() {
                    library(&options.session, terminal)?;
                }
                (head, None)
            }
            None => self.denoise(&missing, &mut clips, checkpoint, team, &mut watch, terminal)?,
        };
        let decoded = decode(options, &self.source, clips.made, checkpoint, &mut watch, terminal)?;
        clips.complete.extend(decoded);
        clips.complete.sort_by_key(|(place, _)| place.number);
        folder.keep();
        if let (Some(path), Some(trace)) = (&options.trace, watch.trace()) {
            trace.write(path)?;
        }
        let report = Report {
            model: self.source.model.as_path().into(),
            steps: self.settings.steps,
            guidance: self.source.asked_guidance(),
            head,
            transformers: self.stages.iter().filter_map(TransformerReport::of).collect(),
            ranks,
            clip: None,
            clips: Vec::new(),
        };
        let clips = clips.complete.iter();
        Ok(report.with(clips.map(|(place, record)| ClipReport::new(place, record)).collect()))
    }

    /// The clips that an earlier run left, of prompts whose clips are all there.
    fn earlier(&self, checkpoint: Option<&mut Checkpoint>) -> Clips {
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
    fn missing(&self, clips: &Clips) -> Vec<usize> {
        let complete = clips.complete.iter().map(|(place, _)| place.number);
        let there: Vec<usize> = complete
            .chain(clips.made.iter().map(|made| made.place.number))
            .collect();
        let first = |prompt: &usize| prompt * usize::from(self.options.batch);
        let prompts = 0..self.prompts.len();
        prompts.filter(|prompt| !there.contains(&first(prompt))).collect()
    }

    /// What clip `number` is and where it goes.
    fn place(&self, number: usize) -> ClipPlace {
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

    /// Runs the loop for these prompts. What is finished is written at once, and stays whatever happens to the next.
    fn denoise(
        &self,
        prompts: &[usize],
        clips: &mut Clips,
        checkpoint: &mut Option<Checkpoint>,
        team: Option<&Team>,
        watch: &mut Watch,
        terminal: &Terminal,
    ) -> Result<(Head, Option<RanksReport>), Failure> {
        let (options, source) = (&self.options, &self.source);
        let conditionings = self.conditionings(prompts, watch, terminal)?;
        let scheduler = self.config.scheduler_for(&self.settings)?;
        let begun = Instant::now();
        let (mut transformers, part) = match team {
            Some(team) => {
                let (mut generator, part) = team.open(self, prompts, &conditionings, terminal)?;
                generator.show_samples(options.every_step);
                watch.part("opening the model", begun);
                (Transformers::only(generator), part)
            }
            None => (Transformers::of(self), None),
        };
        let first = conditionings.first().cloned().unwrap_or_default();
        let generator = transformers.at(self, 0, &self.conditioned(0, &first), watch, terminal)?;
        watch.count(team.map(|team| team.carrier.clone()));
        let mut ranks = None;
        let provider = generator.session().provider();
        let mut plans = vec![generator.plan().cloned()];
        for stage in self.stages.iter().skip(1) {
            let plan = stage.plan()?;
            stage.check(plan.as_ref(), options.form, scheduler.timesteps())?;
            plans.push(plan);
        }
        self.note_unpatched(&plans, terminal);
        let mut head = Head {
            patched: plans.iter().any(Option::is_some),
            provider,
            broadcast: shares(&plans, &self.stages, scheduler.timesteps()),
            latents: None,
        };
        if let Some(checkpoint) = checkpoint {
            checkpoint.head = Some(head.clone());
        }
        watch.begin(prompts.len() * scheduler.timesteps().len(), terminal);
        let decodes = source.pipeline.as_ref().is_some_and(|pipeline| pipeline.vae.is_some());
        for (prompt, conditioning) in prompts.iter().zip(&conditionings) {
            watch.clip(*prompt, self.prompts.len());
            team.inspect(|team| team.begin_clip());
            let all = self.clip(*prompt, conditioning, &mut transformers, part.as_ref(), watch, terminal)?;
            if let Some(team) = team.filter(|_| prompts.last() == Some(prompt)) {
                // No rank waits while this one writes and decodes.
                ranks = Some(team.end(watch)?);
            }
            if let (None, Some(generator)) = (&head.latents, transformers.latest()) {
                head.latents = generator.latents().cloned();
                report_latents(generator, terminal);
                if let Some(checkpoint) = checkpoint {
                    checkpoint.head = Some(head.clone());
                }
            }
            for made in all {
                let folder = &made.place.folder;
                std::fs::create_dir_all(folder).map_err(|source| ReportError::Write {
                    path: folder.clone(),
                    source,
                })?;
                if let Some(checkpoint) = checkpoint {
                    // Before anything of an older clip is touched: no record may speak of what is half replaced.
                    checkpoint.clips.remove(&made.place.number);
                    checkpoint.save()?;
                }
                remove_earlier(folder);
                made.arrays.write(folder, options.arrays)?;
                let (number, mut record) = (made.place.number, made.record.clone());
                match decodes {
                    true => clips.made.push(made),
                    false => {
                        let complete = finish(options, source, made, None, watch, terminal)?;
                        record = complete.1.clone();
                        clips.complete.push(complete);
                    }
                }
                if let Some(checkpoint) = checkpoint {
                    checkpoint.clips.insert(number, record);
                    checkpoint.save()?;
                }
            }
        }
        watch.end();
        // The transformers end here: the decoder's memory is theirs.
        Ok((head, ranks))
    }

    /// What the clips of these prompts are made from. Afterwards ONNX Runtime is loaded.
    fn conditionings(
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

    /// What stage `place` makes clips from.
    fn conditioned(&self, place: usize, conditioning: &Conditioning) -> Conditioning {
        let stage = self.stages.get(place);
        stage.map_or_else(|| conditioning.clone(), |stage| stage.conditioning(conditioning))
    }

    /// Says which transformers compute everything while others broadcast.
    fn note_unpatched(&self, plans: &[Option<Plan>], terminal: &Terminal) {
        if plans.iter().all(Option::is_none) {
            return;
        }
        for (stage, _) in self.stages.iter().zip(plans).filter(|(_, plan)| plan.is_none()) {
            terminal.note(format!(
                "{} is not patched: its {} steps compute everything",
                stage.model.display(),
                stage.steps.len()
            ));
        }
    }

    /// What clips are made from, as far as it is known before text encoders run.
    fn known_conditionings(&self, terminal: &Terminal) -> Result<Vec<Conditioning>, Failure> {
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

    /// Opens the transformer of a stage in the form that is wanted; `conditioning` is the stage's.
    fn opened(&self, stage: &Stage, conditioning: &Conditioning, terminal: &Terminal) -> Result<Generator, Failure> {
        let options = &self.options;
        let scheduler = self.config.scheduler_for(&self.settings)?;
        let how = Opening {
            source: &self.source,
            session: &options.session,
            form: options.form,
            cuda_graph: options.cuda_graph,
            batch: usize::from(options.batch),
            timesteps: scheduler.timesteps(),
        };
        stage.open(&how, conditioning, terminal)
    }

    /// Makes the clips of a prompt side by side; where this is a rank that keeps a part of the latents, as that part.
    fn clip(
        &self,
        prompt: usize,
        conditioning: &Conditioning,
        transformers: &mut Transformers,
        part: Option<&Part>,
        watch: &mut Watch,
        terminal: &Terminal,
    ) -> Result<Vec<Made>, Failure> {
        let (options, source) = (&self.options, &self.source);
        let batch = usize::from(options.batch);
        let seed = options.seed.wrapping_add((prompt * batch) as u64);
        let start = start(options, source, self.noise.as_ref(), seed)?;
        let mut samples = Vec::new();
        let mut scheduler = self.config.scheduler_for(&self.settings)?;
        let mut step_noise = step_noise(options, scheduler.as_ref(), &start, seed, terminal)?;
        let mut noise = source.latent.to_model(start.clone());
        if let Some(part) = part {
            noise = part.of(noise)?;
            step_noise = part.noise(step_noise);
        }
        let (mut sample, mut step_milliseconds, mut is_patched) = (noise, Vec::new(), false);
        for (place, stage) in self.stages.iter().enumerate() {
            let conditioning = stage.conditioning(conditioning);
            let generator = transformers.at(self, place, &conditioning, watch, terminal)?;
            watch.model(generator.plan(), stage.component);
            is_patched |= generator.plan().is_some();
            let made = generator.generate_part(
                scheduler.as_mut(),
                stage.steps.clone(),
                sample,
                step_noise.as_mut(),
                &conditioning,
                &mut |step| {
                    watch.step(step);
                    if options.every_step {
                        samples.extend(step.sample.as_ref().map(|sample| sample.to_owned()));
                    }
                },
            );
            let made = made.map_err(|error| stage.failure(error))?;
            transformers.report(place, stage, terminal);
            sample = made.sample;
            step_milliseconds.extend(made.step_milliseconds);
        }
        if let Some(part) = part {
            samples.push(sample);
            samples = part.whole(&samples)?;
            sample = samples.pop().unwrap_or_default();
            watch.gather();
        }
        let made = (0..batch).map(|place| {
            let one = |array: &ArrayD<f32>| array.select(Axis(0), &[place]);
            let samples: Vec<ArrayD<f32>> = samples.iter().map(|sample| one(sample).insert_axis(Axis(0))).collect();
            let views: Vec<_> = samples.iter().map(|sample| sample.view()).collect();
            Made {
                place: self.place(prompt * batch + place),
                arrays: Arrays {
                    noise: one(&start),
                    sample: one(&sample),
                    timesteps: scheduler.timesteps().to_vec(),
                    samples: concatenate(Axis(0), &views).ok(),
                    decoded: None,
                },
                record: ClipRecord {
                    step_milliseconds: step_milliseconds.clone(),
                    speed_up: watch.speed_up().filter(|_| is_patched),
                    pictures: None,
                },
            }
        });
        Ok(made.collect())
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
