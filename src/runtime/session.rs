//! A model opened by ONNX Runtime.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use memmap2::Mmap;
use ort::{
    session::builder::GraphOptimizationLevel,
    value::{Outlet, ValueType},
};
use serde::{Deserialize, Serialize};

use super::{
    arena, devices,
    element::ElementType,
    error::RuntimeError,
    load,
    placement::{self, OnProcessor},
    provider::{self, Provider},
    shared_weights::{DeviceWeights, Given},
    usable, webgpu,
};
use crate::collective::{Communicator, Operators};

/// How far ONNX Runtime rewrites the graph when it opens it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimization {
    /// All that it knows; ONNX Runtime's own default.
    #[default]
    All,
    /// Only rewrites that keep the operators: constants folded, identities removed.
    Basic,
    /// None: the graph as it is in the file.
    None,
}

/// How to open a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Threads within an operator; `None` takes one for each physical core.
    pub threads: Option<usize>,
    /// What runs the model.
    pub provider: Provider,
    /// Which of the provider's devices, from 0.
    pub device_index: u32,
    /// How far the graph is rewritten.
    pub optimization: Optimization,
    /// Whether CUDA records the graph's kernels at the first run and repeats them as a whole. Values then have to lie at the
    /// same addresses in every run ([`super::VariantDenoiser::fix_addresses`]), and the graph may have neither control flow nor
    /// nodes on the processor. Only with [`Provider::Cuda`].
    pub cuda_graph: bool,
}

/// An input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its element type, if it is a tensor of a type that steps handle.
    pub element_type: Option<ElementType>,
    /// Its whole type as ONNX Runtime writes it, such as `Tensor<f32>(batch, 4, 8)`.
    pub description: String,
    /// The sizes of its dimensions; `None` where the model leaves them open.
    pub shape: Vec<Option<i64>>,
    /// The names of the open dimensions, empty where they have none.
    pub symbols: Vec<String>,
}

impl Port {
    fn new(outlet: &Outlet) -> Self {
        let (element_type, shape, symbols) = match outlet.dtype() {
            ValueType::Tensor {
                ty,
                shape,
                dimension_symbols,
            } => (
                ElementType::from_runtime(*ty),
                shape.iter().map(|size| (*size >= 0).then_some(*size)).collect(),
                dimension_symbols.iter().cloned().collect(),
            ),
            _ => (None, Vec::new(), Vec::new()),
        };
        Self {
            name: outlet.name().to_owned(),
            element_type,
            description: outlet.dtype().to_string(),
            shape,
            symbols,
        }
    }
}

/// A model that is ready to run. Operators run one after the other (custom operators that wait for other sessions
/// need that), each on all of its threads.
#[derive(Debug)]
pub struct Session {
    pub(super) inner: ort::session::Session,
    model: PathBuf,
    provider: Provider,
    device_index: u32,
    fallback: Option<String>,
    on_processor: Option<Vec<OnProcessor>>,
    shares_arena: bool,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    /// The memory under weights that were given to it. It goes after the session, which stands above.
    _weights: Vec<Arc<Mmap>>,
    /// The same of weights that stand in no file.
    _parts: Vec<Bytes>,
    /// The same on a device.
    _device_weights: Option<Arc<Mutex<DeviceWeights>>>,
}

/// What a session is given besides its model.
#[derive(Clone, Copy, Default)]
struct Besides<'a> {
    communicator: Option<&'a Arc<dyn Communicator>>,
    weights: Option<&'a Given>,
}

/// Where a model's graph comes from.
#[derive(Clone, Copy, Debug)]
enum Source<'a> {
    File,
    Bytes(&'a [u8]),
}

/// ONNX Runtime's option for the folder of the external data of a model that comes from memory.
const EXTERNAL_DATA: &str = "session.model_external_initializers_file_folder_path";

