//! Finds attention cores: where queries meet keys.

use super::residual::{Marks, Projections};
use super::spelling;
use super::variable::Variable;
use super::work::{MOST_READERS, Work};
use crate::axes::{Axes, Dimension, Label, Note};
use crate::graph::{Graph, Node, NodeId, ValueId};
use crate::onnx::Weights;
use std::cell::RefCell;

/// Queries, keys and what becomes of them.
#[derive(Clone, Debug)]
pub(super) struct Core {
    /// The nodes, from the first product to the second.
    pub nodes: Vec<NodeId>,
    /// Queries, scaled or not.
    pub query: ValueId,
    /// The weighted sum of the values.
    pub output: ValueId,
    /// What the queries count.
    pub query_axis: Dimension,
    /// What the keys count: what the attention mixes.
    pub key_axis: Dimension,
    /// Number of heads, where it is known.
    pub heads: Option<i64>,
}

/// How many nodes are looked at on each side of a softmax: mixed precision, scale, masks and a soft cap stay far below.
const MOST_STEPS: usize = 48;

/// Searches the cores of one graph.
pub(super) struct Search<'s> {
    pub graph: &'s Graph,
    pub weights: &'s Weights,
    pub axes: &'s Axes,
    pub variable: &'s Variable,
    /// The axis of a softmax that names none: the last one since operator set 13, the second before.
    pub softmax_axis: i64,
    /// What the search before a branch has seen.
    pub marks: RefCell<Marks>,
    /// Where projections stand.
    pub projections: Projections,
    /// How much was looked at.
    pub work: Work,
    /// The same for the causes that notes name.
    pub causes: Work,
}

