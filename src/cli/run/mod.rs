//! `pab-patch run`: clips by one model or pipeline.

mod options;
mod source;
mod watch;
mod write;

pub use options::RunOptions;
pub use write::picture;

use super::Failure;
use super::args::FormChoice;
use super::folder::OutputFolder;
use super::session::{generator, library, run_settings, runtime_options, scheduler, variant_generator};
use super::terminal::Terminal;
use crate::generation::Generator;
use crate::report::{Distribution, FilePath, FramesPerSecond, ReportError, check_ffmpeg, number, read_array_named};
use crate::sampler::{GivenNoise, NoiseSource, RunSettings, Scheduler, SeededBatch, noise};
use ndarray::{ArrayD, Axis, concatenate};
use options::AnimationChoice;
use serde::Serialize;
use source::{Source, prompts_of};
use std::path::PathBuf;
use std::time::Instant;
use watch::Watch;
use write::{Arrays, remove_earlier, write_pictures};

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    model: FilePath,
    patched: bool,
    steps: usize,
    guidance: f32,
    provider: crate::runtime::Provider,
    /// For each rule the share of the steps at which it broadcast.
    broadcast: Vec<Broadcast>,
    /// The clip, where there is one.
    #[serde(flatten)]
    clip: Option<ClipReport>,
    /// The clips, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    clips: Vec<ClipReport>,
}

#[derive(Serialize)]
struct ClipReport {
    prompt: Option<String>,
    /// Of the noise, where it was drawn.
    seed: Option<u64>,
    /// Milliseconds of each step; of clips that were made side by side for all of them.
    step_milliseconds: Distribution,
    clip_milliseconds: f64,
    /// How much faster its steps are than those that computed everything.
    speed_up: Option<f64>,
    arrays: FilePath,
    animation: Option<FilePath>,
    animations: Vec<FilePath>,
    frames: Vec<FilePath>,
}

#[derive(Serialize)]
struct Broadcast {
    rule: String,
    share: f64,
}

/// A clip between the loop and its pictures.
struct Made {
    prompt: Option<String>,
    seed: Option<u64>,
    folder: PathBuf,
    arrays: Arrays,
    step_milliseconds: Vec<f64>,
    speed_up: Option<f64>,
}

/// Generates and writes clips.
pub fn run(options: &RunOptions, terminal: &Terminal) -> Result<(), Failure> {
    FramesPerSecond::new(options.sampling.fps)?;
    if options.animation.contains(&AnimationChoice::Mp4) {
        check_ffmpeg(&options.output.join(AnimationChoice::Mp4.file()))?;
    }
    let mut source = Source::read(options)?;
    let config = scheduler(&source.model, &options.sampling, terminal)?;
    let settings = settings(options, &source);
    let steps = config.scheduler_for(&settings)?.timesteps().len();
    let prompts = match &options.prompts {
        Some(path) => prompts_of(path)?,
        None => vec![options.prompt.clone()],
    };
    let given_noise = given_noise(options, &mut source)?;
    let mut watch = Watch::new(options.trace.is_some());
    // What a single model's prompts say is known without ONNX Runtime.
    let conditionings = match source.pipeline {
        None => {
            let conditionings = source.conditionings(options, &prompts, terminal)?;
            library(&options.session, terminal)?;
            conditionings
        }
        Some(_) => {
            library(&options.session, terminal)?;
            let begun = Instant::now();
            let conditionings = source.conditionings(options, &prompts, terminal)?;
            watch.part("text encoders", begun);
            conditionings
        }
    };

    let begun = Instant::now();
    let mut generator = opened(options, &source, config.scheduler_for(&settings)?.as_ref(), terminal)?;
    watch.part("opening the model", begun);
    let folder = OutputFolder::make(&options.output)?;
    watch.begin(generator.plan(), prompts.len() * steps, terminal);
    let mut made = Vec::new();
    for (index, (prompt, conditioning)) in prompts.iter().zip(&conditionings).enumerate() {
        watch.clip(index, prompts.len());
        let batch = usize::from(options.batch);
        let seed = options.seed.wrapping_add((index * batch) as u64);
        let start = start(options, &source, given_noise.as_ref(), seed)?;
        let mut samples = Vec::new();
        let mut scheduler = config.scheduler_for(&settings)?;
        let mut step_noise = step_noise(options, scheduler.as_ref(), &start, seed, terminal)?;
        let noise = source.latent.to_model(start.clone());
        let clip = generator
            .generate(
                scheduler.as_mut(),
                noise,
                step_noise.as_mut(),
                conditioning,
                &mut |step| {
                    watch.step(step);
                    if options.every_step {
                        samples.push(step.sample.to_owned());
                    }
                },
            )
            .map_err(Failure::of(&source.model, Failure::generation))?;
        for place in 0..batch {
            let number = index * batch + place;
            let folder = match prompts.len() * batch {
                1 => options.output.clone(),
                _ => options.output.join(format!("clip_{number:03}")),
            };
            std::fs::create_dir_all(&folder).map_err(|source| ReportError::Write {
                path: folder.clone(),
                source,
            })?;
            remove_earlier(&folder);
            let one = |array: &ArrayD<f32>| array.select(Axis(0), &[place]);
            let samples: Vec<ArrayD<f32>> = samples.iter().map(|sample| one(sample).insert_axis(Axis(0))).collect();
            let views: Vec<_> = samples.iter().map(|sample| sample.view()).collect();
            let arrays = Arrays {
                noise: one(&start),
                sample: one(&clip.sample),
                timesteps: scheduler.timesteps().to_vec(),
                samples: concatenate(Axis(0), &views).ok(),
                decoded: None,
            };
            // At once: what is finished stays, whatever happens to the next.
            arrays.write(&folder, options.arrays)?;
            made.push(Made {
                prompt: prompt.clone(),
                seed: given_noise.is_none().then_some(seed.wrapping_add(place as u64)),
                folder,
                arrays,
                step_milliseconds: clip.step_milliseconds.clone(),
                speed_up: watch.speed_up().filter(|_| generator.plan().is_some()),
            });
        }
    }
    watch.end();
    let report = Report {
        model: source.model.as_path().into(),
        patched: generator.plan().is_some(),
        steps: options.sampling.steps,
        guidance: source.guidance,
        provider: generator.session().provider(),
        broadcast: shares(&generator, config.scheduler_for(&settings)?.as_ref()),
        clip: None,
        clips: Vec::new(),
    };
    // The decoder's memory is the transformer's.
    drop(generator);
    let clips = pictures(options, &source, made, &mut watch, terminal)?;
    folder.keep();
    if let (Some(path), Some(trace)) = (&options.trace, watch.trace()) {
        trace.write(path)?;
    }
    let report = report.with(clips);
    terminal.result(&report, || text(&report))
}

