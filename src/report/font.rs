//! A small bitmap font for captions in pictures: five pixels wide, seven high, one row a number.

use image::{Rgb, RgbImage};

/// Width of a glyph with the space after it.
pub(super) const ADVANCE: u32 = 6;
/// Height of a line: a glyph, and what hangs below the base line.
pub(super) const LINE_HEIGHT: u32 = GLYPH_HEIGHT + DESCENT;
const GLYPH_HEIGHT: u32 = 7;
const DESCENT: u32 = 2;
/// The letters that hang below the base line.
const DESCENDING: &str = "gpqy";

/// The rows of a glyph from top to bottom, the leftmost pixel in bit 4.
type Glyph = [u8; GLYPH_HEIGHT as usize];

#[rustfmt::skip]
static GLYPHS: &[(char, Glyph)] = &[
    (' ', [0b00000, 0b00000, 0b00000, 0b00000, 0b00000, 0b00000, 0b00000]),
    ('a', [0b00000, 0b00000, 0b01110, 0b00001, 0b01111, 0b10001, 0b01111]),
    ('b', [0b10000, 0b10000, 0b10110, 0b11001, 0b10001, 0b10001, 0b11110]),
    ('c', [0b00000, 0b00000, 0b01110, 0b10000, 0b10000, 0b10001, 0b01110]),
    ('d', [0b00001, 0b00001, 0b01101, 0b10011, 0b10001, 0b10001, 0b01111]),
    ('e', [0b00000, 0b00000, 0b01110, 0b10001, 0b11111, 0b10000, 0b01110]),
    ('f', [0b00110, 0b01001, 0b01000, 0b11100, 0b01000, 0b01000, 0b01000]),
    ('g', [0b01111, 0b10001, 0b10001, 0b10001, 0b01111, 0b00001, 0b01110]),
    ('h', [0b10000, 0b10000, 0b10110, 0b11001, 0b10001, 0b10001, 0b10001]),
    ('i', [0b00100, 0b00000, 0b01100, 0b00100, 0b00100, 0b00100, 0b01110]),
    ('j', [0b00010, 0b00000, 0b00110, 0b00010, 0b00010, 0b10010, 0b01100]),
    ('k', [0b10000, 0b10000, 0b10010, 0b10100, 0b11000, 0b10100, 0b10010]),
    ('l', [0b01100, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110]),
    ('m', [0b00000, 0b00000, 0b11010, 0b10101, 0b10101, 0b10001, 0b10001]),
    ('n', [0b00000, 0b00000, 0b10110, 0b11001, 0b10001, 0b10001, 0b10001]),
    ('o', [0b00000, 0b00000, 0b01110, 0b10001, 0b10001, 0b10001, 0b01110]),
    ('p', [0b10110, 0b11001, 0b10001, 0b10001, 0b11110, 0b10000, 0b10000]),
    ('q', [0b01101, 0b10011, 0b10001, 0b10001, 0b01111, 0b00001, 0b00001]),
    ('r', [0b00000, 0b00000, 0b10110, 0b11001, 0b10000, 0b10000, 0b10000]),
    ('s', [0b00000, 0b00000, 0b01111, 0b10000, 0b01110, 0b00001, 0b11110]),
    ('t', [0b01000, 0b01000, 0b11100, 0b01000, 0b01000, 0b01001, 0b00110]),
    ('u', [0b00000, 0b00000, 0b10001, 0b10001, 0b10001, 0b10011, 0b01101]),
    ('v', [0b00000, 0b00000, 0b10001, 0b10001, 0b10001, 0b01010, 0b00100]),
    ('w', [0b00000, 0b00000, 0b10001, 0b10001, 0b10101, 0b10101, 0b01010]),
    ('x', [0b00000, 0b00000, 0b10001, 0b01010, 0b00100, 0b01010, 0b10001]),
    ('y', [0b10001, 0b10001, 0b10001, 0b10001, 0b01111, 0b00001, 0b01110]),
    ('z', [0b00000, 0b00000, 0b11111, 0b00010, 0b00100, 0b01000, 0b11111]),
    ('0', [0b01110, 0b10001, 0b10011, 0b10101, 0b11001, 0b10001, 0b01110]),
    ('1', [0b00100, 0b01100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110]),
    ('2', [0b01110, 0b10001, 0b00001, 0b00010, 0b00100, 0b01000, 0b11111]),
    ('3', [0b11111, 0b00010, 0b00100, 0b00010, 0b00001, 0b10001, 0b01110]),
    ('4', [0b00010, 0b00110, 0b01010, 0b10010, 0b11111, 0b00010, 0b00010]),
    ('5', [0b11111, 0b10000, 0b11110, 0b00001, 0b00001, 0b10001, 0b01110]),
    ('6', [0b00110, 0b01000, 0b10000, 0b11110, 0b10001, 0b10001, 0b01110]),
    ('7', [0b11111, 0b00001, 0b00010, 0b00100, 0b01000, 0b01000, 0b01000]),
    ('8', [0b01110, 0b10001, 0b10001, 0b01110, 0b10001, 0b10001, 0b01110]),
    ('9', [0b01110, 0b10001, 0b10001, 0b01111, 0b00001, 0b00010, 0b01100]),
    ('.', [0b00000, 0b00000, 0b00000, 0b00000, 0b00000, 0b01100, 0b01100]),
    (',', [0b00000, 0b00000, 0b00000, 0b00000, 0b01100, 0b00100, 0b01000]),
    (':', [0b00000, 0b01100, 0b01100, 0b00000, 0b01100, 0b01100, 0b00000]),
    ('-', [0b00000, 0b00000, 0b00000, 0b01110, 0b00000, 0b00000, 0b00000]),
    ('+', [0b00000, 0b00100, 0b00100, 0b11111, 0b00100, 0b00100, 0b00000]),
    ('%', [0b11001, 0b11010, 0b00010, 0b00100, 0b01000, 0b01011, 0b10011]),
    ('/', [0b00001, 0b00010, 0b00010, 0b00100, 0b01000, 0b01000, 0b10000]),
    ('(', [0b00010, 0b00100, 0b01000, 0b01000, 0b01000, 0b00100, 0b00010]),
    (')', [0b01000, 0b00100, 0b00010, 0b00010, 0b00010, 0b00100, 0b01000]),
    ('=', [0b00000, 0b00000, 0b11111, 0b00000, 0b11111, 0b00000, 0b00000]),
    ('_', [0b00000, 0b00000, 0b00000, 0b00000, 0b00000, 0b00000, 0b11111]),
    ('#', [0b01010, 0b01010, 0b11111, 0b01010, 0b11111, 0b01010, 0b01010]),
    ('?', [0b01110, 0b10001, 0b00001, 0b00010, 0b00100, 0b00000, 0b00100]),
];

