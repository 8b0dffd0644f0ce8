//! How a graph is divided over ranks: which factor of which dimension, where every value lies, what has to be exchanged.
//!
//! The analysis for one axis of a [`Mesh`]. Nothing is named and nothing is edited here: dimensions are followed by one
//! line an operator (`link.rs`, `step.rs`), from the residual streams on (`flow.rs`), for every factor that these have
//! (`choice.rs`). `crate::rewrite::split` turns the outcome into a graph.

mod choice;
mod cost;
mod division;
mod error;
mod facts;
mod flow;
mod kept;
mod labelled;
mod link;
mod mesh;
mod placement;
mod score;
mod share;
mod step;
pub mod volume;

pub use choice::{Factor, Preference};
pub use division::Division;
pub use error::ShardError;
pub use facts::Facts;
pub(crate) use facts::Operation;
pub use flow::Alternative;
pub use kept::{Gathered, Kept, Units};
pub(crate) use link::PAB as DOMAIN;
pub use mesh::{Group, MOST_RANKS, Mesh, part};
pub use placement::{Part, Placement, Shard};
pub use score::Candidate;
pub use share::Shares;
pub(crate) use step::Step;
