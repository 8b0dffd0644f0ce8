//! The collectives as custom operators of ONNX Runtime, in domain `ai.pab`.

use std::{
    fmt,
    ops::RangeInclusive,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::NonNull,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use ort::{
    operator::{
        ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput,
        ShapeInferenceContext,
    },
    value::{DynTensorValueType, Shape, SymbolicDimensions, TensorElementType, ValueType},
};

use super::{CollectiveError, Communicator, Element, Group, Mesh, Operation, Stream, operation::Call};

/// The domain of the operators.
pub const DOMAIN: &str = "ai.pab";

/// The version of the domain's operator set.
pub const VERSION: u32 = 1;

/// Where a session sits: its rank, and how it gets its communicator once a kernel needs it.
pub trait Seat: Send + Sync {
    /// The mesh of all ranks.
    fn mesh(&self) -> Mesh;
    /// The session's rank.
    fn rank(&self) -> usize;
    /// Whether tensors may stay on a device of CUDA: whether the communicator has a [`Communicator::device`].
    fn on_device(&self) -> bool {
        false
    }
    /// The communicator. It is kept as long as the session's kernels are.
    ///
    /// # Errors
    /// Where it cannot be had.
    fn communicator(&self) -> Result<Arc<dyn Communicator>, CollectiveError>;
}

/// The seat of a session that has its communicator already.
struct Given(Arc<dyn Communicator>);

impl Seat for Given {
    fn mesh(&self) -> Mesh {
        self.0.mesh()
    }

    fn rank(&self) -> usize {
        self.0.rank()
    }

    fn on_device(&self) -> bool {
        self.0.device().is_some()
    }

    fn communicator(&self) -> Result<Arc<dyn Communicator>, CollectiveError> {
        Ok(self.0.clone())
    }
}

/// The operators of one rank, to be registered with each of its sessions. A session must run its operators one after the
/// other, and every run must be called by a thread that may wait.
#[derive(Clone)]
pub struct Operators {
    domain: Arc<OperatorDomain>,
}

impl Operators {
    /// The operators over this communicator: on the processor, and on devices of CUDA where it has a way from one to the
    /// other. ONNX Runtime has to be loaded.
    ///
    /// # Errors
    /// [`CollectiveError::Operators`] where ONNX Runtime does not take them.
    pub fn new(communicator: Arc<dyn Communicator>) -> Result<Self, CollectiveError> {
        Self::at(Arc::new(Given(communicator)))
    }

    /// As [`Self::new`], for a session that gets its communicator later. ONNX Runtime has to be loaded.
    ///
    /// # Errors
    /// [`CollectiveError::Operators`] where ONNX Runtime does not take them.
    pub fn at(seat: Arc<dyn Seat>) -> Result<Self, CollectiveError> {
        let build = || -> ort::Result<OperatorDomain> {
            let mut domain = OperatorDomain::new(DOMAIN)?;
            let places = if seat.on_device() { &[false, true][..] } else { &[false] };
            for on_device in places {
                for operation in Operation::OPERATORS {
                    domain = domain.add(CollectiveOperator {
                        operation,
                        seat: seat.clone(),
                        on_device: *on_device,
                    })?;
                }
            }
            Ok(domain)
        };
        let domain = build().map_err(|error| CollectiveError::Operators {
            reason: error.to_string(),
        })?;
        #[allow(clippy::arc_with_non_send_sync)] // `ort` keeps domains in an `Arc`.
        Ok(Self {
            domain: Arc::new(domain),
        })
    }

    /// The domain, as ONNX Runtime takes it.
    pub(crate) fn domain(&self) -> Arc<OperatorDomain> {
        self.domain.clone()
    }
}

impl fmt::Debug for Operators {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Operators").finish_non_exhaustive()
    }
}

/// One operator, for every element type.
struct CollectiveOperator {
    operation: Operation,
    seat: Arc<dyn Seat>,
    /// For tensors in the memory of a device of CUDA.
    on_device: bool,
}

