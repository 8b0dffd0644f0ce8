//! Element types: the ones that steps handle, under ONNX's, ONNX Runtime's and Rust's names.

use half::{bf16, f16};
use ort::value::TensorElementType;
use serde::{Deserialize, Serialize};

use crate::onnx::messages::DataType;

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // The names say it.
pub enum ElementType {
    Float32,
    Float16,
    Bfloat16,
    Float64,
    Int32,
    Int64,
    Bool,
}

/// One type under its four names.
pub(super) struct TypeRow {
    pub ours: ElementType,
    pub name: &'static str,
    pub runtime: TensorElementType,
    pub onnx: DataType,
}

pub(super) const TYPES: &[TypeRow] = &[
    TypeRow {
        ours: ElementType::Float32,
        name: "float32",
        runtime: TensorElementType::Float32,
        onnx: DataType::Float,
    },
    TypeRow {
        ours: ElementType::Float16,
        name: "float16",
        runtime: TensorElementType::Float16,
        onnx: DataType::Float16,
    },
    TypeRow {
        ours: ElementType::Bfloat16,
        name: "bfloat16",
        runtime: TensorElementType::Bfloat16,
        onnx: DataType::Bfloat16,
    },
    TypeRow {
        ours: ElementType::Float64,
        name: "float64",
        runtime: TensorElementType::Float64,
        onnx: DataType::Double,
    },
    TypeRow {
        ours: ElementType::Int32,
        name: "int32",
        runtime: TensorElementType::Int32,
        onnx: DataType::Int32,
    },
    TypeRow {
        ours: ElementType::Int64,
        name: "int64",
        runtime: TensorElementType::Int64,
        onnx: DataType::Int64,
    },
    TypeRow {
        ours: ElementType::Bool,
        name: "bool",
        runtime: TensorElementType::Bool,
        onnx: DataType::Bool,
    },
];

impl ElementType {
    /// Bytes of one element.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::Float64 | Self::Int64 => 8,
            Self::Float32 | Self::Int32 => 4,
            Self::Float16 | Self::Bfloat16 => 2,
            Self::Bool => 1,
        }
    }

    /// The type of an ONNX tensor; `None` for types that steps do not handle.
    #[must_use]
    pub fn from_onnx(data_type: DataType) -> Option<Self> {
        TYPES.iter().find(|row| row.onnx == data_type).map(|row| row.ours)
    }

    /// The type of one of ONNX Runtime's tensors; `None` for types that steps do not handle.
    pub(super) fn from_runtime(element_type: TensorElementType) -> Option<Self> {
        TYPES.iter().find(|row| row.runtime == element_type).map(|row| row.ours)
    }

    /// The names of all types, for messages.
    pub(super) fn names() -> String {
        TYPES.iter().map(|row| row.name).collect::<Vec<_>>().join(", ")
    }
}

impl From<ElementType> for TensorElementType {
    fn from(element_type: ElementType) -> Self {
        TYPES
            .iter()
            .find(|row| row.ours == element_type)
            .map_or(Self::Undefined, |row| row.runtime)
    }
}

impl std::fmt::Display for ElementType {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(
            TYPES
                .iter()
                .find(|row| row.ours == *self)
                .map_or("unknown", |row| row.name),
        )
    }
}

/// A tensor's elements in row-major order.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // The names are those of the element types.
pub enum Elements {
    Float32(Vec<f32>),
    Float16(Vec<f16>),
    Bfloat16(Vec<bf16>),
    Float64(Vec<f64>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Bool(Vec<bool>),
}

/// A Rust type that is the element of a tensor.
pub trait Element: Copy + sealed::Sealed {
    /// The element type it stands for.
    const TYPE: ElementType;
    /// Wraps a vector of this type.
    fn wrap(elements: Vec<Self>) -> Elements;
    /// The elements, if they are of this type.
    fn slice(elements: &Elements) -> Option<&[Self]>;
    /// The elements, if they are of this type.
    fn unwrap(elements: Elements) -> Option<Vec<Self>>;
}

mod sealed {
    /// Only the types of [`super::Elements`] are elements.
    pub trait Sealed {}
}

macro_rules! elements {
    ($($rust:ty => $variant:ident),+) => { $(
        impl sealed::Sealed for $rust {}
        impl Element for $rust {
            const TYPE: ElementType = ElementType::$variant;
            fn wrap(elements: Vec<Self>) -> Elements {
                Elements::$variant(elements)
            }
            fn slice(elements: &Elements) -> Option<&[Self]> {
                match elements {
                    Elements::$variant(elements) => Some(elements),
                    _ => None,
                }
            }
            fn unwrap(elements: Elements) -> Option<Vec<Self>> {
                match elements {
                    Elements::$variant(elements) => Some(elements),
                    _ => None,
                }
            }
        }
    )+ };
}
elements!(f32 => Float32, f16 => Float16, bf16 => Bfloat16, f64 => Float64, i32 => Int32, i64 => Int64, bool => Bool);

/// Does the same with the vector of every element type.
macro_rules! each {
    ($elements:expr, $bound:ident => $body:expr) => {
        match $elements {
            Elements::Float32($bound) => $body,
            Elements::Float16($bound) => $body,
            Elements::Bfloat16($bound) => $body,
            Elements::Float64($bound) => $body,
            Elements::Int32($bound) => $body,
            Elements::Int64($bound) => $body,
            Elements::Bool($bound) => $body,
        }
    };
}
pub(super) use each;
