//! External data: read where they are, refused where they lead out of the folder.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::{data, identity, vector};
use crate::onnx::messages::{StringStringEntryProto, TensorProto};
use crate::onnx::{ExternalFault, Model, OnnxError, Reference, SaveOptions};

/// A tensor of four FLOATs with external data.
pub(super) fn outside(entries: &[(&str, &str)]) -> TensorProto {
    let entry = |(key, value): &(&str, &str)| StringStringEntryProto {
        key: Some((*key).to_owned()),
        value: Some((*value).to_owned()),
    };
    TensorProto {
        raw_data: None,
        external_data: entries.iter().map(entry).collect(),
        data_location: Some(1),
        ..vector("blocks.0.weight", &[0.0; 4])
    }
}

/// A folder with `model.onnx`, whose one initializer has these entries, and `weights.bin` of 32 bytes.
fn folder(entries: &[(&str, &str)]) -> (TempDir, Model) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("weights.bin"), (0..32).collect::<Vec<u8>>()).unwrap();
    let path = folder.path().join("model.onnx");
    let unchecked = SaveOptions {
        validate: false,
        ..SaveOptions::default()
    };
    Model::from_proto(identity(Vec::new())).save(&path, &unchecked).unwrap();
    let mut model = Model::load(&path).unwrap();
    model.proto.graph.as_mut().unwrap().initializer.push(outside(entries));
    (folder, model)
}

