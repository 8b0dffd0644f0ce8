//! Edits of one graph: new nodes, inputs and outputs, other users, removal. Each edit of one edge takes constant time.
//!
//! Where the edge is a capture, every nested graph that it leads through takes constant time and the number of uses that
//! the captured value has there ([`Graph::replace_uses`]).

use super::nested::Outer;
use super::{Body, Edge, Graph, GraphError, InfoPlace, Node, NodeId, Origin, Slot, Use, ValueId};
use crate::onnx::messages::{AttributeProto, AttributeType, Dimension, NodeProto, TensorProto, ValueInfoProto};
use std::collections::HashSet;

/// A place in the order of the file. Stays valid when the node that stood there is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(u64);

/// A node that is not in a graph yet.
#[derive(Clone, Debug, Default)]
pub struct NewNode {
    /// The operator, for example `If`.
    pub operator: String,
    /// Its domain; empty for the ONNX standard.
    pub domain: String,
    /// Name of the node, for people.
    pub name: String,
    /// Inputs; `None` where an optional input is left out.
    pub inputs: Vec<Option<ValueId>>,
    /// Names of the outputs. Each must be free.
    pub outputs: Vec<String>,
    /// Attributes that hold no graph.
    pub attributes: Vec<AttributeProto>,
    /// Nested graphs by attribute, made by [`Graph::extract`] or [`Graph::nested`] from the same graph.
    pub bodies: Vec<(String, Graph)>,
    /// Where it stands in the written file as far as the order leaves a choice; else at the end.
    pub after: Option<Position>,
}

impl Graph {
    /// Where `node` stands in the order of the file.
    pub fn position(&self, node: NodeId) -> Position {
        Position(self.node(node).position)
    }

    /// Adds a node.
    ///
    /// # Errors
    /// [`GraphError::NameTaken`] where an output's name is taken; then the graph is as it was.
    pub fn add_node(&mut self, new: NewNode) -> Result<NodeId, GraphError> {
        let id = NodeId(self.nodes.len() as u32);
        let mut proto = NodeProto {
            op_type: Some(new.operator),
            domain: Some(new.domain).filter(|domain| !domain.is_empty()),
            name: Some(new.name).filter(|name| !name.is_empty()),
            attribute: new.attributes,
            ..NodeProto::default()
        };
        let mut outputs = Vec::with_capacity(new.outputs.len());
        for (slot, name) in new.outputs.iter().enumerate() {
            match self.define(name, Origin::Node { node: id, slot }) {
                Ok(value) => outputs.push(Some(value)),
                Err(error) => {
                    outputs.into_iter().flatten().for_each(|value| self.undefine(value));
                    return Err(error);
                }
            }
        }
        let inputs = new.inputs.iter().enumerate();
        let inputs = inputs
            .map(|(slot, value)| {
                value.map(|value| {
                    self.record(
                        value,
                        Use {
                            node: id,
                            slot: Slot::Input(slot),
                        },
                    )
                })
            })
            .collect();
        let mut captures: Vec<Edge> = Vec::new();
        let mut known = HashSet::new();
        let mut bodies = Vec::with_capacity(new.bodies.len());
        for (attribute, graph) in new.bodies {
            for outer in graph.captured().filter(|outer| known.insert(*outer)) {
                let slot = Slot::Capture(captures.len());
                captures.push(self.record(outer, Use { node: id, slot }));
            }
            bodies.push(Body {
                attribute: proto.attribute.len(),
                element: None,
                graph,
            });
            proto.attribute.push(AttributeProto {
                name: Some(attribute),
                r#type: Some(AttributeType::Graph as i32),
                ..AttributeProto::default()
            });
        }
        let position = match new.after {
            Some(Position(position)) => position + 1,
            None => u64::from(id.0) << 20,
        };
        self.nodes.push(Some(Node {
            proto,
            inputs,
            outputs,
            captures,
            bodies,
            position,
        }));
        self.live_nodes += 1;
        Ok(id)
    }

