//! Tables, frames, animated pictures.
