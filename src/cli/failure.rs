//! Failures of commands and their exit codes.

use crate::axes::AxesError;
use crate::collective::CollectiveError;
use crate::generation::GenerationError;
use crate::graph::GraphError;
use crate::onnx::OnnxError;
use crate::pipeline::PipelineError;
use crate::predict::{DeviceError, PredictError};
use crate::quality::{LpipsError, QualityError};
use crate::report::ReportError;
use crate::rewrite::{PlanError, RewriteError};
use crate::rules::RulesError;
use crate::runtime::RuntimeError;
use crate::sampler::SamplerError;
use crate::shard::ShardError;
use crate::stop::Stopped;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Exit codes; `--help` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitStatus {
    /// Something failed that has no code of its own.
    Other = 1,
    /// Wrong arguments.
    Usage = 2,
    /// A model file is missing, damaged, unsafe or not understood.
    Model = 3,
    /// The rules are wrong.
    Rules = 4,
    /// No attention was found, no rule matches any, or there is no result for a page.
    Nothing = 5,
    /// The output cannot be written.
    Output = 6,
    /// ONNX Runtime is missing, too old or unusable.
    Runtime = 7,
    /// Running the model failed.
    Execution = 8,
    /// Clips are further apart than was asked for.
    FurtherApart = 9,
    /// A rank of a split run died, hangs, or differs from the others.
    Ranks = 10,
    /// Ended by Ctrl-C or SIGTERM: 128 and the number of the first, as shells have it.
    Interrupted = 130,
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> ExitCode {
        ExitCode::from(status as u8)
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // One variant a library error.
pub enum Failure {
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    #[error("{}: {error}", model.display())]
    Graph { model: PathBuf, error: GraphError },
    #[error("{}: {error}", model.display())]
    Axes { model: PathBuf, error: AxesError },
    #[error("{}: {error}", model.display())]
    Rewrite { model: PathBuf, error: Box<RewriteError> },
    #[error("{}: {error}", model.display())]
    Predict { model: PathBuf, error: PredictError },
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("{}: {error}", model.display())]
    Shard { model: PathBuf, error: Box<ShardError> },
    #[error(transparent)]
    Rules(#[from] RulesError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("{}: {error}", model.display())]
    Generation {
        model: PathBuf,
        error: Box<GenerationError>,
    },
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    #[error(transparent)]
    Quality(#[from] QualityError),
    #[error("{} and {}: {error}", reference.display(), other.display())]
    Judging {
        reference: PathBuf,
        other: PathBuf,
        error: Box<QualityError>,
    },
    /// Clips are further apart than was asked for: a line for each measure of each clip.
    #[error("clips are further apart than was asked for: {}", .0.join("; "))]
    FurtherApart(Vec<String>),
    #[error(transparent)]
    Report(#[from] ReportError),
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The plan beside a model is not its own.
    #[error(
        "{} is the plan of another model than {}: {reason}; remove it where the model is the right one, or patch the original \
         again",
        file.display(), model.display()
    )]
    OtherPlan {
        model: PathBuf,
        file: PathBuf,
        reason: &'static str,
    },
    /// There is no ONNX Runtime that could be used.
    #[error("{0}")]
    NoRuntime(String),
    /// No site's caches are small enough for the ceiling.
    #[error(
        "no site fits below a ceiling of {ceiling} bytes: the smallest takes {least} bytes of caches; raise --memory, or \
         narrow the caches with --cache-dtype"
    )]
    NothingFits { ceiling: u64, least: u64 },
    /// Wrong arguments that only show when they are used.
    #[error("{0}")]
    Usage(String),
    /// The ranks of a split run do not come together.
    #[error(transparent)]
    Ranks(#[from] CollectiveError),
    /// A rank failed by itself.
    #[error("rank {rank}: {failure}")]
    Rank { rank: usize, failure: Box<Failure> },
    /// An error of all ranks, which rank 0 shows.
    #[error(transparent)]
    Shown(Box<Failure>),
    /// Standard output cannot be written.
    #[error("cannot write to standard output: {0}")]
    Stdout(std::io::Error),
}

impl Failure {
    /// Adds the model's path to an error of an analysis or a rewrite.
    pub fn of<E>(model: &Path, wrap: fn(PathBuf, E) -> Failure) -> impl FnOnce(E) -> Failure + use<'_, E> {
        move |error| wrap(model.to_owned(), error)
    }

    /// [`Failure::Graph`].
    pub fn graph(model: PathBuf, error: GraphError) -> Failure {
        Failure::Graph { model, error }
    }

    /// [`Failure::Axes`].
    pub fn axes(model: PathBuf, error: AxesError) -> Failure {
        Failure::Axes { model, error }
    }

    /// [`Failure::Rewrite`]; errors of the rules name their own file.
    pub fn rewrite(model: PathBuf, error: RewriteError) -> Failure {
        match error {
            RewriteError::Rules(error) => Failure::Rules(error),
            error => Failure::Rewrite {
                model,
                error: Box::new(error),
            },
        }
    }

    /// [`Failure::Shard`].
    pub fn shard(model: PathBuf, error: ShardError) -> Failure {
        Failure::Shard {
            model,
            error: Box::new(error),
        }
    }

    /// [`Failure::Generation`]; errors of ONNX Runtime name the model themselves.
    pub fn generation(model: PathBuf, error: GenerationError) -> Failure {
        match error {
            GenerationError::Runtime(error) => Failure::Runtime(error),
            error => Failure::Generation {
                model,
                error: Box::new(error),
            },
        }
    }

    /// [`Failure::Pipeline`]; errors of the parts below keep their own kind.
    pub fn pipeline(model: &Path, error: PipelineError) -> Failure {
        match error {
            PipelineError::Generation(error) => Failure::generation(model.to_owned(), error),
            PipelineError::Runtime(error) => Failure::Runtime(error),
            PipelineError::Onnx(error) => Failure::Onnx(error),
            error => Failure::Pipeline(error),
        }
    }

    /// Whether all that went wrong is that someone wanted it to stop.
    pub fn is_stopped(&self) -> bool {
        match self {
            Failure::Stopped(_) | Failure::Onnx(OnnxError::Stopped { .. }) => true,
            Failure::Generation { error, .. } => matches!(error.as_ref(), GenerationError::Stopped(_)),
            Failure::Rank { failure, .. } | Failure::Shown(failure) => failure.is_stopped(),
            _ => false,
        }
    }

    /// Whether another process shows it.
    pub fn is_shown(&self) -> bool {
        matches!(self, Failure::Shown(_))
    }

    /// The exit code.
    pub fn status(&self) -> ExitStatus {
        if self.is_stopped() {
            return ExitStatus::Interrupted;
        }
        match self {
            Failure::Onnx(
                OnnxError::Write { .. } | OnnxError::Destination { .. } | OnnxError::WouldOverwrite { .. },
            ) => ExitStatus::Output,
            Failure::Axes {
                error: AxesError::UnknownInput { .. } | AxesError::Rank { .. },
                ..
            } => ExitStatus::Usage,
            Failure::Onnx(_) | Failure::Graph { .. } | Failure::Axes { .. } => ExitStatus::Model,
            Failure::Rewrite { error, .. } => match error.as_ref() {
                RewriteError::NoSites | RewriteError::NothingMatches { .. } | RewriteError::NoBlocks { .. } => {
                    ExitStatus::Nothing
                }
                RewriteError::NoGate { .. }
                | RewriteError::Span { .. }
                | RewriteError::Kept { .. }
                | RewriteError::GuidanceBeside { .. }
                | RewriteError::GuidanceSite { .. } => ExitStatus::Rules,
                RewriteError::NoSchedule => ExitStatus::Usage,
                _ => ExitStatus::Model,
            },
            Failure::Shard { error, .. } => match error.as_ref() {
                ShardError::NoStreams => ExitStatus::Nothing,
                ShardError::Mesh { .. }
                | ShardError::TooFew { .. }
                | ShardError::NoFactor { .. }
                | ShardError::Span { .. }
                | ShardError::Halves { .. } => ExitStatus::Usage,
                _ => ExitStatus::Model,
            },
            Failure::Rules(_) => ExitStatus::Rules,
            Failure::Predict { .. } | Failure::Device(_) => ExitStatus::Usage,
            Failure::Plan(_) | Failure::OtherPlan { .. } => ExitStatus::Model,
            Failure::Runtime(error) => runtime_status(error),
            Failure::Generation { error, .. } => match error.as_ref() {
                GenerationError::Output { .. } | GenerationError::NotFinite { .. } => ExitStatus::Execution,
                GenerationError::Plan(_) | GenerationError::NoPlan | GenerationError::CacheType { .. } => {
                    ExitStatus::Model
                }
                _ => ExitStatus::Usage,
            },
            Failure::Pipeline(error) => match error {
                PipelineError::Size { .. } | PipelineError::Fixed { .. } | PipelineError::Open { .. } => {
                    ExitStatus::Usage
                }
                PipelineError::Latents { .. } => ExitStatus::Execution,
                _ => ExitStatus::Model,
            },
            Failure::Sampler(_) | Failure::Usage(_) => ExitStatus::Usage,
            Failure::Report(
                ReportError::Write { .. }
                | ReportError::EncodeArray { .. }
                | ReportError::Ffmpeg { .. }
                | ReportError::NoFfmpeg { .. },
            )
            | Failure::Stdout(_) => ExitStatus::Output,
            Failure::Report(ReportError::Array { .. } | ReportError::Read { .. } | ReportError::ClipFile { .. }) => {
                ExitStatus::Usage
            }
            Failure::NothingFits { .. } | Failure::Report(ReportError::NoResult { .. }) => ExitStatus::Nothing,
            Failure::NoRuntime(_) => ExitStatus::Runtime,
            Failure::Ranks(CollectiveError::Mesh { .. }) => ExitStatus::Usage,
            Failure::Ranks(_) => ExitStatus::Ranks,
            Failure::Rank { failure, .. } | Failure::Shown(failure) => failure.status(),
            Failure::Stopped(_) => ExitStatus::Interrupted,
            Failure::Judging { error, .. } => match error.as_ref() {
                QualityError::Lpips(error) => lpips_status(error),
                _ => ExitStatus::Usage,
            },
            Failure::FurtherApart(_) => ExitStatus::FurtherApart,
            Failure::Quality(QualityError::Lpips(error)) => lpips_status(error),
            Failure::Quality(_) | Failure::Report(_) => ExitStatus::Other,
        }
    }
}

fn lpips_status(error: &LpipsError) -> ExitStatus {
    match error {
        LpipsError::Network { .. } => ExitStatus::Model,
        LpipsError::Heads { .. } | LpipsError::Small { .. } => ExitStatus::Usage,
        LpipsError::Runtime(error) => runtime_status(error),
    }
}

fn runtime_status(error: &RuntimeError) -> ExitStatus {
    match error {
        RuntimeError::Open { .. } | RuntimeError::Mismatch { .. } => ExitStatus::Model,
        RuntimeError::Run { .. } | RuntimeError::OutOfMemory { .. } | RuntimeError::CacheEmpty { .. } => {
            ExitStatus::Execution
        }
        RuntimeError::Inputs { .. } => ExitStatus::Usage,
        RuntimeError::Option { .. } => ExitStatus::Usage,
        RuntimeError::Collective(_) => ExitStatus::Ranks,
        _ => ExitStatus::Runtime,
    }
}
