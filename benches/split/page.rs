//! The page: what was found, as tables and plots.

use super::{bytes, equal, speed};
use pab_patch::report::plot::{LineChart, Series};
use pab_patch::report::{median, number};
use std::collections::BTreeMap;

fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(header.iter().map(|cell| (*cell).to_owned()).collect());
    let rule = (0..header.len()).map(|place| if place == 0 { "---" } else { "---:" }.to_owned());
    text.push_str(&line(rule.collect()));
    rows.into_iter().for_each(|row| text.push_str(&line(row)));
    text.push('\n');
    text
}

pub fn write() {
    let folder = super::root().join("docs/split");
    let mut text = std::fs::read_to_string(folder.join("head.md")).unwrap();
    text.push_str(&equalities());
    text.push_str(&sent(&folder));
    if super::file("speed").exists() {
        text.push_str(&speeds(&folder));
    }
    std::fs::write(super::root().join("docs/split.md"), text).unwrap();
}

fn equalities() -> String {
    let rows: Vec<equal::Row> = super::kept("equal");
    let mut reasons: Vec<String> = Vec::new();
    let mut by_model: BTreeMap<(String, String), BTreeMap<String, String>> = BTreeMap::new();
    let (mut worst, mut equal_ones) = (0.0f32, 0);
    let mut note = |reason: &str| {
        let place = reasons.iter().position(|known| known == reason).unwrap_or_else(|| {
            reasons.push(reason.to_owned());
            reasons.len() - 1
        });
        place + 1
    };
    let mut silent = Vec::new();
    let mut why = BTreeMap::new();
    for row in &rows {
        let cell = match &row.refused {
            Some(reason) => format!("– ({})", note(reason)),
            None => {
                let most = row
                    .worst
                    .iter()
                    .chain(row.kept.iter().map(|(worst, _)| worst))
                    .copied()
                    .fold(0.0, f32::max);
                worst = worst.max(most);
                equal_ones += 1;
                format!("{} {most:.0e}", row.factor)
            }
        };
        let mesh = row.mesh.clone();
        by_model
            .entry((row.model.clone(), row.kinds.clone()))
            .or_default()
            .insert(mesh, cell);
        if let Some((_, sent)) = &row.kept {
            let cells = [&row.model, &row.mesh].map(Clone::clone).into_iter();
            let bytes = row.sent.iter().chain(sent).map(|sent| sent.to_string());
            silent.push(cells.chain(bytes).collect());
        }
        if let Some(reason) = &row.gathered {
            why.entry(reason.clone())
                .or_insert_with(Vec::new)
                .push(format!("{} over {}", row.model, row.mesh));
        }
    }
    let mut meshes: Vec<String> = Vec::new();
    for row in &rows {
        if !meshes.contains(&row.mesh) {
            meshes.push(row.mesh.clone());
        }
    }
    let header: Vec<&str> = ["export", "attention"]
        .into_iter()
        .chain(meshes.iter().map(String::as_str))
        .collect();
    let lines = by_model.into_iter().map(|((model, kinds), cells)| {
        let cells = meshes.iter().map(|mesh| cells.get(mesh).cloned().unwrap_or_default());
        [model, kinds].into_iter().chain(cells).collect()
    });
    let mut text = format!(
        "## Ranks against the whole\n\n{equal_ones} of {} splits give what the whole gives, to {worst:.1e} of the largest value at most. \
         Each is run as it is, patched with switches, and patched as static graphs, five steps that compute, broadcast attention, \
         broadcast everything, broadcast feed-forwards, and compute again. Where ranks can keep their latents, that too. A cell has \
         what tokens are divided along, and the largest difference of all. What ranks sent was counted at every step, and equals \
         the formula to the byte.\n\n",
        rows.len()
    );
    text.push_str(&table(&header, lines.collect()));
    for (place, reason) in reasons.iter().enumerate() {
        text.push_str(&format!("{}. {reason}\n", place + 1));
    }
    text.push_str(
        "\n## Steps that send nothing\n\nBytes that the rank with most to send sends in a step that computes, that broadcasts attention, \
         and that broadcasts everything: with the output gathered in every step, and with latents kept.\n\n",
    );
    let header = [
        "export",
        "mesh",
        "computing",
        "attention broadcast",
        "all broadcast",
        "kept: computing",
        "attention broadcast",
        "all broadcast",
    ];
    text.push_str(&table(&header, silent));
    text.push_str("Where latents are gathered all the same:\n\n");
    for (reason, where_) in why {
        text.push_str(&format!("- {reason}: {}\n", where_.join(", ")));
    }
    text.push('\n');
    text
}

