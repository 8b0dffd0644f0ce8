//! Rules that claim the sites of others, or none at all, as far as that shows without a model.

use super::check::File;
use super::indices::{IndexSet, MAX_INDEX};
use super::tree::{Findings, Place};
use super::{Rule, Strategy};
use crate::attention::Kind;

/// A number of blocks that is far above what may be written, so that ranges from either end are apart.
const MANY: usize = 4 * MAX_INDEX;

/// Finds rules that claim what an earlier rule claims, and rules that can claim nothing.
///
/// Of rules with different conditions on names or costs only the model tells whether they meet ([`super::Rules::assign`]).
/// Blocks counted from the last are taken as those of a model with many blocks.
pub(super) fn check(file: &File, findings: &mut Findings) {
    for (index, (rule, place)) in file.rules.iter().zip(&file.matches).enumerate() {
        let earlier = file.rules.get(..index).unwrap_or_default();
        match rule.strategy() {
            Some(Strategy::Guidance) => guidance(rule, *place, earlier, findings),
            Some(Strategy::Residual | Strategy::ResidualForecast { .. }) => spans(rule, *place, earlier, findings),
            None | Some(Strategy::Reuse | Strategy::Forecast { .. }) => sites(rule, *place, earlier, findings),
        }
    }
}

fn guidance(rule: &Rule, place: Place, earlier: &[Rule], findings: &mut Findings) {
    let same = |other: &&Rule| other.strategy() == Some(Strategy::Guidance);
    if let Some(other) = earlier.iter().find(same) {
        let message = format!(
            "rule `{}` in line {} and rule `{}` in line {} are both for guidance, of which a model has one",
            other.name, other.line, rule.name, rule.line
        );
        findings.add(
            place,
            message,
            "write one rule, with several `windows` where they differ",
        );
    }
}

fn spans(rule: &Rule, place: Place, earlier: &[Rule], findings: &mut Findings) {
    let meets = |other: &&Rule| {
        let (one, two) = (&other.select, &rule.select);
        let kinds =
            one.kinds.is_empty() || two.kinds.is_empty() || one.kinds.iter().any(|kind| two.kinds.contains(kind));
        other.strategy().is_some_and(Strategy::is_by_span)
            && kinds
            && comparable(other, rule)
            && one.blocks.of(MANY).meets(&two.blocks.of(MANY))
    };
    if let Some(other) = earlier.iter().find(meets) {
        overlap(&[other], rule, place, findings);
    }
}

fn sites(rule: &Rule, place: Place, earlier: &[Rule], findings: &mut Findings) {
    let earlier: Vec<&Rule> = earlier
        .iter()
        .filter(|other| other.strategy().is_none_or(Strategy::is_by_site))
        .collect();
    let claimed: Vec<&Rule> = earlier
        .iter()
        .enumerate()
        .filter(|(index, other)| {
            // What was taken out before the other rule is neither's.
            let before = earlier.get(..*index).unwrap_or_default();
            other.action.is_some()
                && comparable(other, rule)
                && shared_kinds(other, rule).any(|kind| {
                    let own = left(rule, kind, before);
                    own.meets(&other.select.blocks.of(MANY))
                })
        })
        .map(|(_, other)| *other)
        .collect();
    if let Some(same) = claimed.iter().find(|other| same_sites(other, rule)) {
        let differ = same.action != rule.action || same.cut != rule.cut;
        let message = match differ {
            true => format!(
                "rule `{}` contradicts rule `{}` in line {}: both match the same sites and treat them differently",
                rule.name, same.name, same.line
            ),
            false => format!(
                "rule `{}` repeats rule `{}` in line {}",
                rule.name, same.name, same.line
            ),
        };
        let help = "keep one of the two, or let them match different kinds, blocks or names";
        findings.add(place, message, help);
    } else if !claimed.is_empty() {
        overlap(&claimed, rule, place, findings);
    } else if rule
        .select
        .kinds
        .iter()
        .all(|kind| left(rule, *kind, &earlier).is_empty())
    {
        let hiding = earlier
            .iter()
            .filter(|other| shared_kinds(other, rule).next().is_some());
        let message = format!(
            "rule `{}` can never apply: all its sites are taken out before, by {}",
            rule.name,
            listed(hiding.copied())
        );
        let help =
            "a rule with `broadcast: never` keeps its sites from those that follow: narrow it, or remove this rule";
        findings.add(place, message, help);
    }
}

fn overlap(claimed: &[&Rule], rule: &Rule, place: Place, findings: &mut Findings) {
    let help = match rule.action {
        Some(_) => "let them match different kinds, blocks or names; `broadcast: never` before both takes sites out",
        None => "move this rule up: `broadcast: never` takes sites out for the rules that follow it",
    };
    let message = format!(
        "rule `{}` in line {} matches sites that are claimed by {}",
        rule.name,
        rule.line,
        listed(claimed.iter().copied())
    );
    findings.add(place, message, help);
}

fn listed<'r>(rules: impl Iterator<Item = &'r Rule>) -> String {
    let names: Vec<String> = rules
        .map(|rule| format!("`{}` (line {})", rule.name, rule.line))
        .collect();
    names.join(", ")
}

/// Whether it shows without a model that what one of the two matches the other matches too, where kinds and blocks
/// agree.
fn comparable(one: &Rule, other: &Rule) -> bool {
    is_open(one) || is_open(other) || same_conditions(one, other)
}

/// Whether a rule matches by kinds and blocks alone.
fn is_open(rule: &Rule) -> bool {
    let select = &rule.select;
    select.name.is_none() && select.cache.is_none() && select.share.is_none()
}

fn same_conditions(one: &Rule, other: &Rule) -> bool {
    let same_costs = one.select.cache.is_none() || one.cut == other.cut;
    let (one, other) = (&one.select, &other.select);
    same_costs && one.name == other.name && one.cache == other.cache && one.share == other.share
}

fn shared_kinds<'r>(one: &'r Rule, other: &'r Rule) -> impl Iterator<Item = Kind> + 'r {
    one.select
        .kinds
        .iter()
        .copied()
        .filter(|kind| other.select.kinds.contains(kind))
}

/// The blocks of a rule that no earlier rule takes out for this kind.
fn left(rule: &Rule, kind: Kind, earlier: &[&Rule]) -> IndexSet {
    earlier
        .iter()
        .filter(|other| other.action.is_none() && other.select.kinds.contains(&kind))
        .filter(|other| is_open(other) || same_conditions(other, rule))
        .fold(rule.select.blocks.of(MANY), |left, other| {
            left.without(&other.select.blocks.of(MANY))
        })
}

fn same_sites(one: &Rule, other: &Rule) -> bool {
    let (first, second) = (&one.select, &other.select);
    let same_kinds =
        first.kinds.len() == second.kinds.len() && first.kinds.iter().all(|kind| second.kinds.contains(kind));
    same_kinds && first.blocks == second.blocks && same_conditions(one, other)
}
