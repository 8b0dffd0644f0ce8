//! Spans: blocks that follow each other, between two places of the residual streams.
//!
//! What a span of blocks adds to a stream is the stream behind it less the stream before it, if both have one layout.
//! Models that transpose between their blocks (spatial and temporal ones) have the stream in both layouts there, and of
//! these the nearest to the span that fits is taken.

use super::core::label;
use super::cut::{Cut, parts};
use super::site::Sites;
use super::stream::{Source, Stream, Streams};
use super::variable::Variable;
use crate::axes::{Axes, Size, display_shape};
use crate::graph::{Graph, GraphError, ModelGraph, NodeId, ValueId};
use std::collections::HashSet;
use std::ops::RangeInclusive;

/// A run of blocks that can be computed or left out as one.
#[derive(Clone, Debug)]
pub struct Span {
    /// The blocks, as [`Sites::layers`] counts them.
    pub blocks: RangeInclusive<usize>,
    /// The sites of these blocks, as indices of [`Sites::sites`].
    pub sites: Vec<usize>,
    /// The residual streams through it: at least one; latent, text, others in the order of computing.
    pub streams: Vec<SpanStream>,
    /// What it begins at: the streams before it, and those that end within.
    pub starts: Vec<ValueId>,
    /// Its nodes, in topological order: what serves the streams behind it alone and stands behind the streams before it,
    /// or behind neither.
    pub nodes: Vec<NodeId>,
}

/// A residual stream through a span.
#[derive(Clone, Debug)]
pub struct SpanStream {
    /// The stream before the span.
    pub entry: SpanEntry,
    /// The stream behind it, of the same shape and element type.
    pub exit: Cut,
}

/// A residual stream before a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpanEntry {
    /// A value.
    Value(ValueId),
    /// Streams that the span puts together: what `concat` would make of the values as they are before the span.
    Joined {
        /// A `Concat` inside the span.
        concat: NodeId,
        /// A value for each of its inputs.
        parts: Vec<ValueId>,
    },
}

impl SpanEntry {
    /// The values.
    pub fn values(&self) -> &[ValueId] {
        match self {
            SpanEntry::Value(value) => std::slice::from_ref(value),
            SpanEntry::Joined { parts, .. } => parts,
        }
    }

    /// The same, to be replaced.
    pub fn values_mut(&mut self) -> &mut [ValueId] {
        match self {
            SpanEntry::Value(value) => std::slice::from_mut(value),
            SpanEntry::Joined { parts, .. } => parts,
        }
    }
}

/// Why blocks are no span.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum SpanError {
    /// The model has no such blocks.
    #[error("the model has {count} blocks, and none of these is among them")]
    NoBlocks {
        /// How many blocks there are.
        count: usize,
    },
    /// Behind an addition the stream cannot be told from the normalization.
    #[error(
        "{node} adds and normalizes in one, and does not give the stream by itself; export the model without this fusion"
    )]
    Fused {
        /// The node.
        node: String,
    },
    /// More streams than any known model has.
    #[error("more than {most} residual streams run through them; take fewer blocks")]
    TooManyStreams {
        /// The most.
        most: usize,
    },
    /// The stream has another layout behind the blocks than before them.
    #[error(
        "the residual stream is {before} before them and {behind} behind them, at {node}; begin or end with another block"
    )]
    Layout {
        /// The node that makes the stream behind the blocks.
        node: String,
        /// What its axes count before.
        before: String,
        /// What they count behind.
        behind: String,
    },
    /// A stream begins within the blocks.
    #[error("a residual stream begins within them, at {node}; begin with a block behind it or end before it")]
    BeginsInside {
        /// The node that makes it.
        node: String,
    },
    /// Something within the blocks is needed behind them: a skip connection of a U-shaped model.
    #[error(
        "{node} is computed within them, and {user} behind them needs its result (as skip connections do); take blocks \
         that no skip connection leaves"
    )]
    UsedOutside {
        /// The node within.
        node: String,
        /// Who needs it.
        user: String,
    },
    /// The shape or element type of the stream is not known.
    #[error("shape or element type of the residual stream at {node} are not known; `pab-patch inspect` says why")]
    Unknown {
        /// The node that makes it.
        node: String,
    },
    /// The graph itself.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

