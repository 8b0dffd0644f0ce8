//! Half-precision models run as they are written: every value is rounded to float16.
//!
//! ONNX Runtime's CPU provider has hardly any float16 kernels. It computes in float32, and between neighbouring
//! operators it leaves the rounding out that the model asks for; where a value crosses into a branch of an `If` it
//! cannot. So a patched model has roundings there that the original, as it is run, lacks. Two `Identity` nodes behind an
//! operator keep its rounding: the first reads what is rounded, and as the second has a float16 kernel too, the runtime
//! does not widen the first to float32 as it does with a single such node between others. (The rules are those of
//! `insert_cast_transformer.cc` in ONNX Runtime.)

use pab_patch::graph::ModelGraph;
use pab_patch::onnx::messages::{DataType, GraphProto, NodeProto};
use pab_patch::onnx::{Model, SaveOptions};
use pab_patch::runtime::{Optimization, Options, Session};
use std::path::Path;

/// Whether the weights of `model` are float16.
pub fn is_half(model: &Path) -> bool {
    let model = Model::load(model).unwrap();
    let graph = model.proto.graph.as_ref().unwrap();
    let half = Some(DataType::Float16 as i32);
    graph.initializer.iter().any(|tensor| tensor.data_type == half)
}

/// Opens `model` so that every value is rounded to the type it has in the file.
pub fn open(model: &Path, options: Options) -> Session {
    // Through the graph, which sorts the nodes of converters that do not.
    let model = ModelGraph::new(Model::load(model).unwrap()).unwrap();
    let mut model = model.into_model().unwrap();
    keep_roundings(model.proto.graph.as_mut().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rounded.onnx");
    model.save(&path, &SaveOptions::default()).unwrap();
    // Rewrites of the graph would remove the identities.
    let options = Options {
        optimization: Optimization::None,
        ..options
    };
    Session::open(&path, &options).unwrap_or_else(|error| panic!("{error}"))
}

/// Two `Identity` nodes behind every output of every node, in nested graphs too. The last has the output's name.
fn keep_roundings(graph: &mut GraphProto) {
    for mut node in std::mem::take(&mut graph.node) {
        for nested in node.attribute.iter_mut().filter_map(|attribute| attribute.g.as_mut()) {
            keep_roundings(nested);
        }
        let mut identities = Vec::new();
        for output in node.output.iter_mut().filter(|output| !output.is_empty()) {
            let (computed, rounded) = (format!("{output}.computed"), format!("{output}.rounded"));
            let name = std::mem::replace(output, computed.clone());
            identities.push(identity(computed, rounded.clone()));
            identities.push(identity(rounded, name));
        }
        graph.node.push(node);
        graph.node.extend(identities);
    }
}

fn identity(input: String, output: String) -> NodeProto {
    NodeProto {
        op_type: Some("Identity".to_owned()),
        input: vec![input],
        output: vec![output],
        ..NodeProto::default()
    }
}
