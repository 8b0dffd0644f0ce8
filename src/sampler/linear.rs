//! Schedulers as sums: what a step makes of the sample, the model's output, noise and what earlier steps left, as weights.
//!
//! With these weights a step can be taken where the sample lies, on a device, by multiplications and additions alone. They
//! are not written down a second time for each scheduler: a step works on every element by itself and is linear, so it is
//! run here on unit vectors, and what comes out are its weights. [`Scheduler::memory`] says what is left to later steps.

use ndarray::{ArrayD, IxDyn};

use super::{Limit, NoiseSource, SamplerError, Scheduler};

/// What a scheduler leaves to its later steps, and how it keeps the predicted clean sample in range.
#[derive(Debug, Default)]
pub struct Memory<'s> {
    /// Arrays of the sample's shape, of which later steps make sums.
    pub kept: Vec<&'s mut ArrayD<f32>>,
    /// The only part of a step that is no sum, where there is one.
    pub limit: Option<&'s mut Limit>,
}

/// The largest number of arrays that a scheduler may keep.
const MOST_KEPT: usize = 16;

/// A scheduler's run as sums.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearRun {
    /// How many arrays are kept from step to step; before the first step they are zeros.
    pub kept: usize,
    /// What the predicted clean sample is clamped to.
    pub clip: Option<f32>,
    /// What the sample is multiplied by before the model is given it, one number a call.
    pub scales: Vec<f32>,
    /// One a call of the model.
    pub steps: Vec<LinearStep>,
}

/// A step as sums.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearStep {
    /// The weights of output and sample in the predicted clean sample, where that is clamped.
    pub clean: Option<(f32, f32)>,
    /// The next sample.
    pub next: Weights,
    /// What is kept behind the step.
    pub kept: Vec<Weights>,
}

/// The weights of a sum.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights {
    /// Of the sample before the step.
    pub sample: f32,
    /// Of the model's output, guided already.
    pub output: f32,
    /// Of new noise.
    pub noise: f32,
    /// Of the clamped clean sample.
    pub clean: f32,
    /// Of what was kept.
    pub kept: Vec<f32>,
}

impl LinearStep {
    /// Whether it adds noise.
    #[must_use]
    pub fn draws(&self) -> bool {
        self.sums().any(|sum| sum.noise != 0.0)
    }

    /// All sums: the next sample, and what is kept.
    pub fn sums(&self) -> impl Iterator<Item = &Weights> {
        std::iter::once(&self.next).chain(&self.kept)
    }
}

/// The places of a unit vector's ones; behind them are those of what is kept.
const SAMPLE: usize = 0;
const OUTPUT: usize = 1;
const NOISE: usize = 2;
const KEPT: usize = 3;
const PLACES: usize = KEPT + MOST_KEPT;

/// The run of a scheduler as sums. The scheduler is then where it would be behind a run, and begins anew with its first
/// step; its limit is as it was.
///
/// # Errors
/// Why the scheduler cannot be told by sums, in words; those of its own steps too.
pub fn linear_run(scheduler: &mut dyn Scheduler) -> Result<LinearRun, String> {
    let limit = elementwise(scheduler)?;
    let clip = match limit {
        Limit::Clip(range) => Some(range),
        _ => None,
    };
    let made = sums(scheduler, clip);
    if let Some(limit_place) = scheduler.memory().and_then(|memory| memory.limit) {
        *limit_place = limit;
    }
    let steps = made?;
    let count = steps.len();
    let one = ArrayD::from_elem(IxDyn(&[1]), 1.0);
    let scale = |index| {
        let scaled = scheduler.scale_model_input(index, one.clone()).map_err(said)?;
        Ok(scaled.first().copied().unwrap_or(1.0))
    };
    let run = LinearRun {
        kept: steps.iter().map(|step| step.kept.len()).max().unwrap_or(0),
        clip,
        scales: (0..count).map(scale).collect::<Result<_, String>>()?,
        steps,
    };
    match run.is_finite() {
        true => Ok(run),
        false => Err("its weights are not finite".to_owned()),
    }
}

/// The limit of a scheduler whose steps work on every element of the sample by itself, so that parts of a sample can be
/// stepped apart from each other.
///
/// # Errors
/// Why it needs the whole sample, in words.
pub fn elementwise(scheduler: &mut dyn Scheduler) -> Result<Limit, String> {
    match scheduler.memory() {
        None => Err("it does not say what it keeps between steps".to_owned()),
        Some(memory) => match memory.limit.map_or(Limit::None, |limit| *limit) {
            Limit::Threshold { .. } => Err("`thresholding` needs all elements of the sample at once".to_owned()),
            limit => Ok(limit),
        },
    }
}

