//! When a rule broadcasts, out of the tree.

use crate::rules::after::{AfterError, AfterTable, MAX_TIMESTEP};
use crate::rules::broadcast::{Broadcast, BroadcastError};
use crate::rules::indices::{IndexRange, IndexSet, IndicesError};
use crate::rules::range::Range;
use crate::rules::read::{Fields, Reader, Shape};
use crate::rules::scalar::describe;
use crate::rules::steps::{self, StepSet, StepsError};
use crate::rules::timing::{Timing, TimingError, apart};
use crate::rules::tree::{Content, Node, Place};
use crate::rules::window::{Window, WindowError};
use crate::rules::{Action, Adaptive, AdaptiveError, ForecastOrder, Strategy};
use std::rc::Rc;

pub(in crate::rules) const BROADCAST: Shape = Shape {
    what: "`broadcast`",
    keys: &["range", "window", "windows", "steps", "after", "skip", "adaptive"],
};
pub(in crate::rules) const FORECAST: Shape = Shape {
    what: "`forecast`",
    keys: &["order", "range", "window", "windows", "steps", "after", "skip"],
};
pub(in crate::rules) const RESIDUAL: Shape = Shape {
    what: "`residual`",
    keys: &[
        "order", "range", "window", "windows", "steps", "after", "skip", "adaptive",
    ],
};
pub(in crate::rules) const GUIDANCE: Shape = Shape {
    what: "`guidance`",
    keys: &["range", "window", "windows", "steps", "after", "skip"],
};
pub(in crate::rules) const ADAPTIVE: Shape = Shape {
    what: "`adaptive`",
    keys: &["threshold", "rescale"],
};
pub(in crate::rules) const RANGED: Shape = Shape {
    what: "an entry of `windows`",
    keys: &["range", "window"],
};
pub(in crate::rules) const RANGE: Shape = Shape {
    what: "`range`",
    keys: &["timesteps"],
};
pub(in crate::rules) const WINDOW: Shape = Shape {
    what: "`window`",
    keys: &["timesteps", "fraction", "steps"],
};

/// What a range may be.
const RANGE_FORMS: &str = "a range is a whole number of steps from 2 on, or `{ timesteps: 50 }`: reuse while the timestep is \
                           less than that away from where it was computed";

/// The ways to say when: the key that tells each from the others, and the keys that go with it.
const FORMS: [(&str, &[&str]); 4] = [
    ("windows", &["windows"]),
    ("steps", &["steps"]),
    ("after", &["after", "skip"]),
    ("range", &["range", "window"]),
];

