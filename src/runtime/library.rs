//! Finds ONNX Runtime's library: the option, the variable, beside the program, Python, the cache; in this order.

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{binary, cache::Cache, error::RuntimeError, python};

/// The oldest ONNX Runtime that offers the interface we call (`ort` with its feature `api-31`).
pub const MINIMUM_VERSION: (u32, u32) = (1, ort::MINOR_VERSION);

/// A library that can be loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Library {
    /// Its canonical path: through a symbolic link ONNX Runtime would look for its providers beside the link.
    pub path: PathBuf,
    /// The version it reports, such as `1.31.1`.
    pub version: String,
    /// How it was found.
    pub origin: Origin,
}

/// How a library was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// `--ort-lib`.
    Option,
    /// The environment variable `ORT_DYLIB_PATH`.
    Variable,
    /// In the folder of the program.
    BesideProgram,
    /// In the `onnxruntime` or `onnxruntime-gpu` package of a Python environment.
    Python,
    /// In the cache, where `pab-patch setup` puts it.
    Cache,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Option => "--ort-lib",
            Self::Variable => "ORT_DYLIB_PATH",
            Self::BesideProgram => "beside the program",
            Self::Python => "Python environment",
            Self::Cache => "cache",
        })
    }
}

/// A candidate that was seen and passed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The library, or the folder that should have held it.
    pub path: PathBuf,
    /// How it was found.
    pub origin: Origin,
    /// Why it was not taken.
    pub reason: String,
}

/// Everything about the surroundings that decides which library is taken.
///
/// A value instead of the process's environment, so that tests can make their own.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// The argument of `--ort-lib`: a library or the folder that holds it.
    pub option: Option<PathBuf>,
    /// `ORT_DYLIB_PATH`, if it is set and not empty.
    pub variable: Option<PathBuf>,
    /// The folder of the running program.
    pub program_folder: Option<PathBuf>,
    /// Prefixes of active Python environments: `VIRTUAL_ENV`, `CONDA_PREFIX`.
    pub python_prefixes: Vec<PathBuf>,
    /// `PATH`, on which Python interpreters are looked for.
    pub search_path: Option<OsString>,
    /// Package indexes (PEP 503) to fetch the wheel from before PyPI: `PIP_INDEX_URL`, `UV_DEFAULT_INDEX`, `UV_INDEX_URL`.
    pub package_indexes: Vec<String>,
    /// The cache folder of this program: `PAB_PATCH_CACHE`, or `pab-patch` in the account's cache folder.
    pub cache_folder: Option<PathBuf>,
}

impl Places {
    /// The surroundings of this process.
    #[must_use]
    pub fn of_process(option: Option<PathBuf>) -> Self {
        let variable = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let program = std::env::current_exe().and_then(|path| path.canonicalize()).ok();
        Self {
            option,
            variable: variable("ORT_DYLIB_PATH"),
            program_folder: program.and_then(|path| path.parent().map(Path::to_path_buf)),
            python_prefixes: ["VIRTUAL_ENV", "CONDA_PREFIX"]
                .into_iter()
                .filter_map(variable)
                .collect(),
            search_path: std::env::var_os("PATH"),
            package_indexes: ["PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"]
                .into_iter()
                .filter_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
                .collect(),
            cache_folder: variable("PAB_PATCH_CACHE")
                .or_else(|| dirs::cache_dir().map(|folder| folder.join("pab-patch"))),
        }
    }
}

/// What a search brought to light.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// The library to use, if there is one.
    pub library: Option<Library>,
    /// What was passed over on the way.
    pub skipped: Vec<Skipped>,
}

/// Looks for the library; fetches nothing.
///
/// # Errors
/// A path that was asked for (option or variable) and is missing, broken or too old. Candidates that nobody asked
/// for are passed over instead and noted.
pub fn discover(places: &Places) -> Result<Discovery, RuntimeError> {
    discover_with(places, &probe)
}

/// Reads the version out of a library file.
type Probe<'a> = &'a dyn Fn(&Path) -> Result<String, RuntimeError>;

/// The folders of an origin that may hold a library.
type Folders = fn(&Places) -> Vec<PathBuf>;

/// The implicit origins, in the order of their rank.
const IMPLICIT: &[(Origin, Folders)] = &[
    (Origin::BesideProgram, |places| {
        places.program_folder.iter().cloned().collect()
    }),
    (Origin::Python, |places| {
        places
            .python_prefixes
            .iter()
            .flat_map(|prefix| python::in_prefix(prefix))
            .collect()
    }),
    (Origin::Python, |places| {
        places
            .search_path
            .as_deref()
            .and_then(python::ask)
            .into_iter()
            .collect()
    }),
];

