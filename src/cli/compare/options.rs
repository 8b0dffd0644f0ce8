//! The arguments of `compare`.

use crate::cli::args::{CacheOptions, DriveChoice, FormChoice, SamplingOptions, SessionOptions, SeveralRulesOptions};
use crate::cli::source::{Asked, SourceOptions};
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct CompareOptions {
    /// A pipeline's folder in the layout of diffusers and Optimum, whose transformers are not patched, or the exported model
    #[arg(value_name = "PIPELINE_DIR|MODEL")]
    pub model: PathBuf,
    #[command(flatten)]
    pub source: SourceOptions,
    #[command(flatten)]
    pub rules: SeveralRulesOptions,
    #[command(flatten)]
    pub caches: CacheOptions,
    #[command(flatten)]
    pub session: SessionOptions,
    #[command(flatten)]
    pub sampling: SamplingOptions,
    /// A prompt (may be given several times; clips take them in turn) [default: of a single model from the prompt table]
    #[arg(long = "prompt")]
    pub prompt: Vec<String>,
    /// Number of clips
    #[arg(long, default_value_t = 4, value_name = "N")]
    pub clips: usize,
    /// Rounds in which the work that the rules remove is timed, six of them each time the static graphs are opened
    #[arg(long, default_value_t = 18, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub rounds: u16,
    /// Seed of the first clip's noise; the following clips have the following seeds
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// What tells the patched model which rules broadcast
    #[arg(long, value_enum, default_value_t = DriveChoice::Flags)]
    pub drive: DriveChoice,
    /// How the patched model is run
    #[arg(long, value_enum, default_value_t = FormChoice::Switch)]
    pub form: FormChoice,
    /// With `--form variants` on `--device cuda`: record the kernels of each variant once, and repeat them as a whole
    #[arg(long)]
    pub cuda_graph: bool,
    /// Folder for the patched models, the animation and the figures; with several rules, for a folder of each
    #[arg(short, long, value_name = "DIR", default_value = "comparison")]
    pub output: PathBuf,
}

impl CompareOptions {
    /// What clips are made with: each by itself, so that every one has a seed of its own.
    pub fn asked(&self) -> Asked<'_> {
        Asked {
            model: &self.model,
            source: &self.source,
            sampling: &self.sampling,
            session: &self.session,
            batch: 1,
            seed: self.seed,
            latents_only: false,
        }
    }
}
