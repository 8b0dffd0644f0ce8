//! One copy of the weights for several graphs of one model, pre-packed weights included.
//!
//! ONNX Runtime packs the weights of matrix products for its kernels when it opens a model, and then forgets what it
//! packed from. Two sessions share what was packed only where both were given the weights from outside, so the weights
//! are handed to it as values over a memory map of the file that they stand in. What was packed needs the map no more:
//! its pages are given back while a session is opened, since they would otherwise count as a second copy.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ffi::c_void,
    fmt,
    fs::File,
    path::{Path, PathBuf},
    ptr::{NonNull, null_mut},
    sync::Arc,
};

use memmap2::Mmap;
use ort::{
    AsPointer,
    memory::{Allocator, MemoryInfo},
    session::builder::PrepackedWeights,
    value::{DynValue, TensorElementType},
};

use super::{
    element::ElementType,
    error::RuntimeError,
    load,
    provider::Provider,
    session::{Options, Session},
};
use crate::collective::Communicator;
use crate::onnx::{
    Model, Standing,
    messages::{DataType, GraphProto, TensorProto},
};

/// Smaller weights are left in each graph: ONNX Runtime reads some of them when it rewrites the graph, and they are cheap.
const LEAST_BYTES: u64 = 4096;

/// Uses of weights that ONNX Runtime leaves as they are when it rewrites a graph: the operator and the input. Other
/// weights may be transposed or folded under their own names, and would then no longer be what is handed over.
const KEPT: &[(&str, usize)] = &[("MatMul", 1), ("Gemm", 1), ("Gather", 0)];

/// How often the pages of the maps are given back while a session is opened.
#[cfg(target_os = "linux")]
const PAUSE: std::time::Duration = std::time::Duration::from_millis(5);

/// Opens several graphs of one model that share their weights.
///
/// Sessions on the processor share them. On another device each has its own, for ONNX Runtime copies there what it is
/// given on the host.
#[derive(Default)]
pub struct SharedWeights {
    maps: Vec<(PathBuf, Arc<Mmap>)>,
    values: HashMap<Key, Arc<DynValue>>,
    prepacked: Option<PrepackedWeights>,
}

/// What two weights that are the same agree in.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    path: PathBuf,
    offset: u64,
    dims: Vec<i64>,
    element_type: ElementType,
}

/// What a session is given from outside.
pub(super) struct Given {
    /// Weights by name.
    pub values: Vec<(String, Arc<DynValue>)>,
    /// What all sessions pack into.
    pub prepacked: PrepackedWeights,
    /// The memory under the values.
    pub maps: Vec<Arc<Mmap>>,
}

impl fmt::Debug for SharedWeights {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("SharedWeights");
        shown.field("weights", &self.values.len()).finish_non_exhaustive()
    }
}

impl SharedWeights {
    /// Opens a graph that was made in memory from the file `path`. Weights that stand in that file or in its data files
    /// are not copied into the graph.
    ///
    /// # Errors
    /// As [`Session::open_bytes`]; [`RuntimeError::Open`] also where a data file cannot be read.
    pub fn open(&mut self, path: &Path, model: Model, options: &Options) -> Result<Session, RuntimeError> {
        self.open_for(path, model, options, None)
    }

    /// Opens the graph of one rank of a split model, as [`Self::open`] does. Weights of which the rank has only a part are its
    /// own.
    ///
    /// # Errors
    /// As [`Session::open_rank`].
    pub fn open_rank(
        &mut self,
        path: &Path,
        model: Model,
        options: &Options,
        communicator: &Arc<dyn Communicator>,
    ) -> Result<Session, RuntimeError> {
        self.open_for(path, model, options, Some(communicator))
    }

    fn open_for(
        &mut self,
        path: &Path,
        model: Model,
        options: &Options,
        communicator: Option<&Arc<dyn Communicator>>,
    ) -> Result<Session, RuntimeError> {
        load::environment()?;
        let refuse = |reason: String| RuntimeError::Open {
            model: path.to_path_buf(),
            reason,
        };
        let (mut proto, weights) = model.into_parts();
        let mut values = Vec::new();
        let on_processor = matches!(options.provider, Provider::Auto | Provider::Cpu);
        if let Some(graph) = &mut proto.graph {
            let kept = kept(graph);
            for tensor in &mut graph.initializer {
                let standing = weights.standing(tensor).map_err(|error| refuse(error.to_string()))?;
                let Some(standing) = standing.filter(|standing| standing.length >= LEAST_BYTES) else {
                    continue;
                };
                let name = tensor.name.clone().unwrap_or_default();
                if on_processor
                    && kept.contains(&name)
                    && let Some(value) = self.value(tensor, &standing).map_err(refuse)?
                {
                    values.push((name, value));
                }
                standing.write(tensor);
            }
        }
        let bytes = prost::Message::encode_to_vec(&proto);
        drop((proto, weights));
        let given = Given {
            values,
            prepacked: self.prepacked.get_or_insert_with(PrepackedWeights::new).clone(),
            maps: self.maps.iter().map(|(_, map)| map.clone()).collect(),
        };
        giving_back(&given.maps, || {
            Session::open_given(path, &bytes, options, &given, communicator)
        })
    }

