//! `pab-patch report`: results of other commands on one page.

use super::Failure;
use super::args::ReportOptions;
use super::terminal::Terminal;
use crate::report::{FilePath, FramesPerSecond, PageSettings, Pending, Results};
use serde::Serialize;
use std::path::PathBuf;

/// Where `pab-patch compare` writes unless it is told.
const COMPARISON: &str = "comparison";

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    /// The page.
    page: FilePath,
    /// The parts that it has.
    parts: Vec<&'static str>,
    /// The parts that were left out.
    missing: Vec<Missing>,
    /// What could not be read or shown.
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Missing {
    part: &'static str,
    /// How to get it.
    advice: String,
}

/// Reads, and writes the page.
pub fn run(options: &ReportOptions, terminal: &Terminal) -> Result<(), Failure> {
    let rate = FramesPerSecond::new(options.fps)?;
    let paths = match options.results.as_slice() {
        [] => &[PathBuf::from(COMPARISON)],
        given => given,
    };
    let results = Results::read(paths)?;
    let page = results.page(&PageSettings {
        title: options.title.clone(),
        clips: options.clips,
        rate,
    });
    for warning in &page.warnings {
        terminal.warning(warning);
    }
    for (part, advice) in &page.missing {
        terminal.note(format!("left out: {part}; {advice}"));
    }
    Pending::text(&options.output, page.html.trim_end())?.finish()?;
    let report = Report {
        page: options.output.as_path().into(),
        parts: page.parts,
        missing: page
            .missing
            .into_iter()
            .map(|(part, advice)| Missing { part, advice })
            .collect(),
        warnings: page.warnings,
    };
    terminal.result(&report, || options.output.display().to_string())
}