fn read(entries: &[(&str, &str)]) -> Result<Vec<u8>, ExternalFault> {
    let (_folder, model) = folder(entries);
    match model
        .weights()
        .bytes(&model.proto.graph.as_ref().unwrap().initializer[0])
    {
        Ok(bytes) => Ok(bytes.to_vec()),
        Err(OnnxError::External { tensor, fault }) => {
            assert_eq!(tensor, "blocks.0.weight");
            Err(*fault)
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn files_offsets_and_lengths_are_followed() {
    assert_eq!(
        read(&[("location", "weights.bin")]).unwrap(),
        (0..16).collect::<Vec<u8>>()
    );
    assert_eq!(
        read(&[("location", "./weights.bin"), ("offset", "16"), ("length", "16")]).unwrap()[0],
        16
    );
    let model = Model::load(&data("external/model.onnx")).unwrap();
    let tensors = &model.proto.graph.as_ref().unwrap().initializer;
    let starts: Vec<usize> = tensors
        .iter()
        .map(|tensor| model.weights().bytes(tensor).unwrap().as_ptr() as usize)
        .collect();
    // One map for a file, also when it is named in two ways.
    assert_eq!((starts[1] - starts[0], starts[3] - starts[0]), (64, 128));
    assert_eq!(model.weights().floats(&tensors[2]).unwrap().len(), 16);
}

#[test]
fn wrong_references_are_refused() {
    let location = ("location", "weights.bin");
    assert!(matches!(read(&[("offset", "0")]), Err(ExternalFault::NoLocation)));
    assert!(matches!(read(&[location, location]), Err(ExternalFault::TwoValues(_))));
    assert!(matches!(
        read(&[location, ("offset", "-1")]),
        Err(ExternalFault::NotANumber { key: "offset", .. })
    ));
    assert!(matches!(
        read(&[location, ("length", "x")]),
        Err(ExternalFault::NotANumber { key: "length", .. })
    ));
    assert!(matches!(
        read(&[location, ("length", "15")]),
        Err(ExternalFault::Length { length: 15, needed: 16 })
    ));
    assert!(matches!(
        read(&[location, ("offset", "17")]),
        Err(ExternalFault::OutOfRange { size: 32, .. })
    ));
    let last = u64::MAX.to_string();
    assert!(matches!(
        read(&[location, ("offset", &last)]),
        Err(ExternalFault::OutOfRange { .. })
    ));
    let missing = read(&[("location", "gone/weights.bin")]).unwrap_err();
    assert!(matches!(missing, ExternalFault::Missing { .. }));
    assert!(
        missing.to_string().contains("gone") && missing.to_string().contains("put the data file"),
        "{missing}"
    );
}

#[test]
fn hostile_locations_are_refused() {
    let cases = [
        "/etc/passwd",
        "//etc/passwd",
        "..",
        "../weights.bin",
        "a/../../weights.bin",
        "weights.bin/..",
        "a/..",
        "C:\\x",
        "c:weights.bin",
        "\\\\server\\share",
        "a\\b",
        "",
        ".",
        "./",
        "a\0b",
    ];
    for location in cases {
        let fault = read(&[("location", location)]).unwrap_err();
        assert!(matches!(fault, ExternalFault::Unsafe { .. }), "{location:?}: {fault}");
    }
    assert!(matches!(
        read(&[("location", "../weights.bin")]),
        Err(ExternalFault::Unsafe {
            reason: "has `..` in it",
            ..
        })
    ));
}

#[cfg(unix)]
#[test]
fn links_that_lead_out_are_refused_and_others_followed() {
    use std::os::unix::fs::symlink;
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("weights.bin"), [7; 32]).unwrap();
    let cases: &[(&str, &str, &Path)] = &[
        ("file", "file", &elsewhere.path().join("weights.bin")),
        ("folder/weights.bin", "folder", elsewhere.path()),
        ("inside", "inside", Path::new("weights.bin")),
    ];
    for (location, link, target) in cases {
        let (folder, model) = folder(&[("location", location)]);
        symlink(target, folder.path().join(link)).unwrap();
        let read = model
            .weights()
            .bytes(&model.proto.graph.as_ref().unwrap().initializer[0]);
        match read {
            Ok(bytes) => assert!(*link == "inside" && bytes[1] == 1),
            Err(OnnxError::External { fault, .. }) => {
                assert!(
                    *link != "inside" && matches!(*fault, ExternalFault::LeadsOut { .. }),
                    "{fault}"
                );
            }
            Err(other) => panic!("{other}"),
        }
        // Saving elsewhere must not carry the bytes out either.
        let output = tempfile::tempdir().unwrap();
        let saved = model.save(&output.path().join("model.onnx"), &SaveOptions::default());
        assert_eq!(saved.is_ok(), *link == "inside");
        if *link != "inside" {
            assert_eq!(fs::read_dir(output.path()).unwrap().count(), 0);
        }
    }
}

#[test]
fn other_things_than_files_are_refused() {
    let (folder, model) = folder(&[("location", "part")]);
    fs::create_dir(folder.path().join("part")).unwrap();
    let error = model
        .weights()
        .bytes(&model.proto.graph.as_ref().unwrap().initializer[0])
        .unwrap_err();
    assert!(matches!(error, OnnxError::External { fault, .. } if matches!(*fault, ExternalFault::NotAFile { .. })));
}

#[test]
fn models_in_memory_have_no_data_files() {
    let tensor = outside(&[("location", "weights.bin")]);
    let model = Model::from_proto(identity(vec![tensor.clone()]));
    let error = model.weights().bytes(&tensor).unwrap_err();
    assert!(matches!(error, OnnxError::External { fault, .. } if matches!(*fault, ExternalFault::NoFolder { .. })));
}

#[test]
fn checksums_are_compared_on_demand() {
    let model = Model::load(&data("external/model.onnx")).unwrap();
    assert_eq!(model.weights().verify(&model.proto).unwrap(), 1);
    // SHA-1 of the bytes 0 to 31.
    let right = ("checksum", "AE5BD8EFEA5322C4D9986D06680A781392F9A642");
    let (_one, model) = folder(&[("location", "weights.bin"), right]);
    assert_eq!(model.weights().verify(&model.proto).unwrap(), 1);
    let (_two, model) = folder(&[("location", "weights.bin"), ("checksum", &"0".repeat(40))]);
    let error = model.weights().verify(&model.proto).unwrap_err();
    assert!(matches!(error, OnnxError::External { fault, .. } if matches!(*fault, ExternalFault::Checksum { .. })));
}

#[test]
fn references_are_written_as_the_python_package_does() {
    let reference = Reference {
        location: "w.data".to_owned(),
        offset: 4096,
        length: Some(16),
        checksum: None,
    };
    let mut tensor = vector("w", &[1.0; 4]);
    reference.clone().write(&mut tensor);
    let keys: Vec<&str> = tensor.external_data.iter().map(|entry| entry.key()).collect();
    assert_eq!(keys, ["location", "offset", "length"]);
    assert!(tensor.raw_data.is_none());
    assert_eq!(Reference::of(&tensor).unwrap(), reference);
}
