//! Which dimensions of an operator's inputs and outputs go together: the table that placements follow.
//!
//! A [`Link`] is one index that the operator runs over, with every dimension that it stands in. Divided among ranks, each
//! rank runs over its part, and has of the linked dimensions the same part; everything else it needs whole. Operators
//! that regroup dimensions, or set them one behind the other, are followed by `step.rs` itself.

use super::facts::Operation;
use crate::axes::Size;

/// One index of an operator. Its dimensions all have one size, which is not 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    /// Slot and dimension of each input that has it. Where an input has size 1 instead, it is needed whole.
    pub inputs: Vec<(usize, usize)>,
    /// Slot and dimension of each output that has it. None where the operator sums over it.
    pub outputs: Vec<(usize, usize)>,
    /// Whether a sum over parts of it gives the whole result when the ranks' results are added.
    pub adds_up: bool,
}

/// How an operator is followed.
#[derive(Clone, Copy)]
pub(super) enum Spelling {
    /// By its links.
    Linked(fn(&Operation<'_>) -> Option<Vec<Link>>),
    /// It regroups the dimensions of its first input.
    Regroup,
    /// It sets its inputs one behind the other.
    Concat,
    /// It takes a part of its first input.
    Slice,
    /// It takes its first input apart.
    Split,
    /// It asks for sizes, and takes no look at the data.
    Sizes,
}

/// The line of an operator; `None` where nothing is known of it.
pub(super) fn spelling(domain: &str, name: &str) -> Option<Spelling> {
    let place = TABLE
        .binary_search_by_key(&(domain, name), |(domain, name, _)| (*domain, *name))
        .ok()?;
    TABLE.get(place).map(|(_, _, spelling)| *spelling)
}

/// Both views of a dimension have the size, which says something.
fn same(one: &Size, other: &Size) -> bool {
    one == other && !one.is_one()
}

/// Pairs of dimensions of the first input and the first output.
fn pairs(operation: &Operation<'_>, pairs: impl IntoIterator<Item = (usize, usize)>) -> Option<Vec<Link>> {
    let (from, to) = (operation.input(0)?, operation.output(0)?);
    let same = pairs
        .into_iter()
        .filter(|(one, other)| matches!((from.get(*one), to.get(*other)), (Some(a), Some(b)) if same(a, b)));
    Some(
        same.map(|(one, other)| Link {
            inputs: vec![(0, one)],
            outputs: vec![(0, other)],
            adds_up: false,
        })
        .collect(),
    )
}

/// Every dimension of the result, with those that are broadcast to it.
fn elementwise(operation: &Operation<'_>) -> Option<Vec<Link>> {
    broadcast_before(operation, operation.output(0)?.len())
}

/// The same of the first `count` dimensions.
fn broadcast_before(operation: &Operation<'_>, count: usize) -> Option<Vec<Link>> {
    let result = operation.output(0)?;
    let mut links = Vec::new();
    for (dim, size) in result.iter().enumerate().take(count).filter(|(_, size)| !size.is_one()) {
        let mut link = Link {
            outputs: vec![(0, dim)],
            ..Link::default()
        };
        let mut fits = true;
        for slot in 0..operation.node.inputs().len() {
            if operation.node.input(slot).is_none() {
                continue;
            }
            let shape = operation.input(slot)?;
            let Some(place) = (dim + shape.len()).checked_sub(result.len()) else {
                continue;
            };
            match shape.get(place) {
                Some(other) if same(other, size) => link.inputs.push((slot, place)),
                Some(other) if !other.is_one() => fits = false,
                _ => {}
            }
        }
        if fits {
            links.push(link);
        }
    }
    Some(links)
}

/// Each dimension of the first input by itself.
fn unary(operation: &Operation<'_>) -> Option<Vec<Link>> {
    pairs(operation, (0..operation.output(0)?.len()).map(|dim| (dim, dim)))
}

/// All dimensions but the last ones, from attribute `axis` on.
fn normalization(operation: &Operation<'_>) -> Option<Vec<Link>> {
    let first = operation.axis(-1, operation.input(0)?.len())?;
    pairs(operation, (0..first).map(|dim| (dim, dim)))
}

/// All dimensions but the last one.
fn rows(operation: &Operation<'_>) -> Option<Vec<Link>> {
    let last = operation.input(0)?.len().checked_sub(1)?;
    pairs(operation, (0..last).map(|dim| (dim, dim)))
}

/// All dimensions but attribute `axis`. Before operator set 13 everything behind it was normalized, too.
fn softmax(operation: &Operation<'_>) -> Option<Vec<Link>> {
    let rank = operation.input(0)?.len();
    if operation.facts.opset() < 13 {
        let first = operation.axis(1, rank)?;
        return pairs(operation, (0..first).map(|dim| (dim, dim)));
    }
    let along = operation.axis(-1, rank)?;
    pairs(operation, (0..rank).filter(|dim| *dim != along).map(|dim| (dim, dim)))
}

/// The batch alone.
fn batch_only(operation: &Operation<'_>) -> Option<Vec<Link>> {
    pairs(operation, [(0, 0)])
}

/// The batch and the channels.
fn each_channel(operation: &Operation<'_>) -> Option<Vec<Link>> {
    pairs(operation, [(0, 0), (1, 1)])
}

fn transpose(operation: &Operation<'_>) -> Option<Vec<Link>> {
    let rank = operation.input(0)?.len();
    let order = match operation.node.ints("perm") {
        Some(order) => order.iter().map(|place| usize::try_from(*place).ok()).collect(),
        None => Some((0..rank).rev().collect::<Vec<usize>>()),
    }?;
    pairs(operation, order.into_iter().enumerate().map(|(to, from)| (from, to)))
}

/// Dimensions that stay, and those that are made: each rank makes its part.
fn expand(operation: &Operation<'_>) -> Option<Vec<Link>> {
    let (from, to) = (operation.input(0)?, operation.output(0)?);
    let links = to.iter().enumerate().filter(|(_, size)| !size.is_one());
    let links = links.filter_map(|(dim, size)| {
        let place = (dim + from.len()).checked_sub(to.len());
        let before = place.and_then(|place| from.get(place));
        let inputs = match (before, place) {
            (Some(before), Some(place)) if same(before, size) => vec![(0, place)],
            (Some(before), _) if !before.is_one() => return None,
            _ => Vec::new(),
        };
        Some(Link {
            inputs,
            outputs: vec![(0, dim)],
            adds_up: false,
        })
    });
    Some(links.collect())
}

fn reduce(operation: &Operation<'_>) -> Option<Vec<Link>> {
    let rank = operation.input(0)?.len();
    let gone = match operation.node.input(1).is_some() || operation.node.ints("axes").is_some() {
        true => operation.axes("axes", 1, rank)?,
        false => (0..rank).collect(),
    };
    let keeps = operation.node.int("keepdims", 1) != 0;
    let mut next = 0;
    let mut kept = Vec::new();
    for dim in 0..rank {
        if !gone.contains(&dim) {
            kept.push((dim, next));
        }
        if keeps || !gone.contains(&dim) {
            next += 1;
        }
    }
    pairs(operation, kept)
}

fn gather(operation: &Operation<'_>) -> Option<Vec<Link>> {
    let (data, indices, result) = (operation.input(0)?, operation.input(1)?, operation.output(0)?);
    let along = operation.axis(0, data.len())?;
    let mut links = Vec::new();
    let mut link = |slot: usize, shape: &[Size], from: usize, to: usize| {
        if matches!((shape.get(from), result.get(to)), (Some(a), Some(b)) if same(a, b)) {
            links.push(Link {
                inputs: vec![(slot, from)],
                outputs: vec![(0, to)],
                adds_up: false,
            });
        }
    };
    for dim in (0..data.len()).filter(|dim| *dim != along) {
        let to = if dim < along { dim } else { dim + indices.len() - 1 };
        link(0, data, dim, to);
    }
    for dim in 0..indices.len() {
        link(1, indices, dim, along + dim);
    }
    Some(links)
}

/// Rows, columns, what is summed, and what stands before: `[…, rows, summed] × […, summed, columns]`.
fn matmul(operation: &Operation<'_>) -> Option<Vec<Link>> {
    if operation.node.int("transBatchA", 0) != 0 || operation.node.int("transBatchB", 0) != 0 {
        return None;
    }
    product(
        operation,
        operation.node.int("transA", 0) != 0,
        operation.node.int("transB", 0) != 0,
    )
}

fn product(operation: &Operation<'_>, left_turned: bool, right_turned: bool) -> Option<Vec<Link>> {
    let (left, right, result) = (operation.input(0)?, operation.input(1)?, operation.output(0)?);
    if left.len() < 2 || right.len() < 2 {
        return None;
    }
    let ends = |shape: &[Size], turned: bool| {
        let (one, other) = (shape.len() - 2, shape.len() - 1);
        if turned { (other, one) } else { (one, other) }
    };
    let (rows, summed) = ends(left, left_turned);
    let (summed_too, columns) = ends(right, right_turned);
    let rank = result.len();
    let mut links = Vec::new();
    for (dim, size) in result.iter().enumerate().take(rank.checked_sub(2)?) {
        let at = |shape: &[Size]| {
            let place = (dim + shape.len()).checked_sub(rank)?;
            same(shape.get(place)?, size).then_some(place)
        };
        let inputs = [(0, at(left)), (1, at(right))];
        links.push(Link {
            inputs: inputs
                .into_iter()
                .filter_map(|(slot, dim)| Some((slot, dim?)))
                .collect(),
            outputs: vec![(0, dim)],
            adds_up: false,
        });
    }
    let bias = operation.node.is("Gemm").then(|| operation.input(2)).flatten();
    let of_bias = |from_end: usize, size: &Size| {
        let dim = bias?.len().checked_sub(from_end)?;
        same(bias?.get(dim)?, size).then_some((2, dim))
    };
    links.push(Link {
        inputs: [(0, rows)].into_iter().chain(of_bias(2, &left[rows])).collect(),
        outputs: vec![(0, rank - 2)],
        adds_up: false,
    });
    links.push(Link {
        inputs: [(1, columns)].into_iter().chain(of_bias(1, &right[columns])).collect(),
        outputs: vec![(0, rank - 1)],
        adds_up: false,
    });
    links.push(Link {
        inputs: vec![(0, summed), (1, summed_too)],
        outputs: Vec::new(),
        // A bias is added once, behind the sum: see `rewrite::split`.
        adds_up: bias.is_none() || operation.node.attribute("beta").is_none_or(|beta| beta.f == Some(1.0)),
    });
    links.retain(|link| match link.inputs.first() {
        Some((slot, dim)) => operation
            .input(*slot)
            .and_then(|shape| shape.get(*dim))
            .is_some_and(|size| !size.is_one()),
        None => false,
    });
    Some(links)
}

/// Batch, and the channels of the result where they stand in one group. Windows of one entry are moved over parts, too.
fn convolution(operation: &Operation<'_>) -> Option<Vec<Link>> {
    let (data, weight, result) = (operation.input(0)?, operation.input(1)?, operation.output(0)?);
    let mut kept = vec![(0, 0)];
    let strides = operation.node.ints("strides").unwrap_or_default();
    for dim in 2..data.len() {
        let window = weight.get(dim).is_some_and(Size::is_one);
        let stride = strides.get(dim - 2).is_none_or(|stride| *stride == 1);
        if window && stride {
            kept.push((dim, dim));
        }
    }
    let mut links = pairs(operation, kept)?;
    if operation.node.int("group", 1) == 1 && same(weight.first()?, result.get(1)?) {
        let bias = operation.node.input(2).map(|_| (2, 0));
        links.push(Link {
            inputs: [(1, 0)].into_iter().chain(bias).collect(),
            outputs: vec![(0, 1)],
            adds_up: false,
        });
    }
    Some(links)
}

/// A link for each letter.
fn einsum(operation: &Operation<'_>) -> Option<Vec<Link>> {
    let equation: String = operation.node.text("equation")?.split_whitespace().collect();
    let (terms, result) = equation.split_once("->")?;
    if equation.contains('.') {
        return None;
    }
    let terms: Vec<&str> = terms.split(',').collect();
    let mut letters: Vec<char> = terms.concat().chars().collect();
    letters.sort_unstable();
    letters.dedup();
    let places = |term: &str, slot: usize, letter: char| -> Vec<(usize, usize)> {
        let places = term.chars().enumerate().filter(|(_, other)| *other == letter);
        places.map(|(dim, _)| (slot, dim)).collect()
    };
    let link = |letter: char| {
        let inputs: Vec<_> = terms
            .iter()
            .enumerate()
            .flat_map(|(slot, term)| places(term, slot, letter))
            .collect();
        let (slot, dim) = *inputs.first()?;
        let size = operation.input(slot)?.get(dim)?;
        let outputs = places(result, 0, letter);
        (!size.is_one()).then_some(Link {
            adds_up: outputs.is_empty(),
            inputs,
            outputs,
        })
    };
    Some(letters.into_iter().filter_map(link).collect())
}

/// The standard's `Attention` over `[batch, heads, tokens, head]`: batch, heads and the tokens of the queries.
fn attention(operation: &Operation<'_>) -> Option<Vec<Link>> {
    let (query, result) = (operation.input(0)?, operation.output(0)?);
    if query.len() != 4 || result.len() != 4 || operation.node.inputs().len() > 4 {
        return tokens_of_queries(operation);
    }
    let link = |dim: usize, slots: &[usize]| {
        let size = query.get(dim)?;
        let mut inputs = vec![(0, dim)];
        for slot in slots {
            match operation.input(*slot)?.get(dim) {
                Some(other) if same(other, size) => inputs.push((*slot, dim)),
                _ => return None,
            }
        }
        if operation.node.input(3).is_some() {
            let mask = operation.input(3)?;
            let place = (dim + mask.len()).checked_sub(4);
            match place.and_then(|place| Some((place, mask.get(place)?))) {
                Some((place, other)) if same(other, size) => inputs.push((3, place)),
                Some((_, other)) if !other.is_one() => return None,
                _ => {}
            }
        }
        Some(Link {
            inputs,
            outputs: vec![(0, dim)],
            adds_up: false,
        })
    };
    let links = [link(0, &[1, 2]), link(1, &[1, 2]), link(2, &[])];
    Some(
        links
            .into_iter()
            .flatten()
            .filter(|link| query_is_divisible(query, link))
            .collect(),
    )
}

fn query_is_divisible(query: &[Size], link: &Link) -> bool {
    link.inputs
        .first()
        .and_then(|(_, dim)| query.get(*dim))
        .is_some_and(|size| !size.is_one())
}

/// Attentions whose heads stand within the channels: the batch, and without a mask the tokens of the queries.
fn tokens_of_queries(operation: &Operation<'_>) -> Option<Vec<Link>> {
    let query = operation.input(0)?;
    if query.len() != 3 || operation.node.inputs().flatten().count() > 3 {
        return None;
    }
    let at = |slot: usize| matches!(operation.input(slot).and_then(|shape| shape.first()), Some(size) if same(size, &query[0]));
    let mut links = Vec::new();
    if at(1) && at(2) {
        links.push(Link {
            inputs: vec![(0, 0), (1, 0), (2, 0)],
            outputs: vec![(0, 0)],
            adds_up: false,
        });
    }
    if operation.node.input(1).is_some() && operation.node.input(2).is_some() && !query[1].is_one() {
        links.push(Link {
            inputs: vec![(0, 1)],
            outputs: vec![(0, 1)],
            adds_up: false,
        });
    }
    Some(links)
}

/// Sum and normalized sum of two inputs: outputs 0 and 3.
fn skip_normalization(operation: &Operation<'_>) -> Option<Vec<Link>> {
    let rank = operation.input(0)?.len();
    let links = (0..rank.checked_sub(1)?).filter_map(|dim| {
        let size = operation.input(0)?.get(dim)?;
        let equal = |slot: usize| matches!(operation.input(slot), Some(shape) if shape.len() == rank && same(&shape[dim], size));
        let sum = operation.node.output(3).map(|_| (3, dim));
        equal(1).then(|| Link {
            inputs: vec![(0, dim), (1, dim)],
            outputs: [(0, dim)].into_iter().chain(sum).collect(),
            adds_up: false,
        })
    });
    Some(links.collect())
}

/// Dimensions that are not repeated, and those that come from one entry.
fn tile(operation: &Operation<'_>) -> Option<Vec<Link>> {
    expand(operation)
}

/// Dimensions without padding.
fn pad(operation: &Operation<'_>) -> Option<Vec<Link>> {
    unary(operation)
}

/// Sums along one axis.
fn cumulative(operation: &Operation<'_>) -> Option<Vec<Link>> {
    let rank = operation.input(0)?.len();
    let [along] = *operation.axes("axis", 1, rank)?.as_slice() else {
        return None;
    };
    pairs(operation, (0..rank).filter(|dim| *dim != along).map(|dim| (dim, dim)))
}

/// Exchanges along other axes of the mesh: dimensions that keep their size.
fn exchange(operation: &Operation<'_>) -> Option<Vec<Link>> {
    let rank = operation.input(0)?.len();
    let place = |name: &str| {
        operation
            .node
            .attribute(name)?
            .i
            .and_then(|axis| usize::try_from(axis).ok())
    };
    let touched = ["axis", "split_axis", "concat_axis"].map(place);
    let untouched = (0..rank).filter(|dim| !touched.contains(&Some(*dim)));
    pairs(operation, untouched.map(|dim| (dim, dim)))
}

use Spelling::{Concat, Linked, Regroup, Sizes, Slice, Split};

const MS: &str = "com.microsoft";
/// The domain of the collectives.
pub(super) const PAB: &str = "ai.pab";

#[rustfmt::skip]
static TABLE: &[(&str, &str, Spelling)] = &[
    ("", "Abs", Linked(unary)),
    ("", "Add", Linked(elementwise)),
    ("", "And", Linked(elementwise)),
    ("", "Attention", Linked(attention)),
    ("", "Cast", Linked(unary)),
    ("", "Ceil", Linked(unary)),
    ("", "Clip", Linked(unary)),
    ("", "Concat", Concat),
    ("", "Conv", Linked(convolution)),
    ("", "Cos", Linked(unary)),
    ("", "CumSum", Linked(cumulative)),
    ("", "Div", Linked(elementwise)),
    ("", "Dropout", Linked(unary)),
    ("", "Einsum", Linked(einsum)),
    ("", "Elu", Linked(unary)),
    ("", "Equal", Linked(elementwise)),
    ("", "Erf", Linked(unary)),
    ("", "Exp", Linked(unary)),
    ("", "Expand", Linked(expand)),
    ("", "Flatten", Regroup),
    ("", "Floor", Linked(unary)),
    ("", "Gather", Linked(gather)),
    ("", "Gelu", Linked(unary)),
    ("", "Gemm", Linked(matmul)),
    ("", "GlobalAveragePool", Linked(each_channel)),
    ("", "Greater", Linked(elementwise)),
    ("", "GreaterOrEqual", Linked(elementwise)),
    ("", "GroupNormalization", Linked(batch_only)),
    ("", "HardSigmoid", Linked(unary)),
    ("", "HardSwish", Linked(unary)),
    ("", "Identity", Linked(unary)),
    ("", "InstanceNormalization", Linked(each_channel)),
    ("", "IsInf", Linked(unary)),
    ("", "IsNaN", Linked(unary)),
    ("", "LayerNormalization", Linked(normalization)),
    ("", "LeakyRelu", Linked(unary)),
    ("", "Less", Linked(elementwise)),
    ("", "LessOrEqual", Linked(elementwise)),
    ("", "Log", Linked(unary)),
    ("", "LpNormalization", Linked(softmax)),
    ("", "MatMul", Linked(matmul)),
    ("", "Max", Linked(elementwise)),
    ("", "MaxPool", Linked(each_channel)),
    ("", "Mean", Linked(elementwise)),
    ("", "Min", Linked(elementwise)),
    ("", "Mish", Linked(unary)),
    ("", "Mod", Linked(elementwise)),
    ("", "Mul", Linked(elementwise)),
    ("", "Neg", Linked(unary)),
    ("", "Not", Linked(unary)),
    ("", "Or", Linked(elementwise)),
    ("", "PRelu", Linked(elementwise)),
    ("", "Pad", Linked(pad)),
    ("", "Pow", Linked(elementwise)),
    ("", "RMSNormalization", Linked(normalization)),
    ("", "Reciprocal", Linked(unary)),
    ("", "ReduceL2", Linked(reduce)),
    ("", "ReduceMax", Linked(reduce)),
    ("", "ReduceMean", Linked(reduce)),
    ("", "ReduceMin", Linked(reduce)),
    ("", "ReduceProd", Linked(reduce)),
    ("", "ReduceSum", Linked(reduce)),
    ("", "ReduceSumSquare", Linked(reduce)),
    ("", "Relu", Linked(unary)),
    ("", "Reshape", Regroup),
    ("", "Round", Linked(unary)),
    ("", "Selu", Linked(unary)),
    ("", "Shape", Sizes),
    ("", "Sigmoid", Linked(unary)),
    ("", "Sign", Linked(unary)),
    ("", "SimplifiedLayerNormalization", Linked(normalization)),
    ("", "Sin", Linked(unary)),
    ("", "Size", Sizes),
    ("", "Slice", Slice),
    ("", "Softmax", Linked(softmax)),
    ("", "Softplus", Linked(unary)),
    ("", "Split", Split),
    ("", "Sqrt", Linked(unary)),
    ("", "Squeeze", Regroup),
    ("", "Sub", Linked(elementwise)),
    ("", "Sum", Linked(elementwise)),
    ("", "Swish", Linked(unary)),
    ("", "Tanh", Linked(unary)),
    ("", "Tile", Linked(tile)),
    ("", "Transpose", Linked(transpose)),
    ("", "Unsqueeze", Regroup),
    ("", "Where", Linked(elementwise)),
    ("", "Xor", Linked(elementwise)),
    (PAB, "AllGather", Linked(exchange)),
    (PAB, "AllReduce", Linked(exchange)),
    (PAB, "AllToAll", Linked(exchange)),
    (PAB, "ReduceScatter", Linked(exchange)),
    (PAB, "ShardSlice", Linked(exchange)),
    (MS, "BiasAdd", Linked(elementwise)),
    (MS, "BiasGelu", Linked(elementwise)),
    (MS, "FastGelu", Linked(elementwise)),
    (MS, "FusedMatMul", Linked(matmul)),
    (MS, "Gelu", Linked(unary)),
    (MS, "MatMulNBits", Linked(rows)),
    (MS, "MultiHeadAttention", Linked(tokens_of_queries)),
    (MS, "QuickGelu", Linked(unary)),
    (MS, "SimplifiedLayerNormalization", Linked(normalization)),
    (MS, "SkipLayerNormalization", Linked(skip_normalization)),
    (MS, "SkipSimplifiedLayerNormalization", Linked(skip_normalization)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_names_every_operator_once() {
        assert!(TABLE.is_sorted_by(|a, b| (a.0, a.1) < (b.0, b.1)));
    }

    #[test]
    fn operators_are_found_by_domain_and_name() {
        assert!(spelling("", "MatMul").is_some());
        assert!(spelling("com.microsoft", "MatMul").is_none());
        assert!(spelling("", "TopK").is_none());
    }
}
