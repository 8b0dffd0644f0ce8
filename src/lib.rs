//! Pyramid Attention Broadcast for exported diffusion transformers.
//!
//! The modules stand in the order of the data's way, and a module imports only what stands before it:
//! file → [`onnx`] → [`graph`] → [`axes`] → [`attention`] → [`rules`] + [`schedule`] → [`rewrite`] → file →
//! [`predict`], [`collective`] + [`runtime`] → [`sampler`] → [`generation`] → [`pipeline`] → [`quality`] → [`calibrate`] →
//! [`report`]. The command line ([`cli`]) stands last.
//! [`stop`], which says that the work at hand is no longer wanted, stands before all.
//! `ARCHITECTURE.md` is the map.

pub mod attention;
pub mod axes;
pub mod calibrate;
pub mod cli;
pub mod collective;
pub mod generation;
pub mod graph;
pub mod onnx;
pub mod pipeline;
pub mod predict;
pub mod quality;
pub mod report;
pub mod rewrite;
pub mod rules;
pub mod runtime;
pub mod sampler;
pub mod schedule;
pub mod shard;
pub mod stop;
