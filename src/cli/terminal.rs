//! What people see: messages, tables and progress on standard error, data on standard output.

use super::Failure;
use super::args::OutputOptions;
use crate::report::TableStyle;
use crate::stop::Stop;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::io::{IsTerminal, Write};

/// Where output goes, and how much of it.
#[derive(Debug)]
pub struct Terminal {
    json: bool,
    quiet: bool,
    verbose: u8,
    stop: Stop,
}

impl Terminal {
    /// From `--json`, `-q` and `-v`.
    pub fn new(options: &OutputOptions) -> Terminal {
        Terminal {
            json: options.json,
            quiet: options.quiet,
            verbose: options.verbose,
            stop: Stop::default(),
        }
    }

    /// The same terminal for work within a command, of which only warnings of errors would be seen: its messages are not.
    pub fn hushed(&self) -> Terminal {
        Terminal {
            json: self.json,
            quiet: true,
            verbose: 0,
            stop: self.stop.clone(),
        }
    }

    /// Whether who sits there has had enough: Ctrl-C asks it.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Whether only results and errors are wanted.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// A line for people.
    pub fn note(&self, text: impl AsRef<str>) {
        if !self.quiet {
            say(text.as_ref());
        }
    }

    /// A line for people who asked for more.
    pub fn detail(&self, text: impl AsRef<str>) {
        if self.verbose > 0 {
            say(text.as_ref());
        }
    }

    /// Something that may be wrong.
    pub fn warning(&self, text: impl AsRef<str>) {
        if !self.quiet {
            say(&format!("warning: {}", text.as_ref()));
        }
    }

    /// The error that ends the command.
    pub fn error(&self, failure: &Failure) {
        if failure.is_shown() {
            return;
        }
        let text = failure.to_string();
        // Errors in rules come as a list in which each says that it is one.
        say(&if text.starts_with("error: ") {
            text
        } else {
            format!("error: {text}")
        });
    }

    /// The end of a command that a signal ended, and what was then at hand.
    pub fn interrupted(&self, failure: &Failure) {
        if failure.is_shown() {
            return;
        }
        say(&match failure.is_stopped() {
            true => "error: interrupted".to_owned(),
            false => format!("error: interrupted ({failure})"),
        });
    }

    /// The result: as JSON where that is wanted, else as text.
    ///
    /// # Errors
    /// [`Failure::Stdout`] where standard output is closed.
    pub fn result<T: Serialize>(&self, value: &T, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.json {
            self.print(&serde_json::to_string_pretty(value).map_err(|error| Failure::Stdout(error.into()))?)
        } else {
            self.print(&text())
        }
    }

    /// Data on standard output, with a newline at the end.
    ///
    /// # Errors
    /// [`Failure::Stdout`] where standard output is closed.
    pub fn print(&self, text: &str) -> Result<(), Failure> {
        let end = if text.ends_with('\n') { "" } else { "\n" };
        let mut output = std::io::stdout().lock();
        let written = output
            .write_all(text.as_bytes())
            .and_then(|()| output.write_all(end.as_bytes()));
        written.map_err(Failure::Stdout)
    }

    /// Whether results are printed as JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// How tables on standard output are drawn.
    pub fn table_style(&self) -> TableStyle {
        match terminal_size::terminal_size_of(std::io::stdout()) {
            Some((width, _)) => TableStyle::Terminal { width: width.0 },
            None => TableStyle::Plain,
        }
    }

    /// A bar for `length` steps of something; nothing is drawn where standard error is no terminal.
    pub fn steps(&self, what: impl Into<String>, length: usize) -> ProgressBar {
        self.bar(what, length as u64, "{msg} {bar:30} {pos}/{len} {eta}")
    }

    /// A bar for the steps of clips, with a prefix for the clip and a message for the step.
    pub fn denoising(&self, length: usize) -> ProgressBar {
        self.bar("", length as u64, "{prefix} {bar:30} {pos}/{len} {eta}  {msg}")
    }

    /// A bar for bytes.
    pub fn bytes(&self, what: impl Into<String>) -> ProgressBar {
        self.bar(what, 0, "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
    }

    fn bar(&self, what: impl Into<String>, length: u64, template: &str) -> ProgressBar {
        let shown = !self.quiet && std::io::stderr().is_terminal();
        let target = if shown {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(length), target).with_message(what.into());
        match ProgressStyle::with_template(template) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    }
}

/// Prints a line on standard error. Where that cannot be written there is nobody to tell.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
