//! What a split writes, on real exports.
