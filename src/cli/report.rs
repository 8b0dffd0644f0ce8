//! `pab-patch report`: results of other commands on one page.

use super::Failure;
use super::terminal::Terminal;
use crate::report::{FilePath, FramesPerSecond, PageSettings, Pending, Results};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct ReportOptions {
    /// Results: the folder that `compare` wrote, or any folder or file with its figures, with plans, or with the JSON of `inspect`,
    /// `quality`, `bench` or `calibrate` [default: comparison]
    #[arg(value_name = "FOLDER|FILE.json")]
    pub results: Vec<PathBuf>,
    /// The page
    #[arg(short, long, value_name = "FILE", default_value = "report.html")]
    pub output: PathBuf,
    /// Its title [default: the model's name]
    #[arg(long)]
    pub title: Option<String>,
    /// Clips of each comparison that are shown, at most
    #[arg(long, default_value_t = 6, value_name = "N")]
    pub clips: usize,
    /// Frames a second
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50))]
    pub fps: u32,
}

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
