//! What is wrong with a rules file, shown where it is.

use serde::Serialize;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why rules could not be had.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// The file could not be read.
    #[error("cannot read the rules file `{}`: {reason}; check the path, or name one of the presets: {}", path.display(), super::preset::preset_names())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        reason: io::Error,
    },
    /// The text is longer than rules can sensibly be.
    #[error("the rules file `{file}` has more than {limit} bytes; is it a rules file? Rules are a page of YAML")]
    TooLarge {
        /// The file.
        file: String,
        /// The most bytes that are read.
        limit: usize,
    },
    /// There is no preset of that name.
    #[error(
        "there are no rules called `{name}`: the presets are {}",
        super::preset::preset_names()
    )]
    UnknownPreset {
        /// The name that was asked for.
        name: String,
    },
    /// The text is not valid: one or more errors, each with its place.
    #[error("{0}")]
    Invalid(Report),
}

impl RulesError {
    /// The single errors of the file, where it could be read.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        match self {
            RulesError::Invalid(report) => &report.diagnostics,
            _ => &[],
        }
    }
}

/// All that is wrong with one rules file. Its [`Display`](fmt::Display) shows each error under the line it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The name of the file, as it was given.
    pub file: String,
    /// The file's text.
    pub text: String,
    /// The errors, in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
    /// How many more there were than are listed.
    pub left_out: usize,
}

/// One error and its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The line, from 1.
    pub line: usize,
    /// The column of the first character, from 1, in characters.
    pub column: usize,
    /// How many characters are meant, all of them in this line; at least 1.
    pub length: usize,
    /// What is wrong.
    pub message: String,
    /// What is allowed, and what to do next.
    pub help: String,
}

/// The most characters of a line that are shown.
const WIDTH: usize = 100;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = lines(&self.text);
        for diagnostic in &self.diagnostics {
            let Diagnostic {
                line, column, message, ..
            } = diagnostic;
            let margin = line.to_string().len();
            writeln!(f, "error: {message}")?;
            writeln!(f, "{:margin$}--> {}:{line}:{column}", "", self.file)?;
            let text = line
                .checked_sub(1)
                .and_then(|index| lines.get(index))
                .copied()
                .unwrap_or("");
            let (shown, offset, length) = excerpt(text, column.saturating_sub(1), diagnostic.length);
            writeln!(f, "{:margin$} |", "")?;
            writeln!(f, "{}", format!("{line} | {shown}").trim_end())?;
            writeln!(f, "{:margin$} | {:offset$}{}", "", "", "^".repeat(length))?;
            writeln!(f, "{:margin$} = help: {}\n", "", diagnostic.help)?;
        }
        let count = self.diagnostics.len() + self.left_out;
        let errors = if count == 1 { "error" } else { "errors" };
        write!(f, "{count} {errors} in {}", self.file)?;
        if self.left_out > 0 {
            write!(f, ", of which {} are not shown", self.left_out)?;
        }
        Ok(())
    }
}

/// The part of a line to show, with the offset and length of the marks beneath it, in characters.
///
/// Control characters are replaced, so that a hostile file cannot steer the terminal.
fn excerpt(line: &str, column: usize, length: usize) -> (String, usize, usize) {
    let characters: Vec<char> = line
        .chars()
        .map(|character| match character {
            '\t' => ' ',
            character if character.is_control() || is_invisible(character) => char::REPLACEMENT_CHARACTER,
            character => character,
        })
        .collect();
    let start = if column + length.min(WIDTH / 2) > WIDTH {
        column - WIDTH / 4
    } else {
        0
    };
    let end = characters.len().min(start + WIDTH);
    let mut shown: String = characters.get(start..end).unwrap_or_default().iter().collect();
    if end < characters.len() {
        shown.push('…');
    }
    let mut offset = column - start;
    if start > 0 {
        shown.insert(0, '…');
        offset += 1;
    }
    let room = (end + 1).saturating_sub(column).max(1);
    (shown, offset, length.clamp(1, room))
}

/// Marks that change the direction of text or have no width.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// The lines of a text, as YAML 1.2 breaks them (§5.4): at `\n`, `\r\n` and `\r`.
pub(super) fn lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.find(['\n', '\r']) {
        let (line, after) = rest.split_at(end);
        lines.push(line);
        rest = match after.strip_prefix("\r\n") {
            Some(rest) => rest,
            None => after.get(1..).unwrap_or(""),
        };
    }
    lines.push(rest);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn report(text: &str, line: usize, column: usize, length: usize) -> String {
        Report {
            file: "rules.yaml".to_owned(),
            text: text.to_owned(),
            diagnostics: vec![Diagnostic {
                line,
                column,
                length,
                message: "this is wrong".to_owned(),
                help: "write it right".to_owned(),
            }],
            left_out: 0,
        }
        .to_string()
    }

    #[test]
    fn under_the_line() {
        insta::assert_snapshot!(report("version: 1\nrules: none\n", 2, 8, 4), @r"
        error: this is wrong
         --> rules.yaml:2:8
          |
        2 | rules: none
          |        ^^^^
          = help: write it right

        1 error in rules.yaml
        ");
    }

    #[test]
    fn long_lines_are_cut() {
        let text = format!("{}here{}", "a".repeat(500), "b".repeat(500));
        insta::assert_snapshot!(report(&text, 1, 501, 4), @r"
        error: this is wrong
         --> rules.yaml:1:501
          |
        1 | …aaaaaaaaaaaaaaaaaaaaaaaaaherebbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb…
          |                           ^^^^
          = help: write it right

        1 error in rules.yaml
        ");
    }

    #[test]
    fn terminals_are_not_steered() {
        assert!(!report("a\u{1b}[31mb\u{202e}", 1, 1, 1).contains(['\u{1b}', '\u{202e}']));
    }

    #[test]
    fn line_breaks() {
        assert_eq!(lines("a\nb\r\nc\rd"), ["a", "b", "c", "d"]);
        assert_eq!(lines("a\n"), ["a", ""]);
        assert_eq!(lines(""), [""]);
    }

    proptest! {
        #[test]
        fn any_place_in_any_text(text in ".{0,300}", line in 0usize..4, column in 0usize..400, length in 0usize..400) {
            prop_assert!(report(&text, line, column, length).ends_with("1 error in rules.yaml"));
        }
    }
}
