//! Where a value is divided along what its dimensions count.

use super::facts::Facts;
use super::placement::{Part, Placement, Shard};
use crate::axes::{Dimension, Factor, Label, Labels, Origin, Size};
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
    let is_within = |factor: &Factor| {
        let alone = Dimension::of([factor.clone()]);
        alone.is_labelled() && alone.labels().is_within(labels)
    };
    // Of tokens that stand one behind the other each kind may have its own unit: those of a frame, one of text.
    let is_taken = |factor: &Factor| is_within(factor) || each_part(factor, labels).is_some();
    let first = factors.iter().position(is_taken)?;
    let count = factors.iter().skip(first).take_while(|factor| is_taken(factor)).count();
    let (run, behind) = factors.get(first..)?.split_at(count);
    if behind.iter().any(is_taken) {
        return None;
    }
    let inner = Size::product(behind.iter().map(|factor| &factor.size));
    let joined = match run {
        [joined] => each_part(joined, labels),
        _ => None,
    };
    let run = match joined {
        Some(parts) => Shard::joined(place, parts),
        None if run.iter().all(is_within) => Shard::of(place, Size::product(run.iter().map(|factor| &factor.size))),
        None => return None,
    };
    let shard = Shard {
        inner: &run.inner * &inner,
        ..run
    };
    // Slower factors may have been divided along another axis of the mesh already.
    let outer = size.divide_exactly(&shard.size())?;
    Some(Shard { outer, ..shard })
}

/// What stands one behind the other in a factor, each divided along its own factors with these labels.
fn each_part(factor: &Factor, labels: Labels) -> Option<Vec<Part>> {
    let Origin::Joined(joined) = &factor.origin else {
        return None;
    };
    let mut parts = Vec::new();
    for part in joined.parts() {
        parts.extend(in_dimension(0, part, &part.size(), labels)?.in_parts()?);
    }
    Some(parts)
}

/// How much there is of the latent, where that is less than there are ranks, in a dimension that is divided as `shard` says: text
/// beside it does not count.
pub(super) fn thin_latent(dimension: &Dimension, shard: &Shard, ranks: usize) -> Option<Size> {
    let dims: Vec<&Dimension> = match dimension.factors() {
        [
            Factor {
                origin: Origin::Joined(joined),
                ..
            },
        ] => joined.parts().iter().collect(),
        _ => vec![dimension],
    };
    let mut parts = dims.into_iter().zip(&shard.parts);
    let thin = parts.find(|(dim, part)| !dim.labels().intersection(latent()).is_empty() && part.is_thin(ranks));
    thin.map(|(_, part)| part.count.clone())
}
