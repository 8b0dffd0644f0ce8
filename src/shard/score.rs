//! What divisions are compared by.

use super::choice::Factor;
use super::flow::Wanted;

/// A factor that can be divided, and what a rank then sends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The factor.
    pub factor: Factor,
    /// Bytes that a rank sends in the mean of ranks and of the run's steps. Where sizes are open they are worth comparing
    /// with each other only.
    pub bytes: f64,
    /// Whether the latent is gathered in every step that was to be kept.
    pub gathers: bool,
}

impl Candidate {
    /// Puts `self` among the candidates, where it is better than what is there of its factor.
    pub(super) fn compete(self, candidates: &mut Vec<Candidate>) {
        match candidates.iter_mut().find(|other| other.factor == self.factor) {
            Some(other) if (other.gathers, other.bytes) > (self.gathers, self.bytes) => *other = self,
            Some(_) => {}
            None => candidates.push(self),
        }
    }
}

/// What a flow costs.
pub(super) struct Score {
    /// Whether latents are gathered in every step that were to be kept.
    pub gathers: bool,
    /// Bytes that a rank sends in the mean of a run's steps.
    pub bytes: f64,
    /// How much more the rank with most has than the mean.
    pub unevenness: f64,
}

impl Score {
    pub fn is_better_than(&self, other: &Score) -> bool {
        if self.gathers != other.gathers {
            return other.gathers;
        }
        // Bytes that differ by less than a thousandth are the same: rounding, and small tables.
        let close = (self.bytes - other.bytes).abs() <= 1e-3 * other.bytes.max(1.0);
        match close {
            true => self.unevenness + 1e-9 < other.unevenness,
            false => self.bytes < other.bytes,
        }
    }
}

/// How much more the rank with most has than the mean, at the worst pin.
pub(super) fn unevenness(wanted: &Wanted) -> f64 {
    let ranks = wanted.ranks as f64;
    let worst = wanted.pins.values().flatten().filter_map(|shard| {
        let (mut most, mut total) = (0.0, 0.0);
        for part in &shard.parts {
            let (count, unit) = (part.count.as_number()? as f64, part.unit.as_number()? as f64);
            most += (count / ranks).ceil() * unit;
            total += count * unit;
        }
        Some(most * ranks / total)
    });
    worst.fold(1.0, f64::max)
}
