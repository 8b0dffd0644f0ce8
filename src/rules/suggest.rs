//! The word that was probably meant.

/// The longest word that is compared; longer ones are no slip of the finger.
const LONGEST: usize = 40;

/// The word of `known` that is closest to `word`, if it is close: at most one slip for every three characters.
pub(super) fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.to_lowercase().chars().take(LONGEST + 1).collect();
    if word.len() > LONGEST {
        return None;
    }
    known
        .into_iter()
        .map(|candidate| (slips(&word, &candidate.chars().collect::<Vec<_>>()), candidate))
        .filter(|(slips, candidate)| *slips <= candidate.chars().count().max(word.len()).div_ceil(3))
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, candidate)| candidate)
}

/// The least number of insertions, deletions, substitutions and swaps of neighbours that turn one word into the other
/// (optimal string alignment).
fn slips(one: &[char], other: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (row, a) in one.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, b) in other.iter().enumerate() {
            let value = |line: &[usize], at: usize| line.get(at).copied().unwrap_or(usize::MAX / 2);
            let substituted = value(&last, column) + usize::from(a != b);
            let mut least = substituted
                .min(value(&last, column + 1) + 1)
                .min(value(&current, column) + 1);
            let swapped = row > 0 && column > 0 && one.get(row - 1) == Some(b) && other.get(column - 1) == Some(a);
            if swapped {
                least = least.min(value(&before_last, column - 1) + 1);
            }
            current.push(least);
        }
        before_last = std::mem::replace(&mut last, current);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        let distance =
            |one: &str, other: &str| slips(&one.chars().collect::<Vec<_>>(), &other.chars().collect::<Vec<_>>());
        for (one, other, expected) in [
            ("range", "range", 0),
            ("rnage", "range", 1),
            ("rang", "range", 1),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(one, other), expected, "{one} {other}");
        }
    }

    #[test]
    fn only_close_words() {
        let known = ["range", "window"];
        assert_eq!(closest("Rnage", known), Some("range"));
        assert_eq!(closest("windows", known), Some("window"));
        assert_eq!(closest("colour", known), None);
        assert_eq!(closest(&"range".repeat(1000), known), None);
    }
}
