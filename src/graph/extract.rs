//! Moves nodes into a nested graph, as the branch of an `If` for example.

use super::{Edge, Graph, GraphError, InfoPlace, Node, NodeId, Origin, Slot, Use, ValueId};
use crate::onnx::messages::ValueInfoProto;
use std::collections::{HashMap, HashSet};

impl Graph {
    /// The nodes that serve the values `roots` alone: what dead-code elimination would remove if nobody read them.
    ///
    /// In topological order. Nodes whose outputs are read elsewhere, or are outputs of the graph, are not among them.
    pub fn exclusive_to(&self, roots: &[ValueId]) -> Vec<NodeId> {
        let cut: HashSet<ValueId> = roots.iter().copied().collect();
        // Readers of a value that are not known to be exclusive; a value at zero is needed by nobody else.
        let mut left: HashMap<ValueId, usize> = HashMap::new();
        let mut taken: HashSet<NodeId> = HashSet::new();
        let mut order = Vec::new();
        let mut pending: Vec<ValueId> = roots.to_vec();
        while let Some(value) = pending.pop() {
            let Some((id, node)) = self.producer(value) else {
                continue;
            };
            let exclusive = node.outputs().iter().flatten().all(|output| {
                cut.contains(output)
                    || !self.value(*output).is_output()
                        && left.get(output).copied().unwrap_or(self.value(*output).uses().len()) == 0
            });
            if !exclusive || !taken.insert(id) {
                continue;
            }
            order.push(id);
            for read in node.reads() {
                let count = left.entry(read).or_insert_with(|| self.value(read).uses().len());
                *count -= 1;
                if *count == 0 {
                    pending.push(read);
                }
            }
        }
        order.reverse();
        self.sorted(order)
    }

    /// `nodes` so that each stands behind those of them that it reads from.
    fn sorted(&self, nodes: Vec<NodeId>) -> Vec<NodeId> {
        let mut state: HashMap<NodeId, bool> = nodes.iter().map(|id| (*id, false)).collect();
        let mut order = Vec::with_capacity(nodes.len());
        for start in nodes {
            let mut stack = vec![(start, false)];
            while let Some((id, ready)) = stack.pop() {
                if ready {
                    order.push(id);
                    continue;
                }
                match state.get_mut(&id) {
                    Some(seen) if !*seen => *seen = true,
                    _ => continue,
                }
                stack.push((id, true));
                stack.extend(
                    self.node(id)
                        .reads()
                        .filter_map(|read| Some((self.producer(read)?.0, false))),
                );
            }
        }
        order
    }

    /// An empty graph to be nested in this one.
    pub fn nested(&self, name: &str) -> Graph {
        let mut graph = Graph::default();
        graph.header.name = Some(name.to_owned());
        graph
    }

    /// In a nested graph: the value that stands for `outer`, named `name`, of the graph around it.
    pub fn capture(&mut self, outer: ValueId, name: &str) -> ValueId {
        let value = self.intern(name);
        self.values[value.index()].origin = Origin::Outer(outer);
        value
    }

    /// In a nested graph: every value of the graph around it that is read here, each once.
    pub fn captured(&self) -> impl Iterator<Item = ValueId> + '_ {
        self.values.iter().filter_map(|value| match value.origin {
            Origin::Outer(outer) if !value.is_unused() => Some(outer),
            _ => None,
        })
    }

    /// Moves `nodes` into a new nested graph named `name` whose outputs are `outputs`, described by their types.
    ///
    /// Weights stay where they are and are captured, so that they are held once and can be shared. The names of the
    /// moved values move too: here they are free again. Whoever still reads `outputs` here must be given another
    /// value, usually an output of the node that gets the new graph ([`Graph::replace_uses`]).
    ///
    /// # Errors
    /// [`GraphError::UsedOutside`] where another value of the moved nodes is used by a node that stays.
    pub fn extract(
        &mut self,
        nodes: &[NodeId],
        outputs: &[(ValueId, ValueInfoProto)],
        name: &str,
    ) -> Result<Graph, GraphError> {
        let moving: HashSet<NodeId> = nodes.iter().copied().collect();
        for id in nodes {
            for value in self.node(*id).outputs().iter().flatten() {
                let entry = self.value(*value);
                let stays = entry.is_output() || entry.uses().iter().any(|usage| !moving.contains(&usage.node));
                if stays && !outputs.iter().any(|(output, _)| output == value) {
                    return Err(GraphError::UsedOutside {
                        node: self.label(*id),
                        value: entry.name().to_owned(),
                    });
                }
            }
        }
        let mut inner = self.nested(name);
        let mut places: HashMap<ValueId, ValueId> = HashMap::new();
        for id in self.sorted(nodes.to_vec()) {
            if let Some(node) = self.take_node(id) {
                self.move_node(node, &mut inner, &mut places)?;
            }
        }
        for (outer, info) in outputs {
            let value = match places.get(outer) {
                Some(value) => *value,
                None => inner.capture(*outer, self.value(*outer).name()),
            };
            inner.add_output(value, info.clone());
        }
        Ok(inner)
    }

    fn move_node(
        &mut self,
        node: Node,
        inner: &mut Graph,
        places: &mut HashMap<ValueId, ValueId>,
    ) -> Result<(), GraphError> {
        let id = NodeId(inner.nodes.len() as u32);
        let mut moved = Node {
            inputs: Vec::with_capacity(node.inputs.len()),
            captures: Vec::new(),
            ..node
        };
        for (slot, edge) in node.inputs.iter().enumerate() {
            let edge = edge.map(|edge| {
                let value = self.inner_value(edge.value, inner, places);
                inner.record(
                    value,
                    Use {
                        node: id,
                        slot: Slot::Input(slot),
                    },
                )
            });
            moved.inputs.push(edge);
        }
        for (slot, edge) in node.captures.iter().enumerate() {
            let value = self.inner_value(edge.value, inner, places);
            let capture: Edge = inner.record(
                value,
                Use {
                    node: id,
                    slot: Slot::Capture(slot),
                },
            );
            moved.captures.push(capture);
        }
        let renumbered: HashMap<ValueId, ValueId> = node
            .captures
            .iter()
            .zip(&moved.captures)
            .map(|(old, new)| (old.value, new.value))
            .collect();
        for body in &mut moved.bodies {
            body.graph.renumber_captures(&renumbered);
        }
        for (slot, output) in moved.outputs.iter_mut().enumerate() {
            let Some(outer) = *output else { continue };
            let name = self.value(outer).name().to_owned();
            let value = inner.define(&name, Origin::Node { node: id, slot }, || format!("output {slot}"))?;
            self.move_info(outer, value, inner);
            places.insert(outer, value);
            *output = Some(value);
        }
        inner.nodes.push(Some(moved));
        inner.live_nodes += 1;
        Ok(())
    }

    fn inner_value(&self, outer: ValueId, inner: &mut Graph, places: &mut HashMap<ValueId, ValueId>) -> ValueId {
        *places
            .entry(outer)
            .or_insert_with(|| inner.capture(outer, self.value(outer).name()))
    }

    /// Takes the declared type of a moved value along. [`Graph::eliminate_dead_code`] drops the stale entry here.
    fn move_info(&self, outer: ValueId, value: ValueId, inner: &mut Graph) {
        if let Some(InfoPlace::Info(place)) = self.value(outer).info
            && let Some((_, info)) = self.infos.get(place)
        {
            inner.values[value.index()].info = Some(InfoPlace::Info(inner.infos.len()));
            inner.infos.push((value, info.clone()));
        }
    }
}
