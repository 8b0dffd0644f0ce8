//! What of a value can be divided among ranks.

use crate::axes::{Bindings, Dimension, Factor, Label, Labels, Origin};

/// How many entries a value has along the axes that ranks can divide; 1 where it has not got the axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extents {
    /// The batch: clips, or the halves of guidance.
    pub batch: i64,
    /// Frames.
    pub frames: i64,
    /// Height times width, or latent tokens that nothing more is known of, with text where both stand in one sequence.
    pub places: i64,
}

impl Extents {
    /// Of a value that every rank holds whole.
    pub const NONE: Extents = Extents {
        batch: 1,
        frames: 1,
        places: 1,
    };

    /// Those of a shape; sizes that have no number count as 1.
    pub(super) fn of(shape: &[Dimension], bindings: &Bindings) -> Extents {
        let mut extents = Extents::NONE;
        for factor in shape.iter().flat_map(Dimension::factors) {
            let Some(size) = factor.size.evaluate(bindings).filter(|size| *size > 1) else {
                continue;
            };
            let place = match place(factor) {
                Some(Label::Batch) => &mut extents.batch,
                Some(Label::Frames) => &mut extents.frames,
                Some(_) => &mut extents.places,
                None => continue,
            };
            *place = place.saturating_mul(size);
        }
        extents
    }
}

/// The axis that a factor belongs to, of those that can be divided; all of a place are [`Label::Tokens`].
fn place(factor: &Factor) -> Option<Label> {
    let latent = Labels::of([Label::Frames, Label::Height, Label::Width, Label::Tokens]);
    match &factor.origin {
        Origin::Axis(label @ (Label::Batch | Label::Frames)) => Some(*label),
        Origin::Axis(Label::Height | Label::Width | Label::Tokens) => Some(Label::Tokens),
        // Latent tokens beside text, or frames and places that were put together.
        Origin::Joined(_) => {
            let labels = Dimension::of([factor.clone()]).labels();
            (!labels.intersection(latent).is_empty()).then_some(Label::Tokens)
        }
        _ => None,
    }
}
