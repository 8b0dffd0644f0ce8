//! Why a pipeline cannot be run.

use crate::generation::GenerationError;
use crate::onnx::OnnxError;
use crate::runtime::RuntimeError;
use std::path::PathBuf;

/// Why a pipeline cannot be run. Each error names the file and says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// A folder that is no pipeline.
    #[error(
        "{}: no model_index.json is in it, so it is no pipeline; give the folder that diffusers or Optimum wrote, or a model \
         file",
        folder.display()
    )]
    NoIndex {
        /// The folder.
        folder: PathBuf,
    },
    /// A file of the folder that cannot be read, or does not say what it should.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A component without a model.
    #[error(
        "{}: the pipeline needs its {component} as ONNX there; {advice}",
        path.display()
    )]
    MissingModel {
        /// Where it is looked for.
        path: PathBuf,
        /// The component.
        component: String,
        /// What to do.
        advice: &'static str,
    },
    /// A pipeline of a class that is not known.
    #[error(
        "{}: pipelines of class `{class}` are not known; known are {known}. Run the transformer alone, with its prompt as \
         --prompt-embeds FILE.npy and its other inputs as --input NAME=FILE.npy",
        path.display()
    )]
    Class {
        /// The index.
        path: PathBuf,
        /// The class.
        class: String,
        /// The classes that are known.
        known: String,
    },
    /// A component that holds no tokenizer.
    #[error(
        "{}: no tokenizer.json is there{found}; make it with `python -c \"from transformers import AutoTokenizer as T; \
         T.from_pretrained('{0}').save_pretrained('{0}')\"`",
        folder.display()
    )]
    NoTokenizer {
        /// The component's folder.
        folder: PathBuf,
        /// What is there instead.
        found: &'static str,
    },
    /// A text encoder or decoder whose inputs or outputs are others than expected.
    #[error("{}: {reason}", model.display())]
    Ports {
        /// The model.
        model: PathBuf,
        /// What does not fit, and what to do.
        reason: String,
    },
    /// A size in pixels that no latent has.
    #[error("--{option} {size}: {reason}; the nearest that do are {nearest}")]
    Size {
        /// The option.
        option: &'static str,
        /// What it says.
        size: usize,
        /// What is wrong.
        reason: String,
        /// Sizes that fit.
        nearest: String,
    },
    /// A size that the transformer fixes otherwise.
    #[error(
        "--{option} {given}: the model is made for {fixed}; leave the option out, or export the model with open sizes"
    )]
    Fixed {
        /// The option.
        option: &'static str,
        /// What it says.
        given: usize,
        /// What the model is made for.
        fixed: usize,
    },
    /// A number of tokens that the transformer fixes otherwise.
    #[error(
        "--{option}: they make {given} tokens of the latent, and the model is made for {fixed}; give the sizes that it was \
         exported with, or export it with open sizes"
    )]
    Tokens {
        /// The options.
        option: &'static str,
        /// The tokens that they make.
        given: usize,
        /// What the model is made for.
        fixed: usize,
    },
    /// Patches that hold no whole number of channels.
    #[error(
        "the model's input `{input}` has {channels} channels, which are no patches of {values} values; export the \
         transformer of the pipeline"
    )]
    Channels {
        /// The input.
        input: String,
        /// Its channels.
        channels: usize,
        /// Values of a patch.
        values: usize,
    },
    /// A size that neither model nor command line gives.
    #[error("{axis} of the model's input `{input}` is open; give it with --{option} N, or --size {symbol}=N")]
    Open {
        /// The input.
        input: String,
        /// The dimension's name.
        symbol: String,
        /// The axis in words.
        axis: &'static str,
        /// The option.
        option: &'static str,
    },
    /// Latents of a shape that the decoder cannot take.
    #[error("{}: {reason}", model.display())]
    Latents {
        /// The decoder.
        model: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A run that passes the boundary between two transformers more than once.
    #[error(
        "{}: steps from timestep {boundary} on are the first transformer's, those below the second's, and step {step} (timestep \
         {timestep}) would lead back to the first; take a scheduler whose timesteps only fall (--scheduler FILE)",
        index.display()
    )]
    Boundary {
        /// The index with the boundary.
        index: PathBuf,
        /// The boundary's timestep.
        boundary: f64,
        /// The step that leads back, from 0.
        step: usize,
        /// Its timestep.
        timestep: f64,
    },
    /// Two transformers that do not take the same inputs.
    #[error(
        "{}: {reason}, unlike {}; both transformers take the same latents and texts in turn: export them alike",
        model.display(),
        first.display()
    )]
    Unlike {
        /// The second transformer.
        model: PathBuf,
        /// The first.
        first: PathBuf,
        /// In what they differ.
        reason: String,
    },
    /// The format of a model file.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// ONNX Runtime.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// Roles and sizes of the transformer.
    #[error(transparent)]
    Generation(#[from] GenerationError),
}
