//! Finds the residual stream, its branches, what each branch is, and where it may be cut.
//!
//! An attention is found from its core (`core.rs`, in the spellings of `spelling.rs`), its kind from what its keys
//! count (`classify.rs`, on the [`crate::axes`] analysis), and its branch by walking on to the residual addition
//! (`residual.rs`). Names play no part: a graph whose every name was replaced gives the same [`Sites`]. A softmax or
//! fused attention that does not become a [`Site`] is in [`Sites::notes`], with the reason; so is one in a nested graph
//! or a function of the model, where no site is looked for (`nested.rs`).

mod cause;
mod classify;
mod core;
mod cost;
mod kind;
mod module;
mod nested;
mod residual;
mod site;
mod spelling;
mod variable;

#[cfg(test)]
mod tests;

pub use crate::axes::Note;
pub use cost::{Costs, SiteCost};
pub use kind::{Kind, UnknownKind};
pub use site::{Cut, Site, Sites};
