//! Ways to patch a model whose timings are still free.

use crate::attention::Kind;
use crate::rules::{Broadcast, Range, Window};
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

    /// The rules as YAML, with the windows of each arm; arms that have none are left out. `description` goes into the file.
    pub fn yaml(&self, description: &str, timings: &[Vec<Broadcast>]) -> String {
        let quoted = description.replace('\\', "\\\\").replace('"', "\\\"");
        let mut text = format!("version: 1\ndescription: \"{quoted}\"\nrules:\n");
        for (arm, windows) in self.arms.iter().zip(timings) {
            if windows.is_empty() {
                continue;
            }
            let order = arm
                .order
                .map_or_else(String::new, |order| format!("      order: {order}\n"));
            // Writing to a string does not fail.
            let _ = write!(
                text,
                "  - name: {}\n    match: {}\n    {}:\n{order}      windows:\n",
                arm.name, arm.select, arm.key
            );
            for broadcast in windows {
                let _ = writeln!(text, "        - {}", entry(broadcast));
            }
        }
        text
    }

    /// The rules as YAML with a timing that stands in for the one to come.
    pub fn unfitted(&self) -> String {
        let whole: Vec<Broadcast> = Broadcast::new(2, Window::Whole).into_iter().collect();
        self.yaml("To be fitted", &vec![whole; self.arms.len()])
    }
}

/// An entry of `windows`.
fn entry(broadcast: &Broadcast) -> String {
    let range = match broadcast.range {
        Range::Steps(steps) => steps.to_string(),
        Range::Timesteps(timesteps) => format!("{{ timesteps: {timesteps} }}"),
    };
    let window = match broadcast.window {
        Window::Whole => return format!("{{ range: {range} }}"),
        Window::Timesteps { low, high } => format!("timesteps: [{low}, {high}]"),
        Window::Fraction { start, end } => format!("fraction: [{start}, {end}]"),
        Window::Steps { first, last } => format!("steps: [{first}, {last}]"),
    };
    format!("{{ range: {range}, window: {{ {window} }} }}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{Rules, Timing};

    #[test]
    fn forms_are_rules() {
        for form in Form::all(&[Kind::Spatial, Kind::Cross, Kind::Mlp]) {
            let rules = Rules::parse("unfitted", &form.unfitted()).unwrap();
            assert_eq!(rules.rules.len(), form.arms.len(), "{}", form.name);
            let fraction = |start, end| Window::Fraction { start, end };
            let windows = vec![
                Broadcast::of(Range::timesteps(62.5).unwrap(), fraction(0.02, 0.333)).unwrap(),
                Broadcast::new(3, fraction(0.333, 1.0)).unwrap(),
            ];
            let mut timings = vec![Vec::new(); form.arms.len()];
            timings[0].clone_from(&windows);
            let rules = Rules::parse("fitted", &form.yaml("said \"so\"", &timings)).unwrap();
            assert_eq!(rules.rules.len(), 1);
            let action = rules.rules[0].action.clone().unwrap();
            assert_eq!(Ok(action.timing), Timing::windows(windows));
        }
    }

    #[test]
    fn entries_are_read_as_they_are_written() {
        for window in [
            Window::Whole,
            Window::Timesteps {
                low: 100.0,
                high: 800.5,
            },
            Window::Steps { first: 3, last: 9 },
        ] {
            let broadcast = Broadcast::new(4, window).unwrap();
            let text = format!(
                "version: 1\nrules:\n  - name: r\n    residual:\n      windows:\n        - {}",
                entry(&broadcast)
            );
            let rules = Rules::parse("entry", &text).unwrap();
            assert_eq!(
                rules.rules[0].action.clone().unwrap().timing,
                broadcast.into(),
                "{text}"
            );
        }
    }
}
