//! How often the sites of a model compute in a run, by the rules that it is to be patched with.

use crate::attention::Sites;
use crate::rewrite::Choice;
use crate::rules::{Rules, Timing};
use crate::schedule::Schedule;
use crate::shard::Shares;

/// For each site the share of steps of a run through `timesteps` in which it computes. `choices` are those of `sites` that are
/// to be broadcast by `rules`.
///
/// Of adaptive rules it is what their windows allow: what they decide is known in the run only.
pub fn shares(sites: &Sites, choices: &[Choice<'_>], rules: &Rules, timesteps: &[f64]) -> Shares {
    let share = |rule: usize| {
        let action = rules.rules.get(rule)?.action.as_ref()?;
        let timing: [Timing; 1] = [action.timing.clone()];
        Some(1.0 - Schedule::new(&timing, timesteps).share(0))
    };
    let of_rules: Vec<f64> = (0..rules.rules.len()).map(|rule| share(rule).unwrap_or(1.0)).collect();
    let of_site = |name: &str| {
        let choice = choices.iter().find(|choice| choice.site.name == name)?;
        of_rules.get(choice.rule).copied()
    };
    Shares::new(
        sites
            .sites
            .iter()
            .map(|site| of_site(&site.name).unwrap_or(1.0))
            .collect(),
    )
}
