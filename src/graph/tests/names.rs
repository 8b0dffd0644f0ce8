//! Names: free again when what they named is gone, and refused when taken.

use super::*;

fn taken(result: Result<impl std::fmt::Debug, GraphError>) {
    let error = result.unwrap_err();
    assert!(
        matches!(&error, GraphError::NameTaken { name } if name == "w1"),
        "{error}"
    );
}

#[test]
fn edits_refuse_taken_names_and_change_nothing() {
    let mut graph = Graph::from_proto(residual()).unwrap();
    taken(graph.add_input(info("w1")));
    taken(graph.add_initializer(weight("w1")));
    let new = NewNode {
        operator: "Split".into(),
        inputs: vec![Some(find(&graph, "x"))],
        outputs: vec!["fresh".into(), "w1".into()],
        ..NewNode::default()
    };
    taken(graph.add_node(new));
    assert_eq!(graph.find("fresh"), None);
    check(&graph);
    assert_eq!(graph.into_proto().unwrap(), residual());
}

#[test]
fn names_of_dropped_initializers_are_free() {
    let mut graph = Graph::from_proto(residual()).unwrap();
    let (add, _) = graph.producer(find(&graph, "y")).unwrap();
    let x = find(&graph, "x");
    graph.set_input(add, 1, x);
    graph.eliminate_dead_code();
    assert_eq!(graph.find("w1"), None);
    assert_eq!(graph.initializers().len(), 0);
    let again = graph.add_initializer(weight("w1")).unwrap();
    assert_eq!(graph.find("w1"), Some(again));
    check(&graph);
}

#[test]
fn an_unused_input_goes_with_its_default() {
    let mut proto = residual();
    proto.input.extend([info("spare"), info("other")]);
    proto.initializer.push(weight("spare"));
    let mut graph = Graph::from_proto(proto).unwrap();
    graph.remove_unused_inputs(|name| name == "spare" || name == "x");
    check(&graph);
    assert_eq!(graph.find("spare"), None);
    let proto = graph.into_proto().unwrap();
    let mut expected = residual();
    expected.input.push(info("other"));
    assert_eq!(proto, expected);
}
