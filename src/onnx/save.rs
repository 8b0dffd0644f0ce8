//! Saves models atomically, with their weights where they are, beside the output, or in a new data file.
//!
//! Everything is written to temporary siblings, brought to the disk, and renamed: data first, the model last. On any
//! failure nothing is left behind. Nothing that exists is ever written into, so neither the input nor files that are
//! hard-linked with it can change.
//!
//! **Data files that the model refers to.** Where the output stands in the input's folder, references stay as they
//! are. Elsewhere the files are put beside the output under the same relative location: as
//! copy-on-write clones, else as copies (with [`SaveOptions::hard_links`] as hard links first). A file of that name with the same bytes is kept; one with other bytes belongs
//! to another model, so it is left alone and the next free name is taken (`weights-2.bin`), in the tensors too.
//!
//! **Inline weights.** They stay inline, unless the file would become larger than protobuf allows, or
//! [`SaveOptions::move_weights`] asks for it: then initializers
//! above a threshold move to `<output>.data`, at offsets that are multiples of 4096 so that they can be mapped. As above,
//! an older file of that name is kept where it has the same bytes, and else left alone and the next free name is taken
//! (`model.onnx-2.data`): whoever refers to it, such as the output's older version until the very last rename, finds the
//! bytes it was made with. It cannot be known whether another model still needs the older file, so it is never deleted;
//! delete it by hand when none does.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message;

use super::error::OnnxError;
use super::job::{Job, rename_locations};
use super::load::Model;
use super::validate::validate;
use crate::stop::Stop;

/// How far writing a file has come.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The file that is written.
    pub file: &'a Path,
    /// Bytes written so far.
    pub done: u64,
    /// Bytes that it will have.
    pub total: u64,
}

/// Is told the progress, every few megabytes.
pub type ProgressFn = dyn Fn(Progress<'_>) + Send + Sync;

/// How to save a model.
#[derive(Clone)]
pub struct SaveOptions {
    /// Is told the progress of files that are written or copied.
    pub progress: Option<Arc<ProgressFn>>,
    /// Largest size of the model file in bytes; above it, initializers move to a data file. Default: what protobuf
    /// allows, 2³¹ − 1.
    pub inline_limit: u64,
    /// Whether initializers move to a data file also where the model file is not too large. Default: false.
    pub move_weights: bool,
    /// Initializers of at most this many bytes stay inline in any case. Default: 1024.
    pub external_threshold: u64,
    /// Whether [`validate`] must accept the model first. Default: true.
    pub validate: bool,
    /// Whether data files may be hard links to the input's. Default: false, since the official `onnx` package refuses
    /// data files that have several links, and then neither the output nor the input could be loaded by it.
    pub hard_links: bool,
    /// Looked at every few megabytes: saving is given up where that is asked for, and leaves nothing behind.
    pub stop: Stop,
}

impl Default for SaveOptions {
    fn default() -> SaveOptions {
        SaveOptions {
            progress: None,
            inline_limit: i32::MAX as u64,
            move_weights: false,
            external_threshold: 1024,
            validate: true,
            hard_links: false,
            stop: Stop::default(),
        }
    }
}

impl fmt::Debug for SaveOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SaveOptions")
            .field("progress", &self.progress.is_some())
            .field("inline_limit", &self.inline_limit)
            .field("move_weights", &self.move_weights)
            .field("external_threshold", &self.external_threshold)
            .field("validate", &self.validate)
            .field("hard_links", &self.hard_links)
            .field("stop", &self.stop)
            .finish()
    }
}

/// How a file of the output came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It was there already, with the same bytes.
    Kept,
    /// Hard link to the input's file.
    Linked,
    /// Copy-on-write clone of the input's file.
    Cloned,
    /// Copy of the input's file.
    Copied,
    /// Written anew.
    Written,
}

/// A file of the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedFile {
    /// Its path.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// How it came to be.
    pub how: How,
}

/// What saving made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The data files, then the model's file.
    pub files: Vec<SavedFile>,
    /// Bytes that were written: new and copied files, not links, clones and kept ones.
    pub bytes: u64,
}

impl Model {
    /// Saves the model; see the [module's documentation](self) for where its weights go.
    ///
    /// A model that was loaded and not changed is saved byte for byte as it was, unless it was written in an unusual way
    /// ([`Model::deviation`]) or moved weights.
    ///
    /// # Errors
    /// [`OnnxError::Invalid`] for models that [`validate`] refuses, [`OnnxError::WouldOverwrite`] where `path` is the
    /// file (also by a link) that the model or its data were loaded from, [`OnnxError::External`] where data files are
    /// missing or unsafe, [`OnnxError::Destination`] and [`OnnxError::Write`] where the output cannot be written,
    /// [`OnnxError::Stopped`] where that was asked for.
    pub fn save(&self, path: &Path, options: &SaveOptions) -> Result<Saved, OnnxError> {
        if options.validate {
            validate(&self.proto).map_err(|error| OnnxError::Invalid {
                subject: path.display().to_string(),
                error: Box::new(error),
            })?;
        }
        let mut job = Job::new(self.weights(), path, options)?;
        let locations = job.locations(&self.proto)?;
        job.refuse_inputs(&locations)?;
        let mut proto = Cow::Borrowed(&self.proto);
        if self.weights().folder() != Some(job.folder.as_path()) {
            let renamed = job.place_all(&locations)?;
            if !renamed.is_empty() {
                rename_locations(proto.to_mut(), &renamed);
            }
        }
        let data = if options.move_weights || proto.encoded_len() as u64 > options.inline_limit {
            job.move_out(proto.to_mut())?
        } else {
            None
        };
        job.finish(&proto, data)
    }
}
