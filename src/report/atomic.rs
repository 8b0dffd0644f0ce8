//! Files that appear whole or not at all.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde::Serialize;
use tempfile::NamedTempFile;

use super::ReportError;

/// Writes a file through `fill`: into a temporary sibling first, which is renamed to `path` when all is written.
/// An existing file is replaced; where anything fails it stays as it was and the temporary file is removed.
///
/// # Errors
/// Those of `fill`, and [`ReportError::Write`] where the operating system refuses.
pub fn write_atomically(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<&mut File>) -> Result<(), ReportError>,
) -> Result<(), ReportError> {
    Pending::write(path, fill)?.finish()
}

/// Writes a value as indented JSON with a newline at the end, atomically.
///
/// # Errors
/// [`ReportError::Json`] for a value that JSON cannot hold, and those of [`write_atomically`].
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), ReportError> {
    let json = |error: serde_json::Error| ReportError::Json {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let text = serde_json::to_string_pretty(value).map_err(json)?;
    Pending::text(path, &text)?.finish()
}

/// A file that is written but not yet at its place: several can be written before the first is renamed.
#[derive(Debug)]
pub struct Pending<'a> {
    path: &'a Path,
    file: NamedTempFile,
}

impl<'a> Pending<'a> {
    /// Writes the temporary sibling. It is removed again unless [`Pending::finish`] is called.
    ///
    /// # Errors
    /// Those of `fill`, and [`ReportError::Write`] where the operating system refuses.
    pub fn write(
        path: &'a Path,
        fill: impl FnOnce(&mut BufWriter<&mut File>) -> Result<(), ReportError>,
    ) -> Result<Pending<'a>, ReportError> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut builder = tempfile::Builder::new();
        builder.prefix(".pab-patch-").suffix(".part");
        // Temporary files are private by default; a result gets the permissions of any new file, less the umask.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut file = builder.tempfile_in(folder).map_err(|source| failed(path, source))?;
        let mut writer = BufWriter::new(file.as_file_mut());
        fill(&mut writer)?;
        writer.flush().map_err(|source| failed(path, source))?;
        drop(writer);
        Ok(Pending { path, file })
    }

    /// Writes a text, with a newline at the end, to the temporary sibling.
    ///
    /// # Errors
    /// [`ReportError::Write`] where the operating system refuses.
    pub fn text(path: &'a Path, text: &str) -> Result<Pending<'a>, ReportError> {
        Pending::write(path, |file| {
            writeln!(file, "{text}").map_err(|source| failed(path, source))
        })
    }

    /// Renames it to its place.
    ///
    /// # Errors
    /// [`ReportError::Write`] where the operating system refuses.
    pub fn finish(self) -> Result<(), ReportError> {
        let Pending { path, file } = self;
        file.persist(path)
            .map(|_| ())
            .map_err(|error| failed(path, error.error))
    }
}

/// The error of a refused write.
pub(super) fn failed(path: &Path, source: std::io::Error) -> ReportError {
    ReportError::Write {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_written_whole_and_readable_for_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("figures.json");
        write_json(&path, &vec![1, 2]).unwrap();
        write_json(&path, &vec![3]).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "[\n  3\n]\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // As a file that `std` makes: the umask alone decides.
            let plain = folder.path().join("plain");
            std::fs::write(&plain, "").unwrap();
            let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode(&path), mode(&plain));
        }
    }

    #[test]
    fn a_failure_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("figures.json");
        std::fs::write(&path, "old").unwrap();
        let result = write_atomically(&path, |file| {
            file.write_all(b"half").map_err(|source| failed(&path, source))?;
            Err(ReportError::FrameRate(0))
        });
        assert!(matches!(result, Err(ReportError::FrameRate(0))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none/figures.json");
        let message = write_json(&path, &0).unwrap_err().to_string();
        assert!(
            message.starts_with(&path.display().to_string()) && message.contains("folder exists"),
            "{message}"
        );
    }
}
