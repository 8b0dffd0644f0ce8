//! The execution providers by name: a table of what each is called, what it needs and how `ort` is told of it.

use std::fmt;

use ort::{
    ep::{self, ExecutionProviderDispatch},
    memory::AllocationDevice,
};
use serde::{Deserialize, Serialize};

use super::webgpu;

/// What runs the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// CUDA where it can be used, the processor otherwise.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// NVIDIA's GPUs.
    Cuda,
    /// NVIDIA's GPUs by way of TensorRT; what that does not take runs on CUDA.
    TensorRt,
    /// NVIDIA's RTX GPUs by way of TensorRT for RTX.
    NvTensorRtRtx,
    /// AMD's GPUs by way of MIGraphX.
    MiGraphX,
    /// AMD's GPUs.
    Rocm,
    /// Intel's processors and GPUs by way of OpenVINO.
    OpenVino,
    /// Processors by way of oneDNN.
    OneDnn,
    /// GPUs on Windows.
    DirectMl,
    /// Apple's processors, GPUs and neural engine.
    CoreMl,
    /// Android's accelerators.
    Nnapi,
    /// Processors by way of XNNPACK.
    Xnnpack,
    /// Qualcomm's accelerators.
    Qnn,
    /// Huawei's accelerators.
    Cann,
    /// AMD's accelerators by way of Vitis AI.
    Vitis,
    /// Arm's processors by way of the Arm Compute Library.
    Acl,
    /// GPUs by way of WebGPU, which is a library of its own (`onnxruntime-ep-webgpu`).
    WebGpu,
}

/// What is known of an execution provider.
pub struct Row {
    /// The provider.
    pub provider: Provider,
    /// Its name on the command line.
    pub name: &'static str,
    /// Its name in messages.
    pub title: &'static str,
    /// Its name in ONNX Runtime.
    pub identifier: &'static str,
    /// Whether it has several devices, of which one is taken by its number.
    pub indexed: bool,
    /// Whether it needs NVIDIA's driver and a GPU that this knows.
    pub nvidia: bool,
    /// The stem of its library beside ONNX Runtime's, where it has one of its own.
    pub library: Option<&'static str>,
    /// Libraries that are opened while it runs and that its own does not name as needed.
    pub opened: &'static [&'static str],
    /// How to get an ONNX Runtime that has it.
    pub source: &'static str,
    /// How `ort` is told of it and of those that take what it does not, by the number of the device; none for what is no
    /// part of ONNX Runtime's own library.
    pub(super) build: Option<fn(i32) -> Vec<ExecutionProviderDispatch>>,
}