fn discover_with(places: &Places, probe: Probe<'_>) -> Result<Discovery, RuntimeError> {
    let explicit = [(Origin::Option, &places.option), (Origin::Variable, &places.variable)];
    if let Some((origin, Some(path))) = explicit.into_iter().find(|(_, path)| path.is_some()) {
        let library = accept(&asked_for(path, origin)?, origin, probe)?;
        return Ok(Discovery {
            library: Some(library),
            skipped: Vec::new(),
        });
    }
    let mut skipped = Vec::new();
    for (origin, folders) in IMPLICIT {
        for folder in folders(places) {
            let Some(path) = in_folder(&folder) else { continue };
            match accept(&path, *origin, probe) {
                Ok(library) => {
                    return Ok(Discovery {
                        library: Some(library),
                        skipped,
                    });
                }
                Err(error) => skipped.push(Skipped {
                    path,
                    origin: *origin,
                    reason: error.to_string(),
                }),
            }
        }
    }
    if let Some(cache) = places.cache_folder.as_deref().map(Cache::new) {
        let found = cache
            .library()
            .and_then(|path| path.map(|path| accept(&path, Origin::Cache, probe)).transpose());
        match found {
            Ok(Some(library)) => {
                return Ok(Discovery {
                    library: Some(library),
                    skipped,
                });
            }
            Ok(None) => {}
            Err(error) => {
                skipped.push(Skipped {
                    path: cache.folder(),
                    origin: Origin::Cache,
                    reason: error.to_string(),
                });
            }
        }
    }
    Ok(Discovery { library: None, skipped })
}

/// The library file that an option or variable means.
fn asked_for(path: &Path, origin: Origin) -> Result<PathBuf, RuntimeError> {
    let missing = |reason: &str| RuntimeError::LibraryMissing {
        origin: origin.to_string(),
        path: path.to_path_buf(),
        reason: reason.to_owned(),
    };
    match path.metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(missing("does not exist")),
        Err(error) => Err(missing(&format!("cannot be read ({error})"))),
        Ok(metadata) if metadata.is_dir() => in_folder(path).ok_or_else(|| missing("is a folder without the library")),
        Ok(_) => Ok(path.to_path_buf()),
    }
}

/// The newest ONNX Runtime library in a folder, by file name; providers' libraries are not it.
fn in_folder(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    let candidates = entries.flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let version = is_library_name(&name)?;
        Some((version, entry.path()))
    });
    candidates.max().map(|(_, path)| path)
}

/// Whether a file name is that of ONNX Runtime's library here; if so, the numbers of the version within the name.
fn is_library_name(name: &str) -> Option<Vec<u32>> {
    let version = if cfg!(target_os = "macos") {
        name.strip_prefix("libonnxruntime")?.strip_suffix(".dylib")?
    } else if cfg!(windows) {
        name.strip_prefix("onnxruntime")?.strip_suffix(".dll")?
    } else {
        name.strip_prefix("libonnxruntime.so")?
    };
    if version.is_empty() {
        return Some(Vec::new());
    }
    version
        .strip_prefix('.')?
        .split('.')
        .map(|number| number.parse().ok())
        .collect()
}

/// Takes what was put into the cache.
pub(super) fn accept_cached(path: &Path) -> Result<Library, RuntimeError> {
    accept(path, Origin::Cache, &probe)
}

fn accept(path: &Path, origin: Origin, probe: Probe<'_>) -> Result<Library, RuntimeError> {
    let path = path.canonicalize().map_err(|error| RuntimeError::LibraryBroken {
        path: path.to_path_buf(),
        reason: error.to_string(),
    })?;
    let version = probe(&path)?;
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().ok());
    let new_enough = match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => major == MINIMUM_VERSION.0 && minor >= MINIMUM_VERSION.1,
        _ => false,
    };
    if new_enough {
        return Ok(Library { path, version, origin });
    }
    let required = format!("{}.{}", MINIMUM_VERSION.0, MINIMUM_VERSION.1);
    Err(RuntimeError::LibraryTooOld {
        path,
        version,
        required,
    })
}

/// Loads the library for a moment and asks for its version.
fn probe(path: &Path) -> Result<String, RuntimeError> {
    let broken = |reason: String| RuntimeError::LibraryBroken {
        path: path.to_path_buf(),
        reason,
    };
    binary::check(path).map_err(broken)?;
    // SAFETY: the file is a whole shared library of this platform; loading it runs its initialisers, and those of
    // ONNX Runtime only set up its own state. That the file is ONNX Runtime is what option, name and place say.
    let library = unsafe { libloading::Library::new(path) }.map_err(|error| broken(error.to_string()))?;
    // SAFETY: this is the type that ONNX Runtime's C header gives the function in every version.
    let get_base = unsafe { library.get::<unsafe extern "C" fn() -> *const ort::sys::OrtApiBase>(b"OrtGetApiBase\0") }
        .map_err(|_| broken("it does not export `OrtGetApiBase`, so it is some other library".to_owned()))?;
    // SAFETY: the function takes nothing and returns a pointer to a static table or null, which `as_ref` tells apart.
    let base = unsafe { get_base().as_ref() }.ok_or_else(|| broken("its interface table is null".to_owned()))?;
    // SAFETY: the function returns a static string that ends in a null byte; the library is still loaded.
    let version = unsafe {
        let version = (base.GetVersionString)();
        if version.is_null() {
            None
        } else {
            Some(std::ffi::CStr::from_ptr(version).to_string_lossy().into_owned())
        }
    };
    version.ok_or_else(|| broken("it reports no version".to_owned()))
}

#[cfg(test)]
mod tests;