/// Opens the transformer in the form that is wanted.
fn opened(
    options: &RunOptions,
    source: &Source,
    scheduler: &dyn Scheduler,
    terminal: &Terminal,
) -> Result<Generator, Failure> {
    let given: Vec<&str> = source.inputs.keys().map(String::as_str).collect();
    match options.form {
        FormChoice::Switch => generator(&source.model, &options.session, &given, terminal),
        FormChoice::Variants => {
            variant_generator(&source.model, &options.session, &given, scheduler.timesteps(), terminal)
        }
    }
}

/// For each rule the share of the steps at which it broadcasts.
fn shares(generator: &Generator, scheduler: &dyn Scheduler) -> Vec<Broadcast> {
    let schedule = generator.schedule(scheduler.timesteps());
    let rules = generator.plan().map_or(&[][..], |plan| plan.rules.as_slice());
    let share = |(index, rule): (usize, &crate::rewrite::RulePlan)| Broadcast {
        rule: rule.name.clone(),
        share: schedule.share(index),
    };
    rules.iter().enumerate().map(share).collect()
}

/// What the scheduler is made for.
fn settings(options: &RunOptions, source: &Source) -> RunSettings {
    let sampling = &options.sampling;
    let mut settings = run_settings(
        &source.model,
        sampling.scheduler.as_deref(),
        sampling.steps,
        &sampling.clip,
    );
    settings.tokens = settings.tokens.or_else(|| source.latent.tokens());
    settings
}

/// The noise of the steps: from the file that was named, or drawn, for each clip from its seed.
fn step_noise(
    options: &RunOptions,
    scheduler: &dyn Scheduler,
    start: &ArrayD<f32>,
    seed: u64,
    terminal: &Terminal,
) -> Result<Box<dyn NoiseSource>, Failure> {
    let Some(path) = &options.step_noise else {
        return Ok(Box::new(SeededBatch::new(seed)));
    };
    let draws = scheduler.noise_draws();
    if draws == 0 {
        terminal.warning("--step-noise was not used: this scheduler draws no noise at its steps");
    }
    let given = GivenNoise::new(read_array_named(path, "noise")?.mapv(|value| value as f32));
    let refuse = |error| Failure::Usage(format!("--step-noise {}: {error}", path.display()));
    if draws > 0 {
        given.check(draws, start.shape()).map_err(refuse)?;
    }
    Ok(Box::new(given))
}

/// The noise that a file gives: the one that was named, or the latent among the inputs.
fn given_noise(options: &RunOptions, source: &mut Source) -> Result<Option<ArrayD<f32>>, Failure> {
    let beside = source.noise.take();
    let given = match &options.noise {
        Some(path) => Some((
            path.display().to_string(),
            read_array_named(path, "noise")?.mapv(|value| value as f32),
        )),
        None => beside.map(|noise| ("(the latent among the --input files)".to_owned(), noise)),
    };
    let Some((name, given)) = given else { return Ok(None) };
    let mut shape = source.latent.noise().to_vec();
    if let Some(batch) = shape.first_mut() {
        *batch = usize::from(options.batch);
    }
    if given.shape() == shape {
        return Ok(Some(given));
    }
    Err(Failure::Usage(format!(
        "--noise {name}: its shape is {:?}, and a clip of this model has {shape:?}",
        given.shape()
    )))
}

