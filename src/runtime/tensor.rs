//! Tensors on the host, as samplers make and read them, and their way into and out of ONNX Runtime.

use half::{bf16, f16};
use ndarray::{Array, ArrayD, Dimension, IxDyn};
use ort::value::{DynValue, DynValueRef, TensorRef, ValueType};

use super::{
    element::{Element, ElementType, Elements, each},
    error::RuntimeError,
    load,
};

/// A tensor on the host: shape and elements in row-major order. A scalar has the empty shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    elements: Elements,
}

impl Tensor {
    /// A tensor of these elements.
    ///
    /// # Errors
    /// [`RuntimeError::Shape`] when their number is not the product of the shape.
    pub fn new<T: Element>(shape: &[usize], elements: Vec<T>) -> Result<Self, RuntimeError> {
        let expected = shape
            .iter()
            .try_fold(1_usize, |product, size| product.checked_mul(*size));
        if expected != Some(elements.len()) {
            let expected = expected.unwrap_or(usize::MAX);
            return Err(RuntimeError::Shape {
                shape: shape.to_vec(),
                expected,
                found: elements.len(),
            });
        }
        Ok(Self {
            shape: shape.to_vec(),
            elements: T::wrap(elements),
        })
    }

    /// A scalar.
    #[must_use]
    pub fn scalar<T: Element>(element: T) -> Self {
        Self {
            shape: Vec::new(),
            elements: T::wrap(vec![element]),
        }
    }

    /// The tensor of an array; an array in row-major order is not copied.
    #[must_use]
    pub fn from_array<T: Element, D: Dimension>(array: Array<T, D>) -> Self {
        let shape = array.shape().to_vec();
        let elements = if array.is_standard_layout() {
            match array.into_raw_vec_and_offset() {
                (elements, None | Some(0)) if elements.len() == shape.iter().product::<usize>() => elements,
                // An array cut out of a larger one keeps the larger one's elements.
                (elements, offset) => elements
                    .into_iter()
                    .skip(offset.unwrap_or(0))
                    .take(shape.iter().product())
                    .collect(),
            }
        } else {
            array.iter().copied().collect()
        };
        Self {
            shape,
            elements: T::wrap(elements),
        }
    }

    /// A tensor of zeros (or `false`).
    #[must_use]
    pub fn zeros(element_type: ElementType, shape: &[usize]) -> Self {
        let count = shape.iter().product();
        let elements = match element_type {
            ElementType::Float32 => Elements::Float32(vec![0.0; count]),
            ElementType::Float16 => Elements::Float16(vec![f16::ZERO; count]),
            ElementType::Bfloat16 => Elements::Bfloat16(vec![bf16::ZERO; count]),
            ElementType::Float64 => Elements::Float64(vec![0.0; count]),
            ElementType::Int32 => Elements::Int32(vec![0; count]),
            ElementType::Int64 => Elements::Int64(vec![0; count]),
            ElementType::Bool => Elements::Bool(vec![false; count]),
        };
        Self {
            shape: shape.to_vec(),
            elements,
        }
    }

    /// The sizes of the dimensions.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements.
    #[must_use]
    pub fn elements(&self) -> &Elements {
        &self.elements
    }

    /// The type of the elements.
    #[must_use]
    pub fn element_type(&self) -> ElementType {
        fn of<T: Element>(_: &[T]) -> ElementType {
            T::TYPE
        }
        each!(&self.elements, elements => of(elements))
    }

    /// The elements as a slice, if they are of this type.
    #[must_use]
    pub fn as_slice<T: Element>(&self) -> Option<&[T]> {
        T::slice(&self.elements)
    }

    /// The tensor with another element type. Numbers that the type cannot hold become its nearest; fractions are cut
    /// off, as ONNX's `Cast` does; every number but zero is `true`.
    #[must_use]
    pub fn cast(self, element_type: ElementType) -> Self {
        if self.element_type() == element_type {
            return self;
        }
        let Self { shape, elements } = self;
        let numbers: Vec<f64> = match elements {
            Elements::Float32(elements) => elements.into_iter().map(f64::from).collect(),
            Elements::Float16(elements) => elements.into_iter().map(f64::from).collect(),
            Elements::Bfloat16(elements) => elements.into_iter().map(f64::from).collect(),
            Elements::Float64(elements) => elements,
            Elements::Int32(elements) => elements.into_iter().map(f64::from).collect(),
            Elements::Int64(elements) => elements.into_iter().map(|element| element as f64).collect(),
            Elements::Bool(elements) => elements
                .into_iter()
                .map(|element| f64::from(u8::from(element)))
                .collect(),
        };
        let numbers = numbers.into_iter();
        let elements = match element_type {
            ElementType::Float32 => Elements::Float32(numbers.map(|number| number as f32).collect()),
            ElementType::Float16 => Elements::Float16(numbers.map(f16::from_f64).collect()),
            ElementType::Bfloat16 => Elements::Bfloat16(numbers.map(bf16::from_f64).collect()),
            ElementType::Float64 => Elements::Float64(numbers.collect()),
            ElementType::Int32 => Elements::Int32(numbers.map(|number| number as i32).collect()),
            ElementType::Int64 => Elements::Int64(numbers.map(|number| number as i64).collect()),
            ElementType::Bool => Elements::Bool(numbers.map(|number| number != 0.0).collect()),
        };
        Self { shape, elements }
    }

    /// The tensor as an array of `f32`, cast where it is of another type. Elements that are `f32` are not copied.
    #[must_use]
    pub fn into_f32(self) -> ArrayD<f32> {
        let Self { shape, elements } = self.cast(ElementType::Float32);
        let elements = f32::unwrap(elements).unwrap_or_default();
        // Shape and elements fit each other in every tensor.
        Array::from_shape_vec(IxDyn(&shape), elements).unwrap_or_else(|_| ArrayD::zeros(IxDyn(&shape)))
    }

