//! Message → graph.

use super::{Body, Edge, Graph, GraphError, InfoPlace, Node, NodeId, Origin, Slot, Use, Value, ValueId};
use crate::onnx::messages::{GraphProto, NodeProto};
use std::collections::HashSet;
use std::mem::take;

impl Graph {
    /// Reads a top-level graph.
    ///
    /// # Errors
    /// Names that are defined twice or not at all. Order is not required here: see [`Graph::topological_order`].
    pub fn from_proto(proto: GraphProto) -> Result<Graph, GraphError> {
        let graph = Graph::read(proto)?;
        if let Some((name, by)) = graph.first_free() {
            return Err(GraphError::Undefined { name, by });
        }
        Ok(graph)
    }

    /// Reads a graph whose free names may be captured from a graph around it; those become values without origin.
    fn read(mut proto: GraphProto) -> Result<Graph, GraphError> {
        let mut graph = Graph::default();
        let nodes = take(&mut proto.node);
        let inputs = take(&mut proto.input);
        let outputs = take(&mut proto.output);
        let infos = take(&mut proto.value_info);
        let initializers = take(&mut proto.initializer);
        let sparse = take(&mut proto.sparse_initializer);
        graph.header = proto;
        graph.values.reserve(nodes.len() + initializers.len());
        graph.names.reserve(nodes.len() + initializers.len());
        graph.nodes.reserve(nodes.len());

        for info in inputs {
            let name = info.name.as_deref().unwrap_or_default();
            let value = graph.define_once(name, Origin::Input, || "an input".into())?;
            graph.values[value.index()].info = Some(InfoPlace::Input(graph.inputs.len()));
            graph.inputs.push((value, info));
        }
        for tensor in initializers {
            let value = graph.define_constant(tensor.name.as_deref().unwrap_or_default())?;
            graph.values[value.index()].initializer = Some(Box::new(tensor));
            graph.initializers.push(value);
        }
        for tensor in sparse {
            let name = tensor
                .values
                .as_ref()
                .and_then(|values| values.name.clone())
                .unwrap_or_default();
            let value = graph.define_constant(&name)?;
            graph.values[value.index()].sparse = Some(Box::new(tensor));
            graph.sparse_initializers.push(value);
        }
        // All names first, so that a nested graph's names resolve to this graph also where the file is not sorted.
        for (index, node) in nodes.iter().enumerate() {
            for (slot, name) in node.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
                let origin = Origin::Node {
                    node: NodeId(index as u32),
                    slot,
                };
                graph.define_once(name, origin, || format!("node {}", node_label(node, index)))?;
            }
        }
        for (index, node) in nodes.into_iter().enumerate() {
            graph.read_node(NodeId(index as u32), node)?;
        }
        for info in infos {
            let value = graph.intern(info.name.as_deref().unwrap_or_default());
            let place = InfoPlace::Info(graph.infos.len());
            graph.values[value.index()].info.get_or_insert(place);
            graph.infos.push((value, info));
        }
        for info in outputs {
            let value = graph.intern(info.name.as_deref().unwrap_or_default());
            let place = InfoPlace::Output(graph.outputs.len());
            let entry = &mut graph.values[value.index()];
            entry.info.get_or_insert(place);
            entry.outputs += 1;
            graph.outputs.push((value, info));
        }
        Ok(graph)
    }

    fn read_node(&mut self, id: NodeId, mut proto: NodeProto) -> Result<(), GraphError> {
        let names = take(&mut proto.input);
        let outputs = take(&mut proto.output);
        let mut node = Node {
            inputs: Vec::with_capacity(names.len()),
            outputs: outputs
                .iter()
                .map(|name| self.find(name).filter(|_| !name.is_empty()))
                .collect(),
            captures: Vec::new(),
            bodies: Vec::new(),
            position: u64::from(id.0) << 20,
            proto,
        };
        for (slot, name) in names.iter().enumerate() {
            node.inputs.push((!name.is_empty()).then(|| {
                let value = self.intern(name);
                self.record(
                    value,
                    Use {
                        node: id,
                        slot: Slot::Input(slot),
                    },
                )
            }));
        }
        for (attribute, proto) in node.proto.attribute.iter_mut().enumerate() {
            if let Some(body) = proto.g.take() {
                node.bodies.push(Body {
                    attribute,
                    element: None,
                    graph: Graph::read(*body)?,
                });
            }
            for (element, body) in take(&mut proto.graphs).into_iter().enumerate() {
                node.bodies.push(Body {
                    attribute,
                    element: Some(element),
                    graph: Graph::read(body)?,
                });
            }
        }
        let mut known = HashSet::new();
        for body in &mut node.bodies {
            for index in 0..body.graph.values.len() {
                if !body.graph.is_free(index) {
                    continue;
                }
                let name = body.graph.values[index].name.clone();
                let value = self.intern(&name);
                body.graph.values[index].origin = Origin::Outer(value);
                if known.insert(value) {
                    let capture = Use {
                        node: id,
                        slot: Slot::Capture(node.captures.len()),
                    };
                    node.captures.push(self.record(value, capture));
                }
            }
        }
        self.nodes.push(Some(node));
        self.live_nodes += 1;
        Ok(())
    }

    /// Notes that `by` reads `value`.
    pub(super) fn record(&mut self, value: ValueId, by: Use) -> Edge {
        let uses = &mut self.values[value.index()].uses;
        uses.push(by);
        Edge {
            value,
            place: uses.len() - 1,
        }
    }

    /// A new value that the file defines; `by` says by what.
    fn define_once(&mut self, name: &str, origin: Origin, by: impl FnOnce() -> String) -> Result<ValueId, GraphError> {
        let defined = self.define(name, origin);
        defined.map_err(|_| GraphError::DefinedTwice {
            name: name.to_owned(),
            by: by(),
        })
    }

    /// A new value; its name must be free.
    pub(super) fn define(&mut self, name: &str, origin: Origin) -> Result<ValueId, GraphError> {
        if self.names.contains_key(name) {
            return Err(GraphError::NameTaken { name: name.to_owned() });
        }
        let value = self.intern(name);
        self.values[value.index()].origin = origin;
        Ok(value)
    }

    /// The value of an initializer, which may also be an input.
    fn define_constant(&mut self, name: &str) -> Result<ValueId, GraphError> {
        match self.find(name) {
            Some(value)
                if self.value(value).origin == Origin::Input
                    && self.value(value).initializer.is_none()
                    && self.value(value).sparse.is_none() =>
            {
                Ok(value)
            }
            _ => self.define_once(name, Origin::Initializer, || "an initializer".into()),
        }
    }

    /// The value named `name`, made without origin where there is none.
    pub(super) fn intern(&mut self, name: &str) -> ValueId {
        if let Some(value) = self.names.get(name) {
            return *value;
        }
        let value = ValueId(self.values.len() as u32);
        self.names.insert(name.to_owned(), value);
        self.values.push(Value {
            name: name.to_owned(),
            origin: Origin::Nothing,
            uses: Vec::new(),
            outputs: 0,
            initializer: None,
            sparse: None,
            info: None,
        });
        value
    }

    fn is_free(&self, index: usize) -> bool {
        self.values[index].origin == Origin::Nothing && !self.values[index].is_unused()
    }

    fn first_free(&self) -> Option<(String, String)> {
        let index = (0..self.values.len()).find(|index| self.is_free(*index))?;
        let value = &self.values[index];
        let by = match value.uses.first() {
            Some(usage) => format!("node {}", self.label(usage.node)),
            None => "an output of the graph".to_owned(),
        };
        Some((value.name.clone(), by))
    }

    /// How a node is shown to people: its name, or operator and first output.
    pub fn label(&self, node: NodeId) -> String {
        let entry = self.node(node);
        let output = entry
            .outputs
            .iter()
            .flatten()
            .next()
            .map_or("", |value| self.value(*value).name());
        label(entry.name(), entry.operator(), output, node.index())
    }
}

fn node_label(node: &NodeProto, index: usize) -> String {
    let output = node.output.first().map_or("", String::as_str);
    label(
        node.name.as_deref().unwrap_or_default(),
        node.op_type.as_deref().unwrap_or_default(),
        output,
        index,
    )
}

fn label(name: &str, operator: &str, output: &str, index: usize) -> String {
    match (name, output) {
        ("", "") => format!("#{index} ({operator})"),
        ("", output) => format!("of `{output}` ({operator})"),
        (name, _) => format!("`{name}` ({operator})"),
    }
}
