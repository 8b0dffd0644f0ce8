//! Functions and branches put in place, against what calls mean.

use super::*;
use crate::graph::ModelGraph;
use crate::onnx::messages::{AttributeType, ValueInfoProto};
use crate::onnx::{Model, validate};

fn info(name: &str) -> ValueInfoProto {
    use crate::onnx::messages::{TensorType, TypeProto};
    let tensor_type = Some(TensorType {
        elem_type: Some(DataType::Float as i32),
        shape: None,
    });
    ValueInfoProto {
        name: Some(name.into()),
        r#type: Some(TypeProto {
            tensor_type,
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}

fn node(domain: &str, operator: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        op_type: Some(operator.into()),
        domain: Some(domain.to_owned()).filter(|domain| !domain.is_empty()),
        input: inputs.iter().map(|name| name.to_string()).collect(),
        output: outputs.iter().map(|name| name.to_string()).collect(),
        ..NodeProto::default()
    }
}

fn integer(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        i: Some(value),
        r#type: Some(AttributeType::Int as i32),
        ..AttributeProto::default()
    }
}

fn taken_from(name: &str, reference: &str) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        ref_attr_name: Some(reference.into()),
        r#type: Some(AttributeType::Int as i32),
        ..AttributeProto::default()
    }
}

fn nested(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        g: Some(Box::new(graph)),
        r#type: Some(AttributeType::Graph as i32),
        ..AttributeProto::default()
    }
}

fn graph(nodes: Vec<NodeProto>, inputs: &[&str], outputs: &[&str]) -> GraphProto {
    GraphProto {
        name: Some("graph".into()),
        node: nodes,
        input: inputs.iter().map(|name| info(name)).collect(),
        output: outputs.iter().map(|name| info(name)).collect(),
        ..GraphProto::default()
    }
}

fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto {
        domain: Some(domain.into()),
        version: Some(version),
    }
}

fn function(name: &str, inputs: &[&str], outputs: &[&str], nodes: Vec<NodeProto>) -> FunctionProto {
    FunctionProto {
        name: Some(name.into()),
        domain: Some("own".into()),
        input: inputs.iter().map(|name| name.to_string()).collect(),
        output: outputs.iter().map(|name| name.to_string()).collect(),
        node: nodes,
        opset_import: vec![opset("", 17), opset("own", 1)],
        ..FunctionProto::default()
    }
}

fn model(graph: GraphProto, functions: Vec<FunctionProto>) -> ModelProto {
    ModelProto {
        ir_version: Some(8),
        graph: Some(graph),
        opset_import: vec![opset("", 17), opset("own", 1)],
        functions,
        ..ModelProto::default()
    }
}

/// Flattens, and checks that the result is a sound model.
fn flat(mut model: ModelProto) -> (Flattened, ModelProto) {
    let done = flatten(&mut model).unwrap();
    validate(&model).unwrap();
    ModelGraph::new(Model::from_proto(model.clone())).unwrap();
    (done, model)
}

/// Every node as `operator(inputs) -> outputs`.
fn written(graph: &GraphProto) -> Vec<String> {
    let node = |node: &NodeProto| {
        let (operator, inputs, outputs) = (
            node.op_type.as_deref().unwrap(),
            node.input.join(","),
            node.output.join(","),
        );
        format!("{operator}({inputs}) -> {outputs}")
    };
    graph.node.iter().map(node).collect()
}

#[test]
fn two_calls_of_a_function_have_names_of_their_own() {
    let body = vec![node("", "Relu", &["x"], &["h"]), node("", "Add", &["h", "w"], &["y"])];
    let calls = vec![
        node("own", "Block", &["in", "w1"], &["mid"]),
        node("own", "Block", &["mid", "w1"], &["out"]),
    ];
    let mut main = graph(calls, &["in", "w1"], &["out"]);
    main.node[1].name = Some("second".into());
    let (done, model) = flat(model(main, vec![function("Block", &["x", "w"], &["y"], body)]));
    assert_eq!(done, Flattened { calls: 2, branches: 0 });
    assert_eq!(
        written(model.graph.as_ref().unwrap()),
        [
            "Relu(in) -> Block/h",
            "Add(Block/h,w1) -> mid",
            "Relu(mid) -> second/h",
            "Add(second/h,w1) -> out"
        ]
    );
    assert!(model.functions.is_empty());
    assert_eq!(model.opset_import, [opset("", 17)]);
}

