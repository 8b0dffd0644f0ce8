//! What can go wrong between "there is a model" and "it ran", each with what to do next.

use std::path::{Path, PathBuf};

use super::element::ElementType;
use crate::collective::CollectiveError;

/// Advice for every case where no ONNX Runtime could be obtained over the network.
const OFFLINE_ADVICE: &str = "no network? `pip install onnxruntime` (1.31 or later) into the active Python \
     environment, or give a library with --ort-lib; behind a proxy set HTTPS_PROXY, with a package mirror PIP_INDEX_URL, \
     with a certificate authority of your own SSL_CERT_FILE";

/// An error of the runtime: finding, fetching or loading ONNX Runtime, opening a model, running a step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// A path that was asked for has no library.
    #[error(
        "{origin} names {}, which {reason}; give the path of libonnxruntime (.so, .dylib or .dll), or leave it out and run `pab-patch setup`",
        path.display()
    )]
    LibraryMissing {
        /// The option or variable that named the path.
        origin: String,
        /// The path as it was given.
        path: PathBuf,
        /// What is wrong with the path.
        reason: String,
    },

    /// The file is there and cannot be loaded as ONNX Runtime.
    #[error(
        "{} cannot be loaded as ONNX Runtime: {reason}; run `pab-patch setup` to fetch a copy that works, or give another library with --ort-lib",
        path.display()
    )]
    LibraryBroken {
        /// The library.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// The library works and is older than the interface we call.
    #[error(
        "{} is ONNX Runtime {version}, and at least {required} is needed; update it (`pip install --upgrade onnxruntime`), or run `pab-patch setup` and leave out --ort-lib and ORT_DYLIB_PATH",
        path.display()
    )]
    LibraryTooOld {
        /// The library.
        path: PathBuf,
        /// Its version as it reports it.
        version: String,
        /// The oldest version that will do.
        required: String,
    },

    /// Nothing was found and nothing may be fetched.
    #[error(
        "no ONNX Runtime was found{}; run `pab-patch setup` to fetch it, or give a library with --ort-lib",
        listed(skipped)
    )]
    LibraryNotFound {
        /// What was seen and passed over, with the reasons.
        skipped: Vec<String>,
    },

    /// ONNX Runtime can be loaded once in a process.
    #[error("ONNX Runtime is already loaded from {}; a process cannot load {} as well: start a new one", loaded.display(), asked.display())]
    OtherLibraryLoaded {
        /// The library in use.
        loaded: PathBuf,
        /// The library that was asked for.
        asked: PathBuf,
    },

    /// A session or value was asked for before the library was loaded.
    #[error("ONNX Runtime is not loaded yet; call `runtime::ensure` or `runtime::load` first")]
    NotLoaded,

    /// The library was loaded and could not be initialised.
    #[error("ONNX Runtime at {} failed to start: {reason}; run `pab-patch doctor`", path.display())]
    Initialise {
        /// The library.
        path: PathBuf,
        /// What it said.
        reason: String,
    },

    /// There is no wheel for this platform.
    #[error(
        "there is no ONNX Runtime wheel for {system} on {architecture}; build or install ONNX Runtime 1.31 or later and give its library with --ort-lib"
    )]
    NoWheel {
        /// The operating system.
        system: String,
        /// The processor architecture.
        architecture: String,
    },

    /// No source delivered the wheel.
    #[error("ONNX Runtime could not be fetched: {}; {OFFLINE_ADVICE}", joined(failures))]
    Fetch {
        /// One failure for each source that was tried.
        failures: Vec<RuntimeError>,
    },

    /// A connection failed or broke off, also after trying again.
    #[error("fetching {url} failed after {attempts} attempt(s): {reason}")]
    Network {
        /// What was fetched.
        url: String,
        /// How often it was tried.
        attempts: u32,
        /// The last failure.
        reason: String,
    },

    /// The server answered with an error.
    #[error("{url} answered with HTTP status {status}")]
    HttpStatus {
        /// What was fetched.
        url: String,
        /// The status code.
        status: u16,
    },

    /// The package index does not list the wheel.
    #[error("the package index {url} does not list {file}")]
    NotInIndex {
        /// The index page.
        url: String,
        /// The wheel's file name.
        file: String,
    },

    /// What came is not what was pinned.
    #[error("what {url} delivered is not the pinned file: expected {expected}, got {found}; nothing was kept")]
    WrongContent {
        /// What was fetched.
        url: String,
        /// The pinned size or SHA-256.
        expected: String,
        /// The size or SHA-256 that came.
        found: String,
    },

    /// The wheel cannot be unpacked.
    #[error("the wheel {file} cannot be unpacked: {reason}; run `pab-patch setup` again")]
    Archive {
        /// The wheel's file name.
        file: String,
        /// What is wrong.
        reason: String,
    },

    /// There is no folder to keep the library in.
    #[error("this account has no cache folder; set PAB_PATCH_CACHE to a folder that can be written")]
    NoCacheFolder,

    /// The cache cannot be written or read.
    #[error("{action} {} failed: {source}; free some space or make the folder writable, or set PAB_PATCH_CACHE to another folder", path.display())]
    Cache {
        /// What was tried: "writing", "creating", ….
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },

    /// The cached library is not what was installed.
    #[error("the cached library in {} is damaged: {reason}; run `pab-patch setup` to fetch it again", path.display())]
    CacheDamaged {
        /// The cache folder of the version.
        path: PathBuf,
        /// What differs.
        reason: String,
    },

    /// A model cannot be opened.
    #[error("{} cannot be opened by ONNX Runtime: {reason}", model.display())]
    Open {
        /// The model file.
        model: PathBuf,
        /// What ONNX Runtime said, and what to do where that is known.
        reason: String,
    },

    /// An execution provider was asked for and cannot be used.
    #[error("{} cannot run on {provider}: {reason}; {advice}", model.display())]
    ProviderUnusable {
        /// The model file.
        model: PathBuf,
        /// The provider.
        provider: &'static str,
        /// What is wrong.
        reason: String,
        /// What to install or change.
        advice: String,
    },

    /// WebGPU was asked for and cannot be used.
    #[error("{} cannot run on WebGPU: {reason}; {advice}", model.display())]
    WebGpuUnusable {
        /// The model file.
        model: PathBuf,
        /// What went wrong.
        reason: String,
        /// What to install or change.
        advice: &'static str,
    },

    /// An option has a value that ONNX Runtime cannot take.
    #[error("{option} cannot be {value}: {reason}")]
    Option {
        /// The option's name on the command line.
        option: &'static str,
        /// The value given.
        value: String,
        /// What is allowed.
        reason: &'static str,
    },

    /// The inputs given are not those of the model.
    #[error("{}: {reason}", model.display())]
    Inputs {
        /// The model file.
        model: PathBuf,
        /// Which input and why.
        reason: String,
    },

    /// The model lacks an input or output that its description (the plan) names.
    #[error(
        "{} has no {role} `{name}`, which its plan names; the plan belongs to another model, or the model was edited: patch it again",
        model.display()
    )]
    Mismatch {
        /// The model file.
        model: PathBuf,
        /// `input` or `output`.
        role: &'static str,
        /// The name that is missing.
        name: String,
    },

    /// A rule broadcasts a cache that no step has filled yet.
    #[error(
        "{}: rule flag `{flag}` is set while its cache `{cache}` is still empty; the first step of a clip has to compute it",
        model.display()
    )]
    CacheEmpty {
        /// The model file.
        model: PathBuf,
        /// The flag input.
        flag: String,
        /// The cache input.
        cache: String,
    },

    /// A step failed inside ONNX Runtime.
    #[error("running {} failed: {reason}", model.display())]
    Run {
        /// The model file.
        model: PathBuf,
        /// What ONNX Runtime said.
        reason: String,
    },

    /// There is not enough memory for the model or a step of it.
    #[error(
        "running {} takes more memory than there is: {reason}; take a smaller size (--height, --width, --frames, --size) or \
         --batch, patch again with narrower caches (--cache-dtype) or fewer (--memory), or use another --device",
        model.display()
    )]
    OutOfMemory {
        /// The model file.
        model: PathBuf,
        /// What ONNX Runtime said.
        reason: String,
    },

    /// A tensor's data does not fit its shape.
    #[error("a tensor of shape {shape:?} takes {expected} elements, and {found} were given")]
    Shape {
        /// The shape.
        shape: Vec<usize>,
        /// The product of the shape.
        expected: usize,
        /// The number of elements.
        found: usize,
    },

    /// A tensor of an element type that steps cannot take or give.
    #[error(
        "`{name}` has element type {found}, which this program does not handle; supported are {}",
        ElementType::names()
    )]
    ElementType {
        /// The tensor's name.
        name: String,
        /// The element type.
        found: String,
    },

    /// The ranks of a split run do not come together.
    #[error(transparent)]
    Collective(#[from] CollectiveError),

    /// ONNX Runtime refused to make or read a value.
    #[error("ONNX Runtime could not make or read the tensor `{name}`: {reason}")]
    Value {
        /// The tensor's name.
        name: String,
        /// What it said.
        reason: String,
    },
}

