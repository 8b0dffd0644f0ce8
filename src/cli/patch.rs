//! `pab-patch MODEL.onnx`: writes the patched model and its plan.

use super::Failure;
use super::analysis::{self, Purpose, analyse, rules, suggest_preset};
use super::args::{PatchOptions, RulesOptions};
use super::caches::{CacheReport, CacheSettings};
use super::course::Course;
use super::folder::OutputFolder;
use super::terminal::Terminal;
use crate::onnx::{How, SaveOptions, Saved};
use crate::report::{FilePath, Pending};
use crate::rewrite::{Drive, PLAN_KEY, Patched, Plan, drive_by_step};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    /// The patched model.
    model: FilePath,
    /// Its plan as a file.
    plan_file: FilePath,
    /// Every file that belongs to the model.
    files: Vec<FilePath>,
    /// The memory of the caches.
    caches: &'a CacheReport,
    /// The plan.
    plan: &'a Plan,
}

/// A patched model on disk.
#[derive(Debug)]
pub struct Written {
    /// The model.
    pub model: PathBuf,
    /// The plan beside it.
    pub plan_file: PathBuf,
    /// The plan.
    pub plan: Plan,
    /// The memory of its caches.
    pub caches: CacheReport,
    /// What was saved.
    pub saved: Saved,
}

/// Patches and reports.
pub fn run(options: &PatchOptions, terminal: &Terminal) -> Result<(), Failure> {
    let Some(model) = &options.model else {
        return Err(Failure::Usage("no model given; see --help".to_owned()));
    };
    let output = match &options.output {
        Some(folder) => folder.clone(),
        None => model.with_file_name("patched"),
    };
    let course = Course::of(model, &options.course, terminal)?;
    let request = Request {
        model,
        rules: &options.rules,
        caches: CacheSettings {
            options: &options.caches,
            sizes: options.sizes.clone(),
            given_up: None,
        },
        output: &output,
        order: Order {
            hard_links: options.hard_links,
            ..Order::new(&course, options.drive.into())
        },
    };
    let written = patch(&request, terminal)?;
    terminal.note(summary(&written.plan));
    for file in &written.saved.files {
        let how = match file.how {
            How::Kept => "unchanged",
            How::Linked => "linked",
            How::Cloned => "cloned",
            How::Copied => "copied",
            How::Written => "written",
        };
        terminal.detail(format!("{how}: {} ({} bytes)", file.path.display(), file.bytes));
    }
    let report = Report {
        model: written.model.as_path().into(),
        plan_file: written.plan_file.as_path().into(),
        files: written
            .saved
            .files
            .iter()
            .map(|file| file.path.as_path().into())
            .collect(),
        caches: &written.caches,
        plan: &written.plan,
    };
    terminal.result(&report, || written.model.display().to_string())
}

/// What is to be patched, and how.
#[derive(Debug)]
pub struct Request<'a> {
    /// The original.
    pub model: &'a Path,
    /// Its rules.
    pub rules: &'a RulesOptions,
    /// Its caches.
    pub caches: CacheSettings<'a>,
    /// The folder for the result.
    pub output: &'a Path,
    /// What the result is to be like.
    pub order: Order<'a>,
}

/// What a patched model is to be like.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// What is known of its runs.
    pub course: &'a Course,
    /// What drives it.
    pub drive: Drive,
    /// Whether data files may be hard links to the original's.
    pub hard_links: bool,
    /// Whether weights that stand in the model's file move to a data file beside it.
    pub weights_beside: bool,
    /// Whether it is of no use without a schedule.
    pub needs_schedule: bool,
}

