//! Lines and points over two axes.

use super::{Anchor, COLOURS, Figure, Shape, TEXT_ADVANCE, tick, ticks};

/// Lines or points over two axes.
#[derive(Clone, Debug, PartialEq)]
pub struct LineChart {
    /// What is shown.
    pub title: String,
    /// What goes to the right.
    pub x: String,
    /// What goes up.
    pub y: String,
    /// Where the axis to the right is marked, and as what; nothing marks it at round numbers.
    pub x_marks: Vec<(f64, String)>,
    /// The lines.
    pub series: Vec<Series>,
    /// Whether the upward axis is logarithmic; values of 0 and less are then left out.
    pub logarithmic: bool,
}

/// Values of one thing.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its name, for the legend.
    pub name: String,
    /// Its points.
    pub points: Vec<(f64, f64)>,
    /// Whether they are joined.
    pub joined: bool,
    /// Whether each has a dot.
    pub dotted: bool,
}

impl Series {
    /// Points that are joined.
    pub fn line(name: &str, points: Vec<(f64, f64)>) -> Series {
        Series {
            name: name.to_owned(),
            points,
            joined: true,
            dotted: false,
        }
    }

    /// Points with dots, joined too where `joined`.
    pub fn dots(name: &str, points: Vec<(f64, f64)>, joined: bool) -> Series {
        Series {
            name: name.to_owned(),
            points,
            joined,
            dotted: true,
        }
    }
}

const WIDTH: u32 = 760;
const HEIGHT: u32 = 440;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 50.0;
const GREY: [u8; 3] = [221, 221, 221];
const BLACK: [u8; 3] = [0, 0, 0];

impl LineChart {
    /// The figure.
    pub fn figure(&self) -> Figure {
        let mut figure = Figure::new(&self.title, WIDTH, HEIGHT);
        let (right, bottom) = (f64::from(WIDTH) - RIGHT, f64::from(HEIGHT) - BOTTOM);
        let up = |value: f64| match self.logarithmic {
            true => value.log10(),
            false => value,
        };
        let points = || {
            let all = self.series.iter().flat_map(|series| &series.points);
            all.map(|(x, y)| (*x, up(*y)))
                .filter(|(x, y)| x.is_finite() && y.is_finite())
        };
        let [left_end, right_end] = ends(points().map(|(x, _)| x));
        let [low, high] = ends(points().map(|(_, y)| y));
        let place = |(x, y): (f64, f64)| {
            (
                LEFT + (x - left_end) / (right_end - left_end) * (right - LEFT),
                bottom - (y - low) / (high - low) * (bottom - TOP),
            )
        };
        let marks = match self.x_marks.is_empty() {
            true => {
                let round = ticks(left_end, right_end, 8).into_iter();
                round.map(|value| (value, tick(value))).collect()
            }
            false => self.x_marks.clone(),
        };
        for (value, mark) in marks {
            let (x, _) = place((value, low));
            figure.line(&[(x, TOP), (x, bottom)], GREY, 1.0);
            figure.text(x, bottom + 16.0, &mark, Anchor::Middle);
        }
        for value in ticks(low, high, 6) {
            let (_, y) = place((left_end, value));
            figure.line(&[(LEFT, y), (right, y)], GREY, 1.0);
            let shown = if self.logarithmic { 10_f64.powf(value) } else { value };
            let shown = match self.logarithmic {
                true if (0.1..1e4).contains(&shown) => tick((shown * 10.0).round() / 10.0),
                true => format!("{shown:.1e}"),
                false => tick(shown),
            };
            figure.text(LEFT - 6.0, y + 4.0, &shown, Anchor::End);
        }
        figure.line(&[(LEFT, TOP), (LEFT, bottom), (right, bottom)], BLACK, 1.0);
        figure.text((LEFT + right) / 2.0, bottom + 36.0, &self.x, Anchor::Middle);
        figure.text(8.0, 36.0, &self.y, Anchor::Start);
        let mut legend = LEFT + 8.0;
        for (series, colour) in self.series.iter().zip(COLOURS.iter().cycle()) {
            let points = series.points.iter().map(|(x, y)| (*x, up(*y)));
            let placed: Vec<(f64, f64)> = points
                .filter(|(x, y)| x.is_finite() && y.is_finite())
                .map(place)
                .collect();
            if series.joined {
                figure.line(&placed, *colour, 2.0);
            }
            for (x, y) in placed.into_iter().filter(|_| series.dotted) {
                let radius = 4.0;
                let colour = *colour;
                figure.shapes.push(Shape::Dot { x, y, radius, colour });
            }
            figure.shapes.push(Shape::Area {
                left: legend,
                top: 44.0,
                width: 14.0,
                height: 8.0,
                colour: *colour,
            });
            figure.text(legend + 18.0, 52.0, &series.name, Anchor::Start);
            legend += 34.0 + TEXT_ADVANCE * series.name.chars().count() as f64;
        }
        figure
    }
}

/// The least and the greatest, apart.
fn ends(values: impl Iterator<Item = f64>) -> [f64; 2] {
    let [low, high] = values.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], value| {
        [low.min(value), high.max(value)]
    });
    match low < high {
        true => {
            let margin = (high - low) * 0.03;
            [low - margin, high + margin]
        }
        false if low.is_finite() => [low - 0.5, low + 0.5],
        false => [0.0, 1.0],
    }
}
