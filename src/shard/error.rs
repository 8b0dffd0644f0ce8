//! Why a graph cannot be split over ranks.

use super::choice::Factor;
use super::mesh::Mesh;
use crate::graph::GraphError;

/// Why a graph cannot be split over ranks.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// There is no residual stream to divide.
    #[error("no residual stream was found that could be divided over ranks; `pab-patch inspect` shows what was found")]
    NoStreams,
    /// A residual stream or a cut does not have the factor in one place.
    #[error(
        "site `{site}`: `{value}` has no {factor} that lie in one of its dimensions; split along another factor, or say \
         what the axes of the inputs count (--axes)"
    )]
    NoFactor {
        /// The site.
        site: String,
        /// The stream or cut.
        value: String,
        /// What was to be divided.
        factor: Factor,
    },
    /// There is less to divide than there are ranks.
    #[error(
        "there are {size} {factor} for {ranks} ranks, so some would have nothing to do; use fewer ranks or another factor"
    )]
    TooFew {
        /// What was to be divided.
        factor: Factor,
        /// How many there are.
        size: i64,
        /// The ranks.
        ranks: usize,
    },
    /// An operator between the first and the last block needs what no rank has.
    #[error(
        "node {node} stands in the way of dividing {factor}: it needs the data of other ranks, and is no \
         attention whose exchange is known; split along another factor"
    )]
    Stuck {
        /// The node, with its operator.
        node: String,
        /// What was to be divided.
        factor: Factor,
    },
    /// Weights cannot be divided.
    #[error(
        "no attention has {ranks} heads and no feed-forward {ranks} hidden channels whose weights could be divided; use fewer \
         ranks along `tensor`"
    )]
    Weights {
        /// The ranks.
        ranks: usize,
    },
    /// A size has to be computed that is not known by any name.
    #[error("a size of `{value}` is not known, so it cannot be computed for each rank; export with static shapes")]
    UnknownSize {
        /// The value.
        value: String,
    },
    /// A nested graph reads a value that no rank has as a whole.
    #[error(
        "the nested graph of node {node} reads `{value}`, which is divided over ranks; export without control flow"
    )]
    Captured {
        /// The node.
        node: String,
        /// The value.
        value: String,
    },
    /// What a span joins lies otherwise than what comes out of it.
    #[error(
        "{span}: the streams that it joins are divided otherwise than `{value}` behind it, so no rank has the difference; \
         begin or end with another block, or split along another factor"
    )]
    Span {
        /// The span.
        span: String,
        /// The stream behind it.
        value: String,
    },
    /// The halves of the batch are on different ranks.
    #[error(
        "{rule}: a rule for guidance leaves out half of the batch, and {ranks} ranks along `guidance` have a part of it each, so \
         that some would have nothing to do; leave out --guidance-ranks, or the rule"
    )]
    Halves {
        /// `guidance.` and the rule.
        rule: String,
        /// The ranks.
        ranks: usize,
    },
    /// Operators of later versions are needed.
    #[error("operator set {opset} is too old to be split: at least {needed} is needed; export with a later one")]
    TooOld {
        /// The model's.
        opset: i64,
        /// The least.
        needed: i64,
    },
    /// The graphs of the ranks cannot be put into one.
    #[error("the graphs of the ranks cannot be put into one: {reason}")]
    Unroll {
        /// Why.
        reason: String,
    },
    /// The model was split already.
    #[error("the model is split already; split the original instead")]
    AlreadySplit,
    /// A mesh of no ranks, or of more than can be counted.
    #[error("a mesh of {mesh:?} has no ranks or too many; every axis needs at least 1")]
    Mesh {
        /// The mesh.
        mesh: Mesh,
    },
    /// A rank that the mesh does not have.
    #[error("there is no rank {rank} among {ranks}")]
    Rank {
        /// The rank.
        rank: usize,
        /// How many there are.
        ranks: usize,
    },
    /// The graph cannot be edited.
    #[error(transparent)]
    Graph(#[from] GraphError),
}
