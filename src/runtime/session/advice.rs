//! What to do where a provider does not open a model.

use crate::runtime::error::RuntimeError;
use crate::runtime::provider::Provider;
use std::path::Path;

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
pub(super) const ADVICE_ELSE: &str = "run `pab-patch doctor`, or use --device cpu";

/// The error of a model that a provider did not open although nothing was known to stand in its way.
pub(super) fn unusable(model: &Path, provider: Provider, reason: String) -> RuntimeError {
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
