//! Weights that move to a data file, and data files of earlier runs.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::saving::{contents, options, values, ways};
use super::{identity, vector};
use crate::onnx::{How, Model, Reference, SaveOptions, Saved};

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

/// A model whose weights all have the value given, saved with a data file; the names of all files afterwards.
fn save_with_data(path: &Path, value: f32) -> (Saved, Vec<String>) {
    let model = Model::from_proto(identity(vec![vector("large", &[value; 2000])]));
    let limited = SaveOptions {
        inline_limit: 2000,
        ..options()
    };
    let saved = model.save(path, &limited).unwrap();
    (saved, contents(path.parent().unwrap()).into_keys().collect())
}

#[test]
fn a_crash_between_the_renames_leaves_the_old_model_with_its_data() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    save_with_data(&path, 1.0);
    let old = fs::read(&path).unwrap();
    let (saved, names) = save_with_data(&path, 2.0);
    assert_eq!(ways(&saved), [How::Written, How::Written]);
    assert_eq!(names, ["model.onnx", "model.onnx-2.data", "model.onnx.data"]);
    assert_eq!(values(&path), [[2.0; 2000]]);
    // The data are renamed first: had it stopped there, the old model would stand beside the new data.
    fs::write(&path, old).unwrap();
    assert_eq!(values(&path), [[1.0; 2000]]);
}

#[test]
fn outputs_of_earlier_runs_are_replaced_and_equal_data_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    fs::write(&path, "old").unwrap();
    fs::write(folder.path().join("model.onnx.data"), "old").unwrap();
    let (saved, names) = save_with_data(&path, 1.0);
    assert_eq!(ways(&saved), [How::Written, How::Written]);
    let (again, same) = save_with_data(&path, 1.0);
    assert_eq!(ways(&again), [How::Kept, How::Written]);
    assert_eq!(again.bytes, fs::metadata(&path).unwrap().len());
    assert_eq!(same, names);
    assert_eq!(values(&path), [[1.0; 2000]]);
    assert_eq!(contents(folder.path())["model.onnx.data"], b"old");
}
