//! `pab-patch plan`: what a run would take on devices that are not here.

mod measure;
mod options;
mod table;

pub use options::PlanOptions;

use super::Failure;
use super::analysis::{Analysis, Purpose, analyse, rules};
use super::course::Course;
use super::terminal::Terminal;
use crate::axes::Bindings;
use crate::predict::{ClassFigures, DEVICES, Device, Forecast, Link, Method, PredictError, Run, assumptions};
use crate::report::plot::{LineChart, Series};
use crate::report::{FilePath, Pending, write_json};
use crate::rewrite::{Choice, SwitchOptions, Wide, select_beside};
use crate::rules::{Rules, Timing};
use crate::schedule::Schedule;
use serde::Serialize;
use std::path::Path;

/// Ranks of the table and the plot.
const RANKS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];
/// The steps of a run where nobody says how many.
const STEPS: usize = 50;
/// What a rank can send where neither the device nor the user says.
const LINK: f64 = 10e9;

/// What `--json` prints. Times are in seconds, everything is of the rank with the most to do.
#[derive(Serialize)]
struct Report {
    model: FilePath,
    device: Device,
    link: Link,
    method: Method,
    steps: usize,
    /// Operations of a step that computes everything, of all ranks together.
    flops: f64,
    /// Where the rules came from.
    rules_from: String,
    /// By rule, at how many steps it broadcasts; those without a site are left out.
    rules: Vec<RuleSteps>,
    /// One a number of ranks.
    rows: Vec<Row>,
    /// The number of ranks whose kernels are listed.
    ranks: usize,
    /// What each class of kernels takes there, of a step that computes everything.
    kernels: Vec<ClassFigures>,
    /// Everything that is taken for granted.
    assumptions: Vec<String>,
}

#[derive(Serialize)]
struct RuleSteps {
    name: String,
    broadcast: usize,
}

#[derive(Serialize)]
struct Row {
    ranks: usize,
    #[serde(flatten)]
    forecast: Forecast,
    /// The original on one rank over the broadcasting run on these.
    speed_up: f64,
}

/// Predicts and prints.
pub fn run(options: &PlanOptions, terminal: &Terminal) -> Result<(), Failure> {
    let model = &options.model;
    let rules = rules(&options.rules, terminal)?;
    let analysis = analyse(model, &options.rules, &rules, Purpose::Show, terminal)?;
    let bindings = bindings(options, &analysis)?;
    let device = match options.device.as_str() {
        "measure" => measure::processor(options.ort_lib.clone(), options.threads, terminal)?,
        named => Device::find(named)?,
    };
    if let Some(path) = &options.write_device {
        write_json(path, &device)?;
    }
    let link = link(options, &device);
    let choices = choices(model, &analysis, &rules, &bindings)?;
    let course = Course::of(model, &options.course, terminal)?;
    let flags = flags(model, &course, &rules, &choices)?;
    let run = Run::new(
        &analysis.model,
        &analysis.axes,
        &analysis.sites,
        &bindings,
        &choices,
        &rules,
        &SwitchOptions {
            cache_type: options.cache_dtype.map(Into::into),
        },
        &flags,
        device.attention.is_some(),
    );
    let run = run.map_err(Failure::of(model, failure))?;
    let report = report(options, &rules, &choices, &flags, &run, device, link);
    if let Some(path) = &options.plot {
        plot(path, &report)?;
        terminal.note(format!("wrote {}", path.display()));
    }
    terminal.result(&report, || table::text(&report, terminal.table_style()))
}

fn failure(model: std::path::PathBuf, error: PredictError) -> Failure {
    match error {
        PredictError::Graph(error) => Failure::Graph { model, error },
        error => Failure::Predict { model, error },
    }
}

/// The sizes that were given; those of nothing that is open are refused.
fn bindings(options: &PlanOptions, analysis: &Analysis) -> Result<Bindings, Failure> {
    let open: Vec<&str> = analysis.axes.symbols().collect();
    if let Some((name, _)) = options.sizes.iter().find(|(name, _)| !open.contains(&name.as_str())) {
        let open = match open.is_empty() {
            true => "none".to_owned(),
            false => open.join(", "),
        };
        return Err(Failure::Usage(format!(
            "--size {name}: the open dimensions of the model are {open}"
        )));
    }
    let sizes = options
        .sizes
        .iter()
        .filter_map(|(name, size)| Some((name.as_str(), i64::try_from(*size).ok()?)));
    let mut bindings = Bindings::of(sizes);
    bindings.values.entry("batch".to_owned()).or_insert(2);
    Ok(bindings)
}

fn link(options: &PlanOptions, device: &Device) -> Link {
    let listed = DEVICES.iter().find(|listed| listed.name == device.name);
    let own = listed.map_or(LINK, |listed| listed.giga_link * 1e9);
    let mut link = Link::new(options.link.unwrap_or(own));
    link.between = options.between.unwrap_or(link.between);
    link.node = options.node.unwrap_or(link.node);
    link.latency = options.latency.unwrap_or(link.latency);
    link
}

