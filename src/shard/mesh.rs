//! Ranks laid out along the axes of a mesh.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;

/// An axis of the mesh: what a collective runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// The batch, which holds the halves of classifier-free guidance.
    Guidance,
    /// Tokens: frames, space, or all of them.
    Sequence,
    /// Weights: heads of attentions, hidden channels of feed-forwards.
    Tensor,
}

impl Group {
    /// Every axis, the slowest first.
    pub const ALL: [Group; 3] = [Group::Guidance, Group::Sequence, Group::Tensor];

    /// As rules and the operators' attribute `group` have it.
    pub fn name(self) -> &'static str {
        match self {
            Group::Guidance => "guidance",
            Group::Sequence => "sequence",
            Group::Tensor => "tensor",
        }
    }

    /// Its place in [`Group::ALL`].
    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How many ranks stand along each axis. Ranks are counted guidance-major, then sequence, then tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mesh {
    /// Ranks over the batch.
    #[serde(default = "one")]
    pub guidance: usize,
    /// Ranks over tokens.
    #[serde(default = "one")]
    pub sequence: usize,
    /// Ranks over weights.
    #[serde(default = "one")]
    pub tensor: usize,
}

/// The most ranks of a mesh.
pub const MOST_RANKS: usize = 4096;

fn one() -> usize {
    1
}

impl Mesh {
    /// One rank.
    pub const ONE: Mesh = Mesh {
        guidance: 1,
        sequence: 1,
        tensor: 1,
    };

    /// `ranks` ranks over tokens.
    pub fn sequence(ranks: usize) -> Mesh {
        Mesh {
            sequence: ranks,
            ..Mesh::ONE
        }
    }

    /// The axes with more than one rank, the slowest first.
    pub fn divided(&self) -> impl Iterator<Item = Group> {
        Group::ALL.into_iter().filter(|group| self.along(*group) > 1)
    }

    /// Ranks along `group`.
    pub fn along(&self, group: Group) -> usize {
        match group {
            Group::Guidance => self.guidance,
            Group::Sequence => self.sequence,
            Group::Tensor => self.tensor,
        }
    }

    /// All ranks; none where there is no rank along some axis, or more than 4096.
    pub fn ranks(&self) -> Option<usize> {
        let all = self.guidance.checked_mul(self.sequence)?.checked_mul(self.tensor)?;
        Some(all).filter(|ranks| (1..=MOST_RANKS).contains(ranks))
    }

    /// The place of `rank` along `group`.
    pub fn place(&self, group: Group, rank: usize) -> usize {
        let (tensor, sequence) = (self.tensor.max(1), self.sequence.max(1));
        match group {
            Group::Guidance => rank / tensor / sequence,
            Group::Sequence => rank / tensor % sequence,
            Group::Tensor => rank % tensor,
        }
    }

    /// The ranks that `rank` exchanges with along `group`, itself among them, in order.
    pub fn peers(&self, group: Group, rank: usize) -> Vec<usize> {
        let stride = match group {
            Group::Guidance => self.sequence * self.tensor,
            Group::Sequence => self.tensor,
            Group::Tensor => 1,
        };
        let first = rank - self.place(group, rank) * stride;
        (0..self.along(group)).map(|place| first + place * stride).collect()
    }
}

impl fmt::Display for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let axes = Group::ALL.iter().filter(|group| self.along(**group) != 1);
        let words: Vec<String> = axes.map(|group| format!("{group} {}", self.along(*group))).collect();
        match words.is_empty() {
            true => f.write_str("one rank"),
            false => f.write_str(&words.join(" × ")),
        }
    }
}

/// What part number `place` of `ranks` has of `size` entries: balanced, the first parts one larger where it does not divide.
/// None where there are fewer entries than places.
pub fn part(size: usize, ranks: usize, place: usize) -> Range<usize> {
    let ranks = ranks.max(1);
    let start = |place: usize| place * (size / ranks) + place.min(size % ranks);
    start(place)..start(place + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_balanced_and_cover_everything_in_order() {
        let parts: Vec<_> = (0..4).map(|place| part(10, 4, place)).collect();
        assert_eq!(parts, [0..3, 3..6, 6..8, 8..10]);
        let few: Vec<usize> = (0..4).map(|place| part(2, 4, place).len()).collect();
        assert_eq!(few, [1, 1, 0, 0]);
    }

    #[test]
    fn ranks_are_counted_guidance_major_and_tensor_fastest() {
        let mesh = Mesh {
            guidance: 2,
            sequence: 3,
            tensor: 2,
        };
        assert_eq!(mesh.ranks(), Some(12));
        let places: Vec<usize> = Group::ALL.iter().map(|group| mesh.place(*group, 9)).collect();
        assert_eq!(places, [1, 1, 1]);
        assert_eq!(mesh.peers(Group::Guidance, 9), [3, 9]);
        assert_eq!(mesh.peers(Group::Sequence, 9), [7, 9, 11]);
        assert_eq!(mesh.peers(Group::Tensor, 9), [8, 9]);
    }
}
