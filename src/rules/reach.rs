//! Rules that can never apply, because earlier rules claim all that they match.

use super::Rule;
use super::check::File;
use super::indices::{IndexSet, MAX_INDEX};
use super::tree::Findings;
use crate::attention::Kind;

/// Finds the rules that no site can reach: the first rule that matches a site has it.
///
/// A rule with a name pattern hides only rules with the same pattern: whether two different patterns meet depends on the
/// model.
pub(super) fn check(file: &File, findings: &mut Findings) {
    for (index, (rule, place)) in file.rules.iter().zip(&file.matches).enumerate() {
        let earlier: Vec<&Rule> = file
            .rules
            .iter()
            .take(index)
            .filter(|other| may_hide(other, rule))
            .collect();
        if rule
            .select
            .kinds
            .iter()
            .any(|kind| !left(rule, *kind, &earlier).is_empty())
        {
            continue;
        }
        let hiding: Vec<&Rule> = earlier.into_iter().filter(|other| shares_kind(other, rule)).collect();
        if let Some(same) = hiding.iter().find(|other| same_sites(other, rule)) {
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
            findings.add(
                *place,
                message,
                "keep one of the two, or let them match different kinds, blocks or names",
            );
            continue;
        }
        let names: Vec<String> = hiding
            .iter()
            .map(|other| format!("`{}` (line {})", other.name, other.line))
            .collect();
        let message = format!(
            "rule `{}` can never apply: all its sites are matched before, by {}",
            rule.name,
            names.join(", ")
        );
        let help = "the first rule that matches a site has it: move this rule up, or narrow the earlier ones";
        findings.add(*place, message, help);
    }
}

fn may_hide(earlier: &Rule, rule: &Rule) -> bool {
    earlier.select.name.is_none() || earlier.select.name == rule.select.name
}

fn shares_kind(one: &Rule, other: &Rule) -> bool {
    one.select.kinds.iter().any(|kind| other.select.kinds.contains(kind))
}

/// A number of blocks that is far above what may be written, so that ranges from either end are apart.
const MANY: usize = 4 * MAX_INDEX;

/// The blocks of a rule that no earlier rule takes for this kind, in a model of many blocks.
fn left(rule: &Rule, kind: Kind, earlier: &[&Rule]) -> IndexSet {
    earlier
        .iter()
        .filter(|other| other.select.kinds.contains(&kind))
        .fold(rule.select.blocks.of(MANY), |left, other| {
            left.without(&other.select.blocks.of(MANY))
        })
}

fn same_sites(one: &Rule, other: &Rule) -> bool {
    let (one, other) = (&one.select, &other.select);
    let same_kinds = one.kinds.len() == other.kinds.len() && one.kinds.iter().all(|kind| other.kinds.contains(kind));
    same_kinds && one.blocks == other.blocks && one.name == other.name
}