#[test]
fn names_that_are_taken_are_not_taken_again() {
    let body = vec![node("", "Relu", &["x"], &["h"]), node("", "Relu", &["h"], &["y"])];
    let nodes = vec![
        node("", "Relu", &["in"], &["Block/h"]),
        node("own", "Block", &["Block/h"], &["out"]),
    ];
    let (_, model) = flat(model(
        graph(nodes, &["in"], &["out"]),
        vec![function("Block", &["x"], &["y"], body)],
    ));
    assert_eq!(written(model.graph.as_ref().unwrap())[1], "Relu(Block/h) -> Block/h.1");
}

#[test]
fn attributes_come_from_the_call_or_the_default_or_are_left_out() {
    let mut softmax = node("", "Softmax", &["x"], &["y"]);
    softmax.attribute = vec![taken_from("axis", "along")];
    let plain = function("Plain", &["x"], &["y"], vec![softmax.clone()]);
    let with_default = FunctionProto {
        attribute_proto: vec![integer("along", 3)],
        ..function("Default", &["x"], &["y"], vec![softmax])
    };
    // Handed on from a function to the one that it calls.
    let mut inner = node("own", "Plain", &["x"], &["y"]);
    inner.attribute = vec![taken_from("along", "outer")];
    let outer = function("Outer", &["x"], &["y"], vec![inner]);
    let given = |name: &str, attributes: Vec<AttributeProto>| {
        let mut call = node("own", name, &["in"], &["out"]);
        call.attribute = attributes;
        let functions = vec![plain.clone(), with_default.clone(), outer.clone()];
        let (_, model) = flat(model(graph(vec![call], &["in"], &["out"]), functions));
        model.graph.unwrap().node[0].attribute.clone()
    };
    assert_eq!(given("Plain", vec![integer("along", 1)]), [integer("axis", 1)]);
    assert_eq!(given("Plain", vec![]), []);
    assert_eq!(given("Default", vec![]), [integer("axis", 3)]);
    assert_eq!(given("Default", vec![integer("along", 1)]), [integer("axis", 1)]);
    assert_eq!(given("Outer", vec![integer("outer", 2)]), [integer("axis", 2)]);
}

#[test]
fn inputs_and_outputs_may_be_left_out_or_passed_on() {
    let body = vec![node("", "Clip", &["x", "low", "high"], &["y"])];
    let clip = function("Between", &["x", "low", "high"], &["y", "x", "y"], body);
    let calls = vec![
        node("own", "Between", &["in", "", "in"], &["a", "b", "c"]),
        node("own", "Between", &["a"], &["d"]),
    ];
    let (_, model) = flat(model(graph(calls, &["in"], &["b", "c", "d"]), vec![clip]));
    assert_eq!(
        written(model.graph.as_ref().unwrap()),
        [
            "Clip(in,,in) -> a",
            "Identity(in) -> b",
            "Identity(a) -> c",
            "Clip(a,,) -> d"
        ]
    );
}

#[test]
fn names_in_nested_graphs_of_a_function_are_its_own_too() {
    let branch = |operator: &str| graph(vec![node("", operator, &["h"], &["inner"])], &[], &["inner"]);
    let mut choice = node("", "If", &["c"], &["y"]);
    choice.attribute = vec![
        nested("then_branch", branch("Neg")),
        nested("else_branch", branch("Abs")),
    ];
    let body = vec![node("", "Relu", &["x"], &["h"]), choice];
    let calls = vec![
        node("own", "Choose", &["in", "c"], &["mid"]),
        node("own", "Choose", &["mid", "c"], &["out"]),
    ];
    let mut main = graph(calls, &["in", "c"], &["out"]);
    main.input[1]
        .r#type
        .as_mut()
        .unwrap()
        .tensor_type
        .as_mut()
        .unwrap()
        .elem_type = Some(DataType::Bool as i32);
    let (done, model) = flat(model(main, vec![function("Choose", &["x", "c"], &["y"], body)]));
    assert_eq!(done.calls, 2);
    let main = model.graph.unwrap();
    let inner = |place: usize| written(main.node[place].attribute[0].g.as_ref().unwrap());
    assert_eq!(inner(1), ["Neg(Choose/h) -> Choose/inner"]);
    assert_eq!(inner(3), ["Neg(Choose/h.1) -> Choose/inner.2"]);
}

