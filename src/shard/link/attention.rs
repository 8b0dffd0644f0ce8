//! Attention in one operator.

use super::Link;
use super::pointwise::same;
use crate::axes::Size;
use crate::shard::facts::Operation;

/// The standard's `Attention` over `[batch, heads, tokens, head]`: batch, heads and the tokens of the queries.
pub(super) fn attention(operation: &Operation<'_>) -> Option<Vec<Link>> {
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

pub(super) fn query_is_divisible(query: &[Size], link: &Link) -> bool {
    link.inputs
        .first()
        .and_then(|(_, dim)| query.get(*dim))
        .is_some_and(|size| !size.is_one())
}

/// Attentions whose heads stand within the channels: the batch, and without a mask the tokens of the queries.
pub(super) fn tokens_of_queries(operation: &Operation<'_>) -> Option<Vec<Link>> {
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
