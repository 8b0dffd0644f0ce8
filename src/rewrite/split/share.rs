//! How often the sites of a model compute in a run, by the rules that it is to be patched with.

use crate::attention::Sites;
use crate::rewrite::{Choice, Wide};
use crate::rules::{Rules, Timing};
use crate::schedule::Schedule;
use crate::shard::Shares;
use std::collections::HashMap;

/// For each site the share of steps of a run through `timesteps` in which it computes. `choices` are those of `sites` that are
/// to be broadcast by `rules`, and `wide` is what they leave out beside them: a site within a span computes where that does.
///
/// Of adaptive rules it is what their windows allow: what they decide is known in the run only.
pub fn shares(sites: &Sites, choices: &[Choice<'_>], wide: &Wide, rules: &Rules, timesteps: &[f64]) -> Shares {
    let share = |rule: usize| {
        let action = rules.rules.get(rule)?.action.as_ref()?;
        let timing: [Timing; 1] = [action.timing.clone()];
        Some(1.0 - Schedule::new(&timing, timesteps).share(0))
    };
    let of_rules: Vec<f64> = (0..rules.rules.len()).map(|rule| share(rule).unwrap_or(1.0)).collect();
    let mut rule_of: HashMap<&str, usize> = choices
        .iter()
        .map(|choice| (choice.site.name.as_str(), choice.rule))
        .collect();
    for (site, rule) in wide.claims() {
        rule_of.extend(sites.sites.get(site).map(|site| (site.name.as_str(), rule)));
    }
    let of_site = |name: &str| of_rules.get(*rule_of.get(name)?).copied();
    let shares = sites.sites.iter().map(|site| of_site(&site.name).unwrap_or(1.0));
    Shares::new(shares.collect())
}