impl fmt::Debug for Row {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Row")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A build with NVIDIA's providers.
const GPU_WHEEL: &str = "`pip install onnxruntime-gpu[cuda,cudnn]` into the active Python environment, in place of \
                         `onnxruntime`, or give such a library with --ort-lib";
/// A build that is made from the source.
const OWN_BUILD: &str = "build ONNX Runtime with it, and give its library with --ort-lib";

/// Every execution provider that `ort` has a name for, but for three: Azure's sends the inputs to a service, and those of
/// Arm NN and TVM were given up.
pub const PROVIDERS: &[Row] = &[
    Row {
        provider: Provider::Cuda,
        name: "cuda",
        title: "CUDA",
        identifier: "CUDAExecutionProvider",
        indexed: true,
        nvidia: true,
        library: Some("onnxruntime_providers_cuda"),
        // Asked of the frontend of cuDNN when the first convolution or softmax is made.
        opened: &["libcudnn.so.9"],
        source: GPU_WHEEL,
        build: Some(|index| vec![ep::CUDA::default().with_device_id(index).build()]),
    },
    Row {
        provider: Provider::TensorRt,
        name: "tensorrt",
        title: "TensorRT",
        identifier: "TensorrtExecutionProvider",
        indexed: true,
        nvidia: true,
        library: Some("onnxruntime_providers_tensorrt"),
        opened: &["libcudnn.so.9"],
        source: GPU_WHEEL,
        build: Some(|index| {
            vec![
                ep::TensorRT::default().with_device_id(index).build(),
                ep::CUDA::default().with_device_id(index).build(),
            ]
        }),
    },
    Row {
        provider: Provider::NvTensorRtRtx,
        name: "nvtensorrtrtx",
        title: "TensorRT for RTX",
        identifier: "NvTensorRTRTXExecutionProvider",
        indexed: true,
        nvidia: true,
        library: Some("onnxruntime_providers_nv_tensorrt_rtx"),
        opened: &[],
        source: OWN_BUILD,
        build: Some(|index| vec![ep::NVRTX::default().with_device_id(index.unsigned_abs()).build()]),
    },
    Row {
        provider: Provider::MiGraphX,
        name: "migraphx",
        title: "MIGraphX",
        identifier: "MIGraphXExecutionProvider",
        indexed: true,
        nvidia: false,
        library: Some("onnxruntime_providers_migraphx"),
        opened: &[],
        source: "`pip install onnxruntime-migraphx` into the active Python environment, or give such a library with --ort-lib",
        build: Some(|index| vec![ep::MIGraphX::default().with_device_id(index).build()]),
    },
    Row {
        provider: Provider::Rocm,
        name: "rocm",
        title: "ROCm",
        identifier: "ROCMExecutionProvider",
        indexed: true,
        nvidia: false,
        library: Some("onnxruntime_providers_rocm"),
        opened: &[],
        source: "ONNX Runtime 1.23 and later have MIGraphX in its place: use --device migraphx",
        build: Some(|index| vec![ep::ROCm::default().with_device_id(index).build()]),
    },
    Row {
        provider: Provider::OpenVino,
        name: "openvino",
        title: "OpenVINO",
        identifier: "OpenVINOExecutionProvider",
        indexed: false,
        nvidia: false,
        library: Some("onnxruntime_providers_openvino"),
        opened: &[],
        source: "`pip install onnxruntime-openvino` into the active Python environment, or give such a library with --ort-lib",
        build: Some(|_| vec![ep::OpenVINO::default().build()]),
    },
    Row {
        provider: Provider::OneDnn,
        name: "onednn",
        title: "oneDNN",
        identifier: "DnnlExecutionProvider",
        indexed: false,
        nvidia: false,
        library: Some("onnxruntime_providers_dnnl"),
        opened: &[],
        source: OWN_BUILD,
        build: Some(|_| vec![ep::OneDNN::default().build()]),
    },
    Row {
        provider: Provider::DirectMl,
        name: "directml",
        title: "DirectML",
        identifier: "DmlExecutionProvider",
        indexed: true,
        nvidia: false,
        library: None,
        opened: &[],
        source: "on Windows, `pip install onnxruntime-directml` into the active Python environment",
        build: Some(|index| vec![ep::DirectML::default().with_device_id(index).build()]),
    },
    Row {
        provider: Provider::CoreMl,
        name: "coreml",
        title: "Core ML",
        identifier: "CoreMLExecutionProvider",
        indexed: false,
        nvidia: false,
        library: None,
        opened: &[],
        source: "on macOS, `pip install onnxruntime` into the active Python environment",
        build: Some(|_| vec![ep::CoreML::default().build()]),
    },
    Row {
        provider: Provider::Nnapi,
        name: "nnapi",
        title: "NNAPI",
        identifier: "NnapiExecutionProvider",
        indexed: false,
        nvidia: false,
        library: None,
        opened: &[],
        source: OWN_BUILD,
        build: Some(|_| vec![ep::NNAPI::default().build()]),
    },
    Row {
        provider: Provider::Xnnpack,
        name: "xnnpack",
        title: "XNNPACK",
        identifier: "XnnpackExecutionProvider",
        indexed: false,
        nvidia: false,
        library: None,
        opened: &[],
        source: OWN_BUILD,
        build: Some(|_| vec![ep::XNNPACK::default().build()]),
    },
    Row {
        provider: Provider::Qnn,
        name: "qnn",
        title: "QNN",
        identifier: "QNNExecutionProvider",
        indexed: false,
        nvidia: false,
        library: Some("onnxruntime_providers_qnn"),
        opened: &[],
        source: "`pip install onnxruntime-qnn` into the active Python environment, or give such a library with --ort-lib",
        build: Some(|_| vec![ep::QNN::default().build()]),
    },
    Row {
        provider: Provider::Cann,
        name: "cann",
        title: "CANN",
        identifier: "CANNExecutionProvider",
        indexed: true,
        nvidia: false,
        library: Some("onnxruntime_providers_cann"),
        opened: &[],
        source: "`pip install onnxruntime-cann` into the active Python environment, or give such a library with --ort-lib",
        build: Some(|index| vec![ep::CANN::default().with_device_id(index).build()]),
    },
    Row {
        provider: Provider::Vitis,
        name: "vitis",
        title: "Vitis AI",
        identifier: "VitisAIExecutionProvider",
        indexed: false,
        nvidia: false,
        library: Some("onnxruntime_providers_vitisai"),
        opened: &[],
        source: OWN_BUILD,
        build: Some(|_| vec![ep::Vitis::default().build()]),
    },
    Row {
        provider: Provider::Acl,
        name: "acl",
        title: "Arm Compute Library",
        identifier: "ACLExecutionProvider",
        indexed: false,
        nvidia: false,
        library: None,
        opened: &[],
        source: OWN_BUILD,
        build: Some(|_| vec![ep::ACL::default().build()]),
    },
    Row {
        provider: Provider::WebGpu,
        name: "webgpu",
        title: "WebGPU",
        identifier: "WebGpuExecutionProvider",
        indexed: false,
        nvidia: false,
        library: None,
        opened: &[],
        source: "`pip install onnxruntime-ep-webgpu` into the Python environment that has `onnxruntime`",
        build: None,
    },
];

impl Provider {
    /// What is known of it; nothing of the processor, which is always there.
    #[must_use]
    pub fn row(self) -> Option<&'static Row> {
        PROVIDERS.iter().find(|row| row.provider == self)
    }

