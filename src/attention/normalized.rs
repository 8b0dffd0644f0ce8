//! Normalizations written out: exporters have no operator for every one of them.
//!
//! `x / √(mean(x²) + ε)` and `(x - mean(x)) / √(var(x) + ε)` read a value several times, and one node brings what was read
//! together again.

use super::core::Search;
use super::spelling;
use super::work::IdSet;
use crate::graph::{Node, NodeId, ValueId};

/// Longer ways from a value to its statistic come from no exporter.
const MOST_STEPS: usize = 16;

/// What statistics are made of, beside reductions.
static STEPS: &[&str] = &[
    "Abs",
    "Add",
    "Cast",
    "Clip",
    "Div",
    "Expand",
    "Identity",
    "Max",
    "Mul",
    "Pow",
    "Reciprocal",
    "Sqrt",
    "Sub",
    "Unsqueeze",
];

impl Search<'_> {
    /// The node that brings `value` together with its own statistic, where that is all that `users` do.
    pub(super) fn normalization(&self, value: ValueId, users: &[(NodeId, &Node)]) -> Option<NodeId> {
        users.iter().find_map(|(id, node)| {
            let joins = node.is("Mul") || node.is("Div") || node.is("Sub");
            let statistic = self.other(node, value).filter(|_| joins)?;
            let between = self.statistic(statistic, value)?;
            let inside = |user: &NodeId| user == id || between.contains(user);
            users.iter().all(|(user, _)| inside(user)).then_some(*id)
        })
    }

    /// The nodes from `value` to a statistic of it; `None` where `statistic` is something else.
    pub(super) fn statistic(&self, statistic: ValueId, value: ValueId) -> Option<IdSet<NodeId>> {
        let mut between = IdSet::default();
        let mut reduces = false;
        let mut pending = vec![statistic];
        while let Some(next) = pending.pop() {
            if next == value {
                continue;
            }
            let (id, node) = self.graph.producer(next)?;
            self.work.add(1);
            if !between.insert(id) {
                continue;
            }
            let reduction = spelling::is_reduction(node);
            let known = reduction || node.domain().is_empty() && STEPS.contains(&node.operator());
            if !known || between.len() > MOST_STEPS {
                return None;
            }
            reduces |= reduction;
            pending.extend(node.reads().filter(|read| self.variable.is(*read)));
        }
        reduces.then_some(between)
    }
}
