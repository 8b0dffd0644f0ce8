//! Copies of tensors between the host and a session's device, by a graph of one `Identity` that runs there.

use std::path::{Path, PathBuf};

use ort::{
    memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType},
    value::DynValue,
};
use prost::Message;

use super::{
    device_tensor::{DeviceTensor, Given},
    element::{ElementType, TYPES},
    error::RuntimeError,
    provider::Provider,
    session::{Optimization, Options, Session},
    tensor::Tensor,
};
use crate::onnx::messages::{
    DataType, Dimension, GraphProto, ModelProto, NodeProto, TensorShapeProto, TensorType, TypeProto, ValueInfoProto,
};

const INPUT: &str = "from";
const OUTPUT: &str = "to";

/// Brings tensors to a session's device and back, and holds memory there.
#[derive(Debug)]
pub struct Transfer {
    model: PathBuf,
    options: Options,
    /// One for each element type and rank that was asked for.
    copies: Vec<((ElementType, usize), Session)>,
}

/// Where a copy goes.
enum Target<'a> {
    Device,
    Host,
    /// Memory that is there already.
    Into(&'a mut DeviceTensor),
}

impl Transfer {
    /// To and from the device of this session.
    #[must_use]
    pub fn of(session: &Session) -> Self {
        Self::new(session.model(), session.provider(), session.device_index())
    }

    /// To and from a device; errors name the model.
    pub(super) fn new(model: &Path, provider: Provider, device_index: u32) -> Self {
        Self {
            model: model.to_path_buf(),
            options: Options {
                threads: Some(1),
                provider,
                device_index,
                optimization: Optimization::None,
                ..Options::default()
            },
            copies: Vec::new(),
        }
    }

    /// A copy in the device's memory.
    ///
    /// # Errors
    /// Those of [`Session::open_bytes`], and [`RuntimeError::Run`].
    pub fn upload(&mut self, tensor: &Tensor) -> Result<DeviceTensor, RuntimeError> {
        self.copy(Given::Host(tensor))
    }

    /// A copy on the host.
    ///
    /// # Errors
    /// Those of [`Session::open_bytes`], and [`RuntimeError::Run`].
    pub fn download(&mut self, tensor: &DeviceTensor) -> Result<Tensor, RuntimeError> {
        self.run(Given::Device(tensor), Target::Host)?.to_tensor(OUTPUT)
    }

    /// A copy in the device's memory of what may lie there already.
    pub(super) fn copy(&mut self, given: Given<'_>) -> Result<DeviceTensor, RuntimeError> {
        self.run(given, Target::Device)
    }

    /// Copies into memory of the same type and shape; its address stays.
    pub(super) fn fill(&mut self, given: Given<'_>, memory: &mut DeviceTensor) -> Result<(), RuntimeError> {
        self.run(given, Target::Into(memory)).map(drop)
    }

    fn run(&mut self, given: Given<'_>, target: Target<'_>) -> Result<DeviceTensor, RuntimeError> {
        let device = self.options.provider.memory();
        let session = self.session((given.element_type(), given.shape().len()))?;
        let (index, model) = (session.memory_index(), session.model().to_path_buf());
        let run = || -> Result<DynValue, RuntimeError> {
            let failed = |error: ort::Error| RuntimeError::run(&model, error.to_string());
            let host = match given {
                Given::Host(tensor) => Some(tensor.owned_value(INPUT)?),
                Given::Device(_) => None,
            };
            let mut binding = session.inner.create_binding().map_err(failed)?;
            match (&host, given) {
                (Some(value), _) => binding.bind_input(INPUT, value),
                (None, Given::Device(tensor)) => binding.bind_input(INPUT, tensor.value()),
                (None, Given::Host(_)) => Ok(()),
            }
            .map_err(failed)?;
            let place = |device, index| MemoryInfo::new(device, index, AllocatorType::Device, MemoryType::Default);
            match target {
                Target::Device => place(device, index).and_then(|place| binding.bind_output_to_device(OUTPUT, &place)),
                Target::Host => {
                    place(AllocationDevice::CPU, 0).and_then(|place| binding.bind_output_to_device(OUTPUT, &place))
                }
                Target::Into(memory) => binding.bind_output(OUTPUT, memory.value_mut()),
            }
            .map_err(failed)?;
            let outputs = session.inner.run_binding(&binding).map_err(failed)?;
            let output = outputs.into_iter().next().map(|(_, value)| value);
            output.ok_or_else(|| RuntimeError::Value {
                name: OUTPUT.to_owned(),
                reason: "ONNX Runtime gave no copy".to_owned(),
            })
        };
        DeviceTensor::new(OUTPUT, run()?)
    }

