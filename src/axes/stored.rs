//! What stored tensors and constants tell before any input is labelled.

use super::call::{Call, Facts};
use super::integers::{self, Integers};
use super::movement;
use super::size::Size;
use crate::graph::{Graph, ModelGraph, Origin};
use crate::onnx::messages::{DataType, TensorProto};

/// What is known of the values of `graph`, which may be a nested one, before any input is labelled: stored tensors and
/// declared element types.
pub(super) fn facts(model: &ModelGraph, graph: &Graph) -> Vec<Facts> {
    let facts = graph.values().map(|(value, entry)| {
        let element = graph
            .tensor_type(value)
            .and_then(|tensor| DataType::try_from(tensor.elem_type?).ok());
        let Some(tensor) = entry.initializer() else {
            return Facts {
                element,
                ..Facts::default()
            };
        };
        let overridable = entry.origin() == Origin::Input;
        Facts {
            shape: Some(movement::of_tensor(tensor)),
            element: element.or_else(|| DataType::try_from(tensor.data_type?).ok()),
            integers: if overridable { None } else { stored(model, tensor) },
        }
    });
    facts.collect()
}

/// The elements of a small stored tensor of integers.
fn stored(model: &ModelGraph, tensor: &TensorProto) -> Option<Integers> {
    let element = DataType::try_from(tensor.data_type?).ok()?;
    if !matches!(element, DataType::Int64 | DataType::Int32 | DataType::Bool) {
        return None;
    }
    let dims: Option<Vec<usize>> = tensor.dims.iter().map(|dim| usize::try_from(*dim).ok()).collect();
    let dims = dims?;
    let count = dims.iter().try_fold(1usize, |product, dim| product.checked_mul(*dim))?;
    if count > integers::MOST_ELEMENTS {
        return None;
    }
    let values = model.weights().integers(tensor).ok()?;
    Integers::new(
        dims,
        values.into_iter().map(|value| Some(Size::number(value))).collect(),
    )
}

/// The elements of a `Constant`.
pub(super) fn constant(call: &Call<'_>) -> Option<Integers> {
    if let Some(tensor) = call.node.attribute("value").and_then(|attribute| attribute.t.as_ref()) {
        return stored(call.model, tensor);
    }
    if let Some(values) = call.node.ints("value_ints") {
        return Integers::list(values.iter().map(|value| Some(Size::number(*value))).collect());
    }
    let value = call.node.attribute("value_int")?.i?;
    Integers::new(Vec::new(), vec![Some(Size::number(value))])
}
