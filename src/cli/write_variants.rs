//! `pab-patch variants`: writes a static graph for each set of rules that the steps of a run broadcast together.

use super::Failure;
use super::args::VariantsOptions;
use super::caches::CacheSettings;
use super::course::Course;
use super::folder::OutputFolder;
use super::patch::{self, Files, Order, Request, patch};
use super::plan_beside;
use super::terminal::Terminal;
use crate::graph::ModelGraph;
use crate::onnx::{Model, SaveOptions};
use crate::report::{FilePath, write_json};
use crate::rewrite::{Drive, PLAN_KEY, Patched, Plan, SchedulePlan, VariantIndex, variants};
use serde::Serialize;
use std::path::Path;

/// The file that says which step uses which variant.
const INDEX: &str = "variants.json";

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    /// The index as a file.
    index_file: FilePath,
    /// The patched model that the variants were made from; it shares the weights.
    model: FilePath,
    /// The index.
    index: &'a VariantIndex,
}

/// Writes the patched model with its weights in a data file, the variants over the same data file, and the index.
pub fn run(options: &VariantsOptions, terminal: &Terminal) -> Result<(), Failure> {
    let model = &options.model;
    let output = match &options.output {
        Some(folder) => folder.clone(),
        None => model.with_file_name("variants"),
    };
    let course = Course::of(model, &options.course, terminal)?;
    let loaded = Model::load(model)?;
    plan_beside::check(model, &loaded, terminal)?;
    let loaded = ModelGraph::new(loaded).map_err(Failure::of(model, Failure::graph))?;
    let order = Order {
        course: &course,
        drive: Drive::Flags,
        hard_links: options.hard_links,
        weights_beside: true,
        needs_schedule: true,
    };
    let folder = OutputFolder::make(&output)?;
    let written = match loaded.metadata(PLAN_KEY).map(Plan::parse) {
        None => {
            drop(loaded);
            let request = Request {
                model,
                rules: &options.rules,
                caches: CacheSettings {
                    options: &options.caches,
                    sizes: options.sizes.clone(),
                    given_up: None,
                },
                output: &output,
                order,
            };
            let written = patch(&request, terminal)?;
            Files {
                model: written.model,
                plan_file: written.plan_file,
                plan: written.plan,
                saved: written.saved,
            }
        }
        Some(_) if asks_for_patching(options) => {
            return Err(Failure::Usage(format!(
                "{} is patched already, by the rules in its plan; leave --rules, --axes, --cache-dtype and --memory out, or give \
                 the original",
                model.display()
            )));
        }
        Some(plan) => from_patched(
            model,
            loaded,
            plan?,
            &output,
            &order,
            options.course.is_empty(),
            terminal,
        )?,
    };
    let schedule = written.plan.schedule.as_ref().ok_or_else(|| course.refusal(model))?;
    let index = write(&written, schedule, terminal)?;
    folder.keep();
    let index_file = output.join(INDEX);
    write_json(&index_file, &index)?;
    for variant in &index.variants {
        let rules = match variant.broadcast.is_empty() {
            true => "nothing".to_owned(),
            false => variant.broadcast.join(", "),
        };
        terminal.note(format!(
            "{}: {} of {} steps, broadcasts {rules}",
            variant.file,
            variant.steps.len(),
            index.steps.len()
        ));
    }
    let report = Report {
        index_file: index_file.as_path().into(),
        model: written.model.as_path().into(),
        index: &index,
    };
    terminal.result(&report, || index_file.display().to_string())
}

/// Whether something is wanted that only patching can give.
fn asks_for_patching(options: &VariantsOptions) -> bool {
    options.rules.rules.is_some()
        || !options.rules.axes.is_empty()
        || options.caches.cache_dtype.is_some()
        || options.caches.memory.is_some()
}

/// Writes a model that was patched before beside its variants-to-be.
fn from_patched(
    path: &Path,
    model: ModelGraph,
    mut plan: Plan,
    output: &Path,
    order: &Order<'_>,
    keep_schedule: bool,
    terminal: &Terminal,
) -> Result<Files, Failure> {
    // A model that is driven by its step has one schedule; another one only has it where nothing else is asked for.
    let asked = order.course.schedule(&plan);
    plan.schedule = match (plan.schedule.take(), asked) {
        (Some(own), _) if keep_schedule => Some(own),
        (Some(own), asked) if plan.drive == Drive::Step => match asked {
            Some(asked) if asked != own => {
                return Err(Failure::Usage(format!(
                    "{} is driven by its step, and made for {} steps of one scheduler; give just these, or the original",
                    path.display(),
                    own.steps()
                )));
            }
            _ => Some(own),
        },
        (_, asked) => Some(asked.ok_or_else(|| order.course.refusal(path))?),
    };
    plan.original = plan
        .original
        .map(|original| path.with_file_name("").join(original))
        .and_then(|original| patch::relative(&original, output));
    let mut model = model;
    model.set_metadata(PLAN_KEY, plan.to_json()?);
    patch::write(path, Patched { model, plan }, output, order, terminal)
}

/// Writes the variants beside the patched model, which has its weights in a data file there.
fn write(written: &Files, schedule: &SchedulePlan, terminal: &Terminal) -> Result<VariantIndex, Failure> {
    let path = &written.model;
    let model = ModelGraph::new(Model::load(path)?).map_err(Failure::of(path, Failure::graph))?;
    let made = variants(&model, &written.plan, schedule).map_err(Failure::of(path, Failure::rewrite))?;
    let stem = path
        .file_stem()
        .map_or_else(|| "model".to_owned(), |stem| stem.to_string_lossy().into_owned());
    let mut files = Vec::with_capacity(made.len());
    for (number, variant) in made.iter().enumerate() {
        let file = format!("{stem}.variant-{number}.onnx");
        let target = path.with_file_name(&file);
        let model = variant.model.clone();
        let model = model.into_model().map_err(Failure::of(path, Failure::graph))?;
        // References stay as they are, since the data file stands in the same folder.
        let options = SaveOptions {
            stop: terminal.stop().clone(),
            ..SaveOptions::default()
        };
        model.save(&target, &options)?;
        terminal.detail(format!("written: {}", target.display()));
        files.push((file, variant));
    }
    let plan_file = written.plan_file.file_name();
    let plan_file = plan_file.map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    Ok(VariantIndex::new(&written.plan, &plan_file, schedule, &files))
}
