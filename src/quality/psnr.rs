//! Peak signal-to-noise ratio for values in [0, 1].

use ndarray::{ArrayView, Dimension, Zip};

/// The mean squared difference, accumulated in `f64`; NaN for arrays without elements or of different shapes.
pub fn mean_squared_error<D: Dimension>(reference: ArrayView<'_, f32, D>, other: ArrayView<'_, f32, D>) -> f64 {
    if reference.shape() != other.shape() || reference.is_empty() {
        return f64::NAN;
    }
    let count = reference.len() as f64;
    let sum = Zip::from(&reference).and(&other).fold(0.0, |sum, &reference, &other| {
        let difference = f64::from(reference) - f64::from(other);
        sum + difference * difference
    });
    sum / count
}

/// The PSNR in dB of a mean squared error for a data range of 1, `-10 log10(error)`; `None` where the error is 0 and
/// the ratio infinite, which JSON shows as `null`.
pub fn decibels(mean_squared_error: f64) -> Option<f64> {
    // Adding 0 turns the negative zero of an error of 1 into zero.
    (mean_squared_error != 0.0).then(|| -10.0 * mean_squared_error.log10() + 0.0)
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn known_ratios() {
        let reference = array![[0.0_f32, 0.5], [1.0, 0.25]];
        assert_eq!(mean_squared_error(reference.view(), reference.view()), 0.0);
        assert_eq!(decibels(0.0), None);
        let other = &reference + 0.5;
        let error = mean_squared_error(reference.view(), other.view());
        assert_eq!(error, 0.25);
        assert!((decibels(error).unwrap() - 6.020_599_913_279_624).abs() < 1e-12);
        assert_eq!(decibels(1.0).map(f64::to_bits), Some(0.0_f64.to_bits()));
    }

    #[test]
    fn what_cannot_be_compared_is_not_a_number() {
        let (row, longer) = (array![0.0_f32, 1.0], array![0.0_f32, 1.0, 2.0]);
        assert!(mean_squared_error(row.view(), longer.view()).is_nan());
        assert!(mean_squared_error(row.slice(ndarray::s![..0]), row.slice(ndarray::s![..0])).is_nan());
    }
}
