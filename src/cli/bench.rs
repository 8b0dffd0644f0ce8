//! `pab-patch bench`: single steps of original and patched model, timed in turn.

use super::Failure;
use super::args::{CacheOptions, CourseOptions, DriveChoice, InputFile, RulesOptions, SessionOptions};
use super::caches::{CacheReport, CacheSettings};
use super::course::Course;
use super::patch::{Order, Request, patch};
use super::session::{inputs, library};
use super::source::refuse_folder;
use super::terminal::Terminal;
use super::values::{input, size, sizes};
use super::variants::{Times, Values, Variants};
use crate::report::{Alignment, Distribution, Provenance, StepRatios, StepTimes, Table, number};
use crate::rewrite::Drive;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct BenchOptions {
    /// The exported model, not patched
    pub model: PathBuf,
    #[command(flatten)]
    pub rules: RulesOptions,
    #[command(flatten)]
    pub caches: CacheOptions,
    #[command(flatten)]
    pub session: SessionOptions,
    /// What tells the patched model which rules broadcast; with `step` it holds a schedule of two steps, one that computes
    /// everything and one that broadcasts everything
    #[arg(long, value_enum, default_value_t = DriveChoice::Flags)]
    pub drive: DriveChoice,
    /// Timed rounds; each runs every variant once, in alternating order
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub rounds: usize,
    /// How often the models are opened anew during the rounds: what memory an open model happens to get makes it some
    /// percent faster or slower
    #[arg(long, default_value_t = 4, value_name = "N")]
    pub openings: usize,
    /// Value of a further input of the model: .npy, or .npz and .safetensors, of which a FILE alone gives every input that
    /// it has by name (may be given several times)
    #[arg(long = "input", value_name = "[NAME=]FILE", value_parser = input)]
    pub inputs: Vec<InputFile>,
    /// Size of an open dimension, such as text=120 (may be given several times); batch is 2 unless given
    #[arg(long = "size", value_name = "NAME=N", value_parser = size)]
    pub sizes: Vec<(String, usize)>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    times: StepTimes,
    /// The memory of the caches.
    caches: CacheReport,
}

/// Patches into a temporary folder and times.
pub fn run(options: &BenchOptions, terminal: &Terminal) -> Result<(), Failure> {
    if options.rounds == 0 {
        return Err(Failure::Usage("--rounds must be at least 1".to_owned()));
    }
    if options.openings == 0 {
        return Err(Failure::Usage("--openings must be at least 1".to_owned()));
    }
    refuse_folder(
        &options.model,
        "bench",
        "; clips of the whole pipeline are timed by `pab-patch compare`",
    )?;
    let folder = tempfile::Builder::new()
        .prefix("pab-patch-bench-")
        .tempdir()
        .map_err(|source| {
            Failure::Report(crate::report::ReportError::Write {
                path: std::env::temp_dir(),
                source,
            })
        })?;
    // The steps of the scheduler beside the model; those that the plan is made for unless others are asked for.
    let drive = options.drive.into();
    let mut course = Course::of(&options.model, &CourseOptions::default(), terminal)?;
    if drive == Drive::Step {
        course = Course::ComputeThenBroadcast(Box::new(course));
    }
    let mut sizes = sizes(&options.sizes);
    sizes.entry("batch".to_owned()).or_insert(2);
    let request = Request {
        model: &options.model,
        rules: &options.rules,
        caches: CacheSettings {
            options: &options.caches,
            sizes: sizes.clone().into_iter().collect(),
            given_up: None,
        },
        output: folder.path(),
        order: Order {
            hard_links: true,
            ..Order::new(&course, drive)
        },
    };
    let written = patch(&request, terminal)?;
    let library = library(&options.session, terminal)?;
    let values = Values {
        sizes,
        given: inputs(&options.inputs)?,
    };
    let all = vec![vec![true; written.plan.rules.len()]];
    let openings = options.openings.min(options.rounds);
    let mut times = Times::default();
    for opening in 0..openings {
        let backwards = opening % 2 == 1;
        let mut variants = Variants::open(
            &options.model,
            &written,
            &options.session,
            &all,
            &values,
            backwards,
            terminal,
        )?;
        let rounds = options.rounds / openings + usize::from(opening < options.rounds % openings);
        times.extend(variants.time(rounds, "timing", terminal)?);
    }
    let distribution =
        |times: &[f64]| Distribution::of(times).ok_or_else(|| Failure::Usage("--rounds must be at least 1".to_owned()));
    let removed = distribution(times.removed.first().map_or(&[][..], Vec::as_slice))?;
    let [original, computing, keeping, broadcasting] = [
        distribution(&times.original)?,
        distribution(&times.computing)?,
        distribution(&times.keeping)?,
        distribution(&times.broadcasting)?,
    ];
    let times = StepTimes {
        model: options.model.to_string_lossy().into_owned(),
        provenance: Some(Provenance::of_process()),
        runtime: format!("ONNX Runtime {}", library.version),
        rounds: options.rounds,
        openings,
        ratios: StepRatios {
            computing_over_original: computing.median / original.median,
            keeping_over_original: keeping.median / original.median,
            broadcasting_over_removed: broadcasting.median / removed.median,
            original_over_broadcasting: original.median / broadcasting.median,
        },
        removed,
        original,
        computing,
        keeping,
        broadcasting,
    };
    let report = Report {
        times,
        caches: written.caches,
    };
    terminal.result(&report, || text(&report.times, terminal))
}

fn text(report: &StepTimes, terminal: &Terminal) -> String {
    let names = ["one step", "median", "mean", "min", "max"];
    let mut table = Table::new(
        names
            .into_iter()
            .enumerate()
            .map(|(column, name)| (name, if column == 0 { Alignment::Left } else { Alignment::Right })),
    );
    for (name, times) in report.rows() {
        let times = [times.median, times.mean, times.min, times.max].map(number::milliseconds);
        table.row(std::iter::once(name.to_owned()).chain(times));
    }
    let ratios = &report.ratios;
    format!(
        "{}\nRatios of medians over {} rounds, models opened {}\n  nothing broadcast / original           {:.3}\n  \
         computed and kept / original           {:.3}\n  \
         everything broadcast / without modules {:.3}\n  original / everything broadcast        {}\n",
        table.render(terminal.table_style()),
        report.rounds,
        if report.openings == 1 {
            "once".to_owned()
        } else {
            format!("{} times", report.openings)
        },
        ratios.computing_over_original,
        ratios.keeping_over_original,
        ratios.broadcasting_over_removed,
        number::ratio(ratios.original_over_broadcasting),
    )
}
