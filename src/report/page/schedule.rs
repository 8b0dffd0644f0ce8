//! Which steps broadcast which kinds, as a picture.

use super::markup::{command, folded, table};
use super::{Part, Results};
use crate::report::html::escaped;
use crate::report::number;
use crate::report::stack::class_of;
use crate::report::table::Alignment;
use crate::rewrite::{Plan, SchedulePlan};
use std::fmt::Write as _;

/// Sizes in the picture's own units.
const CELL: usize = 11;
const ROW: usize = 26;
const LABELS: usize = 84;
const BELOW: usize = 34;
/// So many columns fit beside each other before cells become narrower than a line.
const MOST_STEPS: usize = 2000;

/// A row of the picture: for each step the share of the sites that are broadcast.
struct Row {
    kind: &'static str,
    sites: usize,
    shares: Vec<f64>,
}

pub fn part(results: &Results) -> Part {
    let mut html = String::new();
    let mut seen: Vec<String> = Vec::new();
    for plan in &results.plans {
        let Some(schedule) = plan.value.schedule.as_ref().filter(|schedule| schedule.steps() > 0) else {
            continue;
        };
        let picture = picture(&plan.value, schedule);
        if seen.contains(&picture) {
            continue;
        }
        let _ = writeln!(
            html,
            "<h3>{}</h3>\n{picture}",
            escaped(&format!("{}, {} steps", plan.value.rules_from, schedule.steps()))
        );
        seen.push(picture);
    }
    Part::new(
        "schedule",
        "Schedule",
        (!html.is_empty()).then_some(html),
        &format!(
            "a plan has it where the scheduler is known: {}.",
            command("pab-patch MODEL --scheduler scheduler_config.json --steps 50")
        ),
    )
}

fn rows(plan: &Plan, schedule: &SchedulePlan) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for site in &plan.sites {
        let kind = site.kind.word();
        let place = rows.iter().position(|row| row.kind == kind);
        let place = place.unwrap_or_else(|| {
            rows.push(Row {
                kind,
                sites: 0,
                shares: vec![0.0; schedule.steps()],
            });
            rows.len() - 1
        });
        let (Some(row), Some(steps)) = (rows.get_mut(place), schedule.broadcast.get(site.rule)) else {
            continue;
        };
        row.sites += 1;
        for (share, broadcast) in row.shares.iter_mut().zip(steps) {
            *share += f64::from(u8::from(*broadcast));
        }
    }
    for row in &mut rows {
        for share in &mut row.shares {
            *share /= row.sites as f64;
        }
    }
    rows
}

fn picture(plan: &Plan, schedule: &SchedulePlan) -> String {
    let rows = rows(plan, schedule);
    let steps = schedule.steps();
    let shown = steps.min(MOST_STEPS);
    let (width, height) = (LABELS + shown * CELL + 12, rows.len() * ROW + BELOW);
    let mut html = format!(
        "<div class=\"wide\" role=\"region\" tabindex=\"0\" aria-label=\"Schedule\">\n<svg class=\"schedule\" viewBox=\"0 0 {width} \
         {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" aria-label=\"Steps from left to right, a row for each kind; \
         filled cells are broadcast. The table below says the same.\">\n"
    );
    for (place, row) in rows.iter().enumerate() {
        let top = place * ROW;
        let class = class_of(row.kind);
        let _ = writeln!(
            html,
            "<g class=\"{class}\"><text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            LABELS - 8,
            top + 16,
            escaped(row.kind)
        );
        for (step, share) in row.shares.iter().take(shown).enumerate() {
            let x = LABELS + step * CELL;
            let (cell, high) = (CELL - 2, ROW - 6);
            let _ = write!(
                html,
                "<rect class=\"compute\" x=\"{x}\" y=\"{}\" width=\"{cell}\" height=\"{high}\"/>",
                top + 2
            );
            if *share > 0.0 {
                // As much of the cell as of the sites are broadcast.
                let filled = high as f64 * share;
                let _ = write!(
                    html,
                    "<rect class=\"reuse\" x=\"{x}\" y=\"{:.1}\" width=\"{cell}\" height=\"{filled:.1}\"/>",
                    (top + 2 + high) as f64 - filled
                );
            }
        }
        html.push_str("</g>\n");
    }
    let base = rows.len() * ROW;
    let every = [5, 10, 20, 50, 100, 200, 500]
        .into_iter()
        .find(|every| shown / every <= 12)
        .unwrap_or(1000);
    for step in (0..shown).step_by(every) {
        let x = LABELS + step * CELL + (CELL - 2) / 2;
        let _ = write!(
            html,
            "<text class=\"tick\" x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{step}</text>",
            base + 13
        );
        if let Some(timestep) = schedule.timesteps.get(step) {
            let _ = write!(
                html,
                "<text class=\"tick\" x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{:.0}</text>",
                base + 27,
                timestep
            );
        }
    }
    let _ = write!(
        html,
        "<text class=\"tick\" x=\"{0}\" y=\"{1}\" text-anchor=\"end\">step</text>",
        LABELS - 16,
        base + 13
    );
    if !schedule.timesteps.is_empty() {
        let _ = write!(
            html,
            "<text class=\"tick\" x=\"{0}\" y=\"{1}\" text-anchor=\"end\">timestep</text>",
            LABELS - 16,
            base + 27
        );
    }
    html.push_str("</svg></div>\n<p class=\"remark\"><span class=\"swatch reuse\"></span> broadcast <span class=\"swatch compute\"></span> computed");
    if rows
        .iter()
        .any(|row| row.shares.iter().any(|share| *share > 0.0 && *share < 1.0))
    {
        html.push_str("; a cell that is filled in part: that part of the modules is broadcast");
    }
    html.push_str("</p>\n");
    let columns = [
        ("kind", Alignment::Left),
        ("modules", Alignment::Right),
        ("broadcast", Alignment::Right),
        ("steps with a broadcast", Alignment::Left),
    ];
    let cells: Vec<[String; 4]> = rows
        .iter()
        .map(|row| {
            [
                row.kind.to_owned(),
                row.sites.to_string(),
                number::percent(row.shares.iter().sum::<f64>() / steps as f64),
                listed(&row.shares),
            ]
        })
        .collect();
    html.push_str(&folded(
        "The same as a table",
        &table("Steps that broadcast", columns, &cells),
    ));
    html
}

/// The steps with a share, those that follow one another as `3–5`.
fn listed(shares: &[f64]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for (step, _) in shares.iter().enumerate().filter(|(_, share)| **share > 0.0) {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == step => *last = step,
            _ => parts.push((step, step)),
        }
    }
    let parts = parts.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}–{last}"),
    });
    parts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_listed_in_runs() {
        assert_eq!(listed(&[0.0, 1.0, 0.5, 1.0, 0.0, 1.0, 0.0]), "1–3, 5");
        assert_eq!(listed(&[]), "");
    }
}
