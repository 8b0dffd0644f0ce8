//! What every command does first with an exported model: load it, find the sites, choose the rules.

use super::Failure;
use super::args::RulesOptions;
use super::caches::{CacheReport, CacheSettings};
use super::terminal::Terminal;
use crate::attention::Sites;
use crate::axes::{Axes, Dimension, InputLabels, Label, Labels};
use crate::graph::{Flattened, ModelGraph, flatten};
use crate::onnx::Model;
use crate::rewrite::{Choice, Patched, Wide, fix_sizes, refuse_patched, select_beside, switch_wide, write_known_sizes};
use crate::rules::{DEFAULT_PRESET, Medium, Proposal, Rule, Rules, propose};
use crate::schedule::Schedule;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A model and what was found in it.
#[derive(Debug)]
pub struct Analysis {
    /// The model.
    pub model: ModelGraph,
    /// SHA-256 of its graph as it is in the file.
    pub graph_sha256: String,
    /// Where its dimensions come from.
    pub axes: Axes,
    /// What can be broadcast, and what was not understood.
    pub sites: Sites,
    /// The preset that fits its structure.
    pub preset: Option<Proposal>,
    /// The names of open sizes that were fixed.
    pub fixed: BTreeSet<String>,
}

/// What a model is looked at for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose<'a> {
    /// To be shown as it is in the file.
    Show,
    /// To be patched: sizes that are known are written before sites are looked for.
    Patch,
    /// The same for runs in which these sizes are no longer open.
    Run(&'a BTreeMap<String, i64>),
}

/// Loads a model and finds its sites. Of the rules, what they say of the model's inputs is used.
pub fn analyse(
    model: &Path,
    options: &RulesOptions,
    rules: &Rules,
    purpose: Purpose<'_>,
    terminal: &Terminal,
) -> Result<Analysis, Failure> {
    let mut loaded = Model::load(model)?;
    let graph_sha256 = loaded.graph_sha256();
    let flattened = flatten(&mut loaded.proto).map_err(Failure::of(model, Failure::graph))?;
    if flattened != Flattened::default() {
        terminal.detail(format!(
            "{} calls of local functions and {} branches with a constant condition were put in place",
            flattened.calls, flattened.branches
        ));
    }
    let mut graph = ModelGraph::new(loaded).map_err(Failure::of(model, Failure::graph))?;
    refuse_patched(&graph).map_err(Failure::of(model, Failure::rewrite))?;
    let fixed = match purpose {
        Purpose::Run(sizes) => fix_sizes(&mut graph.graph, sizes),
        Purpose::Show | Purpose::Patch => BTreeSet::new(),
    };
    let labels = input_labels(&graph, options, rules)?;
    let axes = Axes::analyse(&graph, &labels).map_err(Failure::of(model, Failure::axes))?;
    if purpose != Purpose::Show {
        write_known_sizes(&mut graph.graph, &axes).map_err(Failure::of(model, Failure::graph))?;
    }
    let sites = Sites::find(&graph, &axes).map_err(Failure::of(model, Failure::graph))?;
    // A model with many blocks has the same to say of each.
    const SHOWN: usize = 6;
    for (index, note) in sites.notes.iter().enumerate() {
        match index {
            0..SHOWN => terminal.warning(note.to_string()),
            _ => terminal.detail(format!("warning: {note}")),
        }
    }
    if sites.notes.len() > SHOWN {
        terminal.warning(format!(
            "and {} more like these: -v shows them",
            sites.notes.len() - SHOWN
        ));
    }
    for operator in axes.opaque() {
        let domain = if operator.domain.is_empty() {
            "ai.onnx"
        } else {
            &operator.domain
        };
        let why = if operator.has_rule {
            "the axis rule could not be applied"
        } else {
            "there is no axis rule"
        };
        terminal.detail(format!(
            "{domain}:{}: {why} at {} nodes; the dimensions of their outputs are not known",
            operator.operator, operator.count
        ));
    }
    let preset = propose(medium(&graph, &axes), sites.sites.iter().map(|site| site.kind));
    Ok(Analysis {
        model: graph,
        graph_sha256,
        axes,
        sites,
        preset,
        fixed,
    })
}

/// Says which preset fits better, where the default is used because no rules were given.
pub fn suggest_preset(analysis: &Analysis, options: &RulesOptions, terminal: &Terminal) {
    if let (None, Some(preset)) = (&options.rules, &analysis.preset)
        && !preset.is_default()
    {
        terminal.note(format!(
            "a preset fits this model better than `{DEFAULT_PRESET}`: --rules {preset}"
        ));
    }
}

/// What the model makes, from the axes of its inputs.
fn medium(model: &ModelGraph, axes: &Axes) -> Option<Medium> {
    let inputs = model.graph.inputs().filter_map(|input| axes.dimensions(input));
    let labels = inputs
        .flatten()
        .map(Dimension::labels)
        .fold(Labels::NONE, Labels::union);
    const MEDIA: [(Label, Medium); 3] = [
        (Label::Frames, Medium::Video),
        (Label::Height, Medium::Image),
        (Label::Tokens, Medium::Tokens),
    ];
    let found = MEDIA.into_iter().find(|(label, _)| labels.contains(*label));
    found.map(|(_, medium)| medium)
}