/// A part of ONNX Runtime's message, and what to do about it. The first that matches counts.
const ADVICE: &[(&str, &str)] = &[
    (
        "graph capture feature",
        "some nodes of the model are not for CUDA, which a CUDA graph needs (-v names them without it): leave --cuda-graph out",
    ),
    (
        "not enabled in this build",
        "this ONNX Runtime is the build without CUDA: `pip install onnxruntime-gpu` into the active Python environment, \
         or give such a library with --ort-lib",
    ),
    (
        "libcuda.so",
        "the NVIDIA driver is not installed: install it, or use --device cpu",
    ),
    (
        "nvcuda.dll",
        "the NVIDIA driver is not installed: install it, or use --device cpu",
    ),
    (
        "cannot open shared object file",
        "libraries of CUDA 13 or cuDNN 9 are missing: `pip install onnxruntime-gpu[cuda,cudnn]` brings them",
    ),
    (
        "Error 126",
        "libraries of CUDA 13 or cuDNN 9 are missing: `pip install onnxruntime-gpu[cuda,cudnn]` brings them",
    ),
    (
        "CUDA failure 35",
        "the NVIDIA driver is missing or older than CUDA 13 needs: update it, or use --device cpu",
    ),
    (
        "CUDA failure 100",
        "no NVIDIA GPU was found: check `nvidia-smi`, or use --device cpu",
    ),
    (
        "CUDA failure 2:",
        "the GPU's memory is full: free some, or use --device cpu",
    ),
];
const ADVICE_ELSE: &str = "run `pab-patch doctor`, or use --device cpu";

/// Whether a session with the collective operators was opened. The first adds their domain to a table of the whole process, and
/// ONNX Runtime 1.31 refuses a second that finds the domain missing at the same time.
static DOMAIN_IS_KNOWN: AtomicBool = AtomicBool::new(false);
static FIRST: Mutex<()> = Mutex::new(());

/// Waits for others that open the first session with collective operators; something to hold on to where this may be the first.
fn first_with_operators() -> Option<MutexGuard<'static, ()>> {
    if DOMAIN_IS_KNOWN.load(Ordering::Acquire) {
        return None;
    }
    let guard = FIRST.lock().unwrap_or_else(PoisonError::into_inner);
    (!DOMAIN_IS_KNOWN.load(Ordering::Acquire)).then_some(guard)
}

impl Session {
    /// Opens a model; its external data is looked for beside it. [`super::load()`] comes first.
    ///
    /// # Errors
    /// [`RuntimeError::Open`] when ONNX Runtime refuses the model, [`RuntimeError::ProviderUnusable`] when a provider was asked
    /// for and cannot be used, [`RuntimeError::Option`] for a thread count it cannot take.
    pub fn open(model: &Path, options: &Options) -> Result<Self, RuntimeError> {
        Self::open_source(model, Source::File, options, Besides::default())
    }

    /// Opens a split model for one rank of its mesh: its collective operators meet those of the other ranks by way of
    /// `communicator`.
    ///
    /// # Errors
    /// As [`Self::open`], and [`RuntimeError::Collective`] where ONNX Runtime does not take the operators.
    pub fn open_rank(
        model: &Path,
        options: &Options,
        communicator: &Arc<dyn Communicator>,
    ) -> Result<Self, RuntimeError> {
        let communicator = Some(communicator);
        let besides = Besides {
            communicator,
            ..Besides::default()
        };
        Self::open_source(model, Source::File, options, besides)
    }

    /// Opens a split model that was made in memory from the file `model`, for one rank.
    ///
    /// # Errors
    /// As [`Self::open_rank`].
    pub fn open_rank_bytes(
        model: &Path,
        bytes: &[u8],
        options: &Options,
        communicator: &Arc<dyn Communicator>,
    ) -> Result<Self, RuntimeError> {
        let communicator = Some(communicator);
        let besides = Besides {
            communicator,
            ..Besides::default()
        };
        Self::open_source(model, Source::Bytes(bytes), options, besides)
    }