impl Reader<'_> {
    /// What a rule does; `Some(None)` where it never broadcasts.
    pub(super) fn action(&mut self, key: &'static str, node: &Rc<Node>) -> Option<Option<Action>> {
        let (shape, forms) = match key {
            "forecast" => (
                &FORECAST,
                "write `forecast: { order: 1, range: 4, window: { fraction: [0.15, 0.85] } }`",
            ),
            "residual" => (
                &RESIDUAL,
                "write `residual: { range: 2, window: { fraction: [0.15, 0.85] } }`",
            ),
            "guidance" => (
                &GUIDANCE,
                "write `guidance: { range: 2, window: { fraction: [0.4, 1] } }`",
            ),
            _ => (
                &BROADCAST,
                "write `broadcast: { range: 2, window: { timesteps: [100, 800] } }` or `broadcast: never`",
            ),
        };
        if let (Content::Scalar { text, .. }, "broadcast") = (&node.content, key) {
            if text == "never" {
                return Some(None);
            }
            self.wrong(node, "how to broadcast", forms);
            return None;
        }
        let fields = self.fields(node, shape, forms)?;
        let strategy = match key {
            "forecast" => {
                let order = fields.get("order");
                let order = order.map_or(Some(ForecastOrder::default()), |node| self.order(&node));
                order.map(|order| Strategy::Forecast { order })
            }
            "residual" => match fields.get("order") {
                None => Some(Strategy::Residual),
                Some(node) => self.order(&node).map(|order| Strategy::ResidualForecast { order }),
            },
            "guidance" => Some(Strategy::Guidance),
            _ => Some(Strategy::Reuse),
        };
        let timing = self.timing(&fields);
        let adaptive = match (fields.get("adaptive"), strategy) {
            (None, _) => Some(None),
            (Some(node), Some(Strategy::ResidualForecast { .. })) => {
                let message =
                    "`order` and `adaptive` do not go together: a forecast goes by steps that are known beforehand";
                self.findings.add(node.place, message, "keep one of the two");
                None
            }
            (Some(node), _) => self.adaptive(&node).map(Some),
        };
        Some(Some(Action {
            strategy: strategy?,
            timing: timing?,
            adaptive: adaptive?,
        }))
    }

    /// What decides at the steps that the timing allows.
    fn adaptive(&mut self, node: &Node) -> Option<Adaptive> {
        const HELP: &str = "write `adaptive: { threshold: 0.1 }`: from that drift on the sites compute";
        let fields = self.fields(node, &ADAPTIVE, HELP)?;
        let place = self.required(&fields, "threshold", HELP)?;
        let threshold = self.number(&place, "a threshold")?;
        let mut rescale = Vec::new();
        if let Some(list) = fields.get("rescale") {
            let help = "write the coefficients of a polynomial, the highest power first: `rescale: [2.5, 0.1]`";
            for item in self.one_or_more(&list, "`rescale`", help)? {
                rescale.push(self.number(&item, "a coefficient")?);
            }
        }
        match Adaptive::new(threshold, rescale) {
            Ok(adaptive) => Some(adaptive),
            Err(error) => {
                let at = match error {
                    AdaptiveError::Threshold(_) => place.place,
                    _ => fields.get("rescale").map_or(node.place, |list| list.place),
                };
                self.findings.add(at, error.to_string(), HELP);
                None
            }
        }
    }

    fn order(&mut self, node: &Node) -> Option<ForecastOrder> {
        let order = self.integer(node, "an order")?;
        match ForecastOrder::try_from(order) {
            Ok(order) => Some(order),
            Err(error) => {
                let help = "write 1 for a forecast along a line, 2 for one along a parabola; `broadcast` reuses what was \
                            computed last";
                self.findings.add(node.place, error.to_string(), help);
                None
            }
        }
    }

    fn timing(&mut self, fields: &Fields) -> Option<Timing> {
        let form = FORMS.iter().find(|(key, _)| fields.get(key).is_some());
        let (key, own) = form.copied().unwrap_or(("range", &["range", "window"]));
        let foreign = FORMS
            .iter()
            .flat_map(|(_, keys)| *keys)
            .filter(|other| !own.contains(other));
        let foreign: Vec<(&str, Place)> = foreign
            .filter_map(|other| Some((*other, fields.get(other)?.place)))
            .collect();
        // `window` or `skip` alone lack the key that they belong to.
        if let (Some((other, place)), true) = (foreign.first(), form.is_some()) {
            let message = format!("`{key}` and `{other}` do not go together");
            let help = "write `range` with or without `window`, or `windows`, or `steps`, or `after` with `skip`";
            self.findings.add(*place, message, help);
            return None;
        }
        if form.is_none() && fields.get("skip").is_some() {
            self.required(
                fields,
                "after",
                "list the timesteps to compute at: `after: [864, 788], skip: 2`",
            );
            return None;
        }
        match key {
            "windows" => self.windows(&*fields.get("windows")?),
            "steps" => self.steps(&fields.get("steps")?),
            "after" => self.after(fields),
            _ => self.ranged(fields).map(Timing::from),
        }
    }

    /// A range with its window.
    fn ranged(&mut self, fields: &Fields) -> Option<Broadcast> {
        let help = "say how often to compute, `range: 2` for every second step";
        let range = self.required(fields, "range", help).and_then(|node| self.range(&node));
        let window = fields.get("window");
        let place = window.as_ref().map_or(fields.place, |node| node.place);
        let window = window.map_or(Some(Window::Whole), |node| self.window(&node));
        match Broadcast::of(range?, window?) {
            Ok(broadcast) => Some(broadcast),
            Err(error) => {
                let help = match error {
                    BroadcastError::Range(_) => RANGE_FORMS,
                    BroadcastError::Never { .. } => "widen the window, or list the steps: `steps: [9, 11]`",
                };
                self.findings.add(place, error.to_string(), help);
                None
            }
        }
    }

    /// Several windows, each with its range.
    fn windows(&mut self, node: &Node) -> Option<Timing> {
        const HELP: &str = "write `windows: [{ range: 2, window: { timesteps: [400, 800] } }, { range: 4, window: { \
                            timesteps: [100, 400] } }]`";
        let nodes = self.list(node, "`windows`", HELP)?;
        if nodes.is_empty() {
            self.findings.add(node.place, "the list of `windows` is empty", HELP);
            return None;
        }
        let mut read: Vec<(Place, Broadcast)> = Vec::new();
        for item in nodes {
            let Some(window) = self.fields(item, &RANGED, HELP).and_then(|fields| self.ranged(&fields)) else {
                continue;
            };
            let clash = read.iter().find_map(|(place, earlier)| {
                let error = apart(&earlier.window, &window.window).err()?;
                Some((place.line, error))
            });
            match clash {
                None => read.push((item.place, window)),
                Some((line, error)) => {
                    let help = match error {
                        TimingError::Units { .. } => "write all windows of a rule in the same unit",
                        _ => "a step is in one window at most: narrow one of the two",
                    };
                    let message = format!("{error}; the other window is in line {line}");
                    self.findings.add(item.place, message, help);
                }
            }
        }
        let windows: Vec<Broadcast> = read.into_iter().map(|(_, window)| window).collect();
        (windows.len() == nodes.len()).then(|| Timing::windows(windows).ok())?
    }

    /// Steps that are named one by one.
    fn steps(&mut self, node: &Rc<Node>) -> Option<Timing> {
        const HELP: &str = "steps count from 0: `steps: [9, 11, 13..20]` (without 20) or `13..=19` (with 19)";
        let (mut ranges, mut seen) = (Vec::new(), IndexSet::default());
        for item in self.one_or_more(node, "`steps`", HELP)? {
            let Content::Scalar { text, .. } = &item.content else {
                self.wrong(&item, "steps", HELP);
                return None;
            };
            let range = match text.parse::<IndexRange>() {
                Ok(range) => range,
                Err(error) => {
                    let message = match error {
                        IndicesError::Form(_) => format!("{} names no steps", describe(&item)),
                        other => other.to_string(),
                    };
                    self.findings.add(item.place, message, HELP);
                    return None;
                }
            };
            match steps::add(&seen, range) {
                Ok(both) => seen = both,
                Err(error) => {
                    let help = match error {
                        StepsError::First => "begin with step 1 or later",
                        _ => "list each step once",
                    };
                    self.findings.add(item.place, error.to_string(), help);
                    return None;
                }
            }
            ranges.push(range);
        }
        StepSet::new(&ranges).ok().map(Timing::Steps)
    }

    /// A table of timesteps, and how many steps follow each.
    fn after(&mut self, fields: &Fields) -> Option<Timing> {
        const HELP: &str = "list the timesteps to compute at, as whole numbers: `after: [864, 788], skip: 2`";
        let node = fields.get("after")?;
        let help = "say how many steps broadcast after each: `skip: 2`";
        let skip = self.required(fields, "skip", help);
        let skip = skip.and_then(|node| Some((self.whole(&node, "a number of steps", HELP)?, node.place)));
        let mut timesteps: Vec<u32> = Vec::new();
        for item in self.one_or_more(&node, "`after`", HELP)? {
            let timestep = self.whole(&item, "a timestep", HELP)?;
            if timesteps.contains(&timestep) {
                let error = AfterError::Twice(timestep);
                self.findings
                    .add(item.place, error.to_string(), "list each timestep once");
                return None;
            }
            timesteps.push(timestep);
        }
        let (skip, place) = skip?;
        match AfterTable::new(timesteps, skip) {
            Ok(table) => Some(Timing::After(table)),
            Err(error) => {
                let help = "write a number of steps from 1 on, or `broadcast: never` to leave these sites alone";
                self.findings.add(place, error.to_string(), help);
                None
            }
        }
    }

    /// A whole number from 0 that a table can hold.
    fn whole(&mut self, node: &Node, what: &str, help: &str) -> Option<u32> {
        let number = self.integer(node, what)?;
        let whole = u32::try_from(number).ok().filter(|whole| *whole <= MAX_TIMESTEP);
        if whole.is_none() {
            let message = format!("{number} is not {what} from 0 to {MAX_TIMESTEP}");
            self.findings.add(node.place, message, help);
        }
        whole
    }

    fn range(&mut self, node: &Node) -> Option<Range> {
        if matches!(node.content, Content::Map(_)) {
            let fields = self.fields(node, &RANGE, RANGE_FORMS)?;
            let length = self.required(&fields, "timesteps", RANGE_FORMS)?;
            let timesteps = self.number(&length, "a range")?;
            return match Range::timesteps(timesteps) {
                Ok(range) => Some(range),
                Err(error) => {
                    self.findings.add(length.place, error.to_string(), RANGE_FORMS);
                    None
                }
            };
        }
        let range = self.integer(node, "a range")?;
        match u32::try_from(range) {
            Ok(1) => {
                let help = "write `broadcast: never` to leave these sites alone, or a range of 2 or more";
                self.findings.add(
                    node.place,
                    "range 1 computes at every step and broadcasts nothing",
                    help,
                );
                None
            }
            Ok(range) if range >= 2 => Range::steps(range).ok(),
            _ => {
                let help = "a range is a whole number from 2 on: compute every so many steps, reuse in between";
                self.findings.add(node.place, format!("{range} is no range"), help);
                None
            }
        }
    }

    fn window(&mut self, node: &Node) -> Option<Window> {
        const FORMS: &str = "write `{ timesteps: [100, 800] }`, `{ fraction: [0.15, 0.85] }` or `{ steps: [8, 42] }`; without a window \
             it is the whole run";
        if matches!(&node.content, Content::Scalar { text, .. } if text == "whole") {
            return Some(Window::Whole);
        }
        let fields = self.fields(node, &WINDOW, FORMS)?;
        let mut found = WINDOW.keys.iter().filter_map(|key| Some((*key, fields.get(key)?)));
        let Some((unit, ends)) = found.next() else {
            self.findings.add(fields.place, "this window has no ends", FORMS);
            return None;
        };
        if let Some((_, other)) = found.next() {
            let message = "a window is in timesteps, a fraction of the run or in steps, and this is several";
            self.findings.add(other.place, message, "keep one of them");
            return None;
        }
        match unit {
            "timesteps" => self.ends(&ends, "`timesteps`", Window::timesteps),
            "fraction" => self.ends(&ends, "`fraction`", Window::fraction),
            _ => self.ends(&ends, "`steps`", Window::steps),
        }
    }

    /// Reads the two ends of a window, and makes it.
    fn ends(&mut self, node: &Node, what: &str, make: fn(f64, f64) -> Result<Window, WindowError>) -> Option<Window> {
        let help = "write two numbers, the lower first: `[100, 800]` for timesteps, `[0.15, 0.85]` for a fraction, `[8, 42]` \
                    for steps";
        let [low, high] = self.list(node, what, help)? else {
            self.findings.add(
                node.place,
                format!("{what} has two ends, but {} stands here", describe(node)),
                help,
            );
            return None;
        };
        let (low_value, high_value) = (
            self.number(low, "an end of a window"),
            self.number(high, "an end of a window"),
        );
        let (first, second) = (low_value?, high_value?);
        match make(first, second) {
            Ok(window) => Some(window),
            Err(error) => {
                let (place, help) = match error {
                    WindowError::NoStep(outside) => {
                        let place = if outside == first { low.place } else { high.place };
                        (place, "write the first and the last step, `[8, 42]`".to_owned())
                    }
                    WindowError::OutsideUnit(outside) => {
                        let place = if outside == first { low.place } else { high.place };
                        (
                            place,
                            "write 0.15 for 15 %; ends in the scheduler's unit belong under `timesteps`".to_owned(),
                        )
                    }
                    WindowError::Empty { .. } if first > second => {
                        (node.place, format!("did you mean `[{second}, {first}]`?"))
                    }
                    WindowError::Empty { .. } => {
                        (node.place, "widen the window, or write `broadcast: never`".to_owned())
                    }
                    WindowError::NotFinite(_) => (node.place, help.to_owned()),
                };
                self.findings.add(place, error.to_string(), help);
                None
            }
        }
    }
}
