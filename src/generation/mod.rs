//! One clip through the whole denoising loop: scheduler, model, schedule of broadcasts and guidance together.
//!
//! [`Generator`] holds an open model, plain or patched, and makes clips from noise and a [`Conditioning`]. What the
//! model's inputs are is told by [`Roles`]; prompts become conditionings by a [`PromptTable`].

mod conditioning;
mod error;
mod feedback;
mod form;
mod generator;
mod prompt;
mod roles;

pub use conditioning::{Conditioning, Text};
pub use error::GenerationError;
pub use generator::{Clip, Generator, StepDone, check_steps};
pub use prompt::PromptTable;
pub use roles::{Role, Roles, known_sizes, sizes_of, symbol_of};
