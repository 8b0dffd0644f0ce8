//! Structural similarity: Wang, Bovik, Sheikh and Simoncelli, "Image Quality Assessment: From Error Visibility to
//! Structural Similarity", IEEE Transactions on Image Processing 13(4), 2004.
//!
//! The variant is the paper's: Gaussian weights of deviation 1.5 in a window of 11x11, `K1 = 0.01`, `K2 = 0.03`, data
//! range 1, and the mean over all places where the window lies inside the frame. scikit-image calls it
//! `structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, channel_axis=...)`.

use ndarray::{ArrayView3, Axis};

use super::window::{gaussian, similarity};

/// SSIM of two frames `[channels, height, width]` with values in [0, 1], the mean over channels; NaN where the shapes
/// differ, a side is below [`super::SSIM_WINDOW`] or there is no channel (use [`super::compare`] for typed errors).
pub fn ssim_of_frame(reference: ArrayView3<'_, f32>, other: ArrayView3<'_, f32>) -> f64 {
    if reference.shape() != other.shape() {
        return f64::NAN;
    }
    let weights = gaussian();
    let sum: f64 = reference
        .axis_iter(Axis(0))
        .zip(other.axis_iter(Axis(0)))
        .map(|(reference, other)| {
            let (reference, other) = (reference.mapv(f64::from), other.mapv(f64::from));
            similarity(reference.view(), other.view(), &weights).whole
        })
        .sum();
    sum / reference.len_of(Axis(0)) as f64
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;

    use super::super::window::MEAN_CONSTANT;
    use super::*;

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
