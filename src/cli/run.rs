//! `pab-patch run`: one clip by one model.

use super::Failure;
use super::args::{FormChoice, RunOptions};
use super::folder::OutputFolder;
use super::session::{
    clip_shape, conditioning, generator, library, prompts, run_settings, scheduler, variant_generator,
};
use super::terminal::Terminal;
use crate::quality::to_unit_range;
use crate::report::{
    Distribution, Elements, FilePath, FramesPerSecond, number, read_array, write_animation, write_arrays, write_frames,
};
use crate::sampler::{GivenNoise, NoiseSource, Scheduler, SeededNoise, noise};
use ndarray::{ArrayD, ArrayView4, Axis, Ix4};
use serde::Serialize;
use std::path::Path;

/// The animation's file.
const ANIMATION: &str = "clip.gif";

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    model: FilePath,
    patched: bool,
    prompt: Option<String>,
    /// Of the noise, where it was drawn.
    seed: Option<u64>,
    steps: usize,
    guidance: f32,
    provider: crate::runtime::Provider,
    /// Milliseconds of each step.
    step_milliseconds: Distribution,
    clip_milliseconds: f64,
    /// For each rule the share of the steps at which it broadcast.
    broadcast: Vec<Broadcast>,
    arrays: FilePath,
    animation: Option<FilePath>,
    frames: Vec<FilePath>,
}

#[derive(Serialize)]
struct Broadcast {
    rule: String,
    share: f64,
}

/// Generates and writes a clip.
pub fn run(options: &RunOptions, terminal: &Terminal) -> Result<(), Failure> {
    let model = &options.model;
    let rate = FramesPerSecond::new(options.sampling.fps)?;
    let config = scheduler(model, &options.sampling, terminal)?;
    let sampling = &options.sampling;
    let settings = run_settings(model, sampling.scheduler.as_deref(), sampling.steps, &sampling.clip);
    let mut scheduler = config.scheduler_for(&settings)?;
    let prompts = prompts(model, &options.sampling)?;
    let conditioning = conditioning(model, &prompts, options.prompt.as_deref(), &options.sampling)?;
    library(&options.session, terminal)?;
    let mut generator = match options.form {
        FormChoice::Switch => generator(model, &options.session, &options.sampling, terminal)?,
        FormChoice::Variants => {
            let timesteps = scheduler.timesteps();
            variant_generator(model, &options.session, &options.sampling, timesteps, terminal)?
        }
    };
    let noise = noise_of(options, clip_shape(model, &generator, &options.sampling)?)?;

    let mut step_noise = step_noise(options, scheduler.as_ref(), noise.shape(), terminal)?;
    let bar = terminal.steps("denoising", scheduler.timesteps().len());
    let mut samples = Vec::new();
    let clip = generator
        .generate(
            scheduler.as_mut(),
            noise.clone(),
            step_noise.as_mut(),
            &conditioning,
            &mut |done, sample| {
                bar.set_position(done as u64);
                if options.every_step {
                    samples.push(sample.to_owned());
                }
            },
        )
        .map_err(Failure::of(model, Failure::generation));
    bar.finish_and_clear();
    let clip = clip?;

    let folder = OutputFolder::make(&options.output)?;
    let arrays = options.output.join("clip.npz");
    let timesteps = ArrayD::from_shape_vec(vec![scheduler.timesteps().len()], scheduler.timesteps().to_vec());
    let mut entries = vec![
        ("noise", Elements::Float(noise.view())),
        ("sample", Elements::Float(clip.sample.view())),
    ];
    if let Ok(timesteps) = &timesteps {
        entries.push(("timesteps", Elements::Double(timesteps.view())));
    }
    let samples = samples.iter().map(|sample| sample.view()).collect::<Vec<_>>();
    let samples = ndarray::stack(Axis(0), &samples).ok();
    if let Some(samples) = &samples {
        entries.push(("samples", Elements::Float(samples.view())));
    }
    write_arrays(&arrays, &entries)?;
    let shown = to_unit_range(clip.sample.view());
    remove_earlier(&options.output);
    let (mut animation, mut frames) = (None, Vec::new());
    match picture(&shown) {
        Some(pictures) => {
            let path = options.output.join(ANIMATION);
            write_animation(&path, pictures, rate, options.sampling.scale)?;
            animation = Some(path);
            frames = write_frames(&options.output, pictures)?;
        }
        None => terminal.note(format!(
            "the sample has shape {:?}, which is no RGB picture: only {} was written (latents have to pass the VAE's \
             decoder first)",
            clip.sample.shape(),
            arrays.display()
        )),
    }
    folder.keep();
    let schedule = generator.schedule(scheduler.timesteps());
    let rules = generator.plan().map_or(&[][..], |plan| plan.rules.as_slice());
    let report = Report {
        model: model.as_path().into(),
        patched: generator.plan().is_some(),
        prompt: options.prompt.clone(),
        seed: options.noise.is_none().then_some(options.seed),
        steps: options.sampling.steps,
        guidance: options.sampling.guidance,
        provider: generator.session().provider(),
        step_milliseconds: Distribution::of(&clip.step_milliseconds)
            .ok_or_else(|| Failure::Usage("--steps must be at least 1".to_owned()))?,
        clip_milliseconds: clip.milliseconds(),
        broadcast: rules
            .iter()
            .enumerate()
            .map(|(index, rule)| Broadcast {
                rule: rule.name.clone(),
                share: schedule.share(index),
            })
            .collect(),
        arrays: arrays.into(),
        animation: animation.map(FilePath::from),
        frames: frames.into_iter().map(FilePath::from).collect(),
    };
    terminal.result(&report, || text(&report))
}

