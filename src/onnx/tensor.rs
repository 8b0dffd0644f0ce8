//! The values of a tensor, whichever of its fields they stand in.
//!
//! ONNX has seven fields for the values (`raw_data`, `float_data`, `int32_data`, …) and says for each element type
//! which it may use (`onnx.proto`, `TensorProto`). Everything here gives and takes little-endian bytes, packed as
//! `raw_data` is; only `raw_data` itself is given without a copy.

use bytes::Bytes;
use half::{bf16, f16};
use thiserror::Error;

use super::messages::{DataLocation, DataType, TensorProto};
use super::minifloat::{self, Minifloat};

/// Why a tensor's description or its values are wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TensorFault {
    /// The element type is missing or none that this version knows.
    #[error("element type {0} is not one that this version knows; export the model again with a known type")]
    UnknownType(i32),
    /// A dimension below zero.
    #[error("dimension {axis} is {size}; a tensor with values needs sizes of 0 or more")]
    NegativeDimension {
        /// Which axis, from 0.
        axis: usize,
        /// Its size.
        size: i64,
    },
    /// More elements than a file can hold.
    #[error("dimensions {0:?} give more bytes than 64 bits can count")]
    TooManyElements(Vec<i64>),
    /// The values do not fill the dimensions.
    #[error("dimensions {dims:?} of {element:?} need {needed} bytes of values, the tensor has {found}")]
    Length {
        /// Dimensions.
        dims: Vec<i64>,
        /// Element type.
        element: DataType,
        /// Bytes that the dimensions need.
        needed: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// Values in two fields.
    #[error("values stand both in `raw_data` and in a typed field; only one may be set")]
    TwoFields,
    /// Text where numbers are needed.
    #[error("its elements are strings, which have no bytes of fixed length; read `string_data`")]
    Strings,
    /// A tensor that is stored in segments.
    #[error("it is stored in segments, which no ONNX tool supports; export the model again")]
    Segmented,
    /// Asked for integers of a type that has none.
    #[error("its elements are {0:?}, not integers")]
    NotIntegers(DataType),
    /// Asked for real numbers of a type that has none.
    #[error("its elements are {0:?}, not real numbers")]
    NotReal(DataType),
    /// An unsigned number above the largest `i64`.
    #[error("value {0} does not fit a signed 64-bit integer")]
    TooLarge(u64),
    /// The data type says external and values stand inline too, or the location is unknown.
    #[error("data location {0} is not one that this version knows")]
    UnknownLocation(i32),
}

/// Bits of one element; `None` for strings and the undefined type.
pub fn element_bits(element: DataType) -> Option<u32> {
    use DataType as D;
    Some(match element {
        D::Undefined | D::String => return None,
        D::Uint2 | D::Int2 => 2,
        D::Uint4 | D::Int4 | D::Float4e2m1 => 4,
        D::Float6e2m3 | D::Float6e3m2 => 6,
        D::Bool | D::Uint8 | D::Int8 => 8,
        D::Float8e4m3fn | D::Float8e4m3fnuz | D::Float8e5m2 | D::Float8e5m2fnuz | D::Float8e8m0 => 8,
        D::Uint16 | D::Int16 | D::Float16 | D::Bfloat16 => 16,
        D::Uint32 | D::Int32 | D::Float => 32,
        D::Uint64 | D::Int64 | D::Double | D::Complex64 => 64,
        D::Complex128 => 128,
    })
}

/// The name of a tensor, for people.
pub(super) fn label(tensor: &TensorProto) -> String {
    match tensor.name.as_deref() {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => "(without a name)".to_owned(),
    }
}

/// The element type of a tensor.
///
/// # Errors
/// [`TensorFault::UnknownType`], also where the type is missing or `UNDEFINED`.
pub fn element_type(tensor: &TensorProto) -> Result<DataType, TensorFault> {
    let number = tensor.data_type.unwrap_or(0);
    match DataType::try_from(number) {
        Ok(DataType::Undefined) | Err(_) => Err(TensorFault::UnknownType(number)),
        Ok(element) => Ok(element),
    }
}

/// How many elements the dimensions give; a scalar (no dimensions) has one.
///
/// # Errors
/// Dimensions below zero, and products above 64 bits.
pub fn element_count(tensor: &TensorProto) -> Result<u64, TensorFault> {
    let mut count = Some(1u64);
    let mut empty = false;
    for (axis, &size) in tensor.dims.iter().enumerate() {
        let size_or_fault = u64::try_from(size).map_err(|_| TensorFault::NegativeDimension { axis, size })?;
        empty |= size_or_fault == 0;
        count = count.and_then(|count| count.checked_mul(size_or_fault));
    }
    match count {
        _ if empty => Ok(0),
        Some(count) => Ok(count),
        None => Err(TensorFault::TooManyElements(tensor.dims.clone())),
    }
}

