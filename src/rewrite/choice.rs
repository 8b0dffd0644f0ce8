//! Which rule each site has.

use super::{RewriteError, Wide};
use crate::attention::{Costs, Cuts, Kind, Site, Sites};
use crate::rules::{CutPoint, NamedSite, Rules, SiteFacts};
use std::collections::{BTreeMap, BTreeSet};

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

/// Gives each site the rule that claims it. `costs` are needed where rules ask what a site costs. Sites without a rule, or
/// with one that never broadcasts, are left out. In the order of the sites.
///
/// # Errors
/// [`RewriteError::NoSites`] and [`RewriteError::NothingMatches`] where nothing would be broadcast,
/// [`RewriteError::Rules`] where two rules claim one site, or ask for costs that are not known;
/// [`RewriteError::NoGate`] where a rule asks for a cut that is not there.
pub fn select<'a>(sites: &'a Sites, rules: &Rules, costs: Option<&Costs>) -> Result<Vec<Choice<'a>>, RewriteError> {
    select_beside(sites, rules, costs, &Wide::default())
}

/// The same beside rules for spans and guidance. There need not be a site for any other rule then.
///
/// # Errors
/// Those of [`select`]; also where a rule claims a site within a span.
pub fn select_beside<'a>(
    sites: &'a Sites,
    rules: &Rules,
    costs: Option<&Costs>,
    wide: &Wide,
) -> Result<Vec<Choice<'a>>, RewriteError> {
    let named: Vec<NamedSite<'_>> = facts(sites, costs).collect();
    let assigned = rules.assign(&named, &wide.claims())?;
    let mut choices = Vec::new();
    for (site, rule) in sites.sites.iter().zip(assigned) {
        let Some(rule) = rule.filter(|rule| !wide.has(*rule)) else {
            continue;
        };
        let cuts = match rules.rules[rule].cut {
            CutPoint::Output => &site.output,
            CutPoint::Gated => site.gated.as_ref().ok_or_else(|| RewriteError::NoGate {
                rule: rules.rules[rule].name.clone(),
                site: site.name.clone(),
            })?,
        };
        choices.push(Choice { site, rule, cuts });
    }
    if wide.count() > 0 {
        return Ok(choices);
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

/// What rules can ask of each site, in the order of the sites. `costs` are those of these sites; without them, or where
/// sizes are open, rules cannot ask what a site costs.
pub fn facts<'a>(sites: &'a Sites, costs: Option<&'a Costs>) -> impl Iterator<Item = NamedSite<'a>> {
    let blocks = blocks(sites);
    // A share of what could not be counted would be too large.
    let counted = costs.is_some_and(|costs| costs.uncounted == 0);
    sites.sites.iter().enumerate().map(move |(index, site)| {
        let cost = costs.and_then(|costs| costs.sites.get(index));
        let facts = SiteFacts {
            kind: site.kind,
            block: site.block,
            blocks: blocks.get(&site.kind).copied().unwrap_or(0),
            name: site.module.as_deref(),
            cache_bytes: cost.and_then(|cost| cost.cache_bytes),
            gated_cache_bytes: cost.and_then(|cost| cost.gated_cache_bytes),
            share: cost.filter(|_| counted).map(|cost| cost.share),
        };
        NamedSite {
            name: &site.name,
            facts,
        }
    })
}

/// How many blocks of each kind a model has.
fn blocks(sites: &Sites) -> BTreeMap<Kind, usize> {
    let mut blocks = BTreeMap::new();
    for site in &sites.sites {
        let count = blocks.entry(site.kind).or_insert(0);
        *count = site.block.saturating_add(1).max(*count);
    }
    blocks
}
