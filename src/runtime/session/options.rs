//! How a model is opened.

use crate::runtime::Provider;
use serde::{Deserialize, Serialize};

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
    /// same addresses in every run ([`crate::runtime::VariantDenoiser::fix_addresses`]), and the graph may have neither control flow nor
    /// nodes on the processor. Only with [`Provider::Cuda`].
    pub cuda_graph: bool,
}
