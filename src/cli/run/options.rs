//! The arguments of `run`.

use super::ranks::RankOptions;
use crate::cli::args::{FormChoice, SamplingOptions, SessionOptions};
use crate::cli::source::{Asked, SourceOptions};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AnimationChoice {
    /// 256 colours a frame
    Gif,
    /// Every colour as it is, as an animated PNG
    Apng,
    /// A film, where the program ffmpeg is installed
    Mp4,
}

impl AnimationChoice {
    /// All of them.
    pub const ALL: [AnimationChoice; 3] = [AnimationChoice::Gif, AnimationChoice::Apng, AnimationChoice::Mp4];

    /// The file in the clip's folder.
    pub fn file(self) -> &'static str {
        match self {
            AnimationChoice::Gif => "clip.gif",
            AnimationChoice::Apng => "clip.apng",
            AnimationChoice::Mp4 => "clip.mp4",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ArraysChoice {
    /// NumPy's
    Npz,
    /// Hugging Face's
    Safetensors,
}

impl ArraysChoice {
    /// The file in the clip's folder.
    pub fn file(self) -> &'static str {
        match self {
            ArraysChoice::Npz => "clip.npz",
            ArraysChoice::Safetensors => "clip.safetensors",
        }
    }
}

#[derive(Clone, Debug, Args)]
pub struct RunOptions {
    /// A pipeline's folder in the layout of diffusers and Optimum, or a single model; original or patched, or the folder that
    /// `split` wrote
    #[arg(value_name = "PIPELINE_DIR|MODEL")]
    pub model: PathBuf,
    #[command(flatten)]
    pub source: SourceOptions,
    /// Keep both transformers open from prompt to prompt, which takes the memory of both [default: each is opened when its steps
    /// begin, and the other closed before]
    #[arg(long)]
    pub keep_transformers: bool,
    #[command(flatten)]
    pub session: SessionOptions,
    #[command(flatten)]
    pub ranks: RankOptions,
    #[command(flatten)]
    pub sampling: SamplingOptions,
    /// The timesteps of the steps in the place of a number of steps, the noisiest first, such as 999,749,499,249
    #[arg(long, value_delimiter = ',', value_name = "T,T,…", conflicts_with_all = ["steps", "sigmas"])]
    pub timesteps: Vec<f64>,
    /// The noise levels of the steps in the place of a number of steps; EulerDiscreteScheduler takes the one after the last
    /// step too
    #[arg(long, value_delimiter = ',', value_name = "S,S,…", conflicts_with = "steps")]
    pub sigmas: Vec<f64>,
    /// The prompt; of a single model in words of the prompt table beside it
    #[arg(long)]
    pub prompt: Option<String>,
    /// A file with a prompt in each line; every clip gets a folder of its own (clip_000, clip_001, …)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt", "prompt_embeds"])]
    pub prompts: Option<PathBuf>,
    /// Go on from the clips that an earlier run of the same --prompts left in the folder, by its run.json: those that are
    /// complete are kept, those without pictures are decoded, the others are made
    #[arg(long, requires = "prompts")]
    pub resume: bool,
    /// Clips of each prompt, made side by side
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub batch: u16,
    /// Seed of the noise of the first clip; the following clips have the following seeds
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// How a patched model is run
    #[arg(long, value_enum, default_value_t = FormChoice::Switch)]
    pub form: FormChoice,
    /// With `--form variants` on `--device cuda`: record the kernels of each variant once, and repeat them as a whole
    #[arg(long)]
    pub cuda_graph: bool,
    /// The noise itself, [batch, channels, frames, height, width], instead of a seed: the latents that another program began
    /// with, as .npy, or as `noise` of .npz or .safetensors
    #[arg(long, value_name = "FILE", conflicts_with = "seed")]
    pub noise: Option<PathBuf>,
    /// The noise of the steps, [steps, batch, channels, frames, height, width], for schedulers that draw some: what another
    /// program drew [default: drawn from the seed]
    #[arg(long, value_name = "FILE")]
    pub step_noise: Option<PathBuf>,
    /// Write the sample after every step too (`samples` in the NPZ)
    #[arg(long)]
    pub every_step: bool,
    /// The animation's format (several with commas)
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "gif",
        value_name = "FORMAT"
    )]
    pub animation: Vec<AnimationChoice>,
    /// The format of latents and noise
    #[arg(long, value_enum, default_value_t = ArraysChoice::Npz, value_name = "FORMAT")]
    pub arrays: ArraysChoice,
    /// Write the latents of a pipeline without decoding them
    #[arg(long, conflicts_with_all = ["decoded", "decode_timestep", "decode_noise_scale", "decode_noise"])]
    pub latents_only: bool,
    /// Write the decoded clip as numbers too (`decoded` in the arrays)
    #[arg(long)]
    pub decoded: bool,
    /// Write a trace of the steps and of which rules broadcast, for chrome://tracing or Perfetto
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Folder for frames (PNG), animation and arrays
    #[arg(short, long, value_name = "DIR", default_value = "clip")]
    pub output: PathBuf,
}

impl RunOptions {
    /// What clips are made with.
    pub fn asked(&self) -> Asked<'_> {
        Asked {
            model: &self.model,
            source: &self.source,
            sampling: &self.sampling,
            session: &self.session,
            batch: usize::from(self.batch),
            seed: self.seed,
            latents_only: self.latents_only,
        }
    }
}
