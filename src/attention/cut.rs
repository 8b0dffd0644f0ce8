//! Cuts: the values that can be cached instead of computed.

use super::core::Search;
use crate::axes::{Axes, Label, Labels, Note, Size};
use crate::graph::{NodeId, ValueId};
use crate::onnx::messages::DataType;
use std::fmt;

/// A value that can be cached instead of computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The value.
    pub value: ValueId,
    /// Its element type.
    pub element_type: DataType,
    /// Its sizes: numbers, or products such as `16*batch`.
    pub shape: Vec<Size>,
    /// Which part of the module's result it is.
    pub part: Part,
}

/// Which part of a module's result a cut holds, told from what its tokens count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// All of it: the module has one exit.
    Whole,
    /// The latent's tokens.
    Latent,
    /// The text's tokens.
    Text,
    /// What cannot be told by its tokens, in the order of computing.
    Number(usize),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Whole => f.pad("whole"),
            Part::Latent => f.pad("latent"),
            Part::Text => f.pad("text"),
            Part::Number(number) => number.fmt(f),
        }
    }
}

/// The cuts that together replace a module: one for each exit, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cuts {
    first: Cut,
    others: Vec<Cut>,
}

impl From<Cut> for Cuts {
    fn from(cut: Cut) -> Cuts {
        Cuts {
            first: cut,
            others: Vec::new(),
        }
    }
}

impl Cuts {
    /// The first one: that of the latent, where there are several.
    pub fn first(&self) -> &Cut {
        &self.first
    }

    /// All of them: latent, text, others in the order of computing.
    pub fn iter(&self) -> impl Iterator<Item = &Cut> + Clone {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The same, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Cut> {
        std::iter::once(&mut self.first).chain(&mut self.others)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        1 + self.others.len()
    }

    /// The values that are cut.
    pub fn values(&self) -> Vec<ValueId> {
        self.iter().map(|cut| cut.value).collect()
    }
}

/// Labels that count tokens.
pub(super) fn token_labels() -> Labels {
    latent_labels().with(Label::Text)
}

fn latent_labels() -> Labels {
    Labels::of([Label::Frames, Label::Height, Label::Width, Label::Tokens])
}

/// What the tokens of `value` count.
pub(super) fn tokens(axes: &Axes, value: ValueId) -> Labels {
    let dimensions = axes.dimensions(value).unwrap_or_default();
    let labels = dimensions.iter().map(crate::axes::Dimension::labels);
    labels.fold(Labels::NONE, Labels::union).intersection(token_labels())
}

impl Search<'_> {
    /// The cuts at `values`, each once; notes are about `id`.
    pub(super) fn cuts(&self, id: NodeId, values: impl IntoIterator<Item = ValueId>) -> Result<Cuts, Note> {
        let mut values: Vec<ValueId> = values.into_iter().collect();
        values.sort_by_key(|value| self.graph.producer(*value).map(|(id, _)| self.variable.place(id)));
        values.dedup();
        let mut cuts = values
            .iter()
            .map(|value| self.cut(id, *value))
            .collect::<Result<Vec<Cut>, Note>>()?;
        if cuts.len() > 1 {
            for (cut, part) in cuts.iter_mut().zip(parts(self.axes, &values)) {
                cut.part = part;
            }
            cuts.sort_by_key(|cut| cut.part);
        }
        let mut cuts = cuts.into_iter();
        match cuts.next() {
            Some(first) => Ok(Cuts {
                first,
                others: cuts.collect(),
            }),
            None => Err(self.note(id, "its result is used nowhere", "nothing to do: it can be removed")),
        }
    }

    fn cut(&self, id: NodeId, value: ValueId) -> Result<Cut, Note> {
        let sizes = self.axes.sizes(value);
        let Some(shape) = sizes.filter(|shape| !shape.iter().any(Size::has_unknown)) else {
            return Err(self.unknown(id, value, "the shape of its module's output is not known"));
        };
        let Some(element_type) = self.axes.element_type(value) else {
            return Err(self.unknown(id, value, "the element type of its module's output is not known"));
        };
        Ok(Cut {
            value,
            element_type,
            shape,
            part: Part::Whole,
        })
    }
}

/// Which part of a result each of several values is: their tokens if that tells them apart, else their numbers.
pub(super) fn parts(axes: &Axes, values: &[ValueId]) -> Vec<Part> {
    let parts: Vec<Part> = values.iter().map(|value| part(tokens(axes, *value))).collect();
    let mut different = parts.clone();
    different.sort_unstable();
    different.dedup();
    if different.len() < parts.len() || different.contains(&Part::Whole) {
        (0..parts.len()).map(Part::Number).collect()
    } else {
        parts
    }
}

/// The part of the result that these tokens are; [`Part::Whole`] where they do not tell.
fn part(tokens: Labels) -> Part {
    if tokens.is_empty() {
        Part::Whole
    } else if tokens.is_within(latent_labels()) {
        Part::Latent
    } else if tokens == Labels::of([Label::Text]) {
        Part::Text
    } else {
        Part::Whole
    }
}
