//! Scopes of nested graphs.

use super::{Violation, body, breaks, graph, node, nodes, validate, with};
use crate::onnx::messages::NodeProto;

#[test]
fn nested_graphs_see_what_is_defined_before_them() {
    let branch = |inner: Vec<NodeProto>| {
        with(
            node("If", &["x"], &["y"]),
            body("then_branch", graph(&[], inner, &["t"])),
        )
    };
    validate(&nodes(vec![branch(vec![node("Neg", &["x"], &["t"])])])).unwrap();
    // The names of one branch are free again in the other.
    let mut two = branch(vec![node("Neg", &["x"], &["t"])]);
    two.attribute.push(body(
        "else_branch",
        graph(&[], vec![node("Abs", &["x"], &["t"])], &["t"]),
    ));
    validate(&nodes(vec![two.clone(), node("Neg", &["x"], &["t"])])).unwrap();
    breaks!(
        nodes(vec![node("Neg", &["x"], &["t"]), two]),
        "graph `g`, node 1 (If), attribute `then_branch`, graph `g`, node 0 (Neg)",
        Violation::Shadows(_)
    );
    breaks!(
        nodes(vec![
            branch(vec![node("Neg", &["later"], &["t"])]),
            node("Neg", &["x"], &["later"])
        ]),
        "graph `g`, node 0 (If), attribute `then_branch`, graph `g`, node 0 (Neg)",
        Violation::NotSorted { .. }
    );
    breaks!(
        nodes(vec![branch(vec![node("Neg", &["y"], &["t"])])]),
        "graph `g`, node 0 (If), attribute `then_branch`, graph `g`, node 0 (Neg)",
        Violation::Cycle { .. }
    );
    // The cycle goes through a captured value.
    breaks!(
        nodes(vec![
            node("Abs", &["y"], &["a"]),
            branch(vec![node("Neg", &["a"], &["t"])])
        ]),
        "graph `g`, node 0 (Abs)",
        Violation::Cycle { .. }
    );
    let outer = with(
        node("If", &["x"], &["y"]),
        body("then_branch", graph(&[], vec![], &["x"])),
    );
    breaks!(
        nodes(vec![outer]),
        "graph `g`, node 0 (If), attribute `then_branch`, graph `g`",
        Violation::OutputUndefined(_)
    );
    let shadowing = with(
        node("Loop", &["x"], &["y"]),
        body("body", graph(&["x"], vec![], &["x"])),
    );
    breaks!(
        nodes(vec![shadowing]),
        "graph `g`, node 0 (Loop), attribute `body`, graph `g`",
        Violation::Shadows(_)
    );
    let mut deep = graph(&[], vec![node("Neg", &["x"], &["t"])], &["t"]);
    for level in 0..70 {
        let name = format!("t{level}");
        deep = graph(
            &[],
            vec![with(node("If", &["x"], &[&name]), body("then_branch", deep))],
            &[&name],
        );
    }
    let error = validate(&nodes(vec![with(
        node("If", &["x"], &["y"]),
        body("then_branch", deep),
    )]))
    .unwrap_err();
    assert!(matches!(error.violation, Violation::TooDeep(64)), "{error}");
}
