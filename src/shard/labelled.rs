//! Where a value is divided along what its dimensions count.

use super::facts::Facts;
use super::placement::{Placement, Shard};
use crate::axes::{Dimension, Label, Labels, Size};
use crate::graph::ValueId;

/// Labels that count tokens of the latent.
pub(super) fn latent() -> Labels {
    Labels::of([Label::Frames, Label::Height, Label::Width, Label::Tokens])
}

/// The dimension without the batch before it.
pub(super) fn without_batch(dim: usize, dimension: &Dimension, size: &Size) -> Option<Shard> {
    let (first, rest) = dimension.factors().split_first()?;
    if Dimension::of([first.clone()]).labels() != Labels::of([Label::Batch]) || rest.is_empty() {
        return None;
    }
    let total = Size::product(rest.iter().map(|factor| &factor.size));
    Some(Shard {
        outer: size.divide_exactly(&total)?,
        ..Shard::of(dim, total)
    })
}

/// Where a value is divided along the factors with these labels: the run of them in the one dimension that has any.
pub(super) fn along(facts: &Facts<'_>, value: ValueId, labels: Labels) -> Placement {
    let (dims, sizes) = (facts.dimensions(value)?, facts.sizes(value)?);
    let mut found = None;
    for (place, (dim, size)) in dims.iter().zip(sizes).enumerate() {
        if dim.labels().intersection(labels).is_empty() {
            continue;
        }
        if found.is_some() {
            return None;
        }
        found = Some(in_dimension(place, dim, size, labels)?);
    }
    found
}

/// The run of factors with these labels within one dimension.
pub(super) fn in_dimension(place: usize, dim: &Dimension, size: &Size, labels: Labels) -> Option<Shard> {
    let factors = dim.factors();
    let is_within = |factor: &crate::axes::Factor| {
        let alone = Dimension::of([factor.clone()]);
        alone.is_labelled() && alone.labels().is_within(labels)
    };
    let first = factors.iter().position(&is_within)?;
    let count = factors
        .iter()
        .skip(first)
        .take_while(|factor| is_within(factor))
        .count();
    let (run, behind) = factors.get(first..)?.split_at(count);
    if behind.iter().any(&is_within) {
        return None;
    }
    let inner = Size::product(behind.iter().map(|factor| &factor.size));
    let parts = match run {
        [
            crate::axes::Factor {
                origin: crate::axes::Origin::Joined(joined),
                ..
            },
        ] => joined.parts().iter().map(Dimension::size).collect(),
        _ => vec![Size::product(run.iter().map(|factor| &factor.size))],
    };
    let shard = Shard {
        dim: place,
        outer: Size::ONE,
        parts,
        inner,
    };
    // Slower factors may have been divided along another axis of the mesh already.
    let outer = size.divide_exactly(&shard.size())?;
    Some(Shard { outer, ..shard })
}
