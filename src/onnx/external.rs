//! External data: tensor bytes that lie in other files, strictly inside the model's folder.
//!
//! See [External data](https://github.com/onnx/onnx/blob/main/docs/ExternalData.md). A location comes out of a file
//! that anyone may have written, so it is checked as text first and then, with links resolved, on the disk.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use memmap2::Mmap;
use thiserror::Error;

use super::error::advice;
use super::messages::{DataLocation, StringStringEntryProto, TensorProto};

/// Why external data cannot be used.
#[derive(Debug, Error)]
pub enum ExternalFault {
    /// The model was made in memory.
    #[error("its data are in `{location}`, yet the model was not loaded from a file; load it from its folder")]
    NoFolder {
        /// Location in the tensor.
        location: String,
    },
    /// The tensor does not say where its data lie.
    #[error("it does not say where its data lie (no `location`); export the model again")]
    NoLocation,
    /// A key that stands twice.
    #[error("its key `{0}` stands twice; export the model again")]
    TwoValues(String),
    /// An offset or a length that is no number.
    #[error("its `{key}` is `{value}`, not a number of bytes; export the model again")]
    NotANumber {
        /// `offset` or `length`.
        key: &'static str,
        /// What stands there.
        value: String,
    },
    /// A location that could lead out of the model's folder.
    #[error(
        "its location `{location}` {reason}. Only files inside the model's folder are read, by a relative path with \
         `/`; move the data file beside the model and export or edit the location"
    )]
    Unsafe {
        /// Location in the tensor.
        location: String,
        /// Why it is refused.
        reason: &'static str,
    },
    /// A link that leads out of the model's folder.
    #[error(
        "its location `{location}` is a link that leads out of the model's folder, to {}; put the file itself beside \
         the model (for a Hugging Face cache: `hf download --local-dir`)",
        target.display()
    )]
    LeadsOut {
        /// Location in the tensor.
        location: String,
        /// Where the link leads.
        target: PathBuf,
    },
    /// There is no such file.
    #[error("{} does not exist; put the data file that belongs to the model there", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A folder, a device or the like.
    #[error("{} is not a regular file; put the data file that belongs to the model there", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read {}: {source}; {}", path.display(), advice(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Offset and length point behind the file's end.
    #[error(
        "bytes {offset} to {offset}+{length} lie outside {}, which has {size} bytes; it is cut off or belongs to \
         another model",
        path.display()
    )]
    OutOfRange {
        /// The file.
        path: PathBuf,
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
        /// Bytes of the file.
        size: u64,
    },
    /// The length is not that of the dimensions.
    #[error("its `length` is {length}, its dimensions and element type need {needed} bytes; export the model again")]
    Length {
        /// Bytes that the tensor says.
        length: u64,
        /// Bytes that it needs.
        needed: u64,
    },
    /// The file's SHA-1 is not the one that the tensor says.
    #[error("{} has SHA-1 {found}, the model says {expected}; fetch the data file again", path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// What the model says.
        expected: String,
        /// What it is.
        found: String,
    },
}

/// Where a tensor's bytes lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Path of the file, relative to the model's folder, checked by [`check_location`].
    pub location: String,
    /// First byte.
    pub offset: u64,
    /// Bytes; `None` where the tensor leaves it to its dimensions.
    pub length: Option<u64>,
    /// SHA-1 of the whole file, in hexadecimal.
    pub checksum: Option<String>,
}

impl Reference {
    /// Reads the reference of a tensor with external data. Keys that other tools add are left alone.
    ///
    /// # Errors
    /// An [`ExternalFault`] for missing, doubled or malformed keys, and for locations that could lead out.
    pub fn of(tensor: &TensorProto) -> Result<Reference, ExternalFault> {
        let location = entry(tensor, "location")?.ok_or(ExternalFault::NoLocation)?;
        check_location(location)?;
        Ok(Reference {
            location: location.to_owned(),
            offset: number(tensor, "offset")?.unwrap_or(0),
            length: number(tensor, "length")?,
            checksum: entry(tensor, "checksum")?.map(str::to_ascii_lowercase),
        })
    }

    /// The bytes of the reference: what the tensor says, which must be what it needs.
    ///
    /// # Errors
    /// [`ExternalFault::Length`] where they differ.
    pub(super) fn check_length(&self, needed: u64) -> Result<u64, ExternalFault> {
        match self.length {
            Some(length) if length != needed => Err(ExternalFault::Length { length, needed }),
            _ => Ok(needed),
        }
    }

