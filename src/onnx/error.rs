//! What can go wrong with model files: every error names the file, the place and the reason, and says what to do.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::external::ExternalFault;
use super::tensor::TensorFault;
use super::validate::ValidationError;
use super::wire::WireError;
use crate::stop::Stopped;

/// Why a model was not loaded, not saved, or a tensor not read.
#[derive(Debug, Error)]
pub enum OnnxError {
    /// The file cannot be opened, examined or mapped into memory.
    #[error("cannot read {}: {source}; {}", path.display(), advice(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A folder, a device or the like.
    #[error("{} is {what}, not a file; name a .onnx file", path.display())]
    NotAFile {
        /// The path as given.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A file of no bytes.
    #[error("{} is empty; export or fetch the model again", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The file is of another format.
    #[error("{} is not an ONNX model; it looks like {looks_like}", path.display())]
    NotOnnx {
        /// The file.
        path: PathBuf,
        /// What it is and what to do.
        looks_like: &'static str,
    },
    /// The file ends too early.
    #[error("{} is cut off: {error}; fetch or export it again", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Where.
        error: WireError,
    },
    /// The file has fields that this version does not know, and would lose.
    #[error(
        "{} has a field that this version does not know: {}, at byte {}; loading it would lose that field, so it is \
         refused. Use a newer pab-patch, or export with an ONNX IR version up to {}",
        path.display(), error.path, error.offset, super::NEWEST_IR_VERSION
    )]
    UnknownField {
        /// The file.
        path: PathBuf,
        /// Where.
        error: WireError,
    },
    /// The bytes contradict the ONNX schema.
    #[error("{} is damaged: {error}; fetch or export it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where and how.
        error: WireError,
    },
    /// The decoder refused what the scan let pass.
    #[error("{} cannot be decoded: {source}; fetch or export it again", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// The decoder's reason.
        source: prost::DecodeError,
    },
    /// A model without a graph.
    #[error("{} has no graph; it may be cut off, or hold something other than a model", path.display())]
    NoGraph {
        /// The file.
        path: PathBuf,
    },
    /// A tensor's own description is wrong.
    #[error("tensor `{tensor}`: {fault}")]
    Tensor {
        /// Name of the tensor.
        tensor: String,
        /// What is wrong.
        fault: TensorFault,
    },
    /// A tensor's data in another file cannot be used.
    #[error("tensor `{tensor}` with external data: {fault}")]
    External {
        /// Name of the tensor.
        tensor: String,
        /// What is wrong.
        fault: Box<ExternalFault>,
    },
    /// Saving would overwrite what the model was loaded from.
    #[error(
        "{} is {what}; it is never modified. Choose another output path",
        path.display()
    )]
    WouldOverwrite {
        /// The output path.
        path: PathBuf,
        /// Which input it is.
        what: String,
    },
    /// The output cannot be written; nothing of it was left behind.
    #[error("cannot write {}: {source}; {}", path.display(), advice(source))]
    Write {
        /// The output file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Saving was given up because that was asked for; nothing of it was left behind.
    #[error("{} was not written: {source}", path.display())]
    Stopped {
        /// The output file.
        path: PathBuf,
        /// That it was asked for.
        source: Stopped,
    },
    /// The output path has no file name, or its folder does not exist or leads elsewhere.
    #[error("cannot write to {}: {reason}", path.display())]
    Destination {
        /// The output path.
        path: PathBuf,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// The model does not fit one protobuf file, even with its weights in another.
    #[error(
        "{}: the graph without its large initializers takes {bytes} bytes, more than the {limit} that a protobuf file \
         may have; turn large constants of nodes into initializers",
        path.display()
    )]
    TooLarge {
        /// The output file.
        path: PathBuf,
        /// Bytes that the file would have.
        bytes: u64,
        /// Bytes that it may have.
        limit: u64,
    },
    /// The model breaks a rule of the ONNX IR.
    #[error("{subject} is not a valid ONNX model: {error}")]
    Invalid {
        /// The file, or "the model".
        subject: String,
        /// Which rule, where.
        error: Box<ValidationError>,
    },
}

impl OnnxError {
    /// The error of a write that was refused, or stopped between two of its pieces.
    pub(super) fn written(path: &Path, source: io::Error) -> OnnxError {
        let path = path.to_owned();
        match source.get_ref().and_then(|inner| inner.downcast_ref::<Stopped>()) {
            Some(stopped) => OnnxError::Stopped { path, source: *stopped },
            None => OnnxError::Write { path, source },
        }
    }
}

/// What a person can do about an I/O error.
pub(super) fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "check the path",
        io::ErrorKind::PermissionDenied => "check the permissions of the file and its folder, or choose another folder",
        io::ErrorKind::StorageFull => "the disk is full: free some space or choose another folder",
        io::ErrorKind::QuotaExceeded => "your disk quota is used up: free some space or choose another folder",
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only: choose another folder",
        io::ErrorKind::FileTooLarge => "the file system does not hold files of that size: choose another folder",
        io::ErrorKind::OutOfMemory => "there is not enough memory",
        _ => "check the disk and the path, then try again",
    }
}