    /// A value over a weight's bytes in a memory map; `None` for types that steps do not handle.
    fn value(&mut self, tensor: &TensorProto, standing: &Standing) -> Result<Option<Arc<DynValue>>, String> {
        let element_type = tensor.data_type.and_then(|number| DataType::try_from(number).ok());
        let Some(element_type) = element_type.and_then(ElementType::from_onnx) else {
            return Ok(None);
        };
        let key = Key {
            path: standing.path.clone(),
            offset: standing.offset,
            dims: tensor.dims.clone(),
            element_type,
        };
        if let Some(value) = self.values.get(&key) {
            return Ok(Some(value.clone()));
        }
        let map = self.map(&standing.path)?;
        let range = usize::try_from(standing.offset)
            .ok()
            .zip(usize::try_from(standing.length).ok())
            .and_then(|(offset, length)| map.get(offset..offset.checked_add(length)?));
        let Some(bytes) = range else {
            return Err(format!("{} was cut off meanwhile", standing.path.display()));
        };
        let value = match (bytes.as_ptr() as usize).is_multiple_of(element_type.bytes()) {
            true => over(bytes, &key.dims, element_type)?,
            // Kernels read whole elements: what stands askew, as it may in a model's own file, is copied, once.
            false => copied(bytes, &key.dims, element_type)?,
        };
        let value = Arc::new(value);
        self.values.insert(key, value.clone());
        Ok(Some(value))
    }

    /// The memory map of a file.
    fn map(&mut self, path: &Path) -> Result<Arc<Mmap>, String> {
        if let Some((_, map)) = self.maps.iter().find(|(mapped, _)| mapped == path) {
            return Ok(map.clone());
        }
        let map = File::open(path).and_then(|file| {
            // SAFETY: the map is read-only. That no other process changes the file meanwhile cannot be enforced; the
            // documentation of `Model::load` says so.
            unsafe { Mmap::map(&file) }
        });
        let map = Arc::new(map.map_err(|error| format!("cannot read {}: {error}", path.display()))?);
        self.maps.push((path.to_path_buf(), map.clone()));
        Ok(map)
    }
}

/// The initializers that are used only in ways that ONNX Runtime keeps.
fn kept(graph: &GraphProto) -> HashSet<String> {
    let mut uses: BTreeMap<&str, bool> = BTreeMap::new();
    walk(graph, &mut uses);
    for output in &graph.output {
        uses.insert(output.name.as_deref().unwrap_or_default(), false);
    }
    let kept = uses.into_iter().filter(|(_, kept)| *kept);
    kept.map(|(name, _)| name.to_owned()).collect()
}

fn walk<'g>(graph: &'g GraphProto, uses: &mut BTreeMap<&'g str, bool>) {
    for node in &graph.node {
        let operator = node.op_type.as_deref().unwrap_or_default();
        let standard = matches!(node.domain.as_deref(), None | Some("" | "ai.onnx"));
        for (place, input) in node.input.iter().enumerate() {
            let kept = standard && KEPT.contains(&(operator, place));
            uses.entry(input).and_modify(|all| *all &= kept).or_insert(kept);
        }
        for attribute in &node.attribute {
            let nested = attribute.g.as_deref().into_iter().chain(&attribute.graphs);
            nested.for_each(|graph| walk(graph, uses));
        }
    }
}

/// A value that borrows these bytes, which must be aligned and outlive it.
fn over(bytes: &[u8], dims: &[i64], element_type: ElementType) -> Result<DynValue, String> {
    let memory = MemoryInfo::default();
    let mut value = null_mut();
    let element = TensorElementType::from(element_type);
    // SAFETY: the pointers are valid for the call; ONNX Runtime reads weights and never writes them. Every session that
    // is given the value holds the map (`Session::_weights`).
    let status = unsafe {
        (ort::api().CreateTensorWithDataAsOrtValue)(
            memory.ptr(),
            bytes.as_ptr().cast_mut().cast::<c_void>(),
            bytes.len(),
            dims.as_ptr(),
            dims.len(),
            element.into(),
            &mut value,
        )
    };
    // SAFETY: the status comes from ONNX Runtime and is used once.
    unsafe { ort::Error::result_from_status(status) }.map_err(|error| error.to_string())?;
    let value = NonNull::new(value).ok_or("ONNX Runtime gave no value")?;
    // SAFETY: the value was just made, on the processor, and is owned by nobody else.
    Ok(unsafe { DynValue::from_ptr(value, Some(&Allocator::default())) })
}

