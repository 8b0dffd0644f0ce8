//! Curves over ranks as a picture in SVG.

use std::path::Path;

use plotters::prelude::{
    ChartBuilder, Color, DrawingArea, DrawingAreaErrorKind, IntoDrawingArea, IntoLogRange, LineSeries, PathElement,
    RGBColor, SVGBackend, SeriesLabelPosition, WHITE,
};

use super::ReportError;

/// Width and height in pixels.
const SIZE: (u32, u32) = (760, 460);
/// Colours that stay apart in grey and for the colour-blind.
const COLOURS: [RGBColor; 4] = [
    RGBColor(0, 90, 160),
    RGBColor(210, 80, 0),
    RGBColor(90, 90, 90),
    RGBColor(0, 140, 110),
];

/// A line of a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    name: String,
    points: Vec<(f64, f64)>,
    thin: bool,
}

impl Curve {
    /// A curve through points of ranks and seconds.
    pub fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Curve {
        Curve {
            name: name.into(),
            points,
            thin: false,
        }
    }

    /// The same as a thin line, to compare with.
    #[must_use]
    pub fn thin(self) -> Curve {
        Curve { thin: true, ..self }
    }
}

/// Seconds over ranks, both on logarithmic axes, for the file `path`.
///
/// # Errors
/// [`ReportError::Picture`] where there is nothing to draw.
pub fn seconds_over_ranks(path: &Path, title: &str, curves: &[Curve]) -> Result<String, ReportError> {
    let fault = |reason: String| ReportError::Picture {
        path: path.to_owned(),
        reason,
    };
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let most_ranks = points().map(|point| point.0).fold(2.0, f64::max);
    let least = points().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let most = points().map(|point| point.1).fold(0.0, f64::max);
    if !(least > 0.0 && least.is_finite() && most.is_finite()) {
        return Err(fault("there are no times above 0".to_owned()));
    }
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
    draw(&area, title, curves, most_ranks, (least * 0.8, most * 1.3)).map_err(|error| fault(error.to_string()))?;
    drop(area);
    Ok(text)
}

type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as plotters::prelude::DrawingBackend>::ErrorType>>;

fn draw<'a>(
    area: &DrawingArea<SVGBackend<'a>, plotters::coord::Shift>,
    title: &str,
    curves: &[Curve],
    most_ranks: f64,
    (least, most): (f64, f64),
) -> Drawn<'a> {
    const FONT: &str = "sans-serif";
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d((1.0..most_ranks).log_scale().base(2.0), (least..most).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("ranks")
        .y_desc("seconds")
        .x_label_formatter(&|ranks| format!("{ranks:.0}"))
        .y_label_formatter(&|seconds| match *seconds {
            seconds if seconds >= 10.0 => format!("{seconds:.0}"),
            seconds => format!("{seconds}"),
        })
        .label_style((FONT, 14))
        .draw()?;
    for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
        let style = colour.stroke_width(if curve.thin { 1 } else { 3 });
        let key = style;
        chart
            .draw_series(LineSeries::new(curve.points.iter().copied(), style))?
            .label(curve.name.clone())
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 22, y)], key));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .label_font((FONT, 14))
        .background_style(WHITE.mix(0.8))
        .draw()?;
    area.present()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_curve_and_label_is_drawn() {
        let path = Path::new("plot.svg");
        let curves = [
            Curve::new("original", vec![(1.0, 100.0), (64.0, 4.0)]),
            Curve::new("ideal", vec![(1.0, 100.0), (64.0, 1.5)]).thin(),
        ];
        let text = seconds_over_ranks(path, "a <model>", &curves).unwrap();
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"));
        for shown in ["original", "ideal", "seconds", "ranks", "a &lt;model&gt;", "\n64\n"] {
            assert!(text.contains(shown), "{shown} is not in\n{text}");
        }
        assert!(seconds_over_ranks(path, "none", &[]).is_err());
        assert!(seconds_over_ranks(path, "zero", &[Curve::new("zero", vec![(1.0, 0.0)])]).is_err());
    }
}
