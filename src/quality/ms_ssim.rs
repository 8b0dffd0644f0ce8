//! Structural similarity over several scales: Wang, Simoncelli and Bovik, "Multiscale structural similarity for image
//! quality assessment", Asilomar Conference on Signals, Systems and Computers, 2003.
//!
//! Five scales with the paper's exponents, each of half the size of the one before. Details that the paper leaves open are
//! those of the package `pytorch-msssim`: halving takes means of 2x2 pixels, an odd side is completed by zeros before it, and a
//! mean below 0 counts as 0.

use ndarray::{Array2, ArrayView2, ArrayView3, Axis};

use super::window::{SSIM_WINDOW, Similarity, gaussian, similarity};

/// The exponents of the scales, the finest first: contrast and structure of all but the last, of which luminance counts too.
const EXPONENTS: [f64; 5] = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333];

/// The shorter side of a frame must be at least this many pixels, so that the window fits into the coarsest scale.
pub const MS_SSIM_SIDE: usize = ((SSIM_WINDOW - 1) << (EXPONENTS.len() - 1)) + 1;

/// MS-SSIM of two frames `[channels, height, width]` with values in [0, 1], the mean over channels; `None` where a side is
/// below [`MS_SSIM_SIDE`], shapes differ or there is no channel.
pub fn ms_ssim_of_frame(reference: ArrayView3<'_, f32>, other: ArrayView3<'_, f32>) -> Option<f64> {
    let (channels, height, width) = reference.dim();
    if reference.shape() != other.shape() || channels == 0 || height.min(width) < MS_SSIM_SIDE {
        return None;
    }
    let weights = gaussian();
    let pairs = reference.axis_iter(Axis(0)).zip(other.axis_iter(Axis(0)));
    let sum: f64 = pairs
        .map(|(reference, other)| of_channel(reference.mapv(f64::from), other.mapv(f64::from), &weights))
        .sum();
    Some(sum / channels as f64)
}

fn of_channel(mut reference: Array2<f64>, mut other: Array2<f64>, weights: &[f64]) -> f64 {
    let last = EXPONENTS.len() - 1;
    let mut product = 1.0;
    for (scale, exponent) in EXPONENTS.into_iter().enumerate() {
        let Similarity { whole, contrast } = similarity(reference.view(), other.view(), weights);
        let seen = if scale == last { whole } else { contrast };
        product *= seen.max(0.0).powf(exponent);
        if scale < last {
            (reference, other) = (halved(reference.view()), halved(other.view()));
        }
    }
    product
}

/// Means of 2x2 pixels; an odd side begins with a zero.
fn halved(values: ArrayView2<'_, f64>) -> Array2<f64> {
    let (height, width) = values.dim();
    let (odd_rows, odd_columns) = (height % 2, width % 2);
    let at = |row: usize, column: usize| match (row.checked_sub(odd_rows), column.checked_sub(odd_columns)) {
        (Some(row), Some(column)) => values.get((row, column)).copied().unwrap_or(0.0),
        _ => 0.0,
    };
    Array2::from_shape_fn((height.div_ceil(2), width.div_ceil(2)), |(row, column)| {
        let (row, column) = (2 * row, 2 * column);
        (at(row, column) + at(row, column + 1) + at(row + 1, column) + at(row + 1, column + 1)) / 4.0
    })
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, arr2};

    use super::super::test_clips::{cases, clips};
    use super::*;

    #[test]
    fn frames_equal_those_of_pytorch_msssim() {
        let cases = cases("ms_ssim");
        assert!(cases.len() >= 2);
        for case in &cases {
            let (reference, other) = clips(case);
            let frames = reference.axis_iter(Axis(1)).zip(other.axis_iter(Axis(1)));
            let expected = case["frames"].as_array().unwrap();
            assert_eq!(frames.len(), expected.len());
            for ((reference, other), expected) in frames.zip(expected) {
                let ours = ms_ssim_of_frame(reference, other).unwrap();
                // The package has the window in float32.
                assert!((ours - expected.as_f64().unwrap()).abs() < 1e-5, "{ours} {expected}");
            }
        }
    }

    #[test]
    fn halving_takes_means_behind_a_row_of_zeros() {
        let even = arr2(&[[1.0, 3.0], [5.0, 7.0]]);
        assert_eq!(halved(even.view()), arr2(&[[4.0]]));
        let odd = arr2(&[[4.0, 8.0, 8.0], [4.0, 8.0, 16.0]]);
        assert_eq!(halved(odd.view()), arr2(&[[2.0, 10.0]]));
    }

    #[test]
    fn frames_that_are_too_small_have_none() {
        assert_eq!(MS_SSIM_SIDE, 161);
        let frame = |height, width| Array3::from_elem((1, height, width), 0.5_f32);
        let (small, large) = (frame(160, 400), frame(161, 161));
        assert_eq!(ms_ssim_of_frame(small.view(), small.view()), None);
        assert_eq!(ms_ssim_of_frame(large.view(), small.view()), None);
        assert!((ms_ssim_of_frame(large.view(), large.view()).unwrap() - 1.0).abs() < 1e-12);
    }
}
