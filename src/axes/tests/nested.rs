//! Axes through `If` and `Loop`.

use super::*;
use crate::axes::test_graph::node;
use crate::onnx::Model;
use crate::onnx::messages::{AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto};

fn port(name: &str) -> ValueInfoProto {
    ValueInfoProto {
        name: Some(name.into()),
        ..ValueInfoProto::default()
    }
}

fn graph(lines: &[&str], inputs: &[&str], outputs: &[&str]) -> GraphProto {
    GraphProto {
        name: Some("nested".into()),
        node: lines.iter().map(|line| node(line)).collect(),
        input: inputs.iter().map(|name| port(name)).collect(),
        output: outputs.iter().map(|name| port(name)).collect(),
        ..GraphProto::default()
    }
}

fn holding(line: &str, bodies: Vec<(&str, GraphProto)>) -> NodeProto {
    let attribute = |(name, graph): (&str, GraphProto)| AttributeProto {
        name: Some(name.into()),
        g: Some(Box::new(graph)),
        ..AttributeProto::default()
    };
    NodeProto {
        attribute: bodies.into_iter().map(attribute).collect(),
        ..node(line)
    }
}

/// A latent, a condition and a trip count; these nodes make something of them.
fn model_of(nodes: Vec<NodeProto>) -> ModelGraph {
    let graph = GraphProto {
        name: Some("test".into()),
        input: vec![
            latent(),
            input("flag", &[], DataType::Bool),
            input("trips", &[], DataType::Int64),
        ],
        initializer: vec![weight("scale", &[1])],
        node: nodes,
        ..GraphProto::default()
    };
    let proto = ModelProto {
        ir_version: Some(8),
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto {
            domain: None,
            version: Some(17),
        }],
        ..ModelProto::default()
    };
    ModelGraph::new(Model::from_proto(proto)).unwrap()
}

fn choice(one: &[&str], other: &[&str]) -> NodeProto {
    let bodies = vec![
        ("then_branch", graph(one, &[], &["t"])),
        ("else_branch", graph(other, &[], &["e"])),
    ];
    holding("If flag -> chosen", bodies)
}

#[test]
fn what_both_branches_give_is_known() {
    let model = model_of(vec![choice(&["Mul latent scale -> t"], &["Identity latent -> e"])]);
    let axes = told(&model);
    assert_eq!(
        shape(&model, &axes, "chosen"),
        "[batch, channels, frames, height, width]"
    );
    let chosen = model.graph.find("chosen").unwrap();
    assert_eq!(axes.element_type(chosen), Some(DataType::Float));
    assert!(axes.opaque().is_empty());
}

#[test]
fn where_the_branches_differ_the_size_is_not_known() {
    let cut = ["Transpose latent -> t perm=2,1,0,3,4"];
    let model = model_of(vec![choice(&cut, &["Identity latent -> e"])]);
    let axes = told(&model);
    let shape = shape(&model, &axes, "chosen");
    assert_eq!(shape, "[?, channels, ?, height, width]");
}

#[test]
fn sizes_decide_which_branch_counts() {
    let drop = graph(&["Transpose latent -> t perm=2,1,0,3,4"], &[], &["t"]);
    let keep = graph(&["Identity latent -> e"], &[], &["e"]);
    let of_frames = holding("If same -> chosen", vec![("then_branch", drop), ("else_branch", keep)]);
    let size = |name: &str, from: i64| node(&format!("Shape latent -> {name} start={from} end={}", from + 1));
    for (compared, expected) in [
        (2, "[frames, channels, batch, height, width]"),
        (1, "[batch, channels, frames, height, width]"),
    ] {
        let equal = node("Equal frames other -> same");
        let model = model_of(vec![
            size("frames", 2),
            size("other", compared),
            equal,
            of_frames.clone(),
        ]);
        assert_eq!(shape(&model, &told(&model), "chosen"), expected);
    }
}

#[test]
fn a_branch_that_is_not_understood_makes_the_choice_unknown() {
    let model = model_of(vec![choice(&["own:Magic latent -> t"], &["Identity latent -> e"])]);
    let axes = told(&model);
    assert_eq!(axes.dimensions(model.graph.find("chosen").unwrap()), None);
    assert_eq!(axes.opaque().len(), 1);
}

fn iteration(lines: &[&str], outputs: &[&str]) -> NodeProto {
    let body = graph(lines, &["number", "going", "carried"], outputs);
    let made = if outputs.len() > 2 { "last,rows" } else { "last" };
    holding(&format!("Loop trips flag latent -> {made}"), vec![("body", body)])
}

#[test]
fn what_is_carried_unchanged_through_a_loop_is_known() {
    let model = model_of(vec![iteration(
        &["Identity going -> on", "Mul carried scale -> next"],
        &["on", "next", "next"],
    )]);
    let axes = told(&model);
    assert_eq!(shape(&model, &axes, "last"), "[batch, channels, frames, height, width]");
    assert_eq!(
        shape(&model, &axes, "rows"),
        "[?, batch, channels, frames, height, width]"
    );
}

#[test]
fn an_axis_that_a_loop_changes_is_not_known() {
    // One iteration exchanges batch and frames, so after any number of them either may stand there.
    let exchanged = iteration(
        &["Identity going -> on", "Transpose carried -> next perm=2,1,0,3,4"],
        &["on", "next"],
    );
    let model = model_of(vec![exchanged]);
    let axes = told(&model);
    let last = axes.dimensions(model.graph.find("last").unwrap());
    let unknown = last.is_none_or(|dims| dims[0].labels().is_empty() && dims[0].size().has_unknown());
    assert!(unknown, "{last:?}");
}

#[test]
fn graphs_nested_without_end_are_not_gone_through() {
    let mut inner = choice(&["Identity latent -> t"], &["Identity latent -> e"]);
    for _ in 0..20 {
        let mut one = graph(&[], &[], &["chosen"]);
        one.node = vec![inner];
        let bodies = vec![("then_branch", one.clone()), ("else_branch", one)];
        inner = holding("If flag -> chosen", bodies);
        // Twice as many each time: deep ones are cut short here.
        if inner
            .attribute
            .iter()
            .filter_map(|attribute| attribute.g.as_ref())
            .count()
            > 2
        {
            break;
        }
        if prost::Message::encoded_len(&inner) > 1 << 16 {
            break;
        }
    }
    let model = model_of(vec![inner]);
    assert_eq!(told(&model).opaque().len(), 1);
}