impl Sites {
    /// The span of the blocks `blocks`, as [`Sites::layers`] counts them.
    ///
    /// # Errors
    /// [`SpanError`] where they cannot be left out as one.
    pub fn span(&self, model: &ModelGraph, axes: &Axes, blocks: RangeInclusive<usize>) -> Result<Span, SpanError> {
        let graph = &model.graph;
        let layers = self.layers(graph);
        let within = layers.iter().enumerate().filter(|(_, layer)| blocks.contains(layer));
        let sites: Vec<usize> = within.map(|(site, _)| site).collect();
        let order = graph.topological_order()?;
        let variable = Variable::of(graph, &order, axes);
        let search = Streams {
            graph,
            axes,
            variable: &variable,
        };
        let streams = search.through(sites.iter().filter_map(|site| self.sites.get(*site)))?;
        let (streams, unused): (Vec<Stream>, Vec<Stream>) = used_behind(graph, streams);
        if streams.is_empty() {
            let count = layers.last().map_or(0, |last| last + 1);
            return Err(SpanError::NoBlocks { count });
        }
        let aligned = streams.iter().map(|stream| search.aligned(stream));
        let aligned = aligned.collect::<Result<Vec<(SpanEntry, ValueId)>, _>>()?;
        let exits: Vec<ValueId> = aligned.iter().map(|(_, exit)| *exit).collect();
        let entries: Vec<ValueId> = aligned.iter().flat_map(|(entry, _)| entry.values().to_vec()).collect();
        // What serves a stream that ends in the span stays outside as far as it stands before it.
        let mut starts = entries.clone();
        starts.extend(unused.iter().flat_map(|stream| bases(&stream.source)));
        let nodes = graph.exclusive_between(&starts, &exits);
        search.refuse_leaks(&entries, &exits, &nodes)?;
        let mut streams = Vec::with_capacity(aligned.len());
        let parts = parts(axes, &exits);
        for ((entry, exit), part) in aligned.into_iter().zip(&parts) {
            let mut exit = search.cut(exit)?;
            if parts.len() > 1 {
                exit.part = *part;
            }
            streams.push(SpanStream { entry, exit });
        }
        streams.sort_by_key(|stream| stream.exit.part);
        Ok(Span {
            blocks,
            sites,
            streams,
            starts,
            nodes,
        })
    }
}

/// The streams that somebody behind the span reads, and the others: the text of a model's last block is often one.
fn used_behind(graph: &Graph, streams: Vec<Stream>) -> (Vec<Stream>, Vec<Stream>) {
    let last: Vec<ValueId> = streams.iter().map(|stream| stream.last).collect();
    let entries: Vec<ValueId> = streams.iter().flat_map(|stream| bases(&stream.source)).collect();
    let nodes: HashSet<NodeId> = graph.exclusive_between(&entries, &last).into_iter().collect();
    let is_used = |stream: &Stream| {
        let value = graph.value(stream.last);
        value.is_output() || value.uses().iter().any(|usage| !nodes.contains(&usage.node))
    };
    streams.into_iter().partition(is_used)
}

fn bases(source: &Source) -> Vec<ValueId> {
    match source {
        Source::Before(base) => vec![*base],
        Source::Joined { parts, .. } => parts.iter().map(|(base, _)| *base).collect(),
    }
}

