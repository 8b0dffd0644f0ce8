//! The rule of one node applied to what is known of its inputs.

use super::call::{Call, Facts, Shapes};
use super::dimension::Dimension;
use super::integers::{self, Integers};
use super::size::Size;
use super::table::{self, Type};
use super::{nested, stored};
use crate::graph::{Graph, Node, ValueId};
use crate::onnx::messages::DataType;

/// What a node makes of what it reads.
pub(super) struct Applied {
    /// One for each output.
    pub shapes: Shapes,
    /// One for each output.
    elements: Vec<Option<DataType>>,
    /// The elements of the first output.
    integers: Option<Integers>,
    /// Whether there is a rule, and it could be applied.
    pub understood: bool,
}

impl Applied {
    /// Of a node that stands in `depth` nested graphs.
    pub fn of(call: &Call<'_>, depth: usize) -> Applied {
        let node = call.node;
        let outputs = node.outputs().len();
        if let Some(results) = nested::results(call, depth) {
            return Applied {
                understood: results.first().is_some_and(|fact| fact.shape.is_some()),
                elements: results.iter().map(|fact| fact.element).collect(),
                integers: results.first().and_then(|fact| fact.integers.clone()),
                shapes: results.into_iter().map(|fact| fact.shape).collect(),
            };
        }
        let operator = table::find(node.domain(), node.operator());
        let shapes = operator.and_then(|operator| (operator.rule)(call));
        let understood = shapes
            .as_ref()
            .is_some_and(|shapes| shapes.first().is_some_and(Option::is_some));
        let mut shapes = shapes.unwrap_or_default();
        shapes.resize_with(outputs, || None);
        let element = operator.and_then(|operator| element(call, operator.element));
        let integers = match shapes.first() {
            Some(shape) if node.is("Constant") => stored::constant(call).filter(|_| shape.is_some()),
            Some(shape) => integers::fold(call, shape.as_deref()),
            None => None,
        };
        // Behind the normalized sum, its mean and its deviation stands the sum itself.
        let is_sum = |slot| slot == 3 && node.operator().starts_with("Skip");
        let elements = (0..outputs).map(|slot| element.filter(|_| slot == 0 || node.is("Split") || is_sum(slot)));
        Applied {
            elements: elements.collect(),
            shapes,
            integers,
            understood,
        }
    }

    /// Keeps what is known of the outputs of `node`, in `facts` of its graph.
    pub fn record(self, graph: &Graph, node: &Node, facts: &mut [Facts]) {
        let mut integers = self.integers;
        for (slot, (output, shape)) in node.outputs().iter().zip(self.shapes).enumerate() {
            let Some(output) = *output else { continue };
            let shape = shape.or_else(|| declared(graph, output));
            let Some(fact) = facts.get_mut(output.index()) else {
                continue;
            };
            fact.shape = shape;
            fact.element = fact.element.or(self.elements.get(slot).copied().flatten());
            fact.integers = if slot == 0 { integers.take() } else { None };
        }
    }
}

/// Declared sizes without labels, for outputs that no rule says anything of.
pub(super) fn declared(graph: &Graph, value: ValueId) -> Option<Vec<Dimension>> {
    let shape = graph.tensor_type(value)?.shape.as_ref()?;
    let dims = shape.dim.iter().map(|dim| match (&dim.dim_param, dim.dim_value) {
        (_, Some(size @ 0..)) => Dimension::unlabelled(Size::number(size)),
        // A name that an exporter made up in the middle of the graph may be no size of an input, and a negative
        // number is none.
        _ => Dimension::unlabelled(Size::unknown()),
    });
    Some(dims.collect())
}

fn element(call: &Call<'_>, rule: Type) -> Option<DataType> {
    match rule {
        Type::Of(slot) => call.element(slot),
        Type::Is(element) => Some(element),
        Type::To => match call.node.attribute("to").and_then(|attribute| attribute.i) {
            Some(to) => DataType::try_from(i32::try_from(to).ok()?).ok(),
            None => call.element(0),
        },
        Type::Value => match call.node.attribute("value").and_then(|attribute| attribute.t.as_ref()) {
            Some(tensor) => DataType::try_from(tensor.data_type?).ok(),
            None if call
                .node
                .attribute("value_int")
                .or_else(|| call.node.attribute("value_ints"))
                .is_some() =>
            {
                Some(DataType::Int64)
            }
            None => Some(DataType::Float),
        },
    }
}
