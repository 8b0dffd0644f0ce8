//! From sizes in pixels to the latent that the transformer takes, and from its samples to what the decoder takes.

use super::PipelineError;
use super::family::Layout;
use crate::generation::{GenerationError, symbol_of};
use crate::runtime::Port;
use ndarray::{ArrayD, Axis, IxDyn};
use std::collections::BTreeMap;

/// The size of a clip as it was asked for, in pixels and frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PixelSize {
    /// `--height`.
    pub height: Option<usize>,
    /// `--width`.
    pub width: Option<usize>,
    /// `--frames`.
    pub frames: Option<usize>,
}

/// How many pixels and frames one value of a latent becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Factors {
    /// Pixels a side.
    pub pixels: usize,
    /// Frames; the first frame of a clip stands alone.
    pub frames: usize,
}

/// Values of a latent that a side of a patch has.
const PATCH: usize = 2;

/// Without a decoder a latent is the picture itself.
impl Default for Factors {
    fn default() -> Factors {
        Factors { pixels: 1, frames: 1 }
    }
}

/// The latent of one clip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatentShape {
    layout: Layout,
    noise: Vec<usize>,
}

/// An axis with the option that sets it.
struct Side {
    option: &'static str,
    given: Option<usize>,
    factor: usize,
    /// Whether the first one counts alone, as of frames.
    first_alone: bool,
}

impl Side {
    /// What was asked for as a size of the latent.
    fn latent(&self) -> Result<Option<usize>, PipelineError> {
        let Some(size) = self.given else { return Ok(None) };
        let factor = self.factor.max(1);
        let first = usize::from(self.first_alone);
        if size >= factor.max(1) || self.first_alone && size >= 1 {
            let rest = size - first;
            if rest % factor == 0 {
                return Ok(Some(rest / factor + first));
            }
        }
        let below = (size.saturating_sub(first) / factor).max(1 - first) * factor + first;
        let reason = match self.first_alone {
            true => format!("the VAE makes {factor} frames of each after the first"),
            false => format!("the VAE makes {factor} pixels a side of each value, so sizes are multiples of {factor}"),
        };
        Err(PipelineError::Size {
            option: self.option,
            size,
            reason,
            nearest: format!("{below} and {}", below + factor),
        })
    }

    /// A size of the latent in pixels or frames.
    fn shown(&self, latent: usize) -> usize {
        let first = usize::from(self.first_alone);
        latent.saturating_sub(first).saturating_mul(self.factor) + first
    }
}

