//! `pab-patch calibrate`: rules that come from measurement.

mod fit;
mod judge;
mod options;
mod state;
mod studio;
mod target;
mod write;

pub use options::CalibrateOptions;

use super::Failure;
use super::analysis::{Purpose, analyse};
use super::args::RulesOptions;
use super::session::{library, prompts, run_settings, scheduler};
use super::terminal::Terminal;
use crate::attention::Kind;
use crate::calibrate::{Form, windows};
use crate::rules::Rules;
use crate::sampler::SchedulerConfig;
use state::State;
use std::path::Path;
use studio::{Run, Studio};
use target::Target;

/// Measures, fits, verifies, judges and writes.
pub fn run(options: &CalibrateOptions, terminal: &Terminal) -> Result<(), Failure> {
    let target = Target::of(&options.target)?;
    check(options)?;
    let sampling = &options.sampling;
    let config = scheduler(&options.model, sampling, terminal)?;
    let steps = sampling.steps;
    let fitting = Run::new(
        config,
        |named: Option<&Path>| run_settings(&options.model, named, steps, &sampling.clip),
        sampling,
    )?;
    let mut runs = vec![fitting];
    if options.judge_scheduler.is_some() || options.judge_steps.is_some() {
        let named = options.judge_scheduler.as_deref();
        let config = match named {
            Some(path) => SchedulerConfig::load(path)?,
            None => scheduler(&options.model, sampling, terminal)?,
        };
        let steps = options.judge_steps.unwrap_or(steps);
        let settings = |beside: Option<&Path>| run_settings(&options.model, named.or(beside), steps, &sampling.clip);
        runs.push(Run::new(config, settings, sampling)?);
    }
    let Some(fitting) = runs.first() else { return Ok(()) };
    let prompts = prompts(&options.model, sampling)?;
    let kinds = kinds(options, terminal)?;
    let forms = forms(options, &kinds)?;
    let windows = windows(options.windows);
    let mut state = State::of(options, fitting)?;
    let runtime = library(&options.session, terminal)?;
    let studio = Studio::new(options, &prompts, terminal);
    terminal.detail(format!("ONNX Runtime {}", runtime.version));

    fit::record_drift(&studio, fitting, &kinds, &mut state)?;
    write::drift(&options.output, &state.calibration)?;
    let reference = fit::references(&studio, fitting)?;
    fit::measure(&studio, fitting, &forms, &windows, &reference, &mut state)?;
    fit::verify(&studio, fitting, &forms, &windows, &reference, target, &mut state)?;
    write::chosen(&options.output, &state.calibration)?;
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
