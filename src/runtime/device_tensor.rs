//! Tensors that stay where a session put them, in its device's memory.

use std::fmt;

use ort::{
    AsPointer,
    value::{DynValue, ValueType},
};

use super::{element::ElementType, error::RuntimeError, held::host_place, tensor::Tensor};

/// A tensor where a session left it: in the memory of its device, or in the host's.
#[derive(Debug)]
pub struct DeviceTensor {
    value: DynValue,
    shape: Vec<usize>,
    element_type: ElementType,
}

impl DeviceTensor {
    /// Takes one of ONNX Runtime's values, wherever it lies.
    pub(super) fn new(name: &str, value: DynValue) -> Result<Self, RuntimeError> {
        let unknown = |found: String| RuntimeError::ElementType {
            name: name.to_owned(),
            found,
        };
        let ValueType::Tensor { ty, shape, .. } = value.dtype() else {
            return Err(unknown(value.dtype().to_string()));
        };
        let element_type = ElementType::from_runtime(*ty).ok_or_else(|| unknown(ty.to_string()))?;
        // The value exists, so its sizes are not negative.
        let shape = shape.iter().map(|size| usize::try_from(*size).unwrap_or(0)).collect();
        Ok(Self {
            value,
            shape,
            element_type,
        })
    }

    pub(super) fn value(&self) -> &DynValue {
        &self.value
    }

    pub(super) fn value_mut(&mut self) -> &mut DynValue {
        &mut self.value
    }

    pub(super) fn into_value(self) -> DynValue {
        self.value
    }

    /// Where it lies, in whatever memory that is.
    pub(super) fn address(&self) -> usize {
        let mut address = std::ptr::null_mut();
        // SAFETY: the value is a tensor and lives; its memory is not touched.
        let status = unsafe { (ort::api().GetTensorMutableData)(self.value.ptr().cast_mut(), &raw mut address) };
        // SAFETY: the status was just returned by ONNX Runtime and is handed over.
        unsafe { ort::Error::result_from_status(status) }.map_or(0, |()| address as usize)
    }

    /// The sizes of the dimensions.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The type of the elements.
    #[must_use]
    pub fn element_type(&self) -> ElementType {
        self.element_type
    }

    /// Bytes of all elements.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.element_type.bytes()
    }

    /// Whether it lies in the host's memory, told from the value itself.
    #[must_use]
    pub fn lies_on_host(&self) -> bool {
        host_place(&self.value, self.element_type).is_some()
    }

    /// A copy on the host of a tensor that lies there.
    ///
    /// # Errors
    /// [`RuntimeError::Value`] for one in a device's memory: [`super::Transfer`] brings it.
    pub fn to_tensor(&self, name: &str) -> Result<Tensor, RuntimeError> {
        Tensor::from_value(name, &self.value)
    }
}

/// What an input of a step is given.
#[derive(Clone, Copy)]
pub enum Given<'a> {
    /// A tensor on the host; a session on a device copies it there.
    Host(&'a Tensor),
    /// A tensor that lies on the session's device already.
    Device(&'a DeviceTensor),
}

impl Given<'_> {
    pub(super) fn shape(&self) -> &[usize] {
        match self {
            Given::Host(tensor) => tensor.shape(),
            Given::Device(tensor) => tensor.shape(),
        }
    }

    pub(super) fn element_type(&self) -> ElementType {
        match self {
            Given::Host(tensor) => tensor.element_type(),
            Given::Device(tensor) => tensor.element_type(),
        }
    }
}

impl fmt::Debug for Given<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match self {
            Given::Host(_) => "host",
            Given::Device(_) => "device",
        };
        write!(formatter, "{} {:?} on the {place}", self.element_type(), self.shape())
    }
}

/// Inputs on the host.
pub(super) fn on_host<'a>(inputs: &[(&'a str, &'a Tensor)]) -> Vec<(&'a str, Given<'a>)> {
    let inputs = inputs.iter();
    inputs.map(|(name, tensor)| (*name, Given::Host(tensor))).collect()
}

/// A step's own outputs as tensors on the host.
pub(super) fn to_tensors(outputs: Vec<(String, DynValue)>) -> Result<Vec<(String, Tensor)>, RuntimeError> {
    let outputs = outputs.into_iter();
    outputs
        .map(|(name, value)| Ok((name.clone(), Tensor::from_value(&name, &value)?)))
        .collect()
}

/// A step's own outputs where they lie, and the bytes of those that lie on the host without having been asked there.
pub(super) fn where_they_lie(
    outputs: Vec<(String, DynValue)>,
    to_host: &[&str],
    device_is_host: bool,
) -> Result<(Vec<(String, DeviceTensor)>, u64), RuntimeError> {
    let mut copied = 0;
    let mut tensors = Vec::with_capacity(outputs.len());
    for (name, value) in outputs {
        let tensor = DeviceTensor::new(&name, value)?;
        if !device_is_host && !to_host.contains(&name.as_str()) && tensor.lies_on_host() {
            copied += tensor.bytes() as u64;
        }
        tensors.push((name, tensor));
    }
    Ok((tensors, copied))
}
