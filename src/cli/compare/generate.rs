//! The same clips by all models, stage by stage: the models of one stage are open at a time.

use super::candidate::{Both, Candidate};
use super::task::Task;
use crate::cli::Failure;
use crate::cli::args::FormChoice;
use crate::cli::source::Stage;
use crate::cli::source::picture;
use crate::cli::terminal::Terminal;
use crate::generation::Generator;
use crate::quality::{QualityError, compare, to_unit_range};
use crate::report::{Measured, MeasuredClip};
use crate::runtime::Provider;
use crate::sampler::{NoiseSource, SamplerError, Scheduler, SeededBatch};
use ndarray::{ArrayD, ArrayViewD};

/// A clip by one model, as far as it is made.
struct Take {
    scheduler: Box<dyn Scheduler>,
    step_noise: SeededBatch,
    sample: ArrayD<f32>,
    step_milliseconds: Vec<f64>,
}

/// What is said of the clips once they are made.
pub struct Made {
    /// What ran the original.
    pub provider: Provider,
    /// The shape of a clip as it is shown.
    pub shape: Vec<usize>,
}

/// Makes every clip by all models.
pub fn generate(task: &Task<'_>, candidates: &mut [Candidate], terminal: &Terminal) -> Result<Made, Failure> {
    let mut takes = Vec::with_capacity(task.options.clips);
    for clip in 0..task.options.clips {
        let begun = (0..=candidates.len()).map(|_| Take::begin(task, clip));
        takes.push(begun.collect::<Result<Vec<Take>, Failure>>()?);
    }
    let mut provider = Provider::Cpu;
    for (place, stage) in task.stages.iter().enumerate() {
        for candidate in &mut *candidates {
            candidate.measure_work(task, place, stage, terminal)?;
        }
        provider = denoise(task, place, stage, candidates, &mut takes, terminal)?;
    }
    let shape = finish(task, candidates, takes, terminal)?;
    Ok(Made { provider, shape })
}

impl Take {
    fn begin(task: &Task<'_>, clip: usize) -> Result<Take, Failure> {
        Ok(Take {
            scheduler: task.scheduler()?,
            step_noise: SeededBatch::new(task.seed(clip)),
            sample: task.noise(clip)?,
            step_milliseconds: Vec::new(),
        })
    }
}

/// Makes the steps of a stage for every clip by all models, in an order that changes from clip to clip, so that a drift of the
/// machine's speed cancels out.
fn denoise(
    task: &Task<'_>,
    place: usize,
    stage: &Stage,
    candidates: &mut [Candidate],
    takes: &mut [Vec<Take>],
    terminal: &Terminal,
) -> Result<Provider, Failure> {
    let original = task.open(stage, FormChoice::Switch, terminal)?;
    let provider = original.session().provider();
    let mut models = vec![original];
    for candidate in &*candidates {
        let transformer = candidate
            .transformers
            .get(place)
            .map_or(stage, |patched| &patched.stage);
        models.push(task.open(transformer, task.options.form, terminal)?);
    }
    for generator in &mut models {
        warm_up(task, stage, generator)?;
    }
    let what = match stage.component {
        Some(component) => format!("generating, {component}"),
        None => "generating".to_owned(),
    };
    let count = models.len();
    let bar = terminal.steps(what, takes.len() * count * stage.steps.len());
    for (clip, takes) in takes.iter_mut().enumerate() {
        let conditioning = task.conditioning(clip, stage);
        for turn in 0..count {
            let model = (clip + turn) % count;
            let (Some(generator), Some(take)) = (models.get_mut(model), takes.get_mut(model)) else {
                continue;
            };
            let candidate = model.checked_sub(1).and_then(|candidate| candidates.get_mut(candidate));
            let mut transformer = candidate.and_then(|candidate| candidate.transformers.get_mut(place));
            let made = generator.generate_part(
                take.scheduler.as_mut(),
                stage.steps.clone(),
                std::mem::take(&mut take.sample),
                &mut take.step_noise,
                &conditioning,
                &mut |step| {
                    bar.inc(1);
                    if let Some(transformer) = &mut transformer {
                        transformer.broadcast.push(step.flags.to_vec());
                    }
                },
            );
            let made = made.map_err(|error| stage.failure(error))?;
            take.sample = made.sample;
            take.step_milliseconds.extend(made.step_milliseconds);
        }
    }
    bar.finish_and_clear();
    Ok(provider)
}

