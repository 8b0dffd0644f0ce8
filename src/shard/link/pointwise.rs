//! Operators that compute each entry by itself.

use super::Link;
use crate::axes::Size;
use crate::shard::facts::Operation;

/// Both views of a dimension have the size, which says something.
pub(super) fn same(one: &Size, other: &Size) -> bool {
    one == other && !one.is_one()
}

/// Pairs of dimensions of the first input and the first output.
pub(super) fn pairs(operation: &Operation<'_>, pairs: impl IntoIterator<Item = (usize, usize)>) -> Option<Vec<Link>> {
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
pub(super) fn elementwise(operation: &Operation<'_>) -> Option<Vec<Link>> {
    broadcast_before(operation, operation.output(0)?.len())
}

/// The same of the first `count` dimensions.
pub(super) fn broadcast_before(operation: &Operation<'_>, count: usize) -> Option<Vec<Link>> {
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
pub(super) fn unary(operation: &Operation<'_>) -> Option<Vec<Link>> {
    pairs(operation, (0..operation.output(0)?.len()).map(|dim| (dim, dim)))
}
