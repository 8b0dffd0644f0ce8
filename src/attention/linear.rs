//! Linear attention: keys and values are multiplied first, over all tokens, and the queries read what came of it.
//!
//! `φ(Q) (φ(K)ᵀ V)` has no softmax (Katharopoulos and others, [arXiv 2006.16236](https://arxiv.org/abs/2006.16236)); Sana's
//! φ is ReLU. A first product sums over tokens and has none left, a second one gives them back. What normalizes the result
//! is a product of its own, or a row of ones that stands behind the values and comes apart again behind the second product.

use super::core::{Core, Search, heads};
use super::cut::token_labels;
use super::spelling::{self, Step, branch_step};
use super::work::MOST_READERS;
use crate::axes::{Dimension, Label};
use crate::graph::{Node, NodeId, Slot, ValueId};

/// How many nodes are looked at between the two products, and how many behind them for the row of ones.
const MOST_STEPS: usize = 24;

/// What a product of two tensors does to their dimensions.
struct Product {
    /// What it sums over.
    summed: Dimension,
    /// What the result has from each operand alone.
    free: [Dimension; 2],
    /// What both operands have and the result keeps.
    outer: Vec<Dimension>,
}

/// Whether a dimension counts tokens.
fn has_tokens(dimension: &Dimension) -> bool {
    !dimension.labels().intersection(token_labels()).is_empty()
}

impl Search<'_> {
    /// The core whose first product `node` is: that of keys and values.
    pub(super) fn linear(&self, id: NodeId, node: &Node) -> Option<Core> {
        if !spelling::is_product(node) || !self.multiplies_activations(node) {
            return None;
        }
        let first = self.product(node)?;
        if !has_tokens(&first.summed) || first.free.iter().any(has_tokens) {
            return None;
        }
        let mut nodes = vec![id];
        let mut left = MOST_STEPS;
        let (second, side) = self.reading_product(node.output(0)?, &mut left, &mut nodes)?;
        let reading = self.graph.node(second);
        let product = self.product(reading)?;
        let query = reading.input(1 - side)?;
        let [one, other] = product.free;
        let query_axis = if side == 0 { other } else { one };
        let output = self.without_ones(reading.output(0)?, &mut nodes)?;
        Some(Core {
            nodes,
            query,
            output,
            query_axis,
            key_axis: first.summed,
            heads: heads(&product.outer),
        })
    }

    /// Whether a product is one of two different activations.
    fn multiplies_activations(&self, node: &Node) -> bool {
        let variable = node.inputs().flatten().all(|input| self.variable.is(input));
        variable && node.inputs().len() == 2 && node.input(0) != node.input(1)
    }

    /// Walks on from keys times values to the product with the queries, and says which operand the walk came in by.
    fn reading_product(&self, value: ValueId, left: &mut usize, nodes: &mut Vec<NodeId>) -> Option<(NodeId, usize)> {
        for usage in self.graph.value(value).uses().iter().take(MOST_READERS) {
            *left = left.checked_sub(1)?;
            self.work.add(1);
            let Slot::Input(slot) = usage.slot else { continue };
            let node = self.graph.node(usage.node);
            if spelling::is_product(node) && slot < 2 && self.multiplies_activations(node) {
                let product = self.product(node)?;
                let asking = product.free.get(1 - slot)?;
                if !has_tokens(&product.summed) && has_tokens(asking) {
                    nodes.push(usage.node);
                    return Some((usage.node, slot));
                }
                continue;
            }
            let carries = slot == 0 || node.is("Mul");
            let passes = matches!(branch_step(node), Some(Step::Regroup | Step::Keep | Step::Scale));
            if let Some(output) = node.output(0).filter(|_| passes && carries) {
                let length = nodes.len();
                nodes.push(usage.node);
                if let Some(found) = self.reading_product(output, left, nodes) {
                    return Some(found);
                }
                nodes.truncate(length);
            }
        }
        None
    }

    /// The weighted sum divided by its last row, where values had a row of ones; else `output` as it is.
    fn without_ones(&self, output: ValueId, nodes: &mut Vec<NodeId>) -> Option<ValueId> {
        let uses = self.graph.value(output).uses();
        let mut parts: Vec<NodeId> = uses.iter().take(MOST_READERS).map(|usage| usage.node).collect();
        parts.retain(|id| !self.graph.node(*id).is("Shape"));
        parts.sort_unstable();
        parts.dedup();
        let is_part = |id: &NodeId| branch_step(self.graph.node(*id)) == Some(Step::Part);
        let values: Vec<ValueId> = parts
            .iter()
            .flat_map(|id| self.graph.node(*id).outputs().iter().flatten().copied())
            .collect();
        let [one, other] = *values.as_slice() else {
            return Some(output);
        };
        if !parts.iter().all(is_part) {
            return Some(output);
        }
        let division = match (self.divided(one), self.divided(other)) {
            (Some(division), _) if self.is_divisor(other, division, nodes) => division,
            (_, Some(division)) if self.is_divisor(one, division, nodes) => division,
            _ => return Some(output),
        };
        nodes.extend(parts);
        nodes.push(division);
        self.graph.node(division).output(0)
    }

    /// The only division of `value`.
    fn divided(&self, value: ValueId) -> Option<NodeId> {
        let [usage] = self.graph.value(value).uses() else {
            return None;
        };
        let is_division = self.graph.node(usage.node).is("Div") && usage.slot == Slot::Input(0);
        is_division.then_some(usage.node)
    }

    /// Whether `value`, kept from zero, is what node `division` divides by. Collects the nodes in between.
    fn is_divisor(&self, value: ValueId, division: NodeId, nodes: &mut Vec<NodeId>) -> bool {
        let Some(divisor) = self.graph.node(division).input(1) else {
            return false;
        };
        let (mut value, mut between) = (value, Vec::new());
        for _ in 0..MOST_STEPS {
            if value == divisor {
                nodes.extend(between);
                return true;
            }
            let [usage] = self.graph.value(value).uses() else { break };
            let node = self.graph.node(usage.node);
            let alone = node.inputs().flatten().filter(|input| self.variable.is(*input)).count() == 1;
            match node.output(0) {
                Some(output) if alone && spelling::score_step(node).is_some() => {
                    between.push(usage.node);
                    value = output;
                }
                _ => break,
            }
        }
        false
    }

    fn product(&self, node: &Node) -> Option<Product> {
        let shape = |slot: usize| self.axes.dimensions(node.input(slot)?);
        if node.is("Einsum") {
            return product_of_letters(node.text("equation")?, [shape(0)?, shape(1)?]);
        }
        let turned = |name: &str| node.int(name, 0) != 0;
        let [outer @ .., one, other] = shape(0)? else {
            return None;
        };
        let (rows, left) = if turned("transA") { (other, one) } else { (one, other) };
        let [others @ .., one, other] = shape(1)? else {
            return None;
        };
        let (right, columns) = if turned("transB") { (other, one) } else { (one, other) };
        let outer = if others.len() > outer.len() { others } else { outer };
        Some(Product {
            summed: labelled(left, right),
            free: [rows.clone(), columns.clone()],
            outer: outer.to_vec(),
        })
    }
}

