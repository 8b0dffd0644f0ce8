//! `pab-patch inspect`: what is found in a model, and what broadcasting it saves.

mod layers;
mod table;
mod view;

use super::Failure;
use super::analysis::{Analysis, Purpose, analyse, rules};
use super::args::InspectOptions;
use super::terminal::Terminal;
use crate::attention::{Kind, Site, SiteCost};
use crate::axes::Bindings;
use crate::pipeline::{OneOfTwo, TRANSFORMERS};
use crate::report::{FilePath, Pending, Stack};
use crate::rewrite::{PlanSize, Wide, facts};
use crate::rules::{Proposal, Rules};
use serde::Serialize;
use std::path::Path;

/// The size of every open dimension that `--size` does not give, for costs: large enough that halves of it are sizes too.
const OPEN_SIZE: i64 = 16;

/// What `--json` prints; `docs/inspect.schema.json` is its schema.
#[derive(Serialize)]
struct Report {
    model: FilePath,
    /// What it is of a pipeline in which two transformers take turns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pipeline: Option<PartOf>,
    /// Operations of one step.
    flops: f64,
    /// The value of open dimensions that no `--size` gave.
    open_size: i64,
    /// Names of the open dimensions.
    open_dimensions: Vec<String>,
    /// Where the rules came from.
    rules_from: String,
    /// The preset that fits the structure of the model.
    preset: Option<Proposal>,
    sites: Vec<Row>,
    /// What was seen and not understood.
    notes: Vec<Remark>,
    /// Operators without an axis rule.
    opaque: Vec<Opaque>,
}

/// A transformer of two.
#[derive(Serialize)]
struct PartOf {
    /// diffusers' class of the pipeline.
    class: String,
    /// The transformer's folder in it.
    component: &'static str,
    /// The boundary between the two as a share of the timesteps that the scheduler was trained with.
    boundary_ratio: f64,
}

impl PartOf {
    fn of(model: &Path) -> Option<PartOf> {
        let one = OneOfTwo::of_file(model)?;
        Some(PartOf {
            class: one.class,
            component: TRANSFORMERS.get(one.place)?,
            boundary_ratio: one.boundary.ratio(),
        })
    }

    /// In words.
    fn text(&self) -> String {
        let [first, _] = TRANSFORMERS;
        let (steps, others) = match self.component == first {
            true => ("noisier", "below"),
            false => ("less noisy", "from there on"),
        };
        format!(
            "{} of {}: it makes the {steps} steps, parted at {} of the trained timesteps; the transformer beside it makes those {others}",
            self.component, self.class, self.boundary_ratio
        )
    }
}

#[derive(Serialize)]
struct Row {
    name: String,
    kind: Kind,
    block: usize,
    /// Its block of the stack, from 0: a self-attention and what follows it, in the order in which they are computed.
    layer: usize,
    /// The exporter's name of the module.
    module: Option<String>,
    /// Cuts that the site offers.
    cut: Vec<&'static str>,
    /// Shape of the cache, the first one where there are several; sizes that depend on the inputs are products such as
    /// `16*batch`.
    shape: Vec<PlanSize>,
    /// What its dimensions count.
    axes: Option<String>,
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
    let rules = rules(&options.rules, terminal)?;
    let analysis = analyse(&options.model, &options.rules, &rules, Purpose::Show, terminal)?;
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
    let report = report(options, &analysis, &rules, &bindings)?;
    match write(options, &analysis, &report, &bindings, terminal)? {
        Printed::Nothing => terminal.result(&report, || table::text(&report)),
        Printed::View => Ok(()),
    }
}

/// What went to standard output.
enum Printed {
    Nothing,
    /// The graph or the page.
    View,
}