impl Search<'_> {
    /// The core that `node` is the softmax of or is as a whole: `None` where the node is neither.
    pub fn core(&self, id: NodeId) -> Option<Result<Core, Note>> {
        let node = self.graph.node(id);
        if let Some((scores, probabilities)) = self.softmax(node) {
            return Some(self.around_softmax(id, scores, probabilities));
        }
        if let Some(fused) = spelling::fused(node) {
            return Some(self.fused(id, fused));
        }
        if let Some(core) = self.linear(id, node) {
            return Some(Ok(core));
        }
        spelling::is_not_yet_understood(node).then(|| {
            Err(self.note(
                id,
                "this fused attention operator is not understood yet",
                "export without this fusion",
            ))
        })
    }

    /// A note on `node`.
    pub fn note(&self, id: NodeId, reason: impl Into<String>, advice: impl Into<String>) -> Note {
        Note::new(label(self.graph.node(id)), reason, advice)
    }

    /// Scores and probabilities, where `node` is a softmax or the last node of one written out.
    ///
    /// Runtimes write `exp(x - max(x)) / sum(exp(x - max(x)))` where they have no kernel for the element type.
    fn softmax(&self, node: &Node) -> Option<(ValueId, ValueId)> {
        if node.is("Softmax") {
            return Some((node.input(0)?, node.output(0)?));
        }
        if !node.is("Div") {
            return None;
        }
        let (numerator, denominator) = (node.input(0)?, node.input(1)?);
        let (_, exponential) = self.graph.producer(numerator).filter(|(_, node)| node.is("Exp"))?;
        let (_, sum) = self
            .graph
            .producer(denominator)
            .filter(|(_, node)| node.is("ReduceSum"))?;
        (sum.input(0) == Some(numerator)).then_some((exponential.input(0)?, node.output(0)?))
    }

    /// Whether a softmax normalizes over the last axis of its scores.
    fn is_over_last_axis(&self, node: &Node, scores: ValueId) -> bool {
        let rank = self.axes.dimensions(scores).map(|shape| shape.len() as i64);
        match node.input(1).and_then(|sum| self.axes.dimensions(sum)) {
            Some(sums) => {
                let split = sums.split_last();
                split.is_some_and(|(last, outer)| last.is_one() && outer.iter().any(|dim| !dim.is_one()))
            }
            None => {
                let along = node.int("axis", self.softmax_axis);
                along == -1 || rank.is_some_and(|rank| along == rank - 1)
            }
        }
    }

    fn around_softmax(&self, id: NodeId, scores: ValueId, probabilities: ValueId) -> Result<Core, Note> {
        let no_attention = "nothing to do if this is no attention; else report the spelling to pab-patch";
        if !self.is_over_last_axis(self.graph.node(id), scores) {
            return Err(self.note(id, "the softmax is not over the last axis", no_attention));
        }
        let (mut before, mut behind) = (MOST_STEPS, MOST_STEPS);
        let mut nodes = Vec::new();
        let Some(first) = self.first_product(scores, &mut before, &mut nodes) else {
            return Err(self.note(id, "what it normalizes is no product of queries and keys", no_attention));
        };
        nodes.reverse();
        nodes.push(id);
        let Some(second) = self.second_product(probabilities, &mut behind, &mut nodes) else {
            return Err(self.note(id, "its result does not weigh values in a matrix product", no_attention));
        };
        let product = self.graph.node(first);
        let parts = (product.input(0), product.output(0), self.graph.node(second).output(0));
        let (Some(query), Some(scores), Some(output)) = parts else {
            return Err(self.note(id, "a product around it lacks an input or output", no_attention));
        };
        let Some([outer @ .., query_axis, key_axis]) = self.axes.dimensions(scores) else {
            return Err(self.unknown(id, scores, "the shape of its scores is not known"));
        };
        Ok(Core {
            nodes,
            query,
            output,
            query_axis: query_axis.clone(),
            key_axis: key_axis.clone(),
            heads: heads(outer),
        })
    }

    /// Walks back from the softmax to the product of queries and keys. Collects the nodes in between.
    fn first_product(&self, value: ValueId, left: &mut usize, nodes: &mut Vec<NodeId>) -> Option<NodeId> {
        let (id, node) = self.graph.producer(value)?;
        self.work.add(1);
        if spelling::is_product(node) {
            let both = node.inputs().len() == 2 && node.inputs().flatten().all(|input| self.variable.is(input));
            nodes.push(id);
            return if both { Some(id) } else { None };
        }
        let carrier = spelling::score_step(node)?;
        *left = left.checked_sub(1)?;
        let length = nodes.len();
        for slot in carrier.slots() {
            let Some(input) = node.input(*slot).filter(|input| self.variable.is(*input)) else {
                continue;
            };
            nodes.push(id);
            if let Some(found) = self.first_product(input, left, nodes) {
                return Some(found);
            }
            nodes.truncate(length);
        }
        None
    }

    /// Walks on from the softmax to the product with the values.
    fn second_product(&self, value: ValueId, left: &mut usize, nodes: &mut Vec<NodeId>) -> Option<NodeId> {
        for usage in self.graph.value(value).uses().iter().take(MOST_READERS) {
            self.work.add(1);
            let node = self.graph.node(usage.node);
            let crate::graph::Slot::Input(slot) = usage.slot else {
                continue;
            };
            if spelling::is_product(node) && slot == 0 && node.input(1).is_some_and(|values| self.variable.is(values)) {
                nodes.push(usage.node);
                return Some(usage.node);
            }
            let carries = spelling::probability_step(node).is_some_and(|carrier| carrier.slots().contains(&slot));
            if let Some(output) = node.output(0).filter(|_| carries) {
                *left = left.checked_sub(1)?;
                let length = nodes.len();
                nodes.push(usage.node);
                if let Some(found) = self.second_product(output, left, nodes) {
                    return Some(found);
                }
                nodes.truncate(length);
            }
        }
        None
    }

    fn fused(&self, id: NodeId, fused: spelling::Fused) -> Result<Core, Note> {
        let node = self.graph.node(id);
        let (Some(query), Some(output)) = (node.input(fused.query), node.output(0)) else {
            return Err(self.note(id, "it has no query or output", "check the model with onnx.checker"));
        };
        let key = node.input(fused.key).unwrap_or(query);
        let unknown = |value| move || self.unknown(id, value, "the shape of its queries or keys is not known");
        let (queries, keys) = (
            self.axes.dimensions(query).ok_or_else(unknown(query))?,
            self.axes.dimensions(key).ok_or_else(unknown(key))?,
        );
        let heads_attribute = Some(node.int(fused.heads, 0)).filter(|heads| *heads > 0);
        let (query_axis, key_axis, heads) = match (queries, keys) {
            // Packed with keys and values: [batch, tokens, heads, 3, head].
            ([_, tokens, heads, _, _], _) if key == query => (tokens, tokens, heads.size().as_number()),
            ([_, heads, tokens, _], [_, _, keys, _]) => (tokens, keys, heads.size().as_number()),
            ([_, tokens, _], [_, keys, _]) => (tokens, keys, heads_attribute),
            ([_, tokens, _], [_, _, keys, _]) => (tokens, keys, heads_attribute),
            // Keys packed with values: [batch, tokens, heads, 2, head].
            ([_, tokens, _], [_, keys, _, _, _]) => (tokens, keys, heads_attribute),
            _ => {
                return Err(self.note(
                    id,
                    "its queries and keys have a layout that is not understood",
                    "report it",
                ));
            }
        };
        let (query_axis, key_axis) = (query_axis.clone(), key_axis.clone());
        Ok(Core {
            nodes: vec![id],
            query,
            output,
            query_axis,
            key_axis,
            heads,
        })
    }
}

/// Heads stand in an axis of their own, or behind the batch in the first one.
pub(super) fn heads(outer: &[Dimension]) -> Option<i64> {
    let last = outer.last()?.factors().last()?;
    let channels = last.origin == crate::axes::Origin::Axis(Label::Channels);
    last.size.as_number().filter(|_| channels)
}

/// Longer names are shown by their beginning: a file may name ten thousand attentions with a megabyte each.
const LONGEST_NAME: usize = 200;

/// Operator and name of a node, for people.
pub(super) fn label(node: &Node) -> String {
    let shown = |name: &str| match name.char_indices().nth(LONGEST_NAME) {
        Some((end, _)) => format!("{}…", name.get(..end).unwrap_or_default()),
        None => name.to_owned(),
    };
    let operator = match node.domain() {
        "" => shown(node.operator()),
        domain => format!("{}:{}", shown(domain), shown(node.operator())),
    };
    match node.name() {
        "" => operator,
        name => format!("{operator} `{}`", shown(name)),
    }
}
