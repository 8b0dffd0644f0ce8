//! Why a value cannot be seen where it is read: undefined, defined later, or on a cycle. Runs on errors only.

use std::collections::HashMap;

use super::Violation;
use crate::onnx::messages::NodeProto;

/// How a node is called in messages.
pub(super) fn node_label(index: usize, node: &NodeProto) -> String {
    let operator = node.op_type.as_deref().unwrap_or_default();
    match node.name.as_deref() {
        Some(name) if !name.is_empty() => format!("node {index} `{name}` ({operator})"),
        _ => format!("node {index} ({operator})"),
    }
}

/// Explains why `name` is not defined yet for the node at the innermost of `levels`.
pub(super) fn explain(name: &str, levels: &[(&[NodeProto], usize)]) -> Violation {
    for (nodes, index) in levels.iter().rev() {
        let made = |node: &NodeProto| node.output.iter().any(|output| output == name);
        let later = nodes.iter().enumerate().skip(*index).find(|(_, node)| made(node));
        if let Some((producer, node)) = later {
            let label = node_label(producer, node);
            let name = name.to_owned();
            return if needs(nodes, producer, *index) {
                Violation::Cycle { name, producer: label }
            } else {
                Violation::NotSorted { name, producer: label }
            };
        }
    }
    Violation::Undefined(name.to_owned())
}

/// Whether `node` needs outputs of `other`, directly or through others. Linear time.
fn needs(nodes: &[NodeProto], node: usize, other: usize) -> bool {
    let outputs = nodes
        .iter()
        .enumerate()
        .flat_map(|(index, node)| node.output.iter().map(move |name| (name, index)));
    let producers: HashMap<&String, usize> = outputs.filter(|(name, _)| !name.is_empty()).collect();
    let mut seen = vec![false; nodes.len()];
    let mut open = vec![node];
    while let Some(index) = open.pop() {
        if index == other {
            return true;
        }
        if seen.get_mut(index).is_none_or(|seen| std::mem::replace(seen, true)) {
            continue;
        }
        if let Some(node) = nodes.get(index) {
            each_read(node, &mut |name| open.extend(producers.get(name)));
        }
    }
    false
}

/// Shows every name that a node, or a graph within it, reads.
fn each_read(node: &NodeProto, visit: &mut impl FnMut(&String)) {
    node.input.iter().for_each(&mut *visit);
    for attribute in &node.attribute {
        for graph in attribute.g.as_deref().into_iter().chain(&attribute.graphs) {
            graph.node.iter().for_each(|node| each_read(node, visit));
        }
    }
}