/// What the clips of a prompt begin with, `[batch, ...]`: the noise that was given, or drawn, one seed a clip.
fn start(
    options: &RunOptions,
    source: &Source,
    given: Option<&ArrayD<f32>>,
    seed: u64,
) -> Result<ArrayD<f32>, Failure> {
    if let Some(given) = given {
        return Ok(given.clone());
    }
    let drawn = (0..u64::from(options.batch)).map(|place| noise(source.latent.noise(), seed.wrapping_add(place)));
    let drawn: Vec<ArrayD<f32>> = drawn.collect::<Result<_, _>>()?;
    let views: Vec<_> = drawn.iter().map(|noise| noise.view()).collect();
    // All are of one shape.
    concatenate(Axis(0), &views).map_err(|error| Failure::Usage(format!("--batch {}: {error}", options.batch)))
}

/// Decodes and writes the pictures of all clips.
fn pictures(
    options: &RunOptions,
    source: &Source,
    made: Vec<Made>,
    watch: &mut Watch,
    terminal: &Terminal,
) -> Result<Vec<ClipReport>, Failure> {
    let refuse = |error| Failure::pipeline(&source.model, error);
    let vae = source.pipeline.as_ref().and_then(|pipeline| pipeline.vae.as_ref());
    let mut decoder = match vae {
        Some(vae) => Some(vae.open(&runtime_options(&options.session)).map_err(refuse)?),
        None => None,
    };
    let bar = terminal.steps("decoding", if decoder.is_some() { made.len() } else { 0 });
    let mut reports = Vec::with_capacity(made.len());
    for clip in made {
        let Made {
            prompt,
            seed,
            folder,
            mut arrays,
            step_milliseconds,
            speed_up,
        } = clip;
        let mut file = folder.join(options.arrays.file());
        let shown = match &mut decoder {
            Some(decoder) => {
                let begun = Instant::now();
                let latent = source.latent.to_decoder(arrays.sample.clone());
                let decoded = decoder.decode(latent).map_err(refuse)?;
                watch.part("decoding", begun);
                bar.inc(1);
                if options.decoded {
                    arrays.decoded = Some(decoded.clone());
                    file = arrays.write(&folder, options.arrays)?;
                }
                Some(decoded)
            }
            None if options.latents_only => None,
            None => Some(arrays.sample.clone()),
        };
        let written = match &shown {
            Some(shown) => write_pictures(&folder, shown, options)?,
            None => None,
        };
        if written.is_none() && !options.latents_only {
            terminal.note(format!(
                "the sample has shape {:?}, which is no RGB picture: only {} was written (latents have to pass the VAE's \
                 decoder first)",
                arrays.sample.shape(),
                file.display()
            ));
        }
        let written = written.unwrap_or_default();
        let paths = |paths: Vec<PathBuf>| paths.into_iter().map(FilePath::from).collect::<Vec<_>>();
        reports.push(ClipReport {
            prompt,
            seed,
            step_milliseconds: Distribution::of(&step_milliseconds)
                .ok_or_else(|| Failure::Usage("--steps must be at least 1".to_owned()))?,
            clip_milliseconds: step_milliseconds.iter().sum(),
            speed_up,
            arrays: file.into(),
            animation: written.animations.first().cloned().map(FilePath::from),
            animations: paths(written.animations),
            frames: paths(written.frames),
        });
    }
    bar.finish_and_clear();
    Ok(reports)
}

impl Report {
    /// With the clips.
    fn with(mut self, mut clips: Vec<ClipReport>) -> Report {
        match clips.len() {
            1 => self.clip = clips.pop(),
            _ => self.clips = clips,
        }
        self
    }
}

fn text(report: &Report) -> String {
    let mut lines = Vec::new();
    for clip in report.clip.iter().chain(&report.clips) {
        let step = &clip.step_milliseconds;
        lines.push(format!(
            "{} steps in {} (mean step {}, median {})",
            report.steps,
            number::milliseconds(clip.clip_milliseconds),
            number::milliseconds(step.mean),
            number::milliseconds(step.median)
        ));
        for broadcast in &report.broadcast {
            lines.push(format!(
                "rule {}: broadcast in {} of the steps",
                broadcast.rule,
                number::percent(broadcast.share)
            ));
        }
        lines.extend(clip.animations.iter().map(|path| path.display().to_string()));
        if let [first, .., last] = clip.frames.as_slice() {
            lines.push(format!("{} … {}", first.display(), last.display()));
        }
        lines.push(clip.arrays.display().to_string());
    }
    lines.join("\n")
}
