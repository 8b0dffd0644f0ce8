//! `pab-patch inspect`: what is found in a model, and what broadcasting it saves.

use super::Failure;
use super::analysis::{Analysis, analyse, rules};
use super::args::InspectOptions;
use super::terminal::Terminal;
use crate::attention::{Kind, Site, SiteCost};
use crate::axes::Bindings;
use crate::graph::ModelGraph;
use crate::report::{Alignment, Table, number};
use crate::rewrite::PlanSize;
use crate::rules::{Rules, SiteFacts};
use serde::Serialize;
use std::path::PathBuf;

/// The size of every open dimension that `--size` does not give, for costs: large enough that halves of it are sizes too.
const OPEN_SIZE: i64 = 16;

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    model: PathBuf,
    /// Operations of one step.
    flops: f64,
    /// The value of open dimensions that no `--size` gave.
    open_size: i64,
    /// Names of the open dimensions.
    open_dimensions: Vec<String>,
    /// Where the rules came from.
    rules_from: String,
    sites: Vec<Row>,
    /// What was seen and not understood.
    notes: Vec<Remark>,
    /// Operators without an axis rule.
    opaque: Vec<Opaque>,
}

#[derive(Serialize)]
struct Row {
    name: String,
    kind: Kind,
    block: usize,
    /// The exporter's name of the module.
    module: Option<String>,
    /// Cuts that the site offers.
    cut: Vec<&'static str>,
    /// Shape of the cache, the first one where there are several; sizes that depend on the inputs are products such as
    /// `16*batch`.
    shape: Vec<PlanSize>,
    /// One entry a cache at the module's output.
    exits: Vec<ExitRow>,
    heads: Option<i64>,
    cache_bytes: Option<u64>,
    /// Operations that a broadcast saves.
    flops: f64,
    /// The same as a share of a step, 0 to 1.
    share: f64,
    /// The rule that has the site.
    rule: Option<String>,
}

/// A cache of a site.
#[derive(Serialize)]
struct ExitRow {
    /// `whole`, or the part of the result: `latent`, `text` or a number.
    part: String,
    shape: Vec<PlanSize>,
    /// The value that is cached.
    value: String,
    cache_bytes: Option<u64>,
}

#[derive(Serialize)]
struct Remark {
    subject: String,
    reason: String,
    advice: String,
}

#[derive(Serialize)]
struct Opaque {
    domain: String,
    operator: String,
    nodes: usize,
}

/// Prints the sites.
pub fn run(options: &InspectOptions, terminal: &Terminal) -> Result<(), Failure> {
    let analysis = analyse(&options.model, &options.rules, terminal)?;
    let rules = rules(&options.rules, terminal)?;
    let open: Vec<&str> = analysis.axes.symbols().collect();
    if let Some((name, _)) = options.sizes.iter().find(|(name, _)| !open.contains(&name.as_str())) {
        let open = if open.is_empty() {
            "none".to_owned()
        } else {
            open.join(", ")
        };
        return Err(Failure::Usage(format!(
            "--size {name}: the open dimensions of the model are {open}"
        )));
    }
    let sizes = options
        .sizes
        .iter()
        .filter_map(|(name, size)| Some((name.as_str(), i64::try_from(*size).ok()?)));
    let bindings = Bindings {
        otherwise: Some(OPEN_SIZE),
        ..Bindings::of(sizes)
    };
    let report = report(options, &analysis, &rules, &bindings);
    terminal.result(&report, || text(&report, terminal))
}

fn report(options: &InspectOptions, analysis: &Analysis, rules: &Rules, bindings: &Bindings) -> Report {
    let Analysis { model, axes, sites } = analysis;
    let costs = sites.costs(model, axes, bindings);
    let rows = sites
        .sites
        .iter()
        .zip(&costs.sites)
        .map(|(site, cost)| row(model, site, cost, rules, bindings));
    let given = |symbol: &&str| !options.sizes.iter().any(|(name, _)| name == symbol);
    Report {
        model: options.model.clone(),
        flops: costs.flops,
        open_size: OPEN_SIZE,
        open_dimensions: axes.symbols().filter(given).map(str::to_owned).collect(),
        rules_from: rules.file.clone(),
        sites: rows.collect(),
        notes: sites
            .notes
            .iter()
            .map(|note| Remark {
                subject: note.subject.clone(),
                reason: note.reason.clone(),
                advice: note.advice.clone(),
            })
            .collect(),
        opaque: axes
            .opaque()
            .iter()
            .map(|operator| Opaque {
                domain: operator.domain.clone(),
                operator: operator.operator.clone(),
                nodes: operator.count,
            })
            .collect(),
    }
}

fn row(model: &ModelGraph, site: &Site, cost: &SiteCost, rules: &Rules, bindings: &Bindings) -> Row {
    let facts = SiteFacts {
        kind: site.kind,
        block: site.block,
        name: site.module.as_deref(),
    };
    Row {
        name: site.name.clone(),
        kind: site.kind,
        block: site.block,
        module: site.module.clone(),
        cut: if site.gated.is_some() {
            vec!["output", "gated"]
        } else {
            vec!["output"]
        },
        shape: site.output.first().shape.iter().map(PlanSize::from).collect(),
        exits: site
            .output
            .iter()
            .map(|cut| ExitRow {
                part: cut.part.to_string(),
                shape: cut.shape.iter().map(PlanSize::from).collect(),
                value: model.graph.value(cut.value).name().to_owned(),
                cache_bytes: cut.bytes(bindings),
            })
            .collect(),
        heads: site.heads,
        cache_bytes: cost.cache_bytes,
        flops: cost.flops,
        share: cost.share,
        rule: rules
            .choose(&facts)
            .and_then(|rule| rules.rules.get(rule))
            .map(|rule| rule.name.clone()),
    }
}

fn text(report: &Report, terminal: &Terminal) -> String {
    use Alignment::{Left, Right};
    let mut table = Table::new([
        ("site", Left),
        ("module", Left),
        ("cut", Left),
        ("cache", Left),
        ("bytes", Right),
        ("FLOP", Right),
        ("share", Right),
        ("rule", Left),
    ]);
    for row in &report.sites {
        let shape: Vec<String> = row.shape.iter().map(PlanSize::to_string).collect();
        table.row([
            row.name.clone(),
            row.module.clone().unwrap_or_else(|| "–".to_owned()),
            row.cut.join(", "),
            format!("[{}]", shape.join(", ")),
            row.cache_bytes.map_or_else(|| "–".to_owned(), number::bytes),
            number::flops(row.flops as u64),
            number::percent(row.share),
            row.rule.clone().unwrap_or_else(|| "–".to_owned()),
        ]);
    }
    let mut text = table.render(terminal.table_style());
    let share = report.sites.iter().fold(0.0, |sum, row| sum + row.share);
    text.push_str(&format!(
        "\n{} sites, {} of the {} of a step; rules: {}\n",
        report.sites.len(),
        number::percent(share),
        number::flops(report.flops as u64),
        report.rules_from
    ));
    for operator in &report.opaque {
        let domain = if operator.domain.is_empty() {
            "ai.onnx"
        } else {
            &operator.domain
        };
        text.push_str(&format!(
            "no axes beyond {domain}:{} ({} nodes)\n",
            operator.operator, operator.nodes
        ));
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
