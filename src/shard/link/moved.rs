//! Operators that move data.

use super::Link;
use super::pointwise::{pairs, same, unary};
use crate::axes::Size;
use crate::shard::facts::Operation;

pub(super) fn transpose(operation: &Operation<'_>) -> Option<Vec<Link>> {
    let rank = operation.input(0)?.len();
    let order = match operation.node.ints("perm") {
        Some(order) => order.iter().map(|place| usize::try_from(*place).ok()).collect(),
        None => Some((0..rank).rev().collect::<Vec<usize>>()),
    }?;
    pairs(operation, order.into_iter().enumerate().map(|(to, from)| (from, to)))
}

/// Dimensions that stay, and those that are made: each rank makes its part.
pub(super) fn expand(operation: &Operation<'_>) -> Option<Vec<Link>> {
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

pub(super) fn gather(operation: &Operation<'_>) -> Option<Vec<Link>> {
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

/// Dimensions that are not repeated, and those that come from one entry.
pub(super) fn tile(operation: &Operation<'_>) -> Option<Vec<Link>> {
    expand(operation)
}

/// Dimensions without padding.
pub(super) fn pad(operation: &Operation<'_>) -> Option<Vec<Link>> {
    unary(operation)
}

/// Exchanges along other axes of the mesh: dimensions that keep their size.
pub(super) fn exchange(operation: &Operation<'_>) -> Option<Vec<Link>> {
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