impl<'a> Order<'a> {
    /// A model whose weights stay as they are.
    pub fn new(course: &'a Course, drive: Drive) -> Order<'a> {
        Order {
            course,
            drive,
            hard_links: false,
            weights_beside: false,
            needs_schedule: drive == Drive::Step,
        }
    }
}

/// Patches a model into a folder.
pub fn patch(request: &Request<'_>, terminal: &Terminal) -> Result<Written, Failure> {
    let Request {
        model, output, order, ..
    } = *request;
    let (mut result, caches) = patched(request, terminal)?;
    let folder = OutputFolder::make(output)?;
    result.plan.original = relative(model, output);
    result.model.set_metadata(PLAN_KEY, result.plan.to_json()?);
    let Files {
        model,
        plan_file,
        plan,
        saved,
    } = write(model, result, output, &order, terminal)?;
    folder.keep();
    Ok(Written {
        model,
        plan_file,
        plan,
        caches,
        saved,
    })
}

/// Patches a model in memory. Where its original stands is not yet in the plan, nor is the plan in its metadata.
pub fn patched(request: &Request<'_>, terminal: &Terminal) -> Result<(Patched, CacheReport), Failure> {
    let Request { model, order, .. } = *request;
    let rules = rules(request.rules, terminal)?;
    let analysis = analyse(model, request.rules, &rules, Purpose::Patch, terminal)?;
    suggest_preset(&analysis, request.rules, terminal);
    terminal.stop().check()?;
    let timesteps = order.course.timesteps();
    let (mut result, caches) = analysis::patched(model, analysis, &rules, &request.caches, timesteps, terminal)?;
    result.plan.schedule = order.course.schedule(&result.plan);
    if result.plan.schedule.is_none() && order.needs_schedule {
        return Err(order.course.refusal(model));
    }
    warn_of_idle_rules(&result.plan, terminal);
    if order.drive == Drive::Step {
        result = drive_by_step(result).map_err(Failure::of(model, Failure::rewrite))?;
    }
    Ok((result, caches))
}

/// Says which rules never broadcast in the plan's schedule.
fn warn_of_idle_rules(plan: &Plan, terminal: &Terminal) {
    let Some(schedule) = &plan.schedule else { return };
    for (rule, steps) in plan.rules.iter().zip(&schedule.broadcast) {
        if steps.is_empty() || steps.contains(&true) {
            continue;
        }
        let timesteps = match schedule.timesteps.as_slice() {
            [first, .., last] => format!(" of this scheduler (timesteps {first} to {last})"),
            _ => String::new(),
        };
        terminal.warning(format!(
            "rule `{}` never broadcasts in the {} steps{timesteps}: {}",
            rule.name,
            steps.len(),
            rule.timing
        ));
    }
}

/// The path of `model` as seen from `folder`, with `/` between its parts; `None` where there is none.
pub fn relative(model: &Path, folder: &Path) -> Option<String> {
    let (model, folder) = (model.canonicalize().ok()?, folder.canonicalize().ok()?);
    let shared = model
        .components()
        .zip(folder.components())
        .take_while(|(one, other)| one == other)
        .count();
    if shared == 0 {
        return None;
    }
    let up = folder.components().skip(shared).map(|_| "..");
    let down = model.components().skip(shared).map(|part| part.as_os_str().to_str());
    let parts: Option<Vec<&str>> = up.map(Some).chain(down).collect();
    parts.map(|parts| parts.join("/"))
}

/// The files of a patched model.
#[derive(Debug)]
pub struct Files {
    /// The model.
    pub model: PathBuf,
    /// The plan beside it.
    pub plan_file: PathBuf,
    /// The plan.
    pub plan: Plan,
    /// What was saved.
    pub saved: Saved,
}

/// Writes a patched model under its original's name into a folder, and the plan beside it.
pub fn write(
    original: &Path,
    result: Patched,
    output: &Path,
    order: &Order<'_>,
    terminal: &Terminal,
) -> Result<Files, Failure> {
    let Patched { model, plan } = result;
    let name = original
        .file_name()
        .map_or_else(|| PathBuf::from("model.onnx"), PathBuf::from);
    let target = output.join(name);
    let plan_file = target.with_extension("pab.json");
    let model = model.into_model().map_err(Failure::of(original, Failure::graph))?;
    let bar = terminal.bytes("writing");
    let shown = bar.clone();
    let options = SaveOptions {
        progress: Some(std::sync::Arc::new(move |progress: crate::onnx::Progress<'_>| {
            shown.set_length(progress.total);
            shown.set_position(progress.done);
        })),
        hard_links: order.hard_links,
        move_weights: order.weights_beside,
        stop: terminal.stop().clone(),
        ..SaveOptions::default()
    };
    terminal.stop().check()?;
    // The plan is written before the model appears, and appears right after it: a full disk leaves neither.
    let plan_text = plan.to_json()?;
    let pending = Pending::text(&plan_file, &plan_text)?;
    let saved = model.save(&target, &options);
    bar.finish_and_clear();
    let saved = saved?;
    pending.finish()?;
    Ok(Files {
        model: target,
        plan_file,
        plan,
        saved,
    })
}

/// A line a rule: how many sites of which kind, and how they are broadcast.
fn summary(plan: &Plan) -> String {
    let rules = plan.rules.iter().enumerate().map(|(index, rule)| {
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for site in plan.sites_of(index) {
            *kinds.entry(site.kind.word()).or_default() += 1;
        }
        let kinds: Vec<_> = kinds
            .into_iter()
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect();
        let share = plan.schedule.as_ref().map(|schedule| {
            let steps = &schedule.broadcast[index];
            format!(
                ", {} of {} steps broadcast",
                steps.iter().filter(|step| **step).count(),
                steps.len()
            )
        });
        format!(
            "rule {}: {} — {}{}",
            rule.name,
            kinds.join(", "),
            rule.action(),
            share.unwrap_or_default()
        )
    });
    rules.collect::<Vec<_>>().join("\n")
}
