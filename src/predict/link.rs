//! What an exchange between ranks takes.

use serde::Serialize;

/// The way between ranks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Link {
    /// Bytes a second that a rank can send to the others of its node.
    pub bandwidth: f64,
    /// Bytes a second that a rank can send to other nodes.
    pub between: f64,
    /// How much of these an exchange gets, 0 to 1.
    pub efficiency: f64,
    /// Seconds that an exchange takes at least.
    pub latency: f64,
    /// Ranks of a node.
    pub node: usize,
}

impl Link {
    /// 400 Gbit/s for each rank between nodes of eight; 20 µs and 70 % are what NCCL gets with buffers of some MiB.
    pub fn new(bandwidth: f64) -> Link {
        Link {
            bandwidth,
            between: 50e9,
            efficiency: 0.7,
            latency: 20e-6,
            node: 8,
        }
    }

    /// Seconds of `exchanges` all-to-alls among `ranks`, of which each rank sends `bytes` in all. `stride` ranks lie between
    /// two neighbours of the group: of ranks 0, 4, 8 it is 4.
    pub fn seconds(&self, exchanges: f64, bytes: f64, ranks: usize, stride: usize) -> f64 {
        if ranks < 2 {
            return 0.0;
        }
        let within = (self.node / stride.max(1)).clamp(1, ranks);
        let peers = (ranks - 1) as f64;
        let inside = bytes * (within - 1) as f64 / peers / (self.bandwidth * self.efficiency);
        let outside = bytes * (ranks - within) as f64 / peers / (self.between * self.efficiency);
        exchanges * self.latency + inside.max(outside)
    }
}
