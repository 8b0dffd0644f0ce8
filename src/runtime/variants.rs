//! Runs the static graphs of a schedule in turn, and hands caches from each step to the steps that read them.

use std::path::Path;

use ort::{
    memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType},
    value::DynValue,
};

use super::{
    captured::{CacheUse, Fixed},
    device_tensor::{DeviceTensor, Given, on_host, to_tensors, where_they_lie},
    element::ElementType,
    error::RuntimeError,
    held::host_place,
    session::{Port, Session},
    tensor::Tensor,
};

/// A model as one static graph for each set of rules that a run broadcasts together.
///
/// Caches stay where the sessions run. One that a graph makes and does not read comes out where the last one lay.
#[derive(Debug)]
pub struct VariantDenoiser {
    /// Memory at fixed addresses, where steps are recorded by the device.
    fixed: Option<Fixed>,
    /// They stand before the sessions, and go before them: a device's memory belongs to its session.
    caches: Vec<Cache>,
    first: Variant,
    others: Vec<Variant>,
    /// The shapes of the inputs of the last step that went well: for these the caches have the right memory.
    shapes: Vec<(String, Vec<usize>)>,
    device: AllocationDevice<'static>,
    /// Bytes of caches that steps put into the host's memory, where that is not the device's.
    copied: u64,
}

#[derive(Debug)]
struct Variant {
    flags: Vec<bool>,
    session: Session,
    /// For each cache whether the graph takes it, and whether it gives it.
    takes: Vec<bool>,
    gives: Vec<bool>,
}

#[derive(Debug)]
struct Cache {
    input: String,
    output: String,
    value: DynValue,
    filled: bool,
}

impl VariantDenoiser {
    /// `sessions` holds each graph with its flags, one for each rule. `fed_back` names what is handed from step to step,
    /// as an input and the output that it gets.
    ///
    /// # Errors
    /// [`RuntimeError::Inputs`] where there is no graph, or a cache has a type that steps do not handle.
    pub fn new(
        sessions: Vec<(Vec<bool>, Session)>,
        fed_back: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, RuntimeError> {
        let none = || {
            inputs(
                Path::new(""),
                "there is no variant, since the run has no steps".to_owned(),
            )
        };
        let device = match sessions.first().map(|(_, session)| session.provider()) {
            Some(provider) => provider.memory(),
            None => return Err(none()),
        };
        let mut caches = Vec::new();
        for (input, output) in fed_back {
            let mut ports = sessions
                .iter()
                .flat_map(|(_, session)| session.inputs().iter().filter(|port| port.name == input));
            // A cache that no graph takes is handed nowhere.
            if let Some(port) = ports.next() {
                caches.push(Cache {
                    value: placeholder(port)?,
                    filled: false,
                    input,
                    output,
                });
            }
        }
        let has = |ports: &[Port], name: &str| ports.iter().any(|port| port.name == name);
        let mut variants = sessions.into_iter().map(|(flags, session)| Variant {
            takes: caches.iter().map(|cache| has(session.inputs(), &cache.input)).collect(),
            gives: caches
                .iter()
                .map(|cache| has(session.outputs(), &cache.output))
                .collect(),
            flags,
            session,
        });
        let first = variants.next().ok_or_else(none)?;
        Ok(Self {
            fixed: None,
            others: variants.collect(),
            first,
            caches,
            shapes: Vec::new(),
            device,
            copied: 0,
        })
    }

    fn variants(&self) -> impl Iterator<Item = &Variant> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The session of the first variant, which is that of the first step.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.first.session
    }

    /// From now on every value lies at an address of its own for good, so that the device can record a step once and repeat
    /// it. Sessions record where they were opened with [`super::Options::cuda_graph`]; elsewhere it changes nothing but the
    /// memory.
    pub fn fix_addresses(&mut self) {
        self.fixed = Some(Fixed::new(&self.first.session, self.caches.len()));
        self.shapes.clear();
        self.caches.iter_mut().for_each(|cache| cache.filled = false);
    }

