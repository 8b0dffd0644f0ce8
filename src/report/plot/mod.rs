//! Plots as SVG and PNG, without fonts of the system: figures are made of lines, areas and text, and written both ways.

mod chart;
mod heat;
mod raster;

pub use chart::{LineChart, Series};
pub use heat::HeatMap;

use super::{Pending, ReportError, write_atomically};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// A colour: red, green, blue.
pub type Colour = [u8; 3];

/// Colours that stay apart also for most who see few: Okabe and Ito's palette without yellow.
pub const COLOURS: [Colour; 7] = [
    [0, 114, 178],
    [213, 94, 0],
    [0, 158, 115],
    [204, 121, 167],
    [230, 159, 0],
    [86, 180, 233],
    [80, 80, 80],
];

/// Height of a line of text in pixels.
const TEXT_HEIGHT: f64 = 12.0;
/// Width of a character in pixels.
const TEXT_ADVANCE: f64 = 7.2;

/// Where a text stands from its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// To the right of it.
    Start,
    /// Around it.
    Middle,
    /// To the left of it.
    End,
}

/// A part of a figure; lengths in pixels from the top left corner.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    Line {
        points: Vec<(f64, f64)>,
        colour: Colour,
        width: f64,
    },
    Area {
        left: f64,
        top: f64,
        width: f64,
        height: f64,
        colour: Colour,
    },
    Dot {
        x: f64,
        y: f64,
        radius: f64,
        colour: Colour,
    },
    /// `y` is the base line.
    Text {
        x: f64,
        y: f64,
        text: String,
        anchor: Anchor,
    },
}

/// A figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    title: String,
    width: u32,
    height: u32,
    shapes: Vec<Shape>,
}

impl Figure {
    fn new(title: &str, width: u32, height: u32) -> Figure {
        let mut figure = Figure {
            title: title.to_owned(),
            width,
            height,
            shapes: Vec::new(),
        };
        figure.text(f64::from(width) / 2.0, 20.0, title, Anchor::Middle);
        figure
    }

    fn line(&mut self, points: &[(f64, f64)], colour: Colour, width: f64) {
        self.shapes.push(Shape::Line {
            points: points.to_vec(),
            colour,
            width,
        });
    }

    fn text(&mut self, x: f64, y: f64, text: &str, anchor: Anchor) {
        self.shapes.push(Shape::Text {
            x,
            y,
            text: text.to_owned(),
            anchor,
        });
    }

    /// The figure as an SVG document.
    pub fn svg(&self) -> String {
        let (width, height) = (self.width, self.height);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
             role=\"img\" font-family=\"ui-monospace, monospace\" font-size=\"{TEXT_HEIGHT}\">\n<title>{}</title>\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n",
            escaped(&self.title)
        );
        for shape in &self.shapes {
            // Writing to a string does not fail.
            let _ = match shape {
                Shape::Line { points, colour, width } => {
                    let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
                    let (colour, points) = (hex(*colour), points.join(" "));
                    writeln!(
                        svg,
                        "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>"
                    )
                }
                Shape::Area {
                    left,
                    top,
                    width,
                    height,
                    colour,
                } => writeln!(
                    svg,
                    "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{}\"/>",
                    hex(*colour)
                ),
                Shape::Dot { x, y, radius, colour } => writeln!(
                    svg,
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{}\"/>",
                    hex(*colour)
                ),
                Shape::Text { x, y, text, anchor } => {
                    let anchor = match anchor {
                        Anchor::Start => "start",
                        Anchor::Middle => "middle",
                        Anchor::End => "end",
                    };
                    let text = escaped(text);
                    writeln!(
                        svg,
                        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
                    )
                }
            };
        }
        svg.push_str("</svg>");
        svg
    }

    /// Writes `<name>.svg` and `<name>.png` into a folder; gives both paths.
    ///
    /// # Errors
    /// [`ReportError::Write`] where the operating system refuses, [`ReportError::Picture`] where the picture cannot be encoded.
    pub fn write(&self, folder: &Path, name: &str) -> Result<[PathBuf; 2], ReportError> {
        let (svg, png) = (folder.join(format!("{name}.svg")), folder.join(format!("{name}.png")));
        Pending::text(&svg, &self.svg())?.finish()?;
        let picture = raster::draw(self);
        let mut bytes = std::io::Cursor::new(Vec::new());
        let encoded = picture.write_to(&mut bytes, image::ImageFormat::Png);
        encoded.map_err(|error| ReportError::Picture {
            path: png.clone(),
            reason: error.to_string(),
        })?;
        write_atomically(&png, |file| {
            file.write_all(bytes.get_ref()).map_err(|source| ReportError::Write {
                path: png.clone(),
                source,
            })
        })?;
        Ok([svg, png])
    }
}

fn hex([red, green, blue]: Colour) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.chars().filter(|character| !character.is_control()).collect()
}

/// Round numbers that part `low` to `high` into about `count` stretches.
fn ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let rough = (high - low) / count.max(1) as f64;
    if !rough.is_finite() || rough <= 0.0 {
        return vec![low];
    }
    let step = round_step(rough);
    let first = (low / step - 1e-9).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    (first..=last).map(|place| place as f64 * step).collect()
}

/// The least of 1, 2 and 5 times a power of ten that is not below `rough`, which is above 0.
pub(super) fn round_step(rough: f64) -> f64 {
    let unit = 10_f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0].into_iter().map(|times| times * unit);
    steps.into_iter().find(|step| *step >= rough).unwrap_or(10.0 * unit)
}

/// A tick's number in few characters.
fn tick(value: f64) -> String {
    let rounded = (value * 1e6).round() / 1e6;
    match rounded == 0.0 && value != 0.0 {
        true => format!("{value:.0e}"),
        false => format!("{rounded}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(0.0, 50.0, 5), [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]);
        assert_eq!(
            ticks(0.93, 1.0, 4).into_iter().map(tick).collect::<Vec<_>>(),
            ["0.94", "0.96", "0.98", "1"]
        );
        assert_eq!(ticks(3.0, 3.0, 4), [3.0]);
        assert_eq!(tick(2e-9), "2e-9");
    }

    #[test]
    fn both_files_are_written_and_names_are_escaped() {
        let folder = tempfile::tempdir().unwrap();
        let chart = LineChart {
            title: "a < b".to_owned(),
            x: "step".to_owned(),
            y: "change".to_owned(),
            series: vec![Series::line("<script>", vec![(0.0, 1.0), (1.0, 3.0)])],
            x_marks: vec![(1.0, "here".to_owned())],
            logarithmic: false,
        };
        let [svg, png] = chart.figure().write(folder.path(), "plot").unwrap();
        let svg = std::fs::read_to_string(svg).unwrap();
        // A round number of the axis to the right, which has a mark of its own.
        assert!(svg.contains(">here</text>") && !svg.contains(">0.2</text>"), "{svg}");
        assert!(svg.contains("a &lt; b") && svg.contains("&lt;script&gt;") && !svg.contains("<script"));
        let picture = image::open(png).unwrap().to_rgb8();
        assert!(picture.pixels().any(|pixel| pixel.0 == COLOURS[0]));
    }
}