/// How many bytes the dimensions and the element type give, packed as `raw_data` is.
///
/// # Errors
/// As [`element_type`] and [`element_count`]; [`TensorFault::Strings`] for strings.
pub fn byte_length(tensor: &TensorProto) -> Result<u64, TensorFault> {
    let bits = element_bits(element_type(tensor)?).ok_or(TensorFault::Strings)?;
    let total = u128::from(element_count(tensor)?) * u128::from(bits);
    u64::try_from(total.div_ceil(8)).map_err(|_| TensorFault::TooManyElements(tensor.dims.clone()))
}

/// Whether the values lie in another file.
///
/// # Errors
/// [`TensorFault::UnknownLocation`] for locations that this version does not know.
pub fn is_external(tensor: &TensorProto) -> Result<bool, TensorFault> {
    match tensor.data_location {
        None => Ok(false),
        Some(number) => match DataLocation::try_from(number) {
            Ok(location) => Ok(location == DataLocation::External),
            Err(_) => Err(TensorFault::UnknownLocation(number)),
        },
    }
}

/// How many bytes of values stand in the tensor itself, counted as `raw_data` would be. Copies nothing.
fn inline_length(tensor: &TensorProto, element: DataType) -> Result<u64, TensorFault> {
    let raw = tensor.raw_data.as_ref().map_or(0, Bytes::len) as u64;
    let entries = |entries: usize, bytes: u64| entries as u64 * bytes;
    use DataType as D;
    let typed = match element {
        D::Float | D::Complex64 => entries(tensor.float_data.len(), 4),
        D::Double | D::Complex128 => entries(tensor.double_data.len(), 8),
        D::Int64 => entries(tensor.int64_data.len(), 8),
        D::Uint64 => entries(tensor.uint64_data.len(), 8),
        D::Uint32 => entries(tensor.uint64_data.len(), 4),
        D::Int32 => entries(tensor.int32_data.len(), 4),
        D::Uint16 | D::Int16 | D::Float16 | D::Bfloat16 => entries(tensor.int32_data.len(), 2),
        // One entry of `int32_data` holds one element, though `raw_data` packs four into three bytes.
        D::Float6e2m3 | D::Float6e3m2 => (tensor.int32_data.len() as u64 * 6).div_ceil(8),
        _ => entries(tensor.int32_data.len(), 1),
    };
    if raw > 0 && typed > 0 {
        Err(TensorFault::TwoFields)
    } else {
        Ok(raw.max(typed))
    }
}

/// Checks a tensor's description, and that inline values fill its dimensions. Reads no values.
///
/// # Errors
/// Any [`TensorFault`].
pub fn check(tensor: &TensorProto) -> Result<(), TensorFault> {
    let element = element_type(tensor)?;
    if tensor.segment.is_some() {
        return Err(TensorFault::Segmented);
    }
    if is_external(tensor)? {
        return byte_length(tensor).map(|_| ());
    }
    let (needed, found) = match element {
        DataType::String => (element_count(tensor)?, tensor.string_data.len() as u64),
        _ => (byte_length(tensor)?, inline_length(tensor, element)?),
    };
    if needed == found {
        Ok(())
    } else {
        let dims = tensor.dims.clone();
        Err(TensorFault::Length {
            dims,
            element,
            needed,
            found,
        })
    }
}

/// The little-endian bytes of a tensor whose values stand in the tensor itself. `raw_data` is not copied.
///
/// # Errors
/// Any [`TensorFault`].
pub fn inline_bytes(tensor: &TensorProto) -> Result<Bytes, TensorFault> {
    let element = element_type(tensor)?;
    if element == DataType::String {
        return Err(TensorFault::Strings);
    }
    check(tensor)?;
    if let Some(raw) = tensor.raw_data.as_ref().filter(|raw| !raw.is_empty()) {
        return Ok(raw.clone());
    }
    use DataType as D;
    let integers = &tensor.int32_data;
    let bytes: Vec<u8> = match element {
        D::Float | D::Complex64 => tensor.float_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        D::Double | D::Complex128 => tensor
            .double_data
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect(),
        D::Int64 => tensor.int64_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        D::Uint64 => tensor
            .uint64_data
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect(),
        D::Uint32 => tensor
            .uint64_data
            .iter()
            .flat_map(|value| (*value as u32).to_le_bytes())
            .collect(),
        D::Int32 => integers.iter().flat_map(|value| value.to_le_bytes()).collect(),
        D::Uint16 | D::Int16 | D::Float16 | D::Bfloat16 => integers
            .iter()
            .flat_map(|value| (*value as u16).to_le_bytes())
            .collect(),
        D::Float6e2m3 | D::Float6e3m2 => pack_six_bits(integers),
        _ => integers.iter().map(|value| *value as u8).collect(),
    };
    Ok(Bytes::from(bytes))
}

