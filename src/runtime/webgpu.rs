//! WebGPU: an execution provider in a library of its own (PyPI's `onnxruntime-ep-webgpu`), with memory of its own.

use std::{
    path::{Path, PathBuf},
    sync::Mutex,
    sync::PoisonError,
};

use ort::{device::Device, environment::Environment, memory::AllocationDevice};

use super::{error::RuntimeError, load};

/// Names the library where it does not stand beside `onnxruntime` in a Python environment.
pub(super) const VARIABLE: &str = "PAB_PATCH_WEBGPU_LIB";

/// The execution provider's name.
const NAME: &str = "WebGpuExecutionProvider";

/// The name of its memory in ONNX Runtime 1.31; the constant that ort 2.0.0-rc.15 has for it is another.
const MEMORY: &str = "WebGPU_Buf";

/// The file of the library, in the package's folder.
const LIBRARY: &str = if cfg!(windows) {
    "onnxruntime_providers_webgpu.dll"
} else if cfg!(target_os = "macos") {
    "libonnxruntime_providers_webgpu.dylib"
} else {
    "libonnxruntime_providers_webgpu.so"
};

/// A part of the message, and what to do about it. The first that matches counts.
const ADVICE: &[(&str, &str)] = &[
    (
        "no library",
        "`pip install onnxruntime-ep-webgpu` into the Python environment that has `onnxruntime`, or name the library in \
         PAB_PATCH_WEBGPU_LIB",
    ),
    (
        "no device",
        "install the GPU's Vulkan driver and `libvulkan.so.1`; for a Vulkan driver in software set \
         ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER=1",
    ),
    (
        "No supported adapters",
        "the Vulkan driver lacks what WebGPU needs: update it, or name another one in VK_ICD_FILENAMES",
    ),
];
const ADVICE_ELSE: &str = "use --device cpu";

/// The memory in which its values lie.
pub(super) fn memory() -> AllocationDevice<'static> {
    AllocationDevice::new(MEMORY)
}

/// The device, of which the provider has one; its library is loaded at the first call.
pub(super) fn device(environment: &Environment) -> Result<Device<'_>, String> {
    // A library is registered once in a process.
    static TURN: Mutex<()> = Mutex::new(());
    let _guard = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let find = || {
        environment
            .devices()
            .find(|device| device.ep().is_ok_and(|name| name == NAME))
    };
    if let Some(device) = find() {
        return Ok(device);
    }
    let path = library()?;
    environment
        .register_ep_library("webgpu", &path)
        .map_err(|error| format!("{}: {error}", path.display()))?;
    find().ok_or_else(|| "no device was found".to_owned())
}

/// The provider's library.
fn library() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os(VARIABLE) {
        return Ok(PathBuf::from(path));
    }
    // site-packages/onnxruntime/capi/libonnxruntime.so → site-packages/onnxruntime_ep_webgpu
    let beside = load::loaded().and_then(|library| library.path.ancestors().nth(3));
    let beside = beside.map(|packages| packages.join("onnxruntime_ep_webgpu").join(LIBRARY));
    match beside {
        Some(path) if path.is_file() => Ok(path),
        Some(path) => Err(format!("no library {}", path.display())),
        None => Err(format!("no library {LIBRARY}")),
    }
}

/// What a failed opening means.
pub(super) fn error(model: &Path, reason: String) -> RuntimeError {
    let advice = ADVICE.iter().find(|(part, _)| reason.contains(part));
    RuntimeError::WebGpuUnusable {
        model: model.to_path_buf(),
        reason,
        advice: advice.map_or(ADVICE_ELSE, |(_, advice)| advice),
    }
}
