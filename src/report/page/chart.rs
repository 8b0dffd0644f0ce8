//! Lines and points over two axes, as SVG that takes its colours from the page.

use super::super::html::escaped;
use super::super::plot::round_step;
use super::markup::shortened;
use std::fmt::Write as _;

/// Sizes in the picture's own units.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 42.0;
/// Lines with fewer points have them marked.
const FEW_POINTS: usize = 40;
/// So many lines have colours and dashes of their own.
const STYLES: usize = 7;

/// A line, or points.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// What it is.
    pub name: String,
    /// A class of the page that gives it the colour of a kind; else it has one by its place.
    pub class: Option<&'static str>,
    /// Its points.
    pub points: Vec<(f64, f64)>,
}

/// A picture of lines or points.
#[derive(Clone, Debug)]
pub struct Chart<'a> {
    /// What it shows, in words for those who do not see it.
    pub name: &'a str,
    /// What stands along it.
    pub x: &'a str,
    /// What stands upwards.
    pub y: &'a str,
    /// What is drawn.
    pub lines: &'a [Line],
    /// Points with their names beside them, instead of lines.
    pub points_only: bool,
}

impl Chart<'_> {
    /// The picture with its key; `None` where there is no finite point.
    pub fn render(&self) -> Option<String> {
        let all = || {
            let points = self.lines.iter().flat_map(|line| &line.points);
            points.filter(|(x, y)| x.is_finite() && y.is_finite())
        };
        let x_axis = Scale::of(all().map(|(x, _)| *x), (LEFT, WIDTH - RIGHT), self.points_only)?;
        let y_axis = Scale::of(all().map(|(_, y)| *y), (HEIGHT - BOTTOM, TOP), true)?;
        let mut html = format!(
            "<div class=\"wide\" role=\"region\" tabindex=\"0\" aria-label=\"{0}\">\n<svg class=\"chart\" viewBox=\"0 0 {WIDTH} \
             {HEIGHT}\" role=\"img\" aria-label=\"{0}\">\n",
            escaped(self.name)
        );
        self.write_axes(&mut html, &x_axis, &y_axis);
        for (place, line) in self.lines.iter().enumerate() {
            self.write_line(&mut html, place, line, &x_axis, &y_axis);
        }
        html.push_str("</svg></div>\n");
        if !self.points_only {
            self.write_key(&mut html);
        }
        Some(html)
    }

    fn write_axes(&self, html: &mut String, x_axis: &Scale, y_axis: &Scale) {
        for tick in y_axis.ticks() {
            let y = y_axis.place(tick);
            let _ = writeln!(
                html,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><text class=\"tick\" x=\"{:.1}\" \
                 y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0,
                y_axis.label(tick)
            );
        }
        for tick in x_axis.ticks() {
            let x = x_axis.place(tick);
            let _ = writeln!(
                html,
                "<text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                HEIGHT - BOTTOM + 16.0,
                x_axis.label(tick)
            );
        }
        let (along, upwards) = ((LEFT + WIDTH - RIGHT) / 2.0, (TOP + HEIGHT - BOTTOM) / 2.0);
        let _ = writeln!(
            html,
            "<text class=\"tick\" x=\"{along:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n<text class=\"tick\" x=\"14\" \
             y=\"{upwards:.1}\" transform=\"rotate(-90 14 {upwards:.1})\" text-anchor=\"middle\">{}</text>",
            HEIGHT - 8.0,
            escaped(self.x),
            escaped(self.y)
        );
    }

    fn write_line(&self, html: &mut String, place: usize, line: &Line, x_axis: &Scale, y_axis: &Scale) {
        let class = line
            .class
            .map_or_else(|| format!("line-{}", place % STYLES), str::to_owned);
        let dashes = format!("dash-{}", place % STYLES);
        let finite = |(x, y): &&(f64, f64)| x.is_finite() && y.is_finite();
        let points: Vec<(f64, f64)> = line
            .points
            .iter()
            .filter(finite)
            .map(|(x, y)| (x_axis.place(*x), y_axis.place(*y)))
            .collect();
        let _ = write!(html, "<g class=\"{class}\"><title>{}</title>", escaped(&line.name));
        if !self.points_only && points.len() > 1 {
            let joined: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let _ = write!(
                html,
                "<polyline class=\"line {dashes}\" points=\"{}\"/>",
                joined.join(" ")
            );
        }
        if self.points_only || points.len() < FEW_POINTS {
            for (x, y) in &points {
                let _ = write!(
                    html,
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{}\"/>",
                    if self.points_only { 5 } else { 2 }
                );
            }
        }
        if self.points_only
            && let Some((x, y)) = points.first()
        {
            // On the side where there is room.
            let (anchor, x) = if *x > WIDTH * 0.6 {
                ("end", x - 9.0)
            } else {
                ("start", x + 9.0)
            };
            let _ = write!(
                html,
                "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
                y + 4.0,
                escaped(&shortened(&line.name))
            );
        }
        html.push_str("</g>\n");
    }

    fn write_key(&self, html: &mut String) {
        html.push_str("<ul class=\"key\">\n");
        for (place, line) in self.lines.iter().enumerate() {
            let class = line
                .class
                .map_or_else(|| format!("line-{}", place % STYLES), str::to_owned);
            let _ = writeln!(
                html,
                "<li class=\"{class}\"><svg viewBox=\"0 0 28 8\" width=\"28\" height=\"8\" aria-hidden=\"true\"><polyline class=\"line \
                 dash-{}\" points=\"0,4 28,4\"/></svg> {}</li>",
                place % STYLES,
                escaped(&line.name)
            );
        }
        html.push_str("</ul>\n");
    }
}

