//! How much faster: a table with ratios and spread, and the times of single steps.

use super::markup::{command, folded, shortened, table};
use super::{Part, Results};
use crate::report::comparison::{Comparison, SpeedUp};
use crate::report::html::escaped;
use crate::report::number;
use crate::report::step_times::StepTimes;
use crate::report::table::Alignment;
use std::fmt::Write as _;

/// Sizes of the picture in its own units.
const WIDTH: f64 = 640.0;
const LABELS: f64 = 170.0;
const ROW: f64 = 30.0;

pub fn part(results: &Results) -> Part {
    let comparisons: Vec<&Comparison> = results.comparisons.iter().map(|result| &result.value).collect();
    let mut html = String::new();
    if !comparisons.is_empty() {
        html.push_str(&speed_ups(&comparisons));
        html.push_str(&intervals(&comparisons));
        html.push_str(
            "<p class=\"remark\">Time of the original over time of the patched model, clip by clip; the bar has the middle half of the \
             clips, the line their median, and the ring what the work that was removed allows.</p>\n",
        );
        for comparison in &comparisons {
            html.push_str(&folded(
                &format!("Clips by {}", comparison.facts.rules_from),
                &clips(comparison),
            ));
        }
    }
    for times in &results.step_times {
        write_steps(&mut html, &times.value);
    }
    Part::new(
        "speed",
        "Speed",
        (!html.is_empty()).then_some(html),
        &format!(
            "{} times whole clips, {} single steps.",
            command("pab-patch compare MODEL --rules RULES"),
            command("pab-patch bench MODEL --json > bench.json")
        ),
    )
}

fn speed_ups(comparisons: &[&Comparison]) -> String {
    let columns = [
        ("rules", Alignment::Left),
        ("speed-up", Alignment::Right),
        ("quartiles", Alignment::Right),
        ("of medians", Alignment::Right),
        ("of mean steps", Alignment::Right),
        ("allowed", Alignment::Right),
        ("clip, original", Alignment::Right),
        ("clip, patched", Alignment::Right),
        ("clips", Alignment::Right),
    ];
    let rows = comparisons.iter().map(|comparison| {
        let speed_up = &comparison.speed_up;
        [
            comparison.facts.rules_from.clone(),
            number::ratio(speed_up.median_of_ratios),
            quartiles(speed_up),
            number::ratio(speed_up.ratio_of_medians),
            number::ratio(speed_up.ratio_of_step_means),
            speed_up.allowed.map_or_else(|| "–".to_owned(), number::ratio),
            number::milliseconds(comparison.original.clip_milliseconds.median),
            number::milliseconds(comparison.patched.clip_milliseconds.median),
            comparison.clips.len().to_string(),
        ]
    });
    table("Speed-up by rules", columns, &rows.collect::<Vec<_>>())
}

fn quartiles(speed_up: &SpeedUp) -> String {
    format!(
        "{:.2} – {}",
        speed_up.lower_quartile,
        number::ratio(speed_up.upper_quartile)
    )
}

