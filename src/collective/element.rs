//! The element types that collectives move.

use std::fmt;

/// The type of a tensor's elements; the numbers are those of ONNX's `TensorProto.DataType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)] // The names say it.
pub enum Element {
    Float32 = 1,
    Int32 = 6,
    Int64 = 7,
    Bool = 9,
    Float16 = 10,
    Float64 = 11,
    Bfloat16 = 16,
}

impl Element {
    /// All of them.
    pub const ALL: [Element; 7] = [
        Self::Float32,
        Self::Int32,
        Self::Int64,
        Self::Bool,
        Self::Float16,
        Self::Float64,
        Self::Bfloat16,
    ];

    /// Bytes of one element.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::Int64 | Self::Float64 => 8,
            Self::Float32 | Self::Int32 => 4,
            Self::Float16 | Self::Bfloat16 => 2,
            Self::Bool => 1,
        }
    }

    /// Whether elements can be summed over ranks.
    #[must_use]
    pub fn is_floating(self) -> bool {
        matches!(self, Self::Float32 | Self::Float16 | Self::Float64 | Self::Bfloat16)
    }
}

impl fmt::Display for Element {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Float32 => "float32",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Bool => "bool",
            Self::Float16 => "float16",
            Self::Float64 => "float64",
            Self::Bfloat16 => "bfloat16",
        })
    }
}
