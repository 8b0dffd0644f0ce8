//! The weights of UniPC's predictor and corrector.

use super::Level;

/// The function B(h) of the paper (`solver_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SolverType {
    /// h.
    First,
    /// exp(h) - 1.
    Second,
}

impl SolverType {
    /// diffusers' names, and those of other classes that diffusers takes for the default.
    pub(super) const NAMES: &'static [(&'static str, SolverType)] = &[
        ("bh1", SolverType::First),
        ("bh2", SolverType::Second),
        ("midpoint", SolverType::Second),
        ("heun", SolverType::Second),
        ("logrho", SolverType::Second),
    ];
}

/// What the weights depend on besides the levels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Solver {
    pub(super) kind: SolverType,
    /// Whether predictions are clean samples (`predict_x0`), or noise.
    pub(super) clean: bool,
}

/// The next sample as a sum.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Predictor {
    /// The weight of the sample.
    pub(super) sample: f32,
    /// The weights of the predictions, the newest first.
    pub(super) predictions: Vec<f32>,
}

/// The corrected sample as a sum.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Corrector {
    /// The weight of the corrected sample of the step before.
    pub(super) last: f32,
    /// The weights of the predictions of earlier steps, the newest first.
    pub(super) earlier: Vec<f32>,
    /// The weight of the prediction at this step.
    pub(super) newest: f32,
}

impl Predictor {
    /// All weights, for checking.
    pub(super) fn numbers(&self) -> Vec<f32> {
        [&[self.sample], self.predictions.as_slice()].concat()
    }
}

impl Corrector {
    /// All weights, for checking.
    pub(super) fn numbers(&self) -> Vec<f32> {
        [&[self.last, self.newest], self.earlier.as_slice()].concat()
    }
}

/// What predictor and corrector of a step have in common.
struct Basis {
    /// Weights of sample and newest prediction in the step of the first order.
    sample: f32,
    newest: f32,
    /// The factor of all differences between predictions.
    scale: f32,
    /// How far back earlier predictions lie, in steps; then 1.
    ratios: Vec<f32>,
    /// The right side of the equations for the weights of the differences.
    right: Vec<f32>,
}

impl Solver {
    /// The weights of a step of this order. `levels` are those after the step, before it, and before earlier ones.
    pub(super) fn predictor(&self, levels: &[Level], order: usize) -> Predictor {
        let Some(basis) = self.basis(levels, order) else {
            return Predictor {
                sample: 1.0,
                predictions: Vec::new(),
            };
        };
        let shares = match order {
            0 | 1 => Vec::new(),
            // The paper's simplification.
            2 => vec![0.5],
            _ => solve(&basis.ratios, &basis.right, order - 1),
        };
        Predictor {
            sample: basis.sample,
            predictions: basis.predictions(&shares, 0.0),
        }
    }

    /// The weights of the correction of the step before. `levels` are those of this step, of the step before, and of
    /// earlier ones.
    pub(super) fn corrector(&self, levels: &[Level], order: usize) -> Corrector {
        let Some(basis) = self.basis(levels, order) else {
            return Corrector {
                last: 1.0,
                earlier: Vec::new(),
                newest: 0.0,
            };
        };
        let mut shares = match order {
            0 | 1 => vec![0.5],
            _ => solve(&basis.ratios, &basis.right, order),
        };
        let newest = shares.pop().unwrap_or(0.0);
        Corrector {
            last: basis.sample,
            earlier: basis.predictions(&shares, newest),
            newest: -basis.scale * newest,
        }
    }

