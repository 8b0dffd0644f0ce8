//! Puts the nodes of a nested graph in the place of the node that holds it.

use super::{Edge, Graph, GraphError, Node, NodeId, Origin, Slot, Use, ValueId};
use std::collections::HashMap;

impl Graph {
    /// Replaces `node` by the graph in its attribute `attribute`: an `If` by one of its branches.
    ///
    /// Values of the nested graph that are its outputs take the place and the name of the node's outputs. Nothing
    /// happens where the node holds no such graph. The nested graph must not have inputs of its own.
    ///
    /// # Errors
    /// [`GraphError::DefinedTwice`] where a name of the nested graph is taken here.
    pub fn inline_body(&mut self, node: NodeId, attribute: &str) -> Result<(), GraphError> {
        if self.node(node).body(attribute).is_none() {
            return Ok(());
        }
        let position = self.node(node).position;
        let Some(mut holder) = self.take_node(node) else {
            return Ok(());
        };
        let wanted = holder
            .bodies
            .iter()
            .position(|body| holder.attribute_name(body) == attribute);
        let Some(mut inner) = wanted.map(|index| holder.bodies.swap_remove(index).graph) else {
            return Ok(());
        };

        // What each nested value is called out here. Outputs of the graph first: they keep the node's names.
        let mut places: HashMap<ValueId, ValueId> = HashMap::new();
        let mut passed = Vec::new();
        let pairs: Vec<_> = inner.outputs().zip(holder.outputs.iter().copied()).collect();
        for (value, output) in pairs {
            let Some(output) = output else { continue };
            let name = self.value(output).name().to_owned();
            match inner.value(value).origin() {
                Origin::Node { .. } if !places.contains_key(&value) => {
                    self.names.insert(name, output);
                    places.insert(value, output);
                }
                _ => passed.push((value, output)),
            }
        }
        for value in std::mem::take(&mut inner.initializers) {
            if let Some(tensor) = inner.values[value.index()].initializer.take() {
                places.insert(value, self.add_initializer(*tensor)?);
            }
        }
        for id in inner.topological_order()? {
            if let Some(nested) = inner.nodes[id.index()].take() {
                self.place_node(nested, &inner, position, &mut places)?;
            }
        }
        for (value, output) in passed {
            let given = self.outer_value(value, &inner, &mut places)?;
            self.replace_uses(output, given);
        }
        Ok(())
    }

    fn place_node(
        &mut self,
        node: Node,
        inner: &Graph,
        position: u64,
        places: &mut HashMap<ValueId, ValueId>,
    ) -> Result<(), GraphError> {
        let id = NodeId(self.nodes.len() as u32);
        let mut placed = Node {
            inputs: Vec::with_capacity(node.inputs.len()),
            captures: Vec::new(),
            position,
            ..node
        };
        for (slot, edge) in node.inputs.iter().enumerate() {
            let value = edge
                .map(|edge| self.outer_value(edge.value, inner, places))
                .transpose()?;
            placed.inputs.push(value.map(|value| {
                self.record(
                    value,
                    Use {
                        node: id,
                        slot: Slot::Input(slot),
                    },
                )
            }));
        }
        let mut renumbered = HashMap::new();
        for (slot, edge) in node.captures.iter().enumerate() {
            let value = self.outer_value(edge.value, inner, places)?;
            renumbered.insert(edge.value, value);
            let capture: Edge = self.record(
                value,
                Use {
                    node: id,
                    slot: Slot::Capture(slot),
                },
            );
            placed.captures.push(capture);
        }
        for body in &mut placed.bodies {
            body.graph.renumber_captures(&renumbered);
        }
        for (slot, output) in placed.outputs.iter_mut().enumerate() {
            let Some(nested) = *output else { continue };
            let outer = self.outer_value(nested, inner, places)?;
            self.values[outer.index()].origin = Origin::Node { node: id, slot };
            *output = Some(outer);
        }
        self.nodes.push(Some(placed));
        self.live_nodes += 1;
        Ok(())
    }

    fn outer_value(
        &mut self,
        value: ValueId,
        inner: &Graph,
        places: &mut HashMap<ValueId, ValueId>,
    ) -> Result<ValueId, GraphError> {
        if let Some(place) = places.get(&value) {
            return Ok(*place);
        }
        let entry = inner.value(value);
        let place = match entry.origin() {
            Origin::Outer(outer) => outer,
            _ => self.define(entry.name(), Origin::Nothing, || "a nested graph".to_owned())?,
        };
        places.insert(value, place);
        Ok(place)
    }

    /// In a nested graph: captured values that have other numbers in the graph around it now.
    pub(super) fn renumber_captures(&mut self, numbers: &HashMap<ValueId, ValueId>) {
        for value in &mut self.values {
            if let Origin::Outer(outer) = value.origin
                && let Some(new) = numbers.get(&outer)
            {
                value.origin = Origin::Outer(*new);
            }
        }
    }
}
