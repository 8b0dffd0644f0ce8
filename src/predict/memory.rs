//! The memory of a rank.

use super::split::Split;
use super::work::Works;
use serde::Serialize;

/// Bytes that a rank holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Memory {
    /// All weights: every rank has them whole.
    pub weights: f64,
    /// The rank's part of all caches.
    pub caches: f64,
    /// Computed values at the moment at which most of them are held.
    pub activations: f64,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> f64 {
        self.weights + self.caches + self.activations
    }
}

impl Works {
    /// The most bytes of computed values that a rank holds at once, if the kernels run in their order and each value goes
    /// with its last reader.
    pub fn activations(&self, split: &Split) -> f64 {
        // How much comes with each kernel, and how much goes after it.
        let mut come = vec![0.0; self.works.len() + 1];
        let mut go = vec![0.0; self.works.len() + 1];
        for held in &self.held {
            let bytes = held.bytes * split.share_of(held.extents);
            if let Some(place) = come.get_mut(held.first) {
                *place += bytes;
            }
            if let Some(place) = go.get_mut(held.last) {
                *place += bytes;
            }
        }
        let (mut now, mut most) = (0.0, 0.0_f64);
        for (come, go) in come.iter().zip(&go) {
            now += come;
            most = most.max(now);
            now -= go;
        }
        most
    }
}