    fn session(&mut self, key: (ElementType, usize)) -> Result<&mut Session, RuntimeError> {
        let place = match self.copies.iter().position(|(found, _)| *found == key) {
            Some(place) => place,
            None => {
                let bytes = identity(key).encode_to_vec();
                let session = Session::open_bytes(&self.model, &bytes, &self.options)?;
                self.copies.push((key, session));
                self.copies.len() - 1
            }
        };
        match self.copies.get_mut(place) {
            Some((_, session)) => Ok(session),
            None => Err(RuntimeError::NotLoaded),
        }
    }
}

/// A model that gives what it takes.
fn identity((element_type, rank): (ElementType, usize)) -> ModelProto {
    let row = TYPES.iter().find(|row| row.ours == element_type);
    let element = row.map_or(DataType::Float, |row| row.onnx);
    let open = |axis: usize| Dimension {
        dim_param: Some(format!("size{axis}")),
        ..Dimension::default()
    };
    let info = |name: &str| ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto {
            tensor_type: Some(TensorType {
                elem_type: Some(element as i32),
                shape: Some(TensorShapeProto {
                    dim: (0..rank).map(open).collect(),
                }),
            }),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    };
    ModelProto::of_standard_operators(
        GraphProto {
            name: Some("copy".to_owned()),
            input: vec![info(INPUT)],
            output: vec![info(OUTPUT)],
            node: vec![NodeProto {
                op_type: Some("Identity".to_owned()),
                name: Some("copy".to_owned()),
                input: vec![INPUT.to_owned()],
                output: vec![OUTPUT.to_owned()],
                ..NodeProto::default()
            }],
            ..GraphProto::default()
        },
        17,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_of_every_type_come_back() {
        crate::runtime::ensure().unwrap();
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/runtime/switch.onnx");
        let options = Options {
            provider: crate::runtime::Provider::Cpu,
            ..Options::default()
        };
        let mut transfer = Transfer::of(&Session::open(&model, &options).unwrap());
        for row in TYPES {
            let tensor = Tensor::new(&[2, 1, 2], vec![1.0_f32, 0.0, 2.0, -3.5])
                .unwrap()
                .cast(row.ours);
            let there = transfer.upload(&tensor).unwrap();
            assert_eq!((there.shape(), there.element_type()), (tensor.shape(), row.ours));
            assert_eq!(there.bytes(), 4 * row.ours.bytes());
            assert_eq!(transfer.download(&there).unwrap(), tensor, "{}", row.name);
            let mut memory = transfer.copy(Given::Device(&there)).unwrap();
            let address = memory.address();
            let ones = Tensor::new(&[2, 1, 2], vec![1.0_f32; 4]).unwrap().cast(row.ours);
            transfer.fill(Given::Host(&ones), &mut memory).unwrap();
            assert_eq!((transfer.download(&memory).unwrap(), memory.address()), (ones, address));
            assert_eq!(transfer.download(&there).unwrap(), tensor, "{}", row.name);
        }
        assert_eq!(transfer.copies.len(), TYPES.len());
        let scalar = Tensor::scalar(7_i64);
        let there = transfer.upload(&scalar).unwrap();
        assert_eq!(transfer.download(&there).unwrap(), scalar);
    }
}