/// The steps as sums; where the clean sample is clamped, as the difference of a run without the limit and one in which the
/// limit leaves nothing of it.
fn sums(scheduler: &mut dyn Scheduler, clip: Option<f32>) -> Result<Vec<LinearStep>, String> {
    let with = |scheduler: &mut dyn Scheduler, limit: Limit| {
        if let Some(place) = scheduler.memory().and_then(|memory| memory.limit) {
            *place = limit;
        }
        pass(scheduler)
    };
    let whole = with(scheduler, Limit::None)?;
    if clip.is_none() {
        return Ok(whole.into_iter().map(|rows| step(rows, None)).collect());
    }
    let rest = with(scheduler, Limit::Clip(0.0))?;
    let both = whole.into_iter().zip(rest).enumerate();
    let steps = both.map(|(index, (whole, rest))| {
        let Some(clean) = scheduler.clean_weights(index) else {
            return Err("it does not say what it clamps".to_owned());
        };
        // Rows are equal but for what the clamped sample gives them, which is a multiple of its own weights.
        let (place, weight) = match clean.0.abs() > clean.1.abs() {
            true => (OUTPUT, clean.0),
            false => (SAMPLE, clean.1),
        };
        let of_clean = whole.iter().zip(&rest).map(|(whole, rest)| {
            let difference = at(whole, place) - at(rest, place);
            if weight == 0.0 { 0.0 } else { difference / weight }
        });
        let of_clean: Vec<f32> = of_clean.collect();
        Ok(step(rest, Some((clean, of_clean))))
    });
    steps.collect()
}

/// For each step the rows of the next sample and of what is kept, over the places of a unit vector.
fn pass(scheduler: &mut dyn Scheduler) -> Result<Vec<Vec<Vec<f32>>>, String> {
    let count = scheduler.timesteps().len();
    let mut steps = Vec::with_capacity(count);
    for index in 0..count {
        let (sample, output) = (unit(SAMPLE), unit(OUTPUT));
        let next = scheduler.step(index, output.view(), sample.view(), &mut UnitNoise);
        let mut rows = vec![next.map_err(said)?.iter().copied().collect::<Vec<f32>>()];
        let kept = scheduler.memory().map(|memory| memory.kept).unwrap_or_default();
        if kept.len() > MOST_KEPT {
            return Err(format!("it keeps {} arrays between steps", kept.len()));
        }
        for (place, array) in kept.into_iter().enumerate() {
            rows.push(array.iter().copied().collect());
            // For the steps that come it stands for itself.
            *array = unit(KEPT + place);
        }
        steps.push(rows);
    }
    Ok(steps)
}

/// A step from its rows.
fn step(rows: Vec<Vec<f32>>, limited: Option<((f32, f32), Vec<f32>)>) -> LinearStep {
    let of_clean = |index: usize| {
        let weights = limited.as_ref().map(|(_, of_clean)| of_clean);
        weights.and_then(|weights| weights.get(index)).copied().unwrap_or(0.0)
    };
    let mut sums = rows.iter().enumerate().map(|(index, row)| Weights {
        sample: at(row, SAMPLE),
        output: at(row, OUTPUT),
        noise: at(row, NOISE),
        clean: of_clean(index),
        kept: row.get(KEPT..).unwrap_or_default().to_vec(),
    });
    LinearStep {
        next: sums.next().unwrap_or_default(),
        kept: sums.collect(),
        clean: limited.as_ref().map(|(clean, _)| *clean),
    }
}

fn at(row: &[f32], place: usize) -> f32 {
    row.get(place).copied().unwrap_or(0.0)
}

fn unit(place: usize) -> ArrayD<f32> {
    let one = |index: usize| if index == place { 1.0 } else { 0.0 };
    ArrayD::from_shape_fn(IxDyn(&[PLACES]), |index| one(index[0]))
}

fn said(error: SamplerError) -> String {
    error.to_string()
}

/// Noise that stands for itself.
struct UnitNoise;

impl NoiseSource for UnitNoise {
    fn draw(&mut self, _: usize, _: &[usize]) -> Result<ArrayD<f32>, SamplerError> {
        Ok(unit(NOISE))
    }
}

impl LinearRun {
    fn is_finite(&self) -> bool {
        let steps = self.steps.iter();
        let sums = steps.flat_map(|step| step.sums());
        let numbers = sums.flat_map(|sum| {
            let own = [sum.sample, sum.output, sum.noise, sum.clean];
            own.into_iter().chain(sum.kept.iter().copied())
        });
        numbers.chain(self.scales.iter().copied()).all(f32::is_finite)
    }
}

#[cfg(test)]
mod tests;
