//! What a scheduler is made for.

use super::GivenLevels;

/// The size of a video in pixels and frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VideoSize {
    /// Frames of the video, not of the latent.
    pub frames: usize,
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
}

/// What a scheduler is made for: the number of steps, and what some schedulers must know of the clip.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunSettings {
    /// The number of steps.
    pub steps: usize,
    /// How many tokens the transformer sees of the latent: `use_dynamic_shifting` shifts the noise levels by it.
    pub tokens: Option<usize>,
    /// The size of the video: Open-Sora's `use_timestep_transform` shifts the timesteps by it.
    pub video: Option<VideoSize>,
    /// The class of diffusers' pipeline (`_class_name` of `model_index.json`): some give
    /// `FlowMatchEulerDiscreteScheduler` sigmas of their own, see [`super::FlowSpacing`].
    pub pipeline: Option<String>,
    /// Levels that are given in the place of those that come of the number of steps.
    pub levels: Option<GivenLevels>,
}

impl RunSettings {
    /// A run of this many steps of which nothing else is known.
    pub fn of_steps(steps: usize) -> RunSettings {
        RunSettings {
            steps,
            ..RunSettings::default()
        }
    }
}
