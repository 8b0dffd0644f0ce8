//! Graph, sites and rules make a patched graph.
//!
//! [`select`] gives each site its rule; [`switch`] wraps the chosen modules in `If`s, so that one graph
//! holds the computing and the broadcasting half (the switch form); [`without`] takes modules out for good, which is
//! what a step costs when they are broadcast (a variant). [`Plan`] tells a host how to drive the result.

mod choice;
mod error;
mod plan;
mod switch;
#[cfg(test)]
mod tests;
mod without;

pub use choice::{Choice, facts, select};
pub use error::RewriteError;
pub use plan::{
    CachePlan, CacheRole, PLAN_KEY, Plan, PlanError, PlanFormat, PlanSize, RulePlan, SchedulePlan, SitePlan, StatePlan,
};
pub use switch::{Patched, refuse_patched, switch};
pub use without::without;
