//! The `pab-patch` binary.

fn main() {}
