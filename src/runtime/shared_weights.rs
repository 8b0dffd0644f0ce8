//! One copy of the weights for several graphs of one model, pre-packed weights included.
//!
//! ONNX Runtime packs the weights of matrix products for its kernels when it opens a model, and then forgets what it
//! packed from. Two sessions share what was packed only where both were given the weights from outside, so the weights
//! are handed to it as values over a memory map of the file that they stand in. What was packed needs the map no more:
//! its pages are given back while a session is opened, since they would otherwise count as a second copy. So is what ONNX
//! Runtime packs of a weight and frees again, since another session has the same. A rank's own parts of weights stand in no
//! file; where it has several graphs, the parts are handed over as they lie in memory.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ffi::c_void,
    fmt,
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use memmap2::Mmap;
use ort::{
    memory::{AllocatorType, MemoryInfo, MemoryType},
    session::builder::PrepackedWeights,
    value::DynValue,
};

use super::{
    arena::Arena,
    device_tensor::DeviceTensor,
    element::ElementType,
    error::RuntimeError,
    extent::Extent,
    give_back::giving_back,
    load,
    provider::Provider,
    session::{Options, Session},
    transfer::Transfer,
    weight::{Held, Key, Place, borrowed, tensor_of},
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

/// Opens several graphs of one model that share their weights.
///
/// Sessions on the processor share them, and what is packed of them. On CUDA and WebGPU they share copies in the device's
/// memory, where ONNX Runtime takes them. Elsewhere each has its own, for ONNX Runtime copies there what it is given on the host.
///
/// Sessions that run in turn also have one arena on the processor and on CUDA, so that the activations of a step are held once.
/// Those that record CUDA graphs have their own, and so have ranks of one graph, which run at once.
#[derive(Default)]
pub struct SharedWeights {
    maps: Vec<(PathBuf, Arc<Mmap>)>,
    /// Weights in memory that values lie over.
    parts: Vec<Bytes>,
    values: HashMap<Key, Arc<DynValue>>,
    device: Option<OnDevice>,
    prepacked: Option<PrepackedWeights>,
    /// Sizes of open dimensions by name, which are written into the graphs.
    sizes: BTreeMap<String, i64>,
    /// Where sessions that run in turn take their memory.
    arena: Option<Arena>,
}

/// Providers whose sessions take weights that lie on the device already.
const ON_DEVICE: &[Provider] = &[Provider::Cuda, Provider::WebGpu];

/// Where weights are brought to a device.
struct OnDevice {
    provider: Provider,
    device_index: u32,
    held: Arc<Mutex<DeviceWeights>>,
    /// Whether ONNX Runtime did not take them: each session then has its own.
    refused: bool,
}

/// Weights in a device's memory. Every session that was given some holds them.
pub(super) struct DeviceWeights {
    /// Each with the value over it that sessions are given.
    weights: HashMap<Key, (DeviceTensor, Arc<DynValue>)>,
    /// It goes last: the memory is its sessions'.
    transfer: Transfer,
}

impl fmt::Debug for DeviceWeights {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("DeviceWeights");
        shown.field("weights", &self.weights.len()).finish_non_exhaustive()
    }
}

/// How many graphs a rank has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RankGraphs {
    /// One, which runs while those of others do.
    One,
    /// Several, of which one runs at a time: they have one arena, on the processor that of all ranks of the process, and share
    /// the rank's own parts of weights, too.
    Several,
}

/// What a session is given from outside.
pub(super) struct Given {
    /// Weights by name.
    pub values: Vec<(String, Arc<DynValue>)>,
    /// What all sessions pack into.
    pub prepacked: PrepackedWeights,
    /// The memory under the values.
    pub maps: Vec<Arc<Mmap>>,
    /// The same of those that stand in no file.
    pub parts: Vec<Bytes>,
    /// The same, where it is a device's.
    pub device: Option<Arc<Mutex<DeviceWeights>>>,
    /// The provider in whose memory they lie.
    pub provider: Provider,
    /// Whether that memory's arena is registered for the session.
    arena: bool,
}

impl Given {
    /// Whether a session on this provider takes its memory from the arena of all.
    pub(super) fn gives_arena_on(&self, provider: Provider) -> bool {
        self.arena && self.provider == provider
    }
}

