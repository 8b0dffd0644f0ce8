//! Why two clips cannot be compared.

use super::lpips::LpipsError;

/// An error of a comparison. Each says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum QualityError {
    /// The shapes differ.
    #[error(
        "the clips have different shapes, {reference:?} and {other:?} ([channels, frames, height, width]); generate both with the same number of frames and the same size"
    )]
    Shapes {
        /// Shape of the reference.
        reference: Vec<usize>,
        /// Shape of the other.
        other: Vec<usize>,
    },
    /// A clip has no pixels.
    #[error("the clips are empty: their shape is {shape:?}")]
    Empty {
        /// The shape.
        shape: Vec<usize>,
    },
    /// A frame is smaller than the window of SSIM.
    #[error(
        "SSIM needs frames of at least {window}x{window} pixels, these have {width}x{height}; compare larger frames"
    )]
    Small {
        /// Side of the window.
        window: usize,
        /// Width of the frames.
        width: usize,
        /// Height of the frames.
        height: usize,
    },
    /// A pixel is NaN or infinite.
    #[error(
        "the {which} clip has a pixel that is not a finite number at frame {frame}; the model's output broke down there: run it in a higher precision"
    )]
    NotFinite {
        /// `reference` or `other`.
        which: &'static str,
        /// The frame, from zero.
        frame: usize,
    },
    /// LPIPS cannot be measured.
    #[error(transparent)]
    Lpips(#[from] LpipsError),
}
