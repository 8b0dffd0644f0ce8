//! Which rule each site has.

use super::RewriteError;
use crate::attention::{Cuts, Site, Sites};
use crate::rules::{CutPoint, Rules, SiteFacts};
use std::collections::BTreeSet;

/// A site that is broadcast by a rule.
#[derive(Clone, Debug)]
pub struct Choice<'a> {
    /// The site.
    pub site: &'a Site,
    /// The rule, as an index of [`Rules::rules`].
    pub rule: usize,
    /// Where it is cut, as the rule wants it.
    pub cuts: &'a Cuts,
}

/// Gives each site the first rule that matches it. Sites without a rule, or with one that never broadcasts, are left
/// out. In the order of the sites.
///
/// # Errors
/// [`RewriteError::NoSites`] and [`RewriteError::NothingMatches`] where nothing would be broadcast,
/// [`RewriteError::NoGate`] where a rule asks for a cut that is not there.
pub fn select<'a>(sites: &'a Sites, rules: &Rules) -> Result<Vec<Choice<'a>>, RewriteError> {
    let mut choices = Vec::new();
    for site in &sites.sites {
        let facts = SiteFacts {
            kind: site.kind,
            block: site.block,
            name: site.module.as_deref(),
        };
        let Some(rule) = rules.choose(&facts) else { continue };
        if rules.rules[rule].broadcast.is_none() {
            continue;
        }
        let cuts = match rules.rules[rule].cut {
            CutPoint::Output => &site.output,
            CutPoint::Gated => site.gated.as_ref().ok_or_else(|| RewriteError::NoGate {
                rule: rules.rules[rule].name.clone(),
                site: site.name.clone(),
            })?,
        };
        choices.push(Choice { site, rule, cuts });
    }
    if sites.sites.is_empty() {
        return Err(RewriteError::NoSites);
    }
    if choices.is_empty() {
        let kinds: BTreeSet<_> = sites.sites.iter().map(|site| site.kind.word()).collect();
        let kinds = kinds.into_iter().collect::<Vec<_>>().join(", ");
        return Err(RewriteError::NothingMatches {
            sites: sites.sites.len(),
            kinds,
        });
    }
    Ok(choices)
}