impl fmt::Debug for SharedWeights {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("SharedWeights");
        shown.field("weights", &self.values.len()).finish_non_exhaustive()
    }
}

impl SharedWeights {
    /// From now on open dimensions have these sizes in the graphs that are opened. What a graph reckons from sizes is then
    /// constant, where it would else be reckoned on the processor in every step, which a CUDA graph cannot have.
    pub fn fix_sizes(&mut self, sizes: BTreeMap<String, i64>) {
        self.sizes = sizes;
    }

    /// Opens a graph that was made in memory from the file `path`. Weights that stand in that file or in its data files
    /// are not copied into the graph.
    ///
    /// # Errors
    /// As [`Session::open_bytes`]; [`RuntimeError::Open`] also where a data file cannot be read.
    pub fn open(&mut self, path: &Path, model: Model, options: &Options) -> Result<Session, RuntimeError> {
        self.open_for(path, model, options, None)
    }

    /// Opens a graph of one rank of a split model, as [`Self::open`] does. Weights of which the rank has only a part are its
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
        graphs: RankGraphs,
    ) -> Result<Session, RuntimeError> {
        self.open_for(path, model, options, Some((communicator, graphs)))
    }

    fn open_for(
        &mut self,
        path: &Path,
        model: Model,
        options: &Options,
        rank: Option<(&Arc<dyn Communicator>, RankGraphs)>,
    ) -> Result<Session, RuntimeError> {
        load::environment()?;
        let run_in_turn = rank.is_none_or(|(_, graphs)| graphs == RankGraphs::Several);
        let refuse = |reason: String| RuntimeError::Open {
            model: path.to_path_buf(),
            reason,
        };
        let (mut proto, weights) = model.into_parts();
        let mut values = Vec::new();
        let on_processor = matches!(options.provider, Provider::Auto | Provider::Cpu);
        self.prepare_device(path, options);
        let takes_any = on_processor || self.device.as_ref().is_some_and(|device| !device.refused);
        if let Some(graph) = &mut proto.graph {
            self.write_sizes(graph);
            let kept = kept(graph);
            for tensor in &mut graph.initializer {
                let standing = weights.standing(tensor).map_err(|error| refuse(error.to_string()))?;
                let part = tensor
                    .raw_data
                    .clone()
                    .filter(|_| rank.is_some() && run_in_turn && standing.is_none());
                let length = match (&standing, &part) {
                    (Some(standing), _) => standing.length,
                    (None, part) => part.as_ref().map_or(0, |bytes| bytes.len() as u64),
                };
                if length < LEAST_BYTES {
                    continue;
                }
                let name = tensor.name.clone().unwrap_or_default();
                if takes_any
                    && kept.contains(&name)
                    && let Some((key, bytes)) = self.held(tensor, standing.as_ref(), part).map_err(refuse)?
                {
                    let value = match on_processor {
                        true => self.value(key, bytes).map(Some),
                        false => self.on_device(key, &bytes),
                    };
                    values.extend(value.map_err(refuse)?.map(|value| (name, value)));
                }
                if let Some(standing) = standing {
                    standing.write(tensor);
                }
            }
        }
        let bytes = prost::Message::encode_to_vec(&proto);
        drop((proto, weights));
        let given = Given {
            values,
            prepacked: self.prepacked.get_or_insert_with(PrepackedWeights::new).clone(),
            maps: self.maps.iter().map(|(_, map)| map.clone()).collect(),
            parts: self.parts.clone(),
            device: self.device.as_ref().map(|device| device.held.clone()),
            provider: if on_processor { Provider::Cpu } else { options.provider },
            arena: run_in_turn && self.prepare_arena(options),
        };
        let communicator = rank.map(|(communicator, _)| communicator);
        let open = |given: &Given| {
            giving_back(&given.maps, || {
                Session::open_given(path, &bytes, options, given, communicator)
            })
        };
        let opened = open(&given);
        match (&opened, &mut self.device) {
            (Err(_), Some(device)) if !given.values.is_empty() => {
                device.refused = true;
                let (values, arena) = (Vec::new(), false);
                open(&Given { values, arena, ..given })
            }
            _ => opened,
        }
    }

    /// Bytes of weights that sessions share in a device's memory.
    #[must_use]
    pub fn bytes_on_device(&self) -> usize {
        let Some(device) = &self.device else { return 0 };
        let held = device.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.weights.values().map(|(tensor, _)| tensor.bytes()).sum()
    }

    /// Makes ready to bring weights to the device of these options.
    fn prepare_device(&mut self, path: &Path, options: &Options) {
        let (provider, device_index) = (options.provider, options.device_index);
        let is_there = |device: &OnDevice| (device.provider, device.device_index) == (provider, device_index);
        if !ON_DEVICE.contains(&provider) || self.device.as_ref().is_some_and(is_there) {
            return;
        }
        self.device = Some(OnDevice {
            provider,
            device_index,
            held: Arc::new(Mutex::new(DeviceWeights {
                weights: HashMap::new(),
                transfer: Transfer::new(path, provider, device_index),
            })),
            refused: false,
        });
    }

    /// Registers the arena of the device of these options; whether it is.
    fn prepare_arena(&mut self, options: &Options) -> bool {
        // A recording writes where its kernels wrote when it was made, whoever has that memory by then.
        if options.cuda_graph {
            return false;
        }
        let refused = self.device.as_ref().is_some_and(|device| device.refused);
        let (provider, index) = match options.provider {
            Provider::Auto | Provider::Cpu => (Provider::Cpu, 0),
            // Weights on the device say that its library was loaded.
            provider if !refused && self.bytes_on_device() > 0 => (provider, options.device_index),
            _ => return false,
        };
        if !self.arena.as_ref().is_some_and(|arena| arena.is_of(provider, index)) {
            self.arena = Arena::on(provider, index);
        }
        self.arena.is_some()
    }

    /// What tells a weight, and its bytes; `None` for types that steps do not handle. Without `standing` it is `part`.
    fn held(
        &mut self,
        tensor: &TensorProto,
        standing: Option<&Standing>,
        part: Option<Bytes>,
    ) -> Result<Option<(Key, Held)>, String> {
        let element_type = tensor.data_type.and_then(|number| DataType::try_from(number).ok());
        let Some(element_type) = element_type.and_then(ElementType::from_onnx) else {
            return Ok(None);
        };
        let (place, bytes) = match (standing, part) {
            (Some(standing), _) => {
                let map = self.map(&standing.path)?;
                let place = Place::File(standing.path.clone(), standing.offset);
                (place, Held::in_map(map, standing)?)
            }
            (None, Some(bytes)) => (Place::Memory(bytes.as_ptr() as usize), Held::Part(bytes)),
            (None, None) => return Ok(None),
        };
        let key = Key {
            place,
            dims: tensor.dims.clone(),
            element_type,
        };
        Ok(Some((key, bytes)))
    }

    /// A value over a weight in the device's memory; none where the device takes none.
    fn on_device(&mut self, key: Key, bytes: &Held) -> Result<Option<Arc<DynValue>>, String> {
        let Some(device) = self.device.as_ref().filter(|device| !device.refused) else {
            return Ok(None);
        };
        let (provider, device_index, held) = (device.provider, device.device_index, device.held.clone());
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, value)) = held.weights.get(&key) {
            return Ok(Some(value.clone()));
        }
        let host = tensor_of(bytes, &key.dims, key.element_type)?;
        let Ok(there) = held.transfer.upload(&host) else {
            // The session will say what is wrong with the device.
            self.device.iter_mut().for_each(|device| device.refused = true);
            return Ok(None);
        };
        let index = i32::try_from(device_index).unwrap_or(0);
        let memory = MemoryInfo::new(provider.memory(), index, AllocatorType::Device, MemoryType::Default);
        let memory = memory.map_err(|error| error.to_string())?;
        let place = (there.address() as *mut c_void, there.bytes());
        let value = Arc::new(borrowed(place, &key.dims, key.element_type, &memory)?);
        held.weights.insert(key, (there, value.clone()));
        self.hold(bytes);
        Ok(Some(value))
    }

    /// Holds memory by whose address a weight is told.
    fn hold(&mut self, bytes: &Held) {
        if let Held::Part(bytes) = bytes {
            self.parts.push(bytes.clone());
        }
    }

    /// Writes the sizes that are known into the graph's inputs.
    fn write_sizes(&self, graph: &mut GraphProto) {
        let inputs = graph.input.iter_mut().filter_map(|input| input.r#type.as_mut());
        let shapes = inputs.filter_map(|found| found.tensor_type.as_mut()?.shape.as_mut());
        for dimension in shapes.flat_map(|shape| &mut shape.dim) {
            let formula = dimension.dim_param.clone().map(Extent::Formula);
            if let Some(size) = formula.and_then(|formula| formula.evaluate(&self.sizes)) {
                dimension.dim_param = None;
                dimension.dim_value = Some(size);
            }
        }
    }

    /// A value over a weight's bytes.
    fn value(&mut self, key: Key, bytes: Held) -> Result<Arc<DynValue>, String> {
        if let Some(value) = self.values.get(&key) {
            return Ok(value.clone());
        }
        let element_type = key.element_type;
        let value = match (bytes.as_ptr() as usize).is_multiple_of(element_type.bytes()) {
            true => {
                let place = (bytes.as_ptr().cast_mut().cast::<c_void>(), bytes.len());
                borrowed(place, &key.dims, element_type, &MemoryInfo::default())?
            }
            // Kernels read whole elements: what stands askew, as it may in a model's own file, is copied, once.
            false => {
                let tensor = tensor_of(&bytes, &key.dims, element_type)?;
                tensor.owned_value("weight").map_err(|error| error.to_string())?
            }
        };
        let value = Arc::new(value);
        self.values.insert(key, value.clone());
        self.hold(&bytes);
        Ok(value)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::SaveOptions;
    use crate::runtime::arena::TURN;

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
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// As a rank has those of which it has a part only.
    #[test]
    fn graphs_of_a_rank_share_weights_that_stand_in_no_file() {
        crate::runtime::ensure().unwrap();
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = Model::load(&export()).unwrap();
        let mut proto = loaded.proto.clone();
        for tensor in &mut proto.graph.as_mut().unwrap().initializer {
            let bytes = loaded.weights().bytes(tensor).unwrap();
            if tensor.raw_data.is_some() {
                tensor.raw_data = Some(Bytes::from(bytes.to_vec()));
            }
        }
        let model = || Model::with_weights(proto.clone(), loaded.weights().clone());
        let world = crate::collective::World::new(
            crate::collective::Mesh::new(1, 1, 1).unwrap(),
            std::time::Duration::from_secs(60),
        );
        let communicator: Arc<dyn Communicator> = world.join(0).unwrap();
        let options = Options {
            provider: Provider::Cpu,
            threads: Some(1),
            ..Options::default()
        };
        let held = |graphs: RankGraphs, times: usize| {
            let mut weights = SharedWeights::default();
            let sessions = (0..times).map(|_| {
                let opened = weights.open_rank(&export(), model(), &options, &communicator, graphs);
                opened.unwrap().shares_arena()
            });
            let share: Vec<bool> = sessions.collect();
            (weights.parts.len(), share.iter().all(|shares| *shares))
        };
        let (once, shares) = held(RankGraphs::Several, 1);
        assert!(once >= 10 && shares, "{once}");
        assert_eq!(held(RankGraphs::Several, 2), (once, true));
        assert_eq!(held(RankGraphs::One, 1), (0, false));
    }

    #[test]
    fn sizes_that_are_known_are_the_graphs_own() {
        crate::runtime::ensure().unwrap();
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpus/latte.ts17.dynamic.onnx");
        let mut weights = SharedWeights::default();
        weights.fix_sizes(BTreeMap::from([("batch".to_owned(), 2)]));
        let options = Options {
            provider: Provider::Cpu,
            ..Options::default()
        };
        let session = weights.open(&path, Model::load(&path).unwrap(), &options).unwrap();
        for port in session.inputs() {
            assert_eq!(port.shape[0], Some(2), "{port:?}");
        }
        assert!(session.inputs().iter().any(|port| port.shape.contains(&None)));
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
