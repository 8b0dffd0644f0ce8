//! How far two clips are apart: PSNR, SSIM, MS-SSIM, LPIPS and flicker, per frame and over clips.
//!
//! Clips are `[channels, frames, height, width]` with values in [0, 1]; [`to_unit_range`] makes them from the samples
//! in [-1, 1] that models without a VAE put out.

mod clip;
mod error;
mod flicker;
mod lpips;
mod ms_ssim;
mod psnr;
mod ssim;
mod summary;
#[cfg(test)]
mod test_clips;
mod window;

pub use clip::{ClipQuality, FrameQuality, compare, compare_batch, compare_fully, to_unit_range};
pub use error::QualityError;
pub use flicker::{Flicker, flicker};
pub use lpips::{Heads, LPIPS_SIDE, Lpips, LpipsError};
pub use ms_ssim::{MS_SSIM_SIDE, ms_ssim_of_frame};
pub use psnr::{decibels, mean_squared_error};
pub use ssim::ssim_of_frame;
pub use summary::{DistanceSpread, QualitySummary, Spread};
pub use window::SSIM_WINDOW;
