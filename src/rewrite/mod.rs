//! Graph, sites and rules make a patched graph.
//!
//! [`select`] gives each site its rule; [`switch`] wraps the chosen modules in `If`s, so that one graph
//! holds the computing and the broadcasting half (the switch form); [`variant`] makes the static graph of one set of
//! flags, and [`without`] what is least of it: what a step costs when modules are broadcast. [`Plan`] tells a host how to drive the result.

mod build;
mod cache_type;
mod ceiling;
mod choice;
mod error;
mod forecast;
mod guidance;
mod memory;
mod module;
mod node;
mod plan;
mod reuse;
mod shape_arithmetic;
mod span;
mod switch;
#[cfg(test)]
mod tests;
mod wide;
mod without;

pub use cache_type::CacheType;
pub use ceiling::{Weight, over_ceiling};
pub use choice::{Choice, facts, select, select_beside};
pub use error::RewriteError;
pub use guidance::{GuidanceError, Halves};
pub use memory::{CacheMemory, RuleMemory};
pub use plan::{
    CachePlan, CacheRole, DroppedSite, PLAN_KEY, Plan, PlanError, PlanFormat, PlanSize, RulePlan, SchedulePlan,
    SiteKind, SitePlan, StatePlan, WideKind,
};
pub use switch::{Patched, SwitchOptions, refuse_patched, switch, switch_wide};
pub use wide::{GuidanceChoice, SpanChoice, Wide};
pub use without::{variant, without};
