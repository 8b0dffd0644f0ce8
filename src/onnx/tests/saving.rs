//! Saving: atomic, away from the input, weights beside the output or in a new data file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use super::external::outside;
use super::{data, identity, vector};
use crate::onnx::place::{WAYS, put};
use crate::onnx::{ExternalFault, How, Model, OnnxError, Reference, SaveOptions, Saved};

fn options() -> SaveOptions {
    SaveOptions::default()
}

/// The files of a folder by their relative path, and their bytes.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
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
fn values(path: &Path) -> Vec<Vec<f64>> {
    let model = Model::load(path).unwrap();
    let tensors = &model.proto.graph.as_ref().unwrap().initializer;
    tensors
        .iter()
        .map(|tensor| model.weights().floats(tensor).unwrap())
        .collect()
}

fn ways(saved: &Saved) -> Vec<How> {
    saved.files.iter().map(|file| file.how).collect()
}

#[test]
fn data_files_are_linked_beside_the_output() {
    let (folder, model) = input();
    let before = contents(folder.path());
    let output = tempfile::tempdir_in(folder.path()).unwrap();
    let path = output.path().join("model.onnx");
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
    let to = |name: &str| folder.path().join(name);
    assert_eq!(
        put(&from, &bytes, &to("linked"), WAYS, Some(&progress)).unwrap(),
        How::Linked
    );
    // Most file systems cannot clone; then the next way is taken.
    let how = put(
        &from,
        &bytes,
        &to("cloned"),
        &[How::Cloned, How::Copied],
        Some(&progress),
    )
    .unwrap();
    assert!(matches!(how, How::Cloned | How::Copied));
    assert_eq!(
        put(&from, &bytes, &to("copied"), &[How::Copied], Some(&progress)).unwrap(),
        How::Copied
    );
    assert!(calls.load(Ordering::Relaxed) >= 3);
    let files = contents(folder.path());
    assert_eq!(files.keys().collect::<Vec<_>>(), ["cloned", "copied", "from", "linked"]);
    assert!(files.values().all(|file| *file == bytes));
    // What exists is never overwritten.
    let taken = put(&from, &bytes, &to("copied"), &[How::Copied], None).unwrap_err();
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
fn files_get_the_permissions_of_new_files() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (plain, path) = (folder.path().join("plain"), folder.path().join("model.onnx"));
    fs::write(&plain, "").unwrap();
    Model::from_proto(identity(Vec::new())).save(&path, &options()).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&path), mode(&plain));
}

/// A model with weights above and below the threshold, one of them in a typed field.
fn inline() -> Model {
    let typed = crate::onnx::messages::TensorProto {
        raw_data: None,
        float_data: vec![0.5; 300],
        ..vector("typed", &[0.5; 300])
    };
    let initializer = vec![vector("large", &[1.5; 2000]), vector("small", &[2.5; 256]), typed];
    Model::from_proto(identity(initializer))
}

#[test]
fn weights_move_out_of_files_that_are_too_large() {
    let folder = tempfile::tempdir().unwrap();
    let model = inline();
    let (plain, path) = (folder.path().join("plain.onnx"), folder.path().join("model.onnx"));
    let size = model.save(&plain, &options()).unwrap().bytes;
    assert!(!folder.path().join("plain.onnx.data").exists());
    // At the limit nothing moves, one byte below it does.
    model
        .save(
            &path,
            &SaveOptions {
                inline_limit: size,
                ..options()
            },
        )
        .unwrap();
    assert!(!folder.path().join("model.onnx.data").exists());
    let shown = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&shown);
    let progress = move |progress: crate::onnx::Progress<'_>| {
        log.lock().unwrap().push((
            progress.file.file_name().unwrap().to_owned(),
            progress.done,
            progress.total,
        ));
    };
    let limited = SaveOptions {
        inline_limit: size - 1,
        progress: Some(Arc::new(progress)),
        ..options()
    };
    let saved = model.save(&path, &limited).unwrap();
    assert_eq!(ways(&saved), [How::Written, How::Written]);
    assert_eq!(saved.files[0].bytes, 8192 + 1200);
    assert_eq!(shown.lock().unwrap().len(), 2);
    assert_eq!(shown.lock().unwrap()[0], ("model.onnx.data".into(), 9392, 9392));
    let loaded = Model::load(&path).unwrap();
    let tensors = &loaded.proto.graph.as_ref().unwrap().initializer;
    let reference = |index: usize| Reference::of(&tensors[index]).map(|reference| (reference.offset, reference.length));
    assert_eq!(reference(0).unwrap(), (0, Some(8000)));
    assert!(tensors[1].raw_data.is_some());
    assert_eq!(reference(2).unwrap(), (8192, Some(1200)));
    assert_eq!(values(&path), values(&plain));
    // The model in memory was not changed.
    assert!(model.proto.graph.as_ref().unwrap().initializer[0].raw_data.is_some());
}

#[test]
fn new_data_files_avoid_those_that_the_model_refers_to() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("model.onnx");
    inline()
        .save(
            &source,
            &SaveOptions {
                inline_limit: 1100,
                external_threshold: 2000,
                ..options()
            },
        )
        .unwrap_err();
    inline()
        .save(
            &source,
            &SaveOptions {
                inline_limit: 3000,
                external_threshold: 2000,
                ..options()
            },
        )
        .unwrap();
    let mut model = Model::load(&source).unwrap();
    model
        .proto
        .graph
        .as_mut()
        .unwrap()
        .initializer
        .push(vector("new", &[3.5; 2000]));
    let output = tempfile::tempdir().unwrap();
    let path = output.path().join("model.onnx");
    model
        .save(
            &path,
            &SaveOptions {
                inline_limit: 3000,
                external_threshold: 2000,
                ..options()
            },
        )
        .unwrap();
    let names: Vec<String> = contents(output.path()).into_keys().collect();
    assert_eq!(names, ["model.onnx", "model.onnx-2.data", "model.onnx.data"]);
    assert_eq!(values(&path)[3], [3.5; 2000]);
    assert_eq!(values(&path)[..3], values(&source));
}

#[test]
fn outputs_of_earlier_runs_are_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    fs::write(&path, "old").unwrap();
    fs::write(folder.path().join("model.onnx.data"), "old").unwrap();
    inline()
        .save(
            &path,
            &SaveOptions {
                inline_limit: 2000,
                ..options()
            },
        )
        .unwrap();
    assert_eq!(values(&path)[0], [1.5; 2000]);
    assert_eq!(contents(folder.path()).len(), 2);
}

#[test]
fn models_in_memory_cannot_refer_to_files() {
    let folder = tempfile::tempdir().unwrap();
    let model = Model::from_proto(identity(vec![outside(&[("location", "weights.bin")])]));
    let error = model.save(&folder.path().join("model.onnx"), &options()).unwrap_err();
    assert!(matches!(error, OnnxError::External { fault, .. } if matches!(*fault, ExternalFault::NoFolder { .. })));
}
