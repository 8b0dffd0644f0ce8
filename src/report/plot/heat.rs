//! A row of coloured fields for each of several things.

use super::{Anchor, Colour, Figure, Shape, TEXT_ADVANCE, ticks};

/// A row of coloured fields for each of several things.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatMap {
    /// What is shown.
    pub title: String,
    /// What goes to the right.
    pub x: String,
    /// The number of the first column.
    pub first: usize,
    /// Name and values of each row.
    pub rows: Vec<(String, Vec<f64>)>,
}

const ROW: f64 = 12.0;
const TOP: f64 = 40.0;
const FIELDS: f64 = 600.0;
/// Colours from the least to the greatest, evenly apart: dark to light, so that it also prints.
const SCALE: [Colour; 6] = [
    [13, 8, 135],
    [106, 0, 168],
    [177, 42, 144],
    [225, 100, 98],
    [252, 166, 54],
    [240, 249, 33],
];

impl HeatMap {
    /// The figure. Colours are by the logarithm of the values, from the least above 0 to the greatest.
    pub fn figure(&self) -> Figure {
        let longest = self
            .rows
            .iter()
            .map(|(name, _)| name.chars().count())
            .max()
            .unwrap_or(0);
        let left = 16.0 + TEXT_ADVANCE * longest as f64;
        let columns = self
            .rows
            .iter()
            .map(|(_, values)| values.len())
            .max()
            .unwrap_or(0)
            .max(1);
        let field = FIELDS / columns as f64;
        let bottom = TOP + ROW * self.rows.len() as f64;
        let mut figure = Figure::new(&self.title, (left + FIELDS + 20.0) as u32, (bottom + 90.0) as u32);
        let values = || self.rows.iter().flat_map(|(_, values)| values.iter().copied());
        let known = || values().filter(|value| value.is_finite() && *value > 0.0);
        let low = known().fold(f64::INFINITY, f64::min);
        let high = known().fold(0.0, f64::max);
        let share = |value: f64| match value > low && high > low {
            true => ((value / low).ln() / (high / low).ln()).clamp(0.0, 1.0),
            false => 0.0,
        };
        for (row, (name, values)) in self.rows.iter().enumerate() {
            let top = TOP + ROW * row as f64;
            figure.text(left - 6.0, top + 10.0, name, Anchor::End);
            for (column, value) in values.iter().enumerate() {
                figure.shapes.push(Shape::Area {
                    left: left + field * column as f64,
                    top,
                    // A little over the next, so that no seam shows.
                    width: field + 0.3,
                    height: ROW,
                    colour: colour(share(*value)),
                });
            }
        }
        for value in ticks(self.first as f64, (self.first + columns - 1) as f64, 10) {
            let x = left + field * (value - self.first as f64 + 0.5);
            figure.text(x, bottom + 16.0, &format!("{value}"), Anchor::Middle);
        }
        figure.text(left + FIELDS / 2.0, bottom + 34.0, &self.x, Anchor::Middle);
        for place in 0..60 {
            figure.shapes.push(Shape::Area {
                left: left + FIELDS / 2.0 - 120.0 + 4.0 * f64::from(place),
                top: bottom + 48.0,
                width: 4.3,
                height: ROW,
                colour: colour(f64::from(place) / 59.0),
            });
        }
        if low.is_finite() {
            let (from, to) = (left + FIELDS / 2.0 - 128.0, left + FIELDS / 2.0 + 128.0);
            figure.text(from, bottom + 58.0, &format!("{low:.1e}"), Anchor::End);
            figure.text(to, bottom + 58.0, &format!("{high:.1e}"), Anchor::Start);
        }
        figure
    }
}

/// The colour at a share of the scale, 0 to 1.
fn colour(share: f64) -> Colour {
    let place = share * (SCALE.len() - 1) as f64;
    let index = (place.floor() as usize).min(SCALE.len() - 2);
    let part = place - index as f64;
    match SCALE.get(index..index + 2) {
        Some([from, to]) => {
            let mix = |from: u8, to: u8| (f64::from(from) + part * (f64::from(to) - f64::from(from))).round() as u8;
            [mix(from[0], to[0]), mix(from[1], to[1]), mix(from[2], to[2])]
        }
        _ => [0; 3],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_go_from_dark_to_light() {
        assert_eq!((colour(0.0), colour(1.0)), (SCALE[0], SCALE[5]));
        let map = HeatMap {
            title: "change".to_owned(),
            x: "step".to_owned(),
            first: 1,
            rows: vec![("a".to_owned(), vec![0.1, 10.0]), ("b".to_owned(), vec![0.0, 1.0])],
        };
        let svg = map.figure().svg();
        assert!(svg.contains("#0d0887") && svg.contains("#f0f921") && svg.contains("1.0e1"));
    }
}
