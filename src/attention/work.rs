//! How much of a graph the search looks at: counted, so that tests can bound it, and kept in bounds, so that a hostile
//! graph takes linear time as well.

use std::cell::Cell;
use std::hash::{BuildHasherDefault, Hasher};

/// More readers or parts than these has no module's result; of more, no more are looked at.
pub(super) const MOST_READERS: usize = 64;

/// Nodes and edges looked at so far.
#[derive(Debug, Default)]
pub(super) struct Work(Cell<u64>);

impl Work {
    /// Counts `steps` more.
    pub fn add(&self, steps: usize) {
        self.0.set(self.0.get().saturating_add(steps as u64));
    }

    /// All of them.
    pub fn steps(&self) -> u64 {
        self.0.get()
    }
}

/// A set of values or nodes of one graph.
pub(super) type IdSet<I> = std::collections::HashSet<I, BuildHasherDefault<IdHasher>>;

/// A table by values or nodes of one graph.
pub(super) type IdMap<I, T> = std::collections::HashMap<I, T, BuildHasherDefault<IdHasher>>;

/// Spreads the numbers of values and nodes. They are places in tables, which a file cannot choose freely, so nothing
/// stronger is needed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        // The odd number next to 2^64 divided by the golden ratio (Knuth's multiplicative hashing).
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
