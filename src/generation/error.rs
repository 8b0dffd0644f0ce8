//! Why a clip could not be made.

use crate::rewrite::PlanError;
use crate::runtime::RuntimeError;
use crate::sampler::SamplerError;
use crate::stop::Stopped;
use std::path::PathBuf;

/// Why a clip could not be made.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// An input of the model that nobody knows how to feed.
    #[error(
        "input `{input}` ({description}) is neither latent, timestep nor text as far as can be told; give it a value \
         with --input {input}=FILE.npy"
    )]
    UnknownInput {
        /// The input.
        input: String,
        /// Its type.
        description: String,
    },
    /// An input that every diffusion transformer needs is missing, or there are several.
    #[error("{found} inputs could be the {role} ({candidates}); exactly one is needed{advice}")]
    AmbiguousRole {
        /// The role.
        role: &'static str,
        /// How many were found.
        found: usize,
        /// Their names.
        candidates: String,
        /// What to do.
        advice: &'static str,
    },
    /// A size that neither model nor command line gives.
    #[error("dimension `{symbol}` of input `{input}` is open in the model; give it with --size {symbol}=N")]
    OpenSize {
        /// The input.
        input: String,
        /// The dimension's name.
        symbol: String,
    },
    /// Guidance needs a batch that the model does not take.
    #[error(
        "the model takes a batch of {batch}, and a run {} classifier-free guidance{} needs {needed}; {}",
        if *guided { "with" } else { "without" },
        if *clips > 1 { " and with so many clips" } else { "" },
        batch_advice(*guided, *clips, option)
    )]
    Batch {
        /// What the model takes.
        batch: i64,
        /// What is needed.
        needed: usize,
        /// Whether there is guidance.
        guided: bool,
        /// Clips that are made side by side.
        clips: usize,
        /// The option that sets the scale of guidance.
        option: &'static str,
    },
    /// The model wants text and none was given.
    #[error(
        "the model has a text input `{input}`; give --prompt (of a pipeline, or with a prompt table beside the model), \
         --prompt-embeds FILE.npy or --input {input}=FILE.npy"
    )]
    NoText {
        /// The input.
        input: String,
    },
    /// Prompt and empty prompt differ in length or width.
    #[error("texts are [tokens, width]: the prompt has {prompt:?} and the empty prompt {empty:?}; both must be equal")]
    TextShape {
        /// Of the prompt.
        prompt: Vec<usize>,
        /// Of the empty prompt.
        empty: Vec<usize>,
    },
    /// A word that the prompt table does not know, or a group without a word.
    #[error("prompt `{prompt}`: {reason}; {allowed}")]
    Prompt {
        /// The prompt.
        prompt: String,
        /// What is wrong.
        reason: String,
        /// What is allowed.
        allowed: String,
    },
    /// A prompt table that cannot be used.
    #[error("{}: not a usable prompt table: {reason}", path.display())]
    PromptTable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The model's output is not one tensor of the latent's size.
    #[error("the model puts out {found}; a noise or velocity prediction shaped like the latent {latent:?} is expected")]
    Output {
        /// What it puts out.
        found: String,
        /// The latent's shape.
        latent: Vec<usize>,
    },
    /// The sample is no picture any more.
    #[error(
        "after step {step} (timestep {timestep}, {}) {count} values of the sample are NaN or infinite, {}; {}",
        broadcasting(rules),
        if *by_model { "and so is what the model put out" } else { "though what the model put out is not" },
        overflow_advice(*patched)
    )]
    NotFinite {
        /// The step, from 0.
        step: usize,
        /// Its timestep.
        timestep: f64,
        /// How many values.
        count: usize,
        /// Whether the model gave them, or guidance and the scheduler made them.
        by_model: bool,
        /// The rules that broadcast in the step.
        rules: Vec<String>,
        /// Whether the model is patched.
        patched: bool,
    },
    /// The model takes whole timesteps, and the scheduler gives others.
    #[error(
        "input `{input}` ({description}) takes whole timesteps, and this scheduler's are not, such as {timestep} of step \
         {step}; use the scheduler that the model was exported for (--scheduler FILE), a --steps that divides its timesteps, \
         or export the model with a float32 timestep"
    )]
    WholeTimesteps {
        /// The input.
        input: String,
        /// Its type.
        description: String,
        /// The first step whose timestep it cannot take, from 0.
        step: usize,
        /// That timestep.
        timestep: f64,
    },
    /// Flags and caches without a plan.
    #[error(
        "the model has flags and caches of a patched model, but its plan (metadata `pab.plan`) is gone; patch the original again"
    )]
    NoPlan,
    /// The model's schedule is for another run.
    #[error(
        "the model is made for {planned}, and this run has {run}; run it with the scheduler and --steps that it was \
         patched with, or patch the original again with those of this run, or with --drive flags for any run"
    )]
    OtherRun {
        /// The run that the model is made for.
        planned: String,
        /// The run at hand.
        run: String,
    },
    /// A size was given for a dimension that is not open.
    #[error("`{name}` is no open dimension of the model that --size could set; those are: {open}")]
    UnknownSize {
        /// The name.
        name: String,
        /// The open dimensions.
        open: String,
    },
    /// The plan of a patched model.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The plan names an element type that a host cannot hold.
    #[error(
        "cache `{cache}` has elements of type {element_type}, which this program does not handle; patch the model again"
    )]
    CacheType {
        /// The cache.
        cache: String,
        /// The type.
        element_type: String,
    },
    /// The clip was given up because that was asked for.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// ONNX Runtime.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The scheduler.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
}

impl GenerationError {
    /// The same error of steps whose scale of guidance another option sets.
    #[must_use]
    pub fn with_guidance_option(mut self, name: &'static str) -> GenerationError {
        if let GenerationError::Batch { option, .. } = &mut self {
            *option = name;
        }
        self
    }
}

/// What to try where the model's batch is another.
fn batch_advice(guided: bool, clips: usize, option: &str) -> String {
    match (guided, clips) {
        (_, 2..) => "use another --batch, or export the model with a dynamic batch".to_owned(),
        (false, _) => format!("use {option} other than 1, or export the model with a dynamic batch"),
        (true, _) => format!("use {option} 1, or export the model with a batch of 2 or a dynamic batch"),
    }
}

/// What a step broadcast, in words.
fn broadcasting(rules: &[String]) -> String {
    match rules {
        [] => "nothing broadcast".to_owned(),
        rules => format!("broadcasting {}", rules.join(", ")),
    }
}

/// What to try where numbers overflow.
fn overflow_advice(patched: bool) -> &'static str {
    match patched {
        true => {
            "run the original model with the same options. If it fails too, take a smaller --guidance, check --noise and the \
             prompt's embeddings, or export the model in a wider type; if not, patch it again with --cache-dtype f32 or \
             with narrower windows"
        }
        false => {
            "take a smaller --guidance, check --noise and the prompt's embeddings, or export the model in a wider type"
        }
    }
}
