//! Two clips compared, and pixels made from a model's samples.

use ndarray::{ArrayD, ArrayView3, ArrayView4, ArrayView5, ArrayViewD, Axis};
use serde::{Deserialize, Serialize};

use super::QualityError;
use super::flicker::{Flicker, flicker};
use super::lpips::Lpips;
use super::ms_ssim::ms_ssim_of_frame;
use super::psnr::{decibels, mean_squared_error};
use super::ssim::ssim_of_frame;
use super::window::SSIM_WINDOW;

/// How close one clip is to its reference.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClipQuality {
    /// PSNR over all pixels of the clip in dB; `None` (JSON `null`) where the clips are equal and it is infinite.
    pub psnr: Option<f64>,
    /// Mean squared error over all pixels of the clip, for values in [0, 1]; 0 exactly where `psnr` is `None`.
    pub mean_squared_error: f64,
    /// SSIM, the mean over frames.
    pub ssim: f64,
    /// MS-SSIM, the mean over frames; `None` where it was not asked for or frames are too small for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ms_ssim: Option<f64>,
    /// LPIPS, the mean over frames; `None` where no network was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lpips: Option<f64>,
    /// Change from frame to frame; `None` where it was not asked for or there is one frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flicker: Option<Flicker>,
    /// One entry a frame.
    pub frames: Vec<FrameQuality>,
}

/// How close one frame is to its reference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FrameQuality {
    /// PSNR in dB; `None` (JSON `null`) where the frames are equal.
    pub psnr: Option<f64>,
    /// SSIM.
    pub ssim: f64,
    /// MS-SSIM, as of the clip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ms_ssim: Option<f64>,
    /// LPIPS, as of the clip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lpips: Option<f64>,
}

/// Compares a clip with its reference by PSNR and SSIM, both `[channels, frames, height, width]` in [0, 1].
///
/// # Errors
/// [`QualityError`] where shapes differ, a clip is empty, frames are smaller than [`SSIM_WINDOW`] or a pixel is not
/// finite.
pub fn compare(reference: ArrayView4<'_, f32>, other: ArrayView4<'_, f32>) -> Result<ClipQuality, QualityError> {
    check(reference, other)?;
    let pairs = reference.axis_iter(Axis(1)).zip(other.axis_iter(Axis(1)));
    let frames: Vec<FrameQuality> = pairs
        .map(|(reference, other)| compare_frame(reference, other))
        .collect();
    Ok(summed_up(reference, other, frames))
}

/// Compares a clip with its reference by every measure: what [`compare`] has, MS-SSIM where frames are large enough, flicker where
/// there is more than one frame, and LPIPS by the network that is given. `done` is called after each frame.
///
/// # Errors
/// Those of [`compare`], and [`QualityError::Lpips`].
pub fn compare_fully(
    reference: ArrayView4<'_, f32>,
    other: ArrayView4<'_, f32>,
    mut lpips: Option<&mut Lpips>,
    mut done: impl FnMut(),
) -> Result<ClipQuality, QualityError> {
    check(reference, other)?;
    let mut frames = Vec::with_capacity(reference.len_of(Axis(1)));
    for (reference, other) in reference.axis_iter(Axis(1)).zip(other.axis_iter(Axis(1))) {
        let distance = match lpips.as_deref_mut() {
            Some(lpips) => Some(lpips.of_frame(reference, other)?),
            None => None,
        };
        frames.push(FrameQuality {
            ms_ssim: ms_ssim_of_frame(reference, other),
            lpips: distance,
            ..compare_frame(reference, other)
        });
        done();
    }
    Ok(ClipQuality {
        flicker: flicker(reference, other),
        ..summed_up(reference, other, frames)
    })
}

/// Whether two clips can be compared at all.
fn check(reference: ArrayView4<'_, f32>, other: ArrayView4<'_, f32>) -> Result<(), QualityError> {
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
    for (which, clip) in [("reference", reference), ("other", other)] {
        for (frame, pixels) in clip.axis_iter(Axis(1)).enumerate() {
            if !pixels.iter().all(|value| value.is_finite()) {
                return Err(QualityError::NotFinite { which, frame });
            }
        }
    }
    Ok(())
}

fn compare_frame(reference: ArrayView3<'_, f32>, other: ArrayView3<'_, f32>) -> FrameQuality {
    FrameQuality {
        psnr: decibels(mean_squared_error(reference, other)),
        ssim: ssim_of_frame(reference, other),
        ..FrameQuality::default()
    }
}

/// The figures of a clip from those of its frames.
fn summed_up(reference: ArrayView4<'_, f32>, other: ArrayView4<'_, f32>, frames: Vec<FrameQuality>) -> ClipQuality {
    let mean_squared_error = mean_squared_error(reference, other);
    // A measure that one frame does not have, none has.
    let mean = |measure: fn(&FrameQuality) -> Option<f64>| {
        let values: Option<Vec<f64>> = frames.iter().map(measure).collect();
        values.map(|values| values.iter().sum::<f64>() / values.len() as f64)
    };
    ClipQuality {
        psnr: decibels(mean_squared_error),
        mean_squared_error,
        ssim: mean(|frame| Some(frame.ssim)).unwrap_or(f64::NAN),
        ms_ssim: mean(|frame| frame.ms_ssim),
        lpips: mean(|frame| frame.lpips),
        flicker: None,
        frames,
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
    use ndarray::{Array5, IxDyn};
    use serde_json::Value;

    use super::super::test_clips::{clips, pixels, stored};
    use super::*;

    /// scikit-image's numbers, from `tests/data/quality/quality.json`.
    #[test]
    fn clips_equal_those_of_scikit_image() {
        let cases: Value = serde_json::from_slice(&std::fs::read(stored("quality.json")).unwrap()).unwrap();
        let cases = cases.as_array().unwrap();
        assert!(cases.len() >= 4);
        for case in cases {
            let (reference, other) = clips(case);
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
        assert!(error.to_string().contains("11x11 pixels, these have 10x12"), "{error}");
        let empty = pixels([3, 0, 12, 11], 1);
        let error = compare(empty.view(), empty.view()).unwrap_err();
        assert!(error.to_string().contains("[3, 0, 12, 11]"), "{error}");
        let mut broken = clip.clone();
        broken[[1, 1, 4, 4]] = f32::NAN;
        let error = compare(clip.view(), broken.view()).unwrap_err();
        assert!(
            matches!(
                error,
                QualityError::NotFinite {
                    which: "other",
                    frame: 1
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn a_full_comparison_has_what_the_clips_allow() {
        let fully = |shape| {
            let (clip, other) = (pixels(shape, 1), pixels(shape, 2));
            let mut frames = 0;
            let quality = compare_fully(clip.view(), other.view(), None, || frames += 1).unwrap();
            assert_eq!((frames, quality.frames.len()), (shape[1], shape[1]));
            let few = compare(clip.view(), other.view()).unwrap();
            assert_eq!((few.psnr, few.ssim, few.flicker), (quality.psnr, quality.ssim, None));
            quality
        };
        let small = fully([1, 3, 20, 30]);
        assert_eq!(
            (small.ms_ssim, small.lpips, small.frames[0].ms_ssim),
            (None, None, None)
        );
        assert!(small.flicker.unwrap().excess.unwrap() > 0.0);
        let still = fully([1, 1, 161, 163]);
        assert!(still.flicker.is_none() && still.ms_ssim == still.frames[0].ms_ssim && still.ms_ssim.is_some());
        let json = serde_json::to_value(&still).unwrap();
        assert!(json.get("lpips").is_none() && json["ms_ssim"].is_number());
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
