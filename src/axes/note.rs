//! What an analysis saw and did not understand, for people.

use std::fmt;

/// Something that was not understood: what, why, and what can be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The node, input or operator.
    pub subject: String,
    /// Why it is not understood.
    pub reason: String,
    /// What to do next.
    pub advice: String,
}

impl Note {
    /// A note.
    pub fn new(subject: impl Into<String>, reason: impl Into<String>, advice: impl Into<String>) -> Note {
        Note {
            subject: subject.into(),
            reason: reason.into(),
            advice: advice.into(),
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.subject, self.reason, self.advice)
    }
}

/// Why the axes of a model cannot be told.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AxesError {
    /// The nodes of the graph have no order.
    #[error(transparent)]
    Graph(#[from] crate::graph::GraphError),
    /// Labels were given for an input that the model does not have.
    #[error("labels are given for input `{name}`, which the model does not have; its inputs are {inputs}")]
    UnknownInput {
        /// The name given.
        name: String,
        /// The names there are.
        inputs: String,
    },
    /// Labels were given that do not fit the rank of an input.
    #[error("input `{name}` has {rank} dimensions, but {labels} labels are given for it; give one for each")]
    Rank {
        /// The input.
        name: String,
        /// Its rank.
        rank: usize,
        /// How many labels were given.
        labels: usize,
    },
    /// No input can be recognized as the latent.
    #[error(
        "none of the inputs ({inputs}) is recognized as the latent; say what its axes are, for example \
         --axes {example}=batch,channels,frames,height,width"
    )]
    NoLatent {
        /// The names of the inputs.
        inputs: String,
        /// One of them.
        example: String,
    },
}
