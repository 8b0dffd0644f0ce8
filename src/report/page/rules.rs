//! The rules in words.

use super::markup::command;
use super::{Part, Results};
use crate::report::html::escaped;
use crate::report::number;
use crate::report::stack::class_of;
use crate::rules::{Action, Broadcast, ForecastOrder, Range, Strategy, Timing, Window};
use std::fmt::Write as _;

/// A rule with what it has.
struct RuleRow {
    name: String,
    kind: String,
    action: Action,
    sites: usize,
    steps_broadcast: Option<f64>,
    step_share: Option<f64>,
}

pub fn part(results: &Results) -> Part {
    let mut lists: Vec<(String, String)> = Vec::new();
    let mut add = |from: &str, rows: Vec<RuleRow>| {
        let known = lists.iter().any(|(known, _)| known == from);
        if !known && !rows.is_empty() {
            lists.push((from.to_owned(), list(&rows)));
        }
    };
    for comparison in &results.comparisons {
        let facts = &comparison.value.facts;
        let rows = facts.rules.iter().map(|rule| RuleRow {
            name: rule.name.clone(),
            kind: rule.kind.clone(),
            action: Action {
                strategy: rule.strategy,
                timing: rule.timing.clone(),
                adaptive: rule.adaptive.clone(),
            },
            sites: rule.sites,
            steps_broadcast: Some(rule.steps_broadcast),
            step_share: rule.step_share,
        });
        add(&facts.rules_from, rows.collect());
    }
    for plan in &results.plans {
        let plan = &plan.value;
        let rows = plan.rules.iter().enumerate().map(|(index, rule)| {
            let mut kinds: Vec<&str> = plan.sites_of(index).map(|site| site.kind.word()).collect();
            kinds.sort_unstable();
            kinds.dedup();
            let steps = plan
                .schedule
                .as_ref()
                .and_then(|schedule| schedule.broadcast.get(index));
            RuleRow {
                name: rule.name.clone(),
                kind: kinds.join(", "),
                action: rule.action(),
                sites: plan.sites_of(index).count(),
                steps_broadcast: steps
                    .filter(|steps| !steps.is_empty())
                    .map(|steps| steps.iter().filter(|broadcast| **broadcast).count() as f64 / steps.len() as f64),
                step_share: None,
            }
        });
        add(&plan.rules_from, rows.collect());
    }
    let mut html = String::new();
    let several = lists.len() > 1;
    for (from, list) in &lists {
        let heading = format!("<h3>{}</h3>\n", escaped(from));
        let sentence = format!("<p>From {}.</p>\n", escaped(from));
        html.push_str(if several { &heading } else { &sentence });
        html.push_str(list);
    }
    Part::new(
        "rules",
        "Rules",
        (!html.is_empty()).then_some(html),
        &format!(
            "{} writes a plan, with the rules, beside the patched model.",
            command("pab-patch MODEL --rules RULES")
        ),
    )
}

fn list(rows: &[RuleRow]) -> String {
    let mut html = String::from("<dl class=\"rules\">\n");
    for row in rows {
        let what = match row.sites {
            1 => format!("one module ({})", row.kind),
            sites => format!("{sites} modules ({})", row.kind),
        };
        let mut facts = Vec::new();
        facts.extend(
            row.steps_broadcast
                .map(|share| format!("{} of the steps are broadcast", number::percent(share))),
        );
        facts.extend(
            row.step_share
                .map(|share| format!("which saves {} of such a step", number::percent(share))),
        );
        let facts = match facts.is_empty() {
            true => String::new(),
            false => format!(" <small>{}.</small>", escaped(&capital(&facts.join(", ")))),
        };
        let _ = writeln!(
            html,
            "<div class=\"{}\"><dt>{}</dt><dd>{}: {}.{facts}</dd></div>",
            class_of(&row.kind),
            escaped(&row.name),
            escaped(&capital(&what)),
            escaped(&words(&row.action))
        );
    }
    html.push_str("</dl>\n");
    html
}

