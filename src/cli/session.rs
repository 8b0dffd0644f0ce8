//! Opening models for commands: ONNX Runtime, sessions, schedulers and prompts as the options want them.

use super::Failure;
use super::args::{ProviderChoice, SamplingOptions, SessionOptions, sizes};
use super::setup::with_progress;
use super::terminal::Terminal;
use crate::generation::{Conditioning, GenerationError, Generator, PromptTable};
use crate::report::read_matrix;
use crate::runtime::{self, Library, Options, Places, Provider, Session, Tensor};
use crate::sampler::SchedulerConfig;
use ndarray::Array2;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Places beside a model where diffusers puts a scheduler's configuration.
/// `..` is for patched models, which stand in a folder beside their original.
const SCHEDULERS: [&str; 4] = [
    "scheduler_config.json",
    "scheduler/scheduler_config.json",
    "../scheduler_config.json",
    "../scheduler/scheduler_config.json",
];

/// Finds or fetches ONNX Runtime, and loads it.
pub fn library(options: &SessionOptions, terminal: &Terminal) -> Result<Library, Failure> {
    let places = Places::of_process(options.ort_lib.clone());
    let library = with_progress(terminal, |progress| runtime::ensure_in(&places, progress))?;
    terminal.detail(format!(
        "ONNX Runtime {} from {} ({})",
        library.version,
        library.path.display(),
        library.origin
    ));
    Ok(library)
}

/// How sessions are opened.
pub fn runtime_options(options: &SessionOptions) -> Options {
    let provider = match options.provider {
        ProviderChoice::Auto => Provider::Auto,
        ProviderChoice::Cpu => Provider::Cpu,
        ProviderChoice::Cuda => Provider::Cuda,
    };
    Options {
        threads: options.threads,
        provider,
        ..Options::default()
    }
}

/// Opens a model; ONNX Runtime must be loaded.
pub fn open(model: &Path, options: &SessionOptions, terminal: &Terminal) -> Result<Session, Failure> {
    let session = Session::open(model, &runtime_options(options))?;
    if let Some(reason) = session.fallback() {
        terminal.detail(format!("running on the processor: {reason}"));
    }
    Ok(session)
}

/// Opens a model for generating clips.
pub fn generator(
    model: &Path,
    options: &SessionOptions,
    sampling: &SamplingOptions,
    terminal: &Terminal,
) -> Result<Generator, Failure> {
    let session = open(model, options, terminal)?;
    let given: Vec<&str> = sampling.inputs.iter().map(|(name, _)| name.as_str()).collect();
    Generator::new(session, &given).map_err(Failure::of(model, Failure::generation))
}

/// The scheduler's configuration that was named, or that stands beside the model.
pub fn scheduler_beside(model: &Path, named: Option<&Path>) -> Option<PathBuf> {
    let beside = || {
        SCHEDULERS
            .map(|name| model.with_file_name("").join(name))
            .into_iter()
            .find(|path| path.is_file())
    };
    named.map(Path::to_owned).or_else(beside)
}

/// The scheduler's configuration.
pub fn scheduler(model: &Path, sampling: &SamplingOptions, terminal: &Terminal) -> Result<SchedulerConfig, Failure> {
    let path = scheduler_beside(model, sampling.scheduler.as_deref()).ok_or_else(|| {
        Failure::Usage(format!(
            "no scheduler_config.json stands beside {}; give diffusers' file with --scheduler",
            model.display()
        ))
    })?;
    let config = SchedulerConfig::load(&path)?;
    for key in config.ignored() {
        terminal.detail(format!(
            "{}: `{key}` is no option of {} and was ignored",
            path.display(),
            config.class()
        ));
    }
    Ok(config)
}

/// Where prompts come from.
#[derive(Debug)]
pub enum Prompts {
    /// A table beside the model.
    Table(PromptTable),
    /// Embeddings from files: of the prompt and the empty prompt.
    Given(Array2<f32>, Array2<f32>),
    /// The model takes no text, or none was given.
    None,
}

/// Prompts as the options and the files beside the model give them. A patched model finds the table of its original.
pub fn prompts(model: &Path, sampling: &SamplingOptions) -> Result<Prompts, Failure> {
    if let Some(path) = &sampling.prompt_embeds {
        let prompt = read_matrix(path)?;
        let empty = match &sampling.empty_embeds {
            Some(path) => read_matrix(path)?,
            None => Array2::zeros(prompt.dim()),
        };
        return Ok(Prompts::Given(prompt, empty));
    }
    let parent = model.with_file_name("").join("..").join("model.onnx");
    let Some([table, words]) = PromptTable::beside(model).or_else(|| PromptTable::beside(&parent)) else {
        return Ok(Prompts::None);
    };
    let table = PromptTable::new(read_matrix(&table)?, &words).map_err(Failure::of(model, Failure::generation))?;
    Ok(Prompts::Table(table))
}

/// What a clip is made from: the prompt in words, or the embeddings that were given.
pub fn conditioning(
    model: &Path,
    prompts: &Prompts,
    prompt: Option<&str>,
    sampling: &SamplingOptions,
) -> Result<Conditioning, Failure> {
    let refuse = Failure::of(model, Failure::generation);
    let (prompt, empty) = match (prompts, prompt) {
        (Prompts::Table(table), Some(prompt)) => (Some(table.embed(prompt).map_err(refuse)?), Some(table.empty())),
        // Without a prompt, what the model draws of itself.
        (Prompts::Table(table), None) => (Some(table.empty()), Some(table.empty())),
        (Prompts::Given(prompt, empty), _) => (Some(prompt.clone()), Some(empty.clone())),
        (Prompts::None, Some(_)) => {
            return Err(Failure::Usage(format!(
                "--prompt needs prompt_table.npy and prompt_words.json beside {}; give --prompt-embeds FILE.npy instead",
                model.display()
            )));
        }
        (Prompts::None, None) => (None, None),
    };
    Ok(Conditioning {
        guidance: sampling.guidance,
        prompt,
        empty,
        inputs: inputs(&sampling.inputs)?,
    })
}

/// Values of further inputs, from their files.
pub fn inputs(given: &[(String, PathBuf)]) -> Result<BTreeMap<String, Tensor>, Failure> {
    let read =
        |(name, path): &(String, PathBuf)| Ok((name.clone(), Tensor::from_array(crate::report::read_array(path)?)));
    given.iter().map(read).collect()
}

/// The shape of a clip's noise.
pub fn clip_shape(model: &Path, generator: &Generator, sampling: &SamplingOptions) -> Result<Vec<usize>, Failure> {
    let shape = generator.clip_shape(&sizes(&sampling.sizes));
    shape.map_err(|error: GenerationError| Failure::generation(model.to_owned(), error))
}
