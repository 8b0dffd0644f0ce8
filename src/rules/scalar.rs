//! What a scalar is: text, a number, or one of YAML's words.

use super::tree::{Content, Node};

/// The most characters of a text that a message repeats.
const SHOWN: usize = 40;

/// A number as it is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Whole(i64),
    Real(f64),
}

impl Number {
    pub fn whole(self) -> Option<i64> {
        match self {
            Number::Whole(value) => Some(value),
            Number::Real(_) => None,
        }
    }

    pub fn value(self) -> f64 {
        match self {
            Number::Whole(value) => value as f64,
            Number::Real(value) => value,
        }
    }
}

/// The number that a node is, if it is a finite one: YAML's core schema (§10.3.2) in decimals.
pub(super) fn number(node: &Node) -> Option<Number> {
    match &node.content {
        Content::Scalar { text, plain: true } => parse(text),
        _ => None,
    }
}

fn parse(text: &str) -> Option<Number> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    if digits.bytes().all(|byte| byte.is_ascii_digit())
        && let Ok(value) = text.parse()
    {
        return Some(Number::Whole(value));
    }
    text.parse()
        .ok()
        .filter(|value: &f64| value.is_finite())
        .map(Number::Real)
}

/// Whether a text without quotes is a text in YAML: neither a number nor one of its words for nothing, true and false.
pub(super) fn is_text(text: &str) -> bool {
    !is_word(text) && parse(text).is_none()
}

fn is_word(text: &str) -> bool {
    is_nothing(text) || matches!(text, "true" | "True" | "TRUE" | "false" | "False" | "FALSE")
}

fn is_nothing(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// What stands there, in words.
pub(super) fn describe(node: &Node) -> String {
    match &node.content {
        Content::Scalar { text, plain: true } if is_nothing(text) => "nothing".to_owned(),
        Content::Scalar { text, plain } => {
            let mut shown: String = text
                .chars()
                .take(SHOWN)
                .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
                .collect();
            if text.chars().count() > SHOWN {
                shown.push('…');
            }
            match plain {
                true => format!("`{shown}`"),
                false => format!("the text \"{shown}\""),
            }
        }
        Content::List(nodes) if nodes.is_empty() => "an empty list".to_owned(),
        Content::List(nodes) => format!("a list of {}", nodes.len()),
        Content::Map(_) => "a mapping".to_owned(),
        Content::Reported => "an error".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (text, expected) in [
            ("2", Some(Number::Whole(2))),
            ("-3", Some(Number::Whole(-3))),
            ("+4", Some(Number::Whole(4))),
            ("0.15", Some(Number::Real(0.15))),
            (".5", Some(Number::Real(0.5))),
            ("1e3", Some(Number::Real(1000.0))),
            ("99999999999999999999", Some(Number::Real(1e20))),
            ("1e999", None),
            (".inf", None),
            ("inf", None),
            ("nan", None),
            ("0..6", None),
            ("0x10", None),
            ("", None),
            ("-", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn texts() {
        assert!(["spatial", "0..6", "no", "inf"].into_iter().all(is_text));
        assert!(!["", "~", "null", "true", "3", "0.5"].into_iter().any(is_text));
    }
}