fn sent(folder: &std::path::Path) -> String {
    let rows: Vec<bytes::Row> = super::kept("bytes");
    let sum = |steps: &[u64]| steps.iter().sum::<u64>();
    let lines = rows.iter().map(|row| {
        let (switch, broadcast, ulysses) = (sum(&row.switch), sum(&row.broadcast), sum(&row.ulysses));
        vec![
            row.model.clone(),
            row.ranks.to_string(),
            row.factor.clone(),
            if row.kept { "kept" } else { "gathered" }.to_owned(),
            number::bytes(ulysses),
            number::bytes(switch),
            number::bytes(broadcast),
            number::percent(broadcast as f64 / switch.max(1) as f64),
        ]
    });
    let mut text = format!(
        "## Bytes of a run\n\n{} steps, ranges 2/4/6 for spatial, temporal and cross attention at all of them; what the rank with most to \
         send sends.\n\n",
        bytes::STEPS
    );
    let header = [
        "export",
        "ranks",
        "divided",
        "latents",
        "Ulysses",
        "switch (DSP)",
        "switch and broadcast",
        "of the switch",
    ];
    text.push_str(&table(&header, lines.collect()));
    if let Some(row) = rows.iter().find(|row| row.kept && row.ranks == 4) {
        let line = |name: &str, steps: &[u64]| {
            let mut sum = 0.0;
            let points = steps.iter().enumerate().map(|(step, sent)| {
                sum += *sent as f64 / 1024.0;
                (step as f64 + 1.0, sum)
            });
            Series::line(name, points.collect())
        };
        let chart = LineChart {
            title: format!("{} over {} ranks, {} divided", row.model, row.ranks, row.factor),
            x: "step".to_owned(),
            y: "KiB sent by a rank so far".to_owned(),
            x_marks: Vec::new(),
            series: vec![
                line("Ulysses", &row.ulysses),
                line("switch (DSP)", &row.switch),
                line("switch and broadcast", &row.broadcast),
            ],
            logarithmic: false,
        };
        std::fs::write(folder.join("bytes.svg"), chart.figure().svg()).unwrap();
        text.push_str("![Bytes sent over the steps of a run](split/bytes.svg)\n\n");
    }
    text
}

fn speeds(folder: &std::path::Path) -> String {
    let rows: Vec<speed::Row> = super::kept("speed");
    let mut series: Vec<(&str, Vec<Series>)> = Vec::new();
    let lines = rows.iter().map(|row| {
        let ratios: Vec<f64> = row.one.iter().zip(&row.two).map(|(one, two)| one / two).collect();
        let points = ratios.iter().enumerate();
        let points = points.map(|(round, ratio)| (round as f64 + 1.0, *ratio)).collect();
        let dots = Series::dots(&row.what, points, true);
        match series.iter_mut().find(|(model, _)| *model == row.model) {
            Some((_, of_model)) => of_model.push(dots),
            None => series.push((&row.model, vec![dots])),
        }
        let each = |seconds: &[f64]| median(seconds).unwrap_or(f64::NAN) * 1e3 / row.steps as f64;
        let (one, two, apart) = (each(&row.one), each(&row.two), each(&row.apart));
        let cores: Vec<f64> = row.apart.iter().zip(&row.two).map(|(apart, two)| apart / two).collect();
        vec![
            row.model.clone(),
            format!("{} × {}", row.batch, row.tokens),
            row.what.clone(),
            row.one.len().to_string(),
            format!("{one:.1} ms"),
            format!("{two:.1} ms"),
            format!("{:.2} ×", one / two),
            format!("{:.2} ×", median(&ratios).unwrap_or(f64::NAN)),
            format!("{:.2} ×", 2.0 * one / apart),
            format!("{:.2}", median(&cores).unwrap_or(f64::NAN)),
        ]
    });
    let lines: Vec<Vec<String>> = lines.collect();
    let steps = rows.first().map_or(0, |row| row.steps);
    let mut text = format!(
        "## Time of a step\n\nOn two cores: one rank with one thread, and two ranks with one thread each that keep their latents, in \
         turn, runs of {steps} steps each. Medians. Beside them two runs of the whole model at once that have nothing to do with \
         each other: what two cores of this machine give when nothing is exchanged. Last, the time that these take for two, over \
         that of two ranks for one: 2 is a split that costs nothing. `model` is the shipped one; `latte-1152` has the width of the published Latte (1152 channels, 16 heads) and one pair of blocks \
         (`benches/split/true_width.py`).\n\n"
    );
    text.push_str(&table(
        &[
            "model",
            "clips × tokens",
            "",
            "runs",
            "one rank",
            "two ranks",
            "ratio of medians",
            "median of pairs",
            "two cores give",
            "two apart / two ranks",
        ],
        lines,
    ));
    for (model, series) in series {
        let chart = LineChart {
            title: format!("{model}: two ranks of one thread against one"),
            x: "pair of runs".to_owned(),
            y: "times as fast".to_owned(),
            x_marks: Vec::new(),
            series,
            logarithmic: false,
        };
        let file = format!("speed-{model}.svg");
        std::fs::write(folder.join(&file), chart.figure().svg()).unwrap();
        text.push_str(&format!(
            "![Two ranks against one, run by run, {model}](split/{file})\n\n"
        ));
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}
