//! Nested graphs: what they capture from the graph around them, and nodes that change from one graph to another.
//!
//! A nested graph holds one value for each outer value that it reads, and that value has the outer one's name: names
//! are all that ties the two together in a file. Edits outside look the inner value up by that name.

use super::{Edge, Graph, GraphError, InfoPlace, Node, NodeId, Origin, Slot, Use, ValueId};
use std::collections::HashMap;

/// A value of the graph around a nested one.
#[derive(Clone, Copy)]
pub(super) struct Outer<'n> {
    pub value: ValueId,
    pub name: &'n str,
}

impl Graph {
    /// An empty graph to be nested in this one.
    pub fn nested(&self, name: &str) -> Graph {
        let mut graph = Graph::default();
        graph.header.name = Some(name.to_owned());
        graph
    }

    /// In a nested graph: the value that stands for `outer` of the graph around it, whose name there is `name`.
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

    /// In a nested graph: the value that stands for `outer`.
    pub(super) fn inner_of(&self, outer: Outer<'_>) -> Option<ValueId> {
        self.find(outer.name)
            .filter(|value| self.value(*value).origin == Origin::Outer(outer.value))
    }

    /// In a nested graph: what was captured from `old` comes from `new`.
    ///
    /// Where `new` is captured already, its value takes over the users, so that a name still means one value.
    pub(super) fn recapture(&mut self, old: Outer<'_>, new: Outer<'_>) {
        let Some(value) = self.inner_of(old) else { return };
        if let Some(known) = self.inner_of(new).filter(|known| *known != value) {
            self.replace_uses(value, known);
            self.undefine(value);
            if matches!(self.value(value).info, Some(InfoPlace::Info(_))) {
                self.drop_stale_infos();
            }
            return;
        }
        // The name may have become free outside when nodes were moved in here.
        if let Some(own) = self.find(new.name).filter(|own| *own != value) {
            let free = self.free_name(new.name);
            self.rename_to_free(own, &free);
        }
        self.rename_to_free(value, new.name);
        self.values[value.index()].origin = Origin::Outer(new.value);
    }

    /// Gives a value another name, which must be free here; graphs nested deeper follow.
    pub(super) fn rename_to_free(&mut self, value: ValueId, name: &str) {
        let entry = &mut self.values[value.index()];
        if entry.name == name {
            return;
        }
        let before = std::mem::replace(&mut entry.name, name.to_owned());
        if let Some(tensor) = &mut entry.initializer {
            tensor.name = Some(name.to_owned());
        }
        if let Some(values) = entry.sparse.as_mut().and_then(|tensor| tensor.values.as_mut()) {
            values.name = Some(name.to_owned());
        }
        let info = match entry.info {
            Some(InfoPlace::Input(place)) => self.inputs.get_mut(place),
            Some(InfoPlace::Info(place)) => self.infos.get_mut(place),
            Some(InfoPlace::Output(_)) | None => None,
        };
        if let Some((_, info)) = info {
            info.name = Some(name.to_owned());
        }
        if entry.outputs > 0 {
            for (_, info) in self.outputs.iter_mut().filter(|(output, _)| *output == value) {
                info.name = Some(name.to_owned());
            }
        }
        let captures = entry.uses.iter().filter(|usage| matches!(usage.slot, Slot::Capture(_)));
        let holders: Vec<NodeId> = captures.map(|usage| usage.node).collect();
        self.names.remove(&before);
        self.names.insert(name.to_owned(), value);
        for holder in holders {
            for body in &mut self.node_mut(holder).bodies {
                body.graph
                    .recapture(Outer { value, name: &before }, Outer { value, name });
            }
        }
    }

    fn free_name(&self, taken: &str) -> String {
        let mut number = 1;
        loop {
            let name = format!("{taken}.{number}");
            if self.find(&name).is_none() {
                return name;
            }
            number += 1;
        }
    }

    /// Adds a node that was taken out of another graph. `place` says what a value of that graph is here.
    pub(super) fn adopt(
        &mut self,
        mut node: Node,
        mut place: impl FnMut(&mut Graph, ValueId) -> Result<ValueId, GraphError>,
    ) -> Result<(), GraphError> {
        let id = NodeId(self.nodes.len() as u32);
        let mut edge = |graph: &mut Graph, old: Edge, slot: Slot| {
            let value = place(graph, old.value)?;
            Ok(graph.record(value, Use { node: id, slot }))
        };
        for (slot, input) in node.inputs.iter_mut().enumerate() {
            if let Some(old) = *input {
                *input = Some(edge(self, old, Slot::Input(slot))?);
            }
        }
        let mut numbers = HashMap::with_capacity(node.captures.len());
        for (slot, capture) in node.captures.iter_mut().enumerate() {
            let old = capture.value;
            *capture = edge(self, *capture, Slot::Capture(slot))?;
            numbers.insert(old, capture.value);
        }
        for body in &mut node.bodies {
            body.graph.renumber_captures(&numbers, self);
        }
        for (slot, output) in node.outputs.iter_mut().enumerate() {
            if let Some(old) = *output {
                let value = place(self, old)?;
                self.values[value.index()].origin = Origin::Node { node: id, slot };
                *output = Some(value);
            }
        }
        self.nodes.push(Some(node));
        self.live_nodes += 1;
        Ok(())
    }

    /// In a nested graph that came into another graph, `outer`: captured values have other numbers there, and may
    /// have other names.
    fn renumber_captures(&mut self, numbers: &HashMap<ValueId, ValueId>, outer: &Graph) {
        let mut renamed = Vec::new();
        for entry in &mut self.values {
            let Origin::Outer(old) = entry.origin else { continue };
            let Some(value) = numbers.get(&old).copied() else {
                continue;
            };
            entry.origin = Origin::Outer(value);
            if entry.name != outer.value(value).name {
                renamed.push((value, entry.name.clone()));
            }
        }
        for (value, before) in renamed {
            let name = outer.value(value).name();
            self.recapture(Outer { value, name: &before }, Outer { value, name });
        }
    }
}
