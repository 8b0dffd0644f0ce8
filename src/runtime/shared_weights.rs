//! One copy of the weights for several graphs of one model, pre-packed weights included.
//!
//! ONNX Runtime packs the weights of matrix products for its kernels when it opens a model, and then forgets what it
//! packed from. Two sessions share what was packed only where both were given the weights from outside, so the weights
//! are handed to it as values over a memory map of the file that they stand in. What was packed needs the map no more:
//! its pages are given back while a session is opened, since they would otherwise count as a second copy. So is what ONNX
//! Runtime packs of a weight and frees again, since another session has the same. A rank's own parts of weights stand in no
//! file; where it has several graphs, the parts are handed over as they lie in memory.

mod kept;
mod on_device;

pub(super) use on_device::DeviceWeights;

use kept::kept;
use on_device::OnDevice;
use std::{
    collections::{BTreeMap, HashMap},
    ffi::c_void,
    fmt,
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use memmap2::Mmap;
use ort::{memory::MemoryInfo, session::builder::PrepackedWeights, value::DynValue};

use super::{
    arena::Arena,
    element::ElementType,
    error::RuntimeError,
    extent::Extent,
    give_back::giving_back,
    load,
    provider::Provider,
    session::{Options, Session},
    weight::{Held, Key, Place, borrowed, tensor_of},
};
use crate::collective::Communicator;
use crate::onnx::{
    Model, Standing,
    messages::{DataType, GraphProto, TensorProto},
};

/// Smaller weights are left in each graph: ONNX Runtime reads some of them when it rewrites the graph, and they are cheap.
const LEAST_BYTES: u64 = 4096;

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

#[cfg(test)]
mod tests;
