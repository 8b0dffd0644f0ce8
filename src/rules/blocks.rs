//! Sets of blocks, counted from the first or from the last.

use super::indices::{IndexRange, IndexSet, IndicesError, MAX_INDEX};
use serde::{Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// A set of blocks of a kind. Which they are depends on how many blocks of that kind the model has, where some are
/// counted from the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Those counted from the first.
    counted: IndexSet,
    /// Ranges with an end that is counted from the last block.
    from_last: Vec<BlockRange>,
}

/// One end of a range of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockEnd {
    /// The block with this index, from 0.
    FromFirst(usize),
    /// So many blocks before the place after the last block: 1 is the last block.
    FromLast(usize),
}

/// The blocks from `start` up to and not including `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockRange {
    /// The first block.
    pub start: BlockEnd,
    /// The block after the last of the range; `FromLast(0)` for no end.
    pub end: BlockEnd,
}

impl Blocks {
    /// Every block.
    pub fn all() -> Blocks {
        Blocks {
            counted: IndexSet::all(),
            from_last: Vec::new(),
        }
    }

    /// All but the first and the last.
    pub fn inner() -> Blocks {
        Blocks::union([BlockRange {
            start: BlockEnd::FromFirst(1),
            end: BlockEnd::FromLast(1),
        }])
    }

    /// The union of ranges, in any order, overlapping or not.
    pub fn union(ranges: impl IntoIterator<Item = BlockRange>) -> Blocks {
        let (mut counted, mut from_last) = (Vec::new(), Vec::new());
        for range in ranges {
            match (range.start, range.end) {
                (BlockEnd::FromFirst(start), BlockEnd::FromFirst(end)) => {
                    counted.push(IndexRange { start, end: Some(end) });
                }
                (BlockEnd::FromFirst(start), BlockEnd::FromLast(0)) => counted.push(IndexRange { start, end: None }),
                _ if from_last.contains(&range) => {}
                _ => from_last.push(range),
            }
        }
        Blocks {
            counted: IndexSet::union(counted),
            from_last,
        }
    }

    /// Whether block `block` of `count` is in the set.
    pub fn contains(&self, block: usize, count: usize) -> bool {
        self.counted.contains(block) || self.from_last.iter().any(|range| range.of(count).contains(block))
    }

    /// The blocks of a model that has `count` of the kind.
    pub fn of(&self, count: usize) -> IndexSet {
        let counted = self.counted.ranges().iter().copied();
        IndexSet::union(counted.chain(self.from_last.iter().map(|range| range.of(count))))
    }

    /// Whether every block of every model is in the set.
    pub fn is_all(&self) -> bool {
        self.counted.is_all()
    }

    /// Whether it takes the number of blocks to tell which blocks are meant.
    pub fn needs_count(&self) -> bool {
        !self.from_last.is_empty()
    }
}

impl BlockEnd {
    fn of(self, count: usize) -> usize {
        match self {
            BlockEnd::FromFirst(index) => index,
            BlockEnd::FromLast(back) => count.saturating_sub(back),
        }
    }
}

impl BlockRange {
    /// The indices of a model with `count` blocks. A single block from the last that is not there is none.
    fn of(self, count: usize) -> IndexRange {
        let start = match self.start {
            // `-3` of two blocks is no block, and `-3..` of two blocks is both.
            BlockEnd::FromLast(back) if back > count && self.is_single() => count,
            start => start.of(count),
        };
        IndexRange {
            start,
            end: Some(self.end.of(count)),
        }
    }

    fn is_single(self) -> bool {
        match (self.start, self.end) {
            (BlockEnd::FromFirst(start), BlockEnd::FromFirst(end)) => start.checked_add(1) == Some(end),
            (BlockEnd::FromLast(start), BlockEnd::FromLast(end)) => end.checked_add(1) == Some(start),
            _ => false,
        }
    }
}

impl fmt::Display for BlockEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BlockEnd::FromFirst(index) => index.fmt(f),
            BlockEnd::FromLast(0) => Ok(()),
            BlockEnd::FromLast(back) => write!(f, "-{back}"),
        }
    }
}

impl fmt::Display for BlockRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_single() {
            true => self.start.fmt(f),
            false => write!(f, "{}..{}", self.start, self.end),
        }
    }
}

impl fmt::Display for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().collect::<Vec<_>>().join(", "))
    }
}

impl Blocks {
    /// The ranges as they are written.
    fn words(&self) -> impl Iterator<Item = String> + '_ {
        let counted = self.counted.ranges().iter().map(IndexRange::to_string);
        counted.chain(self.from_last.iter().map(BlockRange::to_string))
    }
}

impl Serialize for Blocks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.words())
    }
}

impl FromStr for BlockRange {
    type Err = IndicesError;

