//! What a calibration leaves in its folder.

use super::state::FILE;
use crate::calibrate::{Calibration, Form, Grid, Judged, JudgedRules, Point, RunRecord};
use crate::cli::Failure;
use crate::cli::terminal::Terminal;
use crate::report::plot::{HeatMap, LineChart, Series};
use crate::report::{Alignment, Pending, Table, TableStyle};
use std::fmt::Write;
use std::path::Path;

/// The curves as `drift.csv`, the U-shape by kind and the heat map by block.
pub fn drift(folder: &Path, calibration: &Calibration) -> Result<(), Failure> {
    let mut csv = String::from("site,kind,block,step,mse,relative_l1,relative_l2,cosine");
    for site in &calibration.drift {
        for (place, change) in site.steps.iter().enumerate() {
            // Writing to a string does not fail.
            let _ = write!(
                csv,
                "\n{},{},{},{},{:e},{:e},{:e},{}",
                site.site,
                site.kind.word(),
                site.block,
                place + 1,
                change.mse,
                change.relative_l1,
                change.relative_l2,
                change.cosine
            );
        }
    }
    Pending::text(&folder.join("drift.csv"), &csv)?.finish()?;
    let steps = |values: &[f64]| {
        (1..)
            .zip(values)
            .map(|(step, value)| (f64::from(step), *value))
            .collect()
    };
    let chart = |title: &str, y: &str, logarithmic, of: fn(&crate::calibrate::KindCurve) -> &[f64]| LineChart {
        title: title.to_owned(),
        x: "step".to_owned(),
        y: y.to_owned(),
        series: calibration
            .kinds
            .iter()
            .map(|curve| Series::line(curve.kind.word(), steps(of(curve))))
            .collect(),
        x_marks: Vec::new(),
        logarithmic,
    };
    chart(
        "Change from the step before, by kind",
        "relative L2 change",
        false,
        |curve| &curve.relative_l2,
    )
    .figure()
    .write(folder, "drift")?;
    let title = "Squared change from the step before, by kind";
    chart(title, "MSE, of its greatest", true, |curve| &curve.mse_of_greatest)
        .figure()
        .write(folder, "drift-mse")?;
    let rows = calibration.drift.iter().map(|site| {
        let values = site.steps.iter().map(|change| change.relative_l2);
        (site.site.clone(), values.collect())
    });
    let map = HeatMap {
        title: "Relative change (L2) from the step before, by block".to_owned(),
        x: "step".to_owned(),
        first: 1,
        rows: rows.collect(),
    };
    map.figure().write(folder, "drift-blocks")?;
    Ok(())
}

/// The rules of every point of the frontier.
pub fn rules(folder: &Path, calibration: &Calibration, forms: &[Form], grid: &Grid) -> Result<(), Failure> {
    let frontier = folder.join("frontier");
    std::fs::create_dir_all(&frontier).map_err(|source| crate::report::ReportError::Write {
        path: frontier.clone(),
        source,
    })?;
    for point in &calibration.frontier {
        if let Some(form) = forms.iter().find(|form| form.name == point.form) {
            let timings: Vec<_> = point.ranges.iter().map(|ranges| grid.broadcasts(ranges)).collect();
            let yaml = form.yaml("Fitted by pab-patch calibrate", &timings);
            let text = format!("{}{yaml}", comments(calibration, point));
            Pending::text(&folder.join(&point.rules), text.trim_end())?.finish()?;
        }
    }
    Ok(())
}

/// What was measured, as comments of a rules file.
fn comments(calibration: &Calibration, point: &Point) -> String {
    let clips = calibration
        .settings
        .get("--clips")
        .map_or_else(String::new, ToString::to_string);
    let run = |run: &RunRecord| format!("{} steps by {}", run.steps, run.scheduler);
    let runs = std::iter::once(&calibration.run).chain(&calibration.also).map(run);
    let mut text = format!(
        "# Fitted to {clips} clips of {}, guidance {}.\n# Predicted: {:.3} of the original's time, ",
        runs.collect::<Vec<_>>().join(" and of "),
        calibration.run.guidance,
        point.predicted_time
    );
    let _ = write!(text, "mean squared error {:.2e}", point.predicted_mse);
    if let Some(less) = point.predicted_dissimilarity {
        let _ = write!(text, ", SSIM {:.4}", 1.0 - less);
    }
    text.push_str(".\n");
    if let (Some(time), Some(mse)) = (point.time, point.mse) {
        let _ = write!(
            text,
            "# Run on these clips: {time:.3} of the time, mean squared error {mse:.2e}"
        );
        if let Some(less) = point.dissimilarity {
            let _ = write!(text, ", SSIM {:.4}", 1.0 - less);
        }
        if let Some(less) = point.worst_dissimilarity {
            let _ = write!(text, ", worst clip {:.4}", 1.0 - less);
        }
        text.push_str(".\n");
    }
    text
}

/// `rules.yaml`, where the target chose a point; without one, none of an earlier calibration stays.
pub fn chosen(folder: &Path, calibration: &Calibration) -> Result<(), Failure> {
    let path = folder.join("rules.yaml");
    let failed = |source| crate::report::ReportError::Write {
        path: path.clone(),
        source,
    };
    match calibration.chosen.and_then(|place| calibration.frontier.get(place)) {
        Some(point) => {
            let text = std::fs::read_to_string(folder.join(&point.rules)).map_err(failed)?;
            Pending::text(&path, text.trim_end())?.finish()?;
        }
        None if path.exists() => std::fs::remove_file(&path).map_err(failed)?,
        None => {}
    }
    Ok(())
}

