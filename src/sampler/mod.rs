//! The arithmetic of the denoising loop: starting noise, schedulers read from diffusers' configuration, guidance.
//!
//! A run goes like this, and whoever owns the model calls the pieces in this order:
//!
//! 1. [`SchedulerConfig::load`] reads `scheduler_config.json`; [`SchedulerConfig::scheduler`] makes a [`Scheduler`]
//!    for a number of steps.
//! 2. [`noise`] draws the starting sample from a seed; it is multiplied by [`Scheduler::initial_noise_sigma`].
//! 3. For each step: [`Scheduler::scale_model_input`], the model, [`guide`] where guidance is on,
//!    [`Scheduler::step`].

mod betas;
mod configuration;
mod ddim;
mod error;
mod fields;
mod guidance;
mod noise;
mod scheduler;
mod spacing;

pub use betas::BetaSchedule;
pub use configuration::{DdimConfig, Limit, SchedulerConfig};
pub use ddim::{Ddim, PredictionType};
pub use error::SamplerError;
pub use guidance::{CHANNEL_AXIS, first_channels, guide, repeat_batch};
pub use noise::noise;
pub use scheduler::Scheduler;
pub use spacing::TimestepSpacing;
