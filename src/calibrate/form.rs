//! Ways to patch a model whose timings are still free.

use crate::attention::Kind;
use crate::rules::{Broadcast, Timing, Window};
use std::fmt::Write;

/// A way to patch a model: rules that have what they match and do, and get their windows later.
#[derive(Clone, Debug, PartialEq)]
pub struct Form {
    /// A short name, part of file names.
    pub name: String,
    /// Its rules.
    pub arms: Vec<Arm>,
}

/// A rule without its timing.
#[derive(Clone, Debug, PartialEq)]
pub struct Arm {
    /// The rule's name.
    pub name: String,
    /// What stands under `match`, as YAML.
    pub select: String,
    /// The key of the strategy.
    pub key: &'static str,
    /// The order of a forecast.
    pub order: Option<u8>,
}

impl Form {
    /// Every form for a model with sites of these kinds: spans of all blocks and of the inner ones, repeated and forecast,
    /// then sites of each kind by themselves, repeated and forecast.
    pub fn all(kinds: &[Kind]) -> Vec<Form> {
        let span = |name: &str, blocks: &str, order: Option<u8>| Form {
            name: name.to_owned(),
            arms: vec![Arm {
                name: "blocks".to_owned(),
                select: format!("{{ blocks: {blocks} }}"),
                key: "residual",
                order,
            }],
        };
        let sites = |name: &str, key, order| Form {
            name: name.to_owned(),
            arms: kinds
                .iter()
                .map(|kind| Arm {
                    name: kind.word().to_owned(),
                    select: format!("{{ kind: {} }}", kind.word()),
                    key,
                    order,
                })
                .collect(),
        };
        let mut forms = vec![
            span("span-1", "0..", Some(1)),
            span("span-2", "0..", Some(2)),
            span("inner-1", "1..-1", Some(1)),
            span("span", "0..", None),
        ];
        if !kinds.is_empty() {
            forms.push(sites("sites-1", "forecast", Some(1)));
            forms.push(sites("sites", "broadcast", None));
        }
        forms
    }

    /// The rules as YAML. `ranges` has, for each arm, a range for each window of [`windows`], 1 where it computes; arms that
    /// never broadcast are left out. `description` goes into the file.
    pub fn yaml(&self, description: &str, windows: &[Window], ranges: &[Vec<u32>]) -> String {
        let quoted = description.replace('\\', "\\\\").replace('"', "\\\"");
        let mut text = format!("version: 1\ndescription: \"{quoted}\"\nrules:\n");
        for (arm, ranges) in self.arms.iter().zip(ranges) {
            let used: Vec<String> = windows
                .iter()
                .zip(ranges)
                .filter(|(_, range)| **range > 1)
                .filter_map(|(window, range)| match window {
                    Window::Fraction { start, end } => Some(format!(
                        "        - {{ range: {range}, window: {{ fraction: [{start}, {end}] }} }}\n"
                    )),
                    _ => None,
                })
                .collect();
            if used.is_empty() {
                continue;
            }
            let order = arm
                .order
                .map_or_else(String::new, |order| format!("      order: {order}\n"));
            // Writing to a string does not fail.
            let _ = write!(
                text,
                "  - name: {}\n    match: {}\n    {}:\n{order}      windows:\n{}",
                arm.name,
                arm.select,
                arm.key,
                used.concat()
            );
        }
        text
    }

    /// The rules as YAML with a timing that stands in for the one to come.
    pub fn unfitted(&self) -> String {
        let whole = [Window::Fraction { start: 0.0, end: 1.0 }];
        self.yaml("To be fitted", &whole, &vec![vec![2]; self.arms.len()])
    }
}

/// Windows that part the run into `count` of equal length; the first leaves the first fiftieth out, in which there is nothing
/// to forecast from.
pub fn windows(count: usize) -> Vec<Window> {
    let end = |place: usize| (1000.0 * place as f64 / count.max(1) as f64).round() / 1000.0;
    (0..count)
        .map(|place| Window::Fraction {
            start: if place == 0 { 0.02 } else { end(place) },
            end: end(place + 1),
        })
        .collect()
}

/// The timing of one range for each window, 1 where it computes; `None` where it computes everywhere.
pub fn timing(windows: &[Window], ranges: &[u32]) -> Option<Timing> {
    let used = windows.iter().zip(ranges).filter(|(_, range)| **range > 1);
    let ranged: Vec<Broadcast> = used
        .filter_map(|(window, range)| Broadcast::new(*range, *window).ok())
        .collect();
    Timing::windows(ranged).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Rules;

    #[test]
    fn forms_are_rules() {
        for form in Form::all(&[Kind::Spatial, Kind::Cross, Kind::Mlp]) {
            let rules = Rules::parse("unfitted", &form.unfitted()).unwrap();
            assert_eq!(rules.rules.len(), form.arms.len(), "{}", form.name);
            let windows = windows(3);
            let mut ranges = vec![vec![1, 1, 1]; form.arms.len()];
            ranges[0] = vec![1, 3, 2];
            let rules = Rules::parse("fitted", &form.yaml("said \"so\"", &windows, &ranges)).unwrap();
            assert_eq!(rules.rules.len(), 1);
            let action = rules.rules[0].action.clone().unwrap();
            assert_eq!(Some(action.timing), timing(&windows, &ranges[0]));
        }
    }

    #[test]
    fn windows_part_the_run() {
        let windows = windows(3);
        let held = |step: usize| windows.iter().filter(|window| window.contains(step, 50, 0.0)).count();
        assert_eq!((held(0), held(1)), (0, 0));
        assert!((2..50).all(|step| held(step) == 1));
        assert_eq!(timing(&windows, &[1, 1, 1]), None);
    }
}
