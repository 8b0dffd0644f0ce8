//! `petgraph`'s traits for [`Graph`]: nodes are operator calls, and an edge leads from a producer to a user.
//!
//! With them the algorithms of `petgraph` run on `&Graph`, and on `petgraph::visit::Reversed(&graph)` for questions
//! about what stands before: `petgraph::algo::dominators::simple_fast(Reversed(&graph), last)` finds, for each node,
//! the nodes through which everything it computes must pass.

use super::{Graph, NodeId};
use petgraph::Direction;
use petgraph::visit::{
    GraphBase, IntoNeighbors, IntoNeighborsDirected, IntoNodeIdentifiers, NodeCount, NodeIndexable, Visitable,
};
use std::collections::HashSet;

impl GraphBase for Graph {
    type NodeId = NodeId;
    type EdgeId = (NodeId, NodeId);
}

impl Graph {
    /// The nodes that read an output of `node`, once an edge.
    pub fn users(&self, node: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let outputs = self.node(node).outputs().iter().flatten();
        outputs.flat_map(|value| self.value(*value).uses().iter().map(|usage| usage.node))
    }

    /// The nodes that `node` reads from, once an edge.
    pub fn producers(&self, node: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        self.node(node)
            .reads()
            .filter_map(|value| Some(self.producer(value)?.0))
    }
}

impl<'g> IntoNeighbors for &'g Graph {
    type Neighbors = Box<dyn Iterator<Item = NodeId> + 'g>;

    fn neighbors(self, node: NodeId) -> Self::Neighbors {
        Box::new(self.users(node))
    }
}

impl<'g> IntoNeighborsDirected for &'g Graph {
    type NeighborsDirected = Box<dyn Iterator<Item = NodeId> + 'g>;

    fn neighbors_directed(self, node: NodeId, direction: Direction) -> Self::NeighborsDirected {
        match direction {
            Direction::Outgoing => Box::new(self.users(node)),
            Direction::Incoming => Box::new(self.producers(node)),
        }
    }
}

impl<'g> IntoNodeIdentifiers for &'g Graph {
    type NodeIdentifiers = Box<dyn Iterator<Item = NodeId> + 'g>;

    fn node_identifiers(self) -> Self::NodeIdentifiers {
        Box::new(self.nodes().map(|(id, _)| id))
    }
}

impl NodeCount for Graph {
    fn node_count(&self) -> usize {
        self.live_nodes
    }
}

impl NodeIndexable for Graph {
    fn node_bound(&self) -> usize {
        self.nodes.len()
    }

    fn to_index(&self, node: NodeId) -> usize {
        node.index()
    }

    fn from_index(&self, index: usize) -> NodeId {
        NodeId(index as u32)
    }
}

impl Visitable for Graph {
    type Map = HashSet<NodeId>;

    fn visit_map(&self) -> Self::Map {
        HashSet::with_capacity(self.live_nodes)
    }

    fn reset_map(&self, map: &mut Self::Map) {
        map.clear();
    }
}
