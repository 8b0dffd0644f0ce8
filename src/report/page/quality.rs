//! How close the clips are: a table of all measures, and their course over the frames.

use super::chart::{Chart, Line};
use super::markup::{command, folded, table};
use super::{Part, Results};
use crate::quality::FrameQuality;
use crate::report::judgement::{Judgement, summary_rows};
use crate::report::number;
use crate::report::table::Alignment;

pub fn part(results: &Results) -> Part {
    let mut rows: Vec<[String; 5]> = Vec::new();
    let mut courses: Vec<Line> = Vec::new();
    let mut add = |name: &str, summary: &crate::quality::QualitySummary, clips: &[&[FrameQuality]]| {
        for [measure, mean, median, worst] in summary_rows(summary) {
            rows.push([name.to_owned(), measure, mean, median, worst]);
        }
        courses.extend(course(name, clips));
    };
    for comparison in &results.comparisons {
        let comparison = &comparison.value;
        if let Some(summary) = &comparison.quality {
            let frames = comparison.clips.iter().filter_map(|clip| clip.quality.as_ref());
            let frames: Vec<&[FrameQuality]> = frames.map(|quality| quality.frames.as_slice()).collect();
            add(&comparison.facts.rules_from, summary, &frames);
        }
    }
    for judgement in &results.judgements {
        let judgement = &judgement.value;
        let frames: Vec<&[FrameQuality]> = judgement
            .clips
            .iter()
            .map(|clip| clip.quality.frames.as_slice())
            .collect();
        add(&judgement.other, &judgement.summary, &frames);
    }
    let how = format!(
        "{} has PSNR and SSIM of the clips that it generates; {} has more measures, of any clips.",
        command("pab-patch compare MODEL --rules RULES"),
        command("pab-patch quality ORIGINALS OTHERS -o quality.json")
    );
    if rows.is_empty() {
        return Part::new("quality", "Quality", None, &how);
    }
    let columns = [
        ("clips", Alignment::Left),
        ("measure", Alignment::Left),
        ("mean", Alignment::Right),
        ("median", Alignment::Right),
        ("worst clip", Alignment::Right),
    ];
    let mut html = table("Quality against the original", columns, &rows);
    html.push_str(
        "<p class=\"remark\">PSNR and the two SSIM: higher is closer, 1 is equal. LPIPS and flicker: lower is closer, 0 is equal. Flicker is \
         what changes from frame to frame beyond the original’s change, as a share of that.</p>\n",
    );
    html.push_str(&frontier(results).unwrap_or_default());
    let chart = Chart {
        name: "SSIM over the frames, the mean of all clips",
        x: "frame",
        y: "SSIM",
        lines: &courses,
        points_only: false,
    };
    if let Some(chart) = chart.render() {
        html.push_str("<h3>Over the frames</h3>\n");
        html.push_str(&chart);
    }
    for judgement in &results.judgements {
        html.push_str(&clips(&judgement.value));
    }
    Part::new("quality", "Quality", Some(html), &how)
}

/// Speed-up and quality of several sets of rules.
fn frontier(results: &Results) -> Option<String> {
    let points = results.comparisons.iter().filter_map(|comparison| {
        let comparison = &comparison.value;
        Some(Line {
            name: comparison.facts.rules_from.clone(),
            class: None,
            points: vec![(
                comparison.speed_up.median_of_ratios,
                comparison.quality.as_ref()?.ssim.mean?,
            )],
        })
    });
    let lines: Vec<Line> = points.collect();
    if lines.len() < 2 {
        return None;
    }
    let chart = Chart {
        name: "Speed-up and SSIM of each set of rules; further to the right is faster, further up is closer",
        x: "speed-up",
        y: "SSIM, mean",
        lines: &lines,
        points_only: true,
    };
    Some(format!("<h3>Speed and quality</h3>\n{}", chart.render()?))
}

/// SSIM of each frame, the mean over clips; `None` where there are fewer than two frames.
fn course(name: &str, clips: &[&[FrameQuality]]) -> Option<Line> {
    let frames = clips
        .iter()
        .map(|frames| frames.len())
        .min()
        .filter(|frames| *frames > 1)?;
    let points = (0..frames).map(|number| {
        let values = clips
            .iter()
            .filter_map(|frames| frames.get(number))
            .map(|frame| frame.ssim);
        (number as f64, values.sum::<f64>() / clips.len() as f64)
    });
    Some(Line {
        name: name.to_owned(),
        class: None,
        points: points.collect(),
    })
}

fn clips(judgement: &Judgement) -> String {
    let columns = [
        ("clip", Alignment::Left),
        ("PSNR", Alignment::Right),
        ("SSIM", Alignment::Right),
        ("MS-SSIM", Alignment::Right),
        ("LPIPS", Alignment::Right),
        ("change against the original’s", Alignment::Right),
        ("flicker beyond", Alignment::Right),
    ];
    let share = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), number::percent);
    let rows = judgement.clips.iter().map(|clip| {
        let quality = &clip.quality;
        [
            clip.name.clone(),
            number::decibels(quality.psnr),
            number::similarity(Some(quality.ssim)),
            number::similarity(quality.ms_ssim),
            number::similarity(quality.lpips),
            share(quality.flicker.and_then(|flicker| flicker.ratio)),
            share(quality.flicker.and_then(|flicker| flicker.excess)),
        ]
    });
    let table = table("Clips", columns, &rows.collect::<Vec<_>>());
    folded(&format!("Clips of {}", judgement.other), &table)
}
