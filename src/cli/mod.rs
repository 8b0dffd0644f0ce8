//! The command line, one file per subcommand.
//!
//! Data goes to standard output, everything for people to standard error where a command puts out data. Exit codes
//! are those of [`ExitStatus`].

mod along;
mod analysis;
mod args;
mod bench;
mod caches;
mod calibrate;
mod compare;
mod completions;
mod course;
mod division;
mod doctor;
mod failure;
mod folder;
mod in_memory;
mod inspect;
mod interrupt;
mod open_sizes;
mod patch;
mod plan;
mod plan_beside;
mod quality;
mod removed_work;
mod report;
mod run;
mod session;
mod setup;
mod source;
mod split;
mod static_graphs;
mod terminal;
mod values;
mod variants;
mod write_variants;

pub use failure::{ExitStatus, Failure};

use args::{Arguments, Command};
use clap::Parser;
use std::ffi::OsString;
use std::process::ExitCode;
use terminal::Terminal;

/// Runs the program with these arguments (the first is the program's own name) and returns its exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no errors, and go to standard output.
            let _ = error.print();
            return if error.use_stderr() {
                ExitStatus::Usage.into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let terminal = Terminal::new(&arguments.output);
    match dispatch(arguments, &terminal) {
        Ok(()) => ExitCode::SUCCESS,
        // Whatever the signal made fail, such as a program that was running beside: who ended it is meant to know.
        Err(failure) if terminal.stop().is_asked() => {
            terminal.interrupted(&failure);
            ExitStatus::Interrupted.into()
        }
        Err(failure) => {
            terminal.error(&failure);
            failure.status().into()
        }
    }
}

fn dispatch(arguments: Arguments, terminal: &Terminal) -> Result<(), Failure> {
    if writes_or_waits(arguments.command.as_ref()) {
        interrupt::watch(terminal);
    }
    match arguments.command {
        None => patch::run(&arguments.patch, terminal),
        Some(Command::Inspect(options)) => inspect::run(&options, terminal),
        Some(Command::Variants(options)) => write_variants::run(&options, terminal),
        Some(Command::Split(options)) => split::run(&options, terminal),
        Some(Command::Run(options)) => run::run(&options, terminal),
        Some(Command::Calibrate(options)) => calibrate::run(&options, terminal),
        Some(Command::Compare(options)) => compare::run(&options, terminal),
        Some(Command::Quality(options)) => quality::run(&options, terminal),
        Some(Command::Report(options)) => report::run(&options, terminal),
        Some(Command::Bench(options)) => bench::run(&options, terminal),
        Some(Command::Plan(options)) => plan::run(&options, terminal),
        Some(Command::Setup(options)) => setup::run(&options, terminal),
        Some(Command::Doctor(options)) => doctor::run(&options, terminal),
        Some(Command::Completions(options)) => completions::run(&options),
    }
}

/// Whether a command has something to clean up or to keep when it is interrupted. The others may just end.
fn writes_or_waits(command: Option<&Command>) -> bool {
    match command {
        None
        | Some(
            Command::Variants(_)
            | Command::Split(_)
            | Command::Run(_)
            | Command::Calibrate(_)
            | Command::Compare(_)
            | Command::Bench(_),
        ) => true,
        Some(
            Command::Inspect(_)
            | Command::Plan(_)
            | Command::Quality(_)
            | Command::Report(_)
            | Command::Setup(_)
            | Command::Doctor(_)
            | Command::Completions(_),
        ) => false,
    }
}
