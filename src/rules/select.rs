//! What a rule applies to.

use super::blocks::Blocks;
use super::pattern::Pattern;
use crate::attention::Kind;
use serde::Serialize;

/// Which sites a rule claims: those of one of its kinds, in its blocks, whose name its pattern matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Match {
    /// The kinds, at least one, in the order written, each once.
    #[serde(rename = "kind")]
    pub kinds: Vec<Kind>,
    /// The blocks, counted from 0 per kind.
    #[serde(skip_serializing_if = "Blocks::is_all")]
    pub blocks: Blocks,
    /// What the exporter's module name has to look like, if that matters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Pattern>,
}

/// The facts about a site that rules can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiteFacts<'a> {
    /// What the site mixes.
    pub kind: Kind,
    /// The index of its block among the blocks of its kind, from 0.
    pub block: usize,
    /// The exporter's module name, where the file has one. A rule with a name pattern never claims a site without.
    pub name: Option<&'a str>,
}

impl Match {
    /// Whether the rule claims a site with these facts.
    pub fn claims(&self, site: &SiteFacts<'_>) -> bool {
        self.kinds.contains(&site.kind)
            && self.blocks.contains(site.block)
            && self
                .name
                .as_ref()
                .is_none_or(|pattern| site.name.is_some_and(|name| pattern.matches(name)))
    }
}
