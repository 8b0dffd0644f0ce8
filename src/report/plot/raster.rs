//! Figures as pixels: twice as many each way as a figure has, from twice as many again.

use super::{Anchor, Colour, Figure, Shape, TEXT_HEIGHT};
use crate::report::font;
use image::{Rgb, RgbImage};

/// Pixels for a pixel of the figure, each way.
const SCALE: u32 = 2;
/// Pixels that are averaged to one, each way: see [`averaged`].
const FINE: u32 = 2;

/// The picture of a figure.
pub fn draw(figure: &Figure) -> RgbImage {
    let factor = f64::from(SCALE * FINE);
    let (width, height) = (figure.width * SCALE, figure.height * SCALE);
    let mut fine = RgbImage::from_pixel(width * FINE, height * FINE, Rgb([255; 3]));
    for shape in &figure.shapes {
        match shape {
            Shape::Area {
                left,
                top,
                width,
                height,
                colour,
            } => area(
                &mut fine,
                [*left, *top, left + width, top + height].map(|end| end * factor),
                *colour,
            ),
            Shape::Line { points, colour, width } => {
                for pair in points.windows(2) {
                    if let [from, to] = pair {
                        stroke(
                            &mut fine,
                            scaled(*from, factor),
                            scaled(*to, factor),
                            width * factor / 2.0,
                            *colour,
                        );
                    }
                }
            }
            Shape::Dot { x, y, radius, colour } => dot(&mut fine, scaled((*x, *y), factor), radius * factor, *colour),
            Shape::Text { .. } => {}
        }
    }
    let mut picture = averaged(&fine);
    for shape in &figure.shapes {
        if let Shape::Text { x, y, text, anchor } = shape {
            let length = font::text_width(text, SCALE);
            let left = x * f64::from(SCALE)
                - match anchor {
                    Anchor::Start => 0.0,
                    Anchor::Middle => f64::from(length) / 2.0,
                    Anchor::End => f64::from(length),
                };
            let top = (y - TEXT_HEIGHT * 0.7) * f64::from(SCALE);
            let (left, top) = (left.max(0.0) as u32, top.max(0.0) as u32);
            font::draw(&mut picture, text, left, top, length + SCALE, SCALE, Rgb([0; 3]));
        }
    }
    picture
}

/// Half as many pixels each way, each the mean of four.
fn averaged(fine: &RgbImage) -> RgbImage {
    let mean = |a: u8, b: u8, c: u8, d: u8| ((u16::from(a) + u16::from(b) + u16::from(c) + u16::from(d) + 2) / 4) as u8;
    let row = 3 * fine.width() as usize;
    let mut bytes = Vec::with_capacity(fine.as_raw().len() / 4);
    for rows in fine.as_raw().chunks_exact(2 * row.max(1)) {
        let (above, below) = rows.split_at(row);
        for four in above.chunks_exact(6).zip(below.chunks_exact(6)) {
            if let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = four {
                bytes.extend_from_slice(&[mean(*a, *d, *g, *j), mean(*b, *e, *h, *k), mean(*c, *f, *i, *l)]);
            }
        }
    }
    // The length is right, as the sizes are even.
    RgbImage::from_raw(fine.width() / FINE, fine.height() / FINE, bytes).unwrap_or_default()
}

fn scaled((x, y): (f64, f64), factor: f64) -> (f64, f64) {
    (x * factor, y * factor)
}

fn area(picture: &mut RgbImage, [left, top, right, bottom]: [f64; 4], colour: Colour) {
    // `as` saturates: what lies outside is cut off.
    for y in top.round() as u32..(bottom.round() as u32).min(picture.height()) {
        for x in left.round() as u32..(right.round() as u32).min(picture.width()) {
            picture.put_pixel(x, y, Rgb(colour));
        }
    }
}

fn dot(picture: &mut RgbImage, (x, y): (f64, f64), radius: f64, colour: Colour) {
    let radius = radius.max(0.5);
    for row in (y - radius).floor() as i64..=(y + radius).ceil() as i64 {
        for column in (x - radius).floor() as i64..=(x + radius).ceil() as i64 {
            let inside = (column as f64 + 0.5 - x).powi(2) + (row as f64 + 0.5 - y).powi(2) <= radius * radius;
            if let (true, Ok(column), Ok(row)) = (inside, u32::try_from(column), u32::try_from(row))
                && let Some(pixel) = picture.get_pixel_mut_checked(column, row)
            {
                *pixel = Rgb(colour);
            }
        }
    }
}

fn stroke(picture: &mut RgbImage, from: (f64, f64), to: (f64, f64), radius: f64, colour: Colour) {
    let length = (to.0 - from.0).hypot(to.1 - from.1);
    if !length.is_finite() {
        return;
    }
    let dots = length.ceil().max(1.0) as u32;
    for place in 0..=dots {
        let share = f64::from(place) / f64::from(dots);
        let point = (from.0 + share * (to.0 - from.0), from.1 + share * (to.1 - from.1));
        dot(picture, point, radius, colour);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_pixels_become_their_mean() {
        let fine = RgbImage::from_fn(4, 2, |x, y| Rgb([(10 * x) as u8, (100 * y) as u8, 255]));
        let picture = averaged(&fine);
        assert_eq!(picture.dimensions(), (2, 1));
        assert_eq!(
            (picture.get_pixel(0, 0).0, picture.get_pixel(1, 0).0),
            ([5, 50, 255], [25, 50, 255])
        );
    }
}