/// What ONNX Runtime, CUDA and the C++ library say where there is no memory left, in small letters.
const OUT_OF_MEMORY: &[&str] = &[
    "failed to allocate memory",
    "bad_alloc",
    "bad allocation",
    "out of memory",
    "cannot allocate memory",
    "alloc_failed",
];

impl RuntimeError {
    /// The error of a step that ONNX Runtime refused.
    pub(super) fn run(model: &Path, reason: String) -> RuntimeError {
        let model = model.to_path_buf();
        match is_out_of_memory(&reason) {
            true => RuntimeError::OutOfMemory { model, reason },
            false => RuntimeError::Run { model, reason },
        }
    }

    /// The error of a model that ONNX Runtime did not open.
    pub(super) fn open(model: &Path, reason: String) -> RuntimeError {
        let model = model.to_path_buf();
        match is_out_of_memory(&reason) {
            true => RuntimeError::OutOfMemory { model, reason },
            false => RuntimeError::Open { model, reason },
        }
    }
}

/// Whether a message says that there is no memory left.
fn is_out_of_memory(reason: &str) -> bool {
    let reason = reason.to_lowercase();
    OUT_OF_MEMORY.iter().any(|part| reason.contains(part))
}

fn joined(failures: &[RuntimeError]) -> String {
    failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn listed(skipped: &[String]) -> String {
    if skipped.is_empty() {
        String::new()
    } else {
        format!(" ({})", skipped.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_memory_is_told_from_the_rest() {
        for reason in [
            "Non-zero status code returned while running MatMul node. Name:'node' Status Message: std::bad_alloc",
            "/onnxruntime/core/framework/bfc_arena.cc:376 AllocateRawInternal Failed to allocate memory for requested buffer of \
             size 2147483648",
            "CUDA failure 2: out of memory ; GPU=0 ; hostname=host ; expr=cudaMalloc((void**)&p, size);",
            "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
        ] {
            let error = RuntimeError::run(Path::new("m.onnx"), reason.to_owned());
            assert!(matches!(error, RuntimeError::OutOfMemory { .. }), "{error}");
            let error = RuntimeError::open(Path::new("m.onnx"), reason.to_owned());
            assert!(matches!(error, RuntimeError::OutOfMemory { .. }), "{error}");
        }
        let other = "indices element out of data bounds, idx=9 must be within the inclusive range [-9,8]".to_owned();
        let error = RuntimeError::run(Path::new("m.onnx"), other);
        assert!(matches!(error, RuntimeError::Run { .. }), "{error}");
    }
}
