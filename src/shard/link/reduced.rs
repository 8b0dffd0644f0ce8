//! Operators that mix what lies along some dimensions, and keep the others.

use super::Link;
use super::pointwise::{pairs, same};
use crate::shard::facts::Operation;

/// All dimensions but the last ones, from attribute `axis` on.
pub(super) fn normalization(operation: &Operation<'_>) -> Option<Vec<Link>> {
    let first = operation.axis(-1, operation.input(0)?.len())?;
    pairs(operation, (0..first).map(|dim| (dim, dim)))
}

/// All dimensions but the last one.
pub(super) fn rows(operation: &Operation<'_>) -> Option<Vec<Link>> {
    let last = operation.input(0)?.len().checked_sub(1)?;
    pairs(operation, (0..last).map(|dim| (dim, dim)))
}

/// All dimensions but attribute `axis`. Before operator set 13 everything behind it was normalized, too.
pub(super) fn softmax(operation: &Operation<'_>) -> Option<Vec<Link>> {
    let rank = operation.input(0)?.len();
    if operation.facts.opset() < 13 {
        let first = operation.axis(1, rank)?;
        return pairs(operation, (0..first).map(|dim| (dim, dim)));
    }
    let along = operation.axis(-1, rank)?;
    pairs(operation, (0..rank).filter(|dim| *dim != along).map(|dim| (dim, dim)))
}

/// The batch alone.
pub(super) fn batch_only(operation: &Operation<'_>) -> Option<Vec<Link>> {
    pairs(operation, [(0, 0)])
}

/// The batch and the channels.
pub(super) fn each_channel(operation: &Operation<'_>) -> Option<Vec<Link>> {
    pairs(operation, [(0, 0), (1, 1)])
}

pub(super) fn reduce(operation: &Operation<'_>) -> Option<Vec<Link>> {
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

/// Sums along one axis.
pub(super) fn cumulative(operation: &Operation<'_>) -> Option<Vec<Link>> {
    let rank = operation.input(0)?.len();
    let [along] = *operation.axes("axis", 1, rank)?.as_slice() else {
        return None;
    };
    pairs(operation, (0..rank).filter(|dim| *dim != along).map(|dim| (dim, dim)))
}

/// Sum and normalized sum of two inputs: outputs 0 and 3.
pub(super) fn skip_normalization(operation: &Operation<'_>) -> Option<Vec<Link>> {
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