/// The sites that the rules broadcast. What is wider than a site is not predicted.
fn choices<'a>(
    model: &Path,
    analysis: &'a Analysis,
    rules: &Rules,
    bindings: &Bindings,
) -> Result<Vec<Choice<'a>>, Failure> {
    let refuse = Failure::of(model, Failure::rewrite);
    if let Some(rule) = rules
        .rules
        .iter()
        .find(|rule| rule.strategy().is_some_and(|strategy| !strategy.is_by_site()))
    {
        return Err(Failure::Usage(format!(
            "{}:{}: rule `{}` is for spans of blocks or for guidance, which `plan` does not predict; leave it out",
            rules.file, rule.line, rule.name
        )));
    }
    let costs = rules
        .ask_costs()
        .then(|| analysis.sites.costs(&analysis.model, &analysis.axes, bindings));
    select_beside(&analysis.sites, rules, costs.as_ref(), &Wide::default()).map_err(refuse)
}

/// For each step one flag for each rule: true where it broadcasts.
fn flags(model: &Path, course: &Course, rules: &Rules, choices: &[Choice<'_>]) -> Result<Vec<Vec<bool>>, Failure> {
    let used: Vec<(usize, Timing)> = rules
        .rules
        .iter()
        .enumerate()
        .filter(|(index, _)| choices.iter().any(|choice| choice.rule == *index))
        .filter_map(|(index, rule)| Some((index, rule.action.as_ref()?.timing.clone())))
        .collect();
    let timesteps = match course {
        Course::Timesteps(timesteps) => timesteps.clone(),
        course => {
            // Tables of a preset are for one scheduler; without one they never hold, and are no reason to refuse.
            let needed = |timing: &Timing| timing.needs_timesteps() && !matches!(timing, Timing::After(_));
            if used.iter().any(|(_, timing)| needed(timing)) {
                return Err(Course::Steps(STEPS).refusal(model));
            }
            let steps = match course {
                Course::Steps(steps) => *steps,
                _ => STEPS,
            };
            (0..steps).map(|step| step as f64).collect()
        }
    };
    let timings: Vec<Timing> = used.iter().map(|(_, timing)| timing.clone()).collect();
    let schedule = Schedule::new(&timings, &timesteps);
    let step = |step: usize| {
        let mut flags = vec![false; rules.rules.len()];
        for (place, (rule, _)) in used.iter().enumerate() {
            if let Some(flag) = flags.get_mut(*rule) {
                *flag = schedule.broadcasts(step, place);
            }
        }
        flags
    };
    Ok((0..schedule.steps()).map(step).collect())
}

fn report(
    options: &PlanOptions,
    rules: &Rules,
    choices: &[Choice<'_>],
    flags: &[Vec<bool>],
    run: &Run,
    device: Device,
    link: Link,
) -> Report {
    let method = options.method.into();
    let best = |ranks: usize| {
        run.best(
            ranks,
            method,
            options.split_guidance,
            options.axis.map(Into::into),
            &device,
            &link,
        )
    };
    let mut ranks: Vec<usize> = RANKS.into_iter().chain([options.ranks]).collect();
    ranks.sort_unstable();
    ranks.dedup();
    let alone = best(1).original.clip;
    let rows = ranks.into_iter().map(|ranks| {
        let forecast = best(ranks);
        Row {
            ranks,
            speed_up: alone / forecast.broadcast.clip,
            forecast,
        }
    });
    let with_sites = rules
        .rules
        .iter()
        .enumerate()
        .filter(|(index, _)| choices.iter().any(|choice| choice.rule == *index));
    let broadcast = |rule: usize| {
        let steps = flags.iter();
        steps.filter(|flags| flags.get(rule).copied().unwrap_or(false)).count()
    };
    Report {
        model: options.model.as_path().into(),
        method,
        steps: run.steps(),
        flops: run.works().flops(),
        rules_from: rules.file.clone(),
        rules: with_sites
            .map(|(index, rule)| RuleSteps {
                name: rule.name.clone(),
                broadcast: broadcast(index),
            })
            .collect(),
        rows: rows.collect(),
        ranks: options.ranks,
        kernels: run.classes(&best(options.ranks).split, &device),
        assumptions: assumptions(run, &device, &link),
        device,
        link,
    }
}

/// Writes the times of a clip as a picture.
fn plot(path: &Path, report: &Report) -> Result<(), Failure> {
    if path.extension().is_none_or(|extension| extension != "svg") {
        return Err(Failure::Usage(format!(
            "--plot {}: only .svg is written",
            path.display()
        )));
    }
    // Ranks double from mark to mark.
    let place = |row: &Row| (row.ranks as f64).log2();
    let line = |name: &str, seconds: &dyn Fn(&Row) -> f64| {
        Series::dots(
            name,
            report.rows.iter().map(|row| (place(row), seconds(row))).collect(),
            true,
        )
    };
    let alone = report.rows.first().map_or(0.0, |row| row.forecast.original.clip);
    let model = report.model.file_stem().unwrap_or_default().to_string_lossy();
    let chart = LineChart {
        title: format!("{model}: a clip on {}", report.device.name),
        x: "ranks".to_owned(),
        y: "seconds".to_owned(),
        x_marks: report
            .rows
            .iter()
            .map(|row| (place(row), row.ranks.to_string()))
            .collect(),
        series: vec![
            line("original", &|row| row.forecast.original.clip),
            line("broadcast", &|row| row.forecast.broadcast.clip),
            line("original, divided ideally", &|row| alone / row.ranks as f64),
        ],
        logarithmic: true,
    };
    let picture = chart.figure().svg();
    Pending::text(path, &picture)?.finish()?;
    Ok(())
}
