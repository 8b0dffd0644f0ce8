//! Why a graph could not be rewritten.

use super::GuidanceError;
use crate::attention::SpanError;
use crate::graph::GraphError;
use crate::rules::RulesError;

/// Why a graph could not be rewritten.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    /// The model holds a plan already.
    #[error("the model is patched already (by {by}); patch the original instead")]
    AlreadyPatched {
        /// What patched it, from its plan.
        by: String,
    },
    /// A rule asks for a cut that a site does not have.
    #[error(
        "rule `{rule}` cuts at `gated`, but site `{site}` has no gate; write `cut: output`, or match other sites \
         (`pab-patch inspect` lists the cuts of each)"
    )]
    NoGate {
        /// The rule.
        rule: String,
        /// The site.
        site: String,
    },
    /// The blocks of a rule are no span.
    #[error("rule `{rule}` (line {line}) leaves out blocks {first} to {last} as one: {error}")]
    Span {
        /// The rule.
        rule: String,
        /// Its line.
        line: usize,
        /// The first block.
        first: usize,
        /// The last block.
        last: usize,
        /// Why not.
        error: SpanError,
    },
    /// A rule for spans matches no block.
    #[error(
        "rule `{rule}` (line {line}) matches none of the {count} blocks of this model; `pab-patch inspect` shows them"
    )]
    NoBlocks {
        /// The rule.
        rule: String,
        /// Its line.
        line: usize,
        /// How many blocks there are.
        count: usize,
    },
    /// A site within a span that another rule wants computed.
    #[error(
        "rule `{keeping}` (line {keeping_line}) never broadcasts site `{site}`, and rule `{rule}` (line {line}) leaves it out \
         with its block; let them match different blocks"
    )]
    Kept {
        /// The site.
        site: String,
        /// The rule that never broadcasts it.
        keeping: String,
        /// Its line.
        keeping_line: usize,
        /// The rule for spans.
        rule: String,
        /// Its line.
        line: usize,
    },
    /// Guidance cannot be left out of this model.
    #[error("rule `{rule}` (line {line}): {error}")]
    Guidance {
        /// The rule.
        rule: String,
        /// Its line.
        line: usize,
        /// Why not.
        error: GuidanceError,
    },
    /// Guidance beside a forecast.
    #[error(
        "rule `{guidance}` (line {line}) runs half of the batch, so that rule `{other}` (line {other_line}) would forecast \
         from halves that were computed at different steps; beside guidance write `broadcast` or `residual` instead of \
         `forecast`, or patch with one of the two rules"
    )]
    GuidanceBeside {
        /// The rule for guidance.
        guidance: String,
        /// Its line.
        line: usize,
        /// The rule that forecasts.
        other: String,
        /// Its line.
        other_line: usize,
    },
    /// Guidance beside a rule that the model decides.
    #[error(
        "rule `{guidance}` (line {line}) runs half of the batch, so that the drift of rule `{other}` (line {other_line}) \
         could not be told from step to step; remove `adaptive`, or patch with one of the two rules"
    )]
    AdaptiveBeside {
        /// The rule for guidance.
        guidance: String,
        /// Its line.
        line: usize,
        /// The rule that the model decides.
        other: String,
        /// Its line.
        other_line: usize,
    },
    /// A rule has nothing that its drift could be told by.
    #[error(
        "rule `{rule}` (line {line}) is `adaptive`, and what its first site `{site}` projects could not be followed from the \
         residual stream, or its sizes are not known; remove `adaptive`, or let the rule begin with another block"
    )]
    NoIndicator {
        /// The rule.
        rule: String,
        /// Its line.
        line: usize,
        /// The site.
        site: String,
    },
    /// A static graph of a rule that the model decides.
    #[error(
        "rule `{rule}` is `adaptive`: the model decides at each step, which static graphs cannot; use the switch form \
         (`--form switch`), or patch without `adaptive`"
    )]
    Undecided {
        /// The rule.
        rule: String,
    },
    /// Guidance beside a site whose value does not have its halves one behind the other.
    #[error(
        "rule `{guidance}` runs half of the batch, and in what site `{site}` caches, {shape}, the batch {batch} is not the \
         outermost part of one axis; let the site's rule match others, or patch with one of the two rules"
    )]
    GuidanceSite {
        /// The rule for guidance.
        guidance: String,
        /// The site.
        site: String,
        /// The shape of the value, as far as it is known.
        shape: String,
        /// The batch.
        batch: String,
    },
    /// No rule matches any site.
    #[error(
        "no rule broadcasts any of the {sites} sites ({kinds}); `pab-patch inspect` lists the sites, and --rules takes \
         others"
    )]
    NothingMatches {
        /// How many sites there are.
        sites: usize,
        /// Their kinds.
        kinds: String,
    },
    /// The model has no site at all.
    #[error(
        "found no attention that can be broadcast; `pab-patch inspect` says what was seen and why it was not taken"
    )]
    NoSites,
    /// The module of a site is not there alone any more: another site's module holds it, or has the same cut.
    #[error(
        "site `{site}` cannot be wrapped, because its module is part of that of another chosen site or shares nodes \
         with it; let rules match only one of them (`pab-patch inspect` lists the sites)"
    )]
    Entangled {
        /// The site.
        site: String,
    },
    /// A plan names a site that the model does not have.
    #[error("the plan broadcasts site `{site}`, which its original does not have; patch the original again")]
    NotPlanned {
        /// The site.
        site: String,
    },
    /// A choice names a rule that does not broadcast, or that is not there.
    #[error("site `{site}` is given rule number {rule}, which does not broadcast; choose with `rewrite::select`")]
    NoSuchRule {
        /// The site.
        site: String,
        /// The rule.
        rule: usize,
    },
    /// The cached value has an element type that cannot be handed through a host.
    #[error(
        "site `{site}` has elements of type {element_type}, which cannot be cached; export the model in float16 or float32"
    )]
    ElementType {
        /// The site.
        site: String,
        /// The type.
        element_type: String,
    },
    /// The rules do not fit the model's sites.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// The model's operator set cannot give caches of the type that is wanted.
    #[error(
        "caches of type {cache_type} need operator set {needed}, and the model has {opset}; use --cache-dtype f16, or \
         export the model with a newer operator set"
    )]
    CacheType {
        /// The type.
        cache_type: super::CacheType,
        /// The model's operator set.
        opset: i64,
        /// The first operator set that has it.
        needed: i64,
    },
    /// Which steps broadcast is not known, and has to be.
    #[error(
        "which steps broadcast has to be known; give diffusers' scheduler_config.json with --scheduler FILE, and --steps N"
    )]
    NoSchedule,
    /// The graph itself.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The plan could not be written.
    #[error(transparent)]
    Plan(#[from] super::PlanError),
}
