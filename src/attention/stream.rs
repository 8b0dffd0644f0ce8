//! The residual streams through a span of blocks: where each enters it, and where it leaves it.

use super::core::label;
use super::site::{Addition, Site};
use super::span::SpanError;
use super::spelling::{Step, branch_step};
use super::variable::Variable;
use crate::axes::{Axes, Dimension};
use crate::graph::{Graph, Node, NodeId, ValueId};
use std::collections::HashSet;

/// As many nodes stand between two additions to a stream at most: changes of layout, and branches that are no site.
const MOST_BETWEEN: usize = 48;

/// As many streams run through a span at most.
const MOST_STREAMS: usize = 8;

/// A stream through a span.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    /// Where it comes from.
    pub source: Source,
    /// What it is after the last branch of the span.
    pub last: ValueId,
    /// The node that added that branch.
    pub addition: NodeId,
}

/// Where a stream of a span comes from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// The value before the first branch.
    Before(ValueId),
    /// Streams of the span that a `Concat` put together inside it, each as it was before its first branch.
    Joined {
        /// The `Concat`.
        node: NodeId,
        /// Each part before the first branch, and as the `Concat` reads it.
        parts: Vec<(ValueId, ValueId)>,
    },
}

/// Where a walk back from a stream ended.
enum End {
    /// At what the stream with this number was after its last branch.
    At(usize),
    /// At a `Concat` of these streams.
    Join(NodeId, Vec<usize>),
    /// Before the span.
    Before,
}

/// Follows the streams of one graph.
pub(super) struct Streams<'s> {
    pub graph: &'s Graph,
    pub axes: &'s Axes,
    pub variable: &'s Variable,
}

