//! Topological order and dead-code elimination.

use super::{Graph, GraphError, NodeId, Origin};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

impl Graph {
    /// Nodes so that every node stands behind those that it reads from, and otherwise as near to the order of the
    /// file as can be: a sorted file keeps its order.
    ///
    /// # Errors
    /// [`GraphError::Cycle`], naming some nodes of it.
    pub fn topological_order(&self) -> Result<Vec<NodeId>, GraphError> {
        if let Some(order) = self.sorted_already() {
            return Ok(order);
        }
        let mut missing = vec![0u32; self.node_bound()];
        let mut ready = BinaryHeap::new();
        for (id, node) in self.nodes() {
            let needed = node.reads().filter(|value| self.producer(*value).is_some()).count();
            missing[id.index()] = needed as u32;
            if needed == 0 {
                ready.push(Reverse((node.position, id)));
            }
        }
        let mut order = Vec::with_capacity(self.node_count());
        while let Some(Reverse((_, id))) = ready.pop() {
            order.push(id);
            for value in self.node(id).outputs().iter().flatten() {
                for usage in self.value(*value).uses() {
                    let left = &mut missing[usage.node.index()];
                    *left -= 1;
                    if *left == 0 {
                        ready.push(Reverse((self.node(usage.node).position, usage.node)));
                    }
                }
            }
        }
        if order.len() == self.node_count() {
            return Ok(order);
        }
        let stuck = self
            .nodes()
            .map(|(id, _)| id)
            .filter(|id| missing[id.index()] > 0)
            .collect::<Vec<_>>();
        Err(GraphError::Cycle {
            nodes: self.labels(self.circle(&stuck, &missing).into_iter()),
        })
    }

    /// The nodes as they stand in the file, where that is an order: it nearly always is, and takes linear time to see.
    fn sorted_already(&self) -> Option<Vec<NodeId>> {
        let mut order = Vec::with_capacity(self.node_count());
        let mut last = None;
        for (id, node) in self.nodes() {
            let is_next = last.is_none_or(|last| last < node.position);
            let is_behind = |value| match self.producer(value) {
                Some((producer, before)) => producer != id && before.position < node.position,
                None => true,
            };
            if !is_next || !node.reads().all(is_behind) {
                return None;
            }
            last = Some(node.position);
            order.push(id);
        }
        Some(order)
    }

    /// One circle among nodes that wait for each other: walk backwards until a node comes again.
    fn circle(&self, stuck: &[NodeId], missing: &[u32]) -> Vec<NodeId> {
        const SHOWN: usize = 8;
        let mut path: Vec<NodeId> = Vec::new();
        let mut seen = vec![false; self.node_bound()];
        let mut next = stuck.first().copied();
        while let Some(node) = next {
            if seen[node.index()] {
                let start = path.iter().position(|other| *other == node).unwrap_or(0);
                return path.into_iter().skip(start).take(SHOWN).collect();
            }
            seen[node.index()] = true;
            path.push(node);
            next = self
                .node(node)
                .reads()
                .filter_map(|value| Some(self.producer(value)?.0))
                .find(|producer| missing[producer.index()] > 0);
        }
        path.into_iter().take(SHOWN).collect()
    }

    /// Removes every node whose outputs nobody needs, and every initializer that nobody reads.
    ///
    /// Operators of ONNX have no side effects, so what is not read need not run. Returns how many nodes went.
    pub fn eliminate_dead_code(&mut self) -> usize {
        let mut pending: Vec<NodeId> = self.nodes().map(|(id, _)| id).filter(|id| self.is_dead(*id)).collect();
        let mut removed = 0;
        while let Some(id) = pending.pop() {
            if !self.contains(id) || !self.is_dead(id) {
                continue;
            }
            let producers: Vec<NodeId> = self
                .node(id)
                .reads()
                .filter_map(|value| Some(self.producer(value)?.0))
                .collect();
            self.remove_node(id);
            removed += 1;
            pending.extend(producers);
        }
        self.drop_unused_initializers();
        removed
    }

    fn is_dead(&self, node: NodeId) -> bool {
        self.node(node)
            .outputs()
            .iter()
            .flatten()
            .all(|value| self.value(*value).is_unused())
    }

    fn drop_unused_initializers(&mut self) {
        let lists = self.initializers.iter().chain(&self.sparse_initializers);
        let unused = lists.copied().filter(|value| {
            let value = self.value(*value);
            value.is_unused() && value.origin != Origin::Input
        });
        for value in unused.collect::<Vec<_>>() {
            self.undefine(value);
        }
        self.drop_stale_constants();
        self.drop_stale_infos();
    }

    /// Takes constants that are gone off the lists.
    pub(super) fn drop_stale_constants(&mut self) {
        let values = &self.values;
        self.initializers
            .retain(|value| values[value.index()].initializer.is_some());
        self.sparse_initializers
            .retain(|value| values[value.index()].sparse.is_some());
    }

    /// Forgets the types of values that are gone.
    pub(super) fn drop_stale_infos(&mut self) {
        let gone: Vec<bool> = self
            .values
            .iter()
            .map(|value| value.origin == Origin::Nothing && value.is_unused())
            .collect();
        let infos = std::mem::take(&mut self.infos);
        for (value, info) in infos {
            let entry = &mut self.values[value.index()];
            if matches!(entry.info, Some(super::InfoPlace::Info(_))) {
                entry.info = None;
            }
            if !gone[value.index()] && info.r#type.is_some() {
                entry.info.get_or_insert(super::InfoPlace::Info(self.infos.len()));
                self.infos.push((value, info));
            }
        }
    }
}
