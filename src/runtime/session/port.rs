//! Inputs and outputs of an open model.

use crate::runtime::ElementType;
use ort::value::{Outlet, ValueType};
use serde::Serialize;

/// An input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its element type, if it is a tensor of a type that steps handle.
    pub element_type: Option<ElementType>,
    /// Its whole type as ONNX Runtime writes it, such as `Tensor<f32>(batch, 4, 8)`.
    pub description: String,
    /// The sizes of its dimensions; `None` where the model leaves them open.
    pub shape: Vec<Option<i64>>,
    /// The names of the open dimensions, empty where they have none.
    pub symbols: Vec<String>,
}

impl Port {
    pub(super) fn new(outlet: &Outlet) -> Self {
        let (element_type, shape, symbols) = match outlet.dtype() {
            ValueType::Tensor {
                ty,
                shape,
                dimension_symbols,
            } => (
                ElementType::from_runtime(*ty),
                shape.iter().map(|size| (*size >= 0).then_some(*size)).collect(),
                dimension_symbols.iter().cloned().collect(),
            ),
            _ => (None, Vec::new(), Vec::new()),
        };
        Self {
            name: outlet.name().to_owned(),
            element_type,
            description: outlet.dtype().to_string(),
            shape,
            symbols,
        }
    }
}
