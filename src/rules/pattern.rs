//! Patterns over module names.

use serde::{Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// A pattern that a whole module name has to match: `*` stands for any characters (none, dots and slashes too), `?` for
/// exactly one, and everything else for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

/// Characters that other pattern languages give a meaning; refused, so that they can get one here later.
const RESERVED: [char; 5] = ['[', ']', '{', '}', '\\'];

impl Pattern {
    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the pattern matches the whole of `name`.
    pub fn matches(&self, name: &str) -> bool {
        let pattern: Vec<char> = self.0.chars().collect();
        let name: Vec<char> = name.chars().collect();
        let (mut at, mut in_name) = (0, 0);
        // Where to go on when the latest `*` has to take one more character.
        let mut retry: Option<(usize, usize)> = None;
        while let Some(&character) = name.get(in_name) {
            match pattern.get(at) {
                Some('*') => {
                    retry = Some((at + 1, in_name));
                    at += 1;
                }
                Some(&wanted) if wanted == '?' || wanted == character => {
                    at += 1;
                    in_name += 1;
                }
                _ => {
                    let Some((after_star, taken)) = retry else { return false };
                    retry = Some((after_star, taken + 1));
                    (at, in_name) = (after_star, taken + 1);
                }
            }
        }
        pattern.iter().skip(at).all(|&rest| rest == '*')
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// A pattern that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing is written.
    #[error("an empty pattern matches no module")]
    Empty,
    /// A character that has no meaning yet.
    #[error("`{0}` has no meaning in a name pattern")]
    Reserved(char),
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        match text.chars().find(|character| RESERVED.contains(character)) {
            Some(character) => Err(PatternError::Reserved(character)),
            None => Ok(Pattern(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, name: &str) -> bool {
        pattern.parse::<Pattern>().unwrap().matches(name)
    }

    #[test]
    fn stars_and_question_marks() {
        for (pattern, name, expected) in [
            ("*.attn1", "transformer_blocks.0.attn1", true),
            ("*.attn1", "transformer_blocks.0.attn2", false),
            ("transformer_blocks.?.attn1", "transformer_blocks.0.attn1", true),
            ("transformer_blocks.?.attn1", "transformer_blocks.10.attn1", false),
            ("transformer_blocks*", "temporal_transformer_blocks.0", false),
            ("*blocks*attn*", "/transformer_blocks.3/attn2", true),
            ("*a*b", "aabab", true),
            ("*a*b", "aabaa", false),
            ("**", "", true),
            ("?", "", false),
            ("attn1", "attn1", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} on {name}");
        }
    }

    #[test]
    fn reserved_characters_are_refused() {
        assert_eq!("a[0]".parse::<Pattern>(), Err(PatternError::Reserved('[')));
        assert_eq!("".parse::<Pattern>(), Err(PatternError::Empty));
    }

    /// The definition, word for word; exponential, so only for short names.
    fn by_definition(pattern: &[char], name: &[char]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            (['*', rest @ ..], _) => {
                by_definition(rest, name) || (!name.is_empty() && by_definition(pattern, &name[1..]))
            }
            (['?', rest @ ..], [_, tail @ ..]) => by_definition(rest, tail),
            ([wanted, rest @ ..], [character, tail @ ..]) => wanted == character && by_definition(rest, tail),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*?]{1,7}", name in "[ab]{0,9}") {
            let (wanted, characters): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
            prop_assert_eq!(matches(&pattern, &name), by_definition(&wanted, &characters));
        }
    }
}
