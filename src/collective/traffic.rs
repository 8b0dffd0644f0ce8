//! What a rank has sent.

use std::{
    ops::Sub,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::Group;

/// Bytes that left a rank for other ranks: the elements of tensors, without the announcements that go before them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// By group, in the order of [`Group::ALL`].
    bytes: [u64; 3],
    /// The exchanges, with or without bytes.
    exchanges: u64,
}

impl Sent {
    /// Bytes to ranks of one group.
    #[must_use]
    pub fn bytes(&self, group: Group) -> u64 {
        self.bytes[group.index()]
    }

    /// Bytes to ranks of all groups.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.bytes.iter().sum()
    }

    /// How often ranks met: once for each all-to-all, all-gather and reduce-scatter, twice for each all-reduce.
    #[must_use]
    pub fn exchanges(&self) -> u64 {
        self.exchanges
    }
}

impl Sub for Sent {
    type Output = Sent;

    fn sub(self, earlier: Sent) -> Sent {
        let bytes = std::array::from_fn(|index| self.bytes[index].saturating_sub(earlier.bytes[index]));
        Sent {
            bytes,
            exchanges: self.exchanges.saturating_sub(earlier.exchanges),
        }
    }
}

/// Counts what a rank sends, in all and step by step.
#[derive(Debug, Default)]
pub struct Traffic {
    bytes: [AtomicU64; 3],
    exchanges: AtomicU64,
    steps: Mutex<Steps>,
}

#[derive(Debug, Default)]
struct Steps {
    /// What had been sent when the last step ended.
    before: Sent,
    ended: Vec<Sent>,
}

impl Traffic {
    /// Counts one exchange.
    pub(super) fn count(&self, group: Group, bytes: usize) {
        self.bytes[group.index()].fetch_add(bytes as u64, Relaxed);
        self.exchanges.fetch_add(1, Relaxed);
    }

    /// What has been sent so far.
    #[must_use]
    pub fn sent(&self) -> Sent {
        Sent {
            bytes: std::array::from_fn(|index| self.bytes[index].load(Relaxed)),
            exchanges: self.exchanges.load(Relaxed),
        }
    }

    /// Ends a step, and gives what it sent.
    pub fn end_step(&self) -> Sent {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.sent();
        let step = now - steps.before;
        steps.before = now;
        steps.ended.push(step);
        step
    }

    /// What each step sent, as far as they have ended.
    #[must_use]
    pub fn steps(&self) -> Vec<Sent> {
        let steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        steps.ended.clone()
    }
}
