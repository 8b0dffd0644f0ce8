//! Numbers of the data that are computed from sizes: computed once for all that compute the same.
//!
//! TorchScript takes the scale of an attention from the `Shape` of its queries, in some six small nodes at each site. As
//! a stored number it would be fused with the product of queries and keys, and round differently. So it stays computed,
//! by the same operators, but from one tensor that holds the size, and the nodes that follow are merged.

use super::Written;
use crate::axes::Axes;
use crate::graph::{Graph, GraphError, Node, NodeId, ValueId};
use crate::onnx::messages::{DataType, TensorProto};
use prost::Message;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Operators that compute a scale from a size, each element by itself.
const OPERATORS: [&str; 9] = ["Add", "Cast", "Div", "Mul", "Neg", "Pow", "Reciprocal", "Sqrt", "Sub"];
/// More nodes than this between a `Shape` and what is cast come from no exporter.
const MOST_NODES: usize = 16;

/// A number as exporters make it from a size: the number, and whether it is a list of one.
type Number = (i64, bool);

/// The casts of known sizes to numbers of the data that ONNX Runtime cannot compute ahead.
pub(super) fn find(graph: &Graph, axes: &Axes) -> Vec<(NodeId, Number)> {
    let casts = graph.nodes().filter(|(_, node)| node.is("Cast"));
    let known = casts.filter_map(|(id, node)| Some((id, number(graph, axes, node)?)));
    known.collect()
}

/// Lets the `casts` of the same number read the same tensor, and merges the nodes that compute the same from them.
///
/// Returns how many inputs of nodes were replaced.
pub(super) fn share(written: &mut Written<'_>, casts: &[(NodeId, Number)]) -> Result<usize, GraphError> {
    let mut numbers = BTreeMap::new();
    for (cast, number) in casts {
        let value = match numbers.get(number) {
            Some(value) => *value,
            None => {
                let Some(value) = written.computed(number.0, number.1)? else {
                    return Ok(0);
                };
                numbers.insert(*number, value);
                value
            }
        };
        written.build.graph.set_input(*cast, 0, value);
    }
    merge(written.build.graph, numbers.into_values().collect());
    Ok(casts.len())
}

/// The number that a node casts to a type of the data, if it is known and computed at each step.
fn number(graph: &Graph, axes: &Axes, node: &Node) -> Option<Number> {
    let floating = [DataType::Float, DataType::Float16, DataType::Bfloat16, DataType::Double];
    let to = node.int("to", 0);
    let value = node.input(0)?;
    let integers = axes.integers(value)?;
    let [Some(size)] = integers.elements() else { return None };
    let wanted = floating.iter().any(|element| *element as i64 == to)
        && axes.element_type(value) == Some(DataType::Int64)
        && integers.dims().len() <= 1
        && is_open(graph, axes, value);
    wanted.then_some((size.as_number()?, integers.dims().len() == 1))
}

/// Whether `value` comes from the `Shape` of a tensor with an open size, which ONNX Runtime computes at each step.
///
/// A `Shape` of some dimensions only is folded where these are fixed.
fn is_open(graph: &Graph, axes: &Axes, value: ValueId) -> bool {
    let mut pending = vec![value];
    let mut seen = HashSet::new();
    while let Some(value) = pending.pop() {
        let Some((id, node)) = graph.producer(value) else {
            continue;
        };
        if !seen.insert(id) || seen.len() > MOST_NODES {
            continue;
        }
        if !node.is("Shape") {
            pending.extend(node.reads());
            continue;
        }
        let whole = node.attribute("start").is_none() && node.attribute("end").is_none();
        let sizes = node.input(0).and_then(|shaped| axes.sizes(shaped)).unwrap_or_default();
        if whole && sizes.iter().any(|size| size.as_number().is_none()) {
            return true;
        }
    }
    false
}

/// Merges the nodes that compute the same from `values`, and from what they give, and small constants.
fn merge(graph: &mut Graph, mut values: Vec<ValueId>) {
    let mut shared: HashSet<ValueId> = values.iter().copied().collect();
    let mut first: HashMap<Computation, ValueId> = HashMap::new();
    while let Some(value) = values.pop() {
        let users: Vec<NodeId> = graph.value(value).uses().iter().map(|usage| usage.node).collect();
        for user in users {
            if !graph.contains(user) {
                continue;
            }
            let Some((computation, output)) = computation(graph, &shared, user) else {
                continue;
            };
            match first.get(&computation) {
                Some(same) if *same != output => graph.replace_uses(output, *same),
                Some(_) => {}
                None => {
                    first.insert(computation, output);
                    shared.insert(output);
                    values.push(output);
                }
            }
        }
    }
}

/// What a node computes: operator and attributes, and what it reads.
type Computation = (Vec<u8>, Vec<Read>);

#[derive(PartialEq, Eq, Hash)]
enum Read {
    Value(ValueId),
    Constant(Vec<u8>),
}

/// What a node computes from `shared` values and small constants, and its output.
fn computation(graph: &Graph, shared: &HashSet<ValueId>, id: NodeId) -> Option<(Computation, ValueId)> {
    let node = graph.node(id);
    let [Some(output)] = node.outputs() else { return None };
    if !node.domain().is_empty() || !OPERATORS.contains(&node.operator()) || graph.value(*output).is_output() {
        return None;
    }
    let read = |value: Option<ValueId>| match value {
        Some(value) if shared.contains(&value) => Some(Read::Value(value)),
        Some(value) => scalar(graph, value).map(Read::Constant),
        None => None,
    };
    let reads: Vec<Read> = node.inputs().map(read).collect::<Option<_>>()?;
    let mut operation = node.operator().as_bytes().to_vec();
    for attribute in node.attributes() {
        operation.extend(attribute.encode_length_delimited_to_vec());
    }
    Some(((operation, reads), *output))
}

/// What a constant of one element holds, without its name.
fn scalar(graph: &Graph, value: ValueId) -> Option<Vec<u8>> {
    let tensor = graph.constant(value)?;
    let unnamed = TensorProto {
        name: None,
        doc_string: None,
        ..tensor.clone()
    };
    tensor.dims.iter().all(|dim| *dim == 1).then(|| unnamed.encode_to_vec())
}
