//! What can go wrong among ranks.

use std::time::Duration;

use super::{Group, Operation};

/// Why a collective, or the start of a split run, failed. It can be cloned: every rank that waited for the one that failed
/// gets it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CollectiveError {
    /// Ranks did not come in time.
    #[error(
        "rank {rank} waited {} s in {operation} `{node}` ({group} group) for {}, which did not come: a rank hangs or is much \
         slower than the others; see what it does, or allow more time",
        timeout.as_secs_f64(),
        ranks(missing)
    )]
    TimedOut {
        /// The rank that waited.
        rank: usize,
        /// What it waited in.
        operation: Operation,
        /// The node of the graph.
        node: String,
        /// The group it waited for.
        group: Group,
        /// The ranks that did not come.
        missing: Vec<usize>,
        /// How long it waited.
        timeout: Duration,
    },

    /// Ranks did not come to the end of the run in time.
    #[error(
        "rank {rank} waited {} s at the end of the run for the others: a rank hangs; see what it does, or allow more time",
        timeout.as_secs_f64()
    )]
    NoEnd {
        /// The rank that waited.
        rank: usize,
        /// How long it waited.
        timeout: Duration,
    },

    /// A rank ended while others still need it.
    #[error(
        "rank {rank} waits in {operation} `{node}` ({group} group) for {}, which ended before: all ranks must run the same \
         model for the same steps",
        ranks(missing)
    )]
    Left {
        /// The rank that waited.
        rank: usize,
        /// What it waited in.
        operation: Operation,
        /// The node of the graph.
        node: String,
        /// The group it waited for.
        group: Group,
        /// The ranks that are gone.
        missing: Vec<usize>,
    },

    /// A rank failed, and with it the run of all.
    #[error("rank {rank} failed: {reason}")]
    Failed {
        /// The rank.
        rank: usize,
        /// Its error.
        reason: String,
    },

    /// Two ranks are in different collectives.
    #[error(
        "rank {rank} is in {here} and rank {other} in {there}: all ranks must run the same model with the same flags, operators \
         one after the other"
    )]
    Disagree {
        /// The rank that saw it.
        rank: usize,
        /// The rank it differs from.
        other: usize,
        /// Where the first is.
        here: String,
        /// Where the other is.
        there: String,
    },

    /// Two ranks were started with different things.
    #[error("rank {rank} has {what} {here}, and rank {other} has {there}: start all ranks with the same")]
    Different {
        /// The rank that saw it.
        rank: usize,
        /// The rank it differs from.
        other: usize,
        /// `version`, `model` or `plan`.
        what: &'static str,
        /// What the first has.
        here: String,
        /// What the other has.
        there: String,
    },

    /// Parts that do not fit each other.
    #[error(
        "{operation} `{node}`: rank {rank} has a part of shape {here} and rank {other} one of {there}; they may differ on the \
         gathered axis only"
    )]
    Parts {
        /// The operator.
        operation: Operation,
        /// The node of the graph.
        node: String,
        /// The rank that saw it.
        rank: usize,
        /// The rank it differs from.
        other: usize,
        /// The shape here, neighbouring axes that stay as they are taken together.
        here: String,
        /// The shape there.
        there: String,
    },

    /// A node with an attribute that it cannot have.
    #[error("{operation} `{node}`: {reason}; the model was not split by this version, or was edited: split it again")]
    Node {
        /// The operator.
        operation: Operation,
        /// The node of the graph.
        node: String,
        /// Which attribute or input, and why.
        reason: String,
    },

    /// A mesh that cannot be, or a rank that it does not have.
    #[error("{reason}")]
    Mesh {
        /// What is wrong with it.
        reason: String,
    },

    /// The memory for a result could not be had.
    #[error(
        "{operation} `{node}`: no memory for {bytes} bytes on rank {rank}: {reason}; use more ranks or a smaller size"
    )]
    Memory {
        /// The operator.
        operation: Operation,
        /// The node of the graph.
        node: String,
        /// The rank.
        rank: usize,
        /// What it asked for.
        bytes: usize,
        /// What the allocator said.
        reason: String,
    },

    /// What carries the bytes failed.
    #[error("rank {rank}: {transport} failed: {reason}")]
    Transport {
        /// The rank.
        rank: usize,
        /// `MPI` or `NCCL`.
        transport: &'static str,
        /// What it said, and what to do about it.
        reason: String,
    },

    /// ONNX Runtime did not take the operators.
    #[error("ONNX Runtime does not take the operators of domain {}: {reason}", super::DOMAIN)]
    Operators {
        /// What it said.
        reason: String,
    },
}

impl CollectiveError {
    /// The rank whose error it is, or which saw it, where that is known.
    #[must_use]
    pub fn rank(&self) -> Option<usize> {
        match self {
            Self::TimedOut { rank, .. }
            | Self::NoEnd { rank, .. }
            | Self::Left { rank, .. }
            | Self::Failed { rank, .. }
            | Self::Disagree { rank, .. }
            | Self::Different { rank, .. }
            | Self::Parts { rank, .. }
            | Self::Memory { rank, .. }
            | Self::Transport { rank, .. } => Some(*rank),
            Self::Node { .. } | Self::Mesh { .. } | Self::Operators { .. } => None,
        }
    }
}

fn ranks(ranks: &[usize]) -> String {
    let numbers: Vec<String> = ranks.iter().map(ToString::to_string).collect();
    match numbers.len() {
        1 => format!("rank {}", numbers.join("")),
        _ => format!("ranks {}", numbers.join(", ")),
    }
}
