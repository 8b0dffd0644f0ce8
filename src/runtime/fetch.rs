//! The set-up: fetches the pinned wheel and takes ONNX Runtime's library out of it into the cache.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use zip::ZipArchive;

use super::{
    cache::{Cache, Manifest, Record, hexadecimal},
    download::{Client, Expected, Progress},
    error::RuntimeError,
    index,
    library::{self, Library, Places},
    wheels::{self, Wheel},
};

/// What is taken out of the wheel beside the library: the licences that allow keeping it.
const NOTICES: &[&str] = &["LICENSE", "ThirdPartyNotices.txt"];
/// No member of the wheel is larger than this; a larger one is an attack or an accident.
const MEMBER_LIMIT: u64 = 512 << 20;

/// What a set-up did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// The library in the cache.
    pub library: Library,
    /// Whether it was fetched now; otherwise it was there and intact.
    pub fetched: bool,
}

/// Makes sure that the cache holds an intact library of the pinned version, and fetches it otherwise.
///
/// # Errors
/// No wheel for this platform, no source that delivers it, a cache that cannot be written, a library that does not
/// load here.
pub fn setup(places: &Places, progress: Progress<'_>) -> Result<Setup, RuntimeError> {
    let cache = places
        .cache_folder
        .as_deref()
        .map(Cache::new)
        .ok_or(RuntimeError::NoCacheFolder)?;
    if let Ok(Some(path)) = cache.verify() {
        return Ok(Setup {
            library: library::accept_cached(&path)?,
            fetched: false,
        });
    }
    let (system, architecture) = (std::env::consts::OS, std::env::consts::ARCH);
    let wheel = wheels::wheel_for(system, architecture).ok_or_else(|| RuntimeError::NoWheel {
        system: system.to_owned(),
        architecture: architecture.to_owned(),
    })?;
    let path = fetch(&cache, wheel, &places.package_indexes, &Client::new(), progress)?;
    Ok(Setup {
        library: library::accept_cached(&path)?,
        fetched: true,
    })
}

/// Fetches a wheel from the first source that delivers it and installs its library: the package indexes in their
/// order (whoever sets one often cannot reach PyPI), then PyPI.
fn fetch(
    cache: &Cache,
    wheel: &Wheel<'_>,
    indexes: &[String],
    client: &Client,
    progress: Progress<'_>,
) -> Result<PathBuf, RuntimeError> {
    let staged = cache.stage()?;
    let path = staged.path().join("wheel.part");
    let mut file = File::options()
        .create_new(true)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(|source| RuntimeError::Cache {
            action: "creating",
            path: path.clone(),
            source,
        })?;
    let expected = Expected {
        size: wheel.size,
        sha256: wheel.sha256,
    };
    let mut failures = Vec::new();
    let sources = indexes.iter().map(Some).chain([None]);
    for source in sources {
        let url = match source {
            Some(index) => index::find(client, index, "onnxruntime", wheel.file()),
            None => Ok(wheel.url.to_owned()),
        };
        match url.and_then(|url| client.file(&url, expected, (&mut file, &path), progress)) {
            Ok(()) => {
                let manifest = extract(&file, wheel, staged.path())?;
                drop(file);
                std::fs::remove_file(&path).map_err(|source| RuntimeError::Cache {
                    action: "removing",
                    path,
                    source,
                })?;
                return cache.install(staged, &manifest);
            }
            // A full disk is not the source's fault, and the next source would find it full as well.
            Err(error @ RuntimeError::Cache { .. }) => return Err(error),
            Err(error) => failures.push(error),
        }
    }
    Err(RuntimeError::Fetch { failures })
}

/// Takes library and notices out of the wheel, each under its bare name.
fn extract(file: &File, wheel: &Wheel<'_>, folder: &Path) -> Result<Manifest, RuntimeError> {
    let broken = |reason: String| RuntimeError::Archive {
        file: wheel.file().to_owned(),
        reason,
    };
    let mut archive = ZipArchive::new(file).map_err(|error| broken(error.to_string()))?;
    let mut files = Vec::new();
    let members = std::iter::once((format!("onnxruntime/capi/{}", wheel.library), wheel.library))
        .chain(NOTICES.iter().map(|name| (format!("onnxruntime/{name}"), *name)));
    for (member, name) in members {
        let member = archive
            .by_name(&member)
            .map_err(|error| broken(format!("{member}: {error}")))?;
        files.push(write_member(member, name, folder, &broken)?);
    }
    Ok(Manifest {
        version: wheels::VERSION.to_owned(),
        wheel: wheel.file().to_owned(),
        wheel_sha256: wheel.sha256.to_owned(),
        library: wheel.library.to_owned(),
        files,
    })
}

fn write_member(
    member: impl Read,
    name: &str,
    folder: &Path,
    broken: &dyn Fn(String) -> RuntimeError,
) -> Result<Record, RuntimeError> {
    let path = folder.join(name);
    let failed = |source: io::Error| RuntimeError::Cache {
        action: "writing",
        path: path.clone(),
        source,
    };
    let mut output = File::create(&path).map_err(failed)?;
    let mut member = member.take(MEMBER_LIMIT + 1);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut size = 0;
    loop {
        let count = member
            .read(&mut buffer)
            .map_err(|error| broken(format!("{name}: {error}")))?;
        let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else {
            break;
        };
        hash.update(read);
        output.write_all(read).map_err(failed)?;
        size += read.len() as u64;
    }
    if size > MEMBER_LIMIT {
        return Err(broken(format!("{name} is larger than {MEMBER_LIMIT} bytes")));
    }
    // The folder is renamed into place afterwards; after a power cut its content must not be missing.
    output.sync_all().map_err(failed)?;
    Ok(Record {
        name: name.to_owned(),
        size,
        sha256: hexadecimal(&hash.finalize()),
    })
}

#[cfg(test)]
mod tests;
