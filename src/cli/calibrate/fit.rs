//! What is measured on the clips for fitting: drift, and the cost of each arm in each window.

use super::state::State;
use super::studio::{Purpose, Run, Studio, error};
use crate::attention::Kind;
use crate::calibrate::{Drift, Form, Grid, Measured, SiteDrift, kind_curves};
use crate::cli::Failure;
use crate::generation::{Clip, Generator};
use crate::report::{Pending, ReportError, median};
use crate::rewrite::{CacheRole, SiteKind};
use crate::rules::Timing;
use crate::schedule::Schedule;
use ndarray::ArrayD;
use std::collections::BTreeMap;
use std::path::Path;

/// A folder for a patched model that goes when the calibration ends.
pub(super) fn work(studio: &Studio<'_>) -> Result<tempfile::TempDir, Failure> {
    let folder = tempfile::Builder::new()
        .prefix(".pab-calibrate-")
        .tempdir_in(&studio.options.output);
    Ok(folder.map_err(|source| ReportError::Write {
        path: studio.options.output.clone(),
        source,
    })?)
}

/// Patches by rules as text, and opens the result.
pub(super) fn opened(studio: &Studio<'_>, run: &Run, folder: &Path, yaml: &str) -> Result<Generator, Failure> {
    let rules = folder.join("rules.yaml");
    Pending::text(&rules, yaml)?.finish()?;
    let written = studio.patched(&rules.display().to_string(), run, &folder.join("patched"))?;
    studio.open(&written.model)
}

/// Records how much every site changes from step to step, in clips with nothing broadcast.
pub fn record_drift(studio: &Studio<'_>, run: &Run, kinds: &[Kind], state: &mut State) -> Result<(), Failure> {
    if !state.calibration.drift.is_empty() {
        return Ok(());
    }
    let folder = work(studio)?;
    let sites = Form::all(kinds).into_iter().find(|form| form.name == "sites");
    let Some(form) = sites else { return Ok(()) };
    let mut generator = opened(studio, run, folder.path(), &form.unfitted())?;
    let sites: BTreeMap<String, (String, Kind, usize)> = generator
        .plan()
        .iter()
        .flat_map(|plan| plan.caches())
        .filter(|(_, cache)| cache.role == CacheRole::Value)
        .filter_map(|(site, cache)| match site.kind {
            SiteKind::Module(kind) => {
                let name = cache.input.strip_prefix("pab.cache.").unwrap_or(&cache.input);
                Some((cache.input.clone(), (name.to_owned(), kind, site.block)))
            }
            SiteKind::Wide(_) => None,
        })
        .collect();
    let bar = studio
        .terminal
        .steps("recording how sites change", studio.options.clips * run.calls());
    let mut drift = Drift::default();
    for index in 0..studio.options.clips {
        drift.begin();
        studio.record(&mut generator, run, index, &mut |step, caches| {
            for (name, value) in caches {
                let value = value.into_f32();
                drift.see(step, &name, value.iter().copied().collect());
            }
            bar.inc(1);
        })?;
    }
    bar.finish_and_clear();
    let means = drift.means().into_iter().filter_map(|(name, steps)| {
        let (site, kind, block) = sites.get(&name)?.clone();
        Some(SiteDrift {
            site,
            kind,
            block,
            steps,
        })
    });
    let mut found: Vec<SiteDrift> = means.collect();
    found.sort_by_key(|site| (Kind::ALL.iter().position(|kind| *kind == site.kind), site.block));
    state.calibration.kinds = kind_curves(&found, studio.options.stable_below);
    state.calibration.drift = found;
    state.save()
}

/// The original's clips for fitting, of each run.
pub fn references(studio: &Studio<'_>, runs: &[Run]) -> Result<Vec<Vec<ArrayD<f32>>>, Failure> {
    let mut original = studio.open(&studio.options.model)?;
    let calls: usize = runs.iter().map(Run::calls).sum();
    let bar = studio
        .terminal
        .steps("generating with the original", studio.options.clips * calls);
    let mut clips = |run: &Run| -> Result<Vec<ArrayD<f32>>, Failure> {
        (0..studio.options.clips)
            .map(|index| Ok(studio.clip(&mut original, run, Purpose::Fit, index, &bar)?.sample))
            .collect()
    };
    let clips = runs.iter().map(&mut clips).collect();
    bar.finish_and_clear();
    clips
}

