//! The element type of caches: that of the values, or a narrower one that takes less memory.

use crate::onnx::messages::DataType;
use crate::onnx::tensor::element_bits;
use std::fmt;

/// The element type that caches are held in.
///
/// A cache is only ever narrowed: values whose type has as few bits already keep their own. What is computed stays as it
/// is; only what is reused has passed through the narrower type. `f16` ends at 65504, larger values become infinite;
/// `bf16` has the range of `f32` and three digits less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheType {
    /// 16 bits, 11 of them significant.
    F16,
    /// 16 bits, 8 of them significant, with the range of `f32`.
    Bf16,
    /// 32 bits: narrows what is float64.
    F32,
}

impl CacheType {
    /// Every type.
    pub const ALL: [CacheType; 3] = [CacheType::F16, CacheType::Bf16, CacheType::F32];

    /// The word of the command line.
    pub fn word(self) -> &'static str {
        match self {
            CacheType::F16 => "f16",
            CacheType::Bf16 => "bf16",
            CacheType::F32 => "f32",
        }
    }

    /// The type as ONNX numbers it.
    pub fn data_type(self) -> DataType {
        match self {
            CacheType::F16 => DataType::Float16,
            CacheType::Bf16 => DataType::Bfloat16,
            CacheType::F32 => DataType::Float,
        }
    }

    /// The type in which a value of type `value` is cached: this one where it has fewer bits, else the value's own.
    pub fn narrow(self, value: DataType) -> DataType {
        let narrowed = self.data_type();
        if element_bits(narrowed) < element_bits(value) {
            narrowed
        } else {
            value
        }
    }
}

impl fmt::Display for CacheType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_only_ever_narrowed() {
        use DataType::{Bfloat16, Double, Float, Float16};
        let narrowed = |cache: CacheType| [Double, Float, Float16, Bfloat16].map(|value| cache.narrow(value));
        assert_eq!(narrowed(CacheType::F16), [Float16, Float16, Float16, Bfloat16]);
        assert_eq!(narrowed(CacheType::Bf16), [Bfloat16, Bfloat16, Float16, Bfloat16]);
        assert_eq!(narrowed(CacheType::F32), [Float, Float, Float16, Bfloat16]);
    }
}
