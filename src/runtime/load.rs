//! Loads the library, once in a process: ONNX Runtime's environment lives as long as the process.

use std::sync::{Mutex, OnceLock, PoisonError};

use ort::environment::Environment;

use super::{error::RuntimeError, library::Library};

struct Loaded {
    library: Library,
    environment: Environment,
}

static LOADED: OnceLock<Loaded> = OnceLock::new();
static LOADING: Mutex<()> = Mutex::new(());

/// Loads the library and starts ONNX Runtime. Doing so again with the same library is fine.
///
/// # Errors
/// [`RuntimeError::OtherLibraryLoaded`] when this process already uses another library, and
/// [`RuntimeError::LibraryBroken`] or [`RuntimeError::Initialise`] when it does not start.
pub fn load(library: &Library) -> Result<(), RuntimeError> {
    let _guard = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(loaded) = LOADED.get() {
        if loaded.library.path == library.path {
            return Ok(());
        }
        return Err(RuntimeError::OtherLibraryLoaded {
            loaded: loaded.library.path.clone(),
            asked: library.path.clone(),
        });
    }
    let builder = ort::init_from(&library.path).map_err(|error| RuntimeError::LibraryBroken {
        path: library.path.clone(),
        reason: error.to_string(),
    })?;
    let environment = builder
        .with_name("pab-patch")
        .with_telemetry(false)
        .build()
        .map_err(|error| RuntimeError::Initialise {
            path: library.path.clone(),
            reason: error.to_string(),
        })?;
    // The lock is held and nothing is set, so this always sets.
    let _ = LOADED.set(Loaded {
        library: library.clone(),
        environment,
    });
    Ok(())
}

/// The library that this process uses, if one is loaded.
pub fn loaded() -> Option<&'static Library> {
    LOADED.get().map(|loaded| &loaded.library)
}

/// ONNX Runtime's environment. Every path to `ort`'s interface leads through here: without a loaded library `ort`
/// would look for one itself and panic where it finds none.
pub(super) fn environment() -> Result<&'static Environment, RuntimeError> {
    LOADED
        .get()
        .map(|loaded| &loaded.environment)
        .ok_or(RuntimeError::NotLoaded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{Origin, ensure};

    #[test]
    fn the_same_library_loads_again_and_another_does_not() {
        let library = ensure().unwrap();
        load(&library).unwrap();
        assert_eq!(loaded(), Some(&library));
        let other = Library {
            path: "/somewhere/else.so".into(),
            version: "1.31.1".to_owned(),
            origin: Origin::Option,
        };
        let error = load(&other).unwrap_err();
        assert!(
            matches!(&error, RuntimeError::OtherLibraryLoaded { asked, .. } if *asked == other.path),
            "{error}"
        );
    }
}
