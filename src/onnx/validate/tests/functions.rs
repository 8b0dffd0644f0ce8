//! Local functions.

use super::{Violation, breaks, import, node, nodes, validate};
use crate::onnx::messages::{FunctionProto, ModelProto, NodeProto};

/// A function `local.name(a) -> b` with this body.
fn function(name: &str, body: Vec<NodeProto>) -> FunctionProto {
    FunctionProto {
        name: Some(name.to_owned()),
        input: vec!["a".to_owned()],
        output: vec!["b".to_owned()],
        node: body,
        opset_import: vec![import("", 20), import("local", 1)],
        domain: Some("local".to_owned()),
        ..FunctionProto::default()
    }
}

fn call(name: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        domain: Some("local".to_owned()),
        ..node(name, inputs, outputs)
    }
}

#[test]
fn functions_resolve() {
    let calling = |called: NodeProto, functions: Vec<FunctionProto>| ModelProto {
        functions,
        ..nodes(vec![called])
    };
    let negate = || function("F", vec![node("Neg", &["a"], &["b"])]);
    validate(&calling(call("F", &["x"], &["y"]), vec![negate()])).unwrap();
    // Without any local function the domain's operators are the runtime's.
    validate(&calling(call("G", &["x"], &["y"]), vec![])).unwrap();
    breaks!(
        calling(call("G", &["x"], &["y"]), vec![negate()]),
        "graph `g`, node 0 (G)",
        Violation::FunctionUndefined(_)
    );
    breaks!(
        calling(call("F", &["x", "x"], &["y"]), vec![negate()]),
        "graph `g`, node 0 (F)",
        Violation::FunctionArity {
            inputs: 1,
            outputs: 1,
            ..
        }
    );
    breaks!(
        calling(call("F", &["x"], &["y"]), vec![negate(), negate()]),
        "model",
        Violation::FunctionTwice(_)
    );
    // A body does not see the graph's values.
    breaks!(
        calling(
            call("F", &["x"], &["y"]),
            vec![function("F", vec![node("Neg", &["x"], &["b"])])]
        ),
        "function `F`, node 0 (Neg)",
        Violation::Undefined(_)
    );
    breaks!(
        calling(call("F", &["x"], &["y"]), vec![function("F", vec![])]),
        "function `F`",
        Violation::OutputUndefined(_)
    );
    let itself = vec![
        function("F", vec![call("G", &["a"], &["b"])]),
        function("G", vec![call("F", &["a"], &["b"])]),
    ];
    breaks!(
        calling(call("F", &["x"], &["y"]), itself),
        "model",
        Violation::FunctionRecursive(_)
    );
    let mut other = negate();
    other.opset_import.clear();
    breaks!(
        calling(call("F", &["x"], &["y"]), vec![other]),
        "function `F`, node 0 (Neg)",
        Violation::NotImported(_)
    );
}
