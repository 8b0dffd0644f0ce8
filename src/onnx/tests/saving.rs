//! Saving: atomic, away from the input, weights beside the output or in a new data file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;

use super::external::outside;
use super::{data, identity};
use crate::onnx::place::{put, ways as all_ways};
use crate::onnx::{ExternalFault, How, Model, OnnxError, SaveOptions, Saved};

pub(super) fn options() -> SaveOptions {
    SaveOptions::default()
}

/// The files of a folder by their relative path, and their bytes.
pub(super) fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            let inner = contents(&entry.path());
            files.extend(inner.into_iter().map(|(path, bytes)| (format!("{name}/{path}"), bytes)));
        } else {
            files.insert(name, fs::read(entry.path()).unwrap());
        }
    }
    files
}

/// A copy of the model with external data.
fn input() -> (TempDir, Model) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("part")).unwrap();
    for name in ["model.onnx", "weights.bin", "part/third.bin"] {
        fs::copy(data("external").join(name), folder.path().join(name)).unwrap();
    }
    let model = Model::load(&folder.path().join("model.onnx")).unwrap();
    (folder, model)
}

/// All values of all initializers.
pub(super) fn values(path: &Path) -> Vec<Vec<f64>> {
    let model = Model::load(path).unwrap();
    let tensors = &model.proto.graph.as_ref().unwrap().initializer;
    tensors
        .iter()
        .map(|tensor| model.weights().floats(tensor).unwrap())
        .collect()
}

pub(super) fn ways(saved: &Saved) -> Vec<How> {
    saved.files.iter().map(|file| file.how).collect()
}

#[test]
fn data_files_are_linked_beside_the_output_only_where_that_is_allowed() {
    let (folder, model) = input();
    let before = contents(folder.path());
    let output = tempfile::tempdir_in(folder.path()).unwrap();
    let apart = model.save(&output.path().join("model.onnx"), &options()).unwrap();
    assert!(!ways(&apart).contains(&How::Linked), "{apart:?}");

    let output = tempfile::tempdir_in(folder.path()).unwrap();
    let path = output.path().join("model.onnx");
    let options = SaveOptions {
        hard_links: true,
        ..options()
    };
    let options = || options.clone();
    let saved = model.save(&path, &options()).unwrap();
    // The same file is named in two ways, so it is there already the second time.
    assert_eq!(ways(&saved), [How::Linked, How::Linked, How::Kept, How::Written]);
    assert_eq!(contents(output.path()), before);
    assert_eq!(saved.bytes, fs::metadata(&path).unwrap().len());
    assert_eq!(values(&path), values(&folder.path().join("model.onnx")));
    // Once more: everything is there.
    let again = model.save(&path, &options()).unwrap();
    assert_eq!(ways(&again), [How::Kept, How::Kept, How::Kept, How::Written]);
    assert_eq!(contents(output.path()), before);
}

#[test]
fn references_stay_where_the_output_stands_beside_the_input() {
    let (folder, model) = input();
    let before = contents(folder.path());
    let saved = model.save(&folder.path().join("other.onnx"), &options()).unwrap();
    assert_eq!(ways(&saved), [How::Written]);
    let mut after = contents(folder.path());
    assert_eq!(after.remove("other.onnx"), Some(before["model.onnx"].clone()));
    assert_eq!(after, before);
}

#[test]
fn every_way_gives_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = bytes::Bytes::from(vec![5u8; 20 << 20]);
    let from = folder.path().join("from");
    fs::write(&from, &bytes).unwrap();
    let calls = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&calls);
    let progress = move |progress: crate::onnx::Progress<'_>| {
        assert!(progress.done <= progress.total && progress.total == 20 << 20);
        counter.fetch_add(1, Ordering::Relaxed);
    };
    let told = SaveOptions {
        progress: Some(Arc::new(progress)),
        ..SaveOptions::default()
    };
    let to = |name: &str| folder.path().join(name);
    assert_eq!(
        put(&from, &bytes, &to("linked"), all_ways(true), &told).unwrap(),
        How::Linked
    );
    // Most file systems cannot clone; then the next way is taken.
    let how = put(&from, &bytes, &to("cloned"), &[How::Cloned, How::Copied], &told).unwrap();
    assert!(matches!(how, How::Cloned | How::Copied));
    assert_eq!(
        put(&from, &bytes, &to("copied"), &[How::Copied], &told).unwrap(),
        How::Copied
    );
    assert!(calls.load(Ordering::Relaxed) >= 3);
    let files = contents(folder.path());
    assert_eq!(files.keys().collect::<Vec<_>>(), ["cloned", "copied", "from", "linked"]);
    assert!(files.values().all(|file| *file == bytes));
    // What exists is never overwritten.
    let taken = put(&from, &bytes, &to("copied"), &[How::Copied], &told).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AlreadyExists);
}

#[test]
fn foreign_files_are_left_alone() {
    let (folder, model) = input();
    let output = tempfile::tempdir().unwrap();
    fs::write(output.path().join("weights.bin"), [1; 192]).unwrap();
    let path = output.path().join("model.onnx");
    model.save(&path, &options()).unwrap();
    let files = contents(output.path());
    assert_eq!(files["weights.bin"], [1; 192]);
    assert_eq!(
        files["weights-2.bin"],
        fs::read(folder.path().join("weights.bin")).unwrap()
    );
    assert_eq!(values(&path), values(&folder.path().join("model.onnx")));
}

#[test]
fn the_output_itself_is_no_place_for_data() {
    let (folder, model) = input();
    let output = tempfile::tempdir().unwrap();
    let path = output.path().join("weights.bin");
    model.save(&path, &options()).unwrap();
    assert_eq!(values(&path), values(&folder.path().join("model.onnx")));
}

