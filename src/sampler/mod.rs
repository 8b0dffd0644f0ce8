//! The arithmetic of the denoising loop: noise, schedulers read from diffusers' configuration, guidance.
//!
//! A run goes like this, and whoever owns the model calls the pieces in this order:
//!
//! 1. [`SchedulerConfig::load`] reads `scheduler_config.json`; [`SchedulerConfig::scheduler_for`] makes a [`Scheduler`]
//!    for a number of steps.
//! 2. [`noise`] draws the starting sample from a seed; it is multiplied by [`Scheduler::initial_noise_sigma`].
//! 3. For each of [`Scheduler::timesteps`]: [`Scheduler::scale_model_input`], the model, [`guide`] where guidance is on,
//!    [`Scheduler::step`], which asks a [`NoiseSource`] where the scheduler draws noise.
//!
//! One file a scheduler: `ddim`, `ddpm`, `pndm`, `euler`, `euler_ancestral`, `heun`, `lcm`, `dpm_solver`, `unipc`,
//! `flow_match`, `cogvideox`, `rectified_flow`. What they share has a home each: the trained noise levels (`trained`,
//! `betas`), which timesteps a run visits (`spacing`, or `given_levels` instead), sigmas (`sigmas`, `exploding`, `solver`), shifts of
//! flows (`flow_spacing`, `flow_shift`), what the
//! model's output says (`prediction`, `limit`), sums and memory (`arithmetic`). `linear` tells a run of any of them as weights
//! of sums, for steps on a device.

mod arithmetic;
mod beta_distribution;
mod betas;
mod cogvideox;
mod configuration;
mod ddim;
mod ddpm;
mod dpm_solver;
mod error;
mod euler;
mod euler_ancestral;
mod exploding;
mod fields;
mod flow_match;
mod flow_shift;
mod flow_spacing;
mod given_levels;
mod guidance;
mod heun;
mod lcm;
mod limit;
mod linear;
mod noise;
mod noise_source;
mod pndm;
mod prediction;
mod rectified_flow;
mod scheduler;
mod settings;
mod sigmas;
mod solver;
mod spacing;
mod trained;
mod unipc;

pub use betas::BetaSchedule;
use cogvideox::CogVideoXConfig;
pub use configuration::SchedulerConfig;
pub use ddim::{Ddim, DdimConfig};
use ddpm::DdpmConfig;
use dpm_solver::DpmSolverConfig;
pub use error::SamplerError;
use euler::EulerConfig;
use euler_ancestral::EulerAncestralConfig;
use flow_match::FlowMatchConfig;
pub use flow_spacing::FlowSpacing;
pub use given_levels::GivenLevels;
pub use guidance::{CHANNEL_AXIS, first_channels, guide, repeat_batch};
use heun::HeunConfig;
use lcm::LcmConfig;
pub use limit::Limit;
pub use linear::{LinearRun, LinearStep, Memory, Weights, elementwise, linear_run};
pub use noise::noise;
pub use noise_source::{GivenNoise, NoisePart, NoiseSource, SeededBatch, SeededNoise};
use pndm::PndmConfig;
pub use prediction::PredictionType;
use rectified_flow::RectifiedFlowConfig;
pub use scheduler::Scheduler;
pub use settings::{RunSettings, VideoSize};
pub use spacing::TimestepSpacing;
use unipc::UniPcConfig;

#[cfg(test)]
mod tests;
