//! The options of `calibrate`.

use crate::cli::args::{SamplingOptions, SessionOptions};
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct CalibrateOptions {
    /// The exported model, not patched
    pub model: PathBuf,
    #[command(flatten)]
    pub session: SessionOptions,
    #[command(flatten)]
    pub sampling: SamplingOptions,
    #[command(flatten)]
    pub target: TargetOptions,
    /// A prompt for fitting (may be given several times; clips take them in turn) [default: from the prompt table]
    #[arg(long = "prompt")]
    pub prompt: Vec<String>,
    /// A prompt for judging (likewise) [default: others of the prompt table]
    #[arg(long = "judge-prompt")]
    pub judge_prompt: Vec<String>,
    /// Clips for fitting: everything is measured on each
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub clips: usize,
    /// Clips for judging, of seeds and prompts that fitting never saw; 0 judges nothing
    #[arg(long, default_value_t = 4, value_name = "N")]
    pub judge_clips: usize,
    /// Seed of the first clip for fitting; the following clips have the following seeds
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Seed of the first clip for judging
    #[arg(long, default_value_t = 1000, value_name = "SEED")]
    pub judge_seed: u64,
    /// Rules to judge beside the fitted ones: a file, or a preset's name (may be given several times)
    #[arg(long = "against", value_name = "FILE|PRESET")]
    pub against: Vec<String>,
    /// The scheduler_config.json of a second run that rules are fitted to as well [default: that of the first]
    #[arg(long, value_name = "FILE")]
    pub also_scheduler: Option<PathBuf>,
    /// Denoising steps of the second run that rules are fitted to as well [default: as for the first]
    #[arg(long, value_name = "N")]
    pub also_steps: Option<usize>,
    /// Numbers of steps of the original that are judged beside the rules, as far as they are below a run's own
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    pub against_steps: Vec<usize>,
    /// A scheduler_config.json that nothing was fitted to, with which the same rules are judged again
    #[arg(long, value_name = "FILE")]
    pub judge_scheduler: Option<PathBuf>,
    /// Denoising steps of that judging [default: as for fitting]
    #[arg(long, value_name = "N")]
    pub judge_steps: Option<usize>,
    /// Windows that the run is parted into
    #[arg(long, default_value_t = 4, value_name = "N")]
    pub windows: usize,
    /// Ranges that are tried in each window, in steps of --steps; rules have them in timesteps
    #[arg(long, value_delimiter = ',', default_values_t = [2, 3, 5], value_name = "N,…")]
    pub ranges: Vec<u32>,
    /// Ways to patch that are tried: span-1, span-2, inner-1, span (blocks as a whole, forecast along a line or a parabola, or
    /// repeated), sites-1, sites (each kind of site by itself, forecast or repeated) [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    pub forms: Vec<String>,
    /// Points of the frontier that are run to verify what was predicted
    #[arg(long, default_value_t = 6, value_name = "N")]
    pub points: usize,
    /// The relative change (L2) up to which a step counts as stable
    #[arg(long, default_value_t = 0.1, value_name = "SHARE")]
    pub stable_below: f64,
    /// Go on from what an interrupted calibration left in the output folder; with other settings than those of then it is an
    /// error that names them
    #[arg(long)]
    pub resume: bool,
    /// Folder for the rules, the curves, the plots and calibration.json
    #[arg(short, long, value_name = "DIR", default_value = "calibration")]
    pub output: PathBuf,
}

/// What rules.yaml is chosen by.
#[derive(Debug, Args)]
pub struct TargetOptions {
    /// The fastest rules with at least this PSNR in dB (of the mean squared error over clips)
    #[arg(long, value_name = "DB", group = "target")]
    pub min_psnr: Option<f64>,
    /// The fastest rules with at least this mean SSIM [default: 0.95]
    #[arg(long, value_name = "SSIM", group = "target")]
    pub min_ssim: Option<f64>,
    /// The best rules that take at most this share of the original's time
    #[arg(long, value_name = "SHARE", group = "target")]
    pub max_time: Option<f64>,
    /// Only the frontier: no rules.yaml is chosen
    #[arg(long, group = "target")]
    pub frontier: bool,
    /// Every clip for fitting has to keep the target, and not their mean
    #[arg(long, conflicts_with = "frontier")]
    pub each_clip: bool,
}
