//! The file format: typed messages, zero-copy load, external data, byte-faithful save, validation.

pub mod messages;
pub mod schema;
pub mod wire;
