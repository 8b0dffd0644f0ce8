//! Nodes: operator calls with their inputs, outputs, attributes and nested graphs.

use super::{Graph, ValueId};
use crate::onnx::messages::{AttributeProto, NodeProto};

/// An input slot: the value, and where this slot stands in the value's list of users.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edge {
    pub(super) value: ValueId,
    pub(super) place: usize,
}

/// A graph held by an attribute of a node.
#[derive(Clone, Debug)]
pub struct Body {
    pub(super) attribute: usize,
    pub(super) element: Option<usize>,
    pub(super) graph: Graph,
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
    pub(super) proto: NodeProto,
    pub(super) inputs: Vec<Option<Edge>>,
    pub(super) outputs: Vec<Option<ValueId>>,
    pub(super) captures: Vec<Edge>,
    pub(super) bodies: Vec<Body>,
    pub(super) position: u64,
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

    pub(super) fn attribute_name(&self, body: &Body) -> &str {
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