#[test]
fn calls_in_nested_graphs_are_put_in_place_there() {
    let branch = graph(vec![node("own", "Block", &["in"], &["t"])], &[], &["t"]);
    let other = graph(vec![node("", "Identity", &["in"], &["e"])], &[], &["e"]);
    let mut choice = node("", "If", &["c"], &["out"]);
    choice.attribute = vec![nested("then_branch", branch), nested("else_branch", other)];
    let block = function("Block", &["x"], &["y"], vec![node("", "Relu", &["x"], &["y"])]);
    let (_, model) = flat(model(graph(vec![choice], &["in", "c"], &["out"]), vec![block]));
    let main = model.graph.unwrap();
    assert_eq!(
        written(main.node[0].attribute[0].g.as_ref().unwrap()),
        ["Relu(in) -> t"]
    );
}

#[test]
fn a_function_of_another_opset_stays() {
    let block = FunctionProto {
        opset_import: vec![opset("", 11)],
        ..function("Block", &["x"], &["y"], vec![node("", "Relu", &["x"], &["y"])])
    };
    let before = model(
        graph(vec![node("own", "Block", &["in"], &["out"])], &["in"], &["out"]),
        vec![block],
    );
    let (done, after) = flat(before.clone());
    assert_eq!((done, after), (Flattened::default(), before));
}

#[test]
fn calls_without_end_are_refused() {
    let itself = function("A", &["x"], &["y"], vec![node("own", "A", &["x"], &["y"])]);
    // 2^40 nodes.
    let doubling = (0..40).map(|depth| {
        let next = if depth == 39 {
            ("", "Relu".to_owned())
        } else {
            ("own", format!("F{}", depth + 1))
        };
        let nodes = vec![
            node(next.0, &next.1, &["x"], &["h"]),
            node(next.0, &next.1, &["h"], &["y"]),
        ];
        function(&format!("F{depth}"), &["x"], &["y"], nodes)
    });
    for (first, functions) in [("A", vec![itself]), ("F0", doubling.collect())] {
        let mut endless = model(
            graph(vec![node("own", first, &["in"], &["out"])], &["in"], &["out"]),
            functions,
        );
        let error = flatten(&mut endless).unwrap_err();
        assert_eq!(error, GraphError::FunctionCalls { limit: MOST_NODES });
    }
}

#[test]
fn the_branch_of_a_constant_condition_takes_its_place() {
    let truth = |value: i32| TensorProto {
        name: Some("always".into()),
        data_type: Some(DataType::Bool as i32),
        int32_data: vec![value],
        ..TensorProto::default()
    };
    let weight = TensorProto {
        name: Some("w".into()),
        dims: vec![1],
        data_type: Some(DataType::Float as i32),
        float_data: vec![1.0],
        ..TensorProto::default()
    };
    let mut computes = graph(vec![node("", "Add", &["in", "w"], &["t"])], &[], &["t"]);
    computes.initializer = vec![weight];
    let passes = graph(vec![node("", "Identity", &["in"], &["e"])], &[], &["e"]);
    let mut choice = node("", "If", &["always"], &["out"]);
    choice.attribute = vec![nested("then_branch", computes), nested("else_branch", passes)];
    let mut main = graph(vec![choice], &["in"], &["out"]);
    let mut result = |value: i32| {
        main.initializer = vec![truth(value)];
        let (done, model) = flat(model(main.clone(), vec![]));
        assert_eq!(done, Flattened { calls: 0, branches: 1 });
        let graph = model.graph.unwrap();
        (written(&graph), graph.initializer.len())
    };
    assert_eq!(result(1), (vec!["Add(in,If/w) -> out".to_owned()], 2));
    assert_eq!(result(0), (vec!["Identity(in) -> out".to_owned()], 1));
}

#[test]
fn a_branch_that_an_input_chooses_stays() {
    let branch = |name: &str| graph(vec![node("", "Identity", &["in"], &[name])], &[], &[name]);
    let mut choice = node("", "If", &["c"], &["out"]);
    choice.attribute = vec![nested("then_branch", branch("t")), nested("else_branch", branch("e"))];
    let mut main = graph(vec![choice], &["in", "c"], &["out"]);
    // A default that the caller may replace.
    main.initializer = vec![TensorProto {
        name: Some("c".into()),
        data_type: Some(DataType::Bool as i32),
        int32_data: vec![1],
        ..TensorProto::default()
    }];
    main.input[1]
        .r#type
        .as_mut()
        .unwrap()
        .tensor_type
        .as_mut()
        .unwrap()
        .elem_type = Some(DataType::Bool as i32);
    let before = model(main, vec![]);
    let (done, after) = flat(before.clone());
    assert_eq!((done, after), (Flattened::default(), before));
}