/// Measures what each arm costs alone in each window of each run, as far as that is not yet known.
pub fn measure(
    studio: &Studio<'_>,
    runs: &[Run],
    forms: &[Form],
    grid: &Grid,
    references: &[Vec<ArrayD<f32>>],
    state: &mut State,
) -> Result<(), Failure> {
    let ranges = &studio.options.ranges;
    let mut missing: Vec<(&Form, Place)> = Vec::new();
    for form in forms {
        for (arm, window) in (0..form.arms.len()).flat_map(|arm| (0..grid.windows()).map(move |window| (arm, window))) {
            let places = ranges
                .iter()
                .flat_map(|range| (0..runs.len()).map(move |run| (*range, run)));
            let places = places.map(|(range, run)| Place {
                arm,
                window,
                range,
                run,
            });
            missing.extend(
                places
                    .filter(|place| !place.is_in(form, state))
                    .map(|place| (form, place)),
            );
        }
    }
    let clip_calls = |place: &Place| runs.get(place.run).map_or(0, |run| studio.options.clips * run.calls());
    let bar = studio.terminal.steps(
        "measuring what broadcasting costs",
        missing.iter().map(|(_, place)| clip_calls(place)).sum(),
    );
    for form in forms {
        let of_form = missing.iter().filter(|(of, _)| of.name == form.name);
        let of_form: Vec<&Place> = of_form.map(|(_, place)| place).collect();
        let (Some(first), false) = (runs.first(), of_form.is_empty()) else {
            continue;
        };
        let folder = work(studio)?;
        let mut generator = match opened(studio, first, folder.path(), &form.unfitted()) {
            Ok(generator) => generator,
            // Spans cannot be left out of every model; the other forms can.
            Err(Failure::Rewrite { error, .. }) => {
                studio
                    .terminal
                    .warning(format!("the form {} is left out: {error}", form.name));
                bar.inc(of_form.into_iter().map(clip_calls).sum::<usize>() as u64);
                continue;
            }
            Err(failure) => return Err(failure),
        };
        studio.warm_up(&mut generator, first)?;
        for place in of_form {
            let (Some(run), Some(references)) = (runs.get(place.run), references.get(place.run)) else {
                continue;
            };
            let mut ranges = vec![1; grid.windows()];
            if let Some(range) = ranges.get_mut(place.window) {
                *range = place.range;
            }
            let Some(timing) = grid.timing(&ranges) else { continue };
            let flags = flags(&generator, form, place.arm, &timing, &run.record.timesteps);
            let cell = cell(studio, run, &mut generator, &flags, references, &bar)?;
            state.calibration.measured.push(Measured {
                run: place.run,
                form: form.name.clone(),
                arm: place.arm,
                window: place.window,
                range: place.range,
                ..cell
            });
            state.save()?;
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// What is measured at once.
struct Place {
    arm: usize,
    window: usize,
    range: u32,
    run: usize,
}

impl Place {
    fn is_in(&self, form: &Form, state: &State) -> bool {
        let this = (self.arm, self.window, self.range, self.run);
        let mut measured = state.calibration.measured.iter();
        measured.any(|cell| cell.form == form.name && (cell.arm, cell.window, cell.range, cell.run) == this)
    }
}

/// What these flags cost, without saying where.
fn cell(
    studio: &Studio<'_>,
    run: &Run,
    generator: &mut Generator,
    flags: &Schedule,
    references: &[ArrayD<f32>],
    bar: &indicatif::ProgressBar,
) -> Result<Measured, Failure> {
    let steps = (0..flags.steps()).filter(|step| flags.flags(*step).contains(&true));
    let mut cell = Measured {
        run: 0,
        form: String::new(),
        arm: 0,
        window: 0,
        range: 1,
        steps: steps.count(),
        mse: 0.0,
        dissimilarity: Some(0.0),
        step_time: 1.0,
    };
    // Steps that are further apart than the range reaches.
    if cell.steps == 0 {
        bar.inc((references.len() * run.calls()) as u64);
        return Ok(cell);
    }
    generator.follow(Some(flags.clone()));
    let mut times = Vec::new();
    for (index, original) in references.iter().enumerate() {
        let clip = studio.clip(generator, run, Purpose::Fit, index, bar)?;
        let (error, quality) = error(original, &clip.sample)?;
        let share = 1.0 / references.len() as f64;
        cell.mse += share * error;
        cell.dissimilarity = cell
            .dissimilarity
            .zip(quality)
            .map(|(sum, quality)| sum + share * (1.0 - quality.ssim));
        times.extend(step_time(&clip, flags));
    }
    cell.step_time = median(&times).unwrap_or(1.0);
    Ok(cell)
}

/// The flags of a form's model in which one arm broadcasts by this timing, and all others compute.
fn flags(generator: &Generator, form: &Form, arm: usize, timing: &Timing, timesteps: &[f64]) -> Schedule {
    let rules = generator.plan().map_or(&[][..], |plan| plan.rules.as_slice());
    let name = form.arms.get(arm).map(|arm| arm.name.as_str());
    let place = rules.iter().position(|rule| Some(rule.name.as_str()) == name);
    let schedule = Schedule::new(std::slice::from_ref(timing), timesteps);
    let mut steps = vec![vec![false; rules.len()]; timesteps.len()];
    for (step, flags) in steps.iter_mut().enumerate() {
        if let Some(flag) = place.and_then(|place| flags.get_mut(place)) {
            *flag = schedule.broadcasts(step, 0);
        }
    }
    Schedule::from_flags(rules.len(), &steps)
}

/// The time of a step that broadcasts over that of one that computes, by medians.
fn step_time(clip: &Clip, flags: &Schedule) -> Option<f64> {
    let times = |broadcast: bool| -> Vec<f64> {
        let steps = clip.step_milliseconds.iter().enumerate();
        let of = steps.filter(|(step, _)| flags.flags(*step).contains(&true) == broadcast);
        of.map(|(_, time)| *time).collect()
    };
    Some(median(&times(true))? / median(&times(false))?)
}
