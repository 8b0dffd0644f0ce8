//! Files that are no models, or not whole, each get an error of their own.

use std::fs;
use std::path::Path;

use prost::Message;

use super::{data, identity};
use crate::onnx::messages::ModelProto;
use crate::onnx::{Model, OnnxError, opset};

/// The error of loading a file with these bytes.
fn refused(bytes: &[u8]) -> OnnxError {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    fs::write(&path, bytes).unwrap();
    let error = Model::load(&path).unwrap_err();
    assert!(
        error.to_string().contains("model.onnx"),
        "the file is not named: {error}"
    );
    error
}

#[test]
fn each_kind_of_wrong_file_has_its_error() {
    let sound = fs::read(data("block.ts17.onnx")).unwrap();
    assert!(matches!(refused(b""), OnnxError::Empty { .. }));
    assert!(matches!(
        refused(&sound[..sound.len() / 2]),
        OnnxError::Truncated { .. }
    ));
    assert!(matches!(refused(b"PK\x03\x04archive"), OnnxError::NotOnnx { .. }));
    assert!(matches!(refused(b"\x7fELF\x02\x01\x01"), OnnxError::NotOnnx { .. }));
    assert!(matches!(
        refused(
            &ModelProto {
                ir_version: Some(8),
                ..ModelProto::default()
            }
            .encode_to_vec()
        ),
        OnnxError::NoGraph { .. }
    ));
    let unknown = [identity(Vec::new()).encode_to_vec(), vec![0xfa, 0x3f, 0x01, 0x00]].concat();
    let error = refused(&unknown);
    assert!(matches!(error, OnnxError::UnknownField { .. }), "{error}");
    assert!(error.to_string().contains("ModelProto.field 1023"), "{error}");
    let mut damaged = sound.clone();
    let middle = sound
        .windows(4)
        .position(|window| window == b"Conv" || window == b"Soft")
        .unwrap();
    damaged[middle] = 0xff;
    let error = refused(&damaged);
    assert!(matches!(error, OnnxError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("graph.node["), "{error}");
}

#[test]
fn every_truncation_is_an_error_or_lacks_what_came_last() {
    let sound = fs::read(data("every_message.onnx")).unwrap();
    let whole = Model::load(&data("every_message.onnx")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    for length in 0..sound.len() {
        fs::write(&path, &sound[..length]).unwrap();
        // Cuts between the model's own fields cannot be seen, yet what is there must be right.
        if let Ok(model) = Model::load(&path) {
            assert_eq!(model.proto.graph, whole.proto.graph, "cut to {length}");
            assert_eq!(model.proto.encode_to_vec(), &sound[..length]);
        }
    }
}

#[test]
fn what_is_no_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(
        Model::load(folder.path()),
        Err(OnnxError::NotAFile { what: "a folder", .. })
    ));
    let error = Model::load(&folder.path().join("missing.onnx")).unwrap_err();
    assert!(
        matches!(error, OnnxError::Read { .. }) && error.to_string().contains("missing.onnx"),
        "{error}"
    );
    #[cfg(unix)]
    assert!(matches!(
        Model::load(Path::new("/dev/null")),
        Err(OnnxError::NotAFile {
            what: "a device or a pipe",
            ..
        })
    ));
}

#[test]
fn the_default_domain_has_two_names() {
    let proto = Model::load(&data("every_message.onnx")).unwrap().proto;
    assert_eq!(opset(&proto, ""), Some(25));
    assert_eq!(opset(&proto, "ai.onnx"), Some(25));
    assert_eq!(opset(&proto, "ai.pab.custom"), Some(3));
    assert_eq!(opset(&proto, "ai.onnx.ml"), None);
}
