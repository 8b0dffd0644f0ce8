//! How much the modules change from step to step, and what rules that were fitted to it give.

use serde::Deserialize;
use std::fmt::Write as _;
use std::path::Path;

use super::chart::{Chart, Line};
use super::markup::{command, folded, table};
use super::{Part, Results};
use crate::quality::QualitySummary;
use crate::report::html::escaped;
use crate::report::number;
use crate::report::stack::class_of;
use crate::report::table::Alignment;

/// Sizes of the map in its own units.
const LABELS: usize = 96;
const CELL: (usize, usize) = (11, 15);
const BELOW: usize = 20;

/// What `pab-patch calibrate` writes, as far as the page shows it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Drift {
    /// The command line that made it.
    pub command: Vec<String>,
    /// The run.
    pub run: DriftRun,
    /// The change of every site.
    pub drift: Vec<SiteCurve>,
    /// A step is stable where its relative L2 change is at most this.
    pub stable_below: f64,
    /// Means by kind.
    pub kinds: Vec<KindDrift>,
    /// Rules on clips that were not used for fitting.
    #[serde(default)]
    pub judged: Vec<JudgedRun>,
}

/// The run that was calibrated.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct DriftRun {
    /// The scheduler's class.
    pub scheduler: String,
    /// The steps.
    pub steps: usize,
}

/// The change of a site's value.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct SiteCurve {
    /// Its name.
    pub site: String,
    /// Its kind.
    pub kind: String,
    /// From step to step, from the second on.
    pub steps: Vec<StepChange>,
}

/// The change between two steps.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct StepChange {
    /// Relative to the value before, by the L2 norm.
    pub relative_l2: f64,
}

/// The change of a kind.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct KindDrift {
    /// The kind.
    pub kind: String,
    /// The relative L2 change, step by step from the second.
    pub relative_l2: Vec<f64>,
    /// The share of the steps that are stable.
    pub stable_share: f64,
}

/// Rules of one run.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct JudgedRun {
    /// The run.
    pub run: DriftRun,
    /// By rules.
    pub rules: Vec<JudgedRules>,
}

/// A set of rules on clips that were not used for fitting.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct JudgedRules {
    /// Where they are from.
    pub rules: String,
    /// Whether the calibration made them.
    pub fitted: bool,
    /// The median over clips.
    pub speed_up: f64,
    /// Its quartiles.
    pub quartiles: [f64; 2],
    /// None where clips are latents.
    pub quality: Option<QualitySummary>,
}

pub fn part(results: &Results) -> Part {
    let mut html = String::new();
    for result in &results.calibrations {
        write_calibration(&mut html, &result.value);
    }
    Part::new(
        "drift",
        "Drift",
        (!html.is_empty()).then_some(html),
        &format!(
            "{} measures how much every module changes from step to step, and fits rules to it.",
            command("pab-patch calibrate MODEL")
        ),
    )
}

fn write_calibration(html: &mut String, calibration: &Drift) {
    let _ = writeln!(
        html,
        "<p>How much a module’s value changes from one step to the next, relative to itself, over {} steps of {}.</p>",
        calibration.run.steps,
        escaped(&calibration.run.scheduler)
    );
    let curve = |kind: &KindDrift| Line {
        name: kind.kind.clone(),
        class: Some(class_of(&kind.kind)),
        // The first change is that of the second step.
        points: kind
            .relative_l2
            .iter()
            .enumerate()
            .map(|(step, change)| ((step + 1) as f64, *change))
            .collect(),
    };
    let lines: Vec<Line> = calibration.kinds.iter().map(curve).collect();
    let chart = Chart {
        name: "Relative change from step to step by kind, the mean over its modules",
        x: "step",
        y: "relative change",
        lines: &lines,
        points_only: false,
    };
    html.push_str(&chart.render().unwrap_or_default());
    let rows = calibration.kinds.iter().map(|kind| {
        let changes = || kind.relative_l2.iter().copied();
        let count = kind.relative_l2.len().max(1) as f64;
        [
            kind.kind.clone(),
            number::percent(changes().sum::<f64>() / count),
            number::percent(changes().fold(0.0, f64::max)),
            number::percent(kind.stable_share),
        ]
    });
    let columns = [
        ("kind", Alignment::Left),
        ("mean change", Alignment::Right),
        ("greatest change", Alignment::Right),
        ("stable steps", Alignment::Right),
    ];
    html.push_str(&table("Change by kind", columns, &rows.collect::<Vec<_>>()));
    let _ = writeln!(
        html,
        "<p class=\"remark\">A step is stable where it changes by at most {}.</p>",
        number::percent(calibration.stable_below)
    );
    if let Some(map) = map(&calibration.drift) {
        html.push_str(&folded("Every module", &map));
    }
    for judged in &calibration.judged {
        write_judged(html, judged);
    }
}

