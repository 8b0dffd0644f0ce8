//! What is measured on the clips for fitting: drift, the cost of each arm in each window, and the points of the frontier.

use super::state::State;
use super::studio::{Purpose, Run, Studio, error};
use super::target::Target;
use crate::attention::Kind;
use crate::calibrate::{Cell, Drift, Form, Measured, Point, SiteDrift, frontier, kind_curves, timing};
use crate::cli::Failure;
use crate::generation::{Clip, Generator};
use crate::report::{Pending, ReportError, median};
use crate::rewrite::{CacheRole, SiteKind};
use crate::rules::{Timing, Window};
use crate::schedule::Schedule;
use ndarray::ArrayD;
use std::collections::BTreeMap;
use std::path::Path;

/// A step at which something broadcasts takes at least this share of a computed one, whatever was measured.
const LEAST_STEP: f64 = 0.01;
/// How often points are added between the last that keeps the target and the first that does not.
const REFINEMENTS: usize = 3;

/// A folder for a patched model that goes when the calibration ends.
fn work(studio: &Studio<'_>) -> Result<tempfile::TempDir, Failure> {
    let folder = tempfile::Builder::new()
        .prefix(".pab-calibrate-")
        .tempdir_in(&studio.options.output);
    Ok(folder.map_err(|source| ReportError::Write {
        path: studio.options.output.clone(),
        source,
    })?)
}