    /// Its name in ONNX Runtime.
    #[must_use]
    pub fn identifier(self) -> &'static str {
        self.row().map_or(CPU, |row| row.identifier)
    }

    /// Whether its device has memory of its own, in which values stay from step to step.
    #[must_use]
    pub fn has_own_memory(self) -> bool {
        self.memory() != AllocationDevice::CPU
    }

    /// The memory in which values of the device lie. Those that are not named here give and take values on the host.
    pub(super) fn memory(self) -> AllocationDevice<'static> {
        match self {
            Provider::Cuda | Provider::TensorRt | Provider::NvTensorRtRtx => AllocationDevice::CUDA,
            Provider::MiGraphX | Provider::Rocm => AllocationDevice::HIP,
            Provider::DirectMl => AllocationDevice::DIRECTML,
            Provider::Cann => AllocationDevice::CANN,
            Provider::WebGpu => webgpu::memory(),
            _ => AllocationDevice::CPU,
        }
    }
}

/// ONNX Runtime's name for the processor.
pub(super) const CPU: &str = "CPUExecutionProvider";

/// CUDA that records the kernels of a run and repeats them.
pub(super) fn recording_cuda(index: i32) -> Vec<ExecutionProviderDispatch> {
    let cuda = ep::CUDA::default().with_device_id(index).with_cuda_graph(true);
    vec![cuda.build()]
}

/// A provider and the number of one of its devices, as `cuda:1` names it.
///
/// # Errors
/// What is allowed instead.
pub fn parse(text: &str) -> Result<(Provider, u32), String> {
    let (name, index) = match text.split_once(':') {
        Some((name, index)) => (name, Some(index)),
        None => (text, None),
    };
    let row = PROVIDERS.iter().find(|row| row.name == name);
    let provider = match (name, row) {
        ("auto", _) => Provider::Auto,
        ("cpu", _) => Provider::Cpu,
        (_, Some(row)) => row.provider,
        (_, None) => {
            let names: Vec<&str> = PROVIDERS.iter().map(|row| row.name).collect();
            return Err(format!(
                "there is no such provider; there are auto, cpu, {}",
                names.join(", ")
            ));
        }
    };
    match index {
        None => Ok((provider, 0)),
        Some(_) if !row.is_some_and(|row| row.indexed) => {
            Err(format!("`{name}` has no numbered devices; leave `:` out"))
        }
        Some(index) => match index.parse() {
            Ok(index @ 0..=1023) => Ok((provider, index)),
            _ => Err(format!("`{index}` is no number of a device, such as in `{name}:0`")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_by_name_and_number() {
        assert_eq!(parse("cuda"), Ok((Provider::Cuda, 0)));
        assert_eq!(parse("tensorrt:3"), Ok((Provider::TensorRt, 3)));
        assert_eq!(parse("auto"), Ok((Provider::Auto, 0)));
        for (text, part) in [
            ("cpu:1", "no numbered"),
            ("cuda:x", "`x`"),
            ("cuda:-1", "`-1`"),
            ("gpu", "cuda, tensorrt"),
        ] {
            assert!(parse(text).unwrap_err().contains(part), "{text}");
        }
    }

    #[test]
    fn every_provider_has_one_row_and_one_name() {
        for (place, row) in PROVIDERS.iter().enumerate() {
            let clashes = |other: &Row| {
                other.name == row.name || other.identifier == row.identifier || other.provider == row.provider
            };
            assert!(!PROVIDERS[..place].iter().any(clashes), "{row:?}");
            assert_eq!(parse(row.name), Ok((row.provider, 0)));
        }
    }
}