/// ONNX Runtime's word for "any type, and the output's is the input's".
const ANY: TensorElementType = TensorElementType::Undefined;

/// Numbers for the names of open sizes, which are all different.
static OPEN: AtomicU64 = AtomicU64::new(0);

impl Operator for CollectiveOperator {
    type Kernel<'attr> = CollectiveKernel;

    fn name(&self) -> &str {
        self.operation.name()
    }

    fn versions(&self) -> RangeInclusive<u32> {
        VERSION..=VERSION
    }

    fn execution_provider_type(&self) -> Option<&str> {
        self.on_device.then_some("CUDAExecutionProvider")
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [OperatorInput::required(ANY)]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(ANY)]
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        guard(|| {
            // A tensor whose shape is not known yet comes as one without axes, so nothing is said of those, and nothing that
            // is wrong is refused here: the kernel says it better.
            let inputs = context.inputs();
            let Some(ValueType::Tensor { ty, shape, .. }) = inputs.first() else {
                return Ok(());
            };
            if shape.is_empty() {
                return Ok(());
            }
            let attributes = |name: &str| context.attr::<i64>(name).ok();
            let group = context
                .attr::<String>("group")
                .ok()
                .and_then(|group| Group::from_str(&group).ok());
            let Some(call) = group.and_then(|group| call(self.operation, String::new(), group, attributes).ok()) else {
                return Ok(());
            };
            let sizes: Vec<_> = shape.iter().map(|size| usize::try_from(*size).ok()).collect();
            let Ok(result) = call.result_shape(self.seat.mesh(), self.seat.rank(), &sizes) else {
                return Ok(());
            };
            let result: Vec<Option<i64>> = result
                .into_iter()
                .map(|size| size.and_then(|size| i64::try_from(size).ok()))
                .collect();
            // An open size without a name would be taken for the number -1, and what reshapes it for a mistake.
            let names = result.iter().map(|size| match size {
                Some(_) => String::new(),
                None => format!("pab.open.{}", OPEN.fetch_add(1, Ordering::Relaxed)),
            });
            let dimension_symbols = SymbolicDimensions::new(names);
            let result = ValueType::Tensor {
                ty: *ty,
                shape: Shape::new(result.into_iter().map(|size| size.unwrap_or(-1))),
                dimension_symbols,
            };
            context.set_output(0, &result)
        })
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<CollectiveKernel> {
        guard(|| {
            let node = context.node_name().unwrap_or_default();
            let refuse = |reason: String| {
                said(CollectiveError::Node {
                    operation: self.operation,
                    node: node.clone(),
                    reason,
                })
            };
            let group = context
                .get::<String>("group")
                .ok_or_else(|| refuse("it has no attribute `group`".to_owned()))?;
            let group = group
                .parse()
                .map_err(|error: CollectiveError| refuse(error.to_string()))?;
            let call = call(self.operation, node.clone(), group, |name| context.get::<i64>(name))
                .map_err(|missing| refuse(format!("it has no attribute `{missing}`")))?;
            let communicator = self.seat.communicator().map_err(said)?;
            Ok(CollectiveKernel {
                call,
                communicator,
                on_device: self.on_device,
            })
        })
    }
}

/// What a node does; the error is the attribute that it lacks.
fn call(
    operation: Operation,
    node: String,
    group: Group,
    attribute: impl Fn(&str) -> Option<i64>,
) -> Result<Call, &'static str> {
    let need = |name: &'static str| attribute(name).ok_or(name);
    let (cut, gathered) = match operation {
        Operation::ShardSlice | Operation::ReduceScatter => (Some(need("axis")?), None),
        Operation::AllGather => (None, Some(need("axis")?)),
        Operation::AllToAll => (Some(need("split_axis")?), Some(need("concat_axis")?)),
        Operation::AllReduce | Operation::Handshake => (None, None),
    };
    Ok(Call {
        operation,
        node,
        group,
        cut,
        gathered,
    })
}

