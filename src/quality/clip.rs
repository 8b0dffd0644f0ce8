//! Two clips compared, and pixels made from a model's samples.

use ndarray::{ArrayD, ArrayView3, ArrayView4, ArrayView5, ArrayViewD, Axis};
use serde::{Deserialize, Serialize};

use super::QualityError;
use super::psnr::{decibels, mean_squared_error};
use super::ssim::{SSIM_WINDOW, ssim_of_frame};

/// How close one clip is to its reference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClipQuality {
    /// PSNR over all pixels of the clip in dB; `None` (JSON `null`) where the clips are equal and it is infinite.
    pub psnr: Option<f64>,
    /// Mean squared error over all pixels of the clip, for values in [0, 1]; 0 exactly where `psnr` is `None`.
    pub mean_squared_error: f64,
    /// SSIM, the mean over frames.
    pub ssim: f64,
    /// One entry a frame.
    pub frames: Vec<FrameQuality>,
}

/// How close one frame is to its reference.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrameQuality {
    /// PSNR in dB; `None` (JSON `null`) where the frames are equal.
    pub psnr: Option<f64>,
    /// SSIM.
    pub ssim: f64,
}

/// Compares a clip with its reference, both `[channels, frames, height, width]` in [0, 1].
///
/// # Errors
/// [`QualityError`] where shapes differ, a clip is empty, frames are smaller than [`SSIM_WINDOW`] or a pixel is not
/// finite.
pub fn compare(reference: ArrayView4<'_, f32>, other: ArrayView4<'_, f32>) -> Result<ClipQuality, QualityError> {
    let shape = reference.shape();
    if shape != other.shape() {
        return Err(QualityError::Shapes {
            reference: shape.to_vec(),
            other: other.shape().to_vec(),
        });
    }
    if reference.is_empty() {
        return Err(QualityError::Empty { shape: shape.to_vec() });
    }
    let (height, width) = (reference.len_of(Axis(2)), reference.len_of(Axis(3)));
    if height < SSIM_WINDOW || width < SSIM_WINDOW {
        return Err(QualityError::Small {
            window: SSIM_WINDOW,
            width,
            height,
        });
    }
    let mut frames = Vec::with_capacity(reference.len_of(Axis(1)));
    let pairs = reference.axis_iter(Axis(1)).zip(other.axis_iter(Axis(1)));
    for (frame, (reference, other)) in pairs.enumerate() {
        for (which, pixels) in [("reference", &reference), ("other", &other)] {
            if !pixels.iter().all(|value| value.is_finite()) {
                return Err(QualityError::NotFinite { which, frame });
            }
        }
        frames.push(compare_frame(reference, other));
    }
    let mean_squared_error = mean_squared_error(reference, other);
    Ok(ClipQuality {
        psnr: decibels(mean_squared_error),
        mean_squared_error,
        ssim: frames.iter().map(|frame| frame.ssim).sum::<f64>() / frames.len() as f64,
        frames,
    })
}

fn compare_frame(reference: ArrayView3<'_, f32>, other: ArrayView3<'_, f32>) -> FrameQuality {
    FrameQuality {
        psnr: decibels(mean_squared_error(reference, other)),
        ssim: ssim_of_frame(reference, other),
    }
}

/// Compares clip by clip two batches `[clips, channels, frames, height, width]` in [0, 1].
///
/// # Errors
/// Those of [`compare`].
pub fn compare_batch(
    reference: ArrayView5<'_, f32>,
    other: ArrayView5<'_, f32>,
) -> Result<Vec<ClipQuality>, QualityError> {
    if reference.shape() != other.shape() {
        return Err(QualityError::Shapes {
            reference: reference.shape().to_vec(),
            other: other.shape().to_vec(),
        });
    }
    reference
        .outer_iter()
        .zip(other.outer_iter())
        .map(|(reference, other)| compare(reference, other))
        .collect()
}

