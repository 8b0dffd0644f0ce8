//! Graph, sites and rules make a patched graph.
//!
//! [`select`] gives each site its rule; [`switch`] wraps the chosen modules in `If`s, so that one graph
//! holds the computing and the broadcasting half (the switch form); [`drive_by_step`] lets the model look its flags up by
//! the number of the step; [`variants`] makes a static graph for each set of rules that a run broadcasts together (the
//! variant form), [`variant`] that of one set of flags, and [`without`] one that puts no cache out, which is the least that
//! a step can cost. [`Plan`] tells a host how to drive the result.

mod agreement;
mod build;
mod cache_type;
mod ceiling;
mod choice;
mod collective;
mod drift;
mod drive;
mod error;
mod fixed_sizes;
mod forecast;
mod guidance;
mod halved;
mod index;
mod known_sizes;
mod memory;
mod module;
mod node;
mod plan;
mod planned;
mod reuse;
mod shape_arithmetic;
mod span;
pub mod split;
mod switch;
#[cfg(test)]
mod tests;
mod variant;
mod wide;
mod without;

pub use cache_type::CacheType;
pub use ceiling::{Weight, over_ceiling};
pub use choice::{Choice, facts, select, select_beside};
pub use drive::{Drive, STEP_INPUT, drive_by_step};
pub use error::RewriteError;
pub use fixed_sizes::fix_sizes;
pub use guidance::{GuidanceError, Halves};
pub use halved::{BatchAxes, BatchAxis};
pub use index::{FedBack, VariantFile, VariantIndex};
pub use known_sizes::write_known_sizes;
pub use memory::{CacheMemory, RuleMemory};
pub use plan::{
    CachePlan, CacheRole, DroppedSite, PLAN_KEY, Plan, PlanError, PlanFormat, PlanSize, RulePlan, SchedulePlan,
    SiteKind, SitePlan, StatePlan, WideKind,
};
pub use planned::{planned_rules, select_planned};
pub use switch::{Patched, SwitchOptions, refuse_patched, switch, switch_wide};
pub use variant::{Variant, variants};
pub use wide::{GuidanceChoice, SpanChoice, Wide};
pub use without::{variant, without};
