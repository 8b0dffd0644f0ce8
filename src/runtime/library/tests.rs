use std::fs;

use super::*;

/// A library's file name on this platform.
fn name(version: &str) -> String {
    if cfg!(target_os = "macos") {
        format!("libonnxruntime.{version}.dylib")
    } else if cfg!(windows) {
        "onnxruntime.dll".to_owned()
    } else {
        format!("libonnxruntime.so.{version}")
    }
}

/// Stands in for loading: the "library" is a text file with its version.
fn read_version(path: &Path) -> Result<String, RuntimeError> {
    let text = fs::read_to_string(path).unwrap();
    if text == "broken" {
        return Err(RuntimeError::LibraryBroken {
            path: path.to_path_buf(),
            reason: "it is cut off".to_owned(),
        });
    }
    Ok(text)
}

fn library(folder: &Path, version: &str) -> PathBuf {
    fs::create_dir_all(folder).unwrap();
    let path = folder.join(name(version));
    fs::write(&path, version).unwrap();
    path.canonicalize().unwrap()
}

fn capi(prefix: &Path) -> PathBuf {
    prefix.join("lib/python3.12/site-packages/onnxruntime/capi")
}

fn found(places: &Places) -> (Origin, PathBuf) {
    let library = discover_with(places, &read_version).unwrap().library.unwrap();
    (library.origin, library.path)
}

#[test]
fn the_places_are_searched_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let cached = Cache::new(&at("cache")).install_for_tests(&name("1.31.1"), b"1.31.1");
    let mut places = Places {
        cache_folder: Some(at("cache")),
        ..Places::default()
    };
    assert_eq!(found(&places), (Origin::Cache, cached.canonicalize().unwrap()));

    let python = library(&capi(&at("venv")), "1.32.0");
    places.python_prefixes = vec![at("empty"), at("venv")];
    assert_eq!(found(&places), (Origin::Python, python));

    let beside = library(&at("program"), "1.31.0");
    places.program_folder = Some(at("program"));
    assert_eq!(found(&places), (Origin::BesideProgram, beside));

    let variable = library(&at("variable"), "1.33.0");
    places.variable = Some(variable.clone());
    assert_eq!(found(&places), (Origin::Variable, variable));

    let option = library(&at("option"), "1.34.0");
    places.option = Some(at("option"));
    assert_eq!(found(&places), (Origin::Option, option));
}

#[test]
fn implicit_candidates_that_will_not_do_are_passed_over_and_noted() {
    let folder = tempfile::tempdir().unwrap();
    let (old, broken, good) = (
        folder.path().join("old"),
        folder.path().join("broken"),
        folder.path().join("good"),
    );
    library(&old, "1.30.0");
    let broken_path = library(&capi(&broken), "1.31.0");
    fs::write(broken_path, "broken").unwrap();
    let good_path = library(&capi(&good), "1.31.1");
    let places = Places {
        program_folder: Some(old),
        python_prefixes: vec![broken, good],
        ..Places::default()
    };
    let discovery = discover_with(&places, &read_version).unwrap();
    assert_eq!(discovery.library.map(|library| library.path), Some(good_path));
    let reasons: Vec<_> = discovery
        .skipped
        .iter()
        .map(|skipped| (skipped.origin, skipped.reason.as_str()))
        .collect();
    assert_eq!(reasons.len(), 2);
    assert_eq!(reasons[0].0, Origin::BesideProgram);
    assert!(
        reasons[0]
            .1
            .contains("is ONNX Runtime 1.30.0, and at least 1.31 is needed"),
        "{}",
        reasons[0].1
    );
    assert_eq!(reasons[1].0, Origin::Python);
    assert!(reasons[1].1.contains("it is cut off"), "{}", reasons[1].1);
}

#[test]
fn a_path_that_was_asked_for_is_never_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    library(&at("good"), "1.31.1");
    let old = library(&at("old"), "1.30.0");
    fs::create_dir(at("empty")).unwrap();
    let error = |option: Option<PathBuf>, variable: Option<PathBuf>| {
        let places = Places {
            option,
            variable,
            program_folder: Some(at("good")),
            ..Places::default()
        };
        discover_with(&places, &read_version).unwrap_err()
    };
    let missing = error(Some(at("nothing.so")), None);
    assert!(matches!(&missing, RuntimeError::LibraryMissing { origin, .. } if origin == "--ort-lib"));
    assert!(missing.to_string().contains("does not exist"), "{missing}");
    assert!(
        error(None, Some(at("nothing.so")))
            .to_string()
            .starts_with("ORT_DYLIB_PATH names ")
    );
    assert!(
        error(Some(at("empty")), None)
            .to_string()
            .contains("is a folder without the library")
    );
    assert!(matches!(error(None, Some(old)), RuntimeError::LibraryTooOld { .. }));
}

#[test]
fn real_loading_refuses_text_and_cut_off_libraries_without_dying() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join(name("1.31.1"));
    fs::write(&text, "not a library").unwrap();
    let error = discover(&Places {
        option: Some(text.clone()),
        ..Places::default()
    })
    .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("it is not a shared library; run `pab-patch setup`"),
        "{error}"
    );

    // Half of a real library, which the system's loader would map and then die on.
    let real = crate::runtime::ensure().unwrap();
    let bytes = fs::read(&real.path).unwrap();
    fs::write(&text, &bytes[..bytes.len() / 2]).unwrap();
    let error = discover(&Places {
        variable: Some(text),
        ..Places::default()
    })
    .unwrap_err();
    assert!(error.to_string().contains("it is cut off"), "{error}");
}

#[test]
fn only_the_librarys_own_names_count_and_the_newest_wins() {
    let folder = tempfile::tempdir().unwrap();
    for other in [
        "libonnxruntime_providers_shared.so",
        "libonnxruntime.so.backup",
        "onnxruntime_providers_shared.dll",
    ] {
        fs::write(folder.path().join(other), "").unwrap();
    }
    assert_eq!(in_folder(folder.path()), None);
    library(folder.path(), "1.9.0");
    let newest = library(folder.path(), "1.31.1");
    assert_eq!(in_folder(folder.path()).unwrap().canonicalize().unwrap(), newest);
}

#[test]
#[cfg(unix)]
fn links_are_resolved_to_the_library() {
    let folder = tempfile::tempdir().unwrap();
    let real = library(&folder.path().join("real"), "1.31.1");
    let link = folder.path().join("libonnxruntime.so");
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let places = Places {
        option: Some(link),
        ..Places::default()
    };
    assert_eq!(found(&places), (Origin::Option, real));
}

#[test]
fn a_damaged_cache_is_noted() {
    let folder = tempfile::tempdir().unwrap();
    let cached = Cache::new(folder.path()).install_for_tests(&name("1.31.1"), b"1.31.1");
    fs::write(cached, "1.3").unwrap();
    let places = Places {
        cache_folder: Some(folder.path().to_path_buf()),
        ..Places::default()
    };
    let discovery = discover_with(&places, &read_version).unwrap();
    assert_eq!(discovery.library, None);
    assert!(
        discovery.skipped[0].reason.contains("is damaged"),
        "{}",
        discovery.skipped[0].reason
    );
}
