//! A comparison as people read it: a few lines and three tables.

use super::comparison::{Comparison, VariantFigures};
use super::number::{decibels, milliseconds, percent, ratio, similarity};
use super::table::{Alignment, Table, TableStyle};
use crate::quality::{QualitySummary, Spread};
use crate::rules::Action;

impl Comparison {
    /// The comparison as text: what was run, times, rules, quality, speed-up.
    pub fn render(&self, style: TableStyle) -> String {
        let mut text = self.title();
        let mut add = |table: &Table| {
            if !table.is_empty() {
                text.push('\n');
                text.push_str(&table.render(style));
            }
        };
        add(&self.times());
        add(&self.rules());
        add(&self.qualities());
        text.push('\n');
        text.push_str(&self.conclusion());
        text
    }

    fn title(&self) -> String {
        let (facts, run, runtime) = (&self.facts, &self.facts.run, &self.facts.runtime);
        let [_, frames, height, width] = run.clip_shape;
        let seeds: Vec<u64> = self.clips.iter().map(|clip| clip.seed).collect();
        format!(
            "Original  {}\nPatched   {}\nRules     {}\nRun       {} x {frames} frames of {width}x{height}, {} steps \
             ({}), guidance {}, {}\nRuntime   ONNX Runtime {}, {}, {} {}\n",
            facts.model,
            facts.patched_model,
            facts.rules_from,
            self.clips.len(),
            run.steps,
            run.scheduler,
            run.guidance,
            listed(&seeds),
            runtime.version,
            runtime.provider,
            runtime.threads,
            if runtime.threads == 1 { "thread" } else { "threads" },
        )
    }

    fn times(&self) -> Table {
        let mut table = Table::new([
            ("time", Alignment::Left),
            ("step, median", Alignment::Right),
            ("step, mean", Alignment::Right),
            ("step, min", Alignment::Right),
            ("step, max", Alignment::Right),
            ("clip, median", Alignment::Right),
        ]);
        let mut row = |name: &str, figures: &VariantFigures| {
            let step = &figures.step_milliseconds;
            let times = [
                step.median,
                step.mean,
                step.min,
                step.max,
                figures.clip_milliseconds.median,
            ];
            table.row(std::iter::once(name.to_owned()).chain(times.map(milliseconds)));
        };
        row("original", &self.original);
        row("patched", &self.patched);
        table
    }

    fn rules(&self) -> Table {
        let mut table = Table::new([
            ("rule", Alignment::Left),
            ("kind", Alignment::Left),
            ("broadcast", Alignment::Left),
            ("sites", Alignment::Right),
            ("steps broadcast", Alignment::Right),
            ("share of a step", Alignment::Right),
        ]);
        for rule in &self.facts.rules {
            let action = Action {
                strategy: rule.strategy,
                timing: rule.timing.clone(),
                adaptive: rule.adaptive.clone(),
            };
            table.row([
                rule.name.clone(),
                rule.kind.clone(),
                action.to_string(),
                rule.sites.to_string(),
                percent(rule.steps_broadcast),
                rule.step_share.map_or_else(|| "–".to_owned(), percent),
            ]);
        }
        table
    }

    fn qualities(&self) -> Table {
        let mut table = Table::new([
            ("patched against original", Alignment::Left),
            ("mean", Alignment::Right),
            ("median", Alignment::Right),
            ("worst clip", Alignment::Right),
        ]);
        if let Some(quality) = &self.quality {
            let cells =
                |spread: &Spread, show: fn(Option<f64>) -> String| [spread.mean, spread.median, spread.min].map(show);
            let mut row = |name: &str, cells: [String; 3]| {
                table.row(std::iter::once(name.to_owned()).chain(cells));
            };
            row("PSNR", cells(&quality.psnr, decibels));
            row("SSIM", cells(&quality.ssim, similarity));
        }
        table
    }

    fn conclusion(&self) -> String {
        let speed_up = &self.speed_up;
        let mut text = format!(
            "Speed-up  {} (medians of clips), {} (median of pairs, quartiles {} to {}), {} (mean step)\n",
            ratio(speed_up.ratio_of_medians),
            ratio(speed_up.median_of_ratios),
            ratio(speed_up.lower_quartile),
            ratio(speed_up.upper_quartile),
            ratio(speed_up.ratio_of_step_means),
        );
        if let Some(allowed) = speed_up.allowed {
            text.push_str(&format!("Allowed   {} by the work that was removed\n", ratio(allowed)));
        }
        if let Some(equal) = self
            .quality
            .as_ref()
            .map(|quality| quality.equal)
            .filter(|&equal| equal > 0)
        {
            text.push_str(&format!(
                "Equal     {equal} of {} clips, in every pixel\n",
                self.clips.len()
            ));
        }
        text
    }
}

