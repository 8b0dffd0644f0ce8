//! Clips as animated GIFs: one clip, or many pairs of original beside patched.

use std::path::Path;

use image::codecs::gif::{GifEncoder, Repeat};
use image::{Delay, Frame, Rgb, RgbImage};
use ndarray::ArrayView4;

use super::ReportError;
use super::atomic::write_atomically;
use super::font;
use super::picture::{draw_scaled, frame_pictures};

const GROUND: Rgb<u8> = Rgb([24, 24, 27]);
const TEXT: Rgb<u8> = Rgb([228, 228, 231]);
/// Pixels between the two clips of a pair, between pairs, and around the picture.
const SEPARATOR: u32 = 2;
const GAP: u32 = 12;
/// How much captions are enlarged where all of them fit.
const CAPTION_SCALE: u32 = 2;
/// What stands above the clips of a pair.
const HEADINGS: [&str; 2] = ["original", "patched"];
/// Work of the colour quantiser, 1 (slow) to 30; frames of up to 256 colours are exact in any case.
const QUANTISER_SPEED: i32 = 10;

/// A frame rate that viewers of GIFs honour: 1 to 50 frames a second. GIF counts in hundredths of a second, so the
/// rate is rounded to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FramesPerSecond(u32);

impl FramesPerSecond {
    /// The frame rate.
    ///
    /// # Errors
    /// [`ReportError::FrameRate`] outside 1 to 50.
    pub fn new(rate: u32) -> Result<FramesPerSecond, ReportError> {
        if (1..=50).contains(&rate) {
            Ok(FramesPerSecond(rate))
        } else {
            Err(ReportError::FrameRate(rate))
        }
    }

    /// Frames a second.
    pub(super) fn number(self) -> u32 {
        self.0
    }
}

/// A clip by the original model beside the same clip by the patched model, both `[channels, frames, height, width]`
/// in [0, 1].
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// What stands below the pair, such as the prompt; may be empty.
    pub caption: &'a str,
    /// By the original model.
    pub original: ArrayView4<'a, f32>,
    /// By the patched model.
    pub patched: ArrayView4<'a, f32>,
}

/// Writes one clip `[channels, frames, height, width]` in [0, 1] as an animated GIF that repeats for ever, each pixel
/// `scale` pixels wide (0 counts as 1).
///
/// # Errors
/// [`ReportError::Clip`] for a clip that cannot be shown, [`ReportError::PictureSize`] for one too large for a GIF,
/// [`ReportError::Write`] where the operating system refuses.
pub fn write_animation(
    path: &Path,
    clip: ArrayView4<'_, f32>,
    rate: FramesPerSecond,
    scale: u32,
) -> Result<(), ReportError> {
    let scale = scale.max(1);
    let frames = frame_pictures(clip)?;
    let (width, height) = frames.first().map_or((0, 0), |frame| frame.dimensions());
    let (width, height) = gif_size(
        u64::from(width) * u64::from(scale),
        u64::from(height) * u64::from(scale),
    )?;
    let scaled = frames.iter().map(|frame| {
        let mut picture = RgbImage::new(width, height);
        draw_scaled(&mut picture, frame, 0, 0, scale);
        picture
    });
    write_gif(path, scaled, rate)
}

