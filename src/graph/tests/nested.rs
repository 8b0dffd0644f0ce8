//! Nested graphs: moving nodes in and out, and captures under edits outside.

use super::*;
use crate::onnx::messages::SparseTensorProto;
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

/// An attribute that holds a graph of these nodes with one output.
fn body(attribute: &str, node: Vec<NodeProto>, output: &str) -> AttributeProto {
    let graph = GraphProto {
        name: Some(attribute.into()),
        node,
        output: vec![info(output)],
        ..GraphProto::default()
    };
    AttributeProto {
        g: Some(Box::new(graph)),
        ..branch(attribute, "")
    }
}

/// An `If` whose one branch holds another `If`; both read `reads` from outside.
fn deep(name: &str, reads: &[&str]) -> NodeProto {
    let [outer, middle, inner] = ["", ".middle", ".inner"].map(|level| format!("{name}{level}"));
    let mut second = node("If", &["condition"], &[&middle]);
    second.attribute = vec![body("then_branch", vec![node("Sum", reads, &[&inner])], &inner)];
    let last = format!("{name}.last");
    let joined = node("Sum", &[reads[0], &middle], &[&last]);
    let mut first = node("If", &["condition"], &[&outer]);
    first.attribute = vec![body("then_branch", vec![second, joined], &last)];
    first
}

fn holds(name: &str, reads: &[&str]) -> GraphProto {
    GraphProto {
        name: Some("g".into()),
        node: vec![
            node("Relu", &["x"], &["a"]),
            node("Neg", &["x"], &["b"]),
            deep(name, reads),
        ],
        input: vec![info("x"), info("condition")],
        output: vec![info(name)],
        ..GraphProto::default()
    }
}

/// A number for what each output of the graph computes: equal for equal computations.
fn meaning(graph: &Graph, outer: &HashMap<ValueId, u64>) -> Vec<u64> {
    let number = |parts: &dyn Fn(&mut DefaultHasher)| {
        let mut hasher = DefaultHasher::new();
        parts(&mut hasher);
        hasher.finish()
    };
    let mut known: HashMap<ValueId, u64> = HashMap::new();
    for (id, value) in graph.values() {
        match value.origin() {
            Origin::Outer(outside) => drop(outer.get(&outside).map(|meaning| known.insert(id, *meaning))),
            Origin::Node { .. } => {}
            _ => drop(known.insert(id, number(&|hasher| value.name().hash(hasher)))),
        }
    }
    for id in graph.topological_order().unwrap() {
        let node = graph.node(id);
        let read: Vec<u64> = node.inputs().flatten().map(|value| known[&value]).collect();
        let inside: Vec<_> = node.bodies().iter().map(|body| meaning(body.graph(), &known)).collect();
        for (slot, output) in node.outputs().iter().enumerate() {
            let all = number(&|hasher| (node.operator(), &read, &inside, slot).hash(hasher));
            known.insert(output.unwrap(), all);
        }
    }
    graph.outputs().map(|value| known[&value]).collect()
}

/// The graph is sound, and what is written means the same when it is read again.
fn written(graph: Graph) -> GraphProto {
    check(&graph);
    let means = meaning(&graph, &HashMap::new());
    let proto = graph.into_proto().unwrap();
    let again = Graph::from_proto(proto.clone()).unwrap();
    check(&again);
    assert_eq!(meaning(&again, &HashMap::new()), means);
    assert_eq!(again.into_proto().unwrap(), proto);
    proto
}

#[test]
fn a_module_moves_into_an_if() {
    let mut graph = Graph::from_proto(residual()).unwrap();
    let projected = find(&graph, "projected");
    let nodes = graph.exclusive_to(&[projected]);
    let place = graph.position(*nodes.last().unwrap());
    let condition = graph.add_input(info("flag")).unwrap();
    let cache = graph.add_input(info("cache")).unwrap();
    let compute = graph.extract(&nodes, &[(projected, info(""))], "compute").unwrap();
    assert_eq!(compute.captured().count(), 3, "x and two weights");
    let mut reuse = graph.nested("reuse");
    let read = reuse.capture(cache, "cache");
    let same = NewNode {
        operator: "Identity".into(),
        inputs: vec![Some(read)],
        outputs: vec!["kept".into()],
        ..NewNode::default()
    };
    let id = reuse.add_node(same).unwrap();
    let kept = reuse.node(id).output(0).unwrap();
    reuse.add_output(kept, info(""));
    let choice = graph
        .add_node(NewNode {
            operator: "If".into(),
            inputs: vec![Some(condition)],
            outputs: vec!["next".into()],
            bodies: vec![("then_branch".into(), reuse), ("else_branch".into(), compute)],
            after: Some(place),
            ..NewNode::default()
        })
        .unwrap();
    let next = graph.node(choice).output(0).unwrap();
    graph.replace_uses(projected, next);
    graph.eliminate_dead_code();
    check(&graph);
    assert_eq!(operators(&graph), ["If", "Add"]);
    let proto = graph.into_proto().unwrap();
    assert_eq!(proto.initializer.len(), 2, "weights stay outside");
    assert!(proto.value_info.is_empty(), "types went along");
    let inner = proto.node[0].attribute[1].g.as_ref().unwrap();
    assert_eq!(inner.node.len(), 3);
    assert_eq!(inner.value_info.len(), 3);
    assert_eq!(inner.output[0].name.as_deref(), Some("projected"));
    // And the result reads back.
    check(&Graph::from_proto(proto).unwrap());
}