/// Pixels in [0, 1] from samples in [-1, 1]: `sample / 2 + 1/2`, held in range. NaN stays NaN.
pub fn to_unit_range(samples: ArrayViewD<'_, f32>) -> ArrayD<f32> {
    samples.mapv(|value| (value * 0.5 + 0.5).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ndarray::{Array4, Array5, IxDyn};
    use serde_json::Value;

    use super::*;

    /// Pixels by the formula that `tests/data/quality/make_quality.py` has too.
    fn pixels(shape: [usize; 4], salt: usize) -> Array4<f32> {
        let mut index = 0_usize;
        Array4::from_shape_simple_fn(shape, || {
            index += 1;
            ((index * (7919 + 2 * salt) + index * index * 31) % 1009) as f32 / 1008.0
        })
    }

    /// scikit-image's numbers, from `tests/data/quality/quality.json`.
    #[test]
    fn clips_equal_those_of_scikit_image() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/quality/quality.json");
        let cases: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let cases = cases.as_array().unwrap();
        assert!(cases.len() >= 4);
        for case in cases {
            let shape: Vec<usize> = serde_json::from_value(case["shape"].clone()).unwrap();
            let share = case["share"].as_f64().unwrap() as f32;
            let reference = pixels(shape.clone().try_into().unwrap(), 0);
            let noise = pixels(shape.try_into().unwrap(), 5);
            let other = &reference * (1.0 - share) + &noise * share;
            let quality = compare(reference.view(), other.view()).unwrap();
            assert!(
                (quality.psnr.unwrap() - case["psnr"].as_f64().unwrap()).abs() < 1e-4,
                "{case}"
            );
            assert!(
                (quality.ssim - case["ssim"].as_f64().unwrap()).abs() < 1e-6,
                "{} {case}",
                quality.ssim
            );
            let frames = case["frames"].as_array().unwrap();
            assert_eq!(frames.len(), quality.frames.len());
            for (ours, theirs) in quality.frames.iter().zip(frames) {
                assert!(
                    (ours.psnr.unwrap() - theirs["psnr"].as_f64().unwrap()).abs() < 1e-4,
                    "{case}"
                );
                assert!((ours.ssim - theirs["ssim"].as_f64().unwrap()).abs() < 1e-6, "{case}");
            }
        }
    }

    #[test]
    fn equal_clips_are_null_in_json() {
        let clip = pixels([3, 2, 12, 11], 1);
        let quality = compare(clip.view(), clip.view()).unwrap();
        assert_eq!((quality.psnr, quality.mean_squared_error), (None, 0.0));
        assert!((quality.ssim - 1.0).abs() < 1e-12);
        let json = serde_json::to_value(&quality).unwrap();
        assert_eq!(json["psnr"], Value::Null);
        assert_eq!(serde_json::from_value::<ClipQuality>(json).unwrap(), quality);
    }

    #[test]
    fn what_cannot_be_compared_is_a_typed_error() {
        let (clip, other) = (pixels([3, 2, 12, 11], 1), pixels([3, 3, 12, 11], 1));
        let shapes = compare(clip.view(), other.view()).unwrap_err();
        assert!(
            shapes.to_string().contains("[3, 2, 12, 11] and [3, 3, 12, 11]"),
            "{shapes}"
        );
        let small = pixels([1, 1, 12, 10], 1);
        let error = compare(small.view(), small.view()).unwrap_err();
        assert_eq!(
            error,
            QualityError::Small {
                window: 11,
                width: 10,
                height: 12
            }
        );
        let empty = pixels([3, 0, 12, 11], 1);
        assert_eq!(
            compare(empty.view(), empty.view()),
            Err(QualityError::Empty {
                shape: vec![3, 0, 12, 11]
            })
        );
        let mut broken = clip.clone();
        broken[[1, 1, 4, 4]] = f32::NAN;
        let error = compare(clip.view(), broken.view()).unwrap_err();
        assert_eq!(
            error,
            QualityError::NotFinite {
                which: "other",
                frame: 1
            }
        );
    }

    #[test]
    fn batches_are_compared_clip_by_clip() {
        let mut reference = Array5::<f32>::zeros((2, 1, 1, 11, 11));
        let other = reference.clone();
        reference.index_axis_mut(Axis(0), 1).fill(0.1);
        let qualities = compare_batch(reference.view(), other.view()).unwrap();
        assert_eq!(qualities[0].psnr, None);
        assert!((qualities[1].psnr.unwrap() - 20.0).abs() < 1e-4);
        assert!(compare_batch(reference.view(), Array5::zeros((1, 1, 1, 11, 11)).view()).is_err());
    }

    #[test]
    fn samples_become_pixels() {
        let samples = ndarray::arr1(&[-3.0_f32, -1.0, 0.0, 0.5, 1.0, 9.0]).into_dyn();
        let expected = ArrayD::from_shape_vec(IxDyn(&[6]), vec![0.0, 0.0, 0.5, 0.75, 1.0, 1.0]).unwrap();
        assert_eq!(to_unit_range(samples.view()), expected);
    }
}
