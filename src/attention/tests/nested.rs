//! Attention in nested graphs and functions.

use super::super::*;
use crate::axes::test_graph::{At, input, model};
use crate::axes::{Axes, InputLabels};
use crate::graph::ModelGraph;
use crate::onnx::Model;
use crate::onnx::messages::{AttributeProto, DataType, FunctionProto, GraphProto, NodeProto, ValueInfoProto};

fn node(domain: &str, operator: &str, body: Option<GraphProto>) -> NodeProto {
    let attribute = body.map(|graph| AttributeProto {
        name: Some("then_branch".into()),
        r#type: Some(5),
        g: Some(Box::new(graph)),
        ..Default::default()
    });
    NodeProto {
        domain: Some(domain.into()),
        op_type: Some(operator.into()),
        input: vec!["latent".into()],
        output: vec!["inner".into()],
        attribute: attribute.into_iter().collect(),
        ..Default::default()
    }
}

fn body(nodes: Vec<NodeProto>) -> GraphProto {
    GraphProto {
        name: Some("body".into()),
        node: nodes,
        output: vec![ValueInfoProto {
            name: Some("inner".into()),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn function(name: &str, nodes: Vec<NodeProto>) -> FunctionProto {
    FunctionProto {
        name: Some(name.into()),
        domain: Some("local".into()),
        input: vec!["latent".into()],
        output: vec!["inner".into()],
        node: nodes,
        ..Default::default()
    }
}

/// The reasons of the notes on a graph of calls `nodes`, whose outputs are named apart.
fn reasons(nodes: Vec<NodeProto>, functions: Vec<FunctionProto>) -> Vec<String> {
    let latent = input("latent", &[2, 4, 3, 8, 8].map(At::Number), DataType::Float);
    let mut proto = model(vec![latent], vec![], &[]).into_model().unwrap().proto;
    proto.functions = functions;
    let graph = proto.graph.as_mut().unwrap();
    for (index, mut node) in nodes.into_iter().enumerate() {
        node.output = vec![format!("o{index}")];
        graph.node.push(node);
    }
    let model = ModelGraph::new(Model::from_proto(proto)).unwrap();
    let axes = Axes::analyse(&model, &InputLabels::default()).unwrap();
    let sites = Sites::find(&model, &axes).unwrap();
    let nested = sites
        .notes
        .iter()
        .filter(|note| note.reason.contains("no site is looked for"));
    nested
        .map(|note| format!("{}: {}", note.subject, note.reason))
        .collect()
}

#[test]
fn attention_in_a_nested_graph_is_noted() {
    let softmax = || node("", "Softmax", None);
    let deep = body(vec![node("", "If", Some(body(vec![softmax()])))]);
    let found = reasons(vec![node("", "If", Some(deep))], vec![]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("If: it holds an attention in a nested graph"),
        "{found:?}"
    );
    let relu = body(vec![node("", "Relu", None)]);
    assert_eq!(reasons(vec![node("", "If", Some(relu))], vec![]), [""; 0]);
}

#[test]
fn attention_in_a_function_is_noted_once_with_the_number_of_calls() {
    let functions = || {
        vec![
            function("Block", vec![node("local", "Inner", None)]),
            function("Inner", vec![node("ai.onnx", "Softmax", None)]),
            function("Plain", vec![node("", "Relu", None)]),
            // A circle, as only a damaged file has it.
            function("Round", vec![node("local", "Round", None)]),
        ]
    };
    let call = |name: &str| node("local", name, None);
    let found = reasons(
        vec![call("Block"), call("Block"), call("Plain"), call("Round")],
        functions(),
    );
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("local:Block") && found[0].ends_with("(2 calls)"),
        "{found:?}"
    );
    let within = node("", "If", Some(body(vec![call("Inner")])));
    assert_eq!(reasons(vec![within], functions()).len(), 1);
}
