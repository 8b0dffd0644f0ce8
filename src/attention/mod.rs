//! Finds the residual stream, its branches, what each branch is, and where it may be cut.

mod kind;

pub use kind::{Kind, UnknownKind};
