//! What happens to factors: regrouping by `Reshape`, unification by broadcasting.

use super::dimension::{Dimension, Factor, Origin};
use super::label::{Label, Labels};
use super::size::Size;

/// Regroups the factors of `from`, in row-major order, into dimensions of the sizes `targets`.
///
/// The products of both must be equal. Factors are kept whole where they fit, and split where a target ends inside
/// one (channels into heads and head size). Where the two do not line up, what lies between the last place that does
/// from the front and the first from the back loses its labels: nothing is guessed.
pub fn regroup(from: &[Dimension], targets: &[Size]) -> Vec<Dimension> {
    let mut factors: Vec<Factor> = from
        .iter()
        .flat_map(|dimension| dimension.factors().iter().cloned())
        .collect();
    let unlabelled = || {
        targets
            .iter()
            .map(|size| Dimension::unlabelled(size.clone()))
            .collect::<Vec<_>>()
    };
    let zero = Size::number(0);
    if targets.contains(&zero) || factors.iter().any(|factor| factor.size == zero) {
        return unlabelled();
    }
    let mut dimensions = unlabelled();
    factors.reverse();
    let mut front = 0;
    while front < targets.len() {
        match take(&mut factors, &targets[front], End::Front) {
            Some(taken) => dimensions[front] = taken,
            None => break,
        }
        front += 1;
    }
    if front == targets.len() {
        return dimensions;
    }
    factors.reverse();
    for back in (front + 1..targets.len()).rev() {
        match take(&mut factors, &targets[back], End::Back) {
            Some(taken) => dimensions[back] = taken,
            None => break,
        }
    }
    dimensions
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Front,
    Back,
}

/// Takes factors of product `size` from the end of `factors`, which stand in reverse order for [`End::Front`].
/// Leaves `factors` as they were where that cannot be.
fn take(factors: &mut Vec<Factor>, size: &Size, end: End) -> Option<Dimension> {
    let mut need = size.clone();
    let mut taken: Vec<Factor> = Vec::new();
    while !need.is_one() {
        let Some(factor) = factors.pop() else {
            factors.extend(taken.into_iter().rev());
            return None;
        };
        if let Some(rest) = need.divide_exactly(&factor.size) {
            need = rest;
            taken.push(factor);
        } else if let Some(rest) = factor.size.divide_exactly(&need) {
            let part = match end {
                End::Front => {
                    let (outer, inner) = factor.split(need, rest);
                    factors.push(inner);
                    outer
                }
                End::Back => {
                    let (outer, inner) = factor.split(rest, need);
                    factors.push(outer);
                    inner
                }
            };
            taken.push(part);
            break;
        } else {
            factors.push(factor);
            factors.extend(taken.into_iter().rev());
            return None;
        }
    }
    if end == End::Back {
        taken.reverse();
    }
    Some(Dimension::of(taken))
}

/// The shape of an elementwise operator's result: NumPy broadcasting, labels from whichever operand has them.
pub fn broadcast(left: &[Dimension], right: &[Dimension]) -> Vec<Dimension> {
    let rank = left.len().max(right.len());
    let at = |shape: &'_ [Dimension], axis: usize| {
        (axis + shape.len())
            .checked_sub(rank)
            .and_then(|place| shape.get(place).cloned())
            .unwrap_or(Dimension::ONE)
    };
    (0..rank).map(|axis| unify(&at(left, axis), &at(right, axis))).collect()
}

/// Two views of one dimension put together: a factor takes its label from whichever side has one, and becomes
/// [`Origin::Disputed`] where both have one and they differ.
pub fn unify(left: &Dimension, right: &Dimension) -> Dimension {
    if left == right || right.is_one() {
        return left.clone();
    }
    if left.is_one() {
        return right.clone();
    }
    let mut mine: Vec<Factor> = left.factors().iter().rev().cloned().collect();
    let mut theirs: Vec<Factor> = right.factors().iter().rev().cloned().collect();
    let mut unified = Vec::new();
    while let (Some(a), Some(b)) = (mine.pop(), theirs.pop()) {
        if a.size == b.size {
            unified.push(prefer(a, b));
        } else if let Some(rest) = a.size.divide_exactly(&b.size) {
            let (outer, inner) = a.split(b.size.clone(), rest);
            mine.push(inner);
            unified.push(prefer(outer, b));
        } else if let Some(rest) = b.size.divide_exactly(&a.size) {
            let (outer, inner) = b.split(a.size.clone(), rest);
            theirs.push(inner);
            unified.push(prefer(a, outer));
        } else {
            return better(left, right);
        }
    }
    if mine.is_empty() && theirs.is_empty() {
        Dimension::of(unified)
    } else {
        better(left, right)
    }
}

