//! Tensor values on demand: inline ones as they stand, external ones from memory-mapped files.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sha1::{Digest, Sha1};

use super::error::OnnxError;
use super::external::{self, ExternalFault, Reference};
use super::messages::{ModelProto, TensorProto};
use super::tensor::{self, TensorFault};
use super::tensors::try_each_tensor;

/// Gives the values of a model's tensors. Cheap to clone; all clones share the maps.
///
/// External files are opened when the first tensor in them is asked for, once each, and only inside the model's folder.
#[derive(Clone, Default)]
pub struct Weights {
    source: Option<Arc<Source>>,
}

/// The file that a model was loaded from, and the files that its tensors lie in.
struct Source {
    path: PathBuf,
    /// Canonical, so that resolved links can be compared with it.
    folder: PathBuf,
    /// The model's own bytes, memory-mapped.
    bytes: Bytes,
    /// By location as tensors write it.
    files: Mutex<HashMap<String, DataFile>>,
}

/// Where a tensor's values stand in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The file, canonical.
    pub path: PathBuf,
    /// The file relative to the folder of the model's canonical path, as tensors write it.
    pub location: String,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

impl Standing {
    /// Makes a tensor with external data of it, which needs the file and not the values.
    pub fn write(&self, tensor: &mut TensorProto) {
        let reference = Reference {
            location: self.location.clone(),
            offset: self.offset,
            length: Some(self.length),
            checksum: None,
        };
        reference.write(tensor);
    }
}

/// An external-data file.
#[derive(Clone)]
pub(super) struct DataFile {
    /// Canonical path.
    pub path: PathBuf,
    /// Its bytes, memory-mapped.
    pub bytes: Bytes,
}

impl fmt::Debug for Weights {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Weights").field("path", &self.path()).finish()
    }
}

impl Weights {
    /// The weights of a model in a file. Opens nothing.
    ///
    /// # Errors
    /// [`OnnxError::Read`] where the file's folder cannot be resolved.
    pub(super) fn of_file(path: &Path, bytes: Bytes) -> Result<Weights, OnnxError> {
        let folder = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let folder = folder.canonicalize().map_err(|source| OnnxError::Read {
            path: folder.to_owned(),
            source,
        })?;
        let files = Mutex::default();
        Ok(Weights {
            source: Some(Arc::new(Source {
                path: path.to_owned(),
                folder,
                bytes,
                files,
            })),
        })
    }

    /// The model's file, as it was named; `None` for models made in memory.
    pub fn path(&self) -> Option<&Path> {
        self.source.as_ref().map(|source| source.path.as_path())
    }

    /// The canonical folder of the model's file.
    pub(super) fn folder(&self) -> Option<&Path> {
        self.source.as_ref().map(|source| source.folder.as_path())
    }

    /// The values of a tensor as little-endian bytes, packed as ONNX packs `raw_data`: elements of 2, 4 and 6 bits
    /// share bytes, complex numbers are pairs. Not copied where they stand in `raw_data` or in another file; such
    /// slices have no alignment.
    ///
    /// # Errors
    /// [`OnnxError::Tensor`] for strings, unknown types and values that do not fill the dimensions;
    /// [`OnnxError::External`] for data files that are missing, too short or outside the model's folder.
    pub fn bytes(&self, tensor: &TensorProto) -> Result<Bytes, OnnxError> {
        if !in_tensor(tensor, tensor::is_external(tensor))? {
            return in_tensor(tensor, tensor::inline_bytes(tensor));
        }
        in_tensor(tensor, tensor::check(tensor))?;
        let needed = in_tensor(tensor, tensor::byte_length(tensor))?;
        let slice = Reference::of(tensor).and_then(|reference| self.slice(&reference, needed));
        slice.map_err(|fault| outside(tensor, fault))
    }

    /// Where the values of a tensor stand as [`Weights::bytes`] gives them: in a data file, or in the model's own.
    /// `None` where they stand in no file, or are written there in another way.
    ///
    /// # Errors
    /// [`OnnxError::External`] for data files that are missing or outside the model's folder, [`OnnxError::Read`] where
    /// the model's own is gone.
    pub fn standing(&self, tensor: &TensorProto) -> Result<Option<Standing>, OnnxError> {
        let Some(source) = &self.source else {
            return Ok(None);
        };
        if in_tensor(tensor, tensor::is_external(tensor))? {
            let length = self.bytes(tensor)?.len() as u64;
            let file =
                Reference::of(tensor).and_then(|reference| Ok((self.file(&reference.location)?.path, reference)));
            let (path, reference) = file.map_err(|fault| outside(tensor, fault))?;
            return Ok(Some(Standing {
                path,
                location: reference.location,
                offset: reference.offset,
                length,
            }));
        }
        let Some(raw) = &tensor.raw_data else {
            return Ok(None);
        };
        // Slices of the map are known by where they lie.
        let offset = (raw.as_ptr() as usize).checked_sub(source.bytes.as_ptr() as usize);
        let within = |offset: &usize| {
            let end = offset.checked_add(raw.len());
            end.is_some_and(|end| end <= source.bytes.len())
        };
        let Some(offset) = offset.filter(within) else {
            return Ok(None);
        };
        let path = source.path.canonicalize().map_err(|error| OnnxError::Read {
            path: source.path.clone(),
            source: error,
        })?;
        let location = path.file_name().and_then(|name| name.to_str());
        Ok(location.map(str::to_owned).map(|location| Standing {
            path,
            location,
            offset: offset as u64,
            length: raw.len() as u64,
        }))
    }