/// A row for each module, a column for each step, the darker the larger the change.
fn map(sites: &[SiteCurve]) -> Option<String> {
    let changes = || {
        sites
            .iter()
            .flat_map(|site| &site.steps)
            .map(|change| change.relative_l2)
    };
    let steps = sites
        .iter()
        .map(|site| site.steps.len())
        .max()
        .filter(|steps| *steps > 0)?;
    let greatest = changes().filter(|change| change.is_finite()).fold(0.0, f64::max);
    let (width, height) = (LABELS + steps * CELL.0 + 4, sites.len() * CELL.1 + BELOW);
    let mut html = format!(
        "<div class=\"wide\" role=\"region\" tabindex=\"0\" aria-label=\"Change of every module\">\n<svg class=\"schedule\" viewBox=\"0 0 \
         {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" aria-label=\"Change of every module from step to step; the \
         fuller the colour, the larger the change.\">\n"
    );
    for (row, site) in sites.iter().enumerate() {
        let top = row * CELL.1;
        let _ = write!(
            html,
            "<g class=\"{}\"><text class=\"tick\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            class_of(&site.kind),
            LABELS - 6,
            top + 11,
            escaped(&site.site)
        );
        for (step, change) in site.steps.iter().enumerate() {
            // The root, so that small changes can be told apart.
            let share = (change.relative_l2 / greatest.max(f64::MIN_POSITIVE))
                .clamp(0.0, 1.0)
                .sqrt();
            let _ = write!(
                html,
                "<rect class=\"reuse\" x=\"{}\" y=\"{top}\" width=\"{}\" height=\"{}\" fill-opacity=\"{share:.2}\"/>",
                LABELS + step * CELL.0,
                CELL.0,
                CELL.1 - 1
            );
        }
        html.push_str("</g>\n");
    }
    for step in (0..steps).step_by(if steps > 60 { 20 } else { 5 }) {
        let _ = write!(
            html,
            "<text class=\"tick\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            LABELS + step * CELL.0 + CELL.0 / 2,
            height - 6,
            step + 1
        );
    }
    html.push_str("</svg></div>\n");
    Some(html)
}

fn write_judged(html: &mut String, judged: &JudgedRun) {
    let _ = writeln!(
        html,
        "<h3>Rules on clips that were not used for fitting: {}, {} steps</h3>",
        escaped(&judged.run.scheduler),
        judged.run.steps
    );
    let columns = [
        ("rules", Alignment::Left),
        ("speed-up", Alignment::Right),
        ("quartiles", Alignment::Right),
        ("PSNR, mean", Alignment::Right),
        ("worst", Alignment::Right),
        ("SSIM, mean", Alignment::Right),
        ("worst", Alignment::Right),
    ];
    let name = |rules: &JudgedRules| match rules.fitted {
        true => format!("{} (fitted)", rules.rules),
        false => rules.rules.clone(),
    };
    let rows = judged.rules.iter().map(|rules| {
        let none = || "–".to_owned();
        let quality = rules.quality.as_ref();
        let [low, high] = rules.quartiles;
        [
            name(rules),
            number::ratio(rules.speed_up),
            format!("{low:.2} – {}", number::ratio(high)),
            quality.map_or_else(none, |quality| number::decibels(quality.psnr.mean)),
            quality.map_or_else(none, |quality| number::decibels(quality.psnr.min)),
            quality.map_or_else(none, |quality| number::similarity(quality.ssim.mean)),
            quality.map_or_else(none, |quality| number::similarity(quality.ssim.min)),
        ]
    });
    html.push_str(&table("Rules that were judged", columns, &rows.collect::<Vec<_>>()));
    // Beside a point there is room for the file's name alone; its colour tells what was fitted.
    let short = |rules: &JudgedRules| {
        let stem = Path::new(&rules.rules).file_stem();
        stem.map_or_else(|| rules.rules.clone(), |stem| stem.to_string_lossy().into_owned())
    };
    let points = judged.rules.iter().filter_map(|rules| {
        Some(Line {
            name: short(rules),
            class: Some(if rules.fitted { "spatial" } else { "mlp" }),
            points: vec![(rules.speed_up, rules.quality.as_ref()?.ssim.mean?)],
        })
    });
    let lines: Vec<Line> = points.collect();
    let chart = Chart {
        name: "Speed-up and SSIM of fitted and uniform rules; further to the right is faster, further up is closer",
        x: "speed-up",
        y: "SSIM, mean",
        lines: &lines,
        points_only: true,
    };
    if lines.len() > 1 {
        html.push_str(&chart.render().unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_has_a_cell_for_each_module_and_step() {
        let site = |name: &str, changes: &[f64]| SiteCurve {
            site: name.to_owned(),
            kind: "spatial".to_owned(),
            steps: changes
                .iter()
                .map(|relative_l2| StepChange {
                    relative_l2: *relative_l2,
                })
                .collect(),
        };
        let html = map(&[site("spatial.0", &[0.4, 0.1]), site("<b>", &[0.0, f64::NAN])]).unwrap();
        assert_eq!(html.matches("<rect").count(), 4);
        assert!(
            html.contains("fill-opacity=\"1.00\"") && html.contains("fill-opacity=\"0.50\""),
            "{html}"
        );
        assert!(html.contains("&lt;b&gt;"));
        assert_eq!((map(&[]), map(&[site("x", &[])])), (None, None));
    }
}
