//! Puts the nodes of a nested graph in the place of the node that holds it.

use super::{Graph, GraphError, InfoPlace, NodeId, Origin, ValueId};
use std::collections::HashMap;

impl Graph {
    /// Replaces `node` by the graph in its attribute `attribute`: an `If` by one of its branches.
    ///
    /// Values of the nested graph that are its outputs take the place and the name of the node's outputs. Nothing
    /// happens where the node is gone or holds no such graph. The nested graph must not have inputs of its own.
    ///
    /// # Errors
    /// [`GraphError::NameTaken`] where a name of the nested graph is taken here.
    pub fn inline_body(&mut self, node: NodeId, attribute: &str) -> Result<(), GraphError> {
        if !self.contains(node) || self.node(node).body(attribute).is_none() {
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
        for value in std::mem::take(&mut inner.sparse_initializers) {
            if let Some(tensor) = inner.values[value.index()].sparse.take() {
                let place = self.define(inner.value(value).name(), Origin::Initializer)?;
                self.values[place.index()].sparse = Some(tensor);
                self.sparse_initializers.push(place);
                places.insert(value, place);
            }
        }
        for id in inner.topological_order()? {
            if let Some(mut nested) = inner.nodes[id.index()].take() {
                nested.position = position;
                self.adopt(nested, |graph, value| graph.outer_value(value, &inner, &mut places))?;
            }
        }
        // Types too: the runtime optimizes less where it has to do without them.
        for (value, mut info) in std::mem::take(&mut inner.infos) {
            let Some(place) = places.get(&value).copied() else {
                continue;
            };
            let entry = &mut self.values[place.index()];
            if entry.info.is_none() {
                entry.info = Some(InfoPlace::Info(self.infos.len()));
                info.name = Some(entry.name.clone());
                self.infos.push((place, info));
            }
        }
        for (value, output) in passed {
            let given = self.outer_value(value, &inner, &mut places)?;
            self.replace_uses(output, given);
        }
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
            _ => self.define(entry.name(), Origin::Nothing)?,
        };
        places.insert(value, place);
        Ok(place)
    }
}
