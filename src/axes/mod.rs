//! Where every dimension of every tensor comes from: batch, frames, height, width, channels, heads, text.
