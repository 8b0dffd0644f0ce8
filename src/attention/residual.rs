//! The residual stream: additions of a branch to what the branch is computed from.

use super::core::Search;
use super::spelling::{Step, branch_step};
use crate::graph::{Graph, Node, NodeId, ValueId};
use std::collections::HashSet;

/// Which nodes one search has seen: a number for each node, so that a new search forgets the last one in no time.
#[derive(Debug)]
pub(super) struct Marks {
    seen: Vec<u32>,
    search: u32,
}

impl Marks {
    /// For the nodes of `graph`.
    pub fn of(graph: &Graph) -> Marks {
        Marks {
            seen: vec![0; graph.node_bound()],
            search: 0,
        }
    }

    fn begin(&mut self) {
        self.search += 1;
    }

    /// Returns whether the node is new to this search.
    fn mark(&mut self, id: NodeId) -> bool {
        match self.seen.get_mut(id.index()) {
            Some(seen) if *seen != self.search => {
                *seen = self.search;
                true
            }
            _ => false,
        }
    }
}

/// Layout changes that the residual stream is followed through.
const MOST_REGROUPINGS: usize = 12;

/// Branches that start at one place of the stream: attention, a second attention, feed-forward.
const MOST_BRANCHES_AT_ONE_PLACE: usize = 3;

/// As many nodes are looked at between a stream and its branch: a multiple of the longest branch of any known model.
/// Bounds the work for an addition, so that all of them take linear time.
const MOST_LOOKED_AT: usize = 512;

/// The nodes from a residual stream to a branch that is added to it.
pub(super) struct Way {
    /// The nodes that the stream reaches, in topological order.
    pub nodes: Vec<NodeId>,
    /// The stream in its layouts, and the outputs of `nodes`.
    pub values: HashSet<ValueId>,
    /// Whether all of them were looked at; else `nodes` are some before the addition, in no order.
    pub is_whole: bool,
}

impl Search<'_> {
    /// The other one of inputs 0 and 1.
    pub(super) fn other(&self, node: &Node, value: ValueId) -> Option<ValueId> {
        match (node.input(0), node.input(1)) {
            (Some(a), Some(b)) if a == value => Some(b),
            (Some(a), Some(b)) if b == value => Some(a),
            _ => None,
        }
    }

    /// Branch and stream, where `node` adds two different activations of one size. What is computed later is the branch.
    pub(super) fn sides(&self, node: &Node) -> Option<(ValueId, ValueId)> {
        if !matches!(branch_step(node), Some(Step::Sum | Step::SkipNormalize)) {
            return None;
        }
        let (one, other) = (node.input(0)?, node.input(1)?);
        if one == other || !self.variable.is(one) || !self.variable.is(other) {
            return None;
        }
        let place = |value: ValueId| self.graph.producer(value).map(|(id, _)| self.variable.place(id));
        let (branch, stream) = if place(one) > place(other) {
            (one, other)
        } else {
            (other, one)
        };
        (!self.is_stretched(stream, branch) && !self.is_stretched(branch, stream)).then_some((branch, stream))
    }

    /// Whether `value` is broadcast over an axis of `over` that it does not have: modulation, not a stream.
    fn is_stretched(&self, value: ValueId, over: ValueId) -> bool {
        let (Some(small), Some(large)) = (self.axes.dimensions(value), self.axes.dimensions(over)) else {
            return false;
        };
        let mut pairs = small.iter().rev().zip(large.iter().rev());
        small.len() < large.len() || pairs.any(|(small, large)| small.is_one() && !large.is_one())
    }

    /// Whether `source` is computed from `stream`, looked at in any layout.
    ///
    /// Branches that start at one place are added one after the other (SD3.5's two attentions), so that the stream may
    /// hold the sum of others already.
    pub(super) fn derives(&self, source: ValueId, stream: ValueId) -> bool {
        let reaches = |stream: ValueId| self.between(source, &self.layouts(stream)).1;
        self.before_sums(stream).any(reaches)
    }

    /// The nodes from `stream` to `branch`; `None` where `branch` is not computed from `stream`. See [`Self::derives`].
    pub(super) fn way(&self, branch: ValueId, stream: ValueId) -> Option<Way> {
        self.before_sums(stream)
            .find_map(|stream| self.way_from(branch, stream))
    }

    /// `stream`, and what it was before the last branches were added to it.
    fn before_sums(&self, stream: ValueId) -> impl Iterator<Item = ValueId> {
        let earlier = |stream: &ValueId| Some(self.sides(self.graph.producer(*stream)?.1)?.1);
        std::iter::successors(Some(stream), earlier).take(MOST_BRANCHES_AT_ONE_PLACE)
    }

    /// The same from `stream` as it is.
    pub(super) fn way_from(&self, branch: ValueId, stream: ValueId) -> Option<Way> {
        let mut values = self.layouts(stream);
        let (mut before, reaches, is_whole) = self.between(branch, &values);
        if !is_whole {
            return Some(Way {
                nodes: before,
                values,
                is_whole,
            });
        }
        if !reaches {
            return None;
        }
        before.sort_by_key(|id| self.variable.place(*id));
        let mut nodes = Vec::new();
        for id in before {
            let node = self.graph.node(id);
            if node.reads().any(|read| values.contains(&read)) {
                nodes.push(id);
                values.extend(node.outputs().iter().flatten());
            }
        }
        Some(Way {
            nodes,
            values,
            is_whole,
        })
    }

    /// The nodes before `value` that stand behind the stream, whether one of them reads it, and whether they are all.
    fn between(&self, value: ValueId, layouts: &HashSet<ValueId>) -> (Vec<NodeId>, bool, bool) {
        // What stands before the stream in the order cannot be computed from it: the search stays in the branch.
        let producers = layouts.iter().map(|value| {
            let producer = self.graph.producer(*value);
            producer.map(|(id, _)| self.variable.place(id))
        });
        let earliest = producers.min().flatten();
        let mut marks = self.marks.borrow_mut();
        marks.begin();
        let mut nodes = Vec::new();
        let mut reaches = false;
        let mut pending = vec![value];
        while let Some(value) = pending.pop() {
            if layouts.contains(&value) {
                reaches = true;
                continue;
            }
            let Some((id, node)) = self.graph.producer(value) else {
                continue;
            };
            if earliest.is_some_and(|earliest| self.variable.place(id) <= earliest) || !marks.mark(id) {
                continue;
            }
            if nodes.len() == MOST_LOOKED_AT {
                return (nodes, reaches, false);
            }
            nodes.push(id);
            pending.extend(node.reads().filter(|input| self.variable.is(*input)));
        }
        (nodes, reaches, true)
    }

    /// `value`, what it is another layout or element type of, and what a fused addition makes of it.
    fn layouts(&self, value: ValueId) -> HashSet<ValueId> {
        let mut layouts = HashSet::from([value]);
        let mut value = value;
        for _ in 0..MOST_REGROUPINGS {
            let Some((_, node)) = self.graph.producer(value) else {
                break;
            };
            match branch_step(node) {
                Some(Step::Regroup | Step::Keep) => {
                    let Some(input) = node.input(0) else { break };
                    layouts.insert(input);
                    value = input;
                }
                Some(Step::SkipNormalize) => {
                    layouts.extend(node.outputs().iter().flatten());
                    break;
                }
                _ => break,
            }
        }
        layouts
    }
}
