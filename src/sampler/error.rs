//! What can go wrong between a scheduler configuration and a finished sample.

use std::path::PathBuf;

/// An error of the sampler. Each says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum SamplerError {
    /// The configuration file cannot be read.
    #[error("{}: cannot read the scheduler configuration: {source}; give the path of a diffusers scheduler_config.json", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The text is not JSON.
    #[error(
        "{file}: not valid JSON at line {line}, column {column}: {reason}; save the scheduler again with diffusers' `save_pretrained`"
    )]
    Json {
        /// The file's name.
        file: String,
        /// Line, from one.
        line: usize,
        /// Column, from one.
        column: usize,
        /// The parser's reason.
        reason: String,
    },
    /// The JSON is not an object.
    #[error("{file}: the scheduler configuration must be a JSON object with `_class_name`, but this is {found}")]
    NotAnObject {
        /// The file's name.
        file: String,
        /// What stands there instead.
        found: &'static str,
    },
    /// `_class_name` is missing.
    #[error("{file}: `_class_name` is missing; it must name one of: {supported}")]
    NoClass {
        /// The file's name.
        file: String,
        /// The supported classes.
        supported: String,
    },
    /// A key has a value that is not supported.
    #[error("{file}: `{key}` is {value}, which is not supported; supported: {supported}")]
    Unsupported {
        /// The file's name.
        file: String,
        /// The key.
        key: String,
        /// The value as JSON.
        value: String,
        /// What is supported.
        supported: String,
    },
    /// The number of steps cannot be used with this configuration.
    #[error("{steps} steps cannot be used: this scheduler was trained on {trained} timesteps; choose 1 to {trained}")]
    Steps {
        /// What was asked for.
        steps: usize,
        /// The number of training timesteps.
        trained: usize,
    },
    /// `steps_offset` moves a timestep out of the trained range.
    #[error(
        "step {step} of {steps} would be at timestep {timestep}, outside 0..{trained} (`steps_offset` is {offset}); choose another number of steps or another `steps_offset`"
    )]
    Offset {
        /// The step, from zero.
        step: usize,
        /// The number of steps.
        steps: usize,
        /// The timestep that came out.
        timestep: i64,
        /// The number of training timesteps.
        trained: usize,
        /// The configuration's offset.
        offset: i64,
    },
    /// A step divides by zero with this configuration.
    #[error(
        "step {step} (timestep {timestep}) divides by zero: the cumulated alpha there is {alpha} and `prediction_type` is `{prediction}`; {advice}"
    )]
    Singular {
        /// The step, from zero.
        step: usize,
        /// The timestep.
        timestep: i64,
        /// The cumulated product of alphas there.
        alpha: f32,
        /// The prediction type's name.
        prediction: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// A step has no finite numbers with this configuration.
    #[error("step {step} (timestep {timestep}) would have infinite numbers or none with this configuration; {advice}")]
    Coefficients {
        /// The step, from zero.
        step: usize,
        /// The timestep.
        timestep: f64,
        /// What to do.
        advice: &'static str,
    },
    /// The scheduler must know more of the run.
    #[error("{class}: with `{key}` the timesteps depend on {what}; {advice}")]
    Unknown {
        /// The class.
        class: &'static str,
        /// The key that makes it so.
        key: &'static str,
        /// What must be known.
        what: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// Levels that are given and cannot be used.
    #[error("the given {word} cannot be used: {reason}")]
    Given {
        /// Timesteps or sigmas.
        word: &'static str,
        /// Why not, and what can be done.
        reason: String,
    },
    /// A pipeline gives the scheduler what is not made here.
    #[error(
        "diffusers' {pipeline} gives FlowMatchEulerDiscreteScheduler {own} of its own, which is not made here; to run by the scheduler's own levels, give a copy of its file in another folder with --scheduler"
    )]
    Pipeline {
        /// The pipeline's class.
        pipeline: &'static str,
        /// What it gives.
        own: &'static str,
    },
    /// The options and the number of steps do not go together.
    #[error("{steps} steps cannot be used with this scheduler: {reason}")]
    StepCount {
        /// What was asked for.
        steps: usize,
        /// Why not, and what can be done.
        reason: String,
    },
    /// A scheduler that looks back was not called step by step.
    #[error(
        "this scheduler looks back at earlier steps: after step 0 it goes on step by step, and step {index} came where step {expected} was due"
    )]
    OutOfOrder {
        /// What was asked for.
        index: usize,
        /// What had been due.
        expected: usize,
    },
    /// There is no such step.
    #[error("there is no step {index}: the scheduler was made for {steps} steps, 0 to {}", steps.saturating_sub(1))]
    NoSuchStep {
        /// What was asked for.
        index: usize,
        /// The number of steps.
        steps: usize,
    },
    /// Model output and sample do not fit together.
    #[error(
        "the model's output has shape {output:?} and the sample {sample:?}; they must be equal (for a model that also predicts variances take the first half of the channels, with `guide` or `first_channels`)"
    )]
    Shape {
        /// Shape of the model's output.
        output: Vec<usize>,
        /// Shape of the sample.
        sample: Vec<usize>,
    },
    /// A model output cannot be guided.
    #[error("guidance needs a model output {needed}, but its shape is {shape:?}")]
    Guidance {
        /// What is needed.
        needed: String,
        /// The output's shape.
        shape: Vec<usize>,
    },
    /// Noise of this shape cannot exist.
    #[error(
        "cannot make noise of shape {shape:?}: it has more elements than this machine can address; check frames and size"
    )]
    NoiseShape {
        /// The shape asked for.
        shape: Vec<usize>,
    },
    /// Noise that was given does not fit the run.
    #[error(
        "the steps' noise has shape {given:?}, and {draws} steps need [{draws} or more, then {shape:?}]; give noise for each step of this run"
    )]
    GivenNoise {
        /// The shape that was given.
        given: Vec<usize>,
        /// The number of steps that draw noise.
        draws: usize,
        /// The sample's shape.
        shape: Vec<usize>,
    },
}