/// A node of a session.
struct CollectiveKernel {
    call: Call,
    communicator: Arc<dyn Communicator>,
    on_device: bool,
}

impl Kernel for CollectiveKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let computed = catch_unwind(AssertUnwindSafe(|| self.run(context)));
        computed.unwrap_or_else(|_| {
            let error = self
                .call
                .refuse("it panicked, which is a mistake in this program".to_owned());
            self.communicator.fail(&error);
            Err(said(error))
        })
    }
}

impl CollectiveKernel {
    fn run(&self, context: &ComputeContext) -> ort::Result<()> {
        let refuse = |reason: String| {
            let error = self.call.refuse(reason);
            self.communicator.fail(&error);
            said(error)
        };
        let input = context.input(0)?.ok_or_else(|| refuse("it has no input".to_owned()))?;
        let input = input.downcast::<DynTensorValueType>()?;
        let element = element(*input.data_type())
            .ok_or_else(|| refuse(format!("{} is no element type that it takes", input.data_type())))?;
        if !self.on_device && !input.memory_info().is_cpu_accessible() {
            return Err(refuse("its input does not lie in the host's memory".to_owned()));
        }
        let shape: Vec<usize> = input
            .shape()
            .iter()
            .map(|size| usize::try_from(*size).unwrap_or(0))
            .collect();
        let pointer = input.data_ptr().cast::<u8>();
        let bytes = shape.iter().product::<usize>() * element.bytes();
        let data = match pointer.is_null() || self.on_device || bytes == 0 {
            true => &[],
            // SAFETY: ONNX Runtime keeps the input's memory, of the tensor's size, while the kernel computes.
            false => unsafe { std::slice::from_raw_parts(pointer, bytes) },
        };
        let mut allocate = |shape: &[usize]| {
            let sizes: Vec<i64> = shape
                .iter()
                .map(|size| i64::try_from(*size).unwrap_or(i64::MAX))
                .collect();
            let output = context.output(0, sizes).map_err(|error| error.to_string())?;
            let output = output.ok_or("the node has no output")?;
            let output = output
                .downcast::<DynTensorValueType>()
                .map_err(|error| error.to_string())?;
            // An empty tensor has no memory.
            Ok(NonNull::new(output.data_ptr().cast_mut().cast::<u8>()).unwrap_or(NonNull::dangling()))
        };
        if self.on_device {
            let nccl = self.communicator.device();
            let nccl = nccl.ok_or_else(|| refuse("its communicator knows no device".to_owned()))?;
            let stream = Stream::new(context.stream()?);
            // SAFETY: ONNX Runtime keeps both tensors while the kernel computes, and this provider's lie on its device.
            let computed = unsafe {
                self.call
                    .run_on_device(nccl, element, &shape, pointer, stream, &mut allocate)
            };
            return computed.map_err(said);
        }
        // SAFETY: ONNX Runtime keeps the output while the kernel computes, and nobody else uses it.
        unsafe { self.call.run(&*self.communicator, element, &shape, data, &mut allocate) }.map_err(said)
    }
}

fn element(element: TensorElementType) -> Option<Element> {
    Some(match element {
        TensorElementType::Float32 => Element::Float32,
        TensorElementType::Float16 => Element::Float16,
        TensorElementType::Bfloat16 => Element::Bfloat16,
        TensorElementType::Float64 => Element::Float64,
        TensorElementType::Int32 => Element::Int32,
        TensorElementType::Int64 => Element::Int64,
        TensorElementType::Bool => Element::Bool,
        _ => return None,
    })
}

fn said(error: CollectiveError) -> ort::Error {
    ort::Error::new(error.to_string())
}

/// A panic must not reach ONNX Runtime, which would end the process.
fn guard<T>(work: impl FnOnce() -> ort::Result<T>) -> ort::Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(ort::Error::new("a panic in a collective operator")))
}
