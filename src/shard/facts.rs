//! What is known of a graph's values while it is split: sizes, and numbers that say which part of the data is meant.

use crate::axes::{Axes, Dimension, Size};
use crate::graph::{ModelGraph, Node, ValueId};
use crate::onnx::messages::DataType;
use std::collections::HashMap;

/// Longer lists hold no sizes.
const MOST_ELEMENTS: i64 = 64;

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
    /// Elements of lists that the analysis has not seen: sizes that were written since.
    lists: HashMap<ValueId, Vec<Size>>,
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
            lists: HashMap::new(),
        }
        .with_lists(model)
    }

    /// Follows the lists of sizes that were written after the axes were analysed.
    fn with_lists(mut self, model: &ModelGraph) -> Facts<'a> {
        let graph = &model.graph;
        for (value, _) in graph.values() {
            if self.axes.integers(value).is_some() || self.axes.dimensions(value).is_some() {
                continue;
            }
            if let Some(tensor) = graph.constant(value).filter(|tensor| tensor.dims.len() < 2)
                && tensor.dims.first().is_none_or(|length| *length <= MOST_ELEMENTS)
                && let Ok(numbers) = model.weights().integers(tensor)
            {
                self.lists
                    .insert(value, numbers.into_iter().map(Size::number).collect());
            }
        }
        for id in graph.topological_order().unwrap_or_default() {
            let node = graph.node(id);
            let Some(output) = node.output(0).filter(|output| self.integers(*output).is_none()) else {
                continue;
            };
            if self.axes.dimensions(output).is_none()
                && let Some(list) = self.list(node)
            {
                self.lists.insert(output, list);
            }
        }
        self
    }

    /// The list that a node computes from sizes.
    fn list(&self, node: &Node) -> Option<Vec<Size>> {
        let input = |slot: usize| self.integers(node.input(slot)?);
        let joined = |operation: fn(&Size, &Size) -> Size| {
            let (left, right) = (input(0)?, input(1)?);
            let (Some(one), Some(other), 1, 1) = (left.first(), right.first(), left.len(), right.len()) else {
                return None;
            };
            Some(vec![operation(one, other)])
        };
        match node.operator() {
            "Shape" => self.sizes(node.input(0)?).map(<[Size]>::to_vec),
            "Gather" => {
                let list = input(0)?;
                let places = input(1)?
                    .into_iter()
                    .map(|place| usize::try_from(place.as_number()?).ok());
                places.map(|place| list.get(place?).cloned()).collect()
            }
            "Concat" => {
                let parts = (0..node.inputs().len()).map(input);
                Some(parts.collect::<Option<Vec<_>>>()?.concat())
            }
            "Cast" | "Reshape" => input(0),
            "Add" => joined(|one, other| one + other),
            "Mul" => joined(|one, other| one * other),
            _ => None,
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
        match self.axes.integers(value) {
            Some(integers) => integers.elements().iter().cloned().collect(),
            None => self.lists.get(&value).cloned(),
        }
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
