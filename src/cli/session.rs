//! Opening models for commands: ONNX Runtime, sessions, schedulers and prompts as the options want them.

use super::Failure;
use super::args::{ClipOptions, FormChoice, InputFile, SamplingOptions, SessionOptions};
use super::division::SplitRecord;
use super::plan_beside;
use super::setup::with_progress;
use super::static_graphs::StaticGraphs;
use super::terminal::Terminal;
use super::values::sizes;
use crate::generation::{Conditioning, GenerationError, Generator, PromptTable, Text, sizes_of_run};
use crate::graph::ModelGraph;
use crate::onnx::Model;
use crate::pipeline::declared_inputs;
use crate::report::{number, read_array_named, read_matrix, read_named};
use crate::rewrite::Plan;
use crate::runtime::{self, Library, Options, Places, Port, Provider, Session, SharedWeights, Tensor};
use crate::sampler::{RunSettings, SchedulerConfig};
use ndarray::Array2;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Places beside a model where diffusers puts a scheduler's configuration.
const SCHEDULERS: [&str; 3] = [
    "scheduler_config.json",
    "scheduler/scheduler_config.json",
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
    let (provider, device_index) = options.device;
    Options {
        threads: options.threads,
        provider,
        device_index,
        ..Options::default()
    }
}

/// Opens a model; ONNX Runtime must be loaded.
pub fn open(model: &Path, options: &SessionOptions, terminal: &Terminal) -> Result<Session, Failure> {
    terminal.stop().check()?;
    let session = Session::open(model, &runtime_options(options))?;
    report_device(&session, terminal);
    Ok(session)
}

/// Says where a session runs, where that is not what was hoped for.
fn report_device(session: &Session, terminal: &Terminal) {
    if let Some(reason) = session.fallback() {
        terminal.warning(format!("running on the processor, since CUDA cannot be used: {reason}"));
    }
    report_placement(session, terminal);
}

/// Says which nodes run on the processor although the model runs elsewhere: each costs copies to the host and back.
fn report_placement(session: &Session, terminal: &Terminal) {
    let Some(operators) = session.on_processor().filter(|operators| !operators.is_empty()) else {
        return;
    };
    let nodes: usize = operators.iter().map(|operator| operator.nodes.len()).sum();
    let counts = operators
        .iter()
        .map(|operator| format!("{} {}", operator.nodes.len(), operator.operator));
    terminal.note(format!(
        "{}: {nodes} nodes run on the processor and not on {} ({}); -v names them",
        session.model().display(),
        session.provider().row().map_or("it", |row| row.title),
        counts.collect::<Vec<_>>().join(", ")
    ));
    for operator in operators {
        terminal.detail(format!(
            "on the processor: {}: {}",
            operator.operator,
            operator.nodes.join(", ")
        ));
    }
}

/// Says, with -v, what the open model has taken of its device's memory; where there are several, it is named.
pub fn report_memory(component: Option<&str>, generator: &Generator, terminal: &Terminal) {
    if let Some(taken) = generator.arena_bytes() {
        let of = component.map_or_else(String::new, |component| format!(" of {component}"));
        terminal.detail(format!(
            "memory for activations and caches{of}: {} ({taken} bytes)",
            number::bytes(taken)
        ));
    }
}

/// Says, with -v, why latents went through the host's memory although the model runs elsewhere, or that they did not.
pub fn report_latents(generator: &Generator, terminal: &Terminal) {
    if !generator.session().provider().has_own_memory() {
        return;
    }
    match generator.latents().map(|place| &place.reason) {
        Some(Some(reason)) => terminal.detail(format!("latents go through the host's memory in every step: {reason}")),
        Some(None) => terminal.detail("latents stay on the device for the whole clip"),
        None => {}
    }
}

/// Opens a model for generating clips; `given` are inputs that the user feeds.
pub fn generator(
    model: &Path,
    options: &SessionOptions,
    given: &[&str],
    terminal: &Terminal,
) -> Result<Generator, Failure> {
    // Our own reader says better than ONNX Runtime what is wrong with a file.
    plan_beside::check(model, &Model::load(model)?, terminal)?;
    let session = open(model, options, terminal)?;
    on_session(session, model, given, terminal)
}