/// The noise that a clip is made from, of this shape: from the file that was named, or drawn.
fn noise_of(options: &RunOptions, shape: Vec<usize>) -> Result<ArrayD<f32>, Failure> {
    let Some(path) = &options.noise else {
        return Ok(noise(&shape, options.seed)?);
    };
    let given = read_array(path)?.mapv(|value| value as f32);
    if given.shape() == shape {
        return Ok(given);
    }
    Err(Failure::Usage(format!(
        "--noise {}: its shape is {:?}, and a clip of this model has {shape:?}",
        path.display(),
        given.shape()
    )))
}

/// The noise of the steps: from the file that was named, or drawn.
fn step_noise(
    options: &RunOptions,
    scheduler: &dyn Scheduler,
    shape: &[usize],
    terminal: &Terminal,
) -> Result<Box<dyn NoiseSource>, Failure> {
    let Some(path) = &options.step_noise else {
        return Ok(Box::new(SeededNoise::new(options.seed)));
    };
    let draws = scheduler.noise_draws();
    if draws == 0 {
        terminal.warning("--step-noise was not used: this scheduler draws no noise at its steps");
    }
    let given = GivenNoise::new(read_array(path)?.mapv(|value| value as f32));
    let refuse = |error| Failure::Usage(format!("--step-noise {}: {error}", path.display()));
    if draws > 0 {
        given.check(draws, shape).map_err(refuse)?;
    }
    Ok(Box::new(given))
}

/// Removes the pictures of an earlier clip, which may have had more frames.
fn remove_earlier(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let number = name.strip_prefix("frame_").and_then(|rest| rest.strip_suffix(".png"));
        if name == ANIMATION || number.is_some_and(|number| number.parse::<u32>().is_ok()) {
            // What cannot be removed is in the way of the new file too, and is reported there.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// A clip `[channels, frames, height, width]` that can be shown, out of a sample `[1, channels, frames, height, width]`
/// or of an image `[1, channels, height, width]`.
pub fn picture(sample: &ArrayD<f32>) -> Option<ArrayView4<'_, f32>> {
    let view = match sample.ndim() {
        5 => sample.index_axis(Axis(0), 0),
        4 => sample.index_axis(Axis(0), 0).insert_axis(Axis(1)),
        _ => return None,
    };
    let view = view.into_dimensionality::<Ix4>().ok()?;
    matches!(view.shape().first(), Some(1 | 3)).then_some(view)
}

fn text(report: &Report) -> String {
    let step = &report.step_milliseconds;
    let mut lines = vec![format!(
        "{} steps in {} (mean step {}, median {})",
        report.steps,
        number::milliseconds(report.clip_milliseconds),
        number::milliseconds(step.mean),
        number::milliseconds(step.median)
    )];
    for broadcast in &report.broadcast {
        lines.push(format!(
            "rule {}: broadcast in {} of the steps",
            broadcast.rule,
            number::percent(broadcast.share)
        ));
    }
    lines.extend(report.animation.iter().map(|path| path.display().to_string()));
    if let [first, .., last] = report.frames.as_slice() {
        lines.push(format!("{} … {}", first.display(), last.display()));
    }
    lines.push(report.arrays.display().to_string());
    lines.join("\n")
}