/// Writes the graph and the page where they are wanted.
fn write(
    options: &InspectOptions,
    analysis: &Analysis,
    report: &Report,
    bindings: &Bindings,
    terminal: &Terminal,
) -> Result<Printed, Failure> {
    let dot = options
        .dot
        .as_deref()
        .map(|target| (target, Stack::dot as fn(&Stack) -> String));
    let html = options
        .html
        .as_deref()
        .map(|target| (target, Stack::html as fn(&Stack) -> String));
    let views: Vec<_> = dot.into_iter().chain(html).collect();
    let (printed, files): (Vec<_>, Vec<_>) = views
        .into_iter()
        .partition(|(target, _)| *target == Path::new(STANDARD_OUTPUT));
    if printed.len() + usize::from(terminal.is_json()) > 1 {
        return Err(Failure::Usage(
            "only one of --json, --dot - and --html - can go to standard output; give the others a file".to_owned(),
        ));
    }
    if printed.is_empty() && files.is_empty() {
        return Ok(Printed::Nothing);
    }
    let stack = view::stack(analysis, report, bindings);
    // All are written before the first appears, so that a full disk leaves none.
    let mut pending = Vec::new();
    for (target, make) in files {
        refuse_model(target, &options.model)?;
        pending.push((target, Pending::text(target, make(&stack).trim_end())?));
    }
    for (target, file) in pending {
        file.finish()?;
        terminal.note(format!("wrote {}", target.display()));
    }
    match printed.first() {
        Some((_, make)) => terminal.print(&make(&stack)).map(|()| Printed::View),
        None => Ok(Printed::Nothing),
    }
}

/// The name that stands for standard output.
const STANDARD_OUTPUT: &str = "-";

/// The model is never overwritten.
fn refuse_model(target: &Path, model: &Path) -> Result<(), Failure> {
    match (target.canonicalize(), model.canonicalize()) {
        (Ok(one), Ok(other)) if one == other => Err(Failure::Usage(format!(
            "{} is the model itself; give another file",
            target.display()
        ))),
        _ => Ok(()),
    }
}

/// An operator with its domain, where that is not ONNX' own.
fn qualified(domain: &str, operator: &str) -> String {
    match domain {
        "" | "ai.onnx" => operator.to_owned(),
        domain => format!("{domain}:{operator}"),
    }
}

fn report(
    options: &InspectOptions,
    analysis: &Analysis,
    rules: &Rules,
    bindings: &Bindings,
) -> Result<Report, Failure> {
    let Analysis {
        model,
        axes,
        sites,
        preset,
        ..
    } = analysis;
    let costs = sites.costs(model, axes, bindings);
    let named: Vec<_> = facts(sites, Some(&costs)).collect();
    // Blocks that are no span have an error when they are patched.
    let wide = Wide::select(model, axes, sites, rules).unwrap_or_default();
    let assigned = rules.assign(&named, &wide.claims())?;
    let rows = sites
        .sites
        .iter()
        .zip(&costs.sites)
        .zip(sites.layers(&model.graph))
        .zip(assigned)
        .map(|(((site, cost), layer), rule)| {
            let rule = rule.and_then(|rule| rules.rules.get(rule));
            let rule = rule.map(|rule| rule.name.clone());
            row(site, cost, layer, analysis, rule, bindings)
        });
    let given = |symbol: &&str| !options.sizes.iter().any(|(name, _)| name == symbol);
    Ok(Report {
        model: options.model.clone().into(),
        pipeline: PartOf::of(&options.model),
        flops: costs.flops,
        open_size: OPEN_SIZE,
        open_dimensions: axes.symbols().filter(given).map(str::to_owned).collect(),
        rules_from: rules.file.clone(),
        preset: preset.clone(),
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
    })
}

fn row(
    site: &Site,
    cost: &SiteCost,
    layer: usize,
    analysis: &Analysis,
    rule: Option<String>,
    bindings: &Bindings,
) -> Row {
    Row {
        name: site.name.clone(),
        kind: site.kind,
        block: site.block,
        layer,
        module: site.module.clone(),
        cut: view::cuts(site).iter().map(|(point, _)| point.word()).collect(),
        shape: view::shape(site.output.first()),
        axes: view::axes_text(site, analysis),
        exits: site
            .output
            .iter()
            .map(|cut| ExitRow {
                part: cut.part.to_string(),
                shape: view::shape(cut),
                value: analysis.model.graph.value(cut.value).name().to_owned(),
                cache_bytes: cut.bytes(bindings),
            })
            .collect(),
        heads: site.heads,
        cache_bytes: cost.cache_bytes,
        flops: cost.flops,
        share: cost.share,
        rule,
    }
}
