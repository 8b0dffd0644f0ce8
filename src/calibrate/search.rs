//! The best choices for what was measured: one range for every arm and window, with errors and times that add.

/// Shares of a run's time are counted in so many units.
const UNITS: usize = 1000;

/// What an arm in a window may do. Besides, it may always compute, which costs nothing and saves nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// The place: arms and windows counted through. Of each place one cell at most is chosen.
    pub place: usize,
    /// The range.
    pub range: u32,
    /// The error it adds.
    pub error: f64,
    /// The share of the run's time that it saves, 0 to 1.
    pub saved: f64,
}

/// One range for each place, and what comes of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// By place, 1 where it computes.
    pub ranges: Vec<u32>,
    /// The sum of the errors.
    pub error: f64,
    /// The share of the time that is saved.
    pub saved: f64,
}

/// The choices that no other beats in error and time at once, by the time they save, the least first.
///
/// A multiple-choice knapsack, solved exactly up to the rounding of time to a thousandth: place after place, the least error
/// for each time saved. Time is rounded down, so that no choice promises more than it has.
pub fn frontier(places: usize, cells: &[Cell]) -> Vec<Choice> {
    let nothing = Choice {
        ranges: vec![1; places],
        error: 0.0,
        saved: 0.0,
    };
    let mut best: Vec<Option<Choice>> = vec![None; UNITS + 1];
    if let Some(first) = best.first_mut() {
        *first = Some(nothing);
    }
    for place in 0..places {
        let mut next = best.clone();
        for cell in cells
            .iter()
            .filter(|cell| cell.place == place && cell.saved > 0.0 && cell.error.is_finite())
        {
            for choice in best.iter().flatten() {
                let mut more = choice.clone();
                more.error += cell.error;
                more.saved += cell.saved;
                if let Some(range) = more.ranges.get_mut(place) {
                    *range = cell.range;
                }
                let unit = ((more.saved * UNITS as f64) as usize).min(UNITS);
                if let Some(slot) = next.get_mut(unit)
                    && slot.as_ref().is_none_or(|held| held.error > more.error)
                {
                    *slot = Some(more);
                }
            }
        }
        best = next;
    }
    // From the end: what saves less has to have a smaller error.
    let mut kept: Vec<Choice> = Vec::new();
    for choice in best.into_iter().rev().flatten() {
        if kept.last().is_none_or(|last| choice.error < last.error) {
            kept.push(choice);
        }
    }
    kept.reverse();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(place: usize, range: u32, error: f64, saved: f64) -> Cell {
        Cell {
            place,
            range,
            error,
            saved,
        }
    }

    #[test]
    fn the_known_optimum_is_found() {
        // At 0.3 saved the pair of cheap cells beats the dear one, which greedy by error would take last.
        let cells = [
            cell(0, 2, 1.0, 0.1),
            cell(0, 3, 9.0, 0.3),
            cell(1, 2, 2.0, 0.2),
            cell(1, 3, 2.5, 0.25),
        ];
        let found = frontier(2, &cells);
        let at = |saved: f64| found.iter().find(|choice| choice.saved + 1e-9 >= saved).unwrap();
        assert_eq!(at(0.3).ranges, [2, 2]);
        assert_eq!(at(0.35).ranges, [2, 3]);
        assert_eq!(at(0.55).ranges, [3, 3]);
        assert_eq!(found[0].ranges, [1, 1]);
    }

    #[test]
    fn no_choice_of_all_beats_the_frontier() {
        // A table by a formula, of which all 4^4 choices are tried.
        let value = |place: usize, range: u32| ((place * 37 + range as usize * 101) % 53 + 1) as f64;
        let cells: Vec<Cell> = (0..4)
            .flat_map(|place| (2..5).map(move |range| (place, range)))
            .map(|(place, range)| {
                cell(
                    place,
                    range,
                    value(place, range),
                    value(range as usize, place as u32) / 250.0,
                )
            })
            .collect();
        let found = frontier(4, &cells);
        for number in 0..256_u32 {
            let (mut error, mut saved) = (0.0, 0.0);
            for place in 0..4 {
                let range = number / 4_u32.pow(place) % 4 + 1;
                let chosen = cells
                    .iter()
                    .find(|cell| cell.place == place as usize && cell.range == range);
                error += chosen.map_or(0.0, |cell| cell.error);
                saved += chosen.map_or(0.0, |cell| cell.saved);
            }
            // To a unit of time for each place.
            let reached = found.iter().filter(|choice| choice.saved >= saved - 4.0 / UNITS as f64);
            let least = reached.map(|choice| choice.error).fold(f64::INFINITY, f64::min);
            assert!(least <= error + 1e-9, "choice {number}: {least} > {error}");
        }
        assert!(
            found
                .windows(2)
                .all(|pair| pair[0].error < pair[1].error && pair[0].saved < pair[1].saved)
        );
    }
}
