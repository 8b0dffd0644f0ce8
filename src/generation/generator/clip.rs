//! What comes out of a run, and which of its steps are made.

use ndarray::{ArrayD, ArrayViewD};
use std::ops::Range;
use std::time::Instant;

/// A step that was done, as it is told to who watches.
#[derive(Clone, Debug)]
pub struct StepDone<'a> {
    /// Which step, from 0.
    pub index: usize,
    /// Its timestep.
    pub timestep: f64,
    /// When it began.
    pub begun: Instant,
    /// How long it took: the model, guidance and the scheduler's step.
    pub milliseconds: f64,
    /// For each rule of the plan whether it broadcast; of adaptive ones what the model decided.
    pub flags: &'a [bool],
    /// The sample after it; none where it stays on a device and [`super::Generator::show_samples`] was not asked for.
    pub sample: Option<ArrayViewD<'a, f32>>,
}

/// A clip as it was made.
#[derive(Clone, Debug)]
pub struct Clip {
    /// The denoised sample, `[batch, channels, frames, height, width]`.
    pub sample: ArrayD<f32>,
    /// The time of each step in milliseconds: the model, guidance and the scheduler's step.
    pub step_milliseconds: Vec<f64>,
}

impl Clip {
    /// The time of the whole clip in milliseconds.
    pub fn milliseconds(&self) -> f64 {
        self.step_milliseconds.iter().sum()
    }
}

/// Which steps of a run the model makes.
#[derive(Clone, Debug)]
pub(super) struct Steps {
    /// Those that are its own; the others are another model's.
    pub own: Range<usize>,
    /// How many of them are made at most.
    pub limit: usize,
}

impl Steps {
    /// All of them.
    pub const WHOLE: Steps = Steps {
        own: 0..usize::MAX,
        limit: usize::MAX,
    };
}
