//! The table that `inspect` prints, by block.

use super::layers::common_module;
use super::view::shape_text;
use super::{Report, Row};
use crate::report::{Alignment, Table, TableStyle, number};

/// The most characters of a module's name and of a shape, so that lines stay within 100 characters. `--json` has all.
const MODULE: usize = 16;
const SHAPE: usize = 26;

/// The report for people.
pub fn text(report: &Report) -> String {
    let mut text = by_block(&report.sites);
    let share = report.sites.iter().fold(0.0, |sum, row| sum + row.share);
    text.push_str(&format!(
        "\n{} sites, {} of the {} of a step; rules: {}\n",
        report.sites.len(),
        number::percent(share),
        number::flops(report.flops as u64),
        report.rules_from
    ));
    let gated = report.sites.iter().filter(|row| row.cut.contains(&"gated")).count();
    if gated > 0 {
        text.push_str(&format!(
            "{gated} of them can also be cut after their gate (cut: gated)\n"
        ));
    }
    if let Some(part) = &report.pipeline {
        text.push_str(&part.text());
        text.push('\n');
    }
    if let Some(preset) = &report.preset {
        text.push_str(&format!(
            "preset that fits: {} (--rules {})\n",
            preset.name, preset.name
        ));
        text.push_str(&format!("  {}\n", preset.reason));
        if !preset.alternatives.is_empty() {
            text.push_str(&format!("  others that fit: {}\n", preset.alternatives.join(", ")));
        }
    }
    for operator in &report.opaque {
        let name = super::qualified(&operator.domain, &operator.operator);
        text.push_str(&format!("no axes beyond {name} ({} nodes)\n", operator.nodes));
    }
    if !report.open_dimensions.is_empty() {
        text.push_str(&format!(
            "open dimensions counted as {}: {} (give sizes with --size NAME=N)\n",
            report.open_size,
            report.open_dimensions.join(", ")
        ));
    }
    text
}

/// The sites, with a heading before each block.
fn by_block(sites: &[Row]) -> String {
    use Alignment::{Left, Right};
    let mut table = Table::new([
        ("  site", Left),
        ("module", Left),
        ("cache", Left),
        ("bytes", Right),
        ("FLOP", Right),
        ("share", Right),
        ("rule", Left),
    ]);
    let mut headings: Vec<Option<String>> = Vec::with_capacity(sites.len());
    for block in sites.chunk_by(|one, other| one.layer == other.layer) {
        let common = common_module(block.iter().filter_map(|row| row.module.as_deref()));
        for (place, row) in block.iter().enumerate() {
            headings.push((place == 0).then(|| heading(row.layer, common.as_deref())));
            let module = row.module.as_deref().map(|module| {
                let prefix = common.as_deref().and_then(|common| module.strip_prefix(common));
                prefix.map_or(module, |rest| rest.trim_start_matches('.'))
            });
            table.row([
                format!("  {}", row.name),
                module.map_or_else(|| "–".to_owned(), |module| elided(module, MODULE)),
                elided(&shape_text(&row.shape), SHAPE),
                row.cache_bytes.map_or_else(|| "–".to_owned(), number::bytes),
                number::flops(row.flops as u64),
                number::percent(row.share),
                row.rule.clone().unwrap_or_else(|| "–".to_owned()),
            ]);
        }
    }
    // Plain rows are one line each, after the header.
    let rows = table.render(TableStyle::Plain);
    let mut lines = rows.lines();
    let mut text = String::new();
    text.extend(lines.next().map(|header| format!("{header}\n")));
    for (line, heading) in lines.zip(headings) {
        text.extend(heading);
        text.push_str(line);
        text.push('\n');
    }
    text
}

fn heading(layer: usize, module: Option<&str>) -> String {
    let module = module.map_or_else(String::new, |module| format!("  {}", elided(module, 80)));
    format!("block {layer}{module}\n")
}

/// A text in at most `most` characters, in one line, its middle left out where it is longer.
fn elided(text: &str, most: usize) -> String {
    let shown = |character: char| {
        if character.is_control() {
            char::REPLACEMENT_CHARACTER
        } else {
            character
        }
    };
    let characters: Vec<char> = text.chars().map(shown).collect();
    if characters.len() <= most {
        return characters.into_iter().collect();
    }
    let front = most / 2;
    let back = characters.len() - (most - front - 1);
    let kept = characters.iter().take(front).copied();
    kept.chain(['…']).chain(characters.iter().skip(back).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_lose_their_middle() {
        assert_eq!(elided("attn1", 16), "attn1");
        assert_eq!(elided("0123456789", 6), "012…89");
        assert_eq!(elided("a\nb", 6), "a\u{fffd}b");
    }
}
