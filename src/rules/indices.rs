//! Sets of indices from 0: blocks counted from the first, and steps.

use std::fmt;
use std::str::FromStr;

/// A set of indices counted from 0, as sorted, disjoint, half-open ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexSet(Vec<IndexRange>);

/// The indices from `start` up to and not including `end`; without an end all that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IndexRange {
    /// The first index.
    pub start: usize,
    /// The index after the last, or `None` for no end.
    pub end: Option<usize>,
}

impl IndexSet {
    /// Every index.
    pub fn all() -> IndexSet {
        IndexSet(vec![IndexRange { start: 0, end: None }])
    }

    /// The union of ranges, in any order, overlapping or not.
    pub fn union(ranges: impl IntoIterator<Item = IndexRange>) -> IndexSet {
        let mut ranges: Vec<IndexRange> = ranges.into_iter().filter(|range| !range.is_empty()).collect();
        ranges.sort();
        let mut merged: Vec<IndexRange> = Vec::new();
        for range in ranges {
            match merged.last_mut() {
                Some(last) if last.end.is_none_or(|end| range.start <= end) => last.end = later(last.end, range.end),
                _ => merged.push(range),
            }
        }
        IndexSet(merged)
    }

    /// The ranges, sorted and disjoint.
    pub fn ranges(&self) -> &[IndexRange] {
        &self.0
    }

    /// Whether `index` is in the set.
    pub fn contains(&self, index: usize) -> bool {
        self.0.iter().any(|range| range.contains(index))
    }

    /// Whether no index is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every index is in the set.
    pub fn is_all(&self) -> bool {
        *self == IndexSet::all()
    }

    /// Whether some index is in both.
    pub fn meets(&self, other: &IndexSet) -> bool {
        self.without(other) != *self
    }

    /// The indices that are here and not in `other`.
    pub fn without(&self, other: &IndexSet) -> IndexSet {
        let mut left = Vec::new();
        // Both are sorted, so that the ranges of `other` that end before one of ours end before all that follow.
        let mut passed = 0;
        for range in &self.0 {
            let ends_before = |gone: &IndexRange| gone.end.is_some_and(|end| end <= range.start);
            while other.0.get(passed).is_some_and(ends_before) {
                passed += 1;
            }
            let mut start = Some(range.start);
            for gone in other.0.iter().skip(passed) {
                let Some(from) = start else { break };
                if range.end.is_some_and(|end| end <= gone.start) {
                    break;
                }
                left.push(IndexRange {
                    start: from,
                    end: Some(gone.start.max(from)),
                });
                start = gone.end;
            }
            if let Some(start) = start {
                left.push(IndexRange { start, end: range.end });
            }
        }
        IndexSet::union(left)
    }
}

impl IndexRange {
    /// Whether `index` is in the range.
    pub fn contains(&self, index: usize) -> bool {
        self.start <= index && self.end.is_none_or(|end| index < end)
    }

    /// Whether no index is in the range.
    pub fn is_empty(&self) -> bool {
        self.end.is_some_and(|end| end <= self.start)
    }
}

/// The later of two ends, where `None` is no end.
fn later(one: Option<usize>, other: Option<usize>) -> Option<usize> {
    Some(one?.max(other?))
}

impl fmt::Display for IndexRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.end {
            Some(end) if self.start.checked_add(1) == Some(end) => write!(f, "{}", self.start),
            Some(end) => write!(f, "{}..{end}", self.start),
            None => write!(f, "{}..", self.start),
        }
    }
}

impl fmt::Display for IndexSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            write!(f, "{}{range}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// A text that names no indices.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndicesError {
    /// Not of the form of a range.
    #[error("`{0}` names none")]
    Form(String),
    /// A number that is too large.
    #[error("{0} is out of reach: {max} is the largest number here", max = MAX_INDEX)]
    TooLarge(String),
    /// Nothing lies in the range.
    #[error("the range `{0}` is empty: its first number has to stand before its end")]
    Empty(String),
}

/// The largest index that may be written; far above any model's or run's, and safe to add 1 to on every platform.
pub const MAX_INDEX: usize = 1_000_000;

impl FromStr for IndexRange {
    type Err = IndicesError;

    /// Reads `3`, `0..6`, `0..=5`, `4..` or `..4`.
    fn from_str(text: &str) -> Result<Self, IndicesError> {
        let number = |digits: &str| -> Result<usize, IndicesError> {
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(IndicesError::Form(text.to_owned()));
            }
            match digits.parse() {
                Ok(index) if index <= MAX_INDEX => Ok(index),
                _ => Err(IndicesError::TooLarge(digits.to_owned())),
            }
        };
        let text_of_range = text.trim();
        let Some((start, end)) = text_of_range.split_once("..") else {
            let start = number(text_of_range)?;
            return Ok(IndexRange {
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
        let range = IndexRange { start, end };
        if range.is_empty() {
            return Err(IndicesError::Empty(text_of_range.to_owned()));
        }
        Ok(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(text: &str) -> IndexRange {
        text.parse().unwrap()
    }

    #[test]
    fn spellings() {
        let half_open = |start, end| IndexRange { start, end };
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
                matches!(text.parse::<IndexRange>(), Err(IndicesError::Form(_))),
                "{text}"
            );
        }
        assert!(matches!("6..6".parse::<IndexRange>(), Err(IndicesError::Empty(_))));
        assert!(matches!("6..2".parse::<IndexRange>(), Err(IndicesError::Empty(_))));
        assert!(matches!("..0".parse::<IndexRange>(), Err(IndicesError::Empty(_))));
        let huge = "99999999999999999999999..";
        assert!(matches!(huge.parse::<IndexRange>(), Err(IndicesError::TooLarge(_))));
    }

    #[test]
    fn ranges_that_touch_become_one() {
        assert_eq!(
            IndexSet::union([range("3..5"), range("0..3"), range("9")]).to_string(),
            "0..5, 9"
        );
        assert!(IndexSet::union([range("4.."), range("..4")]).is_all());
    }

    fn ranges() -> impl Strategy<Value = Vec<IndexRange>> {
        let range = (0usize..20, proptest::option::of(0usize..24)).prop_map(|(start, end)| IndexRange { start, end });
        proptest::collection::vec(range, 0..5)
    }

    proptest! {
        #[test]
        fn algebra_agrees_with_membership(one in ranges(), other in ranges()) {
            let (here, gone) = (IndexSet::union(one.clone()), IndexSet::union(other));
            let left = here.without(&gone);
            for index in 0..30 {
                prop_assert_eq!(here.contains(index), one.iter().any(|range| range.contains(index)));
                prop_assert!(here.meets(&gone) || !here.contains(index) || !gone.contains(index));
                prop_assert_eq!(left.contains(index), here.contains(index) && !gone.contains(index));
            }
            prop_assert!(here.without(&here).is_empty());
            prop_assert!(here.ranges().windows(2).all(|pair| pair[0].end.is_some_and(|end| end < pair[1].start)));
        }

        #[test]
        fn written_form_reads_back(start in 0usize..1000, length in 1usize..1000, open: bool) {
            let range = IndexRange { start, end: (!open).then_some(start + length) };
            prop_assert_eq!(range.to_string().parse::<IndexRange>(), Ok(range));
        }

        #[test]
        fn never_panics(text in "[0-9.=a \u{0}-\u{ff}]{0,12}") {
            let _ = text.parse::<IndexRange>();
        }
    }
}
