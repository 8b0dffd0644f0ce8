//! The file format: typed messages, zero-copy load, external data, byte-faithful save, validation.
//!
//! [`Model::load`] maps a file, compares it with the [`schema`] ([`wire`]), and decodes it into [`messages`] whose
//! tensors are slices of the map. [`Weights`] gives tensor values, also from external files. [`validate()`] checks a
//! model against the ONNX IR, and [`Model::save`] writes it atomically.

mod counted;
mod error;
mod external;
mod fingerprint;
mod job;
mod load;
pub mod messages;
mod minifloat;
mod place;
pub mod save;
pub mod schema;
mod sniff;
mod stream;
pub mod tensor;
mod tensors;
pub mod validate;
mod weights;
pub mod wire;

#[cfg(test)]
mod tests;

pub use error::OnnxError;
pub use external::{ExternalFault, Reference, check_location};
pub use load::{Model, opset};
pub use save::{How, Progress, ProgressFn, SaveOptions, Saved, SavedFile};
pub use tensor::TensorFault;
pub use tensors::{try_each_tensor, try_each_tensor_mut};
pub use validate::{ValidationError, Violation, validate};
pub use weights::{Standing, Weights};

/// The newest ONNX IR version whose fields the messages know (ONNX 1.23).
pub const NEWEST_IR_VERSION: i64 = 14;