/// The same on a session that was opened otherwise.
pub fn generator_on(session: Session, model: &Path, given: &[&str], terminal: &Terminal) -> Result<Generator, Failure> {
    report_device(&session, terminal);
    on_session(session, model, given, terminal)
}

fn on_session(session: Session, model: &Path, given: &[&str], terminal: &Terminal) -> Result<Generator, Failure> {
    let mut generator = Generator::new(session, given).map_err(Failure::of(model, Failure::generation))?;
    generator.stop_on(terminal.stop().clone());
    Ok(generator)
}

/// Refuses CUDA graphs where they cannot be: graphs with control flow, and other devices.
pub fn check_cuda_graph(form: FormChoice, cuda_graph: bool, options: &SessionOptions) -> Result<(), Failure> {
    let missing = match (form, options.device.0) {
        _ if !cuda_graph => return Ok(()),
        (FormChoice::Variants, Provider::Cuda) => return Ok(()),
        (FormChoice::Variants, _) => "--device cuda",
        (FormChoice::Switch, Provider::Cuda) => "--form variants",
        (FormChoice::Switch, _) => "--form variants and --device cuda",
    };
    Err(Failure::Usage(format!(
        "--cuda-graph needs {missing}: CUDA records the kernels of graphs without `If`; add that, or leave --cuda-graph out"
    )))
}

/// The sizes of open dimensions in a run with `latent` as the shape of its noise.
pub fn run_sizes(
    model: &Path,
    latent: &[usize],
    conditioning: &Conditioning,
) -> Result<BTreeMap<String, i64>, Failure> {
    Ok(sizes_of_run(&inputs_of(model)?, latent, conditioning))
}

/// The inputs that a model declares, without those that patching gave it.
pub fn inputs_of(model: &Path) -> Result<Vec<Port>, Failure> {
    let mut inputs = declared_inputs(model).map_err(|error| Failure::pipeline(model, error))?;
    inputs.retain(|port| !port.name.starts_with("pab."));
    Ok(inputs)
}

/// How a patched model is opened in its variant form, for clips of these timesteps.
pub struct VariantSessions<'a> {
    /// The file that the model, or its original, stands in.
    pub model: &'a Path,
    /// Where it runs.
    pub options: &'a SessionOptions,
    /// Where variants are recorded, the sizes of open dimensions.
    pub cuda_graph: Option<BTreeMap<String, i64>>,
    /// Inputs that the user feeds.
    pub given: &'a [&'a str],
    /// The timesteps of the model's steps.
    pub timesteps: &'a [f64],
}

impl VariantSessions<'_> {
    /// Opens the variants of the model in the file, which is patched.
    pub fn open_file(self, terminal: &Terminal) -> Result<Generator, Failure> {
        let loaded = Model::load(self.model)?;
        plan_beside::check(self.model, &loaded, terminal)?;
        let graph = ModelGraph::new(loaded).map_err(Failure::of(self.model, Failure::graph))?;
        self.open(graph, terminal)
    }

    /// Opens those of `graph`, which was patched in memory.
    pub fn open(self, graph: ModelGraph, terminal: &Terminal) -> Result<Generator, Failure> {
        let graphs = StaticGraphs::of(self.model, graph, self.timesteps)?;
        let mut weights = SharedWeights::default();
        let recorded = self.cuda_graph.is_some();
        weights.fix_sizes(self.cuda_graph.unwrap_or_default());
        let session_options = Options {
            cuda_graph: recorded,
            ..runtime_options(self.options)
        };
        let open = |variant| Ok(weights.open(self.model, variant, &session_options)?);
        let mut generator = graphs.generator(self.given, terminal, open)?;
        if recorded {
            generator.fix_addresses();
        }
        report_placement(generator.session(), terminal);
        generator.stop_on(terminal.stop().clone());
        Ok(generator)
    }
}

