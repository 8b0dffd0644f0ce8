//! A library with the operators of split models, which any host of ONNX Runtime can load: see docs/operators.md.
//!
//! ```sh
//! cargo build --release --example pab_operators
//! ```

use ort::sys::{OrtApiBase, OrtSessionOptions, OrtStatusPtr};

/// Adds the operators of domain `ai.pab` to a session's options.
///
/// # Safety
/// To be called by ONNX Runtime.
#[unsafe(no_mangle)]
#[allow(non_snake_case)] // ONNX Runtime looks for this name.
pub unsafe extern "system" fn RegisterCustomOps(
    options: *mut OrtSessionOptions,
    base: *const OrtApiBase,
) -> OrtStatusPtr {
    // SAFETY: as the caller says.
    unsafe { pab_patch::collective::host::register(options, base) }
}