    /// Writes the reference into a tensor, in the order of the official Python package, and drops inline values.
    pub(super) fn write(self, tensor: &mut TensorProto) {
        tensor.raw_data = None;
        tensor.float_data.clear();
        tensor.int32_data.clear();
        tensor.int64_data.clear();
        tensor.double_data.clear();
        tensor.uint64_data.clear();
        tensor.data_location = Some(DataLocation::External as i32);
        let entries = [
            ("location", Some(self.location)),
            ("offset", Some(self.offset.to_string())),
            ("length", self.length.map(|length| length.to_string())),
            ("checksum", self.checksum),
        ];
        tensor.external_data = entries
            .into_iter()
            .filter_map(|(key, value)| value.map(|value| (key, value)))
            .map(|(key, value)| StringStringEntryProto {
                key: Some(key.to_owned()),
                value: Some(value),
            })
            .collect();
    }
}

fn entry<'a>(tensor: &'a TensorProto, key: &'static str) -> Result<Option<&'a str>, ExternalFault> {
    let mut values = tensor
        .external_data
        .iter()
        .filter(|entry| entry.key.as_deref() == Some(key));
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(ExternalFault::TwoValues(key.to_owned())),
        (first, None) => Ok(first.map(|entry| entry.value.as_deref().unwrap_or_default())),
    }
}

fn number(tensor: &TensorProto, key: &'static str) -> Result<Option<u64>, ExternalFault> {
    let parse = |value: &str| {
        value.parse().map_err(|_| ExternalFault::NotANumber {
            key,
            value: value.to_owned(),
        })
    };
    entry(tensor, key)?.map(parse).transpose()
}

/// Checks that a location is a plain relative path with `/`, on every system alike.
///
/// # Errors
/// [`ExternalFault::Unsafe`] for absolute paths, `..`, drives, backslashes and NUL.
pub fn check_location(location: &str) -> Result<(), ExternalFault> {
    let bytes = location.as_bytes();
    let drive = matches!(bytes, [letter, b':', ..] if letter.is_ascii_alphabetic());
    let rules = [
        (location.is_empty(), "is empty"),
        (location.starts_with('/'), "is absolute"),
        (drive, "names a drive"),
        (location.contains('\\'), "has a backslash"),
        (location.contains('\0'), "has a NUL character"),
        // On Windows a colon opens an alternate stream of a file.
        (cfg!(windows) && location.contains(':'), "has a colon"),
        (location.split('/').any(|part| part == ".."), "has `..` in it"),
        (
            location.split('/').all(|part| part.is_empty() || part == "."),
            "names no file",
        ),
    ];
    match rules.iter().find(|(broken, _)| *broken) {
        Some((_, reason)) => Err(ExternalFault::Unsafe {
            location: location.to_owned(),
            reason,
        }),
        None => Ok(()),
    }
}

/// The real path of a checked location in `folder` (which is canonical).
///
/// # Errors
/// Missing files, other things than files, and links that lead out of the folder.
pub(super) fn resolve(folder: &Path, location: &str) -> Result<PathBuf, ExternalFault> {
    let named = folder.join(location);
    let path = named.canonicalize().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ExternalFault::Missing { path: named.clone() },
        _ => ExternalFault::Read {
            path: named.clone(),
            source,
        },
    })?;
    if !path.starts_with(folder) {
        return Err(ExternalFault::LeadsOut {
            location: location.to_owned(),
            target: path,
        });
    }
    match path.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(path),
        Ok(_) => Err(ExternalFault::NotAFile { path }),
        Err(source) => Err(ExternalFault::Read { path, source }),
    }
}

/// Maps a file into memory. Pages are read when they are looked at, and stay while any slice of them lives.
///
/// The file must not be truncated or rewritten in place while it is mapped: reads would see the new bytes, or the
/// process would be stopped by the system. Replacing it by a rename, as [`super::Model::save`] does, is harmless.
///
/// # Errors
/// The system's error where the file cannot be opened or mapped.
pub(super) fn map(path: &Path) -> io::Result<Bytes> {
    let file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the map is read-only and private to this process, and lives as long as the last slice of it. That no
    // other process changes the file meanwhile cannot be enforced; the documentation of `Model::load` says so.
    let map = unsafe { Mmap::map(&file)? };
    Ok(Bytes::from_owner(map))
}