#[test]
fn the_input_is_never_overwritten() {
    let (folder, model) = input();
    let before = contents(folder.path());
    let source = folder.path().join("model.onnx");
    let mut paths = vec![
        source.clone(),
        folder.path().join("part/../model.onnx"),
        folder.path().join("weights.bin"),
        folder.path().join("part/third.bin"),
    ];
    let links = tempfile::tempdir().unwrap();
    paths.push(links.path().join("hard.onnx"));
    fs::hard_link(&source, &paths[4]).unwrap();
    #[cfg(unix)]
    {
        paths.push(links.path().join("soft.onnx"));
        std::os::unix::fs::symlink(&source, &paths[5]).unwrap();
    }
    for path in &paths {
        let error = model.save(path, &options()).unwrap_err();
        assert!(
            matches!(error, OnnxError::WouldOverwrite { .. }),
            "{}: {error}",
            path.display()
        );
    }
    assert_eq!(contents(folder.path()), before);
}

#[test]
fn failures_leave_nothing_behind() {
    let (folder, model) = input();
    let output = tempfile::tempdir().unwrap();
    // The data files come first and are taken back.
    let unwritable = SaveOptions {
        inline_limit: 10,
        ..options()
    };
    let error = model.save(&output.path().join("model.onnx"), &unwritable).unwrap_err();
    assert!(matches!(error, OnnxError::TooLarge { limit: 10, .. }), "{error}");
    assert_eq!(fs::read_dir(output.path()).unwrap().count(), 0);
    // Missing data.
    fs::remove_file(folder.path().join("part/third.bin")).unwrap();
    let model = Model::load(&folder.path().join("model.onnx")).unwrap();
    let error = model.save(&output.path().join("model.onnx"), &options()).unwrap_err();
    assert!(
        matches!(&error, OnnxError::External { tensor, fault } if tensor == "third"
        && matches!(**fault, ExternalFault::Missing { .. }))
    );
    // Wrong destinations.
    for path in [
        output.path().join("missing/model.onnx"),
        output.path().to_owned(),
        folder.path().join("weights.bin/x"),
    ] {
        let error = model.save(&path, &options()).unwrap_err();
        let fits = matches!(
            error,
            OnnxError::Destination { .. } | OnnxError::Write { .. } | OnnxError::External { .. }
        );
        assert!(fits, "{error}");
        let error = Model::from_proto(identity(Vec::new()))
            .save(&path, &options())
            .unwrap_err();
        assert!(
            matches!(error, OnnxError::Destination { .. } | OnnxError::Write { .. }),
            "{error}"
        );
    }
    // Invalid models.
    let mut invalid = identity(Vec::new());
    invalid.opset_import.clear();
    let error = Model::from_proto(invalid)
        .save(&output.path().join("model.onnx"), &options())
        .unwrap_err();
    assert!(matches!(error, OnnxError::Invalid { .. }));
    assert_eq!(fs::read_dir(output.path()).unwrap().count(), 0);
}

#[cfg(unix)]
#[test]
fn output_folders_are_not_left_by_links() {
    let (_folder, model) = input();
    let (output, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::os::unix::fs::symlink(elsewhere.path(), output.path().join("part")).unwrap();
    let error = model.save(&output.path().join("model.onnx"), &options()).unwrap_err();
    assert!(matches!(error, OnnxError::Destination { .. }), "{error}");
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    assert_eq!(fs::read_dir(output.path()).unwrap().count(), 1);
}

#[cfg(unix)]
#[test]
fn no_folder_is_made_where_a_link_leads() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("part/inner")).unwrap();
    fs::write(folder.path().join("part/inner/w.bin"), [0; 16]).unwrap();
    let tensor = outside(&[("location", "part/inner/w.bin")]);
    let path = folder.path().join("model.onnx");
    fs::write(&path, prost::Message::encode_to_vec(&identity(vec![tensor]))).unwrap();
    let model = Model::load(&path).unwrap();
    let (output, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::os::unix::fs::symlink(elsewhere.path(), output.path().join("part")).unwrap();
    let before = std::time::UNIX_EPOCH;
    fs::File::open(elsewhere.path()).unwrap().set_modified(before).unwrap();
    let error = model.save(&output.path().join("model.onnx"), &options()).unwrap_err();
    assert!(matches!(error, OnnxError::Destination { .. }), "{error}");
    // A folder that was made and removed again would have changed the time.
    assert_eq!(fs::metadata(elsewhere.path()).unwrap().modified().unwrap(), before);
    // A link to nothing is no way out either.
    fs::remove_file(output.path().join("part")).unwrap();
    let gone = elsewhere.path().join("gone");
    std::os::unix::fs::symlink(&gone, output.path().join("part")).unwrap();
    let error = model.save(&output.path().join("model.onnx"), &options()).unwrap_err();
    assert!(matches!(error, OnnxError::Destination { .. }), "{error}");
    assert!(!gone.exists());
}

#[cfg(unix)]
#[test]
fn files_get_the_permissions_of_new_files() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (plain, path) = (folder.path().join("plain"), folder.path().join("model.onnx"));
    fs::write(&plain, "").unwrap();
    Model::from_proto(identity(Vec::new())).save(&path, &options()).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&path), mode(&plain));
}

#[test]
fn models_in_memory_cannot_refer_to_files() {
    let folder = tempfile::tempdir().unwrap();
    let model = Model::from_proto(identity(vec![outside(&[("location", "weights.bin")])]));
    let error = model.save(&folder.path().join("model.onnx"), &options()).unwrap_err();
    assert!(matches!(error, OnnxError::External { fault, .. } if matches!(*fault, ExternalFault::NoFolder { .. })));
}
