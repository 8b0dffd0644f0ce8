//! `pab-patch calibrate`: rules that come from measurement.

mod fit;
mod judge;
mod options;
mod state;
mod studio;
mod target;
mod verify;
mod write;

pub use options::CalibrateOptions;

use super::Failure;
use super::analysis::{Purpose, analyse};
use super::args::RulesOptions;
use super::session::{library, prompts, run_settings, scheduler};
use super::source::{refuse_folder, refuse_one_of_two};
use super::terminal::Terminal;
use crate::attention::Kind;
use crate::calibrate::{Form, Grid, Judged};
use crate::rules::Rules;
use crate::sampler::SchedulerConfig;
use state::State;
use std::path::{Path, PathBuf};
use studio::{Run, Studio};
use target::Target;

/// Measures, fits, verifies, judges and writes.
pub fn run(options: &CalibrateOptions, terminal: &Terminal) -> Result<(), Failure> {
    let target = Target::of(&options.target)?;
    check(options)?;
    refuse_folder(
        &options.model,
        "calibrate",
        "; rules for a whole pipeline are judged by `pab-patch compare`",
    )?;
    refuse_one_of_two(&options.model, "calibrate", |root| {
        let root = root.display();
        format!("write rules by hand, and see what they do to the clips with `pab-patch compare {root} --rules FILE`")
    })?;
    let sampling = &options.sampling;
    let config = scheduler(&options.model, sampling, terminal)?;
    let steps = sampling.steps;
    let fitting = Run::new(
        config,
        |named: Option<&Path>| run_settings(&options.model, named, steps, &sampling.clip),
        sampling,
    )?;
    let mut runs = vec![fitting];
    let second = |named: &Option<PathBuf>, steps: Option<usize>| -> Result<Option<Run>, Failure> {
        let config = match (named, steps) {
            (None, None) => return Ok(None),
            (Some(path), _) => SchedulerConfig::load(path)?,
            (None, _) => scheduler(&options.model, sampling, terminal)?,
        };
        let steps = steps.unwrap_or(sampling.steps);
        let settings =
            |beside: Option<&Path>| run_settings(&options.model, named.as_deref().or(beside), steps, &sampling.clip);
        Run::new(config, settings, sampling).map(Some)
    };
    runs.extend(second(&options.also_scheduler, options.also_steps)?);
    let fitted = runs.len();
    if let Some(judged) = second(&options.judge_scheduler, options.judge_steps)?
        && runs.iter().all(|run| !run.is(&judged.record))
    {
        runs.push(judged);
    }
    let (Some(first), Some(fitting)) = (runs.first(), runs.get(..fitted)) else {
        return Ok(());
    };
    let prompts = prompts(&options.model, sampling)?;
    let kinds = kinds(options, terminal)?;
    let forms = forms(options, &kinds)?;
    let grid = Grid::new(options.windows, &first.record.timesteps);
    let mut state = State::of(options, fitting)?;
    let runtime = library(&options.session, terminal)?;
    let studio = Studio::new(options, &prompts, terminal);
    terminal.detail(format!("ONNX Runtime {}", runtime.version));

    fit::record_drift(&studio, first, &kinds, &mut state)?;
    write::drift(&options.output, &state.calibration)?;
    let references = fit::references(&studio, fitting)?;
    fit::measure(&studio, fitting, &forms, &grid, &references, &mut state)?;
    let bench = verify::Bench {
        studio: &studio,
        runs: fitting,
        forms: &forms,
        grid: &grid,
        references: &references,
    };
    verify::verify(&bench, target, &mut state)?;
    write::chosen(&options.output, &state.calibration)?;
    let wanted = |judged: &Judged| runs.iter().any(|run| run.is(&judged.run));
    state.calibration.judged.retain(wanted);
    for run in &runs {
        judge::judge(&studio, run, &mut state)?;
        write::frontier(&options.output, &state.calibration)?;
    }
    let calibration = &state.calibration;
    terminal.result(calibration, || write::text(&options.output, calibration, terminal))
}

/// Refuses numbers of which nothing comes.
fn check(options: &CalibrateOptions) -> Result<(), Failure> {
    let refuse = |text: &str| Err(Failure::Usage(text.to_owned()));
    match options {
        CalibrateOptions { clips: 0, .. } => refuse("--clips must be at least 1"),
        CalibrateOptions { windows: 0, .. } => refuse("--windows must be at least 1"),
        CalibrateOptions { points: 0, .. } => refuse("--points must be at least 1"),
        CalibrateOptions { windows: 17.., .. } => refuse("--windows must be at most 16"),
        _ if options.against_steps.contains(&0) => refuse("--against-steps: a clip takes at least 1 step"),
        _ if options.ranges.is_empty() || options.ranges.iter().any(|range| *range < 2) => {
            refuse("--ranges: a range is 2 or more (compute once in so many steps)")
        }
        _ => Ok(()),
    }
}

/// The kinds of the model's sites, in the order of [`Kind::ALL`].
fn kinds(options: &CalibrateOptions, terminal: &Terminal) -> Result<Vec<Kind>, Failure> {
    let rules = Rules::parse(
        "calibrate",
        "{ version: 1, rules: [{ name: all, residual: { range: 2 } }] }",
    )?;
    let analysis = analyse(&options.model, &no_axes(None), &rules, Purpose::Show, terminal)?;
    let found = |kind: &Kind| analysis.sites.sites.iter().any(|site| site.kind == *kind);
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(found).collect();
    match kinds.is_empty() {
        true => Err(Failure::rewrite(
            options.model.clone(),
            crate::rewrite::RewriteError::NoSites,
        )),
        false => Ok(kinds),
    }
}

/// The forms that are tried.
fn forms(options: &CalibrateOptions, kinds: &[Kind]) -> Result<Vec<Form>, Failure> {
    let all = Form::all(kinds);
    let names: Vec<String> = all.iter().map(|form| form.name.clone()).collect();
    if let Some(unknown) = options.forms.iter().find(|name| !names.contains(name)) {
        let names = names.join(", ");
        return Err(Failure::Usage(format!(
            "--forms: `{unknown}` is not known; forms are {names}"
        )));
    }
    let wanted = |form: &Form| options.forms.is_empty() || options.forms.contains(&form.name);
    Ok(all.into_iter().filter(wanted).collect())
}

/// Rules of a file, and nothing said of axes.
fn no_axes(rules: Option<String>) -> RulesOptions {
    RulesOptions {
        rules,
        axes: Vec::new(),
    }
}
