//! The real binary and the real ONNX Runtime on real exported models.

mod broken_files;
mod checker;
mod commands;
mod equality;
mod patch;
mod program;
mod readme;
mod reference;
mod rounded;
