//! What is known of a graph's values while it is split: sizes, and numbers that say which part of the data is meant.

use crate::axes::{Axes, Dimension, Size};
use crate::graph::{ModelGraph, Node, ValueId};
use crate::onnx::messages::DataType;

/// Sizes of every value, whole or as one rank has them, and what is known of the original's values besides.
///
/// The original's values keep their ids while the graph is split, so what the axis analysis says of them stays true but
/// for the sizes.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    axes: &'a Axes,
    opset: i64,
    sizes: Vec<Option<Vec<Size>>>,
    elements: Vec<Option<DataType>>,
}

impl<'a> Facts<'a> {
    /// Those of a graph that is not split yet.
    pub fn of(model: &ModelGraph, axes: &'a Axes) -> Facts<'a> {
        let values = model.graph.values();
        let (sizes, elements) = values
            .map(|(value, _)| (axes.sizes(value), axes.element_type(value)))
            .unzip();
        Facts {
            axes,
            opset: model.opset("").unwrap_or(1),
            sizes,
            elements,
        }
    }

    /// The version of the standard's operators.
    pub fn opset(&self) -> i64 {
        self.opset
    }

    /// The sizes of `value`.
    pub fn sizes(&self, value: ValueId) -> Option<&[Size]> {
        self.sizes.get(value.index())?.as_deref()
    }

    /// The element type of `value`.
    pub fn element_type(&self, value: ValueId) -> Option<DataType> {
        self.elements.get(value.index()).copied().flatten()
    }

    /// What the dimensions of a value of the original count.
    pub fn dimensions(&self, value: ValueId) -> Option<&[Dimension]> {
        self.axes.dimensions(value)
    }

    /// Sets what is known of a value.
    pub fn set(&mut self, value: ValueId, sizes: Vec<Size>, element_type: Option<DataType>) {
        let place = value.index();
        if self.sizes.len() <= place {
            self.sizes.resize(place + 1, None);
            self.elements.resize(place + 1, None);
        }
        self.sizes[place] = Some(sizes);
        self.elements[place] = element_type;
    }

    /// The elements of a small tensor of integers.
    pub fn integers(&self, value: ValueId) -> Option<Vec<Size>> {
        self.axes.integers(value)?.elements().iter().cloned().collect()
    }
}

/// A node with what is known of what it reads and gives.
#[derive(Clone, Copy)]
pub(crate) struct Operation<'a> {
    pub node: &'a Node,
    pub facts: &'a Facts<'a>,
}

impl<'a> Operation<'a> {
    /// The sizes of input `slot`.
    pub fn input(&self, slot: usize) -> Option<&'a [Size]> {
        self.facts.sizes(self.node.input(slot)?)
    }

    /// The sizes of output `slot`.
    pub fn output(&self, slot: usize) -> Option<&'a [Size]> {
        self.facts.sizes(self.node.output(slot)?)
    }

    /// Integers of attribute `name`, or of input `slot` in later operator sets.
    pub fn numbers(&self, name: &str, slot: usize) -> Option<Vec<Size>> {
        if let Some(numbers) = self.node.ints(name) {
            return Some(numbers.iter().map(|number| Size::number(*number)).collect());
        }
        self.facts.integers(self.node.input(slot)?)
    }

    /// The same as places among `rank` axes.
    pub fn axes(&self, name: &str, slot: usize, rank: usize) -> Option<Vec<usize>> {
        let numbers = self.numbers(name, slot)?;
        numbers.iter().map(|number| axis(number.as_number()?, rank)).collect()
    }

    /// Attribute `axis` as a place among `rank` axes.
    pub fn axis(&self, default: i64, rank: usize) -> Option<usize> {
        axis(self.node.int("axis", default), rank)
    }
}

/// An axis that may be counted from the end.
fn axis(axis: i64, rank: usize) -> Option<usize> {
    let rank = i64::try_from(rank).ok()?;
    let place = if axis < 0 { axis + rank } else { axis };
    usize::try_from(place).ok().filter(|_| place < rank)
}