/// The axes of inputs that the user gave: on the command line, or else in the rules.
fn input_labels(model: &ModelGraph, options: &RulesOptions, rules: &Rules) -> Result<InputLabels, Failure> {
    let given = labels(options)?;
    let labels = rules.input_labels(&given);
    let mut faults = labels.faults(model);
    faults.retain(|fault| fault.input().is_some_and(|input| !given.inputs.contains_key(input)));
    match rules.input_faults(&faults) {
        Some(error) => Err(error.into()),
        None => Ok(labels),
    }
}

/// The axes of inputs that the command line gives.
fn labels(options: &RulesOptions) -> Result<InputLabels, Failure> {
    let mut labels = InputLabels::default();
    for (input, axes) in &options.axes {
        let label = |word: &str| {
            let found = Label::ALL.into_iter().find(|label| label.word() == word.trim());
            found.ok_or_else(|| {
                let words: Vec<_> = Label::ALL.into_iter().map(Label::word).collect();
                Failure::Usage(format!(
                    "--axes {input}: `{word}` is no axis; axes are {}",
                    words.join(", ")
                ))
            })
        };
        labels
            .inputs
            .insert(input.clone(), axes.split(',').map(label).collect::<Result<_, _>>()?);
    }
    Ok(labels)
}

/// The rules that were named, or the paper's default, which the output then says.
pub fn rules(options: &RulesOptions, terminal: &Terminal) -> Result<Rules, Failure> {
    match &options.rules {
        Some(named) => Ok(Rules::find(named)?),
        None => {
            terminal.note(format!(
                "no --rules given: using the preset `{DEFAULT_PRESET}`, the paper's default"
            ));
            Ok(Rules::preset(DEFAULT_PRESET)?)
        }
    }
}

/// Patches an analysed model in memory, and says first what memory the caches take.
///
/// `timesteps` are those of the run, where they are known: rules of a preset that never broadcast in it, such as tables
/// for another scheduler, are left out, since nobody wrote them for this model.
pub fn patched(
    path: &Path,
    analysis: Analysis,
    rules: &Rules,
    caches: &CacheSettings<'_>,
    timesteps: Option<&[f64]>,
    terminal: &Terminal,
) -> Result<(Patched, CacheReport), Failure> {
    let wide = wide(path, &analysis, rules)?;
    patched_beside(path, analysis, &wide, rules, caches, timesteps, terminal)
}

/// What the rules leave out beside sites.
pub fn wide(path: &Path, analysis: &Analysis, rules: &Rules) -> Result<Wide, Failure> {
    let (model, sites, axes) = (&analysis.model, &analysis.sites, &analysis.axes);
    Wide::select(model, axes, sites, rules).map_err(Failure::of(path, Failure::rewrite))
}

/// The same as [`patched`] where it is known what the rules leave out beside sites.
pub fn patched_beside(
    path: &Path,
    analysis: Analysis,
    wide: &Wide,
    rules: &Rules,
    caches: &CacheSettings<'_>,
    timesteps: Option<&[f64]>,
    terminal: &Terminal,
) -> Result<(Patched, CacheReport), Failure> {
    let parts = (&analysis.model, &analysis.axes, &analysis.sites);
    let mut choices = chosen(path, parts, rules, caches, wide)?;
    let idle = match timesteps {
        Some(timesteps) if rules.is_preset() => idle(rules, timesteps),
        _ => Vec::new(),
    };
    if choices.iter().any(|choice| !idle.contains(&choice.rule)) {
        choices.retain(|choice| !idle.contains(&choice.rule));
    }
    for (index, rule) in rules.rules.iter().enumerate() {
        if rule.action.is_some() && !wide.has(index) && !choices.iter().any(|choice| choice.rule == index) {
            let why = match idle.contains(&index) {
                true => "never broadcasts in this run and is left out",
                false => "matches no site of this model",
            };
            let text = format!("rule `{}` ({}:{}) {why}", rule.name, rules.file, rule.line);
            match rules.is_preset() {
                true => terminal.detail(text),
                false => terminal.warning(text),
            }
        }
    }
    let report = caches.fit(&mut choices, wide, &analysis, rules, terminal)?;
    let graph_sha256 = analysis.graph_sha256;
    let mut result = match switch_wide(analysis.model, &choices, wide, rules, &caches.switch_options()) {
        Ok(result) => result,
        Err(error) => return Err(Failure::of(path, Failure::rewrite)(error)),
    };
    result.plan.original_sha256 = Some(graph_sha256);
    result.plan.dropped = report.dropped().to_vec();
    Ok((result, report))
}

/// The sites that rules broadcast, where it is known what else they leave out.
pub fn chosen<'a>(
    path: &Path,
    (model, axes, sites): (&ModelGraph, &Axes, &'a Sites),
    rules: &Rules,
    caches: &CacheSettings<'_>,
    wide: &Wide,
) -> Result<Vec<Choice<'a>>, Failure> {
    let costs = rules.ask_costs().then(|| sites.costs(model, axes, &caches.bindings()));
    select_beside(sites, rules, costs.as_ref(), wide).map_err(Failure::of(path, Failure::rewrite))
}

/// The rules that never broadcast in a run through `timesteps`, as indices.
fn idle(rules: &Rules, timesteps: &[f64]) -> Vec<usize> {
    let broadcasts = |rule: &Rule| {
        let timing = rule.action.as_ref().map(|action| action.timing.clone());
        Schedule::new(timing.as_slice(), timesteps).share(0) > 0.0
    };
    let rules = rules.rules.iter().enumerate();
    rules
        .filter(|(_, rule)| !broadcasts(rule))
        .map(|(index, _)| index)
        .collect()
}