/// Of two factors of one size: the one that is labelled. Channels are what is left when nothing better is known; where
/// two other labels meet, one of them is wrong, and none is taken.
fn prefer(left: Factor, right: Factor) -> Factor {
    match (&left.origin, &right.origin) {
        (Origin::Unlabelled, _) => right,
        (_, Origin::Unlabelled) => left,
        (Origin::Axis(Label::Channels), _) => right,
        (_, Origin::Axis(Label::Channels)) => left,
        _ => {
            let size = left.size.clone();
            let (mine, theirs) = (Dimension::of([left.clone()]), Dimension::of([right.clone()]));
            match dispute(&mine, &theirs) {
                Some(labels) => Factor {
                    origin: Origin::Disputed(labels),
                    size,
                },
                // Of two joints the one that says more.
                None if says(&theirs) > says(&mine) => right,
                None => left,
            }
        }
    }
}

/// The labels of two views of one dimension, where each has one that the other lacks or one is disputed already.
fn dispute(left: &Dimension, right: &Dimension) -> Option<Labels> {
    let disputed = left.disputed().union(right.disputed());
    let channels = Labels::of([Label::Channels]);
    let (mine, theirs) = (left.labels().without(channels), right.labels().without(channels));
    let differ = !mine.is_within(theirs) && !theirs.is_within(mine);
    (differ || !disputed.is_empty()).then(|| mine.union(theirs).union(disputed))
}

fn says(dimension: &Dimension) -> (bool, usize) {
    (dimension.is_labelled(), dimension.labels().iter().count())
}