/// Of two views of a dimension, the one that says what it counts.
fn labelled(one: &Dimension, other: &Dimension) -> Dimension {
    let is_plain = one
        .labels()
        .without(crate::axes::Labels::of([Label::Channels]))
        .is_empty();
    if is_plain { other.clone() } else { one.clone() }
}

/// The same of an `Einsum` without ellipsis.
fn product_of_letters(equation: &str, shapes: [&[Dimension]; 2]) -> Option<Product> {
    let equation: String = equation.chars().filter(|letter| !letter.is_whitespace()).collect();
    let (inputs, output) = equation.split_once("->")?;
    let (left, right) = inputs.split_once(',')?;
    let at = |term: &str, shape: &[Dimension], letter: char| {
        let place = term.chars().position(|other| other == letter)?;
        shape.get(place).cloned()
    };
    let (mut summed, mut outer) = (Vec::new(), Vec::new());
    let mut free = [Vec::new(), Vec::new()];
    let only_right = right.chars().filter(|letter| !left.contains(*letter));
    for letter in left.chars().chain(only_right) {
        let views = (at(left, shapes[0], letter), at(right, shapes[1], letter));
        match (views, output.contains(letter)) {
            ((Some(one), Some(other)), true) => outer.push(labelled(&one, &other)),
            ((Some(one), Some(other)), false) => summed.push(labelled(&one, &other)),
            ((Some(one), None), true) => free[0].push(one),
            ((None, Some(other)), true) => free[1].push(other),
            _ => return None,
        }
    }
    let free = free.map(|dimensions| Dimension::product(&dimensions));
    Some(Product {
        summed: Dimension::product(&summed),
        free,
        outer,
    })
}