#[test]
fn a_module_with_a_use_outside_is_not_moved() {
    let mut graph = Graph::from_proto(residual()).unwrap();
    let (relu, _) = graph.producer(find(&graph, "norm")).unwrap();
    let error = graph.extract(&[relu], &[], "compute").unwrap_err();
    assert!(
        matches!(&error, GraphError::UsedOutside { value, .. } if value == "norm"),
        "{error}"
    );
    check(&graph);
}

#[test]
fn nodes_with_branches_move_and_their_captures_follow() {
    let mut graph = Graph::from_proto(captured()).unwrap();
    let y = find(&graph, "y");
    let (choice, _) = graph.producer(y).unwrap();
    let inner = graph.extract(&[choice], &[(y, info(""))], "outer").unwrap();
    check(&inner);
    let mut names: Vec<_> = inner
        .captured()
        .map(|value| graph.value(value).name().to_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["a", "condition", "x"]);
}

#[test]
fn captures_follow_a_replaced_value() {
    let mut graph = Graph::from_proto(captured()).unwrap();
    let (a, x) = (find(&graph, "a"), find(&graph, "x"));
    graph.replace_uses(a, x);
    graph.eliminate_dead_code();
    let proto = graph.into_proto().unwrap();
    assert_eq!(proto.node.len(), 1);
    assert_eq!(proto.node[0].attribute[0].g.as_ref().unwrap().node[0].input, ["x"]);
}

#[test]
fn a_capture_that_is_replaced_by_another_joins_it() {
    let mut proto = holds("y", &["a", "b"]);
    // The types of captured values may be declared inside; the one that is gone goes with its type.
    let inner = proto.node[2].attribute[0].g.as_mut().unwrap();
    inner.value_info = vec![info("a"), info("b")];
    let mut graph = Graph::from_proto(proto).unwrap();
    let (a, b) = (find(&graph, "a"), find(&graph, "b"));
    graph.replace_uses(a, b);
    let (choice, _) = graph.producer(find(&graph, "y")).unwrap();
    let body = graph.node(choice).body("then_branch").unwrap();
    let mut captured: Vec<_> = body.captured().map(|value| graph.value(value).name()).collect();
    captured.sort_unstable();
    assert_eq!(captured, ["b", "condition"]);
    graph.eliminate_dead_code();
    let proto = written(graph);
    assert_eq!(proto.node.len(), 2);
    let inner = proto.node[1].attribute[0].g.as_ref().unwrap();
    assert_eq!(inner.value_info, [info("b")]);
    assert_eq!(inner.node[1].input, ["b", "y.middle"]);
    let innermost = inner.node[0].attribute[0].g.as_ref().unwrap();
    assert_eq!(innermost.node[0].input, ["b", "b"]);
}

#[test]
fn a_name_that_a_nested_graph_uses_itself_gives_way() {
    let mut graph = Graph::from_proto(holds("y", &["a"])).unwrap();
    let x = find(&graph, "x");
    // The name is free out here, and taken inside.
    let new = NewNode {
        operator: "Abs".into(),
        inputs: vec![Some(x)],
        outputs: vec!["y.middle".into()],
        ..NewNode::default()
    };
    let id = graph.add_node(new).unwrap();
    let (a, middle) = (find(&graph, "a"), graph.node(id).output(0).unwrap());
    graph.replace_uses(a, middle);
    let proto = written(graph);
    let choice = proto.node.iter().find(|node| node.output == ["y"]).unwrap();
    let inner = choice.attribute[0].g.as_ref().unwrap();
    assert_eq!(inner.node[0].output, ["y.middle.1"]);
    assert_eq!(inner.node[1].input, ["y.middle", "y.middle.1"]);
}

#[test]
fn many_captures_are_each_recorded_once() {
    let names: Vec<String> = (0..20_000).map(|index| format!("w{index}")).collect();
    let mut reads: Vec<&str> = names.iter().map(String::as_str).collect();
    reads.extend(["w0", "w1"]);
    let mut proto = holds("y", &reads);
    proto.initializer = names.iter().map(|name| weight(name)).collect();
    let mut graph = Graph::from_proto(proto).unwrap();
    let y = find(&graph, "y");
    let (choice, node) = graph.producer(y).unwrap();
    assert_eq!(node.captures().len(), 20_001);
    // And again by an edit.
    let inner = graph.extract(&[choice], &[(y, info(""))], "inner").unwrap();
    let new = NewNode {
        operator: "If".into(),
        outputs: vec!["again".into()],
        bodies: vec![("then_branch".into(), inner.clone()), ("else_branch".into(), inner)],
        ..NewNode::default()
    };
    let again = graph.add_node(new).unwrap();
    assert_eq!(graph.node(again).captures().len(), 20_001);
    let next = graph.node(again).output(0).unwrap();
    graph.replace_uses(y, next);
    check(&graph);
}

