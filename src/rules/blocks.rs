//! Sets of blocks.

use serde::{Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// A set of block indices (counted from 0, per kind), as sorted, disjoint, half-open ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocks(Vec<BlockRange>);

/// The blocks from `start` up to and not including `end`; without an end all that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockRange {
    /// The first block.
    pub start: usize,
    /// The block after the last, or `None` for no end.
    pub end: Option<usize>,
}

impl Blocks {
    /// Every block.
    pub fn all() -> Blocks {
        Blocks(vec![BlockRange { start: 0, end: None }])
    }

    /// The union of ranges, in any order, overlapping or not.
    pub fn union(ranges: impl IntoIterator<Item = BlockRange>) -> Blocks {
        let mut ranges: Vec<BlockRange> = ranges.into_iter().filter(|range| !range.is_empty()).collect();
        ranges.sort();
        let mut merged: Vec<BlockRange> = Vec::new();
        for range in ranges {
            match merged.last_mut() {
                Some(last) if last.end.is_none_or(|end| range.start <= end) => last.end = later(last.end, range.end),
                _ => merged.push(range),
            }
        }
        Blocks(merged)
    }

    /// The ranges, sorted and disjoint.
    pub fn ranges(&self) -> &[BlockRange] {
        &self.0
    }

    /// Whether `block` is in the set.
    pub fn contains(&self, block: usize) -> bool {
        self.0.iter().any(|range| range.contains(block))
    }

    /// Whether no block is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every block is in the set.
    pub fn is_all(&self) -> bool {
        *self == Blocks::all()
    }

    /// The blocks that are here and not in `other`.
    pub fn without(&self, other: &Blocks) -> Blocks {
        let mut left = Vec::new();
        // Both are sorted, so that the ranges of `other` that end before one of ours end before all that follow.
        let mut passed = 0;
        for range in &self.0 {
            let ends_before = |gone: &BlockRange| gone.end.is_some_and(|end| end <= range.start);
            while other.0.get(passed).is_some_and(ends_before) {
                passed += 1;
            }
            let mut start = Some(range.start);
            for gone in other.0.iter().skip(passed) {
                let Some(from) = start else { break };
                if range.end.is_some_and(|end| end <= gone.start) {
                    break;
                }
                left.push(BlockRange {
                    start: from,
                    end: Some(gone.start.max(from)),
                });
                start = gone.end;
            }
            if let Some(start) = start {
                left.push(BlockRange { start, end: range.end });
            }
        }
        Blocks::union(left)
    }
}

impl BlockRange {
    /// Whether `block` is in the range.
    pub fn contains(&self, block: usize) -> bool {
        self.start <= block && self.end.is_none_or(|end| block < end)
    }

    /// Whether no block is in the range.
    pub fn is_empty(&self) -> bool {
        self.end.is_some_and(|end| end <= self.start)
    }
}

/// The later of two ends, where `None` is no end.
fn later(one: Option<usize>, other: Option<usize>) -> Option<usize> {
    Some(one?.max(other?))
}

impl fmt::Display for BlockRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.end {
            Some(end) if self.start.checked_add(1) == Some(end) => write!(f, "{}", self.start),
            Some(end) => write!(f, "{}..{end}", self.start),
            None => write!(f, "{}..", self.start),
        }
    }
}

impl fmt::Display for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            write!(f, "{}{range}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl Serialize for Blocks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(BlockRange::to_string))
    }
}

/// A text that names no blocks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlocksError {
    /// Not of the form of a range.
    #[error("`{0}` names no blocks")]
    Form(String),
    /// A number that is too large for a block.
    #[error("block {0} is out of reach: blocks are numbered up to {max}", max = MAX_BLOCK)]
    TooLarge(String),
    /// No block lies in the range.
    #[error("the range `{0}` is empty: its first block has to stand before its end")]
    Empty(String),
}

/// The largest block number that may be written; far above any model's, and safe to add 1 to on every platform.
pub const MAX_BLOCK: usize = 1_000_000;

impl FromStr for BlockRange {
    type Err = BlocksError;