    /// A value for ONNX Runtime over these elements, without copying them.
    pub(super) fn value(&self, name: &str) -> Result<DynValueRef<'_>, RuntimeError> {
        load::environment()?;
        let shape = self.shape.as_slice();
        each!(&self.elements, elements => {
            TensorRef::from_array_view((shape, elements.as_slice())).map(|value| value.into_dyn())
        })
        .map_err(|error| RuntimeError::Value {
            name: name.to_owned(),
            reason: error.to_string(),
        })
    }

    /// A value for ONNX Runtime with a copy of these elements, for [`ort::session::IoBinding`]: given a borrowed value,
    /// ort 2.0.0-rc.15 copies it by a binding of its own, to which it gives the borrowed value, and waits for itself.
    pub(super) fn owned_value(&self, name: &str) -> Result<DynValue, RuntimeError> {
        load::environment()?;
        let shape = self.shape.as_slice();
        each!(&self.elements, elements => {
            ort::value::Tensor::from_array((shape, elements.clone())).map(|value| value.into_dyn())
        })
        .map_err(|error| RuntimeError::Value {
            name: name.to_owned(),
            reason: error.to_string(),
        })
    }

    /// Copies one of ONNX Runtime's values, which must lie in the host's memory.
    pub(super) fn from_value(name: &str, value: &DynValue) -> Result<Self, RuntimeError> {
        let unknown = |found: String| RuntimeError::ElementType {
            name: name.to_owned(),
            found,
        };
        let ValueType::Tensor { ty, .. } = value.dtype() else {
            return Err(unknown(value.dtype().to_string()));
        };
        let element_type = ElementType::from_runtime(*ty).ok_or_else(|| unknown(ty.to_string()))?;
        macro_rules! copy {
            ($rust:ty) => {
                value
                    .try_extract_tensor::<$rust>()
                    .map(|(shape, elements)| (shape.to_vec(), <$rust>::wrap(elements.to_vec())))
            };
        }
        let (shape, elements) = match element_type {
            ElementType::Float32 => copy!(f32),
            ElementType::Float16 => copy!(f16),
            ElementType::Bfloat16 => copy!(bf16),
            ElementType::Float64 => copy!(f64),
            ElementType::Int32 => copy!(i32),
            ElementType::Int64 => copy!(i64),
            ElementType::Bool => copy!(bool),
        }
        .map_err(|error| RuntimeError::Value {
            name: name.to_owned(),
            reason: error.to_string(),
        })?;
        // The value exists, so its sizes are not negative and fit this machine's memory.
        let shape = shape
            .into_iter()
            .map(|size| usize::try_from(size).unwrap_or(0))
            .collect();
        Ok(Self { shape, elements })
    }
}

impl From<ArrayD<f32>> for Tensor {
    fn from(array: ArrayD<f32>) -> Self {
        Self::from_array(array)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, s};

    use super::*;

    #[test]
    fn arrays_of_every_layout_come_back_as_they_were() {
        let array = Array2::from_shape_fn((3, 4), |(row, column)| (row * 4 + column) as f32);
        for array in [
            array.clone(),
            array.clone().reversed_axes(),
            array.slice(s![1.., ..;2]).to_owned(),
        ] {
            let expected = array.clone().into_dyn();
            assert_eq!(Tensor::from_array(array).into_f32(), expected);
        }
        // Moved in, cut down and still row-major: the vector holds more than the array.
        let cut = array.clone().slice_move(s![1..2, ..]);
        assert_eq!(
            Tensor::from_array(cut).as_slice::<f32>(),
            Some(&[4.0, 5.0, 6.0, 7.0][..])
        );
    }

    #[test]
    fn a_wrong_number_of_elements_is_refused() {
        let error = Tensor::new(&[2, 3], vec![0_i64; 5]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a tensor of shape [2, 3] takes 6 elements, and 5 were given"
        );
        assert!(Tensor::new(&[usize::MAX, 2], vec![0_i64; 5]).is_err());
    }

    #[test]
    fn casts_round_once_and_saturate() {
        let numbers = Tensor::new(&[4], vec![1.5_f32, -2.75, 1e10, 0.0]).unwrap();
        let cast = |element_type| numbers.clone().cast(element_type).elements;
        assert_eq!(cast(ElementType::Int32), Elements::Int32(vec![1, -2, i32::MAX, 0]));
        assert_eq!(cast(ElementType::Bool), Elements::Bool(vec![true, true, true, false]));
        let half = Elements::Float16([1.5, -2.75, 1e10, 0.0].map(f16::from_f32).to_vec());
        assert_eq!(cast(ElementType::Float16), half);
        let timestep = Tensor::scalar(981_i64).cast(ElementType::Float32);
        assert_eq!(
            (timestep.shape(), timestep.as_slice::<f32>()),
            (&[][..], Some(&[981.0][..]))
        );
    }

    #[test]
    fn every_type_goes_through_onnx_runtime_unchanged() {
        crate::runtime::ensure().unwrap();
        for row in crate::runtime::element::TYPES {
            let tensor = Tensor::new(&[1, 3], vec![1.0_f32, 0.0, 2.0]).unwrap().cast(row.ours);
            let value = tensor.value("x").unwrap();
            assert_eq!(Tensor::from_value("x", &value).unwrap(), tensor, "{}", row.name);
            assert_eq!(ElementType::from_onnx(row.onnx), Some(row.ours));
            assert_eq!(Tensor::zeros(row.ours, &[2]).element_type(), row.ours);
        }
    }
}