/// Four 6-bit codes in three bytes, lowest bits first.
fn pack_six_bits(codes: &[i32]) -> Vec<u8> {
    let packed = codes.chunks(4).flat_map(|group| {
        let word = group
            .iter()
            .rev()
            .fold(0u32, |word, code| word << 6 | (*code as u32 & 0x3f));
        let [first, second, third, _] = word.to_le_bytes();
        [first, second, third]
    });
    packed.take((codes.len() * 6).div_ceil(8)).collect()
}

/// Element `index` of packed codes of `bits` bits each, lowest bits first.
fn packed_code(bytes: &[u8], bits: usize, index: usize) -> u8 {
    let position = index * bits;
    let byte = |offset: usize| u16::from(bytes.get(position / 8 + offset).copied().unwrap_or(0));
    let word = byte(0) | byte(1) << 8;
    (word >> (position % 8) & ((1 << bits) - 1)) as u8
}

/// Codes of less than a byte, one in a byte.
fn unpack(bytes: &[u8], bits: usize, count: usize) -> impl Iterator<Item = u8> {
    (0..count).map(move |index| packed_code(bytes, bits, index))
}

/// Numbers of `SIZE` bytes each.
fn numbers<const SIZE: usize, T>(bytes: &[u8], read: impl Fn([u8; SIZE]) -> T) -> Vec<T> {
    bytes.as_chunks::<SIZE>().0.iter().map(|chunk| read(*chunk)).collect()
}

/// Integers of `count` elements in raw `bytes`.
///
/// # Errors
/// [`TensorFault::NotIntegers`] for other types, [`TensorFault::TooLarge`] for `UINT64` above `i64::MAX`.
pub(super) fn integers(element: DataType, bytes: &[u8], count: usize) -> Result<Vec<i64>, TensorFault> {
    use DataType as D;
    Ok(match element {
        D::Uint8 => bytes.iter().map(|value| i64::from(*value)).collect(),
        D::Bool => bytes.iter().map(|value| i64::from(*value != 0)).collect(),
        D::Int8 => bytes.iter().map(|value| i64::from(*value as i8)).collect(),
        D::Uint16 => numbers(bytes, |value| i64::from(u16::from_le_bytes(value))),
        D::Int16 => numbers(bytes, |value| i64::from(i16::from_le_bytes(value))),
        D::Uint32 => numbers(bytes, |value| i64::from(u32::from_le_bytes(value))),
        D::Int32 => numbers(bytes, |value| i64::from(i32::from_le_bytes(value))),
        D::Int64 => numbers(bytes, i64::from_le_bytes),
        D::Uint64 => {
            let fit = |value: u64| i64::try_from(value).map_err(|_| TensorFault::TooLarge(value));
            return numbers(bytes, u64::from_le_bytes).into_iter().map(fit).collect();
        }
        D::Uint4 => unpack(bytes, 4, count).map(i64::from).collect(),
        D::Uint2 => unpack(bytes, 2, count).map(i64::from).collect(),
        D::Int4 => unpack(bytes, 4, count)
            .map(|code| i64::from((code << 4) as i8 >> 4))
            .collect(),
        D::Int2 => unpack(bytes, 2, count)
            .map(|code| i64::from((code << 6) as i8 >> 6))
            .collect(),
        other => return Err(TensorFault::NotIntegers(other)),
    })
}

/// Real numbers of `count` elements in raw `bytes`; integers are converted.
///
/// # Errors
/// [`TensorFault::NotReal`] for complex numbers.
pub(super) fn floats(element: DataType, bytes: &[u8], count: usize) -> Result<Vec<f64>, TensorFault> {
    use DataType as D;
    let small = |format: Minifloat, bits: usize| -> Vec<f64> {
        unpack(bytes, bits, count).map(|code| format.decode(code)).collect()
    };
    Ok(match element {
        D::Float => numbers(bytes, |value| f64::from(f32::from_le_bytes(value))),
        D::Double => numbers(bytes, f64::from_le_bytes),
        D::Float16 => numbers(bytes, |value| f16::from_le_bytes(value).to_f64()),
        D::Bfloat16 => numbers(bytes, |value| bf16::from_le_bytes(value).to_f64()),
        D::Float8e4m3fn => small(minifloat::E4M3FN, 8),
        D::Float8e4m3fnuz => small(minifloat::E4M3FNUZ, 8),
        D::Float8e5m2 => small(minifloat::E5M2, 8),
        D::Float8e5m2fnuz => small(minifloat::E5M2FNUZ, 8),
        D::Float6e2m3 => small(minifloat::E2M3, 6),
        D::Float6e3m2 => small(minifloat::E3M2, 6),
        D::Float4e2m1 => small(minifloat::E2M1, 4),
        D::Float8e8m0 => bytes.iter().map(|code| minifloat::decode_e8m0(*code)).collect(),
        D::Uint64 => numbers(bytes, |value| u64::from_le_bytes(value) as f64),
        D::Complex64 | D::Complex128 => return Err(TensorFault::NotReal(element)),
        _ => integers(element, bytes, count)?
            .into_iter()
            .map(|value| value as f64)
            .collect(),
    })
}