impl Streams<'_> {
    /// The streams through `sites`, which follow each other.
    pub fn through<'a>(&self, sites: impl IntoIterator<Item = &'a Site>) -> Result<Vec<Stream>, SpanError> {
        let mut streams: Vec<Stream> = Vec::new();
        for addition in sites.into_iter().flat_map(|site| &site.additions) {
            let last = self.after(addition)?;
            let addition_node = addition.node;
            match self.end(addition.before, &streams) {
                End::At(number) => {
                    if let Some(stream) = streams.get_mut(number) {
                        (stream.last, stream.addition) = (last, addition_node);
                    }
                }
                // Skip connections of U-shaped models are projected together with the stream.
                End::Before => match self.computed_from(addition.before, &streams)? {
                    Some(number) => {
                        if let Some(stream) = streams.get_mut(number) {
                            (stream.last, stream.addition) = (last, addition_node);
                        }
                    }
                    None => streams.push(Stream {
                        source: Source::Before(addition.before),
                        last,
                        addition: addition_node,
                    }),
                },
                End::Join(node, parts) => {
                    let joined = self.joined(node, &parts, &streams)?;
                    streams = leave_out(streams, &parts);
                    streams.push(Stream {
                        source: joined,
                        last,
                        addition: addition_node,
                    });
                }
            }
            if streams.len() > MOST_STREAMS {
                return Err(SpanError::TooManyStreams { most: MOST_STREAMS });
            }
        }
        Ok(streams)
    }

    /// The stream that `base` is computed from in any other way than by changes of layout.
    fn computed_from(&self, base: ValueId, streams: &[Stream]) -> Result<Option<usize>, SpanError> {
        let place = |value: ValueId| self.graph.producer(value).map(|(id, _)| self.variable.place(id));
        let Some(earliest) = streams.iter().filter_map(|stream| place(stream.last)).min() else {
            return Ok(None);
        };
        let mut reached: Vec<usize> = Vec::new();
        let mut seen: HashSet<NodeId> = HashSet::new();
        let mut pending = vec![base];
        while let Some(value) = pending.pop() {
            if let Some(number) = streams.iter().position(|stream| stream.last == value) {
                reached.push(number);
                continue;
            }
            let Some((id, node)) = self.graph.producer(value) else {
                continue;
            };
            if self.variable.place(id) > earliest && seen.insert(id) {
                pending.extend(node.reads().filter(|read| self.variable.is(*read)));
            }
        }
        reached.sort_unstable();
        reached.dedup();
        match reached.as_slice() {
            [] => Ok(None),
            [number] => Ok(Some(*number)),
            _ => Err(SpanError::BeginsInside {
                node: self
                    .graph
                    .producer(base)
                    .map_or_else(String::new, |(_, node)| label(node)),
            }),
        }
    }

    fn after(&self, addition: &Addition) -> Result<ValueId, SpanError> {
        addition.after.ok_or_else(|| SpanError::Fused {
            node: label(self.graph.node(addition.node)),
        })
    }

    /// What a `Concat` inside a span puts together, before the span.
    fn joined(&self, node: NodeId, parts: &[usize], streams: &[Stream]) -> Result<Source, SpanError> {
        let concat = self.graph.node(node);
        let pairs = concat.inputs().flatten().zip(parts).map(|(input, part)| {
            match streams.get(*part).map(|stream| &stream.source) {
                Some(Source::Before(base)) => Ok((*base, input)),
                _ => Err(SpanError::BeginsInside { node: label(concat) }),
            }
        });
        Ok(Source::Joined {
            node,
            parts: pairs.collect::<Result<_, _>>()?,
        })
    }

    /// Walks back from a stream before an addition to what an earlier addition made it.
    fn end(&self, value: ValueId, streams: &[Stream]) -> End {
        let mut value = value;
        for _ in 0..MOST_BETWEEN {
            if let Some(number) = streams.iter().position(|stream| stream.last == value) {
                return End::At(number);
            }
            let Some((id, node)) = self.graph.producer(value) else {
                break;
            };
            if branch_step(node) == Some(Step::Concatenate) {
                return self.end_of_join(id, node, streams);
            }
            match self.before_layout(value).or_else(|| self.before_branch(node)) {
                Some(before) => value = before,
                None => break,
            }
        }
        End::Before
    }

    /// The same where a `Concat` puts streams together, or parts of one stream.
    fn end_of_join(&self, id: NodeId, node: &Node, streams: &[Stream]) -> End {
        let mut ends = Vec::new();
        for input in node.inputs() {
            let Some(input) = input.filter(|_| ends.len() < MOST_STREAMS) else {
                return End::Before;
            };
            match self.end_of_part(input, streams) {
                Some(end) => ends.push(end),
                None => return End::Before,
            }
        }
        match ends.first() {
            // Hunyuan and Flux part the stream behind each block and put it together again.
            Some((first, _)) if ends.iter().all(|(end, part)| *part && end == first) => End::At(*first),
            Some(_) if ends.iter().all(|(_, part)| !part) => End::Join(id, ends.iter().map(|(end, _)| *end).collect()),
            _ => End::Before,
        }
    }

    /// The stream that an input of a `Concat` is, and whether it is a part of it only.
    fn end_of_part(&self, value: ValueId, streams: &[Stream]) -> Option<(usize, bool)> {
        let (mut value, mut is_part) = (value, false);
        for _ in 0..MOST_BETWEEN {
            if let Some(number) = streams.iter().position(|stream| stream.last == value) {
                return Some((number, is_part));
            }
            let (_, node) = self.graph.producer(value)?;
            value = match branch_step(node) {
                Some(Step::Part) => {
                    is_part = true;
                    node.input(0)?
                }
                _ => self.before_layout(value)?,
            };
        }
        None
    }

    /// What a value is another layout of, or the sum or product of with a constant.
    fn before_layout(&self, value: ValueId) -> Option<ValueId> {
        let (_, node) = self.graph.producer(value)?;
        match branch_step(node)? {
            Step::Regroup | Step::Keep => node.input(0).filter(|input| self.variable.is(*input)),
            Step::Sum | Step::Scale => {
                let mut variable = node.inputs().flatten().filter(|input| self.variable.is(*input));
                variable.next().filter(|_| variable.next().is_none())
            }
            _ => None,
        }
    }

    /// The stream before a branch that is no site was added to it: what was computed first.
    fn before_branch(&self, node: &Node) -> Option<ValueId> {
        if branch_step(node) != Some(Step::Sum) {
            return None;
        }
        let place = |value: ValueId| self.graph.producer(value).map(|(id, _)| self.variable.place(id));
        let (one, other) = (node.input(0)?, node.input(1)?);
        Some(if place(one) > place(other) { other } else { one })
    }

    /// `base` and what it is another layout of, the nearest first.
    pub fn layouts_before(&self, base: ValueId) -> Vec<ValueId> {
        let layouts = std::iter::successors(Some(base), |value| self.before_layout(*value));
        layouts.take(MOST_BETWEEN).collect()
    }

    /// `last` and what other layouts of it follow, the nearest first, as long as nobody reads what is between.
    pub fn layouts_after(&self, last: ValueId) -> Vec<ValueId> {
        let next = |value: &ValueId| {
            let entry = self.graph.value(*value);
            let mut users = entry.uses().iter().map(|usage| self.graph.node(usage.node));
            let user = users.find(|node| !node.is("Shape"))?;
            let others = users.any(|node| !node.is("Shape"));
            let output = user.output(0)?;
            (!entry.is_output() && !others && self.before_layout(output) == Some(*value)).then_some(output)
        };
        std::iter::successors(Some(last), next).take(MOST_BETWEEN).collect()
    }

    /// Whether two values have the same element type and their axes count the same, in the same order.
    pub fn are_alike(&self, one: ValueId, other: ValueId) -> bool {
        let (Some(dims), Some(others)) = (self.axes.dimensions(one), self.axes.dimensions(other)) else {
            return false;
        };
        let counts_alike = |(one, other): (&Dimension, &Dimension)| {
            let labels = |dim: &Dimension| -> Vec<_> {
                let factors = dim.factors().iter().cloned();
                let dims = factors.map(|factor| Dimension::of([factor]).labels());
                dims.filter(|labels| !labels.is_empty()).collect()
            };
            let (labels, others) = (labels(one), labels(other));
            one.size() == other.size() && (labels == others || labels.is_empty() || others.is_empty())
        };
        dims.len() == others.len()
            && dims.iter().zip(others).all(counts_alike)
            && self.axes.element_type(one) == self.axes.element_type(other)
    }
}

fn leave_out(streams: Vec<Stream>, numbers: &[usize]) -> Vec<Stream> {
    let kept = streams.into_iter().enumerate();
    let kept = kept.filter(|(number, _)| !numbers.contains(number));
    kept.map(|(_, stream)| stream).collect()
}
