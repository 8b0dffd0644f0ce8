//! The Gaussian window of SSIM and of its variant over several scales.

use ndarray::{Array2, ArrayView2, Axis, Zip};

/// Side of the window in pixels: frames must be at least as large.
pub const SSIM_WINDOW: usize = 11;

const DEVIATION: f64 = 1.5;
/// `(K1 · range)²` and `(K2 · range)²`.
pub(super) const MEAN_CONSTANT: f64 = 0.01 * 0.01;
const VARIANCE_CONSTANT: f64 = 0.03 * 0.03;

/// What SSIM sees in two channels, each the mean over all places where the window lies inside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Similarity {
    /// Luminance, contrast and structure together: SSIM itself.
    pub whole: f64,
    /// Contrast and structure.
    pub contrast: f64,
}

/// The weights along one axis; the window is their outer product.
pub(super) fn gaussian() -> [f64; SSIM_WINDOW] {
    let centre = (SSIM_WINDOW / 2) as f64;
    let mut weights = [0.0; SSIM_WINDOW];
    for (index, weight) in weights.iter_mut().enumerate() {
        let distance = (index as f64 - centre) / DEVIATION;
        *weight = (-0.5 * distance * distance).exp();
    }
    let sum: f64 = weights.iter().sum();
    weights.map(|weight| weight / sum)
}

/// Compares two channels of one shape; NaN where a side is below [`SSIM_WINDOW`].
pub(super) fn similarity(x: ArrayView2<'_, f64>, y: ArrayView2<'_, f64>, weights: &[f64]) -> Similarity {
    let mean_x = smooth(x, weights);
    let mean_y = smooth(y, weights);
    let square_x = smooth((&x * &x).view(), weights);
    let square_y = smooth((&y * &y).view(), weights);
    let product = smooth((&x * &y).view(), weights);
    let (whole, contrast) = Zip::from(&mean_x)
        .and(&mean_y)
        .and(&square_x)
        .and(&square_y)
        .and(&product)
        .fold((0.0, 0.0), |(whole, contrast), &x, &y, &xx, &yy, &xy| {
            let (variance_x, variance_y, covariance) = (xx - x * x, yy - y * y, xy - x * y);
            let above = 2.0 * covariance + VARIANCE_CONSTANT;
            let below = variance_x + variance_y + VARIANCE_CONSTANT;
            let luminance = (2.0 * x * y + MEAN_CONSTANT) / (x * x + y * y + MEAN_CONSTANT);
            (whole + luminance * above / below, contrast + above / below)
        });
    let places = mean_x.len() as f64;
    Similarity {
        whole: whole / places,
        contrast: contrast / places,
    }
}

/// Weighted means over all windows that lie inside, first along rows, then along columns.
fn smooth(values: ArrayView2<'_, f64>, weights: &[f64]) -> Array2<f64> {
    smooth_along(smooth_along(values, Axis(1), weights).view(), Axis(0), weights)
}

fn smooth_along(values: ArrayView2<'_, f64>, axis: Axis, weights: &[f64]) -> Array2<f64> {
    let Some(length) = (values.len_of(axis) + 1).checked_sub(weights.len()) else {
        return Array2::zeros((0, 0));
    };
    let mut shape = values.raw_dim();
    shape[axis.index()] = length;
    let mut smoothed = Array2::zeros(shape);
    for (offset, &weight) in weights.iter().enumerate() {
        let shifted = values.slice_axis(axis, ndarray::Slice::from(offset..offset + length));
        smoothed.scaled_add(weight, &shifted);
    }
    smoothed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_even_and_sum_to_one() {
        let weights = gaussian();
        assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-15);
        assert_eq!(weights[0], weights[10]);
        assert!((weights[5] - 0.266_012_2).abs() < 1e-6);
    }
}
