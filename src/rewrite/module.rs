//! A module that is taken out of the graph and put back inside an `If`.

use super::shape_arithmetic::ShapeArithmetic;
use super::{Choice, RewriteError};
use crate::graph::{Graph, GraphError, NewNode, Position, ValueId};
use crate::onnx::messages::ValueInfoProto;

/// A module outside its graph.
pub(super) struct Module {
    /// The site's name.
    pub name: String,
    /// The values that it served, in the order of the cuts. Nothing computes them until [`Module::put_back`].
    pub values: Vec<ValueId>,
    /// Its nodes. The outputs are the values, in the same order; more may be added.
    pub compute: Graph,
    /// Where it stood.
    pub after: Option<Position>,
}

impl Module {
    /// Takes the module of a site out, but for the sizes that can be computed outside. `types` are those of its cuts.
    ///
    /// # Errors
    /// [`RewriteError::Entangled`] where it is not there alone.
    pub fn take(
        graph: &mut Graph,
        choice: &Choice<'_>,
        sizes: &ShapeArithmetic,
        types: impl IntoIterator<Item = ValueInfoProto>,
    ) -> Result<Module, RewriteError> {
        let name = choice.site.name.clone();
        let values = choice.cuts.values();
        let nodes = sizes.inside(graph, graph.exclusive_to(&values));
        let is_apart = |value: &ValueId| {
            let producer = graph.producer(*value);
            producer.is_some_and(|(producer, _)| nodes.contains(&producer))
        };
        if !values.iter().all(is_apart) {
            return Err(RewriteError::Entangled { site: name });
        }
        let after = nodes.last().map(|node| graph.position(*node));
        let outputs: Vec<_> = values.iter().copied().zip(types).collect();
        let compute = graph.extract(&nodes, &outputs, &format!("pab.compute.{name}"))?;
        Ok(Module {
            name,
            values,
            compute,
            after,
        })
    }

    /// An empty graph for the branch that broadcasts.
    pub fn broadcast(&self, graph: &Graph) -> Graph {
        graph.nested(&format!("pab.broadcast.{}", self.name))
    }

    /// Puts the module back as an `If` on `flag`, whose branches have one output for each name of `outputs`: first those
    /// that take the places of the module's values. Gives the outputs.
    pub fn put_back(
        self,
        graph: &mut Graph,
        flag: ValueId,
        broadcast: Graph,
        outputs: Vec<String>,
    ) -> Result<Vec<ValueId>, GraphError> {
        let node = graph.add_node(NewNode {
            operator: "If".to_owned(),
            name: format!("pab.{}", self.name),
            inputs: vec![Some(flag)],
            outputs,
            bodies: vec![
                ("then_branch".to_owned(), broadcast),
                ("else_branch".to_owned(), self.compute),
            ],
            after: self.after,
            ..NewNode::default()
        })?;
        let outputs: Vec<ValueId> = graph.node(node).outputs().iter().copied().flatten().collect();
        for (value, output) in self.values.iter().zip(&outputs) {
            graph.replace_uses(*value, *output);
        }
        Ok(outputs)
    }
}
