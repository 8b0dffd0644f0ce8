//! From a clip's values to pixels.

use image::{Rgb, RgbImage};
use ndarray::{ArrayView3, ArrayView4, Axis};

use super::ReportError;

/// The frames of a clip `[channels, frames, height, width]` in [0, 1] as pictures; one channel is shown grey, values
/// outside the range are held in it and NaN is black.
///
/// # Errors
/// [`ReportError::Clip`] for a clip with other than 1 or 3 channels, or without pixels.
pub fn frame_pictures(clip: ArrayView4<'_, f32>) -> Result<Vec<RgbImage>, ReportError> {
    let refuse = |reason: String| ReportError::Clip {
        shape: clip.shape().to_vec(),
        reason,
    };
    let channels = clip.len_of(Axis(0));
    if channels != 1 && channels != 3 {
        return Err(refuse(format!("it has {channels} channels")));
    }
    if clip.is_empty() {
        return Err(refuse("it is empty".to_owned()));
    }
    clip.axis_iter(Axis(1))
        .map(|frame| picture_of(frame).ok_or_else(|| refuse("its frames are too large".to_owned())))
        .collect()
}

/// One frame `[channels, height, width]`.
fn picture_of(frame: ArrayView3<'_, f32>) -> Option<RgbImage> {
    let (channels, height, width) = frame.dim();
    let size = (u32::try_from(width).ok()?, u32::try_from(height).ok()?);
    Some(RgbImage::from_fn(size.0, size.1, |x, y| {
        let level = |channel: usize| {
            let value = frame
                .get((channel.min(channels - 1), y as usize, x as usize))
                .copied()
                .unwrap_or(0.0);
            // `as` saturates and turns NaN into 0.
            (value * 255.0).round() as u8
        };
        Rgb([level(0), level(1), level(2)])
    }))
}

/// Draws a picture with its top left corner at (`left`, `top`), each pixel `scale` pixels wide, without smoothing.
pub(super) fn draw_scaled(onto: &mut RgbImage, picture: &RgbImage, left: u32, top: u32, scale: u32) {
    for y in 0..picture.height() * scale {
        for x in 0..picture.width() * scale {
            let source = picture.get_pixel_checked(x / scale.max(1), y / scale.max(1));
            if let (Some(target), Some(source)) = (onto.get_pixel_mut_checked(left + x, top + y), source) {
                *target = *source;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array4;

    use super::*;

    #[test]
    fn values_become_levels() {
        let mut clip = Array4::<f32>::zeros((3, 2, 2, 3));
        clip[[0, 1, 1, 2]] = 1.0;
        clip[[1, 1, 1, 2]] = 0.5;
        clip[[2, 0, 0, 0]] = 7.0;
        clip[[0, 0, 0, 0]] = f32::NAN;
        clip[[1, 0, 0, 0]] = -1.0;
        let pictures = frame_pictures(clip.view()).unwrap();
        assert_eq!(pictures.len(), 2);
        assert_eq!(pictures[0].dimensions(), (3, 2));
        assert_eq!(pictures[0].get_pixel(0, 0), &Rgb([0, 0, 255]));
        assert_eq!(pictures[1].get_pixel(2, 1), &Rgb([255, 128, 0]));
    }

    #[test]
    fn one_channel_is_grey() {
        let clip = Array4::from_elem((1, 1, 1, 1), 0.2_f32);
        assert_eq!(frame_pictures(clip.view()).unwrap()[0].get_pixel(0, 0), &Rgb([51; 3]));
    }

    #[test]
    fn latents_are_refused() {
        let latents = Array4::<f32>::zeros((4, 2, 8, 8));
        let message = frame_pictures(latents.view()).unwrap_err().to_string();
        assert!(message.contains("[4, 2, 8, 8]") && message.contains("4 channels") && message.contains("VAE"));
        assert!(frame_pictures(Array4::<f32>::zeros((3, 0, 8, 8)).view()).is_err());
    }

    #[test]
    fn scaling_repeats_pixels() {
        let mut picture = RgbImage::new(2, 1);
        picture.put_pixel(1, 0, Rgb([9; 3]));
        let mut onto = RgbImage::new(7, 4);
        draw_scaled(&mut onto, &picture, 1, 1, 3);
        let row: Vec<u8> = (0..7).map(|x| onto.get_pixel(x, 3).0[0]).collect();
        assert_eq!(row, [0, 0, 0, 0, 9, 9, 9]);
        assert!((0..7).all(|x| onto.get_pixel(x, 0).0[0] == 0));
    }
}
