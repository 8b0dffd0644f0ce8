//! Classifier-free guidance: Ho and Salimans, "Classifier-Free Diffusion Guidance" (2207.12598).

use ndarray::{ArrayD, ArrayViewD, Axis, Slice};

use super::SamplerError;

/// The axis of the channels in a sample `[batch, channels, ...]`, the layout of Latte, Open-Sora and Wan
/// (CogVideoX has frames there, and channels at 2).
pub const CHANNEL_AXIS: Axis = Axis(1);

/// The sample repeated along the batch, `[copies·batch, ...]`: with two copies what the model is given under guidance,
/// the first half for the empty prompt and the second half for the prompt.
///
/// # Errors
/// [`SamplerError::Guidance`] for a sample without a batch axis.
pub fn repeat_batch(sample: ArrayViewD<'_, f32>, copies: usize) -> Result<ArrayD<f32>, SamplerError> {
    let refuse = || SamplerError::Guidance {
        needed: "with a batch axis".to_owned(),
        shape: sample.shape().to_vec(),
    };
    if sample.ndim() == 0 || copies == 0 {
        return Err(refuse());
    }
    ndarray::concatenate(Axis(0), &vec![sample.view(); copies]).map_err(|_| refuse())
}

/// The guided prediction `u + scale · (c - u)`, `[batch, channels, ...]`, from a model output `[2·batch, ...]` whose
/// first half `u` was made for the empty prompt and second half `c` for the prompt.
///
/// `channels` is the sample's number of channels along `channel_axis`; a model with learned variances puts out twice
/// as many and the first half of them is taken. A scale of 1 gives `c` within rounding.
///
/// # Errors
/// [`SamplerError::Guidance`] where the batch is odd or the channels are neither `channels` nor twice as many.
pub fn guide(
    output: ArrayViewD<'_, f32>,
    scale: f32,
    channel_axis: Axis,
    channels: usize,
) -> Result<ArrayD<f32>, SamplerError> {
    let batch = output.shape().first().copied().unwrap_or(0);
    if batch == 0 || batch % 2 != 0 || channel_axis.index() == 0 {
        return Err(SamplerError::Guidance {
            needed: "of two halves along the batch, for the empty prompt and for the prompt".to_owned(),
            shape: output.shape().to_vec(),
        });
    }
    let output = channels_of(output, channel_axis, channels)?;
    let (unconditional, conditional) = output.split_at(Axis(0), batch / 2);
    let mut guided = unconditional.to_owned();
    guided.zip_mut_with(&conditional, |unconditional, &conditional| {
        *unconditional += scale * (conditional - *unconditional);
    });
    Ok(guided)
}

/// The prediction without the learned variances: the first `channels` channels of a model output that has `channels`
/// or twice as many along `channel_axis`.
///
/// # Errors
/// [`SamplerError::Guidance`] for another number of channels.
pub fn first_channels(
    output: ArrayViewD<'_, f32>,
    channel_axis: Axis,
    channels: usize,
) -> Result<ArrayD<f32>, SamplerError> {
    Ok(channels_of(output, channel_axis, channels)?.to_owned())
}

/// A view of the first `channels` channels.
fn channels_of(
    mut output: ArrayViewD<'_, f32>,
    axis: Axis,
    channels: usize,
) -> Result<ArrayViewD<'_, f32>, SamplerError> {
    let found = output.shape().get(axis.index()).copied();
    let double = channels.checked_mul(2);
    if found.is_none() || (found != Some(channels) && found != double) {
        return Err(SamplerError::Guidance {
            needed: format!(
                "with {channels} channels (or twice as many, with learned variances) along axis {}",
                axis.index()
            ),
            shape: output.shape().to_vec(),
        });
    }
    output.slice_axis_inplace(axis, Slice::from(..channels));
    Ok(output)
}

#[cfg(test)]
mod tests {
    use ndarray::{Array, IxDyn};

    use super::*;

    fn counted(shape: &[usize]) -> ArrayD<f32> {
        let count: usize = shape.iter().product();
        Array::from_shape_vec(IxDyn(shape), (0..count).map(|value| value as f32).collect()).unwrap()
    }

    #[test]
    fn guidance_extrapolates_from_the_unconditional_half() {
        let output = counted(&[4, 2, 3]);
        let guided = guide(output.view(), 2.0, CHANNEL_AXIS, 2).unwrap();
        assert_eq!(guided.shape(), [2, 2, 3]);
        // The halves differ by 12 everywhere: u + 2 * 12.
        assert_eq!(guided[[0, 0, 0]], 24.0);
        assert_eq!(guided[[1, 1, 2]], 11.0 + 24.0);
        assert_eq!(guide(output.view(), 0.0, CHANNEL_AXIS, 2).unwrap()[[1, 1, 2]], 11.0);
        assert_eq!(guide(output.view(), 1.0, CHANNEL_AXIS, 2).unwrap()[[1, 1, 2]], 23.0);
    }

    #[test]
    fn learned_variances_are_left_out() {
        let output = counted(&[2, 4, 3]);
        let guided = guide(output.view(), 1.0, CHANNEL_AXIS, 2).unwrap();
        assert_eq!(guided.shape(), [1, 2, 3]);
        assert_eq!(guided[[0, 1, 2]], 12.0 + 5.0);
        let plain = first_channels(output.view(), CHANNEL_AXIS, 2).unwrap();
        assert_eq!(plain.shape(), [2, 2, 3]);
        assert_eq!(plain[[1, 1, 2]], 17.0);
    }

    #[test]
    fn a_batch_repeats_in_order() {
        let repeated = repeat_batch(counted(&[2, 2]).view(), 2).unwrap();
        assert_eq!(repeated.as_slice().unwrap(), [0.0, 1.0, 2.0, 3.0, 0.0, 1.0, 2.0, 3.0]);
    }

    #[test]
    fn what_cannot_be_guided_is_refused() {
        for (shape, channels) in [
            (vec![3, 2], 2),
            (vec![4, 3], 2),
            (vec![], 1),
            (vec![4], 1),
            (vec![0, 2], 2),
        ] {
            let error = guide(counted(&shape).view(), 2.0, CHANNEL_AXIS, channels).unwrap_err();
            assert!(error.to_string().contains(&format!("{shape:?}")), "{error}");
        }
        assert!(repeat_batch(counted(&[]).view(), 2).is_err());
    }
}
