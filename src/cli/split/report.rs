//! What `split` tells.

use crate::cli::along::{self, Along};
use crate::cli::terminal::Terminal;
use crate::report::{Alignment, FilePath, Table, number};
use crate::rewrite::split::KeptLatents;
use crate::shard::{Factor, Mesh};
use serde::Serialize;
use std::collections::BTreeMap;

/// What `--json` prints.
#[derive(Serialize)]
pub struct Report {
    pub mesh: Mesh,
    /// What the residual streams are divided along, for each axis of the mesh that divides them.
    pub divided: BTreeMap<&'static str, Option<Factor>>,
    /// What tokens could be divided along, the best first.
    pub candidates: Vec<Along>,
    /// How many steps by the rules were weighed for that; none without rules.
    pub weighed_over: Option<usize>,
    /// How many collectives of each kind a rank takes part in where everything is computed.
    pub collectives: BTreeMap<&'static str, usize>,
    /// The latent of which each rank keeps a part from step to step.
    pub latents: Option<KeptLatents>,
    /// Why the latent is gathered in every step, where it was to be kept.
    pub gathered: Option<String>,
    /// Bytes that the rank with most to send sends in a step; none where sizes are open.
    pub bytes: Option<Bytes>,
    /// What was written.
    pub files: Vec<FilePath>,
}

/// Bytes that a rank sends.
#[derive(Serialize)]
pub struct Bytes {
    /// In a step that computes everything, with the exchanges chosen here.
    pub computing: u64,
    /// The same where every attention that mixes what is divided exchanges it for heads (Ulysses).
    pub ulysses: Option<u64>,
    /// In a step that broadcasts every rule, where there are rules.
    pub broadcasting: Option<u64>,
    /// In each step of the run, where its schedule is known.
    pub steps: Vec<u64>,
}

/// The report for people.
pub fn text(report: &Report, terminal: &Terminal) -> String {
    let mut text = format!("ranks: {}\n", report.mesh);
    for (group, factor) in &report.divided {
        let what = factor.map_or("heads and hidden channels", Factor::word);
        text.push_str(&format!("{group}: divides {what}\n"));
    }
    text.push_str(&along::text(&report.candidates, report.weighed_over));
    let collectives = report.collectives.iter();
    let collectives: Vec<String> = collectives.map(|(kind, count)| format!("{count} {kind}")).collect();
    text.push_str(&format!(
        "collectives of a computing step: {}\n",
        collectives.join(", ")
    ));
    if let Some(latents) = &report.latents {
        text.push_str(&format!(
            "latents: each rank keeps its part of axis {} of `{}`; `{}` is to be gathered when the run is over\n",
            latents.axis, latents.input, latents.output
        ));
    }
    if let Some(reason) = &report.gathered {
        text.push_str(&format!("latents: gathered in every step, since {reason}\n"));
    }
    let Some(bytes) = &report.bytes else {
        text.push_str("what is sent depends on open sizes: give them with --size NAME=N\n");
        return text;
    };
    let mut table = Table::new([
        ("a rank sends", Alignment::Left),
        ("steps", Alignment::Right),
        ("bytes each", Alignment::Right),
    ]);
    let mut row = |what: &str, steps: String, sent: u64| {
        table.row([what.to_owned(), steps, number::bytes(sent)]);
    };
    row("computing everything", String::new(), bytes.computing);
    if let Some(ulysses) = bytes.ulysses {
        row("the same with heads for tokens (Ulysses)", String::new(), ulysses);
    }
    if let Some(broadcasting) = bytes.broadcasting {
        row("broadcasting every rule", String::new(), broadcasting);
    }
    // Steps that send the same and follow each other are one row.
    let mut first = 0;
    for run in bytes.steps.chunk_by(|one, other| one == other) {
        let last = first + run.len() - 1;
        let steps = if first == last {
            first.to_string()
        } else {
            format!("{first}–{last}")
        };
        row("step", steps, run.first().copied().unwrap_or(0));
        first = last + 1;
    }
    text.push_str(&table.render(terminal.table_style()));
    if !bytes.steps.is_empty() {
        let (sum, steps) = (bytes.steps.iter().sum::<u64>(), bytes.steps.len() as u64);
        let without = bytes.computing * steps;
        text.push_str(&format!(
            "all {steps} steps: {}, {} of {} without broadcast\n",
            number::bytes(sum),
            number::percent(sum as f64 / without.max(1) as f64),
            number::bytes(without)
        ));
        if let Some(ulysses) = bytes.ulysses {
            text.push_str(&format!(
                "Ulysses without broadcast: {}\n",
                number::bytes(ulysses * steps)
            ));
        }
    }
    text
}