/// The glyph of a character; capitals look like small letters, and what the font does not have like `?`.
fn glyph(character: char) -> Glyph {
    let small = character.to_ascii_lowercase();
    let find = |wanted: char| GLYPHS.iter().find(|(have, _)| *have == wanted).map(|(_, glyph)| *glyph);
    find(small).or_else(|| find('?')).unwrap_or_default()
}

/// Draws `text` with its top left corner at (`left`, `top`), each pixel of the font `scale` pixels wide; as many
/// characters as fit into `width` pixels.
pub(super) fn draw(picture: &mut RgbImage, text: &str, left: u32, top: u32, width: u32, scale: u32, colour: Rgb<u8>) {
    let fitting = (width + scale) / (ADVANCE * scale).max(1);
    for (index, character) in (0..fitting).zip(text.chars()) {
        let drop = if DESCENDING.contains(character.to_ascii_lowercase()) {
            DESCENT
        } else {
            0
        };
        for (row, bits) in (0..GLYPH_HEIGHT).zip(glyph(character)) {
            for column in (0..5_u32).filter(|column| bits >> (4 - column) & 1 == 1) {
                let (x, y) = (left + (index * ADVANCE + column) * scale, top + (drop + row) * scale);
                for (dx, dy) in (0..scale).flat_map(|dy| (0..scale).map(move |dx| (dx, dy))) {
                    if let Some(pixel) = picture.get_pixel_mut_checked(x + dx, y + dy) {
                        *pixel = colour;
                    }
                }
            }
        }
    }
}

/// The width of `text` in pixels at a scale, without the space after it.
pub(super) fn text_width(text: &str, scale: u32) -> u32 {
    let characters = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
    characters
        .saturating_mul(ADVANCE)
        .saturating_sub(1)
        .saturating_mul(scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, width: u32) -> Vec<String> {
        let mut picture = RgbImage::new(text_width(text, 1), LINE_HEIGHT);
        draw(&mut picture, text, 0, 0, width, 1, Rgb([255; 3]));
        picture
            .rows()
            .map(|row| row.map(|pixel| if pixel.0[0] > 0 { '#' } else { '.' }).collect())
            .collect()
    }

    #[test]
    fn letters_look_like_letters() {
        let expected = [
            "...........",
            "...........",
            "#.##...###.",
            "##..#.....#",
            "#...#..####",
            "#...#.#...#",
            "####...####",
            "#..........",
            "#..........",
        ];
        assert_eq!(shown("pa", 99), expected);
        assert_eq!(shown("P", 99), shown("p", 99));
        assert_eq!(shown("\u{1f600}", 99), shown("?", 99));
    }

    #[test]
    fn text_is_cut_where_it_does_not_fit() {
        let cut = shown("ll", 10);
        assert!(cut.iter().all(|row| row.ends_with("......")), "{cut:?}");
        assert_eq!(shown("ll", 11)[0], ".##....##..");
    }

    #[test]
    fn glyphs_are_distinct() {
        for (index, (character, glyph)) in GLYPHS.iter().enumerate() {
            assert!(glyph.iter().all(|row| *row < 32), "{character}");
            assert!(
                GLYPHS[index + 1..]
                    .iter()
                    .all(|(other, rows)| other != character && rows != glyph),
                "{character}"
            );
        }
    }
}
