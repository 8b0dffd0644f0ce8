//! `pab-patch doctor`: what the models would run on.

use super::Failure;
use super::args::DoctorOptions;
use super::terminal::Terminal;
use crate::report::{Alignment, Table};
use crate::runtime::Places;
use crate::runtime::doctor::{CacheState, Facts, examine};

/// Prints the facts; fails where there is no usable library.
pub fn run(options: &DoctorOptions, terminal: &Terminal) -> Result<(), Failure> {
    let facts = examine(&Places::of_process(options.ort_lib.clone()));
    terminal.result(&facts, || table(&facts).render(terminal.table_style()))?;
    match (&facts.library, &facts.problem) {
        (Some(_), _) => Ok(()),
        (None, problem) => Err(Failure::NoRuntime(problem.clone().unwrap_or_default())),
    }
}

fn table(facts: &Facts) -> Table {
    let mut table = Table::new([("what", Alignment::Left), ("found", Alignment::Left)]);
    let mut row = |name: &str, value: String| {
        table.row([name.to_owned(), value]);
    };
    match &facts.library {
        Some(library) => {
            row(
                "ONNX Runtime",
                format!("{} ({} or later is needed)", library.version, facts.required_version),
            );
            row(
                "library",
                format!("{} (from: {})", library.path.display(), library.origin),
            );
        }
        None => row("ONNX Runtime", "none that can be used".to_owned()),
    }
    if let Some(problem) = &facts.problem {
        row("problem", problem.clone());
    }
    for skipped in &facts.skipped {
        row("passed over", format!("{}: {}", skipped.path.display(), skipped.reason));
    }
    if let Some(opset) = facts.supported_opset {
        row("newest opset", opset.to_string());
    }
    row("execution providers", facts.providers.join(", "));
    for provider in &facts.usable {
        let name = format!("--device {}", provider.name);
        if provider.causes.is_empty() {
            row(&name, "nothing is known to stand in its way".to_owned());
        }
        for cause in &provider.causes {
            row(&name, format!("cannot be used: {}; {}", cause.reason, cause.advice));
        }
    }
    for device in &facts.devices {
        row(
            "device",
            format!("{} {} ({})", device.vendor, device.kind, device.provider),
        );
    }
    let cpu = &facts.cpu;
    let model = cpu.model.as_deref().unwrap_or("unknown model");
    row(
        "processor",
        format!(
            "{model} ({}), {} cores, {} threads",
            cpu.architecture, cpu.physical_cores, cpu.logical_cores
        ),
    );
    let gpus = match (&facts.gpus.names[..], &facts.gpus.reason) {
        ([], Some(reason)) => format!("none: {reason}"),
        ([], None) => "none".to_owned(),
        (names, _) => names.join(", "),
    };
    row("NVIDIA GPUs", gpus);
    row("threads", facts.default_threads.to_string());
    let state = match facts.cache.state {
        CacheState::Absent => "empty",
        CacheState::Intact => "intact",
        CacheState::Damaged => "damaged, run `pab-patch setup`",
    };
    let folder = facts
        .cache
        .folder
        .as_ref()
        .map_or("none".to_owned(), |folder| folder.display().to_string());
    row("cache", format!("{folder} ({state})"));
    table
}