/// Patches by rules as text, and opens the result.
fn opened(studio: &Studio<'_>, run: &Run, folder: &Path, yaml: &str) -> Result<Generator, Failure> {
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

/// The original's clips for fitting.
pub fn references(studio: &Studio<'_>, run: &Run) -> Result<Vec<ArrayD<f32>>, Failure> {
    let mut original = studio.open(&studio.options.model)?;
    let bar = studio
        .terminal
        .steps("generating with the original", studio.options.clips * run.calls());
    let clips =
        (0..studio.options.clips).map(|index| Ok(studio.clip(&mut original, run, Purpose::Fit, index, &bar)?.sample));
    let clips = clips.collect::<Result<Vec<_>, Failure>>();
    bar.finish_and_clear();
    clips
}

/// Measures what each arm costs alone in each window, as far as that is not yet known.
pub fn measure(
    studio: &Studio<'_>,
    run: &Run,
    forms: &[Form],
    windows: &[Window],
    reference: &[ArrayD<f32>],
    state: &mut State,
) -> Result<(), Failure> {
    let all = forms.iter().flat_map(|form| {
        let arms = 0..form.arms.len();
        arms.flat_map(move |arm| (0..windows.len()).map(move |window| (form, arm, window)))
    });
    let wanted = all.flat_map(|(form, arm, window)| {
        studio
            .options
            .ranges
            .iter()
            .map(move |range| (form, arm, window, *range))
    });
    let known = |state: &State, (form, arm, window, range): &(&Form, usize, usize, u32)| {
        let mut measured = state.calibration.measured.iter();
        measured.any(|cell| (&cell.form, cell.arm, cell.window, cell.range) == (&form.name, *arm, *window, *range))
    };
    let missing: Vec<_> = wanted.filter(|cell| !known(state, cell)).collect();
    let bar = studio.terminal.steps(
        "measuring what broadcasting costs",
        missing.len() * reference.len() * run.calls(),
    );
    for form in forms {
        let of_form: Vec<_> = missing.iter().filter(|(of, ..)| of.name == form.name).collect();
        if of_form.is_empty() {
            continue;
        }
        let folder = work(studio)?;
        let mut generator = match opened(studio, run, folder.path(), &form.unfitted()) {
            Ok(generator) => generator,
            // Spans cannot be left out of every model; the other forms can.
            Err(Failure::Rewrite { error, .. }) => {
                studio
                    .terminal
                    .warning(format!("the form {} is left out: {error}", form.name));
                bar.inc((of_form.len() * reference.len() * run.calls()) as u64);
                continue;
            }
            Err(failure) => return Err(failure),
        };
        studio.warm_up(&mut generator, run)?;
        for (_, arm, window, range) in of_form {
            let mut ranges = vec![1; windows.len()];
            if let Some(place) = ranges.get_mut(*window) {
                *place = *range;
            }
            let Some(timing) = timing(windows, &ranges) else {
                continue;
            };
            let flags = flags(&generator, form, &[(*arm, timing)], &run.record.timesteps);
            let steps = (0..flags.steps())
                .filter(|step| flags.flags(*step).contains(&true))
                .count();
            if steps == 0 {
                bar.inc((reference.len() * run.calls()) as u64);
                continue;
            }
            generator.follow(Some(flags.clone()));
            let (mut mse, mut dissimilarity, mut times) = (0.0, Some(0.0), Vec::new());
            for (index, original) in reference.iter().enumerate() {
                let clip = studio.clip(&mut generator, run, Purpose::Fit, index, &bar)?;
                let (error, quality) = error(original, &clip.sample)?;
                mse += error;
                dissimilarity = dissimilarity
                    .zip(quality)
                    .map(|(sum, quality)| sum + 1.0 - quality.ssim);
                times.extend(step_time(&clip, &flags));
            }
            let clips = reference.len() as f64;
            state.calibration.measured.push(Measured {
                form: form.name.clone(),
                arm: *arm,
                window: *window,
                range: *range,
                steps,
                mse: mse / clips,
                dissimilarity: dissimilarity.map(|sum| sum / clips),
                step_time: median(&times).unwrap_or(1.0),
            });
            state.save()?;
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// The flags of a form's model in which these arms broadcast by these timings, and all others compute.
fn flags(generator: &Generator, form: &Form, arms: &[(usize, Timing)], timesteps: &[f64]) -> Schedule {
    let rules = generator.plan().map_or(&[][..], |plan| plan.rules.as_slice());
    let mut steps = vec![vec![false; rules.len()]; timesteps.len()];
    for (arm, timing) in arms {
        let name = form.arms.get(*arm).map(|arm| arm.name.as_str());
        let place = rules.iter().position(|rule| Some(rule.name.as_str()) == name);
        let schedule = Schedule::new(std::slice::from_ref(timing), timesteps);
        for (step, flags) in steps.iter_mut().enumerate() {
            if let Some(flag) = place.and_then(|place| flags.get_mut(place)) {
                *flag = schedule.broadcasts(step, 0);
            }
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

/// The points that are predicted to be best, over all forms, by the time they take, the longest first.
fn predicted(forms: &[Form], windows: &[Window], target: Target, state: &State, calls: usize) -> Vec<Point> {
    let mut points: Vec<Point> = Vec::new();
    let by_ssim = !matches!(target, Target::Error(_));
    for form in forms {
        let measured: Vec<&Measured> = state
            .calibration
            .measured
            .iter()
            .filter(|cell| cell.form == form.name)
            .collect();
        // What a step takes depends on the arm alone: over all its cells, chance weighs less.
        let step_time = |arm: usize| {
            let times: Vec<f64> = measured
                .iter()
                .filter(|cell| cell.arm == arm)
                .map(|cell| cell.step_time)
                .collect();
            median(&times).unwrap_or(1.0).clamp(LEAST_STEP, 1.0)
        };
        let cells = measured.iter().map(|cell| Cell {
            place: cell.arm * windows.len() + cell.window,
            range: cell.range,
            error: cell.dissimilarity.filter(|_| by_ssim).unwrap_or(cell.mse).max(0.0),
            saved: cell.steps as f64 / calls.max(1) as f64 * (1.0 - step_time(cell.arm)),
        });
        let cells: Vec<Cell> = cells.collect();
        for choice in frontier(form.arms.len() * windows.len(), &cells) {
            let chosen = |cell: &&&Measured| {
                let range = choice.ranges.get(cell.arm * windows.len() + cell.window);
                range == Some(&cell.range)
            };
            let chosen: Vec<&Measured> = measured.iter().filter(chosen).copied().collect();
            if chosen.is_empty() {
                continue;
            }
            points.push(Point {
                form: form.name.clone(),
                ranges: choice.ranges.chunks(windows.len()).map(<[u32]>::to_vec).collect(),
                rules: String::new(),
                predicted_time: (1.0 - choice.saved).max(LEAST_STEP),
                predicted_mse: chosen.iter().map(|cell| cell.mse).sum(),
                predicted_dissimilarity: chosen.iter().map(|cell| cell.dissimilarity).sum(),
                mse: None,
                dissimilarity: None,
                time: None,
            });
        }
    }
    let error = |point: &Point| {
        point
            .predicted_dissimilarity
            .filter(|_| by_ssim)
            .unwrap_or(point.predicted_mse)
    };
    points.sort_by(|one, other| one.predicted_time.total_cmp(&other.predicted_time));
    let mut best: Vec<Point> = Vec::new();
    for point in points {
        if best.last().is_none_or(|last| error(&point) < error(last)) {
            best.push(point);
        }
    }
    best.reverse();
    best
}

/// Runs points of the predicted frontier: some all over it, then some about the target, and chooses.
pub fn verify(
    studio: &Studio<'_>,
    run: &Run,
    forms: &[Form],
    windows: &[Window],
    reference: &[ArrayD<f32>],
    target: Target,
    state: &mut State,
) -> Result<(), Failure> {
    let all = predicted(forms, windows, target, state, run.calls());
    let mut original = studio.open(&studio.options.model)?;
    studio.warm_up(&mut original, run)?;
    let count = studio.options.points.min(all.len());
    let length = |points: usize| points * 2 * reference.len() * run.calls();
    let bar = studio.terminal.steps("running what was predicted", length(count));
    let mut ran: BTreeMap<usize, Point> = BTreeMap::new();
    let mut wanted: Vec<usize> = spread(&all, count);
    for round in 0..=REFINEMENTS {
        for place in wanted.drain(..) {
            if let (false, Some(point)) = (ran.contains_key(&place), all.get(place)) {
                let done = verified(studio, run, (forms, windows), reference, &mut original, point, &bar)?;
                ran.insert(place, done);
            }
        }
        if matches!(target, Target::Frontier) || round == REFINEMENTS {
            break;
        }
        // The places go from slow and good to fast and bad, whichever the target bounds.
        let kept = |place: &&usize| ran.get(*place).is_some_and(|point| target.kept_by(point));
        let between = match target {
            Target::Time(_) => {
                let first = ran.keys().find(kept).copied().unwrap_or(all.len());
                (ran.keys().rev().find(|place| **place < first).copied(), Some(first))
            }
            _ => {
                let last = ran.keys().rev().find(kept).copied();
                (
                    last,
                    ran.keys().find(|place| last.is_none_or(|last| **place > last)).copied(),
                )
            }
        };
        let (low, high) = (between.0.unwrap_or(0), between.1.unwrap_or(all.len()));
        if high <= low + 1 && between.0.is_some() {
            break;
        }
        bar.inc_length(length(1) as u64);
        wanted.push((low + high) / 2);
    }
    bar.finish_and_clear();
    let points: Vec<Point> = ran.into_values().collect();
    state.calibration.chosen = target.choose(&points);
    state.calibration.frontier = points;
    for (number, point) in state.calibration.frontier.iter_mut().enumerate() {
        point.rules = format!("frontier/point-{}.yaml", number + 1);
    }
    super::write::rules(&studio.options.output, &state.calibration, forms, windows)?;
    if state.calibration.chosen.is_none() && !matches!(target, Target::Frontier) {
        studio
            .terminal
            .warning("no rules that were run keep the target: frontier/ has those that were, and --points or --windows give more");
    }
    state.save()
}

/// Places of points that part the time between the slowest and the fastest evenly.
fn spread(points: &[Point], count: usize) -> Vec<usize> {
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return Vec::new();
    };
    let mut places: Vec<usize> = (0..count)
        .filter_map(|number| {
            let share = (number as f64 + 0.5) / count as f64;
            let time = first.predicted_time + share * (last.predicted_time - first.predicted_time);
            let distance = |point: &Point| (point.predicted_time - time).abs();
            let all = points.iter().enumerate();
            all.min_by(|(_, one), (_, other)| distance(one).total_cmp(&distance(other)))
                .map(|(place, _)| place)
        })
        .collect();
    places.dedup();
    places
}

/// A point, really run on the clips for fitting, each in turn with the original.
fn verified(
    studio: &Studio<'_>,
    run: &Run,
    (forms, windows): (&[Form], &[Window]),
    reference: &[ArrayD<f32>],
    original: &mut Generator,
    point: &Point,
    bar: &indicatif::ProgressBar,
) -> Result<Point, Failure> {
    let mut point = point.clone();
    let Some(form) = forms.iter().find(|form| form.name == point.form) else {
        return Ok(point);
    };
    let folder = work(studio)?;
    let yaml = form.yaml("A point of the frontier", windows, &point.ranges);
    let mut generator = opened(studio, run, folder.path(), &yaml)?;
    studio.warm_up(&mut generator, run)?;
    let (mut mse, mut dissimilarity, mut times) = (0.0, Some(0.0), Vec::new());
    for (index, reference) in reference.iter().enumerate() {
        let by_original = studio.clip(original, run, Purpose::Fit, index, bar)?;
        let clip = studio.clip(&mut generator, run, Purpose::Fit, index, bar)?;
        let (error, quality) = error(reference, &clip.sample)?;
        mse += error;
        dissimilarity = dissimilarity
            .zip(quality)
            .map(|(sum, quality)| sum + 1.0 - quality.ssim);
        times.push(clip.milliseconds() / by_original.milliseconds().max(f64::MIN_POSITIVE));
    }
    let clips = reference.len().max(1) as f64;
    point.mse = Some(mse / clips);
    point.dissimilarity = dissimilarity.map(|sum| sum / clips);
    point.time = median(&times);
    Ok(point)
}
