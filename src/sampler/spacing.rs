//! Which of the training timesteps a run visits (`timestep_spacing`; 2305.08891, Table 2).

use super::sigmas::linspace;

/// How the timesteps of a run are spread over the training timesteps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestepSpacing {
    /// Multiples of the whole step from 0 upwards, plus `steps_offset`.
    Leading,
    /// Multiples of the fractional step from the last timestep downwards.
    Trailing,
    /// Evenly from the first to the last timestep.
    Linspace,
}

impl TimestepSpacing {
    /// diffusers' names.
    pub(super) const NAMES: &'static [(&'static str, TimestepSpacing)] = &[
        ("leading", TimestepSpacing::Leading),
        ("trailing", TimestepSpacing::Trailing),
        ("linspace", TimestepSpacing::Linspace),
    ];

    /// As [`TimestepSpacing::timesteps`], but evenly spaced timesteps are not rounded to whole numbers.
    pub(super) fn fractional_timesteps(self, steps: usize, trained: usize, offset: i64) -> Vec<f64> {
        if self != TimestepSpacing::Linspace {
            let whole = self.timesteps(steps, trained, offset).into_iter();
            return whole.map(|timestep| timestep as f64).collect();
        }
        let rising = linspace(0.0, trained.saturating_sub(1) as f64, steps).into_iter();
        rising.rev().map(|timestep| f64::from(timestep as f32)).collect()
    }

    /// The timesteps of a solver that takes `steps` of `steps + 1` and ends between the last and the clean sample;
    /// `steps` is below `trained`. `trailing` has the end in it already.
    pub(super) fn solver_timesteps(self, steps: usize, trained: usize, offset: i64) -> Vec<i64> {
        if self == TimestepSpacing::Trailing {
            return self.timesteps(steps, trained, offset);
        }
        let mut timesteps = self.timesteps(steps + 1, trained, offset);
        timesteps.truncate(steps);
        timesteps
    }

    /// The timesteps of a run of `steps` steps, falling; `steps` is between 1 and `trained`.
    ///
    /// For some numbers of steps (61 of 1000, say) rounding makes NumPy's `arange`, and so diffusers' `trailing`
    /// spacing, yield one timestep too many, at -1, which indexes the noisiest alpha. Here it is always `steps`.
    pub(super) fn timesteps(self, steps: usize, trained: usize, offset: i64) -> Vec<i64> {
        match self {
            TimestepSpacing::Leading => {
                let ratio = (trained / steps) as i64;
                (0..steps as i64)
                    .rev()
                    .map(|index| (index * ratio).saturating_add(offset))
                    .collect()
            }
            TimestepSpacing::Trailing => {
                let start = trained as f64;
                // `arange` steps by the difference of its first two elements, which is itself rounded.
                let step = (start - start / steps as f64) - start;
                (0..steps)
                    .map(|index| (start + index as f64 * step).round_ties_even() as i64 - 1)
                    .collect()
            }
            TimestepSpacing::Linspace => {
                let last = trained.saturating_sub(1) as f64;
                let step = last / steps.saturating_sub(1).max(1) as f64;
                (0..steps)
                    .rev()
                    .map(|index| (index as f64 * step).round_ties_even() as i64)
                    .collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ten_of_a_thousand() {
        let of = |spacing: TimestepSpacing| spacing.timesteps(10, 1000, 1);
        assert_eq!(
            of(TimestepSpacing::Leading),
            [901, 801, 701, 601, 501, 401, 301, 201, 101, 1]
        );
        assert_eq!(
            of(TimestepSpacing::Trailing),
            [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]
        );
        assert_eq!(
            of(TimestepSpacing::Linspace),
            [999, 888, 777, 666, 555, 444, 333, 222, 111, 0]
        );
    }

    #[test]
    fn one_step() {
        assert_eq!(TimestepSpacing::Leading.timesteps(1, 1000, 0), [0]);
        assert_eq!(TimestepSpacing::Trailing.timesteps(1, 1000, 0), [999]);
        assert_eq!(TimestepSpacing::Linspace.timesteps(1, 1000, 0), [0]);
    }

    proptest! {
        #[test]
        fn falling_and_in_range(trained in 1usize..1200, share in 0.0f64..1.0, which in 0usize..3) {
            let steps = ((trained as f64 * share) as usize).max(1);
            let (_, spacing) = TimestepSpacing::NAMES[which];
            let timesteps = spacing.timesteps(steps, trained, 0);
            prop_assert_eq!(timesteps.len(), steps);
            prop_assert!(timesteps.windows(2).all(|pair| pair[0] > pair[1]), "{:?}", timesteps);
            prop_assert!(timesteps.iter().all(|&t| t >= 0 && (t as usize) < trained), "{:?}", timesteps);
        }
    }
}
