//! What a flow costs: bytes that a rank sends in the mean of a run's steps.

use super::flow::{Flow, Follower, asks_for_sizes};
use super::placement::Placement;
use super::volume::{mean_all_gather, mean_all_to_all};
use crate::axes::{Bindings, Size};
use crate::graph::{NodeId, Slot, ValueId};
use crate::onnx::tensor::element_bits;
use std::collections::BTreeMap;

/// What a value is exchanged into.
struct Conversion {
    value: ValueId,
    from: Placement,
    to: Placement,
    /// The share of steps in which it is.
    share: f64,
}

impl Follower<'_> {
    /// What the readers of a value need, each once. Those that only ask for its shape need nothing.
    pub(super) fn needs(&self, value: ValueId, flow: &Flow) -> Vec<Placement> {
        self.readers(value, flow).into_iter().map(|(need, _)| need).collect()
    }

    /// The same, each with the nodes that need it.
    fn readers(&self, value: ValueId, flow: &Flow) -> Vec<(Placement, Vec<NodeId>)> {
        let mut needs: Vec<(Placement, Vec<NodeId>)> = Vec::new();
        for usage in self.graph.value(value).uses() {
            let node = self.graph.node(usage.node);
            if asks_for_sizes(node) {
                continue;
            }
            let need = match usage.slot {
                Slot::Input(slot) => flow.steps[usage.node.index()]
                    .as_ref()
                    .and_then(|step| step.needs.get(slot).cloned().flatten()),
                Slot::Capture(_) => None,
            };
            match needs.iter_mut().find(|(other, _)| *other == need) {
                Some((_, nodes)) => nodes.push(usage.node),
                None => needs.push((need, vec![usage.node])),
            }
        }
        needs
    }

    /// Bytes that a rank sends for what nodes read and give.
    pub(super) fn local_cost(&self, nodes: &[NodeId], flow: &Flow) -> f64 {
        let mut values: Vec<ValueId> = Vec::new();
        for id in nodes {
            let node = self.graph.node(*id);
            values.extend(node.inputs().flatten());
            values.extend(node.outputs().iter().flatten());
        }
        values.sort_unstable();
        values.dedup();
        let conversions = values.into_iter().flat_map(|value| self.conversions_of(value, flow));
        conversions.map(|conversion| self.cost(&conversion)).sum()
    }

    /// The exchanges of one value.
    fn conversions_of(&self, value: ValueId, flow: &Flow) -> Vec<Conversion> {
        let (gives, held) = (&flow.gives[value.index()], &flow.held[value.index()]);
        let mut conversions = Vec::new();
        if gives != held {
            conversions.push(Conversion {
                value,
                from: gives.clone(),
                to: held.clone(),
                share: self.branches.share(self.graph.producer(value).map(|(id, _)| id)),
            });
        }
        let needs = self.readers(value, flow).into_iter();
        let mut needs: Vec<(Placement, f64)> = needs.map(|(need, nodes)| (need, self.branches.share(nodes))).collect();
        let is_kept = flow.kept.as_ref().is_some_and(|kept| kept.output == value);
        if self.graph.value(value).is_output() && !is_kept {
            needs.retain(|(need, _)| need.is_some());
            needs.push((None, 1.0));
        }
        conversions.extend(
            needs
                .into_iter()
                .filter(|(need, _)| need != held)
                .map(|(need, share)| Conversion {
                    value,
                    from: held.clone(),
                    to: need,
                    share,
                }),
        );
        conversions
    }

    /// All exchanges, by value.
    fn conversions(&self, flow: &Flow) -> Vec<Conversion> {
        let values = self.graph.values();
        values.flat_map(|(value, _)| self.conversions_of(value, flow)).collect()
    }

    /// Bytes that a rank sends in the mean of steps, where open sizes have a value that is usual for tests of cost.
    fn cost(&self, conversion: &Conversion) -> f64 {
        let bytes = self.bytes(conversion.value).unwrap_or_else(|| Size::number(1));
        let open = Bindings {
            values: BTreeMap::new(),
            otherwise: Some(16),
        };
        let bytes = bytes.evaluate(&open).unwrap_or(1).max(1) as f64;
        let ranks = self.wanted.ranks;
        let sent = match (&conversion.from, &conversion.to) {
            (None, _) => 0.0,
            (Some(_), None) => mean_all_gather(bytes, ranks),
            (Some(_), Some(_)) => mean_all_to_all(bytes, ranks),
        };
        sent * conversion.share
    }

    /// Bytes that a rank sends in the mean of a run's steps.
    pub(super) fn total_cost(&self, flow: &Flow) -> f64 {
        let conversions = self.conversions(flow);
        conversions.iter().map(|conversion| self.cost(conversion)).sum()
    }

    /// Bytes of a whole value.
    fn bytes(&self, value: ValueId) -> Option<Size> {
        let bits = self.facts.element_type(value).and_then(element_bits).unwrap_or(32);
        let elements = Size::product(self.facts.sizes(value)?);
        Some(&elements * &Size::number(i64::from(bits / 8)))
    }
}
