//! One clip through the whole denoising loop: scheduler, model, schedule of broadcasts and guidance together.
//!
//! [`Generator`] holds an open model, plain or patched, and makes clips from noise and a [`Conditioning`]. What the
//! model's inputs are is told by [`Roles`]; prompts become conditionings by a [`PromptTable`]. On a device with memory of its own latents stay there for the
//! whole clip (`resident`), where the scheduler can be told as sums (`step_graph`); else they go through the host.

mod conditioning;
mod error;
mod feedback;
mod form;
mod generator;
mod prompt;
mod resident;
mod roles;
mod step_graph;

pub use conditioning::{Conditioning, Text, check_batch};
pub use error::GenerationError;
pub use generator::{Clip, Generator, StepDone, check_steps};
pub use prompt::PromptTable;
pub use resident::LatentPlace;
pub use roles::{Role, Roles, known_sizes, sizes_in_run, sizes_of, sizes_of_run, symbol_of};
