//! What a rule applies to.

use super::CutPoint;
use super::blocks::Blocks;
use super::limit::Limits;
use super::pattern::Pattern;
use crate::attention::Kind;
use serde::Serialize;
use std::fmt;

/// Which sites a rule claims: those of one of its kinds, in its blocks, whose name its pattern matches.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Match {
    /// The kinds, in the order written, each once. At least one, but for spans of blocks, which may name none.
    #[serde(rename = "kind", skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<Kind>,
    /// The blocks, counted per kind.
    #[serde(skip_serializing_if = "Blocks::is_all")]
    pub blocks: Blocks,
    /// What the exporter's module name has to look like, if that matters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Pattern>,
    /// How many bytes caching the site may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<Limits<u64>>,
    /// What share of a step's operations broadcasting the site has to save, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<Limits<f64>>,
}

/// The facts about a site that rules can ask for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SiteFacts<'a> {
    /// What the site mixes.
    pub kind: Kind,
    /// The index of its block among the blocks of its kind, from 0.
    pub block: usize,
    /// How many blocks of its kind the model has.
    pub blocks: usize,
    /// The exporter's module name, where the file has one. A rule with a name pattern never claims a site without.
    pub name: Option<&'a str>,
    /// Bytes that caching its output takes; none where a size is not known.
    pub cache_bytes: Option<u64>,
    /// Bytes that caching its gated output takes; none where a size is not known, or there is no gate.
    pub gated_cache_bytes: Option<u64>,
    /// The share of a step's operations that broadcasting it saves, 0 to 1; none where a size is not known.
    pub share: Option<f64>,
}

impl<'a> SiteFacts<'a> {
    /// A site of which only kind and place are known: block `block` of `blocks`.
    pub fn new(kind: Kind, block: usize, blocks: usize) -> SiteFacts<'a> {
        SiteFacts {
            kind,
            block,
            blocks,
            name: None,
            cache_bytes: None,
            gated_cache_bytes: None,
            share: None,
        }
    }
}

impl Match {
    /// What matches no site.
    pub fn nothing() -> Match {
        Match {
            kinds: Vec::new(),
            blocks: Blocks::all(),
            name: None,
            cache: None,
            share: None,
        }
    }

    /// All blocks but the first and the last, of any kind: what a rule for spans matches if it does not say.
    pub fn inner_blocks() -> Match {
        Match {
            blocks: Blocks::inner(),
            ..Match::nothing()
        }
    }

    /// The written form of a match of spans, which always names the blocks.
    pub(super) fn of_spans(&self) -> impl Serialize + '_ {
        #[derive(Serialize)]
        struct Spans<'a> {
            #[serde(rename = "kind", skip_serializing_if = "is_empty")]
            kinds: &'a [Kind],
            blocks: &'a Blocks,
            #[serde(skip_serializing_if = "Option::is_none")]
            name: Option<&'a Pattern>,
        }
        fn is_empty(kinds: &&[Kind]) -> bool {
            kinds.is_empty()
        }
        Spans {
            kinds: &self.kinds,
            blocks: &self.blocks,
            name: self.name.as_ref(),
        }
    }

    /// Whether a rule that cuts at `cut` claims a site with these facts.
    ///
    /// # Errors
    /// What is not known of the site, where that decides.
    pub fn claims(&self, site: &SiteFacts<'_>, cut: CutPoint) -> Result<bool, Unknown> {
        let named = self
            .name
            .as_ref()
            .is_none_or(|pattern| site.name.is_some_and(|name| pattern.matches(name)));
        if !named || !self.kinds.contains(&site.kind) || !self.blocks.contains(site.block, site.blocks) {
            return Ok(false);
        }
        if let Some(limits) = &self.cache {
            let bytes = match cut {
                CutPoint::Output => site.cache_bytes,
                CutPoint::Gated => site.gated_cache_bytes,
            };
            if !limits.hold(bytes.ok_or(Unknown::Cache)?) {
                return Ok(false);
            }
        }
        if let Some(limits) = &self.share {
            return Ok(limits.hold(site.share.ok_or(Unknown::Share)?));
        }
        Ok(true)
    }
}

/// What a rule asks of a site and is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// The bytes of its cache.
    Cache,
    /// Its share of a step.
    Share,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unknown::Cache => "the cache",
            Unknown::Share => "the share",
        })
    }
}
