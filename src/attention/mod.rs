//! Finds the residual stream, its branches, what each branch is, and where it may be cut.
//!
//! An attention is found from its core (`core.rs`, in the spellings of `spelling.rs`; without softmax, `linear.rs`), its
//! kind from what its keys count (`classify.rs`, on the [`crate::axes`] analysis), and its branch by walking on to the
//! residual additions (`exit.rs`, `part.rs`): one, or one for each stream where text and latent attend together, or for the
//! tokens of some frames. The residual additions that
//! no attention leads to are looked at for feed-forwards (`feed_forward.rs`). Names play no part: a graph whose every name
//! was replaced gives the same [`Sites`]. A softmax, a fused attention or a residual branch that does not become a
//! [`Site`] is in [`Sites::notes`], with the reason; so is an attention in a nested graph or a function of the model,
//! where no site is looked for (`nested.rs`).

mod block;
mod cause;
mod classify;
mod core;
mod cost;
mod cut;
mod exit;
mod feed_forward;
mod indicator;
mod kind;
mod linear;
mod module;
mod nested;
mod normalized;
mod part;
mod residual;
mod site;
mod span;
mod spelling;
mod stream;
mod variable;
mod work;

#[cfg(test)]
mod tests;

pub use crate::axes::Note;
pub use cost::{Costs, SiteCost};
pub use cut::{Cut, Cuts, Part};
pub use kind::{Kind, UnknownKind};
pub use site::{Addition, Site, Sites};
pub use span::{Span, SpanEntry, SpanError, SpanStream};