    /// How many recordings there are, one for each variant and set of addresses; none without [`Self::fix_addresses`].
    #[must_use]
    pub fn recordings(&self) -> usize {
        self.fixed.as_ref().map_or(0, Fixed::recordings)
    }

    /// Bytes that the sessions' arenas have taken of the device's memory, as [`Session::arena_bytes`] has them; one that
    /// several sessions share counts once.
    #[must_use]
    pub fn arena_bytes(&self) -> Option<u64> {
        let sessions = || self.variants().map(|variant| &variant.session);
        let shared = sessions().find(|session| session.shares_arena());
        let own = sessions().filter(|session| !session.shares_arena());
        own.chain(shared).map(Session::arena_bytes).sum()
    }

    /// Bytes of the filled caches and states.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        if let Some(fixed) = &self.fixed {
            let filled = self.caches.iter().enumerate().filter(|(_, cache)| cache.filled);
            return filled.map(|(place, _)| fixed.cache_bytes(place)).sum();
        }
        let filled = self.caches.iter().filter(|cache| cache.filled);
        filled.filter_map(|cache| bytes_of(&cache.value)).sum()
    }

    /// Bytes of caches that steps copied in the host's memory since the models were opened, and of what [`Self::step_held`]
    /// gave there unasked, told from where the values lie that ONNX Runtime gave: 0 where each stays on the device. On the processor caches are never copied, since what a
    /// step only reads it does not give.
    #[must_use]
    pub fn host_copies(&self) -> u64 {
        self.copied
    }

    /// Forgets the caches: the next step begins another clip.
    ///
    /// # Errors
    /// [`RuntimeError::Value`] where ONNX Runtime has no memory for what stands in for them.
    pub fn reset(&mut self) -> Result<(), RuntimeError> {
        let variants = [&self.first].into_iter().chain(&self.others);
        for cache in &mut self.caches {
            let sessions = variants.clone().map(|variant| &variant.session);
            let port = sessions.flat_map(Session::inputs).find(|port| port.name == cache.input);
            // What a graph reads and makes anew, such as the state of a forecast, begins as zeros.
            if let (Some(port), true) = (port, cache.filled) {
                cache.value = placeholder(port)?;
            }
            cache.filled = false;
        }
        if self.fixed.is_none() {
            self.shapes.clear();
        }
        Ok(())
    }

    /// Runs one step: `inputs` are the model's own inputs by name, `flags` one for each rule (`true` broadcasts).
    /// Returns the model's own outputs; the caches stay here.
    ///
    /// # Errors
    /// [`RuntimeError::Inputs`] for flags that no variant is for, and where a cache is read that no step has filled;
    /// [`RuntimeError::Run`] when ONNX Runtime fails, also for inputs that do not fit. The caches are then empty.
    pub fn step(&mut self, given: &[(&str, &Tensor)], flags: &[bool]) -> Result<Vec<(String, Tensor)>, RuntimeError> {
        to_tensors(self.step_bound(&on_host(given), flags, |_| true)?)
    }

    /// The same with inputs that may lie on the sessions' device already. Own outputs stay there, but for those that
    /// `to_host` names.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn step_held(
        &mut self,
        given: &[(&str, Given<'_>)],
        flags: &[bool],
        to_host: &[&str],
    ) -> Result<Vec<(String, DeviceTensor)>, RuntimeError> {
        let outputs = self.step_bound(given, flags, |name| to_host.contains(&name))?;
        let (outputs, copied) = where_they_lie(outputs, to_host, self.device == AllocationDevice::CPU)?;
        self.copied += copied;
        Ok(outputs)
    }

    /// A step, and the model's own outputs, of which come to the host those that are to.
    fn step_bound(
        &mut self,
        given: &[(&str, Given<'_>)],
        flags: &[bool],
        to_host: impl Fn(&str) -> bool,
    ) -> Result<Vec<(String, DynValue)>, RuntimeError> {
        let Some(index) = self.variants().position(|variant| variant.flags == flags) else {
            return Err(inputs(
                self.session().model(),
                format!("there is no variant that broadcasts just the rules {flags:?}; make them for this run's steps"),
            ));
        };
        let shapes: Vec<(String, Vec<usize>)> = given
            .iter()
            .map(|(name, tensor)| ((*name).to_owned(), tensor.shape().to_vec()))
            .collect();
        if self.fixed.is_some() {
            return self.step_fixed(index, given, shapes, to_host);
        }
        let in_place = self.shapes == shapes;
        let outputs = self.run(index, given, in_place, to_host);
        match outputs {
            Ok(outputs) => {
                self.shapes = shapes;
                Ok(self.take(outputs))
            }
            Err(error) => {
                // What was being written is neither the old cache nor the new one.
                self.reset()?;
                Err(error)
            }
        }
    }

    /// Runs a variant; gives all its outputs.
    fn run(
        &mut self,
        index: usize,
        given: &[(&str, Given<'_>)],
        in_place: bool,
        to_host: impl Fn(&str) -> bool,
    ) -> Result<Vec<(String, DynValue)>, RuntimeError> {
        let (device, caches) = (self.device.clone(), &mut self.caches);
        let variant = match index.checked_sub(1).and_then(|index| self.others.get_mut(index)) {
            Some(variant) => variant,
            None => &mut self.first,
        };
        let model = variant.session.model().to_path_buf();
        check_filled(variant, caches)?;
        let mut values = Vec::with_capacity(given.len());
        for (name, given) in given {
            if let Given::Host(tensor) = given {
                values.push((*name, tensor.owned_value(name)?));
            }
        }
        let Variant {
            session, takes, gives, ..
        } = variant;
        let run = || -> Result<Vec<(String, DynValue)>, ort::Error> {
            let on_device = MemoryInfo::new(
                device,
                session.memory_index(),
                AllocatorType::Device,
                MemoryType::Default,
            )?;
            let on_host = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default)?;
            let mut binding = session.inner.create_binding()?;
            for (name, value) in &values {
                binding.bind_input(*name, value)?;
            }
            for (name, given) in given {
                if let Given::Device(tensor) = given {
                    binding.bind_input(*name, tensor.value())?;
                }
            }
            let ports = session.outputs().iter();
            for port in ports.filter(|port| !caches.iter().any(|cache| cache.output == port.name)) {
                let place = if to_host(&port.name) { &on_host } else { &on_device };
                binding.bind_output_to_device(port.name.as_str(), place)?;
            }
            for ((cache, takes), gives) in caches.iter_mut().zip(takes.iter()).zip(gives.iter()) {
                if *takes {
                    binding.bind_input(cache.input.as_str(), &cache.value)?;
                }
                if *gives && !takes && cache.filled && in_place {
                    binding.bind_output(cache.output.as_str(), &mut cache.value)?;
                } else if *gives {
                    binding.bind_output_to_device(cache.output.as_str(), &on_device)?;
                }
            }
            let outputs = session.inner.run_binding(&binding)?;
            Ok(outputs
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect())
        };
        run().map_err(|error| RuntimeError::run(&model, error.to_string()))
    }

    /// Runs a variant at fixed addresses; gives the model's own outputs.
    fn step_fixed(
        &mut self,
        index: usize,
        given: &[(&str, Given<'_>)],
        shapes: Vec<(String, Vec<usize>)>,
        to_host: impl Fn(&str) -> bool,
    ) -> Result<Vec<(String, DynValue)>, RuntimeError> {
        let others = &mut self.others;
        let variant = match index.checked_sub(1).and_then(|index| others.get_mut(index)) {
            Some(variant) => variant,
            None => &mut self.first,
        };
        let Some(fixed) = &mut self.fixed else {
            return Ok(Vec::new());
        };
        if self.shapes != shapes {
            fixed.clear();
            self.caches.iter_mut().for_each(|cache| cache.filled = false);
        }
        check_filled(variant, &self.caches)?;
        let uses = self.caches.iter().zip(&variant.takes).zip(&variant.gives);
        let uses = uses.map(|((cache, takes), gives)| CacheUse {
            input: &cache.input,
            output: &cache.output,
            takes: *takes,
            gives: *gives,
            filled: cache.filled,
            placeholder: &cache.value,
        });
        let uses: Vec<CacheUse<'_>> = uses.collect();
        let device = self.device.clone();
        match fixed.step((index, &mut variant.session), &uses, given, to_host, device) {
            Ok(outputs) => {
                self.shapes = shapes;
                let on_host = self.device == AllocationDevice::CPU;
                for (place, (cache, gives)) in self.caches.iter_mut().zip(&variant.gives).enumerate() {
                    cache.filled |= gives;
                    let there = fixed
                        .cache(place)
                        .filter(|tensor| *gives && !on_host && tensor.lies_on_host());
                    self.copied += there.map_or(0, |tensor| tensor.bytes() as u64);
                }
                Ok(outputs)
            }
            Err(error) => {
                // What was being written is neither the old cache nor the new one.
                self.caches.iter_mut().for_each(|cache| cache.filled = false);
                self.shapes.clear();
                Err(error)
            }
        }
    }

    /// Keeps the caches among these outputs, and gives the others.
    fn take(&mut self, outputs: Vec<(String, DynValue)>) -> Vec<(String, DynValue)> {
        let mut own = Vec::new();
        let on_host = self.device == AllocationDevice::CPU;
        for (name, value) in outputs {
            match self.caches.iter_mut().find(|cache| cache.output == name) {
                Some(cache) => {
                    if !on_host && lies_on_host(&value) {
                        self.copied += bytes_of(&value).unwrap_or(0) as u64;
                    }
                    cache.value = value;
                    cache.filled = true;
                }
                None => own.push((name, value)),
            }
        }
        own
    }
}

/// Refuses a step that reads what no step has filled.
fn check_filled(variant: &Variant, caches: &[Cache]) -> Result<(), RuntimeError> {
    for ((cache, takes), gives) in caches.iter().zip(&variant.takes).zip(&variant.gives) {
        // What a step reads and makes anew may begin as zeros.
        if *takes && !gives && !cache.filled {
            let reason = format!(
                "cache `{}` is read before a step has filled it; run the steps in the order of the schedule",
                cache.input
            );
            return Err(inputs(variant.session.model(), reason));
        }
    }
    Ok(())
}

fn bytes_of(value: &DynValue) -> Option<usize> {
    let elements: i64 = value.dtype().tensor_shape()?.iter().product();
    let element_type = ElementType::from_runtime(value.dtype().tensor_type()?)?;
    Some(usize::try_from(elements).ok()? * element_type.bytes())
}

/// Whether a tensor lies where the host can read it.
fn lies_on_host(value: &DynValue) -> bool {
    let element_type = value.dtype().tensor_type();
    let element_type = element_type.and_then(ElementType::from_runtime);
    element_type.is_some_and(|element_type| host_place(value, element_type).is_some())
}

/// Zeros that stand in for a cache; ONNX Runtime checks the sizes that the model fixes, and open ones may be 1.
fn placeholder(port: &Port) -> Result<DynValue, RuntimeError> {
    let size = |size: &Option<i64>| size.and_then(|size| usize::try_from(size).ok()).unwrap_or(1);
    let shape: Vec<usize> = port.shape.iter().map(size).collect();
    let element_type = port.element_type.unwrap_or(ElementType::Float32);
    Tensor::zeros(element_type, &shape).owned_value(&port.name)
}

fn inputs(model: &Path, reason: String) -> RuntimeError {
    RuntimeError::Inputs {
        model: model.to_path_buf(),
        reason,
    }
}
