//! A model opened by ONNX Runtime.

mod advice;
mod options;
mod port;
mod source;

pub use options::{Optimization, Options};
pub use port::Port;
use source::{Besides, Source};

use super::arena;
use super::error::RuntimeError;
use super::placement::OnProcessor;
use super::provider::Provider;
use super::shared_weights::{DeviceWeights, Given};
use crate::collective::Communicator;
use bytes::Bytes;
use memmap2::Mmap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

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

#[cfg(test)]
mod tests;