/// Writes one clip `[channels, frames, height, width]` in [0, 1] as an animated PNG that repeats for ever, with every colour
/// as it is, each pixel `scale` pixels wide (0 counts as 1).
///
/// # Errors
/// [`ReportError::Clip`] for a clip that cannot be shown, [`ReportError::Picture`] where it cannot be encoded,
/// [`ReportError::Write`] where the operating system refuses.
pub fn write_apng(
    path: &Path,
    clip: ArrayView4<'_, f32>,
    rate: FramesPerSecond,
    scale: u32,
) -> Result<(), ReportError> {
    let scale = scale.max(1);
    let frames = frame_pictures(clip)?;
    let (width, height) = frames.first().map_or((0, 0), |frame| frame.dimensions());
    let (width, height) = (width.saturating_mul(scale), height.saturating_mul(scale));
    let refuse = |error: png::EncodingError| match error {
        png::EncodingError::IoError(source) => super::atomic::failed(path, source),
        error => ReportError::Picture {
            path: path.to_owned(),
            reason: error.to_string(),
        },
    };
    write_atomically(path, |file| {
        let mut encoder = png::Encoder::new(file, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let count = u32::try_from(frames.len()).unwrap_or(u32::MAX);
        encoder.set_animated(count, 0).map_err(refuse)?;
        let rate = u16::try_from(rate.0).unwrap_or(1);
        encoder.set_frame_delay(1, rate).map_err(refuse)?;
        let mut writer = encoder.write_header().map_err(refuse)?;
        for frame in &frames {
            let mut picture = RgbImage::new(width, height);
            draw_scaled(&mut picture, frame, 0, 0, scale);
            writer.write_image_data(picture.as_raw()).map_err(refuse)?;
        }
        writer.finish().map_err(refuse)
    })
}

/// Writes pairs of clips in a grid as an animated GIF that repeats for ever: originals left, patched right, a caption
/// above each column of pairs and below each pair, each pixel of a clip `scale` pixels wide (0 counts as 1).
///
/// # Errors
/// [`ReportError::Clip`] where there is no pair, clips cannot be shown or their shapes differ,
/// [`ReportError::PictureSize`] for a grid too large for a GIF, [`ReportError::Write`] where the operating system
/// refuses.
pub fn write_pairs(path: &Path, pairs: &[Pair<'_>], rate: FramesPerSecond, scale: u32) -> Result<(), ReportError> {
    let scale = scale.max(1);
    let refuse = |shape: &[usize], reason: &str| ReportError::Clip {
        shape: shape.to_vec(),
        reason: reason.to_owned(),
    };
    let first = pairs.first().ok_or_else(|| refuse(&[], "there is no clip"))?.original;
    let mut clips = Vec::with_capacity(pairs.len());
    for pair in pairs {
        for clip in [&pair.original, &pair.patched] {
            if clip.shape() != first.shape() {
                return Err(refuse(
                    clip.shape(),
                    &format!("the first clip has shape {:?}", first.shape()),
                ));
            }
        }
        clips.push((
            pair.caption,
            frame_pictures(pair.original)?,
            frame_pictures(pair.patched)?,
        ));
    }
    let size = clips
        .first()
        .and_then(|(_, frames, _)| frames.first())
        .map_or((0, 0), |frame| frame.dimensions());
    let captions: Vec<&str> = pairs.iter().map(|pair| pair.caption).collect();
    let grid = Grid::new(&captions, size, scale)?;
    let frames = first.shape().get(1).copied().unwrap_or(0);
    let pictures = (0..frames).map(|index| {
        let mut picture = grid.ground();
        for (place, (caption, original, patched)) in clips.iter().enumerate() {
            if let (Some(original), Some(patched)) = (original.get(index), patched.get(index)) {
                grid.draw(&mut picture, place, caption, original, patched);
            }
        }
        picture
    });
    write_gif(path, pictures, rate)
}

/// Where the pairs stand.
struct Grid {
    scale: u32,
    columns: u32,
    /// The room of a clip, which may be wider than the clip so that its heading fits.
    pane: (u32, u32),
    cell: (u32, u32),
    picture: (u32, u32),
    heading: u32,
    /// How much all captions and headings are enlarged.
    caption_scale: u32,
}

impl Grid {
    /// As many columns as make the picture about half as wide again as high.
    fn new(captions: &[&str], (width, height): (u32, u32), scale: u32) -> Result<Grid, ReportError> {
        let pairs = captions.len();
        let scaled = |side: u32| u64::from(side) * u64::from(scale);
        let heading = HEADINGS.map(|heading| u64::from(font::text_width(heading, 1)));
        let pane = (scaled(width).max(heading[0]).max(heading[1]), scaled(height));
        // Nothing below can overflow once a pane is known to fit.
        gif_size(pane.0, pane.1)?;
        let pair = pane.0 * 2 + u64::from(SEPARATOR);
        let fits = |text: &&str, width: u64| u64::from(font::text_width(text, CAPTION_SCALE)) <= width;
        let all_fit = HEADINGS.iter().all(|text| fits(text, pane.0)) && captions.iter().all(|text| fits(text, pair));
        let caption_scale = if all_fit { CAPTION_SCALE } else { 1 };
        let line = u64::from(font::LINE_HEIGHT * caption_scale + 6);
        let captioned = captions.iter().any(|caption| !caption.is_empty());
        let cell = (pair, pane.1 + if captioned { line } else { 0 });
        let gap = u64::from(GAP);
        let ideal = (pairs as f64 * (cell.1 + gap) as f64 * 1.5 / (cell.0 + gap) as f64)
            .sqrt()
            .round() as u64;
        let columns = ideal.clamp(1, pairs as u64);
        let rows = (pairs as u64).div_ceil(columns);
        let picture = gif_size(gap + columns * (cell.0 + gap), line + gap + rows * (cell.1 + gap))?;
        let small = |side: u64| u32::try_from(side).unwrap_or(u32::MAX);
        Ok(Grid {
            scale,
            columns: small(columns),
            pane: (small(pane.0), small(pane.1)),
            cell: (small(cell.0), small(cell.1)),
            picture,
            heading: small(line),
            caption_scale,
        })
    }

    /// The picture without clips: ground and column headings.
    fn ground(&self) -> RgbImage {
        let mut picture = RgbImage::from_pixel(self.picture.0, self.picture.1, GROUND);
        for column in 0..self.columns {
            let left = GAP + column * (self.cell.0 + GAP);
            for (place, heading) in (0..).zip(HEADINGS) {
                let left = left + place * (self.pane.0 + SEPARATOR);
                self.write(&mut picture, heading, left, GAP, self.pane.0);
            }
        }
        picture
    }

    fn draw(&self, picture: &mut RgbImage, place: usize, caption: &str, original: &RgbImage, patched: &RgbImage) {
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        let left = GAP + place % self.columns * (self.cell.0 + GAP);
        let top = GAP + self.heading + place / self.columns * (self.cell.1 + GAP);
        draw_scaled(picture, original, left, top, self.scale);
        draw_scaled(picture, patched, left + self.pane.0 + SEPARATOR, top, self.scale);
        self.write(picture, caption, left, top + self.pane.1 + 4, self.cell.0);
    }

    fn write(&self, picture: &mut RgbImage, text: &str, left: u32, top: u32, width: u32) {
        font::draw(picture, text, left, top, width, self.caption_scale, TEXT);
    }
}

/// The size of a picture, where a GIF can have it.
fn gif_size(width: u64, height: u64) -> Result<(u32, u32), ReportError> {
    let largest = u64::from(u16::MAX);
    if width > largest || height > largest {
        let side = |side: u64| usize::try_from(side).unwrap_or(usize::MAX);
        return Err(ReportError::PictureSize {
            width: side(width),
            height: side(height),
        });
    }
    Ok((width as u32, height as u32))
}

fn write_gif(
    path: &Path,
    pictures: impl Iterator<Item = RgbImage>,
    FramesPerSecond(rate): FramesPerSecond,
) -> Result<(), ReportError> {
    let refuse = |error: image::ImageError| ReportError::Picture {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    // In hundredths of a second already, so that the encoder has nothing to cut off.
    let delay = Delay::from_numer_denom_ms((100.0 / f64::from(rate)).round() as u32 * 10, 1);
    write_atomically(path, |file| {
        let mut encoder = GifEncoder::new_with_speed(file, QUANTISER_SPEED);
        encoder.set_repeat(Repeat::Infinite).map_err(refuse)?;
        for picture in pictures {
            let picture = image::DynamicImage::from(picture).into_rgba8();
            encoder
                .encode_frame(Frame::from_parts(picture, 0, 0, delay))
                .map_err(refuse)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests;
