//! The residual stream: additions of a branch to what the branch is computed from.

use super::core::Search;
use super::cut::token_labels;
use super::spelling::{Step, addends, branch_step};
use super::work::IdSet;
use crate::graph::{Graph, Node, NodeId, ValueId};

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

/// The place behind the last projection that each value is computed with; 0 where there is none.
#[derive(Debug)]
pub(super) struct Projections(Vec<u32>);

impl Projections {
    /// For the values of `graph`, whose nodes in order are `order`.
    pub fn of(graph: &Graph, order: &[NodeId]) -> Projections {
        let mut last = vec![0; graph.value_bound()];
        for (place, id) in order.iter().enumerate() {
            let node = graph.node(*id);
            let own = match branch_step(node) {
                Some(Step::Project) => place as u32 + 1,
                _ => 0,
            };
            let before = node.reads().filter_map(|read| last.get(read.index()).copied());
            let behind = before.fold(own, u32::max);
            for output in node.outputs().iter().flatten() {
                if let Some(last) = last.get_mut(output.index()) {
                    *last = behind;
                }
            }
        }
        Projections(last)
    }

    /// The place behind the last projection before `value`.
    fn behind(&self, value: ValueId) -> u32 {
        self.0.get(value.index()).copied().unwrap_or(0)
    }
}

/// Layout changes that the residual stream is followed through.
const MOST_REGROUPINGS: usize = 12;

/// Branches that start at one place of the stream: attention, a second attention, feed-forward.
const MOST_BRANCHES_AT_ONE_PLACE: usize = 3;

/// As many nodes are looked at between a stream and its branch: a multiple of the longest branch of any known model.
/// Bounds the work for an addition, so that all of them take linear time.
const MOST_LOOKED_AT: usize = 512;

/// The same of their inputs: a `Concat` may have any number of them.
const MOST_INPUTS_LOOKED_AT: usize = 4 * MOST_LOOKED_AT;

/// All searches together look at as many nodes and edges for each node of the graph. Exports need fewer than ten.
const STEPS_EACH_NODE: u64 = 64;

/// The least of all these steps, for small graphs.
const FEWEST_STEPS: u64 = 1 << 20;

/// The nodes from a residual stream to a branch that is added to it.
pub(super) struct Way {
    /// The nodes that the stream reaches, in topological order.
    pub nodes: Vec<NodeId>,
    /// The stream in its layouts, and the outputs of `nodes`.
    pub values: IdSet<ValueId>,
    /// Whether all of them were looked at; else `nodes` are some before the addition, in no order.
    pub is_whole: bool,
}

impl Search<'_> {
    /// The other one of the two inputs that `node` adds or multiplies.
    pub(super) fn other(&self, node: &Node, value: ValueId) -> Option<ValueId> {
        let (one, other) = addends(node);
        match (node.input(one), node.input(other)) {
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
        let (one, other) = addends(node);
        let (one, other) = (node.input(one)?, node.input(other)?);
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

    /// Whether a projection can stand between `stream` and `branch`. Most sums of a graph are those of activation functions
    /// and modulations, which have none.
    pub(super) fn has_projection(&self, branch: ValueId, stream: ValueId) -> bool {
        let begins = self.before_sums(stream).flat_map(|stream| self.layouts(stream));
        let places = begins.map(|value| {
            let producer = self.graph.producer(value);
            producer.map_or(0, |(id, _)| self.variable.place(id) + 1)
        });
        self.projections.behind(branch) > places.min().unwrap_or(0)
    }

    /// Whether so much of the graph was looked at that it can be none that an exporter wrote. Nothing more is looked for.
    pub(super) fn is_exhausted(&self) -> bool {
        let most = STEPS_EACH_NODE.saturating_mul(self.graph.node_count() as u64);
        self.work.steps() > most.max(FEWEST_STEPS)
    }

    /// `stream`, and what it was before the last branches were added to it: first by taking for the branch of a sum what
    /// is computed later, then by taking either (branches that start at one place may all be computed before the first of
    /// them is added).
    fn before_sums(&self, stream: ValueId) -> impl Iterator<Item = ValueId> {
        let mut likely = vec![stream];
        let mut others = Vec::new();
        let mut layer = vec![stream];
        for _ in 1..MOST_BRANCHES_AT_ONE_PLACE {
            let mut next = Vec::new();
            for (at, sum) in layer.into_iter().enumerate() {
                let Some((branch, stream)) = self.graph.producer(sum).and_then(|(_, node)| self.sides(node)) else {
                    continue;
                };
                // The first one of a layer was reached by streams alone.
                let is_likely = at == 0 && likely.last() == Some(&sum);
                if is_likely { &mut likely } else { &mut others }.push(stream);
                others.push(branch);
                next.extend([stream, branch]);
            }
            layer = next;
        }
        likely.into_iter().chain(others)
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
    fn between(&self, value: ValueId, layouts: &IdSet<ValueId>) -> (Vec<NodeId>, bool, bool) {
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
        let mut inputs = 0;
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
            inputs += node.inputs().len() + node.captures().len();
            if nodes.len() == MOST_LOOKED_AT || inputs > MOST_INPUTS_LOOKED_AT || self.is_exhausted() {
                return (nodes, reaches, false);
            }
            self.work.add(1 + node.inputs().len());
            nodes.push(id);
            pending.extend(node.reads().filter(|input| self.variable.is(*input)));
        }
        (nodes, reaches, true)
    }

    /// Whether `node` takes some tokens of its input, and all of everything else.
    fn takes_tokens(&self, node: &Node) -> bool {
        let shape = |value: Option<ValueId>| self.axes.dimensions(value?);
        let (Some(whole), Some(part)) = (shape(node.input(0)), shape(node.output(0))) else {
            return false;
        };
        let mut others = whole
            .iter()
            .zip(part)
            .filter(|(whole, part)| whole.size() != part.size());
        let cut = others
            .next()
            .map(|(whole, _)| whole.labels().intersection(token_labels()));
        whole.len() == part.len() && cut.is_some_and(|labels| !labels.is_empty()) && others.next().is_none()
    }

    /// `value`, what it is another layout or element type or some tokens of (the first frame may be gated by itself), and
    /// what a fused addition makes of it.
    fn layouts(&self, value: ValueId) -> IdSet<ValueId> {
        let mut layouts = IdSet::from_iter([value]);
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
                Some(Step::Part) if self.takes_tokens(node) => {
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