    /// The values of a tensor of integers (2 to 64 bits, signed or not) or booleans (0 and 1), in row-major order.
    ///
    /// # Errors
    /// As [`Weights::bytes`]; [`OnnxError::Tensor`] for other types and for values above `i64::MAX`.
    pub fn integers(&self, tensor: &TensorProto) -> Result<Vec<i64>, OnnxError> {
        let (bytes, count) = self.elements(tensor)?;
        let element = in_tensor(tensor, tensor::element_type(tensor))?;
        in_tensor(tensor, tensor::integers(element, &bytes, count))
    }

    /// The values of a tensor of real numbers, in row-major order: floating point of 4 to 64 bits, and integers.
    /// 64-bit integers above 2⁵³ are rounded.
    ///
    /// # Errors
    /// As [`Weights::bytes`]; [`OnnxError::Tensor`] for complex numbers.
    pub fn floats(&self, tensor: &TensorProto) -> Result<Vec<f64>, OnnxError> {
        let (bytes, count) = self.elements(tensor)?;
        let element = in_tensor(tensor, tensor::element_type(tensor))?;
        in_tensor(tensor, tensor::floats(element, &bytes, count))
    }

    /// The values of a tensor of strings. Never external.
    ///
    /// # Errors
    /// [`OnnxError::Tensor`] where there are more or fewer than the dimensions say.
    pub fn strings(&self, tensor: &TensorProto) -> Result<Vec<Bytes>, OnnxError> {
        in_tensor(tensor, tensor::check(tensor))?;
        Ok(tensor.string_data.clone())
    }

    /// Compares every data file that a tensor gives a checksum (SHA-1) for with it. Reads these files whole.
    ///
    /// Gives how many files were compared.
    ///
    /// # Errors
    /// [`OnnxError::External`] for the first file that differs, and where a file cannot be read.
    pub fn verify(&self, proto: &ModelProto) -> Result<usize, OnnxError> {
        let mut sums = BTreeMap::new();
        try_each_tensor(proto, &mut |tensor| {
            let external = in_tensor(tensor, tensor::is_external(tensor))?;
            if external {
                let fault = |fault| outside(tensor, fault);
                let reference = Reference::of(tensor).map_err(fault)?;
                if let Some(expected) = reference.checksum {
                    let file = self.file(&reference.location).map_err(fault)?;
                    let found = sums
                        .entry(file.path.clone())
                        .or_insert_with(|| hexadecimal(&Sha1::digest(&file.bytes)));
                    if *found != expected {
                        let (path, found) = (file.path, found.clone());
                        return Err(fault(ExternalFault::Checksum { path, expected, found }));
                    }
                }
            }
            Ok(())
        })?;
        Ok(sums.len())
    }

    /// Bytes and element count of a tensor.
    fn elements(&self, tensor: &TensorProto) -> Result<(Bytes, usize), OnnxError> {
        let bytes = self.bytes(tensor)?;
        let count = in_tensor(tensor, tensor::element_count(tensor))?;
        // Elements have at least two bits, so the count is bounded by bytes that are in memory.
        Ok((bytes, usize::try_from(count).unwrap_or(usize::MAX)))
    }

    /// The bytes that a reference means, of which the tensor needs `needed`.
    fn slice(&self, reference: &Reference, needed: u64) -> Result<Bytes, ExternalFault> {
        let file = self.file(&reference.location)?;
        let length = reference.check_length(needed)?;
        let offset = reference.offset;
        let size = file.bytes.len() as u64;
        match offset.checked_add(length) {
            Some(end) if end <= size => Ok(file.bytes.slice(offset as usize..end as usize)),
            _ => Err(ExternalFault::OutOfRange {
                path: file.path,
                offset,
                length,
                size,
            }),
        }
    }

    /// The data file of a location, mapped when it is first asked for.
    pub(super) fn file(&self, location: &str) -> Result<DataFile, ExternalFault> {
        let Some(source) = &self.source else {
            return Err(ExternalFault::NoFolder {
                location: location.to_owned(),
            });
        };
        let mut files = lock(&source.files);
        if let Some(file) = files.get(location) {
            return Ok(file.clone());
        }
        let path = external::resolve(&source.folder, location)?;
        let known = files.values().find(|file| file.path == path).cloned();
        let file = match known {
            Some(file) => file,
            None => match external::map(&path) {
                Ok(bytes) => DataFile { path, bytes },
                Err(source) => return Err(ExternalFault::Read { path, source }),
            },
        };
        files.insert(location.to_owned(), file.clone());
        Ok(file)
    }
}

/// A panic elsewhere leaves the table of files usable: entries are inserted whole.
fn lock(files: &Mutex<HashMap<String, DataFile>>) -> MutexGuard<'_, HashMap<String, DataFile>> {
    files.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Names the tensor in a fault of its external data.
pub(super) fn outside(tensor: &TensorProto, fault: ExternalFault) -> OnnxError {
    OnnxError::External {
        tensor: tensor::label(tensor),
        fault: Box::new(fault),
    }
}

/// Names the tensor in a fault.
pub(super) fn in_tensor<T>(tensor: &TensorProto, result: Result<T, TensorFault>) -> Result<T, OnnxError> {
    result.map_err(|fault| OnnxError::Tensor {
        tensor: tensor::label(tensor),
        fault,
    })
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
