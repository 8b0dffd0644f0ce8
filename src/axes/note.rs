//! What an analysis saw and did not understand, for people.

use std::fmt;

/// Something that was not understood: what, why, and what can be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The node, input or operator.
    pub subject: String,
    /// Why it is not understood.
    pub reason: String,
    /// What to do next.
    pub advice: String,
}

impl Note {
    /// A note.
    pub fn new(subject: impl Into<String>, reason: impl Into<String>, advice: impl Into<String>) -> Note {
        Note {
            subject: subject.into(),
            reason: reason.into(),
            advice: advice.into(),
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.subject, self.reason, self.advice)
    }
}

/// How to say what the axes of an input count: the option of the command line, and the line of a rules file. `axes` are
/// words separated by commas.
pub(crate) fn labelling(input: &str, axes: &str) -> String {
    format!("--axes {input}={axes}, or in the rules file: {}", line(input, axes))
}

/// The line of a rules file that says what the axes of an input count.
pub(crate) fn line(input: &str, axes: &str) -> String {
    let words: Vec<&str> = axes.split(',').collect();
    format!("inputs: {{ {}: [{}] }}", key(input), words.join(", "))
}

/// A text as a key of a flow mapping in YAML: in quotes unless it is surely plain.
fn key(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'/' | b'-');
    let begins = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'/');
    if text.bytes().all(plain) && text.bytes().next().is_some_and(begins) {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            // Written as numbers, so that the line can be copied from a terminal.
            control if control.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// Names of inputs, for messages.
fn quoted(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// Why the axes of a model cannot be told.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AxesError {
    /// The nodes of the graph have no order.
    #[error(transparent)]
    Graph(#[from] crate::graph::GraphError),
    /// Labels were given for an input that the model does not have.
    #[error(
        "labels are given for input `{name}`, which the model does not have; its inputs are {}",
        quoted(inputs)
    )]
    UnknownInput {
        /// The name given.
        name: String,
        /// The names there are.
        inputs: Vec<String>,
    },
    /// Labels were given that do not fit the rank of an input.
    #[error("input `{name}` has {rank} dimensions, but {labels} labels are given for it; give one for each")]
    Rank {
        /// The input.
        name: String,
        /// Its rank.
        rank: usize,
        /// How many labels were given.
        labels: usize,
    },
    /// No input can be recognized as the latent.
    #[error(
        "none of the inputs ({}) is recognized as the latent; say what its axes are, for example {}",
        quoted(inputs),
        labelling(example, "batch,channels,frames,height,width")
    )]
    NoLatent {
        /// The names of the inputs.
        inputs: Vec<String>,
        /// One of them.
        example: String,
    },
}

impl AxesError {
    /// The input whose labels are wrong, where they are.
    pub fn input(&self) -> Option<&str> {
        match self {
            AxesError::UnknownInput { name, .. } | AxesError::Rank { name, .. } => Some(name),
            AxesError::Graph(_) | AxesError::NoLatent { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_is_an_option_and_a_line_of_yaml() {
        assert_eq!(
            labelling("mask", "batch,text"),
            "--axes mask=batch,text, or in the rules file: inputs: { mask: [batch, text] }"
        );
        assert_eq!(line("input.1", "batch"), "inputs: { input.1: [batch] }");
        assert_eq!(line("/x/y-0", "batch"), "inputs: { /x/y-0: [batch] }");
        assert_eq!(line("a: b", "batch"), r#"inputs: { "a: b": [batch] }"#);
        assert_eq!(line("-x\"\\\n", "batch"), r#"inputs: { "-x\"\\\u000a": [batch] }"#);
        assert_eq!(line("", "batch"), r#"inputs: { "": [batch] }"#);
    }
}
