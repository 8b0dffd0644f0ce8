//! `pab-patch completions`: completions for a shell.

use super::Failure;
use super::args::{Arguments, CompletionsOptions};
use clap::CommandFactory;
use std::io::Write;

/// Prints the completions.
pub fn run(options: &CompletionsOptions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Arguments::command(), "pab-patch", &mut script);
    std::io::stdout().lock().write_all(&script).map_err(Failure::Stdout)
}