/// The first runs of a session are slower: memory is allocated and weights are read from the disk.
fn warm_up(task: &Task<'_>, stage: &Stage, generator: &mut Generator) -> Result<(), Failure> {
    let (noise, conditioning) = (task.noise(0)?, task.conditioning(0, stage));
    let own = stage.own(&task.timesteps);
    let mut scheduler: Box<dyn Scheduler> = match own.len() == task.timesteps.len() {
        true => task.scheduler()?,
        false => Box::new(Still(own.to_vec())),
    };
    let warm = generator.warm_up(scheduler.as_mut(), noise, &conditioning);
    warm.map_err(|error| stage.failure(error))
}

/// In the place of a scheduler whose steps do not begin with those of a stage: the sample stays as it is.
struct Still(Vec<f64>);

impl Scheduler for Still {
    fn timesteps(&self) -> &[f64] {
        &self.0
    }

    fn step(
        &mut self,
        _: usize,
        _: ArrayViewD<'_, f32>,
        sample: ArrayViewD<'_, f32>,
        _: &mut dyn NoiseSource,
    ) -> Result<ArrayD<f32>, SamplerError> {
        Ok(sample.to_owned())
    }
}

/// Decodes all clips, and compares those of each candidate with the original's; the shape of what is shown of one.
fn finish(
    task: &Task<'_>,
    candidates: &mut [Candidate],
    takes: Vec<Vec<Take>>,
    terminal: &Terminal,
) -> Result<Vec<usize>, Failure> {
    let mut decoder = task.source.open_decoder(&task.options.session, terminal)?;
    let count = if decoder.is_some() {
        takes.len() * (candidates.len() + 1)
    } else {
        0
    };
    let bar = terminal.steps("decoding", count);
    let (mut shape, mut small) = (Vec::new(), None);
    for (clip, takes) in takes.into_iter().enumerate() {
        let mut shown = |take: Take| -> Result<(ArrayD<f32>, Measured), Failure> {
            terminal.stop().check()?;
            let sample = match &mut decoder {
                Some(decoder) => task.source.decode(decoder, take.sample, clip)?,
                None => take.sample,
            };
            bar.inc(1);
            let times = Measured {
                clip_milliseconds: take.step_milliseconds.iter().sum(),
                step_milliseconds: take.step_milliseconds,
            };
            Ok((to_unit_range(sample.view()), times))
        };
        let mut takes = takes.into_iter();
        let Some(by_original) = takes.next() else { continue };
        let (original, original_times) = shown(by_original)?;
        shape = original.shape().to_vec();
        let (seed, prompt) = (task.seed(clip), task.prompt(clip));
        for (candidate, take) in candidates.iter_mut().zip(takes) {
            let (patched, times) = shown(take)?;
            let quality = match (picture(&original), picture(&patched)) {
                (Some(original), Some(patched)) => match compare(original, patched) {
                    Err(error @ QualityError::Small { .. }) => {
                        small = Some(error);
                        None
                    }
                    compared => Some(compared?),
                },
                _ => None,
            };
            candidate.clips.push(MeasuredClip {
                seed,
                prompt: prompt.cloned(),
                original: original_times.clone(),
                patched: times,
                quality,
            });
            candidate.pictures.push(Both {
                original: original.clone(),
                patched,
                caption: prompt.cloned().unwrap_or_else(|| format!("seed {seed}")),
            });
        }
    }
    bar.finish_and_clear();
    if let Some(small) = small {
        // The clips are made, and their times are known.
        terminal.warning(format!("how close the clips are is not told: {small}"));
    }
    Ok(shape)
}