    /// Adds an input, behind those that are there.
    ///
    /// # Errors
    /// [`GraphError::NameTaken`] where its name is taken.
    pub fn add_input(&mut self, info: ValueInfoProto) -> Result<ValueId, GraphError> {
        let name = info.name.clone().unwrap_or_default();
        let value = self.define(&name, Origin::Input)?;
        self.values[value.index()].info = Some(InfoPlace::Input(self.inputs.len()));
        self.inputs.push((value, info));
        Ok(value)
    }

    /// Makes `value` an output, behind those that are there. `info` is renamed to the value's name.
    pub fn add_output(&mut self, value: ValueId, mut info: ValueInfoProto) {
        let place = InfoPlace::Output(self.outputs.len());
        let entry = &mut self.values[value.index()];
        info.name = Some(entry.name.clone());
        entry.outputs += 1;
        entry.info.get_or_insert(place);
        self.outputs.push((value, info));
    }

    /// Gives a value another name.
    ///
    /// # Errors
    /// [`GraphError::NameTaken`] where the name is taken.
    pub fn rename(&mut self, value: ValueId, name: &str) -> Result<(), GraphError> {
        match self.find(name) {
            Some(other) if other != value => Err(GraphError::NameTaken { name: name.to_owned() }),
            _ => {
                self.rename_to_free(value, name);
                Ok(())
            }
        }
    }

    /// Takes `value` off the list of outputs. Returns whether it stood there.
    pub fn remove_output(&mut self, value: ValueId) -> bool {
        let before = self.outputs.len();
        let removed = self.outputs.iter().find(|(output, _)| *output == value).cloned();
        self.outputs.retain(|(output, _)| *output != value);
        for (index, (output, _)) in self.outputs.iter().enumerate() {
            let info = &mut self.values[output.index()].info;
            if matches!(info, Some(InfoPlace::Output(_))) {
                *info = Some(InfoPlace::Output(index));
            }
        }
        let entry = &mut self.values[value.index()];
        entry.outputs = 0;
        if matches!(entry.info, Some(InfoPlace::Output(_))) {
            // Its type is still worth knowing.
            entry.info = removed.is_some().then_some(InfoPlace::Info(self.infos.len()));
            self.infos.extend(removed);
        }
        self.outputs.len() < before
    }

    /// Takes inputs that nobody reads off the list of inputs, with their defaults, as far as `unwanted` says so.
    pub fn remove_unused_inputs(&mut self, unwanted: impl Fn(&str) -> bool) {
        let gone = |values: &[super::Value], value: ValueId| {
            let entry = &values[value.index()];
            entry.is_unused() && unwanted(&entry.name)
        };
        let inputs = std::mem::take(&mut self.inputs);
        for (value, info) in inputs {
            if gone(&self.values, value) {
                self.undefine(value);
                self.values[value.index()].info = None;
            } else {
                self.values[value.index()].info = Some(InfoPlace::Input(self.inputs.len()));
                self.inputs.push((value, info));
            }
        }
        self.drop_stale_constants();
    }

    /// Adds a stored constant.
    ///
    /// # Errors
    /// [`GraphError::NameTaken`] where its name is taken.
    pub fn add_initializer(&mut self, tensor: TensorProto) -> Result<ValueId, GraphError> {
        let name = tensor.name.clone().unwrap_or_default();
        let value = self.define(&name, Origin::Initializer)?;
        self.values[value.index()].initializer = Some(Box::new(tensor));
        self.initializers.push(value);
        Ok(value)
    }

