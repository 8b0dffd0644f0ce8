//! Where a value lies: whole on every rank, or a part on each.

use crate::axes::Size;

/// One of several parts of a dimension that stand one behind the other: `count` units of `unit` entries each. A rank has a
/// balanced range of the units.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    /// How many units there are: what is divided.
    pub count: Size,
    /// Entries that stay together, the tokens of a frame for example.
    pub unit: Size,
}

impl Part {
    /// Entries.
    pub fn size(&self) -> Size {
        &self.count * &self.unit
    }

    /// Whether some rank has nothing of it.
    pub fn is_thin(&self, ranks: usize) -> bool {
        let count = self.count.as_number().and_then(|count| usize::try_from(count).ok());
        count.is_some_and(|count| count < ranks)
    }
}

/// A factor of a dimension that is divided among ranks: the dimension is `outer · sum(parts) · inner`, and each rank has
/// a balanced range of every one of `parts`.
///
/// Several parts are what `Concat` set one behind the other, text and latent tokens for example: each is divided by
/// itself, so that their seams stay where each rank can see them. Of a single one the unit is 1: `inner` has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shard {
    /// The dimension, counted from 0.
    pub dim: usize,
    /// The product of the slower factors of the dimension.
    pub outer: Size,
    /// What is divided.
    pub parts: Vec<Part>,
    /// The product of the faster factors.
    pub inner: Size,
}

/// Where a value lies along one axis of the mesh: `None` is whole on every rank.
pub type Placement = Option<Shard>;

impl Shard {
    /// All of dimension `dim`, which has `size` entries.
    pub fn of(dim: usize, size: Size) -> Shard {
        Shard {
            dim,
            outer: Size::ONE,
            parts: vec![Part {
                count: size,
                unit: Size::ONE,
            }],
            inner: Size::ONE,
        }
    }

    /// All of dimension `dim`, in parts that stand one behind the other.
    pub fn joined(dim: usize, mut parts: Vec<Part>) -> Shard {
        let inner = match parts.as_mut_slice() {
            [only] => std::mem::replace(&mut only.unit, Size::ONE),
            _ => Size::ONE,
        };
        Shard {
            dim,
            outer: Size::ONE,
            parts,
            inner,
        }
    }

    /// The parts of the dimension, where it is all of them one behind the other.
    pub fn in_parts(&self) -> Option<Vec<Part>> {
        let parts = self.parts.iter().map(|part| Part {
            unit: &part.unit * &self.inner,
            ..part.clone()
        });
        self.outer.is_one().then(|| parts.collect())
    }

    /// The size of what is divided.
    pub fn total(&self) -> Size {
        self.parts.iter().fold(Size::number(0), |sum, part| &sum + &part.size())
    }

    /// The size of the whole dimension.
    pub fn size(&self) -> Size {
        &(&self.outer * &self.total()) * &self.inner
    }

    /// Whether there is less of every part than there are ranks, so that some rank has nothing.
    pub fn is_thin(&self, ranks: usize) -> bool {
        self.parts.iter().all(|part| part.is_thin(ranks))
    }

    /// The same factor in dimension `dim`.
    pub fn at(&self, dim: usize) -> Shard {
        Shard { dim, ..self.clone() }
    }

    /// The same factor behind a change of the layout from `from` to `to`, which keeps the order of the elements.
    ///
    /// `None` where the factor does not lie within one dimension afterwards.
    pub fn regrouped(&self, from: &[Size], to: &[Size]) -> Option<Shard> {
        let before = &Size::product(from.get(..self.dim)?) * &self.outer;
        let behind = &self.inner * &Size::product(from.get(self.dim + 1..)?);
        let total = self.total();
        let mut prefix = Size::ONE;
        for (dim, size) in to.iter().enumerate() {
            let outer = before.divide_exactly(&prefix);
            let inner = outer
                .as_ref()
                .and_then(|outer| size.divide_exactly(&(outer * &total)))
                .filter(|inner| inner * &Size::product(&to[dim + 1..]) == behind);
            if let (Some(outer), Some(inner)) = (outer, inner) {
                return Some(Shard {
                    dim,
                    outer,
                    parts: self.parts.clone(),
                    inner,
                });
            }
            prefix = &prefix * size;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(sizes: &[i64]) -> Vec<Size> {
        sizes.iter().map(|size| Size::number(*size)).collect()
    }

    fn frames(dim: usize, outer: i64, inner: i64) -> Shard {
        Shard {
            outer: Size::number(outer),
            inner: Size::number(inner),
            ..Shard::of(dim, Size::number(5))
        }
    }

    #[test]
    fn a_factor_is_followed_through_changes_of_layout() {
        let merged = sizes(&[10, 16, 96]);
        let apart = sizes(&[2, 5, 16, 96]);
        assert_eq!(frames(0, 2, 1).regrouped(&merged, &apart), Some(frames(1, 1, 1)));
        assert_eq!(frames(1, 1, 1).regrouped(&apart, &merged), Some(frames(0, 2, 1)));
        assert_eq!(
            frames(1, 1, 1).regrouped(&apart, &sizes(&[2, 80, 96])),
            Some(frames(1, 1, 16))
        );
        let heads = Shard::of(1, Size::number(16)).regrouped(&merged, &sizes(&[10, 4, 4, 96]));
        assert_eq!(heads, None);
    }

    #[test]
    fn parts_of_a_dimension_keep_their_units_and_a_single_one_is_a_factor() {
        let part = |count, unit| Part {
            count: Size::number(count),
            unit: Size::number(unit),
        };
        // Five tokens of text, and three frames of sixteen tokens.
        let both = Shard::joined(1, vec![part(5, 1), part(3, 16)]);
        assert_eq!(both.size(), Size::number(53));
        assert_eq!(both.in_parts(), Some(vec![part(5, 1), part(3, 16)]));
        assert!(!both.is_thin(4) && both.is_thin(6));
        let video = Shard::joined(1, vec![part(3, 16)]);
        assert_eq!((&video.parts, &video.inner), (&vec![part(3, 1)], &Size::number(16)));
        assert_eq!(video.in_parts(), Some(vec![part(3, 16)]));
        let apart = video.regrouped(&sizes(&[2, 48, 96]), &sizes(&[2, 3, 16, 96]));
        assert_eq!(apart, Some(Shard::of(1, Size::number(3))));
    }

    #[test]
    fn symbolic_factors_too() {
        let batch = Size::symbol("batch");
        let merged = vec![&batch * &Size::number(5), Size::number(16)];
        let apart = vec![batch.clone(), Size::number(5), Size::number(16)];
        let shard = Shard {
            outer: batch,
            ..Shard::of(0, Size::number(5))
        };
        assert_eq!(shard.regrouped(&merged, &apart), Some(Shard::of(1, Size::number(5))));
    }
}
