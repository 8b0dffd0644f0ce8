//! One run of saving: where everything goes, and the steps in which it gets there.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use prost::Message;
use tempfile::NamedTempFile;

use super::counted::Counted;
use super::error::OnnxError;
use super::external::Reference;
use super::messages::{DataType, ModelProto, TensorProto};
use super::place::{self, Made};
use super::save::{How, SaveOptions, Saved, SavedFile};
use super::stream;
use super::tensor;
use super::tensors::{try_each_initializer_mut, try_each_tensor, try_each_tensor_mut};
use super::weights::{DataFile, Weights, in_tensor, outside};

/// Offsets in data files are multiples of this, the page size of most systems.
const ALIGNMENT: u64 = 4096;

/// Saving of one model.
pub(super) struct Job<'a> {
    weights: &'a Weights,
    options: &'a SaveOptions,
    /// The output as it was named.
    path: &'a Path,
    /// The output's canonical folder.
    pub folder: PathBuf,
    /// The output in its canonical folder.
    target: PathBuf,
    made: Made,
    files: Vec<SavedFile>,
}

impl<'a> Job<'a> {
    pub fn new(weights: &'a Weights, path: &'a Path, options: &'a SaveOptions) -> Result<Job<'a>, OnnxError> {
        let refuse = |reason: String| OnnxError::Destination {
            path: path.to_owned(),
            reason,
        };
        let name = path
            .file_name()
            .ok_or_else(|| refuse("it names no file; add a file name".to_owned()))?;
        if path.is_dir() {
            return Err(refuse("it is a folder; add a file name".to_owned()));
        }
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let folder = match parent.canonicalize() {
            Ok(folder) if folder.is_dir() => folder,
            Ok(_) => {
                return Err(refuse(format!(
                    "{} is not a folder; choose another path",
                    parent.display()
                )));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(refuse(format!(
                    "the folder {} does not exist; make it first",
                    parent.display()
                )));
            }
            Err(source) => {
                return Err(OnnxError::Write {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let target = folder.join(name);
        Ok(Job {
            weights,
            options,
            path,
            folder,
            target,
            made: Made::default(),
            files: Vec::new(),
        })
    }

    /// The data files that the model refers to, by location. Every reference is checked against its file.
    pub fn locations(&self, proto: &ModelProto) -> Result<BTreeMap<String, DataFile>, OnnxError> {
        let mut locations = BTreeMap::new();
        try_each_tensor(proto, &mut |tensor| {
            if !in_tensor(tensor, tensor::is_external(tensor))? {
                return Ok(());
            }
            // Slices the map without looking at it, which checks the whole reference.
            self.weights.bytes(tensor)?;
            let fault = |fault| outside(tensor, fault);
            let location = Reference::of(tensor).map_err(fault)?.location;
            let file = self.weights.file(&location).map_err(fault)?;
            locations.insert(location, file);
            Ok(())
        })?;
        Ok(locations)
    }

    /// Refuses to write over the input.
    pub fn refuse_inputs(&self, locations: &BTreeMap<String, DataFile>) -> Result<(), OnnxError> {
        let refuse = |what: String| OnnxError::WouldOverwrite {
            path: self.path.to_owned(),
            what,
        };
        if self
            .weights
            .path()
            .is_some_and(|source| place::same_file(source, &self.target))
        {
            return Err(refuse("the file that the model was loaded from".to_owned()));
        }
        match locations
            .iter()
            .find(|(_, file)| place::same_file(&file.path, &self.target))
        {
            Some((location, _)) => Err(refuse(format!("the model's data file `{location}`"))),
            None => Ok(()),
        }
    }

    /// Puts all data files beside the output; gives the locations that had to change.
    pub fn place_all(&mut self, locations: &BTreeMap<String, DataFile>) -> Result<BTreeMap<String, String>, OnnxError> {
        let mut renamed = BTreeMap::new();
        for (location, file) in locations {
            let placed = self.place(location, file)?;
            if placed != *location {
                renamed.insert(location.clone(), placed);
            }
        }
        Ok(renamed)
    }

    /// Puts a data file beside the output; gives the location that it got.
    fn place(&mut self, location: &str, file: &DataFile) -> Result<String, OnnxError> {
        const ATTEMPTS: usize = 1000;
        for number in 1..ATTEMPTS {
            let candidate = if number == 1 {
                location.to_owned()
            } else {
                place::alternative(location, number)
            };
            let to = self.folder.join(&candidate);
            if to == self.target {
                continue;
            }
            self.prepare_folder(&to)?;
            let how = match fs::symlink_metadata(&to) {
                Ok(metadata) if metadata.is_file() && place::same_file(&file.path, &to) => How::Kept,
                Ok(_) if place::holds(&to, &file.bytes) => How::Kept,
                Ok(_) => continue,
                Err(_) => {
                    match place::put(
                        &file.path,
                        &file.bytes,
                        &to,
                        place::WAYS,
                        self.options.progress.as_deref(),
                    ) {
                        Ok(how) => {
                            self.made.file(&to);
                            how
                        }
                        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                        Err(source) => return Err(OnnxError::Write { path: to, source }),
                    }
                }
            };
            self.files.push(SavedFile {
                path: to,
                bytes: file.bytes.len() as u64,
                how,
            });
            return Ok(candidate);
        }
        let reason = format!("{ATTEMPTS} names like `{location}` are taken; choose an empty folder");
        Err(OnnxError::Destination {
            path: self.path.to_owned(),
            reason,
        })
    }

    /// Makes the folder of a data file, and sees that it lies inside the output's folder.
    fn prepare_folder(&mut self, file: &Path) -> Result<(), OnnxError> {
        let parent = file.parent().unwrap_or(&self.folder).to_owned();
        let write = |source| OnnxError::Write {
            path: parent.clone(),
            source,
        };
        self.made.folder(&parent).map_err(write)?;
        if parent.canonicalize().map_err(write)?.starts_with(&self.folder) {
            return Ok(());
        }
        let reason = format!(
            "{} is a link that leads out of the output's folder; remove it",
            parent.display()
        );
        Err(OnnxError::Destination {
            path: self.path.to_owned(),
            reason,
        })
    }

    /// Moves large initializers into a new data file, which is complete on the disk but still has a temporary name.
    pub fn move_out(
        &mut self,
        proto: &mut ModelProto,
        locations: &BTreeMap<String, DataFile>,
    ) -> Result<(NamedTempFile, PathBuf), OnnxError> {
        let location = self.data_name(locations)?;
        let path = self.folder.join(&location);
        let write = |source| OnnxError::Write {
            path: path.clone(),
            source,
        };
        let temporary = place::temporary(&self.folder).map_err(write)?;
        let threshold = self.options.external_threshold;
        let mut total = 0;
        let mut graph = proto.graph.take();
        if let Some(graph) = &mut graph {
            try_each_initializer_mut(graph, &mut |tensor| {
                total += large(tensor, threshold)?.map_or(0, |length| length.next_multiple_of(ALIGNMENT));
                Ok::<_, OnnxError>(())
            })?;
            let mut out = Counted::new(temporary.as_file(), &path, total, self.options);
            try_each_initializer_mut(graph, &mut |tensor| {
                if let Some(length) = large(tensor, threshold)? {
                    let bytes = in_tensor(tensor, tensor::inline_bytes(tensor))?;
                    let offset = out.pad(ALIGNMENT).map_err(write)?;
                    bytes
                        .chunks(stream::PIECE)
                        .try_for_each(|piece| out.write_all(piece))
                        .map_err(write)?;
                    let length = Some(length);
                    Reference {
                        location: location.clone(),
                        offset,
                        length,
                        checksum: None,
                    }
                    .write(tensor);
                }
                Ok::<_, OnnxError>(())
            })?;
            let bytes = out.finish().map_err(write)?;
            self.files.push(SavedFile {
                path: path.clone(),
                bytes,
                how: How::Written,
            });
        }
        proto.graph = graph;
        let bytes = proto.encoded_len() as u64;
        let limit = self.options.inline_limit;
        if bytes > limit {
            return Err(OnnxError::TooLarge {
                path: self.path.to_owned(),
                bytes,
                limit,
            });
        }
        Ok((temporary, path))
    }

    /// The location of a new data file: none that the model refers to already.
    fn data_name(&self, locations: &BTreeMap<String, DataFile>) -> Result<String, OnnxError> {
        let name = self
            .target
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or_else(|| OnnxError::Destination {
                path: self.path.to_owned(),
                reason: "data files are named after the model, whose name must be UTF-8; choose another name"
                    .to_owned(),
            })?;
        let first = format!("{name}.data");
        let taken = |location: &str| {
            let path = self.folder.join(location);
            let is = |other: &Path| other == path || place::same_file(other, &path);
            path.is_dir()
                || locations.values().any(|file| is(&file.path))
                || self.files.iter().any(|file| is(&file.path))
        };
        let numbered = (2..).map(|number| place::alternative(&first, number));
        let free = std::iter::once(first.clone())
            .chain(numbered)
            .find(|location| !taken(location));
        Ok(free.unwrap_or(first))
    }

    /// Writes the model's file and gives everything its name.
    pub fn finish(mut self, proto: &ModelProto, data: Option<(NamedTempFile, PathBuf)>) -> Result<Saved, OnnxError> {
        let write = |path: &Path| {
            let path = path.to_owned();
            move |source| OnnxError::Write { path, source }
        };
        let temporary = place::temporary(&self.folder).map_err(write(self.path))?;
        let total = proto.encoded_len() as u64;
        let mut out = Counted::new(temporary.as_file(), self.path, total, self.options);
        let bytes = stream::encode(proto, &mut out)
            .and_then(|()| out.finish())
            .map_err(write(self.path))?;
        if let Some((data, path)) = data {
            let new = fs::symlink_metadata(&path).is_err();
            data.persist(&path).map_err(|error| write(&path)(error.error))?;
            if new {
                self.made.file(&path);
            }
        }
        temporary
            .persist(&self.target)
            .map_err(|error| write(self.path)(error.error))?;
        place::sync_folder(&self.folder);
        self.files.push(SavedFile {
            path: self.path.to_owned(),
            bytes,
            how: How::Written,
        });
        self.made.keep();
        let written = self
            .files
            .iter()
            .filter(|file| matches!(file.how, How::Copied | How::Written));
        let bytes = written.map(|file| file.bytes).sum();
        Ok(Saved {
            files: self.files,
            bytes,
        })
    }
}

/// Bytes of an inline initializer that is large enough to be moved out; `None` for the others.
fn large(tensor: &TensorProto, threshold: u64) -> Result<Option<u64>, OnnxError> {
    let external = in_tensor(tensor, tensor::is_external(tensor))?;
    if external || in_tensor(tensor, tensor::element_type(tensor))? == DataType::String {
        return Ok(None);
    }
    let length = in_tensor(tensor, tensor::byte_length(tensor))?;
    Ok((length > threshold).then_some(length))
}

/// Writes new locations into the tensors of the model.
pub(super) fn rename_locations(proto: &mut ModelProto, renamed: &BTreeMap<String, String>) {
    let Ok(()) = try_each_tensor_mut(proto, &mut |tensor| {
        for entry in tensor
            .external_data
            .iter_mut()
            .filter(|entry| entry.key.as_deref() == Some("location"))
        {
            if let Some(new) = entry.value.as_ref().and_then(|value| renamed.get(value)) {
                entry.value = Some(new.clone());
            }
        }
        Ok::<_, Infallible>(())
    });
}