    /// Turns the input `value` into the constant `tensor`, which takes the value's name.
    ///
    /// The runtime folds an `If` away whose condition is a constant: this makes a variant from the switch form.
    /// Returns whether `value` was an input.
    pub fn fix_input(&mut self, value: ValueId, mut tensor: TensorProto) -> bool {
        if self.values[value.index()].origin != Origin::Input {
            return false;
        }
        self.inputs.retain(|(input, _)| *input != value);
        for (index, (input, _)) in self.inputs.iter().enumerate() {
            self.values[input.index()].info = Some(InfoPlace::Input(index));
        }
        let entry = &mut self.values[value.index()];
        tensor.name = Some(entry.name.clone());
        entry.origin = Origin::Initializer;
        entry.info = None;
        if entry.initializer.replace(Box::new(tensor)).is_none() {
            self.initializers.push(value);
        }
        true
    }

    /// Lets node input `slot` of `node` read `value`.
    pub fn set_input(&mut self, node: NodeId, slot: usize, value: ValueId) {
        if let Some(old) = self.node(node).inputs.get(slot).copied().flatten() {
            self.forget(old);
        }
        let edge = self.record(
            value,
            Use {
                node,
                slot: Slot::Input(slot),
            },
        );
        let inputs = &mut self.node_mut(node).inputs;
        if inputs.len() <= slot {
            inputs.resize(slot + 1, None);
        }
        inputs[slot] = Some(edge);
    }

    /// Gives a node an attribute, in the place of one of the same name.
    pub fn set_attribute(&mut self, node: NodeId, attribute: AttributeProto) {
        let attributes = &mut self.node_mut(node).proto.attribute;
        match attributes.iter_mut().find(|other| other.name == attribute.name) {
            Some(other) => *other = attribute,
            None => attributes.push(attribute),
        }
    }

    /// Forgets the declared type of `value`, where it is neither input nor output: an edit has made it another.
    /// [`Graph::eliminate_dead_code`] takes what is left of it off the list.
    pub fn forget_type(&mut self, value: ValueId) {
        if let Some(InfoPlace::Info(place)) = self.values[value.index()].info {
            self.values[value.index()].info = None;
            if let Some((_, info)) = self.infos.get_mut(place) {
                info.r#type = None;
            }
        }
    }

    /// Declares another size of dimension `dim` of `value`, which is an input or output of the graph; whatever else has no
    /// declaration that anybody relies on.
    pub fn declare_dimension(&mut self, value: ValueId, dim: usize, size: Dimension) {
        let ports = self.inputs.iter_mut().chain(&mut self.outputs);
        for (_, info) in ports.filter(|(port, _)| *port == value) {
            let tensor = info.r#type.as_mut().and_then(|of| of.tensor_type.as_mut());
            let shape = tensor.and_then(|tensor| tensor.shape.as_mut());
            if let Some(place) = shape.and_then(|shape| shape.dim.get_mut(dim)) {
                *place = size.clone();
            }
        }
    }

    /// Lets everybody who reads `old` read `new`: nodes, nested graphs and the list of outputs.
    ///
    /// An output of the graph keeps its place, but takes the name of `new`. Takes constant time a use, and as many steps
    /// as the graph has outputs if `old` is one. In a nested graph that captures `old`, its value is found by name and
    /// renamed, which looks through its uses there for graphs nested deeper; where `new` is captured there too, these
    /// uses move over one by one.
    pub fn replace_uses(&mut self, old: ValueId, new: ValueId) {
        if old == new {
            return;
        }
        let uses = std::mem::take(&mut self.values[old.index()].uses);
        for usage in uses {
            match usage.slot {
                Slot::Input(slot) => {
                    let edge = self.record(new, usage);
                    self.node_mut(usage.node).inputs[slot] = Some(edge);
                }
                Slot::Capture(slot) => self.replace_capture(usage.node, slot, old, new),
            }
        }
        self.replace_output(old, new);
    }

