//! Which values change with the model's inputs, beyond their shapes.

use crate::graph::{Graph, NodeId, Origin, ValueId};

/// Tells weights, scales and shape arithmetic from activations.
///
/// A value is *variable* where an input's elements reach it; what follows from weights, or from the shapes of inputs
/// alone (TorchScript computes `√head` from a `Shape`), is *constant*.
pub(super) struct Variable {
    values: Vec<bool>,
    /// The place of each node in topological order.
    places: Vec<u32>,
}

impl Variable {
    /// Follows the inputs through `graph`, whose nodes in order are `order`.
    pub fn of(graph: &Graph, order: &[NodeId]) -> Variable {
        let mut values = vec![false; graph.value_bound()];
        let mut places = vec![0u32; graph.node_bound()];
        for input in graph.inputs() {
            values[input.index()] = true;
        }
        for (value, entry) in graph.values() {
            if entry.origin() == Origin::Nothing {
                values[value.index()] = true;
            }
        }
        for (place, id) in order.iter().enumerate() {
            let node = graph.node(*id);
            places[id.index()] = place as u32;
            let variable = !node.is("Shape") && !node.is("Size") && node.reads().any(|value| values[value.index()]);
            for output in node.outputs().iter().flatten() {
                values[output.index()] = variable;
            }
        }
        Variable { values, places }
    }

    /// Whether `value` changes with the inputs.
    pub fn is(&self, value: ValueId) -> bool {
        self.values.get(value.index()).copied().unwrap_or(true)
    }

    /// The place of `node` in topological order.
    pub fn place(&self, node: NodeId) -> u32 {
        self.places.get(node.index()).copied().unwrap_or(0)
    }
}
