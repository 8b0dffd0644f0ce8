//! The noise of clips: drawn from seeds, or as files give it.

use super::RunOptions;
use crate::cli::Failure;
use crate::cli::source::Source;
use crate::cli::terminal::Terminal;
use crate::report::read_array_named;
use crate::sampler::{GivenNoise, NoiseSource, Scheduler, SeededBatch, noise};
use ndarray::{ArrayD, Axis, concatenate};

/// The noise of the steps: from the file that was named, or drawn, for each clip from its seed.
pub fn step_noise(
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
pub fn given_noise(options: &RunOptions, source: &mut Source) -> Result<Option<ArrayD<f32>>, Failure> {
    let beside = source.noise.take();
    let given = match &options.noise {
        Some(path) => Some((
            path.display().to_string(),
            read_array_named(path, "noise")?.mapv(|value| value as f32),
        )),
        None => beside.map(|noise| ("(the latent among the --input files)".to_owned(), noise)),
    };
    let Some((name, given)) = given else { return Ok(None) };
    if let Some(value) = given.iter().find(|value| !value.is_finite()) {
        return Err(Failure::Usage(format!(
            "--noise {name}: it holds {value}, which is no number to begin with; write the latents again"
        )));
    }
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
pub fn start(
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
