//! The editable graph: values, nodes, nested graphs, users, topological order, dead-code elimination, extraction.
//!
//! A [`Graph`] is one ONNX graph, at the top level or in an attribute of a node (`If`, `Loop`, `Scan`). Values and
//! nodes live in arenas and are named by [`ValueId`] and [`NodeId`], which stay valid until the thing itself is
//! removed. Every value knows its producer and its users, and every input slot knows where it stands in the list of
//! users, so all edits of one edge take constant time, also at initializers with many thousand users; where the edge is
//! a capture, each nested graph that it leads through adds its own uses of the value ([`Graph::replace_uses`]). The algorithms of `petgraph` (dominators, traversals) run on `&Graph` through the traits implemented in `visit.rs`.
//!
//! What is not understood is kept: attributes, metadata, annotations and the order of everything survive a round
//! trip, and [`Graph::into_proto`] of an untouched graph equals the message that it came from.

mod decode;
mod edit;
mod encode;
mod error;
mod extract;
mod flatten;
mod inline;
mod model;
mod nested;
mod node;
mod order;
#[cfg(test)]
mod tests;
mod value;
mod visit;

pub use edit::{NewNode, Position};
pub use error::GraphError;
pub use flatten::{Flattened, flatten};
pub use model::ModelGraph;
pub use node::{Body, Node};
pub use value::{Origin, Slot, Use, Value};

use crate::onnx::messages::{TensorProto, TensorType, TypeProto, ValueInfoProto};
use node::Edge;
use std::collections::HashMap;
use value::InfoPlace;

/// Names a value of one [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(u32);

/// Names a node of one [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct NodeId(u32);

impl ValueId {
    /// Position in tables that hold one entry a value; below [`Graph::value_bound`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl NodeId {
    /// Position in tables that hold one entry a node; below [`Graph::node_bound`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One ONNX graph. See the [module](self).
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Name, documentation, annotations and metadata; all lists that are held elsewhere are empty.
    header: crate::onnx::messages::GraphProto,
    nodes: Vec<Option<Node>>,
    values: Vec<Value>,
    names: HashMap<String, ValueId>,
    inputs: Vec<(ValueId, ValueInfoProto)>,
    outputs: Vec<(ValueId, ValueInfoProto)>,
    infos: Vec<(ValueId, ValueInfoProto)>,
    initializers: Vec<ValueId>,
    sparse_initializers: Vec<ValueId>,
    live_nodes: usize,
}

impl Graph {
    /// The graph's name.
    pub fn name(&self) -> &str {
        self.header.name.as_deref().unwrap_or_default()
    }

    /// Number of nodes, nested graphs not counted.
    pub fn node_count(&self) -> usize {
        self.live_nodes
    }

    /// Above every [`NodeId::index`] of this graph.
    pub fn node_bound(&self) -> usize {
        self.nodes.len()
    }

    /// Above every [`ValueId::index`] of this graph.
    pub fn value_bound(&self) -> usize {
        self.values.len()
    }

    /// Every node, in the order in which they were added (in a file: the order of the file).
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> + '_ {
        self.nodes
            .iter()
            .enumerate()
            .filter_map(|(index, node)| Some((NodeId(index as u32), node.as_ref()?)))
    }

    /// Every value, those that nobody uses included.
    pub fn values(&self) -> impl Iterator<Item = (ValueId, &Value)> + '_ {
        self.values
            .iter()
            .enumerate()
            .map(|(index, value)| (ValueId(index as u32), value))
    }

    /// A node of this graph.
    ///
    /// # Panics
    /// If the node was removed or belongs to another graph: a bug of the caller, never of the input.
    #[allow(clippy::expect_used)]
    pub fn node(&self, node: NodeId) -> &Node {
        self.nodes[node.index()].as_ref().expect("the node was removed")
    }

    /// Whether the node is still there.
    pub fn contains(&self, node: NodeId) -> bool {
        self.nodes.get(node.index()).is_some_and(Option::is_some)
    }

    #[allow(clippy::expect_used)]
    fn node_mut(&mut self, node: NodeId) -> &mut Node {
        self.nodes[node.index()].as_mut().expect("the node was removed")
    }

    /// A value of this graph.
    pub fn value(&self, value: ValueId) -> &Value {
        &self.values[value.index()]
    }

    /// The value named `name`.
    pub fn find(&self, name: &str) -> Option<ValueId> {
        self.names.get(name).copied()
    }

    /// The graph's inputs, in order. Initializers that old files list as inputs are among them.
    pub fn inputs(&self) -> impl ExactSizeIterator<Item = ValueId> + '_ {
        self.inputs.iter().map(|(value, _)| *value)
    }

    /// The graph's outputs, in order.
    pub fn outputs(&self) -> impl ExactSizeIterator<Item = ValueId> + '_ {
        self.outputs.iter().map(|(value, _)| *value)
    }

    /// The graph's stored constants, in order.
    pub fn initializers(&self) -> impl ExactSizeIterator<Item = ValueId> + '_ {
        self.initializers.iter().copied()
    }

    /// The node that produces `value`, if a node of this graph does.
    pub fn producer(&self, value: ValueId) -> Option<(NodeId, &Node)> {
        match self.value(value).origin {
            Origin::Node { node, .. } => Some((node, self.node(node))),
            _ => None,
        }
    }

    /// The constant behind `value`: an initializer that no input can override, or the tensor of a `Constant` node.
    pub fn constant(&self, value: ValueId) -> Option<&TensorProto> {
        match self.value(value).origin {
            Origin::Initializer => self.value(value).initializer(),
            Origin::Node { node, slot: 0 } if self.node(node).is("Constant") => self
                .node(node)
                .attribute("value")
                .and_then(|attribute| attribute.t.as_ref()),
            _ => None,
        }
    }

    /// The declared type of `value`: of an input, an output, or from `value_info`.
    pub fn value_type(&self, value: ValueId) -> Option<&TypeProto> {
        let info = match self.value(value).info? {
            InfoPlace::Input(index) => &self.inputs.get(index)?.1,
            InfoPlace::Output(index) => &self.outputs.get(index)?.1,
            InfoPlace::Info(index) => &self.infos.get(index)?.1,
        };
        info.r#type.as_ref()
    }

    /// The declared element type and shape of `value`, where it is a dense tensor.
    pub fn tensor_type(&self, value: ValueId) -> Option<&TensorType> {
        self.value_type(value)?.tensor_type.as_ref()
    }
}
