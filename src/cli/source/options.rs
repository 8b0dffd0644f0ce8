//! The arguments that say what clips are made with: a pipeline's parts, sizes, and what its decoder is told.

use crate::cli::args::{SamplingOptions, SessionOptions};
use crate::cli::values::finite;
use clap::Args;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, Default, Args)]
pub struct SourceOptions {
    /// Another transformer than transformer/model.onnx of the pipeline
    #[arg(long, value_name = "FILE")]
    pub transformer: Option<PathBuf>,
    /// The transformer for the steps with little noise, of pipelines that have two (Wan 2.2) [default: transformer_2/model.onnx
    /// of the pipeline]
    #[arg(long, value_name = "FILE")]
    pub transformer_2: Option<PathBuf>,
    /// Scale of guidance in the steps of that transformer [default: that of --guidance]
    #[arg(long, value_name = "SCALE", value_parser = finite, allow_negative_numbers = true)]
    pub guidance_2: Option<f32>,
    /// What guidance leads away from [default: the empty prompt]
    #[arg(long, value_name = "PROMPT", conflicts_with = "prompt_embeds")]
    pub negative_prompt: Option<String>,
    /// Height in pixels, where the model leaves it open; of a single model in values of its latent, as width and frames are
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub height: Option<u16>,
    /// Width in pixels, where the model leaves it open
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub width: Option<u16>,
    /// Number of frames, where the model leaves it open
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub frames: Option<u16>,
    /// The timestep of the decoder, 0 to 1, of VAEs that are a last step of denoising (LTX-Video from 0.9.1 on) [default: 0]
    #[arg(long, value_name = "T", value_parser = finite)]
    pub decode_timestep: Option<f32>,
    /// The share of noise that is mixed into the latents before that decoder, 0 to 1 [default: that of --decode-timestep]
    #[arg(long, value_name = "SHARE", value_parser = finite)]
    pub decode_noise_scale: Option<f32>,
    /// That noise, [batch, channels, frames, height, width]: what another program drew [default: drawn from the seed]
    #[arg(long, value_name = "FILE")]
    pub decode_noise: Option<PathBuf>,
}

/// What a command is asked to make clips with.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// A pipeline's folder, or a single model.
    pub model: &'a Path,
    /// What of it, and how large.
    pub source: &'a SourceOptions,
    /// How clips are sampled.
    pub sampling: &'a SamplingOptions,
    /// How models are opened.
    pub session: &'a SessionOptions,
    /// Clips that are made side by side.
    pub batch: usize,
    /// The seed of the first clip.
    pub seed: u64,
    /// Whether no clip is to be decoded.
    pub latents_only: bool,
}
