//! Steps of static graphs at fixed addresses, which a device can record once and then repeat as a whole (CUDA graphs).
//!
//! A recording goes by addresses: whatever it was made with has to lie there again. So inputs are copied into memory that
//! stays, and outputs are written into such. The memory belongs to none of the recorded sessions, whose own allocations a
//! recording may write over. A session is recorded once for each set of addresses; a cache that is read while it is
//! written has two places in turn.

use ort::{
    memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType},
    session::RunOptions,
    value::DynValue,
};

use super::{
    device_tensor::{DeviceTensor, Given},
    error::RuntimeError,
    session::Session,
    tensor::Tensor,
    transfer::Transfer,
};

/// ONNX Runtime's option of a run that tells its recording.
const RECORDING: &str = "gpu_graph_id";
/// The value for a run that is not recorded.
const NO_RECORDING: &str = "-1";

/// Memory at fixed addresses for a model's values, and what was recorded with it.
#[derive(Debug)]
pub(super) struct Fixed {
    inputs: Vec<(String, DeviceTensor)>,
    outputs: Vec<(String, DeviceTensor)>,
    /// One a cache.
    caches: Vec<Places>,
    /// Variant and addresses of each recording; its number is its place in the list, from 1.
    recordings: Vec<(usize, Vec<usize>)>,
    /// Recordings whose memory is gone.
    forgotten: usize,
    /// It goes last: the memory is its sessions'.
    transfer: Transfer,
}

/// Where a cache lies.
#[derive(Debug, Default)]
struct Places {
    places: [Option<DeviceTensor>; 2],
    /// In which of them it is now.
    now: usize,
}

impl Places {
    fn now(&self) -> Option<&DeviceTensor> {
        self.places.get(self.now).and_then(Option::as_ref)
    }

    /// Where a step writes it: elsewhere where it reads it.
    fn next(&self, read: bool) -> usize {
        if read { 1 - self.now } else { self.now }
    }
}

/// A cache in a step.
pub(super) struct CacheUse<'a> {
    pub input: &'a str,
    pub output: &'a str,
    pub takes: bool,
    pub gives: bool,
    /// Whether a step has filled it.
    pub filled: bool,
    /// What stands in for it before any has.
    pub placeholder: &'a DynValue,
}

impl Fixed {
    /// Memory on the device of `session`, for a model with so many caches.
    pub fn new(session: &Session, caches: usize) -> Self {
        Self {
            inputs: Vec::new(),
            outputs: Vec::new(),
            caches: (0..caches).map(|_| Places::default()).collect(),
            recordings: Vec::new(),
            forgotten: 0,
            transfer: Transfer::of(session),
        }
    }

    /// Gives the memory up: other sizes follow.
    pub fn clear(&mut self) {
        self.inputs.clear();
        self.outputs.clear();
        self.caches.iter_mut().for_each(|cache| *cache = Places::default());
        self.forgotten += self.recordings.len();
        self.recordings.clear();
    }

    /// How many recordings there are.
    pub fn recordings(&self) -> usize {
        self.recordings.len()
    }

    /// Bytes of a cache.
    pub fn cache_bytes(&self, place: usize) -> usize {
        let now = self.caches.get(place).and_then(Places::now);
        now.map_or(0, DeviceTensor::bytes)
    }

    /// Where a cache lies, if a step has written it.
    pub fn cache(&self, place: usize) -> Option<&DeviceTensor> {
        self.caches.get(place).and_then(Places::now)
    }

