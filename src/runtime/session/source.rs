//! A model's way into ONNX Runtime: what is asked of the provider, what the session is given, and who opens the first one.

use super::advice::unusable;
use super::{Optimization, Options, Port, Session};
use crate::collective::{Communicator, Operators};
use crate::runtime::error::RuntimeError;
use crate::runtime::provider::{self, Provider};
use crate::runtime::shared_weights::Given;
use crate::runtime::{devices, load, placement, usable, webgpu};
use ort::session::builder::GraphOptimizationLevel;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a session is given besides its model.
#[derive(Clone, Copy, Default)]
pub(super) struct Besides<'a> {
    pub communicator: Option<&'a Arc<dyn Communicator>>,
    pub weights: Option<&'a Given>,
}

/// Where a model's graph comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<'a> {
    File,
    Bytes(&'a [u8]),
}

/// ONNX Runtime's option for the folder of the external data of a model that comes from memory.
const EXTERNAL_DATA: &str = "session.model_external_initializers_file_folder_path";

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
    pub(super) fn open_source(
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
}