/// The frontier of each judged run as a plot, and the tables of all as `frontier.md`.
pub fn frontier(folder: &Path, calibration: &Calibration) -> Result<(), Failure> {
    let mut text = String::from("# Rules on clips that fitting never saw\n");
    for (number, judged) in calibration.judged.iter().enumerate() {
        let name = match number {
            0 => "frontier".to_owned(),
            _ => format!("frontier-{}", number + 1),
        };
        let points = |fitted: bool, fewer: bool, of: fn(&JudgedRules) -> Option<f64>| -> Vec<(f64, f64)> {
            let rules = judged.rules.iter();
            let rules = rules.filter(|rules| (rules.fitted, rules.fewer_steps.is_some()) == (fitted, fewer));
            let mut points: Vec<(f64, f64)> = rules.filter_map(|rules| Some((rules.speed_up, of(rules)?))).collect();
            points.sort_by(|one, other| one.0.total_cmp(&other.0));
            points
        };
        for (suffix, y, of) in [
            ("", "mean SSIM", ssim as fn(&JudgedRules) -> Option<f64>),
            ("-psnr", "mean PSNR, dB", psnr),
        ] {
            let chart = LineChart {
                title: format!(
                    "{}, {} steps, {} clips",
                    judged.run.scheduler,
                    judged.run.steps,
                    clips(judged)
                ),
                x: "times as fast as the original".to_owned(),
                y: y.to_owned(),
                series: [
                    Series::dots("fitted", points(true, false, of), true),
                    Series::dots("compared with", points(false, false, of), false),
                    Series::dots("fewer steps", points(false, true, of), true),
                ]
                .into_iter()
                .filter(|series| !series.points.is_empty())
                .collect(),
                x_marks: Vec::new(),
                logarithmic: false,
            };
            chart.figure().write(folder, &format!("{name}{suffix}"))?;
        }
        let _ = write!(
            text,
            "\n{}, {} steps, seeds {} to {}; a clip of the original takes {:.0} ms.\n\n{}\n\n![SSIM over speed-up]({name}.svg)\n",
            judged.run.scheduler,
            judged.run.steps,
            judged.seeds[0],
            judged.seeds[1],
            judged.original_milliseconds,
            markdown(judged)
        );
    }
    if !calibration.judged.is_empty() {
        Pending::text(&folder.join("frontier.md"), text.trim_end())?.finish()?;
    }
    Ok(())
}

fn clips(judged: &Judged) -> u64 {
    judged.seeds[1].wrapping_sub(judged.seeds[0]).wrapping_add(1)
}

fn ssim(rules: &JudgedRules) -> Option<f64> {
    rules.quality.as_ref()?.ssim.mean
}

fn psnr(rules: &JudgedRules) -> Option<f64> {
    rules.quality.as_ref()?.psnr.mean
}

const COLUMNS: [&str; 7] = [
    "rules",
    "speed-up",
    "quartiles",
    "PSNR, mean",
    "worst",
    "SSIM, mean",
    "worst",
];

fn cells(rules: &JudgedRules) -> [String; 7] {
    let quality = rules.quality.as_ref();
    let decibels = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1} dB"));
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
    let [low, high] = rules.quartiles;
    [
        rules.rules.clone(),
        format!("{:.2} x", rules.speed_up),
        format!("{low:.2} - {high:.2}"),
        decibels(quality.and_then(|quality| quality.psnr.mean)),
        decibels(quality.and_then(|quality| quality.psnr.min)),
        number(quality.and_then(|quality| quality.ssim.mean)),
        number(quality.and_then(|quality| quality.ssim.min)),
    ]
}

fn markdown(judged: &Judged) -> String {
    let mut lines = vec![
        format!("| {} |", COLUMNS.join(" | ")),
        "| --- | --: | --: | --: | --: | --: | --: |".to_owned(),
    ];
    lines.extend(
        judged
            .rules
            .iter()
            .map(|rules| format!("| {} |", cells(rules).join(" | "))),
    );
    lines.join("\n")
}

/// What people see.
pub fn text(folder: &Path, calibration: &Calibration, terminal: &Terminal) -> String {
    let style: TableStyle = terminal.table_style();
    let mut text = String::new();
    let mut table = Table::new([
        ("kind", Alignment::Left),
        ("stable steps", Alignment::Right),
        ("change, median", Alignment::Right),
    ]);
    for curve in &calibration.kinds {
        let middle = crate::report::median(&curve.relative_l2).unwrap_or(f64::NAN);
        table.row([
            curve.kind.word().to_owned(),
            format!("{:.0} %", 100.0 * curve.stable_share),
            format!("{:.1} %", 100.0 * middle),
        ]);
    }
    text.push_str(&table.render(style));
    text.push('\n');
    for judged in &calibration.judged {
        let columns = COLUMNS.map(|name| {
            (
                name,
                if name == "rules" {
                    Alignment::Left
                } else {
                    Alignment::Right
                },
            )
        });
        let mut table = Table::new(columns);
        for rules in &judged.rules {
            table.row(cells(rules));
        }
        let (scheduler, steps, clips) = (&judged.run.scheduler, judged.run.steps, clips(judged));
        let _ = write!(
            text,
            "\n{scheduler}, {steps} steps, {clips} clips that fitting never saw\n{}\n",
            table.render(style)
        );
    }
    if calibration.chosen.is_some() {
        let _ = write!(text, "\nRules      {}", folder.join("rules.yaml").display());
    }
    let _ = write!(text, "\nFigures    {}\n", folder.join(FILE).display());
    text
}
