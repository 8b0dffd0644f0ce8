//! The `pab-patch` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    pab_patch::cli::run(std::env::args_os())
}