/// From values to places.
struct Scale {
    low: f64,
    high: f64,
    step: f64,
    ends: (f64, f64),
}

impl Scale {
    /// A scale for values; with `rounded`, its ends are ticks. `None` where there is no value.
    fn of(values: impl Iterator<Item = f64>, ends: (f64, f64), rounded: bool) -> Option<Scale> {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        if low > high {
            return None;
        }
        // A single value gets some room.
        let (low, high) = match high - low {
            0.0 => (low - low.abs().max(1e-3) * 0.05, high + high.abs().max(1e-3) * 0.05),
            _ => (low, high),
        };
        let step = round_step((high - low) / 5.0);
        let (low, high) = match rounded {
            true => ((low / step).floor() * step, (high / step).ceil() * step),
            false => (low, high),
        };
        Some(Scale { low, high, step, ends })
    }

    fn place(&self, value: f64) -> f64 {
        let (from, to) = self.ends;
        from + (value - self.low) / (self.high - self.low) * (to - from)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> + '_ {
        let first = (self.low / self.step - 1e-6).ceil();
        let count = ((self.high - first * self.step) / self.step + 1e-6)
            .floor()
            .clamp(0.0, 12.0) as usize;
        (0..=count).map(move |place| (first + place as f64) * self.step)
    }

    /// A tick with as many digits as tell it from its neighbours.
    fn label(&self, tick: f64) -> String {
        if self.step < 1e-4 || tick.abs() >= 1e6 {
            return format!("{tick:.1e}");
        }
        let decimals = (-self.step.log10().floor()).clamp(0.0, 4.0) as usize;
        // Adding 0 turns a negative zero into zero.
        format!("{:.decimals$}", tick + 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_have_round_ticks() {
        let ticks = |values: &[f64]| {
            let scale = Scale::of(values.iter().copied(), (0.0, 100.0), true).unwrap();
            scale.ticks().map(|tick| scale.label(tick)).collect::<Vec<_>>()
        };
        assert_eq!(ticks(&[0.0, 0.93]), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(ticks(&[0.981, 0.9877]), ["0.980", "0.982", "0.984", "0.986", "0.988"]);
        assert_eq!(ticks(&[0.0, 49.0]), ["0", "10", "20", "30", "40", "50"]);
        assert!(ticks(&[3.0]).len() >= 3 && ticks(&[0.0]).len() >= 3);
        assert!(Scale::of(std::iter::empty(), (0.0, 1.0), true).is_none());
    }

    #[test]
    fn what_is_not_finite_is_left_out() {
        let lines = |points: &[(f64, f64)]| {
            [Line {
                name: "<b>".to_owned(),
                class: None,
                points: points.to_vec(),
            }]
        };
        let draw = |lines: &[Line]| {
            let chart = Chart {
                name: "n",
                x: "x",
                y: "y",
                lines,
                points_only: false,
            };
            chart.render()
        };
        assert_eq!(draw(&lines(&[(0.0, f64::INFINITY), (f64::NAN, 1.0)])), None);
        let html = draw(&lines(&[(0.0, 1.0), (1.0, f64::NAN), (2.0, 3.0)])).unwrap();
        assert!(
            !html.contains("NaN") && !html.contains("inf") && html.contains("&lt;b&gt;"),
            "{html}"
        );
        assert_eq!(html.matches("<circle").count(), 2);
    }
}