/// The models beside which scheduler and prompt table may stand: the model, what a link to it leads to, and, of a patched or
/// split model, its original, which the plan beside it or its own record names.
fn homes(model: &Path) -> Vec<PathBuf> {
    let mut homes = vec![model.to_owned()];
    homes.extend(model.canonicalize().ok().filter(|resolved| resolved != model));
    let plan = std::fs::read_to_string(model.with_extension("pab.json"))
        .ok()
        .and_then(|text| Plan::parse(&text).ok());
    if let Some(original) = plan.and_then(|plan| plan.original) {
        homes.push(model.with_file_name("").join(original));
    }
    let is_of_rank = model
        .file_stem()
        .is_some_and(|stem| stem.to_string_lossy().contains(".rank"));
    if is_of_rank && let Some(record) = Model::load(model).ok().as_ref().and_then(SplitRecord::of) {
        homes.extend(record.original.map(|original| model.with_file_name("").join(original)));
    }
    homes
}

/// The scheduler's configuration that was named, or that stands beside the model.
pub fn scheduler_beside(model: &Path, named: Option<&Path>) -> Option<PathBuf> {
    let beside = |home: PathBuf| SCHEDULERS.map(|name| home.with_file_name("").join(name));
    let found = || homes(model).into_iter().flat_map(beside).find(|path| path.is_file());
    named.map(Path::to_owned).or_else(found)
}

/// What the scheduler of a model is made for: steps, clip, and the class of diffusers' pipeline where the scheduler's
/// configuration stands in its folder.
pub fn run_settings(model: &Path, named: Option<&Path>, steps: usize, clip: &ClipOptions) -> RunSettings {
    let index = scheduler_beside(model, named).map(|path| path.with_file_name("../model_index.json"));
    let text = index.and_then(|path| std::fs::read_to_string(path).ok());
    let object: Option<serde_json::Value> = text.and_then(|text| serde_json::from_str(&text).ok());
    let class = object.as_ref().and_then(|object| object.get("_class_name"));
    RunSettings {
        steps,
        tokens: clip.tokens.map(|tokens| tokens as usize),
        video: clip.video,
        pipeline: class.and_then(|class| class.as_str()).map(str::to_owned),
        levels: None,
    }
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

/// Prompts as the options and the files beside the model give them.
pub fn prompts(model: &Path, sampling: &SamplingOptions) -> Result<Prompts, Failure> {
    if let Some(path) = &sampling.prompt_embeds {
        let prompt = read_matrix(path)?;
        let empty = match &sampling.empty_embeds {
            Some(path) => read_matrix(path)?,
            None => Array2::zeros(prompt.dim()),
        };
        return Ok(Prompts::Given(prompt, empty));
    }
    let Some([table, words]) = homes(model).iter().find_map(|home| PromptTable::beside(home)) else {
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
    negative: Option<&str>,
    sampling: &SamplingOptions,
) -> Result<Conditioning, Failure> {
    let refuse = Failure::of(model, Failure::generation);
    let empty_of = |table: &PromptTable| match negative {
        Some(negative) => table.embed(negative).map_err(Failure::of(model, Failure::generation)),
        None => Ok(table.empty()),
    };
    let (prompt, empty) = match (prompts, prompt) {
        (Prompts::Table(table), Some(prompt)) => (Some(table.embed(prompt).map_err(refuse)?), Some(empty_of(table)?)),
        // Without a prompt, what the model draws of itself.
        (Prompts::Table(table), None) => (Some(table.empty()), Some(empty_of(table)?)),
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
        guidance: sampling.guidance(),
        prompt: prompt.map(Text::from),
        empty: empty.map(Text::from),
        inputs: inputs(&sampling.inputs)?,
    })
}

/// Values of further inputs, from their files.
pub fn inputs(given: &[InputFile]) -> Result<BTreeMap<String, Tensor>, Failure> {
    let mut inputs = BTreeMap::new();
    for file in given {
        match &file.name {
            Some(name) => {
                inputs.insert(name.clone(), Tensor::from_array(read_array_named(&file.path, name)?));
            }
            None => {
                let read = read_named(&file.path)?.into_iter();
                inputs.extend(read.map(|(name, array)| (name, Tensor::from_array(array))));
            }
        }
    }
    Ok(inputs)
}

/// The shape of a clip's noise.
pub fn clip_shape(model: &Path, generator: &Generator, sampling: &SamplingOptions) -> Result<Vec<usize>, Failure> {
    let shape = generator.clip_shape(&sizes(&sampling.sizes));
    shape.map_err(|error: GenerationError| Failure::generation(model.to_owned(), error))
}