    /// Opens a model that was made in memory from the file `model`: external data is looked for beside that file, and
    /// errors name it.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_bytes(model: &Path, bytes: &[u8], options: &Options) -> Result<Self, RuntimeError> {
        Self::open_source(model, Source::Bytes(bytes), options, Besides::default())
    }

    /// Opens a graph with weights that it shares with other sessions; of a split model for one rank.
    ///
    /// # Errors
    /// As [`Self::open_rank`].
    pub(super) fn open_given(
        model: &Path,
        bytes: &[u8],
        options: &Options,
        weights: &Given,
        communicator: Option<&Arc<dyn Communicator>>,
    ) -> Result<Self, RuntimeError> {
        let besides = Besides {
            communicator,
            weights: Some(weights),
        };
        Self::open_source(model, Source::Bytes(bytes), options, besides)
    }

    fn open_source(
        model: &Path,
        source: Source<'_>,
        options: &Options,
        besides: Besides<'_>,
    ) -> Result<Self, RuntimeError> {
        load::environment()?;
        let operators = besides
            .communicator
            .map(|communicator| Operators::new(communicator.clone()))
            .transpose()?;
        let operators = operators.as_ref();
        if let Some(threads) = options.threads.filter(|threads| !(1..=1024).contains(threads)) {
            let reason = "a number from 1 to 1024 is";
            return Err(RuntimeError::Option {
                option: "--threads",
                value: threads.to_string(),
                reason,
            });
        }
        if let Err(error) = std::fs::File::open(model) {
            return Err(RuntimeError::Open {
                model: model.to_path_buf(),
                reason: error.to_string(),
            });
        }
        let refused = |reason: String| RuntimeError::open(model, reason);
        let commit = |provider| Self::commit(model, source, options, operators, besides.weights, provider);
        let mut fallback = None;
        let (inner, provider) = match options.provider {
            Provider::Cpu => (commit(Provider::Cpu)?.map_err(refused)?, Provider::Cpu),
            Provider::WebGpu => {
                let inner = commit(Provider::WebGpu)?.map_err(|reason| webgpu::error(model, reason))?;
                (inner, Provider::WebGpu)
            }
            Provider::Auto => {
                let cuda = if devices::cuda_is_promising() {
                    Some(commit(Provider::Cuda)?)
                } else {
                    None
                };
                match cuda {
                    Some(Ok(inner)) => (inner, Provider::Cuda),
                    failed => {
                        fallback = failed.and_then(Result::err);
                        (commit(Provider::Cpu)?.map_err(refused)?, Provider::Cpu)
                    }
                }
            }
            provider => {
                let inner = commit(provider)?.map_err(|reason| unusable(model, provider, reason))?;
                (inner, provider)
            }
        };
        let on_processor = (provider != Provider::Cpu).then(|| placement::on_processor(&inner));
        let inputs = inner.inputs().iter().map(Port::new).collect();
        let outputs = inner.outputs().iter().map(Port::new).collect();
        Ok(Self {
            inner,
            model: model.to_path_buf(),
            provider,
            device_index: if provider == options.provider {
                options.device_index
            } else {
                0
            },
            fallback,
            on_processor: on_processor.unwrap_or_default(),
            shares_arena: besides.weights.is_some_and(|weights| weights.gives_arena_on(provider)),
            inputs,
            outputs,
            _weights: besides.weights.map_or_else(Vec::new, |weights| weights.maps.clone()),
            _parts: besides.weights.map_or_else(Vec::new, |weights| weights.parts.clone()),
            _device_weights: besides.weights.and_then(|weights| weights.device.clone()),
        })
    }

    /// Opens the model; the inner error is ONNX Runtime's message.
    fn commit(
        model: &Path,
        source: Source<'_>,
        options: &Options,
        operators: Option<&Operators>,
        weights: Option<&Given>,
        provider: Provider,
    ) -> Result<Result<ort::session::Session, String>, RuntimeError> {
        let environment = load::environment()?;
        let index = if provider == options.provider {
            options.device_index
        } else {
            0
        };
        let row = provider.row();
        if let Some((reason, advice)) = row.and_then(|row| usable::said(&usable::causes(row, index))) {
            return match options.provider {
                Provider::Auto => Ok(Err(format!("{reason}; {advice}"))),
                _ => Err(RuntimeError::ProviderUnusable {
                    model: model.to_path_buf(),
                    provider: row.map_or("", |row| row.title),
                    reason,
                    advice,
                }),
            };
        }
        let webgpu = match provider {
            Provider::WebGpu => match webgpu::device(environment) {
                Ok(device) => Some(device),
                Err(reason) => return Ok(Err(reason)),
            },
            _ => None,
        };
        let level = match options.optimization {
            Optimization::All => GraphOptimizationLevel::All,
            Optimization::Basic => GraphOptimizationLevel::Level1,
            Optimization::None => GraphOptimizationLevel::Disable,
        };
        let commit = || -> Result<ort::session::Session, ort::Error> {
            let mut builder = ort::session::Session::builder(environment)?
                .with_optimization_level(level)?
                .with_parallel_execution(false)?;
            if let Some(threads) = options.threads {
                builder = builder.with_intra_threads(threads)?;
            }
            if let Some(operators) = operators {
                // The fusion takes a table of one row, the second rank's, whose number is 1, for a number without an axis.
                builder = builder
                    .with_operators(operators.domain())?
                    .with_disabled_optimizers("DivMulFusion")?;
            }
            if let Some(build) = row.and_then(|row| row.build) {
                let index = i32::try_from(index).unwrap_or(i32::MAX);
                let built = match provider {
                    Provider::Cuda if options.cuda_graph => provider::recording_cuda(index),
                    _ => build(index),
                };
                let providers = built.into_iter().map(|provider| provider.error_on_failure());
                builder = builder.with_execution_providers(providers.collect::<Vec<_>>())?;
            }
            if provider != Provider::Cpu {
                builder = builder.with_config_entry(placement::RECORD, "1")?;
            }
            if let Some(device) = webgpu {
                builder = builder.with_devices([device], None)?;
            }
            // What lies elsewhere would be copied, and only the processor packs weights.
            if let Some(weights) = weights.filter(|weights| weights.provider == provider) {
                for (name, value) in &weights.values {
                    builder = builder.with_initializer(name, value.clone())?;
                }
                if provider == Provider::Cpu {
                    builder = builder.with_prepacked_weights(&weights.prepacked)?;
                }
                if weights.gives_arena_on(provider) {
                    // A plan for the memory of a run makes one block of it, and each session's has another size: where a
                    // smaller one was it finds no place.
                    builder = builder.with_env_allocators()?.with_memory_pattern(false)?;
                }
            }
            match source {
                Source::File => builder.commit_from_file(model),
                Source::Bytes(bytes) => {
                    if let Some(folder) = model.canonicalize().ok().as_deref().and_then(Path::parent) {
                        builder = builder.with_config_entry(EXTERNAL_DATA, folder.to_string_lossy())?;
                    }
                    builder.commit_from_memory(bytes)
                }
            }
        };
        let alone = operators.and_then(|_| first_with_operators());
        let committed = commit();
        if operators.is_some() && committed.is_ok() {
            DOMAIN_IS_KNOWN.store(true, Ordering::Release);
        }
        drop(alone);
        Ok(committed.map_err(|error| error.to_string()))
    }

    /// The model file.
    #[must_use]
    pub fn model(&self) -> &Path {
        &self.model
    }

    /// What runs the model; never [`Provider::Auto`].
    #[must_use]
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// Which of the provider's devices, from 0.
    #[must_use]
    pub fn device_index(&self) -> u32 {
        self.device_index
    }

    /// Its number as ONNX Runtime takes it.
    pub(super) fn memory_index(&self) -> i32 {
        i32::try_from(self.device_index).unwrap_or(0)
    }

    /// The nodes that run on the processor although another provider was asked for, by operator; nodes that ONNX Runtime adds
    /// to copy values are not among them. `None` where the processor was asked for, or there is no record of it.
    #[must_use]
    pub fn on_processor(&self) -> Option<&[OnProcessor]> {
        self.on_processor.as_deref()
    }

    /// Why [`Provider::Auto`] did not take CUDA although the machine seems to have it.
    #[must_use]
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// Whether its memory comes from the arena that all sessions of its [`super::SharedWeights`] have.
    #[must_use]
    pub fn shares_arena(&self) -> bool {
        self.shares_arena
    }

    /// Bytes that its arena has taken of the device's memory since it was made, for activations and for what the session
    /// holds; `None` where ONNX Runtime does not tell. Sessions with one arena all give the same number.
    #[must_use]
    pub fn arena_bytes(&self) -> Option<u64> {
        arena::taken(&self.inner, self.provider, self.device_index)
    }

    /// The inputs, in the model's order.
    #[must_use]
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// The outputs, in the model's order.
    #[must_use]
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// An entry of the model's `metadata_props`.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<String> {
        self.inner.metadata().ok()?.custom(key)
    }
}

