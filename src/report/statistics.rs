//! Medians, quantiles and ratios of timings.

use serde::{Deserialize, Serialize};

/// A set of measurements in a few numbers, in the measurements' own unit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// How many measurements.
    pub count: usize,
    /// The median.
    pub median: f64,
    /// The arithmetic mean.
    pub mean: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// The lower quartile.
    pub lower_quartile: f64,
    /// The upper quartile.
    pub upper_quartile: f64,
}

impl Distribution {
    /// The distribution of some measurements; `None` where there are none.
    pub fn of(values: &[f64]) -> Option<Distribution> {
        Some(Distribution {
            count: values.len(),
            median: median(values)?,
            mean: mean(values)?,
            min: quantile(values, 0.0)?,
            max: quantile(values, 1.0)?,
            lower_quartile: quantile(values, 0.25)?,
            upper_quartile: quantile(values, 0.75)?,
        })
    }
}

/// The arithmetic mean; `None` for no values.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The median; `None` for no values.
pub fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// The quantile with linear interpolation between neighbours (NumPy's default); `None` for no values or a `ratio`
/// outside [0, 1].
pub fn quantile(values: &[f64], ratio: f64) -> Option<f64> {
    if values.is_empty() || !(0.0..=1.0).contains(&ratio) {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let rank = ratio * (sorted.len() - 1) as f64;
    let low = *sorted.get(rank.floor() as usize)?;
    let high = *sorted.get(rank.ceil() as usize)?;
    // Equal neighbours are returned as they are, also when they are infinite.
    Some(if low == high {
        low
    } else {
        low + (rank - rank.floor()) * (high - low)
    })
}

/// The median of the numerators over the median of the denominators; `None` where a side is empty or the latter 0.
pub fn ratio_of_medians(numerators: &[f64], denominators: &[f64]) -> Option<f64> {
    let denominator = median(denominators)?;
    (denominator != 0.0).then_some(median(numerators)? / denominator)
}

/// The median of the ratios of pairs: with runs in alternating order each pair met the same state of the machine, so
/// slow drift (heat, other processes) cancels. `None` where there are no pairs, lengths differ or a denominator is 0.
pub fn median_of_ratios(numerators: &[f64], denominators: &[f64]) -> Option<f64> {
    if numerators.len() != denominators.len() || denominators.contains(&0.0) {
        return None;
    }
    let ratios: Vec<f64> = numerators
        .iter()
        .zip(denominators)
        .map(|(above, below)| above / below)
        .collect();
    median(&ratios)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_quantiles() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(median(&values), Some(2.5));
        assert_eq!(quantile(&values, 0.25), Some(1.75));
        assert_eq!(mean(&values), Some(2.5));
        assert_eq!(median(&[7.0]), Some(7.0));
        assert_eq!((median(&[]), mean(&[]), quantile(&values, 1.5)), (None, None, None));
        assert_eq!(median(&[f64::INFINITY, f64::INFINITY]), Some(f64::INFINITY));
    }

    #[test]
    fn ratios() {
        assert_eq!(ratio_of_medians(&[2.0, 4.0, 6.0], &[1.0, 2.0, 2.0]), Some(2.0));
        assert_eq!(median_of_ratios(&[2.0, 4.0, 6.0], &[1.0, 2.0, 2.0]), Some(2.0));
        assert_eq!(median_of_ratios(&[2.0, 40.0], &[1.0, 20.0]), Some(2.0));
        assert_eq!(median_of_ratios(&[2.0], &[0.0]), None);
        assert_eq!(median_of_ratios(&[2.0], &[1.0, 1.0]), None);
        assert_eq!(ratio_of_medians(&[2.0], &[]), None);
    }

    proptest! {
        #[test]
        fn a_distribution_is_ordered(values in prop::collection::vec(-1e9f64..1e9, 1..60)) {
            let d = Distribution::of(&values).unwrap();
            let ordered = [d.min, d.lower_quartile, d.median, d.upper_quartile, d.max];
            prop_assert!(ordered.windows(2).all(|pair| pair[0] <= pair[1]), "{:?}", d);
            prop_assert!(d.min <= d.mean + 1e-3 && d.mean <= d.max + 1e-3);
            let below = values.iter().filter(|&&value| value < d.median).count();
            prop_assert!(below * 2 <= values.len());
        }
    }
}
