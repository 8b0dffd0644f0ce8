//! The editable graph: values, nodes, nested graphs, users, topological order, dead-code elimination, extraction.
//!
//! A [`Graph`] is one ONNX graph, at the top level or in an attribute of a node (`If`, `Loop`, `Scan`). Values and
//! nodes live in arenas and are named by [`ValueId`] and [`NodeId`], which stay valid until the thing itself is
//! removed. Every value knows its producer and its users, and every input slot knows where it stands in the list of
//! users, so all edits of one edge take constant time, also at initializers with many thousand users. The
//! algorithms of `petgraph` (dominators, traversals) run on `&Graph` through the traits implemented in `visit.rs`.
//!
//! What is not understood is kept: attributes, metadata, annotations and the order of everything survive a round
//! trip, and [`Graph::into_proto`] of an untouched graph equals the message that it came from.

mod decode;
mod edit;
mod encode;
mod error;
mod extract;
mod inline;
mod model;
mod order;
#[cfg(test)]
mod tests;
mod visit;

pub use edit::{NewNode, Position};
pub use error::GraphError;
pub use model::ModelGraph;

use crate::onnx::messages::{
    AttributeProto, NodeProto, SparseTensorProto, TensorProto, TensorType, TypeProto, ValueInfoProto,
};
use std::collections::HashMap;

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

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Given by the caller of the graph. May have an initializer as its default (IR version 3).
    Input,
    /// A constant that is stored with the graph.
    Initializer,
    /// Output number `slot` of `node`.
    Node {
        /// The producer.
        node: NodeId,
        /// Which of its outputs.
        slot: usize,
    },
    /// A value of the graph around this one, captured by name.
    Outer(ValueId),
    /// Named in the file (in `value_info`) or left behind by an edit, but produced by nothing.
    Nothing,
}

/// One place where a value is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Use {
    /// The reader.
    pub node: NodeId,
    /// Which of its inputs.
    pub slot: Slot,
}

/// A place of a node that reads a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// A listed input.
    Input(usize),
    /// Captured by one of the node's nested graphs.
    Capture(usize),
}

/// A value and everything that is known of it.
#[derive(Clone, Debug)]
pub struct Value {
    name: String,
    origin: Origin,
    uses: Vec<Use>,
    outputs: u32,
    initializer: Option<Box<TensorProto>>,
    sparse: Option<Box<SparseTensorProto>>,
    info: Option<InfoPlace>,
}

impl Value {
    /// Its name, unique in the graph.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it comes from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Everybody who reads it, in no particular order. Graph outputs are not counted: see [`Value::is_output`].
    pub fn uses(&self) -> &[Use] {
        &self.uses
    }

    /// Whether it is an output of the graph.
    pub fn is_output(&self) -> bool {
        self.outputs > 0
    }

    /// Whether nobody reads it and it is no output.
    pub fn is_unused(&self) -> bool {
        self.uses.is_empty() && self.outputs == 0
    }

    /// The stored constant, if it has one.
    pub fn initializer(&self) -> Option<&TensorProto> {
        self.initializer.as_deref()
    }
}

/// Which list of the graph holds a value's type.
#[derive(Clone, Copy, Debug)]
enum InfoPlace {
    Input(usize),
    Output(usize),
    Info(usize),
}

/// An input slot: the value, and where this slot stands in the value's list of users.
#[derive(Clone, Copy, Debug)]
struct Edge {
    value: ValueId,
    place: usize,
}

/// A graph held by an attribute of a node.
#[derive(Clone, Debug)]
pub struct Body {
    attribute: usize,
    element: Option<usize>,
    graph: Graph,
}

impl Body {
    /// The nested graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }
}

/// One operator call.
#[derive(Clone, Debug)]
pub struct Node {
    /// Everything but inputs, outputs and nested graphs.
    proto: NodeProto,
    inputs: Vec<Option<Edge>>,
    outputs: Vec<Option<ValueId>>,
    captures: Vec<Edge>,
    bodies: Vec<Body>,
    position: u64,
}

