//! The windows that a run is parted into, and how far a range reaches in each.

use crate::rules::{Broadcast, Range, Timing, Window};

/// The first twentieth of a run is in no window: there is nothing to forecast from.
const BEGIN: f64 = 0.05;

/// The windows that a run is parted into, and how far apart its timesteps are in each.
///
/// A range of `n` steps of this run is written in timesteps, half a step short of `n` steps: so it decides the same where a
/// scheduler rounds its timesteps, and no value is reused further from where it was computed in a run of fewer steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    windows: Vec<Window>,
    apart: Vec<f64>,
}

impl Grid {
    /// `count` windows of equal length over a run through `timesteps`.
    pub fn new(count: usize, timesteps: &[f64]) -> Grid {
        // Half a thousandth off, so that no step of a usual run stands on an end, which is in neither window.
        let end = |place: usize| match place {
            0 => BEGIN,
            _ if place == count => 1.0,
            _ => ((1000.0 * place as f64 / count as f64).round() + 0.5) / 1000.0,
        };
        let window = |place: usize| Window::Fraction {
            start: end(place),
            end: end(place + 1),
        };
        let windows: Vec<Window> = (0..count).map(window).collect();
        let moves: Vec<f64> = timesteps
            .windows(2)
            .map(|pair| pair.iter().fold(0.0, |moved, timestep| timestep - moved).abs())
            .collect();
        let inside = |window: &Window| {
            let steps = moves.iter().enumerate();
            let inside = steps.filter(|(step, _)| window.contains(step + 1, timesteps.len(), 0.0));
            middle(inside.map(|(_, moved)| *moved).collect())
        };
        let all = middle(moves.clone()).unwrap_or(1.0);
        Grid {
            apart: windows.iter().map(|window| inside(window).unwrap_or(all)).collect(),
            windows,
        }
    }

    /// How many windows there are.
    pub fn windows(&self) -> usize {
        self.windows.len()
    }

    /// One range for each window, in steps of this run and 1 where it computes, as rules have them.
    pub fn broadcasts(&self, ranges: &[u32]) -> Vec<Broadcast> {
        let windows = self.windows.iter().zip(&self.apart).zip(ranges);
        let used = windows.filter(|(_, range)| **range > 1);
        let written = used.filter_map(|((window, apart), range)| {
            let far = Range::timesteps(tidy((f64::from(*range) - 0.5) * apart)).ok()?;
            Broadcast::of(far, *window).ok()
        });
        written.collect()
    }

    /// The timing of one range for each window; `None` where it computes everywhere.
    pub fn timing(&self, ranges: &[u32]) -> Option<Timing> {
        Timing::windows(self.broadcasts(ranges)).ok()
    }
}

/// The median of what is above 0.
fn middle(mut moves: Vec<f64>) -> Option<f64> {
    moves.retain(|moved| *moved > 0.0);
    moves.sort_by(f64::total_cmp);
    moves.get(moves.len() / 2).copied()
}

/// To three significant digits.
fn tidy(number: f64) -> f64 {
    let digits = (2.0 - number.abs().log10().floor()).clamp(0.0, 12.0) as usize;
    format!("{number:.digits$}").parse().unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Schedule;

    fn run(steps: usize) -> Vec<f64> {
        (0..steps).rev().map(|step| (step * 1000 / steps) as f64).collect()
    }

    #[test]
    fn windows_part_the_run() {
        let grid = Grid::new(3, &run(50));
        let held = |step: usize| {
            grid.windows
                .iter()
                .filter(|window| window.contains(step, 50, 0.0))
                .count()
        };
        assert_eq!((held(0), held(1), held(2)), (0, 0, 0));
        assert!((3..50).all(|step| held(step) == 1));
        assert_eq!(grid.timing(&[1, 1, 1]), None);
        assert_eq!(grid.windows(), 3);
    }

    #[test]
    fn ranges_are_steps_of_the_run_and_reach_no_further_in_others() {
        let grid = Grid::new(2, &run(50));
        let timing = grid.timing(&[3, 5]).unwrap();
        assert_eq!(
            timing.to_string(),
            "range of 50 timesteps, fraction 0.05 to 0.5005 of the run; range of 90 timesteps, fraction 0.5005 to 1 of the run"
        );
        let pattern = |steps: usize| Schedule::new(std::slice::from_ref(&timing), &run(steps)).pattern(0);
        let computed = [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 28, 33, 38, 43, 48];
        let expected = (0..50).map(|step| if computed.contains(&step) { '1' } else { '0' });
        assert_eq!(pattern(50), expected.collect::<String>());
        for steps in [10, 17, 25, 30, 50, 100, 999] {
            let run = run(steps);
            let mut computed = 0;
            for (step, character) in pattern(steps).chars().enumerate() {
                match character {
                    '1' => computed = step,
                    _ => assert!(run[computed] - run[step] < 90.0, "{steps} steps, step {step}"),
                }
            }
        }
        // Steps that lie close at the beginning, as a shifted flow has them.
        let shifted: Vec<f64> = (0..20).map(|step| 1000.0 - 2.5 * f64::from(step * step)).collect();
        let grid = Grid::new(2, &shifted);
        assert!(grid.apart[0] < grid.apart[1] / 2.0, "{grid:?}");
    }

    #[test]
    fn numbers_are_tidy() {
        assert_eq!([49.951, 0.03333, 1234.5, 90.0].map(tidy), [50.0, 0.0333, 1234.0, 90.0]);
        // A run that stands still has no length to go by, and no run has one step only.
        assert_eq!(Grid::new(1, &[5.0; 4]).apart, [1.0]);
        assert_eq!(Grid::new(2, &[5.0]).apart, [1.0, 1.0]);
    }
}