    /// Reads `3`, `0..6`, `0..=5`, `4..` or `..4`.
    fn from_str(text: &str) -> Result<Self, BlocksError> {
        let number = |digits: &str| -> Result<usize, BlocksError> {
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(BlocksError::Form(text.to_owned()));
            }
            match digits.parse() {
                Ok(block) if block <= MAX_BLOCK => Ok(block),
                _ => Err(BlocksError::TooLarge(digits.to_owned())),
            }
        };
        let text_of_range = text.trim();
        let Some((start, end)) = text_of_range.split_once("..") else {
            let start = number(text_of_range)?;
            return Ok(BlockRange {
                start,
                end: Some(start + 1),
            });
        };
        let start = match start.trim() {
            "" => 0,
            start => number(start)?,
        };
        let end = match end.trim() {
            "" => None,
            end => Some(match end.strip_prefix('=') {
                Some(last) => number(last.trim())? + 1,
                None => number(end)?,
            }),
        };
        let range = BlockRange { start, end };
        if range.is_empty() {
            return Err(BlocksError::Empty(text_of_range.to_owned()));
        }
        Ok(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(text: &str) -> BlockRange {
        text.parse().unwrap()
    }

    #[test]
    fn spellings() {
        let half_open = |start, end| BlockRange { start, end };
        assert_eq!(range("3"), half_open(3, Some(4)));
        assert_eq!(range("0..6"), half_open(0, Some(6)));
        assert_eq!(range("0..=5"), half_open(0, Some(6)));
        assert_eq!(range("4.."), half_open(4, None));
        assert_eq!(range("..4"), half_open(0, Some(4)));
        assert_eq!(range(".."), half_open(0, None));
    }

    #[test]
    fn bad_spellings() {
        for text in ["", "-1", "a..b", "1...2", "1..2..3", "0..=", "+3", "1 2", "٣"] {
            assert!(
                matches!(text.parse::<BlockRange>(), Err(BlocksError::Form(_))),
                "{text}"
            );
        }
        assert!(matches!("6..6".parse::<BlockRange>(), Err(BlocksError::Empty(_))));
        assert!(matches!("6..2".parse::<BlockRange>(), Err(BlocksError::Empty(_))));
        assert!(matches!("..0".parse::<BlockRange>(), Err(BlocksError::Empty(_))));
        let huge = "99999999999999999999999..";
        assert!(matches!(huge.parse::<BlockRange>(), Err(BlocksError::TooLarge(_))));
    }

    #[test]
    fn ranges_that_touch_become_one() {
        assert_eq!(
            Blocks::union([range("3..5"), range("0..3"), range("9")]).to_string(),
            "0..5, 9"
        );
        assert!(Blocks::union([range("4.."), range("..4")]).is_all());
    }

    fn ranges() -> impl Strategy<Value = Vec<BlockRange>> {
        let range = (0usize..20, proptest::option::of(0usize..24)).prop_map(|(start, end)| BlockRange { start, end });
        proptest::collection::vec(range, 0..5)
    }

    proptest! {
        #[test]
        fn algebra_agrees_with_membership(one in ranges(), other in ranges()) {
            let (here, gone) = (Blocks::union(one.clone()), Blocks::union(other));
            let left = here.without(&gone);
            for block in 0..30 {
                prop_assert_eq!(here.contains(block), one.iter().any(|range| range.contains(block)));
                prop_assert_eq!(left.contains(block), here.contains(block) && !gone.contains(block));
            }
            prop_assert!(here.without(&here).is_empty());
            prop_assert!(here.ranges().windows(2).all(|pair| pair[0].end.is_some_and(|end| end < pair[1].start)));
        }

        #[test]
        fn written_form_reads_back(start in 0usize..1000, length in 1usize..1000, open: bool) {
            let range = BlockRange { start, end: (!open).then_some(start + length) };
            prop_assert_eq!(range.to_string().parse::<BlockRange>(), Ok(range));
        }

        #[test]
        fn never_panics(text in "[0-9.=a \u{0}-\u{ff}]{0,12}") {
            let _ = text.parse::<BlockRange>();
        }
    }
}
