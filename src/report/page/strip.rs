//! A clip as one picture, its frames below each other, so that a page can play it without a script.

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::imageops::{FilterType as Resampling, resize};
use image::{ExtendedColorType, ImageEncoder, Rgb, RgbImage};
use ndarray::ArrayView4;

use crate::report::ReportError;
use crate::report::html::png_address;
use crate::report::picture::{draw_scaled, frame_pictures};

/// Larger clips are made smaller, to this many pixels at the longer side.
const LONGEST_SIDE: u32 = 320;
/// Browsers refuse pictures that are much higher.
const GREATEST_HEIGHT: u32 = 16_000;
/// A difference is brightened by the largest of these that leaves nearly all values below white.
const GAINS: [u16; 5] = [16, 8, 4, 2, 1];
/// The part of the values that may become white.
const CLIPPED: f64 = 0.001;

/// Strips of a clip by the original, of the same by another model, and of what differs.
#[derive(Clone, Debug)]
pub struct Strips {
    /// The original, the other and the difference, as addresses that hold the pictures.
    pub addresses: [String; 3],
    /// The size of a frame in pixels.
    pub size: (u32, u32),
    /// How many frames there are.
    pub frames: u32,
    /// How many the clip has.
    pub all_frames: usize,
    /// How much the difference is brightened.
    pub gain: u16,
}

impl Strips {
    /// Of two clips of one shape, `[channels, frames, height, width]` in [0, 1].
    ///
    /// # Errors
    /// [`ReportError::Clip`] for clips that cannot be shown or differ in shape.
    pub fn of(reference: ArrayView4<'_, f32>, other: ArrayView4<'_, f32>) -> Result<Strips, ReportError> {
        let refuse = |reason: String| ReportError::Clip {
            shape: other.shape().to_vec(),
            reason,
        };
        if reference.shape() != other.shape() {
            return Err(refuse(format!("the original's clip has shape {:?}", reference.shape())));
        }
        let (reference, other) = (frame_pictures(reference)?, frame_pictures(other)?);
        let all_frames = reference.len();
        let (width, height) = reference.first().map_or((1, 1), |frame| frame.dimensions());
        let scale = f64::from(LONGEST_SIDE) / f64::from(width.max(height));
        let side = |side: u32| ((f64::from(side) * scale.min(1.0)).round() as u32).max(1);
        let size = (side(width), side(height));
        let most = (GREATEST_HEIGHT / size.1).max(1) as usize;
        let smaller = |frames: Vec<RgbImage>| -> Vec<RgbImage> {
            let frames = frames.into_iter().take(most);
            match scale < 1.0 {
                true => frames
                    .map(|frame| resize(&frame, size.0, size.1, Resampling::Triangle))
                    .collect(),
                false => frames.collect(),
            }
        };
        let (reference, other) = (smaller(reference), smaller(other));
        let (difference, gain) = difference(&reference, &other);
        let address =
            |frames: &[RgbImage]| encoded(frames, size).ok_or_else(|| refuse("it cannot be encoded".to_owned()));
        Ok(Strips {
            addresses: [address(&reference)?, address(&other)?, address(&difference)?],
            size,
            frames: u32::try_from(reference.len()).unwrap_or(1),
            all_frames,
            gain,
        })
    }
}

/// The absolute difference of each pair of frames, brightened, and by how much.
fn difference(reference: &[RgbImage], other: &[RgbImage]) -> (Vec<RgbImage>, u16) {
    let levels = |one: &Rgb<u8>, other: &Rgb<u8>| {
        let mut levels = [0_u8; 3];
        for ((level, one), other) in levels.iter_mut().zip(one.0).zip(other.0) {
            *level = one.abs_diff(other);
        }
        Rgb(levels)
    };
    let pairs = reference.iter().zip(other);
    let mut frames: Vec<RgbImage> = pairs
        .map(|(one, other)| {
            let mut frame = one.clone();
            for (pixel, other) in frame.pixels_mut().zip(other.pixels()) {
                *pixel = levels(pixel, other);
            }
            frame
        })
        .collect();
    let values: usize = frames.iter().map(|frame| frame.as_raw().len()).sum();
    let white = |gain: u16| {
        let clipped = frames
            .iter()
            .flat_map(|frame| frame.as_raw())
            .filter(|level| u16::from(**level) * gain > 255);
        clipped.count() as f64
    };
    let gain = GAINS
        .into_iter()
        .find(|gain| white(*gain) <= CLIPPED * values as f64)
        .unwrap_or(1);
    for level in frames.iter_mut().flat_map(|frame| frame.iter_mut()) {
        *level = u8::try_from(u16::from(*level) * gain).unwrap_or(u8::MAX);
    }
    (frames, gain)
}

/// Frames below each other as a PNG in an address.
fn encoded(frames: &[RgbImage], (width, height): (u32, u32)) -> Option<String> {
    let count = u32::try_from(frames.len()).ok()?;
    let mut strip = RgbImage::new(width, height.checked_mul(count)?);
    for (place, frame) in (0..count).zip(frames) {
        draw_scaled(&mut strip, frame, 0, place * height, 1);
    }
    let mut png = Vec::new();
    PngEncoder::new_with_quality(&mut png, CompressionType::Best, FilterType::Adaptive)
        .write_image(strip.as_raw(), strip.width(), strip.height(), ExtendedColorType::Rgb8)
        .ok()?;
    Some(png_address(&png))
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use ndarray::Array4;

    use super::*;

    fn picture(address: &str) -> RgbImage {
        let data = address.strip_prefix("data:image/png;base64,").unwrap();
        let png = base64::engine::general_purpose::STANDARD.decode(data).unwrap();
        image::load_from_memory(&png).unwrap().into_rgb8()
    }

    #[test]
    fn frames_stand_below_each_other_and_differences_are_brightened() {
        let reference = Array4::from_shape_fn((3, 2, 4, 6), |(_, frame, ..)| frame as f32 * 0.5);
        let mut other = reference.clone();
        other[[0, 1, 3, 5]] += 10.0 / 255.0;
        let strips = Strips::of(reference.view(), other.view()).unwrap();
        assert_eq!((strips.size, strips.frames, strips.gain), ((6, 4), 2, 16));
        let [original, patched, difference] = strips.addresses.map(|address| picture(&address));
        assert_eq!(original.dimensions(), (6, 8));
        assert_eq!(
            (original.get_pixel(0, 3).0, original.get_pixel(0, 4).0),
            ([0; 3], [128; 3])
        );
        assert_eq!(patched.get_pixel(5, 7).0, [138, 128, 128]);
        assert_eq!(difference.get_pixel(5, 7).0, [160, 0, 0]);
        assert_eq!(difference.get_pixel(0, 0).0, [0; 3]);
    }

    #[test]
    fn large_clips_are_made_smaller_and_long_ones_shorter() {
        let clip = Array4::<f32>::zeros((1, 60, 320, 640));
        let strips = Strips::of(clip.view(), clip.view()).unwrap();
        assert_eq!((strips.size, strips.frames, strips.all_frames), ((320, 160), 60, 60));
        let clip = Array4::<f32>::zeros((1, 120, 200, 10));
        let strips = Strips::of(clip.view(), clip.view()).unwrap();
        assert_eq!((strips.size, strips.frames, strips.all_frames), ((10, 200), 80, 120));
        assert!(Strips::of(clip.view(), Array4::zeros((1, 2, 2, 2)).view()).is_err());
    }
}
