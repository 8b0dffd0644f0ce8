//! One operator call as the rules see it: what is known of its inputs.

use super::dimension::Dimension;
use super::integers::Integers;
use super::size::Size;
use crate::graph::{ModelGraph, Node};
use crate::onnx::messages::DataType;

/// What is known of a value.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// Its dimensions.
    pub shape: Option<Vec<Dimension>>,
    /// Its element type.
    pub element: Option<DataType>,
    /// Its elements, where it is a small tensor of integers.
    pub integers: Option<Integers>,
}

/// An operator call.
pub(super) struct Call<'c> {
    pub model: &'c ModelGraph,
    pub node: &'c Node,
    pub facts: &'c [Facts],
}

/// Shapes by output; `None` where nothing is known.
pub(super) type Shapes = Vec<Option<Vec<Dimension>>>;

impl<'c> Call<'c> {
    fn fact(&self, slot: usize) -> Option<&'c Facts> {
        self.facts.get(self.node.input(slot)?.index())
    }

    /// The dimensions of input `slot`.
    pub fn shape(&self, slot: usize) -> Option<&'c [Dimension]> {
        self.fact(slot)?.shape.as_deref()
    }

    /// The element type of input `slot`.
    pub fn element(&self, slot: usize) -> Option<DataType> {
        self.fact(slot)?.element
    }

    /// The elements of input `slot`.
    pub fn integers(&self, slot: usize) -> Option<&'c Integers> {
        self.fact(slot)?.integers.as_ref()
    }

    /// Numbers that stand in attribute `name` (old operator sets) or in input `slot` (new ones).
    ///
    /// `Some(None)` where neither is there; `None` where they are there and not known.
    pub fn numbers(&self, name: &str, slot: usize) -> Option<Option<Vec<i64>>> {
        if let Some(values) = self.node.ints(name) {
            return Some(Some(values.to_vec()));
        }
        if self.node.input(slot).is_none() {
            return Some(None);
        }
        let values = self.integers(slot)?;
        values
            .elements()
            .iter()
            .map(|element| element.as_ref()?.as_number())
            .collect::<Option<Vec<_>>>()
            .map(Some)
    }

    /// As [`Call::numbers`], with sizes that may be symbolic.
    pub fn sizes(&self, name: &str, slot: usize) -> Option<Vec<Size>> {
        if let Some(values) = self.node.ints(name) {
            return Some(values.iter().map(|value| Size::number(*value)).collect());
        }
        self.integers(slot)?.elements().iter().cloned().collect()
    }
}

/// Axis `axis` of a tensor of rank `rank`, counted from the back where it is negative.
pub(super) fn axis(axis: i64, rank: usize) -> Option<usize> {
    let rank = i64::try_from(rank).ok()?;
    let axis = if axis < 0 { axis + rank } else { axis };
    (0..rank).contains(&axis).then_some(axis as usize)
}