/// A value with a copy of these bytes.
fn copied(bytes: &[u8], dims: &[i64], element_type: ElementType) -> Result<DynValue, String> {
    macro_rules! copy {
        ($rust:ty) => {{
            let (elements, _) = bytes.as_chunks::<{ size_of::<$rust>() }>();
            let elements: Vec<$rust> = elements.iter().map(|bytes| <$rust>::from_le_bytes(*bytes)).collect();
            ort::value::Tensor::from_array((dims, elements)).map(|value| value.into_dyn())
        }};
    }
    let value = match element_type {
        ElementType::Float32 => copy!(f32),
        ElementType::Float16 => copy!(half::f16),
        ElementType::Bfloat16 => copy!(half::bf16),
        ElementType::Float64 => copy!(f64),
        ElementType::Int32 => copy!(i32),
        ElementType::Int64 => copy!(i64),
        ElementType::Bool => {
            let elements: Vec<bool> = bytes.iter().map(|byte| *byte != 0).collect();
            ort::value::Tensor::from_array((dims, elements)).map(|value| value.into_dyn())
        }
    };
    value.map_err(|error| error.to_string())
}

/// Does `work`, and gives the pages of the maps back again and again meanwhile, and at the end.
///
/// What was read of a file stays in the system's cache either way; what is read once more is found there.
#[cfg(target_os = "linux")]
fn giving_back<T>(maps: &[Arc<Mmap>], work: impl FnOnce() -> T) -> T {
    let give_back = || {
        for map in maps {
            // SAFETY: the map is of a file, and read-only: pages that are read again hold the same bytes. Where that fails
            // it only costs memory.
            let _ = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
        }
    };
    let done = std::sync::atomic::AtomicBool::new(false);
    let result = std::thread::scope(|scope| {
        let helper = scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                std::thread::park_timeout(PAUSE);
                give_back();
            }
        });
        let result = work();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        helper.thread().unpark();
        result
    });
    give_back();
    result
}

#[cfg(not(target_os = "linux"))]
fn giving_back<T>(_: &[Arc<Mmap>], work: impl FnOnce() -> T) -> T {
    work()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::SaveOptions;

    fn export() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpus/latte.ts17.static.onnx")
    }

    #[test]
    fn weights_stand_where_they_are_said_to() {
        let folder = tempfile::tempdir().unwrap();
        let beside = folder.path().join("beside.onnx");
        let options = SaveOptions {
            move_weights: true,
            ..SaveOptions::default()
        };
        Model::load(&export()).unwrap().save(&beside, &options).unwrap();
        for (path, others) in [(export(), 0), (beside, 1)] {
            let model = Model::load(&path).unwrap();
            let mut elsewhere = std::collections::BTreeSet::new();
            let mut found = 0;
            for tensor in &model.proto.graph.as_ref().unwrap().initializer {
                let Some(standing) = model.weights().standing(tensor).unwrap() else {
                    continue;
                };
                let file = std::fs::read(&standing.path).unwrap();
                let (offset, length) = (standing.offset as usize, standing.length as usize);
                assert_eq!(file[offset..offset + length], model.weights().bytes(tensor).unwrap());
                found += 1;
                if standing.path != path.canonicalize().unwrap() {
                    elsewhere.insert(standing.path);
                }
            }
            assert!(found > 20, "{found}");
            assert_eq!(elsewhere.len(), others);
        }
    }

    #[test]
    fn sessions_are_given_the_same_matrices() {
        crate::runtime::ensure().unwrap();
        let mut weights = SharedWeights::default();
        let options = Options {
            provider: Provider::Cpu,
            ..Options::default()
        };
        let mut open = || {
            let session = weights.open(&export(), Model::load(&export()).unwrap(), &options);
            drop(session.unwrap());
            (weights.values.len(), weights.maps.len())
        };
        let first = open();
        assert!(first.0 >= 10 && first.1 == 1, "{first:?}");
        assert_eq!(open(), first);
    }

    #[test]
    fn a_weight_with_another_use_is_left_to_the_graph() {
        let node = |operator: &str, inputs: [&str; 2]| crate::onnx::messages::NodeProto {
            op_type: Some(operator.to_owned()),
            input: inputs.map(str::to_owned).to_vec(),
            ..Default::default()
        };
        let graph = GraphProto {
            node: vec![
                node("MatMul", ["x", "only"]),
                node("MatMul", ["x", "both"]),
                node("Add", ["both", "y"]),
            ],
            ..GraphProto::default()
        };
        assert_eq!(kept(&graph), HashSet::from(["only".to_owned()]));
    }
}