/// What a rule does and when, as half a sentence.
fn words(action: &Action) -> String {
    let instead = match action.strategy {
        Strategy::Reuse => "what was computed last is used again".to_owned(),
        Strategy::Forecast { order } => format!(
            "the value is forecast along {} through those computed last",
            along(order)
        ),
        Strategy::Residual => "the blocks are left out, and what they added last is added again".to_owned(),
        Strategy::ResidualForecast { order } => {
            format!(
                "the blocks are left out, and what they add is forecast along {} through what they added last",
                along(order)
            )
        }
        Strategy::Guidance => {
            "the half with the prompt is computed, and the difference that guidance made last is used again".to_owned()
        }
    };
    let timed = match &action.timing {
        Timing::Windows(windows) => {
            let windows: Vec<String> = windows.iter().map(window).collect();
            format!("computed {}; at the steps between, {instead}", windows.join("; and "))
        }
        Timing::Steps(steps) => format!("at {steps}, {instead}"),
        Timing::After(table) => format!("{table}, {instead}"),
    };
    match &action.adaptive {
        Some(adaptive) => format!("{timed}, as long as the model finds the {adaptive}"),
        None => timed,
    }
}

fn along(order: ForecastOrder) -> &'static str {
    match order {
        ForecastOrder::First => "a line",
        ForecastOrder::Second => "a parabola",
    }
}

fn window(broadcast: &Broadcast) -> String {
    let range = match broadcast.range {
        Range::Steps(range) => format!("at every {} step", ordinal(range.get())),
        Range::Timesteps(range) => format!("once the timestep is {range} or more from where it was computed last,"),
    };
    let place = match broadcast.window {
        Window::Whole => "of the whole run".to_owned(),
        Window::Timesteps { low, high } => format!("while the timestep is between {high} and {low}"),
        Window::Fraction { start, end } => {
            format!(
                "between {} and {} of the run",
                number::percent(start),
                number::percent(end)
            )
        }
        Window::Steps { first, last } => format!("from step {first} to step {last}"),
    };
    match broadcast.window {
        Window::Whole => format!("{range} {place}"),
        _ => format!("{range} {place}, and at all steps outside"),
    }
}

/// A number with its ending.
fn ordinal(number: u32) -> String {
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

/// With a capital letter.
fn capital(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_uppercase().chain(characters).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::StepSet;

    fn said(strategy: Strategy, timing: impl Into<Timing>) -> String {
        words(&Action {
            strategy,
            timing: timing.into(),
            adaptive: None,
        })
    }

    #[test]
    fn rules_are_said_in_words() {
        let window = Window::timesteps(100.0, 800.0).unwrap();
        assert_eq!(
            said(Strategy::Reuse, Broadcast::new(2, window).unwrap()),
            "computed at every 2nd step while the timestep is between 800 and 100, and at all steps outside; at the steps \
             between, what was computed last is used again"
        );
        let whole = said(
            Strategy::Forecast {
                order: ForecastOrder::First,
            },
            Broadcast::new(13, Window::Whole).unwrap(),
        );
        assert!(
            whole.starts_with(
                "computed at every 13th step of the whole run; at the steps between, the value is forecast"
            ),
            "{whole}"
        );
        let far = Broadcast::of(Range::timesteps(50.0).unwrap(), window).unwrap();
        assert!(
            said(Strategy::Reuse, far).starts_with(
                "computed once the timestep is 50 or more from where it was computed last, while the timestep is between 800 and \
                 100, and at all steps outside; at the steps between, what was"
            ),
            "{}",
            said(Strategy::Reuse, far)
        );
        let steps: StepSet = serde_json::from_str("[9, \"13..20\"]").unwrap();
        assert!(said(Strategy::Residual, Timing::Steps(steps)).starts_with("at steps 9, 13..20, the blocks"));
    }
}