/// Several comparisons with the same clips of the original: a line each.
pub fn side_by_side(comparisons: &[Comparison], style: TableStyle) -> String {
    let mut table = Table::new([
        ("rules", Alignment::Left),
        ("clip, median", Alignment::Right),
        ("speed-up", Alignment::Right),
        ("quartiles", Alignment::Right),
        ("allowed", Alignment::Right),
        ("PSNR, mean", Alignment::Right),
        ("worst", Alignment::Right),
        ("SSIM, mean", Alignment::Right),
        ("worst", Alignment::Right),
    ]);
    let none = || "–".to_owned();
    if let Some(first) = comparisons.first() {
        let mut original = vec![
            "original".to_owned(),
            milliseconds(first.original.clip_milliseconds.median),
        ];
        original.extend((0..7).map(|_| none()));
        table.row(original);
    }
    for comparison in comparisons {
        let speed_up = &comparison.speed_up;
        let quality = comparison.quality.as_ref();
        let shown = |value: fn(&QualitySummary) -> Option<f64>, show: fn(Option<f64>) -> String| {
            quality.map_or_else(none, |quality| show(value(quality)))
        };
        table.row([
            comparison.facts.rules_from.clone(),
            milliseconds(comparison.patched.clip_milliseconds.median),
            ratio(speed_up.median_of_ratios),
            format!(
                "{} – {}",
                ratio(speed_up.lower_quartile),
                ratio(speed_up.upper_quartile)
            ),
            speed_up.allowed.map_or_else(none, ratio),
            shown(|quality| quality.psnr.mean, decibels),
            shown(|quality| quality.psnr.min, decibels),
            shown(|quality| quality.ssim.mean, similarity),
            shown(|quality| quality.ssim.min, similarity),
        ]);
    }
    table.render(style)
}

/// Seeds in words: `seeds 0 to 15` where they follow one another.
fn listed(seeds: &[u64]) -> String {
    let follow = seeds
        .windows(2)
        .all(|pair| matches!(pair, [a, b] if a.checked_add(1) == Some(*b)));
    match seeds {
        [] => "no seeds".to_owned(),
        [seed] => format!("seed {seed}"),
        [first, .., last] if follow && seeds.len() > 2 => format!("seeds {first} to {last}"),
        _ => format!(
            "seeds {}",
            seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::comparison::tests::example;

    #[test]
    fn a_comparison_for_people() {
        insta::assert_snapshot!(example().render(TableStyle::Plain));
        let terminal = example().render(TableStyle::Terminal { width: 100 });
        assert!(terminal.contains('│') && terminal.contains("1.24 ×"));
    }

    #[test]
    fn several_comparisons_have_a_line_each_behind_the_original() {
        let mut unknown = example();
        unknown.facts.rules_from = "mine.yaml".to_owned();
        unknown.quality = None;
        let text = side_by_side(&[example(), unknown], TableStyle::Plain);
        let lines: Vec<&str> = text.lines().collect();
        let place = |what: &str| lines.iter().position(|line| line.contains(what)).unwrap();
        let (original, first, second) = (place("original"), place("the paper's default"), place("mine.yaml"));
        assert!(original < first && first < second, "{text}");
        assert!(
            lines[first].contains("1.24 ×") && lines[first].contains("0.9512"),
            "{text}"
        );
        assert!(
            lines[second].contains("1.25 ×") && lines[second].contains('–'),
            "{text}"
        );
    }

    #[test]
    fn what_is_unknown_is_left_out() {
        let mut comparison = example();
        comparison.quality = None;
        comparison.speed_up.allowed = None;
        comparison.facts.rules.clear();
        let text = comparison.render(TableStyle::Plain);
        assert!(
            !text.contains("PSNR") && !text.contains("Allowed") && !text.contains("broadcast  "),
            "{text}"
        );
        assert!(text.contains("Speed-up"));
    }

    #[test]
    fn equal_clips_are_told() {
        let mut comparison = example();
        if let Some(quality) = &mut comparison.quality {
            quality.equal = 2;
            quality.psnr.mean = None;
        }
        let text = comparison.render(TableStyle::Plain);
        assert!(text.contains("2 of 3 clips") && text.contains('∞'), "{text}");
    }

    #[test]
    fn seeds_in_words() {
        assert_eq!(listed(&[0, 1, 2]), "seeds 0 to 2");
        assert_eq!(listed(&[7]), "seed 7");
        assert_eq!(listed(&[7, 3]), "seeds 7, 3");
        assert_eq!(listed(&[]), "no seeds");
        assert_eq!(listed(&[u64::MAX, 0, 1]), format!("seeds {}, 0, 1", u64::MAX));
    }
}
