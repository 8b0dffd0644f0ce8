//! How the predicted clean sample is kept in range.

use ndarray::{ArrayD, ArrayViewMutD, Axis};

use super::SamplerError;
use super::fields::Fields;

/// How the predicted clean sample is kept in range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// Left as it is.
    None,
    /// Clamped to plus and minus this number (`clip_sample`, `clip_sample_range`).
    Clip(f32),
    /// Dynamic thresholding (`thresholding`; Imagen, 2205.11487, section 2.3): clamped per batch element to its own
    /// quantile of absolute values, which is held between 1 and `most`, and divided by it.
    Threshold {
        /// The quantile (`dynamic_thresholding_ratio`).
        ratio: f32,
        /// The largest threshold (`sample_max_value`).
        most: f32,
    },
}

impl Limit {
    /// `clip_sample` (with a default) and `clip_sample_range`.
    pub(super) fn read_clip(fields: &Fields<'_>, clip: bool) -> Result<Limit, SamplerError> {
        let range = fields.number("clip_sample_range", 1.0, 0.0, f64::from(f32::MAX))? as f32;
        Ok(if fields.boolean("clip_sample", clip)? {
            Limit::Clip(range)
        } else {
            Limit::None
        })
    }

    /// `thresholding` and its options; without it, `otherwise`.
    pub(super) fn read_threshold(fields: &Fields<'_>, otherwise: Limit) -> Result<Limit, SamplerError> {
        let most = fields.number("sample_max_value", 1.0, 0.0, f64::from(f32::MAX))? as f32;
        let ratio = fields.number("dynamic_thresholding_ratio", 0.995, 0.0, 1.0)? as f32;
        match fields.boolean("thresholding", false)? {
            true if most > 0.0 => Ok(Limit::Threshold { ratio, most }),
            true => Err(fields.refuse("sample_max_value", "a number above 0 with `thresholding`")),
            false => Ok(otherwise),
        }
    }

    /// Keeps clean samples `[batch, ...]` in range.
    pub(super) fn apply(self, clean: &mut ArrayD<f32>) {
        match self {
            Limit::None => {}
            Limit::Clip(range) => clean.mapv_inplace(|value| clamped(value, range)),
            Limit::Threshold { ratio, most } if clean.ndim() > 0 => {
                clean
                    .axis_iter_mut(Axis(0))
                    .for_each(|element| threshold(element, ratio, most));
            }
            Limit::Threshold { .. } => {}
        }
    }
}

/// The value held between minus and plus `range`; NaN stays NaN, as in PyTorch.
fn clamped(value: f32, range: f32) -> f32 {
    if value > range {
        range
    } else if value < -range {
        -range
    } else {
        value
    }
}

/// Dynamic thresholding of one batch element, see [`Limit::Threshold`].
fn threshold(mut element: ArrayViewMutD<'_, f32>, ratio: f32, most: f32) {
    let mut magnitudes: Vec<f32> = element.iter().map(|value| value.abs()).collect();
    // NaN sorts last and makes the quantile NaN in PyTorch; here the elements that are numbers stay numbers.
    let bound = quantile(&mut magnitudes, ratio).max(1.0).min(most);
    element.mapv_inplace(|value| clamped(value, bound) / bound);
}

/// The quantile of values, which are reordered, with linear interpolation, in `f32` and with the rounding of PyTorch's
/// `quantile`. Takes linear time.
fn quantile(values: &mut [f32], ratio: f32) -> f32 {
    let rank = ratio * values.len().saturating_sub(1) as f32;
    let (floor, weight) = (rank.floor() as usize, rank - rank.floor());
    if floor >= values.len() {
        return 0.0;
    }
    let (_, &mut low, above) = values.select_nth_unstable_by(floor, f32::total_cmp);
    let next = above.iter().copied().min_by(f32::total_cmp);
    let high = next.filter(|_| weight > 0.0).unwrap_or(low);
    if weight < 0.5 {
        low + weight * (high - low)
    } else {
        high - (high - low) * (1.0 - weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate() {
        assert_eq!(quantile(&mut [4.0, 1.0, 2.0], 0.5), 2.0);
        assert_eq!(quantile(&mut [4.0, 1.0, 2.0], 0.75), 3.0);
        assert_eq!(quantile(&mut [4.0, 1.0, 2.0], 1.0), 4.0);
        assert_eq!(quantile(&mut [], 0.5), 0.0);
    }
}
