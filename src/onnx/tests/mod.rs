//! Tests of the format layer as a whole; what concerns one file only stands in it.

mod bytes;
mod drawn;
mod external;
mod loading;
mod moving;
mod saving;
mod tables;
mod values;

use std::path::{Path, PathBuf};

use super::messages::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto};
use super::messages::{TensorType, TypeProto};

/// Files that the official tools wrote; see `make.py` there.
fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/onnx").join(name)
}

/// All of them.
const FILES: &[&str] = &[
    "block.ts17.onnx",
    "block.dyn18.onnx",
    "every_type.onnx",
    "every_message.onnx",
    "external/model.onnx",
];

/// A value of the type FLOAT without a shape.
fn value(name: &str) -> ValueInfoProto {
    let tensor_type = Some(TensorType {
        elem_type: Some(1),
        shape: None,
    });
    let r#type = Some(TypeProto {
        tensor_type,
        ..TypeProto::default()
    });
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type,
        ..ValueInfoProto::default()
    }
}

/// A valid model: `y = Identity(x)`, with these initializers.
fn identity(initializer: Vec<TensorProto>) -> ModelProto {
    let node = NodeProto {
        input: vec!["x".to_owned()],
        output: vec!["y".to_owned()],
        op_type: Some("Identity".to_owned()),
        ..NodeProto::default()
    };
    let graph = GraphProto {
        node: vec![node],
        name: Some("main".to_owned()),
        initializer,
        input: vec![value("x")],
        output: vec![value("y")],
        ..GraphProto::default()
    };
    ModelProto {
        ir_version: Some(10),
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto {
            domain: Some(String::new()),
            version: Some(20),
        }],
        ..ModelProto::default()
    }
}

/// A vector of FLOAT in `raw_data`.
fn vector(name: &str, values: &[f32]) -> TensorProto {
    TensorProto {
        dims: vec![values.len() as i64],
        data_type: Some(1),
        name: Some(name.to_owned()),
        raw_data: Some(values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        ..TensorProto::default()
    }
}