/// The spread of each speed-up as a bar.
fn intervals(comparisons: &[&Comparison]) -> String {
    let greatest = |speed_up: &SpeedUp| {
        let all = [
            speed_up.upper_quartile,
            speed_up.median_of_ratios,
            speed_up.allowed.unwrap_or(1.0),
        ];
        all.into_iter().fold(1.0, f64::max)
    };
    let most = comparisons
        .iter()
        .map(|comparison| greatest(&comparison.speed_up))
        .fold(1.2, f64::max)
        * 1.05;
    let least = comparisons
        .iter()
        .map(|comparison| comparison.speed_up.lower_quartile)
        .fold(1.0, f64::min)
        * 0.95;
    let place = |value: f64| LABELS + (value - least) / (most - least) * (WIDTH - LABELS - 14.0);
    let height = comparisons.len() as f64 * ROW + 24.0;
    let mut html = format!(
        "<div class=\"wide\" role=\"region\" tabindex=\"0\" aria-label=\"Spread of the speed-up\">\n<svg class=\"chart\" viewBox=\"0 0 \
         {WIDTH} {height}\" role=\"img\" aria-label=\"Spread of the speed-up by rules; the table above has the figures.\">\n"
    );
    let one = place(1.0);
    let _ = writeln!(
        html,
        "<line class=\"axis\" x1=\"{one:.1}\" x2=\"{one:.1}\" y1=\"0\" y2=\"{:.1}\"/>",
        height - 22.0
    );
    for (row, comparison) in comparisons.iter().enumerate() {
        let (speed_up, middle) = (&comparison.speed_up, row as f64 * ROW + ROW / 2.0);
        let (low, high) = (place(speed_up.lower_quartile), place(speed_up.upper_quartile));
        let _ = writeln!(
            html,
            "<g class=\"line-0\"><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text><rect class=\"reuse\" x=\"{low:.1}\" \
             y=\"{:.1}\" width=\"{:.1}\" height=\"12\" rx=\"2\"/><line class=\"median\" x1=\"{m:.1}\" x2=\"{m:.1}\" y1=\"{:.1}\" \
             y2=\"{:.1}\"/>",
            LABELS - 8.0,
            middle + 4.0,
            escaped(&shortened(&comparison.facts.rules_from)),
            middle - 6.0,
            (high - low).max(2.0),
            middle - 9.0,
            middle + 9.0,
            m = place(speed_up.median_of_ratios),
        );
        if let Some(allowed) = speed_up.allowed {
            let _ = writeln!(
                html,
                "<circle class=\"ring\" cx=\"{:.1}\" cy=\"{middle:.1}\" r=\"5\"/>",
                place(allowed)
            );
        }
        html.push_str("</g>\n");
    }
    let step = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0]
        .into_iter()
        .find(|step| (most - least) / step <= 10.0)
        .unwrap_or(10.0);
    let first = (least / step).ceil() as i64;
    for tick in first..=(most / step).floor() as i64 {
        let value = tick as f64 * step;
        let _ = writeln!(
            html,
            "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{value:.1} ×</text>",
            place(value),
            height - 6.0
        );
    }
    html.push_str("</svg></div>\n");
    html
}

fn clips(comparison: &Comparison) -> String {
    let columns = [
        ("clip", Alignment::Left),
        ("seed", Alignment::Right),
        ("original", Alignment::Right),
        ("patched", Alignment::Right),
        ("speed-up", Alignment::Right),
        ("PSNR", Alignment::Right),
        ("SSIM", Alignment::Right),
    ];
    let rows = comparison.clips.iter().map(|clip| {
        let quality = clip.quality.as_ref();
        [
            clip.prompt.clone().unwrap_or_else(|| "–".to_owned()),
            clip.seed.to_string(),
            number::milliseconds(clip.original_milliseconds),
            number::milliseconds(clip.patched_milliseconds),
            number::ratio(clip.speed_up),
            quality.map_or_else(|| "–".to_owned(), |quality| number::decibels(quality.psnr)),
            number::similarity(quality.map(|quality| quality.ssim)),
        ]
    });
    table("Clips", columns, &rows.collect::<Vec<_>>())
}

fn write_steps(html: &mut String, times: &StepTimes) {
    let _ = writeln!(
        html,
        "<h3>Single steps</h3>\n<p>{}, {} rounds, models opened {} times.</p>",
        command(&times.model),
        times.rounds,
        times.openings
    );
    let columns = [
        ("one step", Alignment::Left),
        ("median", Alignment::Right),
        ("quartiles", Alignment::Right),
        ("least", Alignment::Right),
        ("over the original", Alignment::Right),
    ];
    let rows = times.rows().map(|(name, time)| {
        [
            name.to_owned(),
            number::milliseconds(time.median),
            format!(
                "{} – {}",
                number::milliseconds(time.lower_quartile),
                number::milliseconds(time.upper_quartile)
            ),
            number::milliseconds(time.min),
            number::ratio(time.median / times.original.median),
        ]
    });
    html.push_str(&table("Times of single steps", columns, &rows));
    let ratios = &times.ratios;
    let _ = writeln!(
        html,
        "<p>The fastest step is {} as fast as the original’s. The switches cost {}; a step that broadcasts everything takes {} the time \
         of the static graph without the modules.</p>",
        number::ratio(ratios.original_over_broadcasting),
        number::ratio(ratios.computing_over_original),
        number::ratio(ratios.broadcasting_over_removed)
    );
}
