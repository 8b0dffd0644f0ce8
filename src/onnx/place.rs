//! Puts files into a folder: atomically, without ever writing into an existing file, and undone on failure.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tempfile::{Builder, NamedTempFile};

use super::external;
use super::save::{How, Progress, SaveOptions};
use super::stream::PIECE;

/// Files and folders that were made; they are removed again unless [`Made::keep`] is called.
#[derive(Default)]
pub(super) struct Made {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Made {
    /// Makes a folder and those above it that are missing.
    pub fn folder(&mut self, path: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = path.ancestors().take_while(|folder| !folder.exists()).collect();
        for folder in missing.into_iter().rev() {
            fs::create_dir(folder)?;
            self.folders.push(folder.to_owned());
        }
        Ok(())
    }

    /// Remembers a file.
    pub fn file(&mut self, path: &Path) {
        self.files.push(path.to_owned());
    }

    /// Everything went well.
    pub fn keep(mut self) {
        self.files.clear();
        self.folders.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // Nothing more can be done where the removal fails too.
        self.files.iter().rev().for_each(|path| drop(fs::remove_file(path)));
        self.folders.iter().rev().for_each(|path| drop(fs::remove_dir(path)));
    }
}

/// A temporary file in `folder` that becomes a file with the permissions that new files have.
pub(super) fn temporary(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = Builder::new();
    builder.prefix(".pab-patch-").suffix(".tmp");
    if let Some(permissions) = new_file_permissions() {
        builder.permissions(permissions);
    }
    builder.tempfile_in(folder)
}

#[cfg(unix)]
fn new_file_permissions() -> Option<Permissions> {
    use std::os::unix::fs::PermissionsExt;
    // The system takes the umask from it.
    Some(Permissions::from_mode(0o666))
}

#[cfg(not(unix))]
fn new_file_permissions() -> Option<Permissions> {
    None
}

/// Makes a rename in `folder` last through a power failure, where the system offers that.
pub(super) fn sync_folder(folder: &Path) {
    // Windows cannot open folders, some network file systems cannot sync them; the file itself is safe already.
    if let Ok(folder) = File::open(folder) {
        drop(folder.sync_all());
    }
}

/// Whether two paths name the same file on the disk, also through links.
pub(super) fn same_file(left: &Path, right: &Path) -> bool {
    match (left.canonicalize(), right.canonicalize()) {
        (Ok(one), Ok(other)) => one == other || same_inode(&one, &other),
        _ => false,
    }
}

#[cfg(unix)]
fn same_inode(left: &Path, right: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (left.metadata(), right.metadata()) {
        (Ok(one), Ok(other)) => one.dev() == other.dev() && one.ino() == other.ino(),
        _ => false,
    }
}

#[cfg(not(unix))]
fn same_inode(_: &Path, _: &Path) -> bool {
    false
}

/// Ways to have a file in another folder, cheapest first; hard links only where they are allowed.
pub(super) fn ways(hard_links: bool) -> &'static [How] {
    const WAYS: &[How] = &[How::Linked, How::Cloned, How::Copied];
    if hard_links { WAYS } else { &WAYS[1..] }
}

/// Puts the file `from` (whose bytes are `bytes`) to `to`, which must not exist, by the first way that works.
///
/// A hard link shares the disk space and the bytes: later changes in place of one are changes of both, yet nothing here
/// (and no tool that replaces by rename) changes files in place. The official `onnx` package refuses such files.
///
/// # Errors
/// The error of the last way; [`io::ErrorKind::AlreadyExists`] where `to` exists.
pub(super) fn put(from: &Path, bytes: &Bytes, to: &Path, ways: &[How], options: &SaveOptions) -> io::Result<How> {
    let folder = to.parent().unwrap_or(Path::new("."));
    let mut result = Err(io::Error::from(io::ErrorKind::Unsupported));
    for way in ways {
        let attempt = match way {
            How::Linked => fs::hard_link(from, to),
            How::Cloned => clone(from, folder, to),
            _ => copy(bytes, folder, to, options),
        };
        match attempt {
            Ok(()) => return Ok(*way),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
            Err(error) => result = Err(error),
        }
    }
    result
}

fn clone(from: &Path, folder: &Path, to: &Path) -> io::Result<()> {
    let mut builder = Builder::new();
    builder.prefix(".pab-patch-").suffix(".tmp");
    let cloned = builder.make_in(folder, |path| reflink_copy::reflink(from, path))?;
    cloned.persist_noclobber(to).map(drop).map_err(|error| error.error)
}

fn copy(bytes: &Bytes, folder: &Path, to: &Path, options: &SaveOptions) -> io::Result<()> {
    let mut file = temporary(folder)?;
    let total = bytes.len() as u64;
    let mut done = 0;
    for piece in bytes.chunks(PIECE) {
        options.stop.check().map_err(io::Error::other)?;
        file.write_all(piece)?;
        done += piece.len() as u64;
        if let Some(progress) = &options.progress {
            progress(Progress { file: to, done, total });
        }
    }
    file.as_file().sync_all()?;
    file.persist_noclobber(to).map(drop).map_err(|error| error.error)
}

/// Whether `path` is a regular file, no link, with exactly these bytes.
pub(super) fn holds(path: &Path, bytes: &[u8]) -> bool {
    let regular =
        fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == bytes.len() as u64);
    regular && external::map(path).is_ok_and(|found| found == bytes)
}

/// A name beside `location` that is not taken: `weights.bin` → `weights-2.bin`, `weights-3.bin`, …
pub(super) fn alternative(location: &str, number: usize) -> String {
    let (folder, name) = location
        .rsplit_once('/')
        .map_or(("", location), |(folder, name)| (folder, name));
    let (stem, extension) = match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => (stem, format!(".{extension}")),
        _ => (name, String::new()),
    };
    let slash = if location.contains('/') { "/" } else { "" };
    format!("{folder}{slash}{stem}-{number}{extension}")
}

#[cfg(test)]
mod tests {
    use super::alternative;

    #[test]
    fn alternatives_keep_folder_and_extension() {
        assert_eq!(alternative("weights.bin", 2), "weights-2.bin");
        assert_eq!(alternative("a.b/weights", 3), "a.b/weights-3");
        assert_eq!(alternative("model.onnx.data", 2), "model.onnx-2.data");
        assert_eq!(alternative(".hidden", 2), ".hidden-2");
        assert_eq!(alternative("/x", 2), "/x-2");
    }
}
