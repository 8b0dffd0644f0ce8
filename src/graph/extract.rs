//! Moves nodes into a nested graph, as the branch of an `If` for example.

use super::{Graph, GraphError, InfoPlace, Node, NodeId, Origin, ValueId};
use crate::onnx::messages::ValueInfoProto;
use std::collections::{HashMap, HashSet};

impl Graph {
    /// The nodes that serve the values `roots` alone: what dead-code elimination would remove if nobody read them.
    ///
    /// In topological order. Nodes whose outputs are read elsewhere, or are outputs of the graph, are not among them.
    pub fn exclusive_to(&self, roots: &[ValueId]) -> Vec<NodeId> {
        self.exclusive_between(&[], roots)
    }

    /// The same, without the nodes before `starts`.
    pub fn exclusive_between(&self, starts: &[ValueId], roots: &[ValueId]) -> Vec<NodeId> {
        let cut: HashSet<ValueId> = roots.iter().copied().collect();
        // Readers of a value that are not known to be exclusive; a value at zero is needed by nobody else.
        let mut left: HashMap<ValueId, usize> = HashMap::new();
        let mut taken: HashSet<NodeId> = HashSet::new();
        let mut order = Vec::new();
        let mut pending: Vec<ValueId> = roots.to_vec();
        let starts: HashSet<ValueId> = starts.iter().copied().collect();
        while let Some(value) = pending.pop() {
            let Some((id, node)) = self.producer(value).filter(|_| !starts.contains(&value)) else {
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
        &self,
        node: Node,
        inner: &mut Graph,
        places: &mut HashMap<ValueId, ValueId>,
    ) -> Result<(), GraphError> {
        for outer in node.outputs.iter().flatten() {
            let value = inner.define(self.value(*outer).name(), Origin::Nothing)?;
            self.move_info(*outer, value, inner);
            places.insert(*outer, value);
        }
        inner.adopt(node, |inner, outer| {
            let place = places.entry(outer);
            Ok(*place.or_insert_with(|| inner.capture(outer, self.value(outer).name())))
        })
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
