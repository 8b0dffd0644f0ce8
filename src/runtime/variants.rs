//! Runs the static graphs of a schedule in turn, and hands caches from each step to the steps that read them.

use std::path::Path;

use ort::{
    memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType},
    value::DynValue,
};

use super::{
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

    /// Bytes of the filled caches and states.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let filled = self.caches.iter().filter(|cache| cache.filled);
        filled.filter_map(|cache| bytes_of(&cache.value)).sum()
    }

    /// Bytes of caches that steps copied in the host's memory since the models were opened, told from where the values
    /// lie that ONNX Runtime gave: 0 where each stays on the device. On the processor caches are never copied, since what a
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
        self.shapes.clear();
        Ok(())
    }

    /// Runs one step: `inputs` are the model's own inputs by name, `flags` one for each rule (`true` broadcasts).
    /// Returns the model's own outputs; the caches stay here.
    ///
    /// # Errors
    /// [`RuntimeError::Inputs`] for flags that no variant is for, and where a cache is read that no step has filled;
    /// [`RuntimeError::Run`] when ONNX Runtime fails, also for inputs that do not fit. The caches are then empty.
    pub fn step(&mut self, given: &[(&str, &Tensor)], flags: &[bool]) -> Result<Vec<(String, Tensor)>, RuntimeError> {
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
        let in_place = self.shapes == shapes;
        let outputs = self.run(index, given, in_place);
        match outputs {
            Ok(outputs) => {
                self.shapes = shapes;
                self.take(outputs)
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
        given: &[(&str, &Tensor)],
        in_place: bool,
    ) -> Result<Vec<(String, DynValue)>, RuntimeError> {
        let (device, caches) = (self.device.clone(), &mut self.caches);
        let variant = match index.checked_sub(1).and_then(|index| self.others.get_mut(index)) {
            Some(variant) => variant,
            None => &mut self.first,
        };
        let model = variant.session.model().to_path_buf();
        for ((cache, takes), gives) in caches.iter().zip(&variant.takes).zip(&variant.gives) {
            // What a step reads and makes anew may begin as zeros.
            if *takes && !gives && !cache.filled {
                let reason = format!(
                    "cache `{}` is read before a step has filled it; run the steps in the order of the schedule",
                    cache.input
                );
                return Err(inputs(&model, reason));
            }
        }
        let mut values = Vec::with_capacity(given.len());
        for (name, tensor) in given {
            values.push((*name, tensor.owned_value(name)?));
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
            let ports = session.outputs().iter();
            for port in ports.filter(|port| !caches.iter().any(|cache| cache.output == port.name)) {
                binding.bind_output_to_device(port.name.as_str(), &on_host)?;
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

    /// Keeps the caches among these outputs, and gives the others.
    fn take(&mut self, outputs: Vec<(String, DynValue)>) -> Result<Vec<(String, Tensor)>, RuntimeError> {
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
                None => {
                    let tensor = Tensor::from_value(&name, &value)?;
                    own.push((name, tensor));
                }
            }
        }
        Ok(own)
    }
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
