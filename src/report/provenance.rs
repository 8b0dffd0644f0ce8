//! How, and on what, a result was made: what it takes to make it again.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::runtime::devices::cpu;

/// The command that made a result, and the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The program with its version.
    pub program: String,
    /// The program's name and its arguments.
    pub command: Vec<String>,
    /// Operating system and architecture.
    pub system: String,
    /// The processor's name, where the system tells it.
    pub processor: Option<String>,
    /// Physical cores that the process could use.
    pub cores: usize,
}

impl Provenance {
    /// Of this process.
    #[must_use]
    pub fn of_process() -> Provenance {
        let cpu = cpu();
        let arguments = std::env::args_os().skip(1);
        let command = std::iter::once(env!("CARGO_PKG_NAME").to_owned())
            .chain(arguments.map(|argument| argument.to_string_lossy().into_owned()));
        Provenance {
            program: format!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")),
            command: command.collect(),
            system: format!("{} {}", std::env::consts::OS, cpu.architecture),
            processor: cpu.model,
            cores: cpu.physical_cores,
        }
    }
}

/// A command as a line for a shell.
pub(super) fn command_line(words: &[String]) -> String {
    let mut line = String::new();
    for word in words {
        if !line.is_empty() {
            line.push(' ');
        }
        let plain = |character: char| character.is_ascii_alphanumeric() || "-_./=,:+@%".contains(character);
        if !word.is_empty() && word.chars().all(plain) {
            line.push_str(word);
        } else {
            let _ = write!(line, "'{}'", word.replace('\'', "'\\''"));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_can_be_given_to_a_shell() {
        let mut made = Provenance::of_process();
        assert!(made.program.starts_with("pab-patch ") && made.cores >= 1);
        let words = [
            "pab-patch",
            "run",
            "m.onnx",
            "--prompt",
            "it's a $HOME",
            "",
            "-o",
            "a/b",
        ];
        made.command = words.map(str::to_owned).to_vec();
        assert_eq!(
            command_line(&made.command),
            r"pab-patch run m.onnx --prompt 'it'\''s a $HOME' '' -o a/b"
        );
        let json = serde_json::to_string(&made).unwrap();
        assert_eq!(serde_json::from_str::<Provenance>(&json).unwrap(), made);
    }
}
