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

/// A mesh that can be: at least one rank along each axis, and not too many in all ([`crate::shard::Mesh::ranks`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mesh {
    axes: crate::shard::Mesh,
    ranks: usize,
}

impl Mesh {
    /// A mesh of so many guidance, sequence and tensor ranks.
    ///
    /// # Errors
    /// [`CollectiveError::Mesh`] where one is zero, or there are too many in all.
    pub fn new(guidance: usize, sequence: usize, tensor: usize) -> Result<Self, CollectiveError> {
        Self::try_from(crate::shard::Mesh {
            guidance,
            sequence,
            tensor,
        })
    }

    /// Its axes.
    #[must_use]
    pub fn axes(&self) -> crate::shard::Mesh {
        self.axes
    }

    /// The number of all ranks.
    #[must_use]
    pub fn ranks(&self) -> usize {
        self.ranks
    }

    /// The number of ranks of a group.
    #[must_use]
    pub fn size(&self, group: Group) -> usize {
        self.axes.along(group)
    }

    /// The place of `rank` in its group.
    #[must_use]
    pub fn place(&self, group: Group, rank: usize) -> usize {
        self.axes.place(group, rank)
    }

    /// The ranks of the group that `rank` belongs to, in order of their places.
    #[must_use]
    pub fn members(&self, group: Group, rank: usize) -> Vec<usize> {
        self.axes.peers(group, rank)
    }
}

impl fmt::Display for Mesh {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.axes.fmt(formatter)
    }
}

impl TryFrom<crate::shard::Mesh> for Mesh {
    type Error = CollectiveError;

    /// The mesh that a model was split over.
    fn try_from(axes: crate::shard::Mesh) -> Result<Self, CollectiveError> {
        let ranks = axes.ranks().ok_or_else(|| CollectiveError::Mesh {
            reason: format!(
                "a mesh of {} guidance × {} sequence × {} tensor ranks cannot be: each is at least 1, and all together at \
                 most {}",
                axes.guidance,
                axes.sequence,
                axes.tensor,
                crate::shard::MOST_RANKS
            ),
        })?;
        Ok(Self { axes, ranks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
