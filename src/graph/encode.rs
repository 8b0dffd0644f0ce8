//! Graph → message.

use super::{Graph, GraphError, Node, NodeId};
use crate::onnx::messages::{GraphProto, NodeProto};

impl Graph {
    /// Writes the graph: nodes in topological order, and otherwise everything as it was read.
    ///
    /// # Errors
    /// [`GraphError::Cycle`] where no order exists.
    pub fn into_proto(mut self) -> Result<GraphProto, GraphError> {
        let order = self.topological_order()?;
        let mut nodes = Vec::with_capacity(order.len());
        for id in order {
            if let Some(node) = self.nodes[id.index()].take() {
                nodes.push(self.write_node(node)?);
            }
        }
        let mut proto = std::mem::take(&mut self.header);
        proto.node = nodes;
        proto.input = self.inputs.into_iter().map(|(_, info)| info).collect();
        proto.output = self.outputs.into_iter().map(|(_, info)| info).collect();
        proto.value_info = self.infos.into_iter().map(|(_, info)| info).collect();
        for value in self.initializers {
            proto
                .initializer
                .extend(self.values[value.index()].initializer.take().map(|tensor| *tensor));
        }
        for value in self.sparse_initializers {
            proto
                .sparse_initializer
                .extend(self.values[value.index()].sparse.take().map(|tensor| *tensor));
        }
        Ok(proto)
    }

    fn write_node(&self, node: Node) -> Result<NodeProto, GraphError> {
        let mut proto = node.proto;
        let name = |value: Option<super::ValueId>| value.map_or(String::new(), |value| self.value(value).name.clone());
        proto.input = node
            .inputs
            .iter()
            .map(|edge| name(edge.map(|edge| edge.value)))
            .collect();
        proto.output = node.outputs.iter().map(|value| name(*value)).collect();
        for body in node.bodies {
            let graph = body.graph.into_proto()?;
            if let Some(attribute) = proto.attribute.get_mut(body.attribute) {
                match body.element {
                    None => attribute.g = Some(Box::new(graph)),
                    Some(_) => attribute.graphs.push(graph),
                }
            }
        }
        Ok(proto)
    }

    /// Nodes by name or operator, for messages.
    pub(super) fn labels(&self, nodes: impl Iterator<Item = NodeId>) -> Vec<String> {
        nodes.map(|node| self.label(node)).collect()
    }
}
