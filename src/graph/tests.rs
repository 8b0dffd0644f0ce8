//! The graph against the messages it comes from, and edits against a check that recounts every edge.

use super::{Graph, GraphError, NewNode, NodeId, Origin, Slot, ValueId};
use crate::onnx::messages::{
    AttributeProto, AttributeType, DataType, GraphProto, NodeProto, TensorProto, TensorType, TypeProto, ValueInfoProto,
};
use petgraph::algo::dominators::simple_fast;
use petgraph::visit::Reversed;
use proptest::prelude::*;
use std::collections::HashSet;

mod names;
mod nested;

fn info(name: &str) -> ValueInfoProto {
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

fn node(operator: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        op_type: Some(operator.into()),
        input: inputs.iter().map(|name| name.to_string()).collect(),
        output: outputs.iter().map(|name| name.to_string()).collect(),
        ..NodeProto::default()
    }
}

fn weight(name: &str) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        dims: vec![1],
        data_type: Some(DataType::Float as i32),
        float_data: vec![1.0],
        ..TensorProto::default()
    }
}

/// x → residual block: add(x, project(mix(norm(x)))) → y, with `norm` also read by a side output.
fn residual() -> GraphProto {
    GraphProto {
        name: Some("g".into()),
        node: vec![
            node("Relu", &["x"], &["norm"]),
            node("MatMul", &["norm", "w1"], &["mixed"]),
            node("MatMul", &["mixed", "w2"], &["projected"]),
            node("Add", &["x", "projected"], &["y"]),
        ],
        input: vec![info("x")],
        output: vec![info("y")],
        initializer: vec![weight("w1"), weight("w2")],
        value_info: vec![info("norm"), info("mixed"), info("projected")],
        ..GraphProto::default()
    }
}

fn branch(name: &str, reads: &str) -> AttributeProto {
    let graph = GraphProto {
        name: Some(name.into()),
        node: vec![node("Neg", &[reads], &[&format!("{name}.out")])],
        output: vec![info(&format!("{name}.out"))],
        ..GraphProto::default()
    };
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(AttributeType::Graph as i32),
        g: Some(Box::new(graph)),
        ..AttributeProto::default()
    }
}

/// A graph whose `If` reads `a` only from inside its branches.
fn captured() -> GraphProto {
    let mut choice = node("If", &["condition"], &["y"]);
    choice.attribute = vec![branch("then_branch", "a"), branch("else_branch", "x")];
    GraphProto {
        name: Some("g".into()),
        node: vec![node("Relu", &["x"], &["a"]), choice],
        input: vec![info("x"), info("condition")],
        output: vec![info("y")],
        ..GraphProto::default()
    }
}

fn find(graph: &Graph, name: &str) -> ValueId {
    graph.find(name).unwrap_or_else(|| panic!("no value {name}"))
}

fn operators(graph: &Graph) -> Vec<String> {
    let order = graph.topological_order().unwrap();
    order
        .into_iter()
        .map(|id| graph.node(id).operator().to_owned())
        .collect()
}

