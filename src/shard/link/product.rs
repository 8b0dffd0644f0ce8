//! Operators that sum products: projections, convolutions, `Einsum`.

use super::Link;
use super::pointwise::{pairs, same};
use crate::axes::Size;
use crate::shard::facts::Operation;

/// Rows, columns, what is summed, and what stands before: `[…, rows, summed] × […, summed, columns]`.
pub(super) fn matmul(operation: &Operation<'_>) -> Option<Vec<Link>> {
    if operation.node.int("transBatchA", 0) != 0 || operation.node.int("transBatchB", 0) != 0 {
        return None;
    }
    product(
        operation,
        operation.node.int("transA", 0) != 0,
        operation.node.int("transB", 0) != 0,
    )
}

pub(super) fn product(operation: &Operation<'_>, left_turned: bool, right_turned: bool) -> Option<Vec<Link>> {
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
pub(super) fn convolution(operation: &Operation<'_>) -> Option<Vec<Link>> {
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

/// How many entries of dimension `dim` a window of a convolution takes, where windows stand side by side and cover it: patches.
/// Parts of whole windows are then as good as all of them.
pub(in crate::shard) fn window(operation: &Operation<'_>, dim: usize) -> Option<Size> {
    let node = operation.node;
    let place = dim.checked_sub(2).filter(|_| node.is("Conv"))?;
    let (data, result) = (operation.input(0)?, operation.output(0)?);
    let dims = data.len().checked_sub(2)?;
    let window = operation.input(1)?.get(dim)?.as_number().filter(|window| *window > 1)?;
    let is_at = |name: &str, place: usize, number: i64, default: i64| {
        let numbers = node.ints(name).unwrap_or_default();
        numbers.get(place).copied().unwrap_or(default) == number
    };
    let is_plain = matches!(node.text("auto_pad"), None | Some("NOTSET" | "VALID"));
    let stands_apart = is_at("strides", place, window, 1) && is_at("dilations", place, 1, 1);
    let is_padded = !is_at("pads", place, 0, 0) || !is_at("pads", place + dims, 0, 0);
    let window = Size::number(window);
    let covers = *data.get(dim)? == result.get(dim)? * &window;
    (is_plain && stands_apart && !is_padded && covers).then_some(window)
}

/// A link for each letter.
pub(super) fn einsum(operation: &Operation<'_>) -> Option<Vec<Link>> {
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
