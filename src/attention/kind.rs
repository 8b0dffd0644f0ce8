//! The kinds of residual branches.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What a residual branch mixes, told from the axes of its keys (see [`crate::axes`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Self-attention over height and width within a frame.
    Spatial,
    /// Self-attention over frames at one place.
    Temporal,
    /// Latent tokens attend to text.
    Cross,
    /// Self-attention over all latent tokens of a clip.
    Full,
    /// Self-attention over text and latent tokens together.
    Joint,
    /// Self-attention over text tokens alone.
    Text,
    /// A feed-forward branch.
    Mlp,
    /// A residual branch that is none of these.
    Other,
}

impl Kind {
    /// Every kind, in the order in which they are shown.
    pub const ALL: [Kind; 8] = [
        Kind::Spatial,
        Kind::Temporal,
        Kind::Cross,
        Kind::Full,
        Kind::Joint,
        Kind::Text,
        Kind::Mlp,
        Kind::Other,
    ];

    /// The word used in rules, plans and tables.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Spatial => "spatial",
            Kind::Temporal => "temporal",
            Kind::Cross => "cross",
            Kind::Full => "full",
            Kind::Joint => "joint",
            Kind::Text => "text",
            Kind::Mlp => "mlp",
            Kind::Other => "other",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// A word that names no kind.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no kind; kinds are spatial, temporal, cross, full, joint, text, mlp, other")]
pub struct UnknownKind(pub String);

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(word: &str) -> Result<Self, UnknownKind> {
        Kind::ALL
            .into_iter()
            .find(|kind| kind.word() == word)
            .ok_or_else(|| UnknownKind(word.to_owned()))
    }
}
