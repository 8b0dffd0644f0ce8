//! Which rule each site of a model has.

use super::select::Unknown;
use super::{Diagnostic, Report, Rule, Rules, RulesError, SiteFacts};
use std::collections::BTreeMap;

/// A site and what rules can ask of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NamedSite<'a> {
    /// The site's name, for messages.
    pub name: &'a str,
    /// What rules can ask.
    pub facts: SiteFacts<'a>,
}

impl Rules {
    /// For each site the index of the rule that acts on it; `None` where none does.
    ///
    /// A rule `broadcast: never` keeps its sites from all rules that follow it. Of the others one at most may claim a
    /// site. `spans` are the claims of rules that are for whole spans of blocks ([`super::Strategy::Residual`]), as
    /// pairs of a site and a rule, both as indices: such a rule claims every site of its blocks.
    ///
    /// # Errors
    /// [`RulesError::Invalid`] at the lines of the rules where two claim one site, or where a rule asks for the costs of
    /// a site which are not known.
    pub fn assign(&self, sites: &[NamedSite<'_>], spans: &[(usize, usize)]) -> Result<Vec<Option<usize>>, RulesError> {
        let mut conflicts: BTreeMap<(usize, usize), Vec<&str>> = BTreeMap::new();
        let mut unknown: BTreeMap<usize, (&str, Unknown)> = BTreeMap::new();
        let mut spanned: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (site, rule) in spans {
            spanned.entry(*site).or_default().push(*rule);
        }
        let mut assigned = Vec::with_capacity(sites.len());
        for (index, site) in sites.iter().enumerate() {
            let by_span = spanned.get(&index).map_or(&[][..], Vec::as_slice);
            let mut owner: Option<usize> = None;
            for (number, rule) in self.rules.iter().enumerate() {
                let claims = match rule.claims(&site.facts) {
                    Ok(claims) => claims || by_span.contains(&number),
                    Err(what) => {
                        unknown.entry(number).or_insert((site.name, what));
                        continue;
                    }
                };
                match owner {
                    _ if !claims => {}
                    None => owner = Some(number),
                    Some(first) if self.acts(first) => {
                        conflicts.entry((first, number)).or_default().push(site.name);
                    }
                    // The site was taken out.
                    Some(_) => {}
                }
            }
            assigned.push(owner.filter(|owner| self.acts(*owner)));
        }
        let unknown = unknown.iter().filter_map(|(rule, (site, what))| {
            let rule = self.rules.get(*rule)?;
            let message = format!(
                "rule `{}` asks for {what} of site `{site}`, which depends on open sizes",
                rule.name
            );
            let help =
                "give each open size with --size NAME=N, or take the condition out; `pab-patch inspect` names them";
            Some(at(rule, message, help.to_owned()))
        });
        let conflicts = conflicts.iter().filter_map(|((first, second), sites)| {
            let (first, second) = (self.rules.get(*first)?, self.rules.get(*second)?);
            Some(conflict(first, second, sites))
        });
        let mut diagnostics: Vec<Diagnostic> = unknown.chain(conflicts).collect();
        if diagnostics.is_empty() {
            return Ok(assigned);
        }
        diagnostics.sort_by_key(|found| (found.line, found.column));
        Err(RulesError::Invalid(Report {
            file: self.file.clone(),
            text: self.text.clone(),
            diagnostics,
            left_out: 0,
        }))
    }

    /// Whether a rule asks for what a site costs, so that it takes the sizes of the model to tell what it claims.
    pub fn ask_costs(&self) -> bool {
        self.rules
            .iter()
            .any(|rule| rule.select.cache.is_some() || rule.select.share.is_some())
    }

    fn acts(&self, rule: usize) -> bool {
        self.rules.get(rule).is_some_and(|rule| rule.action.is_some())
    }
}

fn conflict(first: &Rule, second: &Rule, sites: &[&str]) -> Diagnostic {
    let more = match sites.len() {
        0 | 1 => String::new(),
        many => format!(" and {} more", many - 1),
    };
    let site = sites.first().copied().unwrap_or_default();
    let message = format!(
        "rule `{}` in line {} and rule `{}` in line {} both claim site `{site}`{more}",
        first.name, first.line, second.name, second.line
    );
    let help = match second.action {
        Some(_) => {
            "let them match different kinds, blocks or names; a rule with `broadcast: never` before both takes \
             sites out"
        }
        None => "move the rule with `broadcast: never` before the other: it takes sites out for those that follow",
    };
    at(second, message, help.to_owned())
}

fn at(rule: &Rule, message: String, help: String) -> Diagnostic {
    Diagnostic {
        line: rule.line,
        column: rule.column,
        length: 1,
        message,
        help,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::Kind;

    fn site<'a>(name: &'a str, kind: Kind, block: usize) -> NamedSite<'a> {
        NamedSite {
            name,
            facts: SiteFacts::new(kind, block, 3),
        }
    }

