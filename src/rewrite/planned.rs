//! Sites by an earlier plan: what was chosen in the whole model, found again in one that was split.

use super::{CacheRole, CacheType, Choice, Plan, RewriteError, SiteKind, SitePlan, SwitchOptions, Wide};
use crate::attention::Sites;
use crate::rules::{CutPoint, Rules};

/// The rules of a plan, for [`select_planned`] and [`super::switch`].
pub fn planned_rules(plan: &Plan) -> Rules {
    let rules = plan.rules.iter().enumerate().map(|(index, rule)| {
        // The sites of a rule are all cut at one place.
        let cut = plan.sites_of(index).next().map_or(CutPoint::default(), |site| site.cut);
        (rule.name.clone(), cut, rule.action())
    });
    Rules::of_plan(&plan.rules_from, rules)
}

/// The sites that a plan broadcasts, by their names, with the rules of [`planned_rules`] and how caches are made. `wide` is what
/// it leaves out beside sites, as [`Wide::planned`] finds it.
///
/// # Errors
/// [`RewriteError::NotPlanned`] where a site of the plan is not there, or has no such cut.
pub fn select_planned<'a>(
    sites: &'a Sites,
    wide: &Wide,
    plan: &Plan,
) -> Result<(Vec<Choice<'a>>, SwitchOptions), RewriteError> {
    let is_module = |planned: &&SitePlan| matches!(planned.kind, SiteKind::Module(_));
    let mut choices = Vec::with_capacity(plan.sites.len());
    let caches = plan.sites.iter().filter(|planned| !is_module(planned));
    let caches = caches.flat_map(|planned| &planned.caches);
    let cached = caches.filter(|cache| cache.role != CacheRole::Indicator);
    let cached = cached.map(|cache| cache.element_type);
    let mut types: Vec<_> = wide.element_types().zip(cached).collect();
    // In the order of the sites, as every other selection.
    for site in &sites.sites {
        let Some(planned) = plan
            .sites
            .iter()
            .filter(is_module)
            .find(|planned| planned.name == site.name)
        else {
            continue;
        };
        let missing = || RewriteError::NotPlanned {
            site: planned.name.clone(),
        };
        let cuts = match planned.cut {
            CutPoint::Output => &site.output,
            CutPoint::Gated => site.gated.as_ref().ok_or_else(missing)?,
        };
        let cached = planned.caches.iter().map(|cache| cache.element_type);
        types.extend(cuts.iter().map(|cut| cut.element_type).zip(cached));
        choices.push(Choice {
            site,
            rule: planned.rule,
            cuts,
        });
    }
    let found = |name: &str| choices.iter().any(|choice| choice.site.name == name);
    if let Some(missing) = plan
        .sites
        .iter()
        .filter(is_module)
        .find(|planned| !found(&planned.name))
    {
        return Err(RewriteError::NotPlanned {
            site: missing.name.clone(),
        });
    }
    // The option is not in the plan, but what it made of the values is.
    let options = [None].into_iter().chain(CacheType::ALL.map(Some));
    let mut options = options.map(|cache_type| SwitchOptions { cache_type });
    let makes = |options: &SwitchOptions| {
        let mut types = types.iter();
        types.all(|(value, cached)| options.element_type(*value) == *cached)
    };
    let options = options.find(makes).unwrap_or_default();
    Ok((choices, options))
}
