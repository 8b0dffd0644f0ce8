//! The points of the frontier: predicted from what was measured, and run to see.

use super::fit::{opened, work};
use super::state::State;
use super::studio::{Purpose, Run, Studio, error};
use super::target::{Aim, Target};
use crate::calibrate::{Cell, Form, Grid, Measured, Point, PointRun, frontier};
use crate::cli::Failure;
use crate::generation::Generator;
use crate::report::median;
use indicatif::ProgressBar;
use ndarray::ArrayD;
use std::collections::BTreeMap;

/// A step at which something broadcasts takes at least this share of a computed one, whatever was measured.
const LEAST_STEP: f64 = 0.01;
/// How often points are added between the last that keeps the target and the first that does not.
const REFINEMENTS: usize = 3;

/// What points are run with.
pub struct Bench<'a> {
    /// Where clips are made.
    pub studio: &'a Studio<'a>,
    /// The runs that are fitted.
    pub runs: &'a [Run],
    /// Ways to patch.
    pub forms: &'a [Form],
    /// Windows.
    pub grid: &'a Grid,
    /// The original's clips, of each run.
    pub references: &'a [Vec<ArrayD<f32>>],
}

/// An arm in a window with a range, over all runs.
struct Measurement<'a> {
    place: usize,
    range: u32,
    by_run: Vec<&'a Measured>,
}

/// What was measured of a form, by place and range.
fn measurements<'a>(form: &Form, grid: &Grid, measured: &'a [Measured]) -> Vec<Measurement<'a>> {
    let mut by_place: BTreeMap<(usize, u32), Vec<&Measured>> = BTreeMap::new();
    for cell in measured.iter().filter(|cell| cell.form == form.name) {
        let place = cell.arm * grid.windows() + cell.window;
        by_place.entry((place, cell.range)).or_default().push(cell);
    }
    let found = by_place.into_iter();
    found
        .map(|((place, range), by_run)| Measurement { place, range, by_run })
        .collect()
}