impl Node {
    /// The operator, for example `MatMul`.
    pub fn operator(&self) -> &str {
        self.proto.op_type.as_deref().unwrap_or_default()
    }

    /// The operator's domain; `""` is the ONNX standard (also where the file says `ai.onnx`).
    pub fn domain(&self) -> &str {
        match self.proto.domain.as_deref().unwrap_or_default() {
            "ai.onnx" => "",
            domain => domain,
        }
    }

    /// Whether this is the standard operator `operator`.
    pub fn is(&self, operator: &str) -> bool {
        self.domain().is_empty() && self.operator() == operator
    }

    /// The exporter's name of the node, often empty. For people only.
    pub fn name(&self) -> &str {
        self.proto.name.as_deref().unwrap_or_default()
    }

    /// Inputs; `None` where an optional input is left out.
    pub fn inputs(&self) -> impl ExactSizeIterator<Item = Option<ValueId>> + '_ {
        self.inputs.iter().map(|edge| edge.map(|edge| edge.value))
    }

    /// Input number `slot`, if it is there.
    pub fn input(&self, slot: usize) -> Option<ValueId> {
        self.inputs.get(slot).copied().flatten().map(|edge| edge.value)
    }

    /// Outputs; `None` where an optional output is left out.
    pub fn outputs(&self) -> &[Option<ValueId>] {
        &self.outputs
    }

    /// Output number `slot`, if it is there.
    pub fn output(&self, slot: usize) -> Option<ValueId> {
        self.outputs.get(slot).copied().flatten()
    }

    /// Values of this graph that the nested graphs of the node read.
    pub fn captures(&self) -> impl ExactSizeIterator<Item = ValueId> + '_ {
        self.captures.iter().map(|edge| edge.value)
    }

    /// Every value that the node needs: listed inputs and captures.
    pub fn reads(&self) -> impl Iterator<Item = ValueId> + '_ {
        self.inputs().flatten().chain(self.captures())
    }

    /// Nested graphs, in the order of the attributes.
    pub fn bodies(&self) -> &[Body] {
        &self.bodies
    }

    /// The nested graph in attribute `attribute`, for example `then_branch`.
    pub fn body(&self, attribute: &str) -> Option<&Graph> {
        self.bodies
            .iter()
            .find(|body| self.attribute_name(body) == attribute)
            .map(Body::graph)
    }

    fn attribute_name(&self, body: &Body) -> &str {
        self.proto
            .attribute
            .get(body.attribute)
            .and_then(|attribute| attribute.name.as_deref())
            .unwrap_or_default()
    }

    /// Attribute `name`. Nested graphs are not in it: see [`Node::body`].
    pub fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.proto
            .attribute
            .iter()
            .find(|attribute| attribute.name.as_deref() == Some(name))
    }

    /// All attributes, without nested graphs.
    pub fn attributes(&self) -> &[AttributeProto] {
        &self.proto.attribute
    }

    /// Integer attribute `name`, or `default` where it is left out.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name)
            .and_then(|attribute| attribute.i)
            .unwrap_or(default)
    }

    /// Integer list attribute `name`.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        self.attribute(name).map(|attribute| attribute.ints.as_slice())
    }

    /// Float attribute `name`, or `default` where it is left out.
    pub fn float(&self, name: &str, default: f32) -> f32 {
        self.attribute(name)
            .and_then(|attribute| attribute.f)
            .unwrap_or(default)
    }

    /// Text attribute `name`, where it is there and UTF-8.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.attribute(name)
            .and_then(|attribute| attribute.s.as_deref())
            .and_then(|text| std::str::from_utf8(text).ok())
    }

    /// Metadata `key` of the node (dynamo's `pkg.torch.onnx.name_scopes`, for example).
    pub fn metadata(&self, key: &str) -> Option<&str> {
        let entry = self
            .proto
            .metadata_props
            .iter()
            .find(|entry| entry.key.as_deref() == Some(key))?;
        entry.value.as_deref()
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
    next_name: u64,
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
