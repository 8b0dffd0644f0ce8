//! A weight outside of its graph: what tells it from others, its bytes, and a value over them.

use std::{
    ffi::c_void,
    ops::{Deref, Range},
    path::PathBuf,
    ptr::{NonNull, null_mut},
    sync::Arc,
};

use bytes::Bytes;
use memmap2::Mmap;
use ort::{
    AsPointer,
    memory::{Allocator, MemoryInfo},
    value::{DynValue, TensorElementType},
};

use super::{element::ElementType, tensor::Tensor};
use crate::onnx::Standing;

/// What two weights that are the same agree in.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub place: Place,
    pub dims: Vec<i64>,
    pub element_type: ElementType,
}

/// Where a weight stands.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// In a file, behind so many bytes.
    File(PathBuf, u64),
    /// In memory that is held, at this address.
    Memory(usize),
}

/// The bytes of a weight, and what holds them.
pub(super) enum Held {
    Map(Arc<Mmap>, Range<usize>),
    Part(Bytes),
}

impl Held {
    /// Those of a weight that stands in this map's file.
    pub fn in_map(map: Arc<Mmap>, standing: &Standing) -> Result<Held, String> {
        let range = usize::try_from(standing.offset)
            .ok()
            .zip(usize::try_from(standing.length).ok())
            .and_then(|(offset, length)| Some(offset..offset.checked_add(length)?));
        let range = range.filter(|range| range.end <= map.len());
        let range = range.ok_or_else(|| format!("{} was cut off meanwhile", standing.path.display()))?;
        Ok(Held::Map(map, range))
    }
}

impl Deref for Held {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            // The range was found in the map.
            Held::Map(map, range) => map.get(range.clone()).unwrap_or_default(),
            Held::Part(bytes) => bytes,
        }
    }
}

/// A value over memory at this address and of so many bytes, which must be aligned and outlive it.
pub(super) fn borrowed(
    (address, bytes): (*mut c_void, usize),
    dims: &[i64],
    element_type: ElementType,
    memory: &MemoryInfo<'_>,
) -> Result<DynValue, String> {
    let mut value = null_mut();
    let element = TensorElementType::from(element_type);
    // SAFETY: the pointers are valid for the call; ONNX Runtime reads weights and never writes them. Every session that
    // is given the value holds the memory (`Session::_weights`, `Session::_parts`).
    let status = unsafe {
        (ort::api().CreateTensorWithDataAsOrtValue)(
            memory.ptr(),
            address,
            bytes,
            dims.as_ptr(),
            dims.len(),
            element.into(),
            &mut value,
        )
    };
    // SAFETY: the status comes from ONNX Runtime and is used once.
    unsafe { ort::Error::result_from_status(status) }.map_err(|error| error.to_string())?;
    let value = NonNull::new(value).ok_or("ONNX Runtime gave no value")?;
    // SAFETY: the value was just made and is owned by nobody else; it frees no memory.
    Ok(unsafe { DynValue::from_ptr(value, Some(&Allocator::default())) })
}

/// A copy of these bytes on the host.
pub(super) fn tensor_of(bytes: &[u8], dims: &[i64], element_type: ElementType) -> Result<Tensor, String> {
    let shape: Vec<usize> = dims.iter().map(|size| usize::try_from(*size).unwrap_or(0)).collect();
    macro_rules! copy {
        ($rust:ty) => {{
            let (elements, _) = bytes.as_chunks::<{ size_of::<$rust>() }>();
            let elements: Vec<$rust> = elements.iter().map(|bytes| <$rust>::from_le_bytes(*bytes)).collect();
            Tensor::new(&shape, elements)
        }};
    }
    let tensor = match element_type {
        ElementType::Float32 => copy!(f32),
        ElementType::Float16 => copy!(half::f16),
        ElementType::Bfloat16 => copy!(half::bf16),
        ElementType::Float64 => copy!(f64),
        ElementType::Int32 => copy!(i32),
        ElementType::Int64 => copy!(i64),
        ElementType::Bool => Tensor::new(&shape, bytes.iter().map(|byte| *byte != 0).collect::<Vec<bool>>()),
    };
    tensor.map_err(|error| error.to_string())
}