#[test]
fn a_branch_takes_the_place_of_its_node_with_all_constants() {
    let mut proto = holds("y", &["a", "dense", "sparse"]);
    let inner = proto.node[2].attribute[0].g.as_mut().unwrap();
    let sparse = SparseTensorProto {
        values: Some(weight("sparse")),
        dims: vec![1],
        ..SparseTensorProto::default()
    };
    inner.initializer = vec![weight("dense")];
    inner.sparse_initializer = vec![sparse.clone()];
    // Deeper down the branch's output is read too: it has the node's name afterwards.
    inner.node.swap(0, 1);
    let mut reader = node("If", &["condition"], &["y.reader"]);
    reader.attribute = vec![body("then_branch", vec![node("Neg", &["y.last"], &["y.neg"])], "y.neg")];
    inner.node.push(reader);
    inner.output.push(info("y.reader"));
    proto.node[2].output.push("z".into());
    proto.output.push(info("z"));
    let mut graph = Graph::from_proto(proto).unwrap();
    let (choice, _) = graph.producer(find(&graph, "y")).unwrap();
    graph.inline_body(choice, "then_branch").unwrap();
    let proto = written(graph.clone());
    assert_eq!(proto.initializer, [weight("dense")]);
    assert_eq!(proto.sparse_initializer, [sparse]);
    let reader = proto.node.iter().find(|node| node.output == ["z"]).unwrap();
    assert_eq!(reader.attribute[0].g.as_ref().unwrap().node[0].input, ["y"]);
    // The node is gone: nothing is left to do.
    graph.inline_body(choice, "then_branch").unwrap();
    assert_eq!(graph.into_proto().unwrap(), proto);
}

proptest! {
    /// Random edits around nested graphs: edges and names stay sound, and what is written means what was meant.
    #[test]
    fn captures_survive_random_edits(
        wiring in prop::collection::vec((any::<bool>(), any::<u16>(), any::<u16>()), 1..16),
        edits in prop::collection::vec((0u8..6, any::<u16>(), any::<u16>()), 0..16),
    ) {
        let name = |index: usize| if index == 0 { "x".to_owned() } else { format!("v{index}") };
        let nodes = wiring.iter().enumerate().map(|(index, (nested, a, b))| {
            let pick = |value: &u16| name(*value as usize % (index + 1));
            let (a, b, own) = (pick(a), pick(b), name(index + 1));
            if *nested { deep(&own, &[&a, &b]) } else { node("Add", &[&a, &b], &[&own]) }
        });
        let proto = GraphProto {
            node: nodes.collect(),
            input: vec![info("x"), info("condition")],
            output: vec![info(&name(wiring.len()))],
            ..GraphProto::default()
        };
        let mut graph = Graph::from_proto(proto).unwrap();
        for (number, (edit, a, b)) in edits.into_iter().enumerate() {
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
                0 => graph.set_input(ids[at], 0, earlier),
                1 | 2 => graph.replace_uses(own, earlier),
                3 => { graph.eliminate_dead_code(); }
                4 => graph.inline_body(ids[at], "then_branch").unwrap(),
                _ => {
                    let nodes = graph.exclusive_to(&[own]);
                    let after = nodes.last().map(|node| graph.position(*node));
                    let inner = graph.extract(&nodes, &[(own, info(""))], "moved").unwrap();
                    let new = NewNode {
                        operator: "If".into(),
                        inputs: vec![Some(find(&graph, "condition"))],
                        outputs: vec![format!("if{number}")],
                        bodies: vec![("then_branch".into(), inner)],
                        after,
                        ..NewNode::default()
                    };
                    let id = graph.add_node(new).unwrap();
                    let next = graph.node(id).output(0).unwrap();
                    graph.replace_uses(own, next);
                }
            }
            written(graph.clone());
        }
    }
}

#[test]
fn types_come_along_when_a_branch_is_inlined() {
    let proto = residual();
    let mut graph = Graph::from_proto(proto.clone()).unwrap();
    let projected = find(&graph, "projected");
    let nodes = graph.exclusive_to(&[projected]);
    let condition = graph.add_input(info("flag")).unwrap();
    let compute = graph.extract(&nodes, &[(projected, info(""))], "compute").unwrap();
    let choice = graph
        .add_node(NewNode {
            operator: "If".into(),
            inputs: vec![Some(condition)],
            outputs: vec!["next".into()],
            bodies: vec![("else_branch".into(), compute)],
            ..NewNode::default()
        })
        .unwrap();
    let next = graph.node(choice).output(0).unwrap();
    graph.replace_uses(projected, next);
    graph.inline_body(choice, "else_branch").unwrap();
    graph.eliminate_dead_code();
    let written = graph.into_proto().unwrap();
    let named = |graph: &GraphProto| {
        let mut names: Vec<_> = graph.value_info.iter().map(|info| info.name.clone().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(named(&written), ["mixed", "next", "norm"]);
    assert_eq!(named(&proto), ["mixed", "norm", "projected"]);
}
