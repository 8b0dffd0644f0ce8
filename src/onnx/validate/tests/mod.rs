//! One broken model for each rule, and sound ones beside them.

mod contents;
mod functions;
mod nested;

use super::{Violation, validate};
use crate::onnx::messages::{
    AttributeProto, AttributeType, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorType,
    TypeProto, ValueInfoProto,
};

fn node(operator: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    NodeProto {
        input: owned(inputs),
        output: owned(outputs),
        op_type: Some(operator.to_owned()),
        ..NodeProto::default()
    }
}

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

fn constant(name: &str) -> TensorProto {
    TensorProto {
        data_type: Some(1),
        name: Some(name.to_owned()),
        float_data: vec![1.0],
        ..TensorProto::default()
    }
}

fn graph(inputs: &[&str], node: Vec<NodeProto>, outputs: &[&str]) -> GraphProto {
    GraphProto {
        node,
        name: Some("g".to_owned()),
        input: inputs.iter().map(|name| value(name)).collect(),
        output: outputs.iter().map(|name| value(name)).collect(),
        ..GraphProto::default()
    }
}

fn import(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto {
        domain: Some(domain.to_owned()),
        version: Some(version),
    }
}

fn model(graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: Some(10),
        graph: Some(graph),
        opset_import: vec![import("", 20), import("local", 1)],
        ..ModelProto::default()
    }
}

fn with(mut node: NodeProto, attribute: AttributeProto) -> NodeProto {
    node.attribute.push(attribute);
    node
}

fn body(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Graph as i32),
        g: Some(Box::new(graph)),
        ..AttributeProto::default()
    }
}

/// `x → a → y`, changed by `change`.
fn changed(change: impl FnOnce(&mut ModelProto)) -> ModelProto {
    let mut proto = model(graph(
        &["x"],
        vec![node("Neg", &["x"], &["a"]), node("Abs", &["a"], &["y"])],
        &["y"],
    ));
    change(&mut proto);
    proto
}

fn nodes(list: Vec<NodeProto>) -> ModelProto {
    model(graph(&["x"], list, &["y"]))
}

/// Asserts that a model breaks this rule at a place with this text.
macro_rules! breaks {
    ($proto:expr, $place:literal, $rule:pat) => {
        let error = validate(&$proto).unwrap_err();
        assert!(matches!(error.violation, $rule), "{error}");
        assert_eq!(error.place, $place);
    };
}

use breaks;

#[test]
fn a_sound_model_passes() {
    validate(&changed(|_| ())).unwrap();
}

#[test]
fn versions_and_imports() {
    breaks!(
        changed(|proto| proto.ir_version = None),
        "model",
        Violation::NoIrVersion
    );
    breaks!(
        changed(|proto| proto.ir_version = Some(15)),
        "model",
        Violation::IrVersion(15)
    );
    breaks!(changed(|proto| proto.graph = None), "model", Violation::NoGraph);
    breaks!(changed(|proto| proto.opset_import.clear()), "model", Violation::NoOpset);
    breaks!(
        changed(|proto| proto.opset_import.push(import("ai.onnx", 19))),
        "model",
        Violation::OpsetTwice(_)
    );
    breaks!(
        changed(|proto| proto.opset_import.push(import("z", 0))),
        "model",
        Violation::OpsetVersion { .. }
    );
    let mut foreign = node("Fancy", &["x"], &["y"]);
    foreign.domain = Some("elsewhere".to_owned());
    foreign.name = Some("fancy_1".to_owned());
    breaks!(
        nodes(vec![foreign]),
        "graph `g`, node 0 `fancy_1` (Fancy)",
        Violation::NotImported(_)
    );
    let mut long = node("Neg", &["x"], &["y"]);
    long.domain = Some("ai.onnx".to_owned());
    validate(&nodes(vec![long])).unwrap();
}

#[test]
fn names_and_order() {
    breaks!(
        nodes(vec![node("Neg", &["x"], &["y"]), node("Abs", &["x"], &["y"])]),
        "graph `g`, node 1 (Abs)",
        Violation::Duplicate(_)
    );
    breaks!(
        nodes(vec![node("Neg", &["x"], &["x", "y"])]),
        "graph `g`, node 0 (Neg)",
        Violation::Duplicate(_)
    );
    breaks!(
        nodes(vec![node("Neg", &["q"], &["y"])]),
        "graph `g`, node 0 (Neg)",
        Violation::Undefined(_)
    );
    breaks!(
        nodes(vec![node("Abs", &["a"], &["y"]), node("Neg", &["x"], &["a"])]),
        "graph `g`, node 0 (Abs)",
        Violation::NotSorted { .. }
    );
    breaks!(
        nodes(vec![
            node("Abs", &["b"], &["a"]),
            node("Neg", &["a"], &["b"]),
            node("Abs", &["b"], &["y"])
        ]),
        "graph `g`, node 0 (Abs)",
        Violation::Cycle { .. }
    );
    breaks!(
        nodes(vec![node("Neg", &["y"], &["y"])]),
        "graph `g`, node 0 (Neg)",
        Violation::Cycle { .. }
    );
    breaks!(
        nodes(vec![node("", &["x"], &["y"])]),
        "graph `g`, node 0 ()",
        Violation::NoOperator
    );
    breaks!(nodes(vec![]), "graph `g`", Violation::OutputUndefined(_));
    breaks!(
        model(graph(&["x"], vec![], &["x", "x"])),
        "graph `g`",
        Violation::OutputTwice(_)
    );
    breaks!(
        model(graph(&["x", "x"], vec![], &["x"])),
        "graph `g`",
        Violation::Duplicate(_)
    );
    breaks!(
        model(graph(&["x", ""], vec![], &["x"])),
        "graph `g`",
        Violation::NoName("an input")
    );
    // Left-out inputs and outputs have empty names.
    validate(&nodes(vec![node("Clip", &["x", "", "x"], &["y", "", ""])])).unwrap();
}

#[test]
fn types_of_values() {
    let typed = |kind: Option<TypeProto>| changed(|proto| proto.graph.as_mut().unwrap().input[0].r#type = kind);
    let tensor = |elem_type| Some(TensorType { elem_type, shape: None });
    breaks!(typed(None), "graph `g`", Violation::NoType { what: "input", .. });
    breaks!(typed(Some(TypeProto::default())), "graph `g`", Violation::NoType { .. });
    for number in [None, Some(0), Some(29), Some(-1)] {
        let kind = TypeProto {
            tensor_type: tensor(number),
            ..TypeProto::default()
        };
        breaks!(typed(Some(kind)), "graph `g`", Violation::ElementType { .. });
    }
    let both = TypeProto {
        tensor_type: tensor(Some(1)),
        opaque_type: Some(Default::default()),
        ..TypeProto::default()
    };
    breaks!(typed(Some(both)), "graph `g`", Violation::ManyTypes(_));
}
