//! One run of saving: where everything goes, and the steps in which it gets there.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use prost::Message;
use tempfile::NamedTempFile;

use super::counted::Counted;
use super::error::OnnxError;
use super::external::{self, Reference};
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
                        place::ways(self.options.hard_links),
                        self.options,
                    ) {
                        Ok(how) => {
                            self.made.file(&to);
                            how
                        }
                        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                        Err(source) => return Err(OnnxError::written(&to, source)),
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

    /// Makes the folder of a data file inside the output's folder.
    fn prepare_folder(&mut self, file: &Path) -> Result<(), OnnxError> {
        let parent = file.parent().unwrap_or(&self.folder).to_owned();
        // Links are followed before anything is made, or folders would be made where they lead.
        let there = parent
            .ancestors()
            .find(|folder| fs::symlink_metadata(folder).is_ok())
            .unwrap_or(&self.folder);
        if !there.canonicalize().is_ok_and(|real| real.starts_with(&self.folder)) {
            let reason = format!(
                "{} is a link that leads out of the output's folder, or nowhere; remove it",
                there.display()
            );
            return Err(OnnxError::Destination {
                path: self.path.to_owned(),
                reason,
            });
        }
        self.made
            .folder(&parent)
            .map_err(|source| OnnxError::written(&parent, source))
    }

    /// Moves large initializers into a data file. Gives the file and the name that it is to have; it is complete on the
    /// disk by then. `None` where a file with these bytes was there already.
    pub fn move_out(&mut self, proto: &mut ModelProto) -> Result<Option<(NamedTempFile, PathBuf)>, OnnxError> {
        let first = self.data_name()?;
        let shown = self.folder.join(&first);
        let write = |source| OnnxError::written(&shown, source);
        let temporary = place::temporary(&self.folder).map_err(write)?;
        let threshold = self.options.external_threshold;
        let mut total = 0;
        let mut data = None;
        if let Some(graph) = &mut proto.graph {
            try_each_initializer_mut(graph, &mut |tensor| {
                total += large(tensor, threshold)?.map_or(0, |length| length.next_multiple_of(ALIGNMENT));
                Ok::<_, OnnxError>(())
            })?;
            let mut out = Counted::new(temporary.as_file(), &shown, total, self.options);
            let mut places = VecDeque::new();
            try_each_initializer_mut(graph, &mut |tensor| {
                if let Some(length) = large(tensor, threshold)? {
                    let bytes = in_tensor(tensor, tensor::inline_bytes(tensor))?;
                    places.push_back((out.pad(ALIGNMENT).map_err(write)?, length));
                    bytes
                        .chunks(stream::PIECE)
                        .try_for_each(|piece| out.write_all(piece))
                        .map_err(write)?;
                }
                Ok::<_, OnnxError>(())
            })?;
            let bytes = out.finish().map_err(write)?;
            // Which names are free depends on the bytes, so the tensors learn the location last.
            let (location, how) = self.free_name(&first, &external::map(temporary.path()).map_err(write)?);
            try_each_initializer_mut(graph, &mut |tensor| {
                if large(tensor, threshold)?.is_some()
                    && let Some((offset, length)) = places.pop_front()
                {
                    let location = location.clone();
                    Reference {
                        location,
                        offset,
                        length: Some(length),
                        checksum: None,
                    }
                    .write(tensor);
                }
                Ok::<_, OnnxError>(())
            })?;
            let path = self.folder.join(&location);
            data = (how == How::Written).then(|| (temporary, path.clone()));
            self.files.push(SavedFile { path, bytes, how });
        }
        let bytes = proto.encoded_len() as u64;
        let limit = self.options.inline_limit;
        if bytes > limit {
            return Err(OnnxError::TooLarge {
                path: self.path.to_owned(),
                bytes,
                limit,
            });
        }
        Ok(data)
    }

    /// The location of a new data file, where it is free.
    fn data_name(&self) -> Result<String, OnnxError> {
        let name = self.target.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| OnnxError::Destination {
            path: self.path.to_owned(),
            reason: "data files are named after the model, whose name must be UTF-8; choose another name".to_owned(),
        })?;
        Ok(format!("{name}.data"))
    }

    /// `first`, or the first name like it that no file has, or a file with just these bytes.
    fn free_name(&self, first: &str, bytes: &[u8]) -> (String, How) {
        let mut location = first.to_owned();
        let mut number = 1;
        loop {
            let path = self.folder.join(&location);
            if fs::symlink_metadata(&path).is_err() {
                return (location, How::Written);
            }
            if place::holds(&path, bytes) {
                return (location, How::Kept);
            }
            number += 1;
            location = place::alternative(first, number);
        }
    }

    /// Writes the model's file and gives everything its name.
    pub fn finish(mut self, proto: &ModelProto, data: Option<(NamedTempFile, PathBuf)>) -> Result<Saved, OnnxError> {
        let write = |path: &Path| {
            let path = path.to_owned();
            move |source| OnnxError::written(&path, source)
        };
        let temporary = place::temporary(&self.folder).map_err(write(self.path))?;
        let total = proto.encoded_len() as u64;
        let mut out = Counted::new(temporary.as_file(), self.path, total, self.options);
        let bytes = stream::encode(proto, &mut out)
            .and_then(|()| out.finish())
            .map_err(write(self.path))?;
        if let Some((data, path)) = data {
            // Older data files stay: until the model's own rename, a model may refer to them.
            data.persist_noclobber(&path)
                .map_err(|error| write(&path)(error.error))?;
            self.made.file(&path);
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
