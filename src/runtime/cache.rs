//! The folder that keeps fetched libraries, and the record by which damage is noticed.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::{error::RuntimeError, wheels};

const MANIFEST: &str = "manifest.json";
/// Folders in which a set-up works carry this prefix until they are complete.
const STAGING: &str = ".setup-";
/// What a set-up that was killed left behind is removed after this time.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);

/// What a version's folder holds, written beside the files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// The version of ONNX Runtime.
    pub version: String,
    /// The wheel that the files come from, and its SHA-256.
    pub wheel: String,
    pub wheel_sha256: String,
    /// The name of the library among the files.
    pub library: String,
    pub files: Vec<Record>,
}

/// One file as it was installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Its name in the folder.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256 in hexadecimal.
    pub sha256: String,
}

/// The cache folder of this program.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache in this folder, which need not exist.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
        }
    }

    /// The folder of the pinned version.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.root.join(format!("onnxruntime-{}", wheels::VERSION))
    }

    /// The cached library, after a look at the sizes: quick enough for every start.
    ///
    /// # Errors
    /// [`RuntimeError::CacheDamaged`] when the folder is there and not as it was installed.
    pub fn library(&self) -> Result<Option<PathBuf>, RuntimeError> {
        self.check(|path, record| match fs::metadata(path) {
            Ok(metadata) if metadata.len() == record.size => Ok(()),
            Ok(metadata) => Err(format!(
                "{} has {} bytes instead of {}",
                record.name,
                metadata.len(),
                record.size
            )),
            Err(error) => Err(format!("{}: {error}", record.name)),
        })
    }

    /// The cached library, after reading and hashing every file.
    ///
    /// # Errors
    /// [`RuntimeError::CacheDamaged`] when the folder is there and not as it was installed.
    pub fn verify(&self) -> Result<Option<PathBuf>, RuntimeError> {
        self.check(|path, record| match hash_file(path) {
            Ok(found) if found == record.sha256 => Ok(()),
            Ok(_) => Err(format!("{} is not what was installed (another SHA-256)", record.name)),
            Err(error) => Err(format!("{}: {error}", record.name)),
        })
    }

    fn check(&self, check: impl Fn(&Path, &Record) -> Result<(), String>) -> Result<Option<PathBuf>, RuntimeError> {
        let folder = self.folder();
        let damaged = |reason: String| RuntimeError::CacheDamaged {
            path: folder.clone(),
            reason,
        };
        let text = match fs::read(folder.join(MANIFEST)) {
            Ok(text) => text,
            Err(_) if !folder.exists() => return Ok(None),
            Err(error) => return Err(damaged(format!("{MANIFEST}: {error}"))),
        };
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|error| damaged(format!("{MANIFEST}: {error}")))?;
        if !manifest.files.iter().any(|record| record.name == manifest.library) {
            return Err(damaged(format!(
                "{MANIFEST} does not list the library {}",
                manifest.library
            )));
        }
        for record in &manifest.files {
            if Path::new(&record.name)
                .file_name()
                .is_none_or(|name| name != record.name.as_str())
            {
                return Err(damaged(format!(
                    "{MANIFEST} names `{}`, which is not a file of this folder",
                    record.name
                )));
            }
            check(&folder.join(&record.name), record).map_err(damaged)?;
        }
        Ok(Some(folder.join(manifest.library)))
    }

    /// A new folder to put the files of a set-up into; it vanishes unless it is installed.
    pub(super) fn stage(&self) -> Result<TempDir, RuntimeError> {
        let failed = |source| RuntimeError::Cache {
            action: "creating",
            path: self.root.clone(),
            source,
        };
        fs::create_dir_all(&self.root).map_err(failed)?;
        self.sweep();
        tempfile::Builder::new()
            .prefix(STAGING)
            .tempdir_in(&self.root)
            .map_err(failed)
    }

    /// Puts a complete folder in its place in one step, and returns the library in it.
    ///
    /// Another process may do the same at the same time: whoever comes second finds the place taken by an intact
    /// copy and leaves it. A damaged copy is moved away first.
    pub(super) fn install(&self, staged: TempDir, manifest: &Manifest) -> Result<PathBuf, RuntimeError> {
        let folder = self.folder();
        let failed = |source| RuntimeError::Cache {
            action: "writing",
            path: folder.clone(),
            source,
        };
        let text = serde_json::to_vec_pretty(manifest).map_err(|error| failed(io::Error::other(error)))?;
        fs::write(staged.path().join(MANIFEST), text).map_err(failed)?;
        let mut attempts = 0;
        loop {
            let error = match fs::rename(staged.path(), &folder) {
                Ok(()) => {
                    // The folder has moved; there is nothing left to clean up.
                    let _ = staged.keep();
                    return Ok(folder.join(&manifest.library));
                }
                Err(error) => error,
            };
            if let Ok(Some(library)) = self.verify() {
                return Ok(library);
            }
            attempts += 1;
            if attempts > 5 || !folder.exists() {
                return Err(failed(error));
            }
            let aside = tempfile::Builder::new()
                .prefix(STAGING)
                .tempdir_in(&self.root)
                .map_err(failed)?;
            // If this fails, another process has just moved or replaced it, and the next round sees what it did.
            let _ = fs::rename(&folder, aside.path().join("damaged"));
        }
    }

    /// Removes what set-ups that were killed left behind. Failing to is no failure of the set-up.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.root) else { return };
        for entry in entries.flatten() {
            let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(STAGING));
            let age = entry
                .metadata()
                .and_then(|metadata| metadata.modified())
                .map(|time| SystemTime::now().duration_since(time));
            if ours && matches!(age, Ok(Ok(age)) if age > STALE) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Installs a library of these bytes.
    #[cfg(test)]
    pub(super) fn install_for_tests(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let staged = self.stage().unwrap();
        fs::write(staged.path().join(name), bytes).unwrap();
        self.install(staged, &manifest_for_tests(name, bytes)).unwrap()
    }
}

