//! How far two clips are apart: PSNR and SSIM, per frame and over clips.
//!
//! Clips are `[channels, frames, height, width]` with values in [0, 1]; [`to_unit_range`] makes them from the samples
//! in [-1, 1] that models without a VAE put out.

mod clip;
mod error;
mod psnr;
mod ssim;
mod summary;

pub use clip::{ClipQuality, FrameQuality, compare, compare_batch, to_unit_range};
pub use error::QualityError;
pub use psnr::{decibels, mean_squared_error};
pub use ssim::{SSIM_WINDOW, ssim_of_frame};
pub use summary::{QualitySummary, Spread};
