//! The real binary and the real ONNX Runtime on real exported models.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test that cannot go on has failed.

mod adaptive;
mod broken_files;
#[cfg(unix)]
mod browser;
mod caches;
mod calibrate;
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
mod nccl;
mod operators;
mod pab_loops;
mod page;
mod patch;
mod pipeline;
mod plan;
mod program;
mod providers;
mod ranks;
mod readme;
mod reference;
mod rounded;
mod schedulers;
mod schema;
mod split;
mod variants;
mod webgpu;
mod whole_pipelines;
mod wide;
mod wide_ranks;
