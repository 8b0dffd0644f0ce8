//! The real binary and the real ONNX Runtime on real exported models.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test that cannot go on has failed.

mod broken_files;
mod caches;
mod chained;
mod checker;
mod commands;
mod equality;
mod faults;
mod forecast;
mod forms;
mod gpu;
mod guided;
mod hosts;
mod inspect;
mod pab_loops;
mod patch;
mod pipeline;
mod program;
mod providers;
mod readme;
mod reference;
mod rounded;
mod schedulers;
mod schema;
mod variants;
mod wide;