    fn sites() -> Vec<NamedSite<'static>> {
        vec![
            site("spatial.0", Kind::Spatial, 0),
            site("spatial.1", Kind::Spatial, 1),
            site("spatial.2", Kind::Spatial, 2),
            site("cross.0", Kind::Cross, 0),
        ]
    }

    fn rules(text: &str) -> Rules {
        Rules::parse("rules.yaml", &format!("version: 1\nrules:\n{text}")).unwrap()
    }

    #[test]
    fn never_before_takes_sites_out() {
        let rules = rules(
            "  - { name: ends, match: { kind: spatial, blocks: [0, -1] }, broadcast: never }
  - { name: rest, match: { kind: [spatial, cross] }, broadcast: { range: 4 } }
",
        );
        assert_eq!(rules.assign(&sites(), &[]).unwrap(), [None, Some(1), None, Some(1)]);
    }

    #[test]
    fn two_claims_on_one_site_are_shown_with_both_lines() {
        let named = rules(
            "  - { name: some, match: { kind: spatial, name: \"a*\" }, broadcast: { range: 2 } }
  - { name: others, match: { kind: spatial, name: \"*b\" }, broadcast: { range: 4 } }
  - { name: late, match: { kind: spatial, name: \"?b\" }, broadcast: never }
",
        );
        let mut sites = sites();
        sites[0].facts.name = Some("a");
        assert_eq!(named.assign(&sites, &[]).unwrap(), [Some(0), None, None, None]);
        sites[1].facts.name = Some("aab");
        sites[2].facts.name = Some("ab");
        insta::assert_snapshot!(named.assign(&sites, &[]).unwrap_err(), @r#"
    error: rule `some` in line 3 and rule `others` in line 4 both claim site `spatial.1` and 1 more
     --> rules.yaml:4:5
      |
    4 |   - { name: others, match: { kind: spatial, name: "*b" }, broadcast: { range: 4 } }
      |     ^
      = help: let them match different kinds, blocks or names; a rule with `broadcast: never` before both takes sites out

    error: rule `some` in line 3 and rule `late` in line 5 both claim site `spatial.2`
     --> rules.yaml:5:5
      |
    5 |   - { name: late, match: { kind: spatial, name: "?b" }, broadcast: never }
      |     ^
      = help: move the rule with `broadcast: never` before the other: it takes sites out for those that follow

    2 errors in rules.yaml
    "#);
    }

    #[test]
    fn spans_claim_the_sites_of_their_blocks() {
        let rules = rules(
            "  - { name: first, match: { kind: spatial, blocks: 0 }, broadcast: never }
  - { name: span, residual: { range: 2 } }
  - { name: cross, match: { kind: cross }, broadcast: { range: 2 } }
",
        );
        assert_eq!(
            rules.assign(&sites(), &[(0, 1), (1, 1), (2, 1)]).unwrap(),
            [None, Some(1), Some(1), Some(2)]
        );
        let error = rules.assign(&sites(), &[(3, 1)]).unwrap_err().to_string();
        assert!(
            error.contains("rule `span` in line 4 and rule `cross` in line 5 both claim site `cross.0`"),
            "{error}"
        );
    }

    #[test]
    fn what_a_site_costs() {
        let rules = rules(
            "  - { name: small, match: { kind: spatial, cache: \"<= 1KiB\", share: [\"> 0.1\", \"<= 0.5\"] }, broadcast: { range: 2 } }
  - { name: cut, match: { kind: cross, cache: \"< 10B\" }, cut: gated, broadcast: { range: 2 } }
",
        );
        assert!(rules.ask_costs());
        let mut sites = sites();
        for (site, (bytes, share)) in sites.iter_mut().zip([(1024, 0.2), (1025, 0.2), (10, 0.1), (0, 0.0)]) {
            site.facts.cache_bytes = Some(bytes);
            site.facts.share = Some(share);
            site.facts.gated_cache_bytes = Some(9);
        }
        assert_eq!(rules.assign(&sites, &[]).unwrap(), [Some(0), None, None, Some(1)]);
        sites[1].facts.share = None;
        sites[3].facts.gated_cache_bytes = None;
        insta::assert_snapshot!(rules.assign(&sites, &[]).unwrap_err(), @r#"
        error: rule `cut` asks for the cache of site `cross.0`, which depends on open sizes
         --> rules.yaml:4:5
          |
        4 |   - { name: cut, match: { kind: cross, cache: "< 10B" }, cut: gated, broadcast: { range: 2 } }
          |     ^
          = help: give each open size with --size NAME=N, or take the condition out; `pab-patch inspect` names them

        1 error in rules.yaml
        "#);
    }
}
