//! Loads models without copying their weights.

use std::fmt;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use prost::Message;

use super::error::OnnxError;
use super::external;
use super::messages::{ModelProto, OperatorSetIdProto};
use super::schema::MODEL_PROTO;
use super::sniff::looks_like;
use super::weights::Weights;
use super::wire::{self, Deviation, Fault, WireError};

/// A model, and where its weights come from.
pub struct Model {
    /// The decoded file. Tensor bytes are slices of the memory map.
    pub proto: ModelProto,
    weights: Weights,
    deviation: Option<Deviation>,
}

impl fmt::Debug for Model {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The proto would print every weight.
        formatter
            .debug_struct("Model")
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}

impl Model {
    /// Loads a model. Its file is mapped, not read: weights stay on the disk until they are looked at, and external
    /// data files are not even opened.
    ///
    /// The file and its data files must not be changed in place while the model, or any tensor of it, is in use: reads
    /// would see other bytes, or the system would stop the process where the file became shorter. Replacing them by a
    /// rename (as [`Model::save`] and most tools do) is harmless. On Windows mapped files cannot be replaced at all.
    ///
    /// # Errors
    /// An [`OnnxError`] that tells unreadable, empty, foreign, cut-off and damaged files apart. Files with fields that
    /// this version does not know are refused with the field's path, since saving would lose them.
    pub fn load(path: &Path) -> Result<Model, OnnxError> {
        let read = |source| OnnxError::Read {
            path: path.to_owned(),
            source,
        };
        let metadata = fs::metadata(path).map_err(read)?;
        if !metadata.is_file() {
            let what = if metadata.is_dir() {
                "a folder"
            } else {
                "a device or a pipe"
            };
            return Err(OnnxError::NotAFile {
                path: path.to_owned(),
                what,
            });
        }
        let bytes = external::map(path).map_err(read)?;
        let (proto, deviation) = decode(path, bytes.clone())?;
        let weights = Weights::of_file(path, bytes)?;
        Ok(Model {
            proto,
            weights,
            deviation,
        })
    }

    /// A model that was made in memory. Tensors with external data cannot be read from it.
    pub fn from_proto(proto: ModelProto) -> Model {
        Model::with_weights(proto, Weights::default())
    }

    /// The file of the model as bytes, without external data.
    pub fn to_bytes(&self) -> Vec<u8> {
        prost::Message::encode_to_vec(&self.proto)
    }

    /// A model whose external data are those of another, usually the one that `proto` was derived from.
    pub fn with_weights(proto: ModelProto, weights: Weights) -> Model {
        Model {
            proto,
            weights,
            deviation: None,
        }
    }

    /// The file that the model (or the one that it was derived from) was loaded from.
    pub fn path(&self) -> Option<&Path> {
        self.weights.path()
    }

    /// Gives the values of the model's tensors.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The decoded file and its weights.
    pub fn into_parts(self) -> (ModelProto, Weights) {
        (self.proto, self.weights)
    }

    /// Why saving the untouched model would give other bytes than the file has: a legal, yet unusual way of writing
    /// that the official writers do not use. `None` for their files, and for models made in memory.
    pub fn deviation(&self) -> Option<&Deviation> {
        self.deviation.as_ref()
    }
}

/// Decodes a whole file after comparing it with the schema.
pub(super) fn decode(path: &Path, bytes: Bytes) -> Result<(ModelProto, Option<Deviation>), OnnxError> {
    if bytes.is_empty() {
        return Err(OnnxError::Empty { path: path.to_owned() });
    }
    let deviation = wire::scan(&bytes, &MODEL_PROTO).map_err(|error| refusal(path, &bytes, error))?;
    let decoded = ModelProto::decode(bytes);
    let proto = decoded.map_err(|source| OnnxError::Decode {
        path: path.to_owned(),
        source,
    })?;
    if proto.graph.is_none() {
        return Err(OnnxError::NoGraph { path: path.to_owned() });
    }
    Ok((proto, deviation))
}

/// What a failed scan means for the whole file.
fn refusal(path: &Path, bytes: &[u8], error: WireError) -> OnnxError {
    let path = path.to_owned();
    if let Some(looks_like) = looks_like(bytes) {
        return OnnxError::NotOnnx { path, looks_like };
    }
    match error.fault {
        Fault::Truncated { .. } => OnnxError::Truncated { path, error },
        // Every model starts with a field that we know, whatever its version.
        _ if error.offset == 0 => OnnxError::NotOnnx {
            path,
            looks_like: "binary data of a kind that is not known here; name the model's .onnx file",
        },
        Fault::UnknownField => OnnxError::UnknownField { path, error },
        _ => OnnxError::Damaged { path, error },
    }
}

/// The version of the operator set that a model imports for a domain; `""` and `"ai.onnx"` are the same domain.
pub fn opset(proto: &ModelProto, domain: &str) -> Option<i64> {
    find_opset(&proto.opset_import, domain)
}

/// As [`opset`], in a list of imports.
pub(super) fn find_opset(imports: &[OperatorSetIdProto], domain: &str) -> Option<i64> {
    let domain = canonical_domain(domain);
    let import = imports
        .iter()
        .find(|import| canonical_domain(import.domain.as_deref().unwrap_or_default()) == domain);
    import.map(|import| import.version.unwrap_or(0))
}

/// The default domain has two names.
pub(super) fn canonical_domain(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}