    /// Reads `3`, `0..6`, `0..=5`, `4..` or `..4`, and the same with ends counted from the last block: `-1`, `1..-1`,
    /// `..-2`, `-3..`.
    fn from_str(text: &str) -> Result<Self, IndicesError> {
        let end = |word: &str| -> Result<BlockEnd, IndicesError> {
            let (digits, back) = match word.strip_prefix('-') {
                Some(digits) => (digits, true),
                None => (word, false),
            };
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(IndicesError::Form(text.to_owned()));
            }
            match digits.parse() {
                // There is no block -0.
                Ok(0) if back => Err(IndicesError::Form(text.to_owned())),
                Ok(index) if index <= MAX_INDEX && back => Ok(BlockEnd::FromLast(index)),
                Ok(index) if index <= MAX_INDEX => Ok(BlockEnd::FromFirst(index)),
                _ => Err(IndicesError::TooLarge(word.to_owned())),
            }
        };
        let after = |end: BlockEnd| match end {
            BlockEnd::FromFirst(index) => BlockEnd::FromFirst(index + 1),
            BlockEnd::FromLast(back) => BlockEnd::FromLast(back.saturating_sub(1)),
        };
        let trimmed = text.trim();
        let Some((first, last)) = trimmed.split_once("..") else {
            let start = end(trimmed)?;
            return Ok(BlockRange {
                start,
                end: after(start),
            });
        };
        let start = match first.trim() {
            "" => BlockEnd::FromFirst(0),
            first => end(first)?,
        };
        let last = match last.trim() {
            "" => BlockEnd::FromLast(0),
            last => match last.strip_prefix('=') {
                Some(last) => after(end(last.trim())?),
                None => end(last)?,
            },
        };
        let empty = match (start, last) {
            (BlockEnd::FromFirst(start), BlockEnd::FromFirst(end)) => end <= start,
            (BlockEnd::FromLast(start), BlockEnd::FromLast(end)) => start <= end,
            // Nothing ends before the first block; all else depends on the model.
            (BlockEnd::FromLast(_), BlockEnd::FromFirst(end)) => end == 0,
            (BlockEnd::FromFirst(_), BlockEnd::FromLast(_)) => false,
        };
        match empty {
            true => Err(IndicesError::Empty(trimmed.to_owned())),
            false => Ok(BlockRange { start, end: last }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn blocks(text: &str, count: usize) -> Vec<usize> {
        let set = Blocks::union([text.parse().unwrap()]);
        let listed: Vec<usize> = (0..count).filter(|block| set.contains(*block, count)).collect();
        assert_eq!(
            listed,
            (0..count)
                .filter(|block| set.of(count).contains(*block))
                .collect::<Vec<_>>()
        );
        listed
    }

    #[test]
    fn spellings() {
        for (text, of_five) in [
            ("3", &[3][..]),
            ("0..2", &[0, 1]),
            ("0..=2", &[0, 1, 2]),
            ("3..", &[3, 4]),
            ("..2", &[0, 1]),
            ("..", &[0, 1, 2, 3, 4]),
            ("-1", &[4]),
            ("-5", &[0]),
            ("1..-1", &[1, 2, 3]),
            ("1..=-1", &[1, 2, 3, 4]),
            ("..-2", &[0, 1, 2]),
            ("-3..", &[2, 3, 4]),
            ("-3..-1", &[2, 3]),
            ("-3..4", &[2, 3]),
            ("-9..", &[0, 1, 2, 3, 4]),
            ("-9", &[]),
            ("9", &[]),
            ("4..-1", &[]),
        ] {
            assert_eq!(blocks(text, 5), of_five, "{text}");
        }
        assert_eq!(blocks("1..-1", 2), [0; 0]);
        assert_eq!(Blocks::inner().to_string(), "1..-1");
    }

    #[test]
    fn bad_spellings() {
        for text in [
            "", "a..b", "1...2", "1..2..3", "0..=", "+3", "1 2", "٣", "-", "--1", "-0", "- 1",
        ] {
            assert!(
                matches!(text.parse::<BlockRange>(), Err(IndicesError::Form(_))),
                "{text}"
            );
        }
        for text in ["6..6", "6..2", "..0", "-1..-3", "-2..-2", "-3..0"] {
            assert!(
                matches!(text.parse::<BlockRange>(), Err(IndicesError::Empty(_))),
                "{text}"
            );
        }
        assert!(matches!(
            "-99999999..".parse::<BlockRange>(),
            Err(IndicesError::TooLarge(_))
        ));
    }

    #[test]
    fn a_union_keeps_both_counts() {
        let parse = |text: &str| text.parse::<BlockRange>().unwrap();
        let ends = Blocks::union(["0", "-1", "1", "-1"].map(parse));
        assert_eq!(ends.to_string(), "0..2, -1");
        assert!(ends.needs_count() && !Blocks::all().needs_count());
        assert!(Blocks::union(["..4", "4.."].map(parse)).is_all());
    }

    proptest! {
        #[test]
        fn written_form_reads_back(text in "-?[1-9][0-9]?(\\.\\.(=?-?[1-9][0-9]?)?)?", count in 0usize..40) {
            if let Ok(range) = text.parse::<BlockRange>() {
                let again: BlockRange = range.to_string().parse().unwrap();
                prop_assert_eq!(again, range);
                let set = Blocks::union([range]);
                for block in 0..count {
                    prop_assert_eq!(set.contains(block, count), set.of(count).contains(block));
                }
            }
        }

        #[test]
        fn never_panics(text in "[0-9.=a \u{0}-\u{ff}-]{0,12}", count in 0usize..9) {
            if let Ok(range) = text.parse::<BlockRange>() {
                let _ = Blocks::union([range]).of(count);
            }
        }
    }
}