/// SHA-256 of a file, in hexadecimal.
fn hash_file(path: &Path) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer)?;
        let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else {
            break;
        };
        hash.update(read);
    }
    Ok(hexadecimal(&hash.finalize()))
}

/// Lower-case hexadecimal digits.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
fn manifest_for_tests(name: &str, bytes: &[u8]) -> Manifest {
    let record = Record {
        name: name.to_owned(),
        size: bytes.len() as u64,
        sha256: hexadecimal(&Sha256::digest(bytes)),
    };
    Manifest {
        version: wheels::VERSION.to_owned(),
        wheel: "a.whl".to_owned(),
        wheel_sha256: String::new(),
        library: name.to_owned(),
        files: vec![record],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installed_library_is_found_and_damage_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::new(root.path());
        assert_eq!(cache.library().unwrap(), None);
        let library = cache.install_for_tests("library.so", b"the library");
        assert_eq!(cache.library().unwrap(), Some(library.clone()));
        assert_eq!(cache.verify().unwrap(), Some(library.clone()));

        // The same size with other content passes the quick check only.
        fs::write(&library, b"THE library").unwrap();
        assert_eq!(cache.library().unwrap(), Some(library.clone()));
        assert!(cache.verify().unwrap_err().to_string().contains("another SHA-256"));

        fs::write(&library, b"the libr").unwrap();
        let message = cache.library().unwrap_err().to_string();
        assert!(
            message.contains("library.so has 8 bytes instead of 11; run `pab-patch setup`"),
            "{message}"
        );

        fs::write(cache.folder().join(MANIFEST), b"{").unwrap();
        assert!(cache.library().unwrap_err().to_string().contains(MANIFEST));
    }

    #[test]
    fn a_damaged_copy_is_replaced_and_an_intact_one_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::new(root.path());
        let library = cache.install_for_tests("library.so", b"the library");
        fs::write(&library, b"damaged....").unwrap();
        cache.install_for_tests("library.so", b"the library");
        assert_eq!(fs::read(&library).unwrap(), b"the library");
        // An intact copy wins over a newcomer, even a different one.
        cache.install_for_tests("library.so", b"a newcomer");
        assert_eq!(fs::read(&library).unwrap(), b"the library");
        let names: Vec<_> = fs::read_dir(root.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, [cache.folder().file_name().unwrap()]);
    }

    #[test]
    fn two_set_ups_at_once_both_succeed() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::new(root.path());
        let install = || cache.install_for_tests("library.so", &[7; 100_000]);
        let paths: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(install)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(paths.iter().all(|path| *path == paths[0]));
        assert_eq!(cache.verify().unwrap().as_ref(), paths.first());
    }

    #[test]
    fn a_manifest_cannot_point_out_of_the_folder() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::new(root.path());
        cache.install_for_tests("library.so", b"x");
        let manifest = manifest_for_tests("../library.so", b"x");
        fs::write(cache.folder().join(MANIFEST), serde_json::to_vec(&manifest).unwrap()).unwrap();
        assert!(
            cache
                .library()
                .unwrap_err()
                .to_string()
                .contains("not a file of this folder")
        );
    }
}