    /// Gives `new` the places that `old` has in the list of outputs, which take its name. Nodes go on to read `old`.
    pub fn replace_output(&mut self, old: ValueId, new: ValueId) {
        let moved = std::mem::take(&mut self.values[old.index()].outputs);
        if moved == 0 {
            return;
        }
        let entry = &mut self.values[new.index()];
        entry.outputs += moved;
        let name = entry.name.clone();
        for (index, (value, info)) in self.outputs.iter_mut().enumerate() {
            if *value == old {
                *value = new;
                info.name = Some(name.clone());
                entry.info.get_or_insert(InfoPlace::Output(index));
            }
        }
    }

    /// `old` has lost the use already.
    fn replace_capture(&mut self, node: NodeId, slot: usize, old: ValueId, new: ValueId) {
        let (before, name) = (self.value(old).name.clone(), self.value(new).name.clone());
        let old = Outer {
            value: old,
            name: &before,
        };
        let to = Outer {
            value: new,
            name: &name,
        };
        let bodies = &mut self.node_mut(node).bodies;
        let known = bodies.iter().any(|body| {
            let inner = body.graph.inner_of(to);
            inner.is_some_and(|inner| !body.graph.value(inner).is_unused())
        });
        for body in bodies {
            body.graph.recapture(old, to);
        }
        if known {
            self.drop_capture(node, slot);
        } else {
            let usage = Use {
                node,
                slot: Slot::Capture(slot),
            };
            let edge = self.record(new, usage);
            self.node_mut(node).captures[slot] = edge;
        }
    }

    /// Takes a capture without use off a node's list; the last one takes its place.
    fn drop_capture(&mut self, node: NodeId, slot: usize) {
        let captures = &mut self.node_mut(node).captures;
        captures.swap_remove(slot);
        let Some(moved) = captures.get(slot).copied() else {
            return;
        };
        if let Some(usage) = self.values[moved.value.index()].uses.get_mut(moved.place) {
            usage.slot = Slot::Capture(slot);
        }
    }

    /// Removes a node. Its outputs lose their origin; who still reads them must be given something else.
    pub fn remove_node(&mut self, id: NodeId) {
        self.take_node(id);
    }

    /// Takes a node out, with its edges undone.
    pub(super) fn take_node(&mut self, id: NodeId) -> Option<Node> {
        self.nodes.get(id.index())?.as_ref()?;
        // The place of a later edge may move when an earlier one is forgotten, so each is looked up afresh.
        for slot in 0..self.node(id).inputs.len() {
            if let Some(edge) = self.node(id).inputs[slot] {
                self.forget(edge);
            }
        }
        for slot in 0..self.node(id).captures.len() {
            let edge = self.node(id).captures[slot];
            self.forget(edge);
        }
        let node = self.nodes[id.index()].take()?;
        self.live_nodes -= 1;
        for value in node.outputs.iter().flatten() {
            self.undefine(*value);
        }
        Some(node)
    }

    /// Leaves a value without origin and constant, and its name to others.
    pub(super) fn undefine(&mut self, value: ValueId) {
        let entry = &mut self.values[value.index()];
        entry.origin = Origin::Nothing;
        entry.initializer = None;
        entry.sparse = None;
        if self.names.get(&entry.name) == Some(&value) {
            self.names.remove(&entry.name);
        }
    }

    /// Undoes one edge; the use that fills its place learns where it now stands.
    fn forget(&mut self, edge: Edge) {
        let uses = &mut self.values[edge.value.index()].uses;
        uses.swap_remove(edge.place);
        let Some(moved) = uses.get(edge.place).copied() else {
            return;
        };
        let Some(node) = self.nodes[moved.node.index()].as_mut() else {
            return;
        };
        match moved.slot {
            Slot::Input(slot) => {
                if let Some(Some(edge_of_moved)) = node.inputs.get_mut(slot) {
                    edge_of_moved.place = edge.place;
                }
            }
            Slot::Capture(slot) => {
                if let Some(edge_of_moved) = node.captures.get_mut(slot) {
                    edge_of_moved.place = edge.place;
                }
            }
        }
    }
}
