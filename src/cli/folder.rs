//! The folder that a command writes into.

use super::Failure;
use crate::report::ReportError;
use std::path::{Path, PathBuf};

/// An output folder. Folders that had to be made for it go again, as far as they are empty, unless it is kept.
#[derive(Debug)]
pub struct OutputFolder {
    made: Vec<PathBuf>,
}

impl OutputFolder {
    /// Makes the folder and those above it, as far as they are missing.
    pub fn make(folder: &Path) -> Result<OutputFolder, Failure> {
        let missing = folder
            .ancestors()
            .filter(|path| !path.as_os_str().is_empty())
            .take_while(|path| !path.exists());
        let missing: Vec<PathBuf> = missing.map(Path::to_owned).collect();
        let made = OutputFolder { made: missing };
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::read_dir(folder).map(drop))
            .map_err(|source| ReportError::Write {
                path: folder.to_owned(),
                source,
            })?;
        Ok(made)
    }

    /// The output stands in it: it stays.
    pub fn keep(mut self) {
        self.made.clear();
    }
}

impl Drop for OutputFolder {
    fn drop(&mut self) {
        // Innermost first. A folder with something in it is not removed, and then neither are those above it.
        for folder in &self.made {
            let _ = std::fs::remove_dir(folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_goes_again_unless_it_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a/b/c");
        drop(OutputFolder::make(&deep).unwrap());
        assert!(!root.path().join("a").exists());
        OutputFolder::make(&deep).unwrap().keep();
        assert!(deep.is_dir());
        // Only what this call made: nothing.
        drop(OutputFolder::make(&deep).unwrap());
        assert!(deep.is_dir());
        let below = deep.join("d");
        let folder = OutputFolder::make(&below).unwrap();
        std::fs::write(below.join("file"), "").unwrap();
        drop(folder);
        assert!(below.join("file").is_file());
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        std::fs::write(&file, "").unwrap();
        for folder in [file.clone(), file.join("below")] {
            let message = OutputFolder::make(&folder).unwrap_err().to_string();
            assert!(message.contains(&folder.display().to_string()), "{message}");
        }
    }
}
