//! `pab-patch compare`: the same clips by original and patched model or pipeline, with times and quality.

mod candidate;
mod facts;
mod generate;
mod options;
mod report;
mod task;

pub use options::CompareOptions;

use super::Failure;
use super::session::{check_cuda_graph, library};
use super::terminal::Terminal;
use crate::report::{Comparison, FramesPerSecond, ORIGINAL, Provenance, side_by_side, write_json};
use crate::rules::Rules;
use candidate::{Candidate, folders};
use facts::facts;
use generate::generate;
use report::{Reports, report, text, write_clips};
use task::Task;

/// Patches, generates, compares.
pub fn run(options: &CompareOptions, terminal: &Terminal) -> Result<(), Failure> {
    if options.clips == 0 {
        return Err(Failure::Usage("--clips must be at least 1".to_owned()));
    }
    check_cuda_graph(options.form, options.cuda_graph, &options.session)?;
    let rate = FramesPerSecond::new(options.sampling.fps)?;
    let mut task = Task::read(options, terminal)?;
    let several = options.rules.each();
    for named in several.iter().filter_map(|rules| rules.rules.as_deref()) {
        Rules::find(named)?;
    }
    let folders = folders(&options.output, &several)?;
    // Every prompt is looked at before anything is written: of a single model also before ONNX Runtime is fetched.
    let is_single = task.source.pipeline.is_none();
    if is_single {
        task.encode(terminal)?;
    }
    let library = library(&options.session, terminal)?;
    if !is_single {
        task.encode(terminal)?;
    }
    let mut candidates = Vec::with_capacity(several.len());
    for (rules, folder) in several.iter().zip(folders) {
        candidates.push(Candidate::patched(&task, rules, folder, terminal)?);
    }
    let made = generate(&task, &mut candidates, terminal)?;

    let mut comparisons = Vec::with_capacity(candidates.len());
    for candidate in &mut candidates {
        let clips = std::mem::take(&mut candidate.clips);
        let facts = facts(&task, candidate, &library, &made);
        let mut comparison = Comparison::new(facts, clips, candidate.allowed())?;
        comparison.provenance = Some(Provenance::of_process());
        comparisons.push(comparison);
    }
    let mut reports = Vec::with_capacity(candidates.len());
    let originals = match candidates.first() {
        Some(candidate) => write_clips(options, ORIGINAL, candidate, |both| &both.original, rate)?,
        None => None,
    };
    for (candidate, comparison) in candidates.iter().zip(&comparisons) {
        reports.push(report(options, candidate, comparison, originals.as_deref(), rate)?);
    }
    if let [report] = reports.as_slice() {
        return terminal.result(report, || text(report, terminal));
    }
    let reports = Reports { comparisons: &reports };
    let file = options.output.join("comparisons.json");
    write_json(&file, &reports)?;
    terminal.result(&reports, || {
        let mut all = String::new();
        for report in reports.comparisons {
            all.push_str(&text(report, terminal));
            all.push('\n');
        }
        all.push_str(&side_by_side(&comparisons, terminal.table_style()));
        all.push_str(&format!("\nFigures        {}\n", file.display()));
        all
    })
}