impl LatentShape {
    /// The latent for the input `port` of a transformer: sizes that the model fixes, else those asked for in pixels, else
    /// those of `named` by the dimension's name.
    ///
    /// # Errors
    /// [`PipelineError::Size`] for sizes that no latent has, [`PipelineError::Fixed`] where the model fixes others,
    /// [`PipelineError::Open`] where a size is not known.
    pub fn new(
        port: &Port,
        layout: Layout,
        size: PixelSize,
        factors: Factors,
        named: &BTreeMap<String, usize>,
    ) -> Result<LatentShape, PipelineError> {
        let frames = Side {
            option: "frames",
            given: size.frames,
            factor: factors.frames,
            first_alone: true,
        };
        let [height, width] = [("height", size.height), ("width", size.width)].map(|(option, given)| Side {
            option,
            given,
            factor: factors.pixels,
            first_alone: false,
        });
        let known = |axis: usize| -> Result<usize, PipelineError> {
            let symbol = symbol_of(port, axis);
            let fixed = port.shape.get(axis).copied().flatten();
            let fixed = fixed.and_then(|size| usize::try_from(size).ok());
            fixed.or_else(|| named.get(&symbol).copied()).ok_or_else(|| {
                PipelineError::Generation(GenerationError::OpenSize {
                    input: port.name.clone(),
                    symbol,
                })
            })
        };
        let side = |side: &Side, axis: usize, word: &'static str| -> Result<usize, PipelineError> {
            let wanted = side.latent()?;
            match (known(axis), wanted) {
                (Ok(fixed), Some(wanted)) if fixed != wanted => Err(PipelineError::Fixed {
                    option: side.option,
                    given: side.given.unwrap_or(0),
                    fixed: side.shown(fixed),
                }),
                (Ok(size), _) | (Err(_), Some(size)) => Ok(size),
                (Err(_), None) => Err(PipelineError::Open {
                    input: port.name.clone(),
                    axis: word,
                    option: side.option,
                    symbol: symbol_of(port, axis),
                }),
            }
        };
        let alone = |side: &Side| match side.given {
            None | Some(1) => Ok(()),
            Some(given) => Err(PipelineError::Fixed {
                option: side.option,
                given,
                fixed: 1,
            }),
        };
        let noise = match (layout, port.shape.len()) {
            (Layout::Packed, 3) => {
                let needed = |side: &Side, word: &'static str| {
                    side.latent()?.ok_or_else(|| PipelineError::Open {
                        input: port.name.clone(),
                        axis: word,
                        option: side.option,
                        symbol: symbol_of(port, 1),
                    })
                };
                let sizes = [
                    needed(&frames, "the number of frames")?,
                    needed(&height, "the height")?,
                    needed(&width, "the width")?,
                ];
                let tokens = sizes
                    .iter()
                    .try_fold(1_usize, |product, size| product.checked_mul(*size));
                check_tokens(port, tokens, "frames, --height, --width")?;
                let [frames, height, width] = sizes;
                vec![1, known(2)?, frames, height, width]
            }
            (Layout::Patches, 3) => {
                alone(&frames)?;
                // A patch is two values of the latent a side.
                let sides = [(height, "the height"), (width, "the width")].map(|(side, word)| {
                    let side = Side {
                        factor: side.factor.saturating_mul(PATCH),
                        ..side
                    };
                    side.latent()?.ok_or_else(|| PipelineError::Open {
                        input: port.name.clone(),
                        axis: word,
                        option: side.option,
                        symbol: symbol_of(port, 1),
                    })
                });
                let [rows, columns] = sides;
                let (rows, columns) = (rows?, columns?);
                check_tokens(port, rows.checked_mul(columns), "height, --width")?;
                let channels = known(2)?;
                if channels % (PATCH * PATCH) != 0 {
                    return Err(PipelineError::Channels {
                        input: port.name.clone(),
                        channels,
                        values: PATCH * PATCH,
                    });
                }
                vec![1, channels / (PATCH * PATCH), rows * PATCH, columns * PATCH]
            }
            (Layout::FramesFirst, 5) => vec![
                1,
                side(&frames, 1, "the number of frames")?,
                known(2)?,
                side(&height, 3, "the height")?,
                side(&width, 4, "the width")?,
            ],
            (_, 5) => vec![
                1,
                known(1)?,
                side(&frames, 2, "the number of frames")?,
                side(&height, 3, "the height")?,
                side(&width, 4, "the width")?,
            ],
            (_, 4) => {
                alone(&frames)?;
                vec![
                    1,
                    known(1)?,
                    side(&height, 2, "the height")?,
                    side(&width, 3, "the width")?,
                ]
            }
            (_, rank) => {
                let mut sizes = vec![1];
                for axis in 1..rank {
                    sizes.push(known(axis)?);
                }
                sizes
            }
        };
        Ok(LatentShape { layout, noise })
    }

    /// How many tokens the transformer sees, where each value of the latent is one: what some schedulers shift by.
    pub fn tokens(&self) -> Option<usize> {
        Some(self.packed_sizes()?.iter().product())
    }

    /// The shape of the noise of one clip, with a batch of 1: `[1, channels, frames, height, width]`, or in the model's own
    /// order where that is not packed.
    #[must_use]
    pub fn noise(&self) -> &[usize] {
        &self.noise
    }

    /// Frames, rows and columns of the tokens that a packed latent is.
    #[must_use]
    pub fn packed_sizes(&self) -> Option<[usize; 3]> {
        match (self.layout, self.noise.as_slice()) {
            (Layout::Packed, [_, _, frames, height, width]) => Some([*frames, *height, *width]),
            (Layout::Patches, [_, _, height, width]) => Some([1, height / PATCH, width / PATCH]),
            _ => None,
        }
    }

    /// The shape of the latent of `clips` clips as the model takes it.
    #[must_use]
    pub fn in_model(&self, clips: usize) -> Vec<usize> {
        let mut shape = self.noise.clone();
        shape.iter_mut().take(1).for_each(|batch| *batch = clips);
        self.to_model(ArrayD::zeros(shape)).shape().to_vec()
    }

    /// Noise `[batch, ...]` as the model takes it.
    #[must_use]
    pub fn to_model(&self, noise: ArrayD<f32>) -> ArrayD<f32> {
        match (self.layout, noise.shape()) {
            (Layout::Packed, [batch, channels, frames, height, width]) => {
                let shape = IxDyn(&[*batch, frames * height * width, *channels]);
                let moved = noise.permuted_axes(IxDyn(&[0, 2, 3, 4, 1]));
                reshaped(moved, shape)
            }
            (Layout::Patches, [batch, channels, height, width]) => {
                let (rows, columns) = (height / PATCH, width / PATCH);
                let values = IxDyn(&[*batch, *channels, rows, PATCH, columns, PATCH]);
                let tokens = IxDyn(&[*batch, rows * columns, channels * PATCH * PATCH]);
                let moved = reshaped(noise, values).permuted_axes(IxDyn(&[0, 2, 4, 1, 3, 5]));
                reshaped(moved, tokens)
            }
            _ => noise,
        }
    }

    /// A sample of the model as `[batch, channels, frames, height, width]`, or `[batch, channels, height, width]`.
    #[must_use]
    pub fn to_decoder(&self, sample: ArrayD<f32>) -> ArrayD<f32> {
        match (self.layout, self.noise.as_slice()) {
            (Layout::Packed, [_, channels, frames, height, width]) if sample.ndim() == 3 => {
                let shape = IxDyn(&[sample.len_of(Axis(0)), *frames, *height, *width, *channels]);
                reshaped(sample, shape).permuted_axes(IxDyn(&[0, 4, 1, 2, 3]))
            }
            (Layout::Patches, [_, channels, height, width]) if sample.ndim() == 3 => {
                let batch = sample.len_of(Axis(0));
                let values = IxDyn(&[batch, height / PATCH, width / PATCH, *channels, PATCH, PATCH]);
                let moved = reshaped(sample, values).permuted_axes(IxDyn(&[0, 3, 1, 4, 2, 5]));
                reshaped(moved, IxDyn(&[batch, *channels, *height, *width]))
            }
            (Layout::FramesFirst, _) if sample.ndim() == 5 => sample.permuted_axes(IxDyn(&[0, 2, 1, 3, 4])),
            _ => sample,
        }
    }
}

/// Refuses another number of tokens than the model is made for.
fn check_tokens(port: &Port, tokens: Option<usize>, option: &'static str) -> Result<(), PipelineError> {
    match port.shape.get(1) {
        Some(Some(fixed)) if tokens != usize::try_from(*fixed).ok() => Err(PipelineError::Tokens {
            option,
            given: tokens.unwrap_or(usize::MAX),
            fixed: usize::try_from(*fixed).unwrap_or(0),
        }),
        _ => Ok(()),
    }
}

/// The same elements in row-major order under another shape, which has as many.
fn reshaped(array: ArrayD<f32>, shape: IxDyn) -> ArrayD<f32> {
    let elements: Vec<f32> = array.iter().copied().collect();
    ArrayD::from_shape_vec(shape, elements).unwrap_or(array)
}

#[cfg(test)]
mod tests;
