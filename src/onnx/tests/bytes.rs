//! Files of the official tools: loading does not copy, saving gives the same bytes.

use std::fs;

use onnx_protobuf::Message as _;

use super::{FILES, data};
use crate::onnx::{How, Model, SaveOptions, validate};

#[test]
fn files_of_the_official_tools_are_valid_and_saved_byte_for_byte() {
    for name in FILES {
        let model = Model::load(&data(name)).unwrap();
        assert_eq!(model.deviation(), None, "{name}");
        validate(&model.proto).unwrap_or_else(|error| panic!("{name}: {error}"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("saved.onnx");
        let saved = model.save(&path, &SaveOptions::default()).unwrap();
        assert!(
            fs::read(&path).unwrap() == fs::read(data(name)).unwrap(),
            "{name} came back different"
        );
        let last = saved.files.last().unwrap();
        assert_eq!(
            (&last.path, last.how, last.bytes),
            (&path, How::Written, fs::metadata(&path).unwrap().len())
        );
    }
}

#[test]
fn an_independent_decoder_reads_what_is_saved() {
    for name in FILES {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("saved.onnx");
        Model::load(&data(name))
            .unwrap()
            .save(&path, &SaveOptions::default())
            .unwrap();
        let original = onnx_protobuf::ModelProto::parse_from_bytes(&fs::read(data(name)).unwrap()).unwrap();
        let saved = onnx_protobuf::ModelProto::parse_from_bytes(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(saved, original, "{name}");
        assert!(!saved.graph.node.is_empty());
    }
}

#[test]
fn raw_data_are_slices_of_the_map() {
    let path = data("block.ts17.onnx");
    let size = fs::metadata(&path).unwrap().len() as usize;
    let model = Model::load(&path).unwrap();
    let graph = model.proto.graph.as_ref().unwrap();
    let raw: Vec<_> = graph
        .initializer
        .iter()
        .filter_map(|tensor| tensor.raw_data.as_ref())
        .collect();
    assert!(raw.len() >= 4);
    // All lie within one range of the file's size, in the order of the file: they were not allocated one by one.
    let starts: Vec<usize> = raw.iter().map(|bytes| bytes.as_ptr() as usize).collect();
    assert!(starts.is_sorted(), "{starts:?}");
    assert!(starts[starts.len() - 1] - starts[0] < size);
    // And at the offset that they have in the file.
    let file = fs::read(&path).unwrap();
    let base = starts[0] - file.windows(raw[0].len()).position(|window| window == raw[0]).unwrap();
    for (start, bytes) in starts.iter().zip(&raw) {
        assert_eq!(&file[start - base..start - base + bytes.len()], &bytes[..]);
    }
    // The values that `Weights` gives are the same memory.
    let tensor = graph
        .initializer
        .iter()
        .find(|tensor| tensor.raw_data.is_some())
        .unwrap();
    assert_eq!(
        model.weights().bytes(tensor).unwrap().as_ptr(),
        tensor.raw_data.as_ref().unwrap().as_ptr()
    );
}
