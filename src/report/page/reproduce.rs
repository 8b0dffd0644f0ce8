//! On what the figures were measured, and the commands that measure them again.

use super::markup::table;
use super::{Part, Results};
use crate::report::comparison::Comparison;
use crate::report::html::escaped;
use crate::report::provenance::{Provenance, command_line};
use crate::report::table::Alignment;
use std::fmt::Write as _;

pub fn part(results: &Results) -> Part {
    let mut rows: Vec<[String; 2]> = Vec::new();
    let mut add = |name: &str, value: String| {
        let row = [name.to_owned(), value];
        if !rows.contains(&row) {
            rows.push(row);
        }
    };
    for comparison in &results.comparisons {
        for (name, value) in facts(&comparison.value) {
            add(name, value);
        }
    }
    for times in &results.step_times {
        add("runtime", times.value.runtime.clone());
    }
    let made = provenances(results);
    for made in &made {
        let processor = made.processor.as_deref().unwrap_or("unknown processor");
        add("machine", format!("{}, {processor}, {} cores", made.system, made.cores));
        add("program", made.program.clone());
    }
    let mut commands: Vec<String> = Vec::new();
    let calibrated = results
        .calibrations
        .iter()
        .map(|result| command_line(&result.value.command));
    for line in made.iter().map(|made| command_line(&made.command)).chain(calibrated) {
        if !commands.contains(&line) {
            commands.push(line);
        }
    }
    for plan in &results.plans {
        let program = format!("{} (the plan {})", plan.value.generator, plan.path.display());
        if results.comparisons.is_empty() && results.step_times.is_empty() {
            rows.push(["program".to_owned(), program]);
        }
    }
    let mut html = String::new();
    if !rows.is_empty() {
        let columns = [("what", Alignment::Left), ("with", Alignment::Left)];
        html.push_str(&table("Environment", columns, &rows));
    }
    if !commands.is_empty() {
        html.push_str("<p>The commands that made these results:</p>\n<pre tabindex=\"0\"><code>");
        for command in &commands {
            let _ = writeln!(html, "{}", escaped(command));
        }
        html.push_str("</code></pre>\n");
    }
    Part::new(
        "reproduce",
        "To make it again",
        (!html.is_empty()).then_some(html),
        "results of this version of pab-patch say how they were made.",
    )
}

/// Who made each result.
fn provenances(results: &Results) -> Vec<&Provenance> {
    let compared = results
        .comparisons
        .iter()
        .filter_map(|result| result.value.provenance.as_ref());
    let timed = results
        .step_times
        .iter()
        .filter_map(|result| result.value.provenance.as_ref());
    let judged = results.judgements.iter().map(|result| &result.value.provenance);
    compared.chain(timed).chain(judged).collect()
}

fn facts(comparison: &Comparison) -> Vec<(&'static str, String)> {
    let (facts, run, runtime) = (&comparison.facts, &comparison.facts.run, &comparison.facts.runtime);
    let [channels, frames, height, width] = run.clip_shape;
    vec![
        ("original", facts.model.clone()),
        ("patched", facts.patched_model.clone()),
        ("rules", facts.rules_from.clone()),
        (
            "run",
            format!("{}, {} steps, guidance {}", run.scheduler, run.steps, run.guidance),
        ),
        (
            "clips",
            format!("{channels} channels, {frames} frames of {width}x{height}"),
        ),
        (
            "runtime",
            format!(
                "ONNX Runtime {}, {}, {} {}, {}",
                runtime.version,
                runtime.provider,
                runtime.threads,
                if runtime.threads == 1 { "thread" } else { "threads" },
                runtime.library
            ),
        ),
    ]
}