/// The error of a model that a provider did not open although nothing was known to stand in its way.
fn unusable(model: &Path, provider: Provider, reason: String) -> RuntimeError {
    let advice = ADVICE
        .iter()
        .find(|(part, _)| reason.contains(part))
        .map(|(_, advice)| *advice);
    let title = provider.row().map_or("", |row| row.title);
    let said = reason.to_lowercase();
    let named = ["cuda", "executionprovider", "execution provider"]
        .iter()
        .any(|part| said.contains(part));
    if advice.is_none() && !named {
        // The model itself is at fault; the processor would refuse it as well.
        return RuntimeError::open(model, reason);
    }
    RuntimeError::ProviderUnusable {
        model: model.to_path_buf(),
        provider: title,
        reason,
        advice: advice.unwrap_or(ADVICE_ELSE).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ensure;

    fn switch_model() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/runtime/switch.onnx")
    }

    #[test]
    fn ports_and_metadata_of_a_model() {
        ensure().unwrap();
        let session = Session::open(
            &switch_model(),
            &Options {
                threads: Some(1),
                ..Options::default()
            },
        )
        .unwrap();
        let sample = &session.inputs()[0];
        assert_eq!(
            (sample.name.as_str(), sample.element_type),
            ("sample", Some(ElementType::Float32))
        );
        assert_eq!(
            (sample.shape.as_slice(), sample.symbols[0].as_str()),
            (&[None, Some(4)][..], "batch")
        );
        assert_eq!(
            session
                .outputs()
                .iter()
                .map(|port| port.name.as_str())
                .collect::<Vec<_>>()[0],
            "out"
        );
        assert_eq!(session.metadata("pab.test"), Some("a value".to_owned()));
        assert_eq!(session.metadata("nothing"), None);
        assert_eq!((session.provider(), session.fallback()), (Provider::Cpu, None));
    }

    #[test]
    fn a_model_that_cannot_be_opened_is_named() {
        ensure().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("broken.onnx");
        let message = |options: &Options| Session::open(&model, options).unwrap_err().to_string();
        assert!(message(&Options::default()).starts_with(&format!("{} cannot be opened", model.display())));
        std::fs::write(&model, "not a model").unwrap();
        assert!(
            message(&Options::default()).contains("rotobuf"),
            "{}",
            message(&Options::default())
        );
        let none = Options {
            threads: Some(0),
            ..Options::default()
        };
        assert_eq!(message(&none), "--threads cannot be 0: a number from 1 to 1024 is");
    }

    #[test]
    fn cuda_that_cannot_be_used_is_an_error_with_advice() {
        ensure().unwrap();
        if devices::cuda_is_promising() {
            return;
        }
        let options = Options {
            provider: Provider::Cuda,
            ..Options::default()
        };
        let error = Session::open(&switch_model(), &options).unwrap_err();
        let RuntimeError::ProviderUnusable { model, advice, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(*model, switch_model());
        assert_ne!(advice, ADVICE_ELSE, "{error}");
    }

    #[test]
    fn advice_follows_the_message() {
        for (message, part) in [
            (
                "CUDA execution provider is not enabled in this build.",
                "onnxruntime-gpu",
            ),
            (
                "Failed to load library libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot open shared object file",
                "CUDA 13 or cuDNN",
            ),
            (
                "Failed to load library x with error: libcuda.so.1: cannot open shared object file",
                "driver is not installed",
            ),
            (
                "CUDA failure 35: CUDA driver version is insufficient",
                "older than CUDA 13",
            ),
            ("CUDA failure 999: something new", "pab-patch doctor"),
        ] {
            let error = unusable(Path::new("model.onnx"), Provider::Cuda, message.to_owned());
            assert!(error.to_string().contains(part), "{error}");
        }
        let error = unusable(
            Path::new("model.onnx"),
            Provider::Cuda,
            "Protobuf parsing failed.".to_owned(),
        );
        assert!(matches!(error, RuntimeError::Open { .. }));
    }
}