/// Of two views that do not line up: the one that says more.
fn better(left: &Dimension, right: &Dimension) -> Dimension {
    let worth = |dimension: &Dimension| {
        let known = !dimension.size().has_unknown();
        (dimension.is_labelled(), known, !dimension.labels().is_empty())
    };
    let better = if worth(right) > worth(left) { right } else { left };
    match dispute(left, right) {
        Some(labels) => Dimension::new(Origin::Disputed(labels), better.size()),
        None => better.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::axes::dimension::display_shape;
    use proptest::prelude::*;

    fn shape(axes: &[(Label, i64)]) -> Vec<Dimension> {
        axes.iter()
            .map(|(label, size)| Dimension::axis(*label, Size::number(*size)))
            .collect()
    }

    fn numbers(sizes: &[i64]) -> Vec<Size> {
        sizes.iter().map(|size| Size::number(*size)).collect()
    }

    #[test]
    fn reshape_merges_and_splits_in_row_major_order() {
        use Label::{Batch, Channels, Frames, Height, Width};
        let latent = shape(&[(Batch, 2), (Frames, 5), (Height, 4), (Width, 4), (Channels, 96)]);
        let tokens = regroup(&latent, &numbers(&[10, 16, 96]));
        assert_eq!(display_shape(&tokens), "[batch·frames, height·width, channels]");
        let heads = regroup(&tokens, &numbers(&[10, 16, 4, 24]));
        assert_eq!(
            display_shape(&heads),
            "[batch·frames, height·width, channels, channels]"
        );
        assert_eq!(regroup(&heads, &numbers(&[2, 5, 4, 4, 96])), latent);
    }

    #[test]
    fn a_symbolic_batch_is_split_off() {
        let batch = Size::symbol("batch");
        let tokens = [
            Dimension::product(&[
                Dimension::axis(Label::Batch, batch.clone()),
                Dimension::axis(Label::Frames, Size::number(5)),
            ]),
            Dimension::axis(Label::Channels, Size::number(8)),
        ];
        let split = regroup(&tokens, &[batch, Size::number(5), Size::number(8)]);
        assert_eq!(display_shape(&split), "[batch, frames, channels]");
    }

    #[test]
    fn what_does_not_line_up_loses_its_labels_and_the_rest_keeps_them() {
        use Label::{Batch, Channels, Frames, Height};
        let odd = shape(&[(Batch, 2), (Frames, 6), (Height, 4), (Channels, 96)]);
        let regrouped = regroup(&odd, &numbers(&[2, 8, 3, 96]));
        assert_eq!(display_shape(&regrouped), "[batch, 8, 3, channels]");
    }

    #[test]
    fn whole_frames_of_a_clip_keep_their_axes() {
        let latent = Dimension::product(&shape(&[(Label::Frames, 5), (Label::Height, 4), (Label::Width, 6)]));
        let slice = |start, end| latent.slice(&Size::number(start), &Size::number(end));
        assert_eq!(slice(24, 120).to_string(), "frames·height·width");
        assert_eq!(slice(24, 120).size(), Size::number(96));
        assert_eq!(slice(0, 24).to_string(), "height·width");
        assert_eq!(slice(0, 0).size(), Size::number(0));
        assert!(!slice(0, 25).is_labelled());
        let joint = Dimension::joined(vec![slice(0, 24), slice(24, 120)]);
        assert_eq!(unify(&joint, &latent), latent);
    }

    #[test]
    fn a_repeated_axis_takes_its_label_from_what_it_meets() {
        use Label::{Batch, Height, Width};
        let repeated = [Dimension::product(&[
            Dimension::axis(Batch, Size::number(2)),
            Dimension::unlabelled(Size::number(16)),
        ])];
        let tokens = [Dimension::product(&shape(&[(Batch, 2), (Height, 4), (Width, 4)]))];
        assert_eq!(broadcast(&repeated, &tokens), tokens);
        assert_eq!(broadcast(&tokens, &repeated), tokens);
    }

    #[test]
    fn labels_that_differ_are_disputed_and_stay_so() {
        let axis = |label| Dimension::axis(label, Size::number(6));
        let disputed = unify(&axis(Label::Text), &axis(Label::Frames));
        assert_eq!(disputed.to_string(), "frames|text?");
        assert!(!disputed.is_labelled() && disputed.labels().is_empty());
        assert_eq!(unify(&disputed, &axis(Label::Text)), disputed);
        assert_eq!(unify(&axis(Label::Frames), &disputed), disputed);
        assert_eq!(unify(&Dimension::unlabelled(Size::number(6)), &disputed), disputed);
        assert_eq!(unify(&axis(Label::Text), &axis(Label::Channels)), axis(Label::Text));
        // Named sizes that differ must be equal when the model runs.
        let named = |label, name| Dimension::axis(label, Size::symbol(name));
        let symbolic = unify(&named(Label::Text, "words"), &named(Label::Frames, "frames"));
        assert_eq!(symbolic.to_string(), "frames|text?");
        assert_eq!(symbolic.size(), Size::symbol("words"));
    }

    fn factors() -> impl Strategy<Value = Vec<(usize, i64)>> {
        prop::collection::vec((0usize..Label::ALL.len(), 1i64..7), 1..6)
    }

    fn labelled(factors: &[(usize, i64)]) -> Vec<Dimension> {
        factors
            .iter()
            .map(|(label, size)| Dimension::axis(Label::ALL[*label], Size::number(*size)))
            .collect()
    }

    proptest! {
        #[test]
        fn regrouping_keeps_the_sizes_asked_for(from in factors(), cut in 1i64..5) {
            let from = labelled(&from);
            let total = Size::product(from.iter().map(Dimension::size).collect::<Vec<_>>().iter());
            let targets = match total.divide_exactly(&Size::number(cut)) {
                Some(rest) => vec![Size::number(cut), rest],
                None => vec![total],
            };
            let sizes: Vec<Size> = regroup(&from, &targets).iter().map(Dimension::size).collect();
            prop_assert_eq!(sizes, targets);
        }

        #[test]
        fn there_and_back_gives_the_same_factors(from in factors(), splits in prop::collection::vec(any::<bool>(), 6)) {
            let from = labelled(&from);
            let mut groups: Vec<Size> = Vec::new();
            for (dimension, new) in from.iter().zip(&splits) {
                match groups.last_mut() {
                    Some(last) if !new => *last = &*last * &dimension.size(),
                    _ => groups.push(dimension.size()),
                }
            }
            let sizes: Vec<Size> = from.iter().map(Dimension::size).collect();
            prop_assert_eq!(regroup(&regroup(&from, &groups), &sizes), from);
        }

        #[test]
        fn a_split_is_undone_by_the_merge(from in factors()) {
            let from = labelled(&from);
            let mut targets = Vec::new();
            for dimension in &from {
                match dimension.size().divide_exactly(&Size::number(2)) {
                    Some(half) => targets.extend([Size::number(2), half]),
                    None => targets.push(dimension.size()),
                }
            }
            let sizes: Vec<Size> = from.iter().map(Dimension::size).collect();
            prop_assert_eq!(regroup(&regroup(&from, &targets), &sizes), from);
        }

        #[test]
        fn unification_with_an_unlabelled_view_changes_nothing(from in factors()) {
            let from = labelled(&from);
            let plain: Vec<Dimension> = from.iter().map(|dimension| Dimension::unlabelled(dimension.size())).collect();
            prop_assert_eq!(broadcast(&from, &plain), from.clone());
            prop_assert_eq!(broadcast(&plain, &from), from);
        }
    }
}
