//! Shape arithmetic: the small integer nodes that exporters write to compute sizes for Reshape, Expand and Slice.

use super::Choice;
use crate::graph::{Graph, NodeId, ValueId};
use crate::onnx::messages::{DataType, TensorProto};
use prost::Message;
use std::collections::{HashMap, HashSet};

/// Operators that compute sizes from sizes.
const OPERATORS: [&str; 17] = [
    "Add",
    "Cast",
    "Concat",
    "Constant",
    "Div",
    "Equal",
    "Gather",
    "Identity",
    "Max",
    "Min",
    "Mul",
    "ReduceProd",
    "Slice",
    "Squeeze",
    "Sub",
    "Unsqueeze",
    "Where",
];
/// The most elements of a tensor of sizes: no tensor has more dimensions than a few times this.
const MOST_ELEMENTS: i64 = 16;

/// What of the modules' nodes need not stand in branches.
pub(super) struct ShapeArithmetic(HashSet<NodeId>);

impl ShapeArithmetic {
    /// Looks at the graph, and lets the modules of `choices` share their equal constants.
    ///
    /// ONNX Runtime merges nodes that compute the same from the same values, also in a branch, but not across branches.
    /// So sizes are computed outside, and equal constants are one value: to ONNX Runtime they are in the graph where they
    /// stand, but not where branches read them from the graph around.
    pub fn prepare(graph: &mut Graph, choices: &[Choice<'_>]) -> Self {
        let mut constants = HashMap::new();
        for choice in choices {
            let nodes = graph.exclusive_to(&choice.cuts.values());
            share_constants(graph, &nodes, &mut constants);
        }
        Self(shape_arithmetic(graph))
    }

    /// Those of a module's `nodes`, which are in topological order, that have to stand in its branch.
    pub fn inside(&self, graph: &Graph, nodes: Vec<NodeId>) -> Vec<NodeId> {
        let outside = independent(graph, &nodes, &self.0);
        nodes.into_iter().filter(|node| !outside.contains(node)).collect()
    }
}

/// The nodes of a graph that compute sizes: `Shape` and `Size` of anything, and what is computed from their results and
/// from small integers alone. They take next to no time, whatever the size of the model's tensors.
fn shape_arithmetic(graph: &Graph) -> HashSet<NodeId> {
    let mut found = HashSet::new();
    let mut pending: Vec<NodeId> = graph
        .nodes()
        .filter(|(_, node)| node.is("Shape") || node.is("Size"))
        .map(|(id, _)| id)
        .collect();
    while let Some(id) = pending.pop() {
        if found.insert(id) {
            pending.extend(graph.users(id).filter(|user| computes_sizes(graph, &found, *user)));
        }
    }
    found
}

/// Those of `nodes`, which are in topological order, that can stand outside of a branch that holds the others: shape
/// arithmetic that reads nothing of what stands inside.
fn independent(graph: &Graph, nodes: &[NodeId], arithmetic: &HashSet<NodeId>) -> HashSet<NodeId> {
    let is_constant = |id: NodeId| graph.node(id).is("Constant");
    let mut inside: HashSet<ValueId> = HashSet::new();
    let mut outside = HashSet::new();
    for id in nodes.iter().filter(|id| !is_constant(**id)) {
        let node = graph.node(*id);
        if arithmetic.contains(id) && node.reads().all(|read| !inside.contains(&read)) {
            outside.insert(*id);
        } else {
            inside.extend(node.outputs().iter().flatten());
        }
    }
    // A constant goes where it is read.
    for id in nodes.iter().filter(|id| is_constant(**id)) {
        if graph.users(*id).any(|user| outside.contains(&user)) {
            outside.insert(*id);
        }
    }
    outside
}

/// Lets nodes that read equal small integers read the same ones, those of the nodes before.
fn share_constants(graph: &mut Graph, nodes: &[NodeId], constants: &mut HashMap<Vec<u8>, ValueId>) {
    for id in nodes {
        let inputs = graph.node(*id).inputs().enumerate();
        let reads: Vec<(usize, ValueId)> = inputs.filter_map(|(slot, value)| Some((slot, value?))).collect();
        for (slot, value) in reads {
            if !is_small_integer(graph, value) {
                continue;
            }
            let Some(tensor) = graph.constant(value) else { continue };
            let unnamed = TensorProto {
                name: None,
                doc_string: None,
                ..tensor.clone()
            };
            let shared = *constants.entry(unnamed.encode_to_vec()).or_insert(value);
            if shared != value {
                graph.set_input(*id, slot, shared);
            }
        }
    }
}

/// Whether a node computes sizes, given those that are known to.
fn computes_sizes(graph: &Graph, found: &HashSet<NodeId>, id: NodeId) -> bool {
    let node = graph.node(id);
    let is_size = |value: ValueId| {
        let computed = graph
            .producer(value)
            .is_some_and(|(producer, _)| found.contains(&producer));
        computed || is_small_integer(graph, value)
    };
    node.domain().is_empty()
        && OPERATORS.contains(&node.operator())
        && node.bodies().is_empty()
        && node.reads().all(is_size)
}

fn is_small_integer(graph: &Graph, value: ValueId) -> bool {
    graph.constant(value).is_some_and(|tensor| {
        let integer = [DataType::Int64 as i32, DataType::Int32 as i32, DataType::Bool as i32];
        let elements = tensor
            .dims
            .iter()
            .try_fold(1_i64, |product, dim| product.checked_mul(*dim));
        tensor
            .data_type
            .is_some_and(|element_type| integer.contains(&element_type))
            && elements.is_some_and(|elements| elements <= MOST_ELEMENTS)
    })
}
