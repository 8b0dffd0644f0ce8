//! Structural similarity: Wang, Bovik, Sheikh and Simoncelli, "Image Quality Assessment: From Error Visibility to
//! Structural Similarity", IEEE Transactions on Image Processing 13(4), 2004.
//!
//! The variant is the paper's: Gaussian weights of deviation 1.5 in a window of 11x11, `K1 = 0.01`, `K2 = 0.03`, data
//! range 1, and the mean over all places where the window lies inside the frame. scikit-image calls it
//! `structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, channel_axis=...)`.

use ndarray::{Array2, ArrayView2, ArrayView3, Axis, Zip};

/// Side of the window in pixels: frames must be at least as large.
pub const SSIM_WINDOW: usize = 11;

const DEVIATION: f64 = 1.5;
/// `(K1 · range)²` and `(K2 · range)²`.
const MEAN_CONSTANT: f64 = 0.01 * 0.01;
const VARIANCE_CONSTANT: f64 = 0.03 * 0.03;

/// SSIM of two frames `[channels, height, width]` with values in [0, 1], the mean over channels; NaN where the shapes
/// differ, a side is below [`SSIM_WINDOW`] or there is no channel (use [`super::compare`] for typed errors).
pub fn ssim_of_frame(reference: ArrayView3<'_, f32>, other: ArrayView3<'_, f32>) -> f64 {
    if reference.shape() != other.shape() {
        return f64::NAN;
    }
    let weights = gaussian();
    let sum: f64 = reference
        .axis_iter(Axis(0))
        .zip(other.axis_iter(Axis(0)))
        .map(|(reference, other)| ssim_of_channel(reference, other, &weights))
        .sum();
    sum / reference.len_of(Axis(0)) as f64
}

/// The weights along one axis; the window is their outer product.
fn gaussian() -> [f64; SSIM_WINDOW] {
    let centre = (SSIM_WINDOW / 2) as f64;
    let mut weights = [0.0; SSIM_WINDOW];
    for (index, weight) in weights.iter_mut().enumerate() {
        let distance = (index as f64 - centre) / DEVIATION;
        *weight = (-0.5 * distance * distance).exp();
    }
    let sum: f64 = weights.iter().sum();
    weights.map(|weight| weight / sum)
}

fn ssim_of_channel(reference: ArrayView2<'_, f32>, other: ArrayView2<'_, f32>, weights: &[f64]) -> f64 {
    let (x, y) = (reference.mapv(f64::from), other.mapv(f64::from));
    let mean_x = smooth(&x, weights);
    let mean_y = smooth(&y, weights);
    let square_x = smooth(&(&x * &x), weights);
    let square_y = smooth(&(&y * &y), weights);
    let product = smooth(&(&x * &y), weights);
    let sum = Zip::from(&mean_x)
        .and(&mean_y)
        .and(&square_x)
        .and(&square_y)
        .and(&product)
        .fold(0.0, |sum, &x, &y, &xx, &yy, &xy| {
            let (variance_x, variance_y, covariance) = (xx - x * x, yy - y * y, xy - x * y);
            let above = (2.0 * x * y + MEAN_CONSTANT) * (2.0 * covariance + VARIANCE_CONSTANT);
            let below = (x * x + y * y + MEAN_CONSTANT) * (variance_x + variance_y + VARIANCE_CONSTANT);
            sum + above / below
        });
    sum / mean_x.len() as f64
}

/// Weighted means over all windows that lie inside, first along rows, then along columns.
fn smooth(values: &Array2<f64>, weights: &[f64]) -> Array2<f64> {
    smooth_along(&smooth_along(values, Axis(1), weights), Axis(0), weights)
}

fn smooth_along(values: &Array2<f64>, axis: Axis, weights: &[f64]) -> Array2<f64> {
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
    use ndarray::Array3;

    use super::*;

    #[test]
    fn weights_are_even_and_sum_to_one() {
        let weights = gaussian();
        assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-15);
        assert_eq!(weights[0], weights[10]);
        assert!((weights[5] - 0.266_012_2).abs() < 1e-6);
    }

    #[test]
    fn equal_frames_have_one_and_flat_frames_the_luminance_term() {
        let grey = Array3::from_elem((1, 11, 12), 0.5_f32);
        assert!((ssim_of_frame(grey.view(), grey.view()) - 1.0).abs() < 1e-12);
        let light = Array3::from_elem((1, 11, 12), 1.0_f32);
        let expected = (2.0 * 0.5 + MEAN_CONSTANT) / (0.25 + 1.0 + MEAN_CONSTANT);
        assert!((ssim_of_frame(grey.view(), light.view()) - expected).abs() < 1e-9);
    }

    #[test]
    fn frames_that_are_too_small_are_not_a_number() {
        let small = Array3::from_elem((1, 10, 12), 0.5_f32);
        assert!(ssim_of_frame(small.view(), small.view()).is_nan());
        let none = Array3::<f32>::zeros((0, 12, 12));
        assert!(ssim_of_frame(none.view(), none.view()).is_nan());
        let other = Array3::<f32>::zeros((1, 12, 12));
        assert!(ssim_of_frame(small.view(), other.view()).is_nan());
    }
}
