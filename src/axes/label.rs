//! Names of axes.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What an axis of a model's input counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// Clips, or the conditional and unconditional half of guidance.
    Batch,
    /// Channels and features; heads and head sizes are parts of it.
    Channels,
    /// Frames of the latent.
    Frames,
    /// Rows of the latent or of its patches.
    Height,
    /// Columns of the latent or of its patches.
    Width,
    /// Latent tokens whose frames, height and width were put together before the model.
    Tokens,
    /// Text tokens.
    Text,
    /// An axis that is there for the rank only, or that means nothing of these.
    Other,
}

impl Label {
    /// Every label.
    pub const ALL: [Label; 8] = [
        Label::Batch,
        Label::Channels,
        Label::Frames,
        Label::Height,
        Label::Width,
        Label::Tokens,
        Label::Text,
        Label::Other,
    ];

    /// The word used in settings and tables.
    pub fn word(self) -> &'static str {
        match self {
            Label::Batch => "batch",
            Label::Channels => "channels",
            Label::Frames => "frames",
            Label::Height => "height",
            Label::Width => "width",
            Label::Tokens => "tokens",
            Label::Text => "text",
            Label::Other => "other",
        }
    }

    fn bit(self) -> u16 {
        1 << self as u16
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// A set of labels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Labels(u16);

impl Labels {
    /// No label.
    pub const NONE: Labels = Labels(0);

    /// The set of `labels`.
    pub fn of(labels: impl IntoIterator<Item = Label>) -> Labels {
        labels.into_iter().fold(Labels::NONE, |set, label| set.with(label))
    }

    /// The set and `label`.
    pub fn with(self, label: Label) -> Labels {
        Labels(self.0 | label.bit())
    }

    /// Both sets.
    pub fn union(self, other: Labels) -> Labels {
        Labels(self.0 | other.0)
    }

    /// What is in both sets.
    pub fn intersection(self, other: Labels) -> Labels {
        Labels(self.0 & other.0)
    }

    /// The set without what is in `other`.
    pub fn without(self, other: Labels) -> Labels {
        Labels(self.0 & !other.0)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `label` is in it.
    pub fn contains(self, label: Label) -> bool {
        self.0 & label.bit() != 0
    }

    /// Whether all of it is in `other`.
    pub fn is_within(self, other: Labels) -> bool {
        self.without(other).is_empty()
    }

    /// The labels, in the order of [`Label::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Label> {
        Label::ALL.into_iter().filter(move |label| self.contains(*label))
    }

    /// The label, where there is exactly one.
    pub fn single(self) -> Option<Label> {
        let mut labels = self.iter();
        labels.next().filter(|_| labels.next().is_none())
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.iter().map(Label::word).collect();
        f.pad(&words.join(", "))
    }
}