/// The most of the runs, of a sum over cells of each.
fn worst(cells: &[&Measurement<'_>], runs: usize, of: impl Fn(&Measured) -> f64) -> f64 {
    let sum = |run: usize| -> f64 {
        let of_run = cells
            .iter()
            .flat_map(|cell| &cell.by_run)
            .filter(|cell| cell.run == run);
        of_run.map(|cell| of(cell)).sum()
    };
    (0..runs).map(sum).fold(0.0, f64::max)
}

/// The points that are predicted to be best, over all forms, by the time they take, the longest first.
fn predicted(bench: &Bench<'_>, target: Target, state: &State) -> Vec<Point> {
    let mut points: Vec<Point> = Vec::new();
    let by_ssim = !matches!(target.aim, Aim::Error(_));
    let error = |cell: &Measured| cell.dissimilarity.filter(|_| by_ssim).unwrap_or(cell.mse).max(0.0);
    let (grid, runs) = (bench.grid, bench.runs.len());
    for form in bench.forms {
        let measured = measurements(form, grid, &state.calibration.measured);
        // What a step takes depends on the arm alone: over all its cells, chance weighs less.
        let step_time = |arm: usize| {
            let cells = measured.iter().flat_map(|cell| &cell.by_run);
            let times: Vec<f64> = cells
                .filter(|cell| cell.arm == arm && cell.steps > 0)
                .map(|cell| cell.step_time)
                .collect();
            median(&times).unwrap_or(1.0).clamp(LEAST_STEP, 1.0)
        };
        let saved = |cell: &&Measured| {
            let calls = bench.runs.get(cell.run).map_or(1, Run::calls).max(1);
            cell.steps as f64 / calls as f64 * (1.0 - step_time(cell.arm))
        };
        let cells = measured.iter().map(|cell| Cell {
            place: cell.place,
            range: cell.range,
            error: worst(&[cell], runs, error),
            saved: cell.by_run.iter().map(saved).sum::<f64>() / runs.max(1) as f64,
        });
        let cells: Vec<Cell> = cells.collect();
        for choice in frontier(form.arms.len() * grid.windows(), &cells) {
            let chosen = measured
                .iter()
                .filter(|cell| choice.ranges.get(cell.place) == Some(&cell.range));
            let chosen: Vec<&Measurement<'_>> = chosen.collect();
            if chosen.is_empty() {
                continue;
            }
            let pictures = chosen
                .iter()
                .flat_map(|cell| &cell.by_run)
                .all(|cell| cell.dissimilarity.is_some());
            points.push(Point {
                form: form.name.clone(),
                ranges: choice.ranges.chunks(grid.windows()).map(<[u32]>::to_vec).collect(),
                rules: String::new(),
                predicted_time: (1.0 - choice.saved).max(LEAST_STEP),
                predicted_mse: worst(&chosen, runs, |cell| cell.mse),
                predicted_dissimilarity: pictures
                    .then(|| worst(&chosen, runs, |cell| cell.dissimilarity.unwrap_or(0.0))),
                mse: None,
                dissimilarity: None,
                worst_mse: None,
                worst_dissimilarity: None,
                time: None,
                runs: Vec::new(),
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

/// Runs points of the predicted frontier: some all over it, then some about the target, and chooses. What an earlier
/// calibration with the same settings ran is not run again.
pub fn verify(bench: &Bench<'_>, target: Target, state: &mut State) -> Result<(), Failure> {
    let studio = bench.studio;
    let all = predicted(bench, target, state);
    let known = std::mem::take(&mut state.calibration.frontier);
    let count = studio.options.points.min(all.len());
    let calls: usize = bench.runs.iter().map(Run::calls).sum();
    let length = |points: usize| points * 2 * studio.options.clips * calls;
    let bar = studio.terminal.steps("running what was predicted", length(count));
    let mut original: Option<Generator> = None;
    let mut ran: BTreeMap<usize, Point> = BTreeMap::new();
    let mut wanted: Vec<usize> = spread(&all, count);
    for round in 0..=REFINEMENTS {
        for place in wanted.drain(..) {
            let (false, Some(point)) = (ran.contains_key(&place), all.get(place)) else {
                continue;
            };
            let earlier = known.iter().find(|known| same_choice(point, known));
            let done = match earlier.filter(|earlier| !earlier.runs.is_empty()) {
                Some(earlier) => {
                    bar.inc(length(1) as u64);
                    Point {
                        mse: earlier.mse,
                        dissimilarity: earlier.dissimilarity,
                        worst_mse: earlier.worst_mse,
                        worst_dissimilarity: earlier.worst_dissimilarity,
                        time: earlier.time,
                        runs: earlier.runs.clone(),
                        ..point.clone()
                    }
                }
                None => verified(bench, &mut original, point, &bar)?,
            };
            ran.insert(place, done);
            // What was run and is not reached again stays known until all is done.
            let reached = |known: &&Point| !ran.values().any(|point| same_choice(point, known));
            let unreached = known.iter().filter(reached).cloned();
            state.calibration.frontier = ran.values().cloned().chain(unreached).collect();
            state.save()?;
        }
        if matches!(target.aim, Aim::Frontier) || round == REFINEMENTS {
            break;
        }
        // The places go from slow and good to fast and bad, whichever the target bounds.
        let kept = |place: &&usize| ran.get(*place).is_some_and(|point| target.kept_by(point));
        let between = match target.aim {
            Aim::Time(_) => {
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
    super::write::rules(&studio.options.output, &state.calibration, bench.forms, bench.grid)?;
    if state.calibration.chosen.is_none() && !matches!(target.aim, Aim::Frontier) {
        studio
            .terminal
            .warning("no rules that were run keep the target: frontier/ has those that were, and --points or --windows give more");
    }
    state.save()
}

fn same_choice(one: &Point, other: &Point) -> bool {
    (&one.form, &one.ranges) == (&other.form, &other.ranges)
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

/// A point, really run on the clips for fitting of every run, each in turn with the original.
fn verified(
    bench: &Bench<'_>,
    original: &mut Option<Generator>,
    point: &Point,
    bar: &ProgressBar,
) -> Result<Point, Failure> {
    let (studio, mut point) = (bench.studio, point.clone());
    let Some(form) = bench.forms.iter().find(|form| form.name == point.form) else {
        return Ok(point);
    };
    if original.is_none() {
        let mut opened = studio.open(&studio.options.model)?;
        if let Some(run) = bench.runs.first() {
            studio.warm_up(&mut opened, run)?;
        }
        *original = Some(opened);
    }
    let Some(original) = original else { return Ok(point) };
    let timings: Vec<_> = point
        .ranges
        .iter()
        .map(|ranges| bench.grid.broadcasts(ranges))
        .collect();
    let yaml = form.yaml("A point of the frontier", &timings);
    let (mut worst_mse, mut worst_dissimilarity) = (0.0_f64, Some(0.0_f64));
    for (run, references) in bench.runs.iter().zip(bench.references) {
        let folder = work(studio)?;
        let mut generator = opened(studio, run, folder.path(), &yaml)?;
        studio.warm_up(&mut generator, run)?;
        let (mut mse, mut dissimilarity, mut times) = (0.0, Some(0.0), Vec::new());
        for (index, reference) in references.iter().enumerate() {
            let by_original = studio.clip(original, run, Purpose::Fit, index, bar)?;
            let clip = studio.clip(&mut generator, run, Purpose::Fit, index, bar)?;
            let (error, quality) = error(reference, &clip.sample)?;
            let lost = quality.map(|quality| 1.0 - quality.ssim);
            mse += error;
            worst_mse = worst_mse.max(error);
            dissimilarity = dissimilarity.zip(lost).map(|(sum, lost)| sum + lost);
            worst_dissimilarity = worst_dissimilarity.zip(lost).map(|(worst, lost)| worst.max(lost));
            times.push(clip.milliseconds() / by_original.milliseconds().max(f64::MIN_POSITIVE));
        }
        let clips = references.len().max(1) as f64;
        point.runs.push(PointRun {
            mse: mse / clips,
            dissimilarity: dissimilarity.map(|sum| sum / clips),
            time: median(&times).unwrap_or(1.0),
        });
    }
    let most = |of: fn(&PointRun) -> Option<f64>| {
        let values: Option<Vec<f64>> = point.runs.iter().map(of).collect();
        values.map(|values| values.into_iter().fold(0.0, f64::max))
    };
    (point.mse, point.dissimilarity) = (most(|run| Some(run.mse)), most(|run| run.dissimilarity));
    (point.worst_mse, point.worst_dissimilarity) = (Some(worst_mse), worst_dissimilarity);
    point.time = Some(point.runs.iter().map(|run| run.time).sum::<f64>() / point.runs.len().max(1) as f64);
    Ok(point)
}
