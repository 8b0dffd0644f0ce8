//! Which values change with the model's inputs, beyond their shapes.

use super::cut::tokens;
use crate::axes::Axes;
use crate::graph::{Graph, NodeId, Origin, ValueId};

/// Tells weights, scales and shape arithmetic from activations.
///
/// A value is *variable* where an input's elements reach it; what follows from weights, or from the shapes of inputs
/// alone (TorchScript computes `√head` from a `Shape`), is *constant*.
pub(super) struct Variable {
    values: Vec<bool>,
    /// Which of them follow from an input that has tokens: latent or text, not a timestep.
    tokens: Vec<bool>,
    /// The place of each node in topological order.
    places: Vec<u32>,
}

impl Variable {
    /// Follows the inputs through `graph`, whose nodes in order are `order`.
    pub fn of(graph: &Graph, order: &[NodeId], axes: &Axes) -> Variable {
        let mut values = vec![false; graph.value_bound()];
        let mut with_tokens = vec![false; graph.value_bound()];
        let mut places = vec![0u32; graph.node_bound()];
        for input in graph.inputs() {
            values[input.index()] = true;
            with_tokens[input.index()] = !tokens(axes, input).is_empty();
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
            let sees = variable && node.reads().any(|value| with_tokens[value.index()]);
            for output in node.outputs().iter().flatten() {
                values[output.index()] = variable;
                with_tokens[output.index()] = sees;
            }
        }
        Variable {
            values,
            tokens: with_tokens,
            places,
        }
    }

    /// Whether latent or text reach `value`; else it conditions only, by timestep or class.
    pub fn sees_tokens(&self, value: ValueId) -> bool {
        self.tokens.get(value.index()).copied().unwrap_or(true)
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