    /// Runs variant number `variant`. Gives the model's own outputs, which are good until its next step; those that
    /// `to_host` names lie on the host.
    ///
    /// The first step with an output that has no memory yet is not recorded.
    pub fn step(
        &mut self,
        (variant, session): (usize, &mut Session),
        caches: &[CacheUse<'_>],
        given: &[(&str, Given<'_>)],
        to_host: impl Fn(&str) -> bool,
        device: AllocationDevice<'static>,
    ) -> Result<Vec<(String, DynValue)>, RuntimeError> {
        self.place_inputs(given)?;
        self.zero(caches)?;
        let own = |name: &str| !caches.iter().any(|cache| cache.output == name);
        let ports = session.outputs().iter().map(|port| port.name.clone());
        let own: Vec<String> = ports.filter(|name| own(name)).collect();
        let has_memory = |name: &String| self.outputs.iter().any(|(found, _)| found == name);
        let caches_ready = caches.iter().zip(&self.caches).all(|(cache, places)| {
            let next = places.places.get(places.next(cache.takes));
            (!cache.takes || places.now().is_some()) && (!cache.gives || next.is_some_and(Option::is_some))
        });
        let outputs = match caches_ready && own.iter().all(has_memory) {
            true => self.repeat((variant, session), caches, given, &own)?,
            false => self.run_once(session, caches, given, &own, device)?,
        };
        for (cache, places) in caches.iter().zip(&mut self.caches) {
            if cache.gives {
                places.now = places.next(cache.takes);
            }
        }
        let outputs = outputs.into_iter().map(|(name, value)| match to_host(&name) {
            false => Ok((name, value)),
            true => {
                let there = DeviceTensor::new(&name, value)?;
                let here = self.transfer.download(&there)?;
                Ok((name.clone(), here.owned_value(&name)?))
            }
        });
        outputs.collect()
    }

    /// Copies inputs to where they were before.
    fn place_inputs(&mut self, given: &[(&str, Given<'_>)]) -> Result<(), RuntimeError> {
        for (name, given) in given {
            match self.inputs.iter_mut().find(|(found, _)| found == name) {
                Some((_, memory)) => self.transfer.fill(*given, memory)?,
                None => {
                    let memory = self.transfer.copy(*given)?;
                    self.inputs.push(((*name).to_owned(), memory));
                }
            }
        }
        Ok(())
    }

    /// What a step reads and makes anew begins as zeros, as at the start of another clip.
    fn zero(&mut self, caches: &[CacheUse<'_>]) -> Result<(), RuntimeError> {
        for (cache, places) in caches.iter().zip(&mut self.caches) {
            if !cache.takes || cache.filled {
                continue;
            }
            if let Some(memory) = places.places.get_mut(places.now).and_then(Option::as_mut) {
                let zeros = Tensor::zeros(memory.element_type(), memory.shape());
                self.transfer.fill(Given::Host(&zeros), memory)?;
            }
        }
        Ok(())
    }

    /// A step that is not recorded, whose outputs show what memory they need.
    fn run_once(
        &mut self,
        session: &mut Session,
        caches: &[CacheUse<'_>],
        given: &[(&str, Given<'_>)],
        own: &[String],
        device: AllocationDevice<'static>,
    ) -> Result<Vec<(String, DynValue)>, RuntimeError> {
        let model = session.model().to_path_buf();
        let run = || -> Result<Vec<(String, DynValue)>, ort::Error> {
            let index = session.memory_index();
            let on_device = MemoryInfo::new(device, index, AllocatorType::Device, MemoryType::Default)?;
            let mut binding = session.inner.create_binding()?;
            for (name, memory) in self
                .inputs
                .iter()
                .filter(|(name, _)| given.iter().any(|(own, _)| own == name))
            {
                binding.bind_input(name.as_str(), memory.value())?;
            }
            for name in own {
                binding.bind_output_to_device(name.as_str(), &on_device)?;
            }
            for (cache, places) in caches.iter().zip(&self.caches) {
                if cache.takes {
                    let value = places.now().map_or(cache.placeholder, DeviceTensor::value);
                    binding.bind_input(cache.input, value)?;
                }
                if cache.gives {
                    binding.bind_output_to_device(cache.output, &on_device)?;
                }
            }
            let mut options = RunOptions::new()?;
            options.set(RECORDING, NO_RECORDING)?;
            let outputs = session.inner.run_binding_with_options(&binding, &options)?;
            let outputs = outputs.into_iter();
            Ok(outputs.map(|(name, value)| (name.to_owned(), value)).collect())
        };
        let outputs = run().map_err(|error| RuntimeError::run(&model, error.to_string()))?;
        let mut found = Vec::new();
        for (name, value) in outputs {
            let tensor = DeviceTensor::new(&name, value)?;
            let cache = caches
                .iter()
                .zip(&mut self.caches)
                .find(|(cache, _)| cache.output == name);
            match cache {
                Some((cache, places)) => {
                    let next = places.next(cache.takes);
                    let memory = self.transfer.copy(Given::Device(&tensor))?;
                    if let Some(place) = places.places.get_mut(next) {
                        *place = Some(memory);
                    }
                }
                None => {
                    if !self.outputs.iter().any(|(known, _)| *known == name) {
                        let memory = self.transfer.copy(Given::Device(&tensor))?;
                        self.outputs.push((name.clone(), memory));
                    }
                    found.push((name, tensor.into_value()));
                }
            }
        }
        Ok(found)
    }

    /// A step whose values all have their memory: recorded the first time, and repeated from then on.
    fn repeat(
        &mut self,
        (variant, session): (usize, &mut Session),
        caches: &[CacheUse<'_>],
        given: &[(&str, Given<'_>)],
        own: &[String],
    ) -> Result<Vec<(String, DynValue)>, RuntimeError> {
        let model = session.model().to_path_buf();
        let mut addresses = Vec::new();
        let mut run = || -> Result<Vec<(String, DynValue)>, ort::Error> {
            let mut binding = session.inner.create_binding()?;
            for (name, memory) in self
                .inputs
                .iter()
                .filter(|(name, _)| given.iter().any(|(own, _)| own == name))
            {
                addresses.push(memory.address());
                binding.bind_input(name.as_str(), memory.value())?;
            }
            for (name, memory) in self.outputs.iter_mut().filter(|(name, _)| own.contains(name)) {
                addresses.push(memory.address());
                binding.bind_output(name.as_str(), memory.value_mut())?;
            }
            for (cache, places) in caches.iter().zip(&mut self.caches) {
                if cache.takes
                    && let Some(memory) = places.now()
                {
                    addresses.push(memory.address());
                    binding.bind_input(cache.input, memory.value())?;
                }
                let next = places.next(cache.takes);
                if cache.gives
                    && let Some(memory) = places.places.get_mut(next).and_then(Option::as_mut)
                {
                    addresses.push(memory.address());
                    binding.bind_output(cache.output, memory.value_mut())?;
                }
            }
            let key = (variant, std::mem::take(&mut addresses));
            let place = match self.recordings.iter().position(|recording| *recording == key) {
                Some(place) => place,
                None => {
                    self.recordings.push(key);
                    self.recordings.len() - 1
                }
            };
            let mut options = RunOptions::new()?;
            options.set(RECORDING, (self.forgotten + place + 1).to_string())?;
            let outputs = session.inner.run_binding_with_options(&binding, &options)?;
            let outputs = outputs
                .into_iter()
                .filter(|(name, _)| own.iter().any(|own| own == name));
            Ok(outputs.map(|(name, value)| (name.to_owned(), value)).collect())
        };
        run().map_err(|error| RuntimeError::run(&model, error.to_string()))
    }
}