/// Recounts the users of every value and compares them with what the graph keeps.
fn check(graph: &Graph) {
    let mut expected: Vec<Vec<(NodeId, Slot)>> = vec![Vec::new(); graph.value_bound()];
    for (id, node) in graph.nodes() {
        for (slot, edge) in node.inputs.iter().enumerate() {
            let Some(edge) = edge else { continue };
            expected[edge.value.index()].push((id, Slot::Input(slot)));
            let usage = graph.values[edge.value.index()].uses[edge.place];
            assert_eq!((usage.node, usage.slot), (id, Slot::Input(slot)), "place of an edge");
        }
        for (slot, edge) in node.captures.iter().enumerate() {
            expected[edge.value.index()].push((id, Slot::Capture(slot)));
            let usage = graph.values[edge.value.index()].uses[edge.place];
            assert_eq!(
                (usage.node, usage.slot),
                (id, Slot::Capture(slot)),
                "place of a capture"
            );
        }
        for (slot, output) in node.outputs().iter().enumerate() {
            let Some(output) = output else { continue };
            assert_eq!(graph.value(*output).origin(), Origin::Node { node: id, slot });
        }
        let captures: HashSet<ValueId> = node.captures().collect();
        assert_eq!(captures.len(), node.captures().len(), "a capture stands twice");
        for body in node.bodies() {
            check(body.graph());
            let mut once = HashSet::new();
            for inner in &body.graph().values {
                let Origin::Outer(outer) = inner.origin else { continue };
                if !inner.is_unused() {
                    assert!(captures.contains(&outer), "a captured value is no capture of its node");
                    assert!(once.insert(outer), "two values stand for one outer value");
                    assert_eq!(inner.name(), graph.value(outer).name(), "names tie the two together");
                }
            }
        }
    }
    for (name, id) in &graph.names {
        assert_eq!(graph.value(*id).name(), name);
    }
    for (id, value) in graph.values() {
        if value.origin() != Origin::Nothing {
            assert_eq!(graph.find(value.name()), Some(id), "{} is not found", value.name());
        }
        let mut uses: Vec<_> = value.uses().iter().map(|usage| (usage.node, usage.slot)).collect();
        let key = |usage: &(NodeId, Slot)| (usage.0, format!("{:?}", usage.1));
        uses.sort_by_key(key);
        expected[id.index()].sort_by_key(key);
        assert_eq!(uses, expected[id.index()], "users of {}", value.name());
    }
}

#[test]
fn an_untouched_graph_is_written_as_it_was_read() {
    for proto in [residual(), captured()] {
        let graph = Graph::from_proto(proto.clone()).unwrap();
        check(&graph);
        assert_eq!(graph.into_proto().unwrap(), proto);
    }
}

#[test]
fn users_and_producers_are_known_also_through_branches() {
    let graph = Graph::from_proto(captured()).unwrap();
    let a = find(&graph, "a");
    let (_, producer) = graph.producer(a).unwrap();
    assert!(producer.is("Relu"));
    assert_eq!(graph.value(a).uses().len(), 1);
    assert!(matches!(graph.value(a).uses()[0].slot, Slot::Capture(_)));
    assert_eq!(graph.value(find(&graph, "x")).uses().len(), 2);
}

#[test]
fn broken_graphs_are_refused_with_the_name() {
    let mut twice = residual();
    twice.node[1].output[0] = "norm".into();
    let error = Graph::from_proto(twice).unwrap_err();
    assert!(
        matches!(&error, GraphError::DefinedTwice { name, .. } if name == "norm"),
        "{error}"
    );

    let mut missing = residual();
    missing.node[3].input[0] = "nowhere".into();
    let error = Graph::from_proto(missing).unwrap_err();
    assert!(
        matches!(&error, GraphError::Undefined { name, .. } if name == "nowhere"),
        "{error}"
    );

    let mut inside = captured();
    inside.node[1].attribute[0].g.as_mut().unwrap().node[0].input[0] = "nowhere".into();
    assert!(matches!(
        Graph::from_proto(inside).unwrap_err(),
        GraphError::Undefined { .. }
    ));

    let mut circle = residual();
    circle.node[0].input[0] = "projected".into();
    let error = Graph::from_proto(circle).unwrap().topological_order().unwrap_err();
    assert!(
        matches!(&error, GraphError::Cycle { nodes } if nodes.len() == 3),
        "{error}"
    );
}

#[test]
fn an_unsorted_file_is_sorted_and_a_sorted_one_keeps_its_order() {
    let mut proto = residual();
    proto.node.reverse();
    let graph = Graph::from_proto(proto).unwrap();
    assert_eq!(operators(&graph), ["Relu", "MatMul", "MatMul", "Add"]);
}