impl Streams<'_> {
    /// Entry and exit of a stream, of one layout and as near to the blocks as can be.
    fn aligned(&self, stream: &Stream) -> Result<(SpanEntry, ValueId), SpanError> {
        let behind = self.layouts_after(stream.last);
        match &stream.source {
            Source::Before(base) => {
                let before = self.layouts_before(*base);
                let pairs = behind
                    .iter()
                    .flat_map(|exit| before.iter().map(move |entry| (*entry, *exit)));
                let fitting = pairs.into_iter().find(|(entry, exit)| self.are_alike(*entry, *exit));
                let (entry, exit) = fitting.ok_or_else(|| self.layouts_differ(*base, stream))?;
                Ok((SpanEntry::Value(entry), exit))
            }
            Source::Joined { node, parts } => {
                let concat = *node;
                let joined = self.graph.node(concat).output(0);
                let joined = joined.ok_or_else(|| self.layouts_differ(stream.last, stream))?;
                let exit = behind.into_iter().find(|exit| self.are_alike(joined, *exit));
                let exit = exit.ok_or_else(|| self.layouts_differ(joined, stream))?;
                let parts = parts.iter().map(|(base, input)| {
                    let mut before = self.layouts_before(*base).into_iter();
                    let entry = before.find(|entry| self.are_alike(*entry, *input));
                    entry.ok_or_else(|| self.layouts_differ(*base, stream))
                });
                let parts = parts.collect::<Result<_, _>>()?;
                Ok((SpanEntry::Joined { concat, parts }, exit))
            }
        }
    }

    fn layouts_differ(&self, base: ValueId, stream: &Stream) -> SpanError {
        let shown = |value| self.axes.dimensions(value).map(display_shape);
        match (shown(base), shown(stream.last)) {
            (Some(before), Some(behind)) => SpanError::Layout {
                node: label(self.graph.node(stream.addition)),
                before,
                behind,
            },
            _ => SpanError::Unknown {
                node: label(self.graph.node(stream.addition)),
            },
        }
    }

    /// Refuses spans that other nodes need something of than their exits, and those of which an entry is made inside.
    fn refuse_leaks(&self, entries: &[ValueId], exits: &[ValueId], nodes: &[NodeId]) -> Result<(), SpanError> {
        let dependent = self.between(entries, exits);
        let inside: HashSet<NodeId> = nodes.iter().copied().collect();
        for entry in entries {
            if let Some((_, node)) = self.graph.producer(*entry)
                && self
                    .before(*entry)
                    .iter()
                    .any(|id| inside.contains(id) || dependent.contains(id))
            {
                return Err(SpanError::BeginsInside { node: label(node) });
            }
        }
        // The last of them that is not inside is the one that somebody outside needs.
        let mut leaking: Vec<NodeId> = dependent.into_iter().filter(|id| !inside.contains(id)).collect();
        leaking.sort_by_key(|id| std::cmp::Reverse(self.variable.place(*id)));
        let Some(first) = leaking.first() else {
            return Ok(());
        };
        let node = self.graph.node(*first);
        let outputs = node.outputs().iter().flatten().map(|output| self.graph.value(*output));
        let mut users = outputs.flat_map(|output| output.uses());
        let user = users.find(|usage| !inside.contains(&usage.node));
        Err(SpanError::UsedOutside {
            node: label(node),
            user: user.map_or_else(
                || "the model's output".to_owned(),
                |usage| label(self.graph.node(usage.node)),
            ),
        })
    }

    /// The nodes that `value` is computed with.
    fn before(&self, value: ValueId) -> HashSet<NodeId> {
        let mut before = HashSet::new();
        let mut pending = vec![value];
        while let Some(value) = pending.pop() {
            if let Some((id, node)) = self.graph.producer(value)
                && before.insert(id)
            {
                pending.extend(node.reads());
            }
        }
        before
    }

    /// The nodes on a way from `entries` to `exits`.
    fn between(&self, entries: &[ValueId], exits: &[ValueId]) -> HashSet<NodeId> {
        let mut before: HashSet<NodeId> = HashSet::new();
        let mut order = Vec::new();
        let mut pending = exits.to_vec();
        while let Some(value) = pending.pop() {
            if entries.contains(&value) {
                continue;
            }
            if let Some((id, node)) = self.graph.producer(value)
                && before.insert(id)
            {
                order.push(id);
                pending.extend(node.reads());
            }
        }
        order.sort_by_key(|id| self.variable.place(*id));
        let mut behind: HashSet<ValueId> = entries.iter().copied().collect();
        let mut between = HashSet::new();
        for id in order {
            let node = self.graph.node(id);
            if node.reads().any(|read| behind.contains(&read)) {
                behind.extend(node.outputs().iter().flatten());
                between.insert(id);
            }
        }
        between
    }

    fn cut(&self, value: ValueId) -> Result<Cut, SpanError> {
        let sizes = self
            .axes
            .sizes(value)
            .filter(|sizes| !sizes.iter().any(Size::has_unknown));
        match (sizes, self.axes.element_type(value)) {
            (Some(shape), Some(element_type)) => Ok(Cut {
                value,
                element_type,
                shape,
                part: super::cut::Part::Whole,
            }),
            _ => Err(SpanError::Unknown {
                node: self
                    .graph
                    .producer(value)
                    .map_or_else(String::new, |(_, node)| label(node)),
            }),
        }
    }
}