    fn basis(&self, levels: &[Level], order: usize) -> Option<Basis> {
        let [to, from, earlier @ ..] = levels else { return None };
        let h = to.lambda - from.lambda;
        let signed = if self.clean { -h } else { h };
        let growth = libm::expm1f(signed);
        let function = match self.kind {
            SolverType::First => signed,
            SolverType::Second => growth,
        };
        let earlier = earlier.iter().take(order.saturating_sub(1));
        let mut ratios: Vec<f32> = earlier.map(|level| (level.lambda - from.lambda) / h).collect();
        ratios.push(1.0);
        let (mut phi, mut factorial) = (growth / signed - 1.0, 1.0_f32);
        let mut right = Vec::with_capacity(order);
        for index in 1..=order {
            right.push(phi * factorial / function);
            factorial *= (index + 1) as f32;
            phi = phi / signed - 1.0 / factorial;
        }
        let (sample, weight) = if self.clean {
            (to.noise / from.noise, to.signal)
        } else {
            (to.signal / from.signal, to.noise)
        };
        Some(Basis {
            sample,
            newest: -(weight * growth),
            scale: weight * function,
            ratios,
            right,
        })
    }
}

impl Basis {
    /// The weights of the predictions, the newest first, where each earlier one's difference to the newest has a share,
    /// and the difference of a prediction that is still to come has `coming`.
    fn predictions(&self, shares: &[f32], coming: f32) -> Vec<f32> {
        let mut newest = self.newest + self.scale * coming;
        let differences = shares.iter().zip(&self.ratios).map(|(share, ratio)| {
            let weight = self.scale * share / ratio;
            newest += weight;
            -weight
        });
        let earlier: Vec<f32> = differences.collect();
        std::iter::once(newest).chain(earlier).collect()
    }
}

/// Solves the first `count` equations of Vandermonde's kind, `sum of share · ratio^power = right[power]`, by Gauss'
/// elimination with pivots. What cannot be solved comes out as NaN or infinite.
fn solve(ratios: &[f32], right: &[f32], count: usize) -> Vec<f32> {
    let mut rows: Vec<Vec<f64>> = (0..count)
        .map(|power| {
            let powers = ratios.iter().take(count).map(|&ratio| {
                let power = i32::try_from(power).unwrap_or(i32::MAX);
                f64::from(ratio.powi(power))
            });
            let side = right.get(power).copied().map_or(f64::NAN, f64::from);
            powers.chain([side]).collect()
        })
        .collect();
    let entry =
        |row: Option<&Vec<f64>>, column: usize| row.and_then(|row| row.get(column)).copied().unwrap_or(f64::NAN);
    for column in 0..count {
        let candidates = column..rows.len();
        let pivot = candidates.max_by(|&one, &other| {
            let size = |row: usize| entry(rows.get(row), column).abs();
            size(one).total_cmp(&size(other))
        });
        if let Some(pivot) = pivot {
            rows.swap(column, pivot);
        }
        let (done, rest) = rows.split_at_mut(column + 1);
        for row in rest {
            let factor = entry(Some(row), column) / entry(done.last(), column);
            for (value, known) in row.iter_mut().zip(done.last().into_iter().flatten()) {
                *value -= factor * known;
            }
        }
    }
    let mut solved = vec![0.0; count];
    for row in (0..count).rev() {
        let known: f64 = (row + 1..count)
            .map(|column| entry(rows.get(row), column) * solved.get(column).copied().unwrap_or(f64::NAN))
            .sum();
        let value = (entry(rows.get(row), count) - known) / entry(rows.get(row), row);
        if let Some(place) = solved.get_mut(row) {
            *place = value;
        }
    }
    solved.into_iter().map(|value| value as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equations_are_solved() {
        // 2 + 3 + 4; 2·2 + 3·5 + 4·1; the squares.
        let shares = solve(&[2.0, 5.0, 1.0], &[9.0, 23.0, 2.0 * 4.0 + 3.0 * 25.0 + 4.0], 3);
        for (share, expected) in shares.iter().zip([2.0, 3.0, 4.0]) {
            assert!((share - expected).abs() < 1e-5, "{shares:?}");
        }
        assert!(
            solve(&[1.0, 1.0], &[1.0, 2.0], 2)
                .iter()
                .any(|share| !share.is_finite())
        );
    }
}
