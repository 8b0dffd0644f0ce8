//! How ranks are laid out, and which part of an axis each has.

use std::{fmt, str::FromStr};

use super::CollectiveError;
pub use crate::shard::{Group, part};

impl FromStr for Group {
    type Err = CollectiveError;

    fn from_str(text: &str) -> Result<Self, CollectiveError> {
        let found = Self::ALL.into_iter().find(|group| group.name() == text);
        found.ok_or_else(|| CollectiveError::Mesh {
            reason: format!("there is no group `{text}`; groups are guidance, sequence and tensor"),
        })
    }
}

/// The most ranks of a mesh.
const MOST_RANKS: usize = 4096;

/// The numbers of ranks along each axis. Ranks are laid out guidance first and tensor last, so neighbours in rank share
/// weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mesh {
    sizes: [usize; 3],
}

impl Mesh {
    /// A mesh of so many guidance, sequence and tensor ranks.
    ///
    /// # Errors
    /// [`CollectiveError::Mesh`] where one is zero, or the product above 4096.
    pub fn new(guidance: usize, sequence: usize, tensor: usize) -> Result<Self, CollectiveError> {
        let sizes = [guidance, sequence, tensor];
        let ranks = sizes
            .iter()
            .try_fold(1_usize, |product, size| product.checked_mul(*size));
        match ranks {
            Some(1..=MOST_RANKS) => Ok(Self { sizes }),
            _ => Err(CollectiveError::Mesh {
                reason: format!(
                    "a mesh of {guidance} guidance × {sequence} sequence × {tensor} tensor ranks cannot be: each is at least 1, \
                     and all together at most {MOST_RANKS}"
                ),
            }),
        }
    }

    /// The number of all ranks.
    #[must_use]
    pub fn ranks(&self) -> usize {
        self.sizes.iter().product()
    }

    /// The number of ranks of a group.
    #[must_use]
    pub fn size(&self, group: Group) -> usize {
        self.sizes[group.index()]
    }

    /// The place of `rank` in its group.
    #[must_use]
    pub fn place(&self, group: Group, rank: usize) -> usize {
        rank / self.stride(group) % self.size(group)
    }

    /// The ranks of the group that `rank` belongs to, in order of their places.
    #[must_use]
    pub fn members(&self, group: Group, rank: usize) -> Vec<usize> {
        let stride = self.stride(group);
        let first = rank - self.place(group, rank) * stride;
        (0..self.size(group)).map(|place| first + place * stride).collect()
    }

    /// How far apart neighbours of a group are in rank.
    fn stride(&self, group: Group) -> usize {
        self.sizes[group.index() + 1..].iter().product()
    }
}

impl fmt::Display for Mesh {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [guidance, sequence, tensor] = self.sizes;
        write!(
            formatter,
            "{guidance} guidance × {sequence} sequence × {tensor} tensor ranks"
        )
    }
}

impl TryFrom<crate::shard::Mesh> for Mesh {
    type Error = CollectiveError;

    /// The mesh that a model was split over.
    fn try_from(mesh: crate::shard::Mesh) -> Result<Self, CollectiveError> {
        Self::new(mesh.guidance, mesh.sequence, mesh.tensor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_guidance_major_and_tensor_minor() {
        let mesh = Mesh::new(2, 3, 2).unwrap();
        assert_eq!(mesh.ranks(), 12);
        // Rank 9 = guidance 1, sequence 1, tensor 1.
        assert_eq!(Group::ALL.map(|group| mesh.place(group, 9)), [1, 1, 1]);
        assert_eq!(mesh.members(Group::Guidance, 9), [3, 9]);
        assert_eq!(mesh.members(Group::Sequence, 9), [7, 9, 11]);
        assert_eq!(mesh.members(Group::Tensor, 9), [8, 9]);
    }

    #[test]
    fn parts_cover_the_axis_and_differ_by_one_at_most() {
        assert_eq!(
            (0..3).map(|place| part(8, 3, place)).collect::<Vec<_>>(),
            [0..3, 3..6, 6..8]
        );
        for entries in 0..40 {
            for places in 1..10 {
                let parts: Vec<_> = (0..places).map(|place| part(entries, places, place)).collect();
                assert_eq!((parts[0].start, parts[places - 1].end), (0, entries));
                assert!(
                    parts
                        .windows(2)
                        .all(|pair| pair[0].end == pair[1].start && pair[0].len() - pair[1].len() <= 1)
                );
            }
        }
    }

    #[test]
    fn meshes_and_groups_that_cannot_be_are_refused() {
        assert!(Mesh::new(0, 2, 1).is_err() && Mesh::new(usize::MAX, 2, 1).is_err() && Mesh::new(1, 4097, 1).is_err());
        assert!("Sequence".parse::<Group>().is_err());
        assert_eq!("tensor".parse::<Group>().unwrap(), Group::Tensor);
    }
}