#[test]
fn dead_code_goes_with_its_weights_and_types() {
    let mut graph = Graph::from_proto(residual()).unwrap();
    let (add, _) = graph.producer(find(&graph, "y")).unwrap();
    let x = find(&graph, "x");
    graph.set_input(add, 1, x);
    check(&graph);
    assert_eq!(graph.eliminate_dead_code(), 3);
    check(&graph);
    let proto = graph.into_proto().unwrap();
    assert_eq!(
        (proto.node.len(), proto.initializer.len(), proto.value_info.len()),
        (1, 0, 0)
    );
}

#[test]
fn what_serves_a_value_alone_is_what_dead_code_elimination_would_remove() {
    let mut proto = residual();
    let graph = Graph::from_proto(proto.clone()).unwrap();
    let names = |graph: &Graph| -> Vec<String> {
        graph
            .exclusive_to(&[find(graph, "projected")])
            .iter()
            .map(|id| graph.node(*id).operator().to_owned())
            .collect()
    };
    assert_eq!(names(&graph), ["Relu", "MatMul", "MatMul"]);
    // Read elsewhere, the norm is not exclusive any more.
    proto.output.push(info("norm"));
    assert_eq!(names(&Graph::from_proto(proto).unwrap()), ["MatMul", "MatMul"]);
}

#[test]
fn a_fixed_input_becomes_a_constant() {
    let mut graph = Graph::from_proto(captured()).unwrap();
    let condition = find(&graph, "condition");
    assert!(graph.fix_input(condition, weight("anything")));
    assert!(!graph.fix_input(condition, weight("anything")));
    let proto = graph.into_proto().unwrap();
    assert_eq!(proto.input.len(), 1);
    assert_eq!(proto.initializer[0].name.as_deref(), Some("condition"));
}

#[test]
fn dominators_run_on_the_graph() {
    let graph = Graph::from_proto(residual()).unwrap();
    let of = |name: &str| graph.producer(find(&graph, name)).unwrap().0;
    let dominators = simple_fast(Reversed(&graph), of("y"));
    assert_eq!(dominators.immediate_dominator(of("norm")), Some(of("mixed")));
    assert_eq!(dominators.immediate_dominator(of("mixed")), Some(of("projected")));
}

proptest! {
    /// Random graphs under random edits: the recount holds, and what is written reads back equal.
    #[test]
    fn edits_keep_every_edge(
        wiring in prop::collection::vec((any::<u16>(), any::<u16>()), 1..40),
        edits in prop::collection::vec((0u8..4, any::<u16>(), any::<u16>()), 0..40),
    ) {
        let name = |index: usize| if index == 0 { "x".to_owned() } else { format!("v{index}") };
        let nodes = wiring.iter().enumerate().map(|(index, (a, b))| {
            let pick = |value: &u16| name(*value as usize % (index + 1));
            node("Add", &[&pick(a), &pick(b)], &[&name(index + 1)])
        });
        let proto = GraphProto {
            node: nodes.collect(),
            input: vec![info("x")],
            output: vec![info(&name(wiring.len()))],
            ..GraphProto::default()
        };
        let mut graph = Graph::from_proto(proto).unwrap();
        for (edit, a, b) in edits {
            let ids: Vec<NodeId> = graph.topological_order().unwrap();
            if ids.is_empty() {
                break;
            }
            let at = a as usize % ids.len();
            let before: Vec<ValueId> = ids[..at].iter().filter_map(|id| graph.node(*id).output(0)).collect();
            let x = find(&graph, "x");
            let earlier = *before.get(b as usize % (before.len() + 1)).unwrap_or(&x);
            let own = graph.node(ids[at]).output(0).unwrap();
            match edit {
                0 => graph.set_input(ids[at], b as usize % 2, earlier),
                1 => graph.replace_uses(own, earlier),
                2 => { graph.eliminate_dead_code(); }
                _ => {
                    graph.replace_uses(own, earlier);
                    graph.remove_node(ids[at]);
                }
            }
            check(&graph);
        }
        let written = graph.into_proto().unwrap();
        let again = Graph::from_proto(written.clone()).unwrap();
        prop_assert_eq!(again.into_proto().unwrap(), written);
    }
}
