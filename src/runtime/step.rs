//! Runs a model step by step and hands the caches of a patched model from each step to the next.

use std::{borrow::Cow, collections::BTreeMap, path::Path};

use ort::{
    memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType},
    session::SessionInputValue,
    value::DynValue,
};
use serde::{Deserialize, Serialize};

use super::{
    device_tensor::{DeviceTensor, Given, on_host, to_tensors, where_they_lie},
    drive::StepTable,
    element::ElementType,
    error::RuntimeError,
    extent::Extent,
    held::{Coming, Held},
    session::{Port, Session},
    tensor::Tensor,
};
use crate::schedule::Schedule;

/// How a patched model is to be driven: its flags and its caches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feedback {
    /// The names of the flag inputs (`bool` scalars), one for each rule: `true` broadcasts, `false` computes.
    pub flags: Vec<String>,
    /// The schedule that the model holds itself; its flags are then no inputs, and the number of the step is fed.
    #[serde(default)]
    pub steps: Option<StepTable>,
    /// The caches, one for each site.
    pub caches: Vec<CachePort>,
    /// The states of rules that forecast, and of adaptive ones.
    #[serde(default)]
    pub states: Vec<StatePort>,
}

impl Feedback {
    /// Whether the model's input `name` is a flag, a cache or a state.
    fn takes(&self, name: &str) -> bool {
        self.driving_inputs().iter().any(|(driving, _)| *driving == name)
            || self.caches.iter().any(|cache| cache.input == name)
            || self.states.iter().any(|state| state.input == name)
    }

    /// Whether the model's output `name` is a cache or a state.
    fn gives(&self, name: &str) -> bool {
        self.caches.iter().any(|cache| cache.output == name) || self.states.iter().any(|state| state.output == name)
    }
}

/// The state of a rule that forecasts, or of one that is adaptive: three float32 numbers, zeros before the first step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatePort {
    /// The name of the input that takes it.
    pub input: String,
    /// The name of the output that gives it for the next step.
    pub output: String,
    /// The index of the adaptive rule that it belongs to: its last number is then 1 behind a step that broadcast.
    #[serde(default)]
    pub decides: Option<usize>,
}

/// A cache: the output of one step that is an input of the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachePort {
    /// The name of the input that takes the cached tensor.
    pub input: String,
    /// The name of the output that gives the tensor to cache.
    pub output: String,
    /// The index of the rule whose flag broadcasts this cache.
    pub rule: usize,
    /// The type of its elements.
    pub element_type: ElementType,
    /// The sizes of its dimensions.
    pub shape: Vec<Extent>,
    /// Which finite difference of the value it holds, 0 for the value itself. A step that computes a difference reads
    /// the caches of lower order of its rule.
    pub difference: usize,
    /// Whether its output may be bound to the memory of its input, because the branch that computes it does not read it.
    pub in_place: bool,
    /// The index of the rule for guidance, where the cache holds both halves of the batch: a step that broadcasts that
    /// rule reads the second half alone, or computes it alone and reads the first.
    #[serde(default)]
    pub halved_by: Option<usize>,
    /// Whether the model itself decides at the steps that the flag allows, so that such a step may compute it.
    #[serde(default)]
    pub adaptive: bool,
}

/// A model that denoises a clip step by step.
#[derive(Debug)]
pub struct Denoiser {
    /// It stands before the session, and goes before it: a device's memory belongs to the session.
    held: Held,
    session: Session,
    feedback: Feedback,
    /// Where caches live and steps are bound to; `None` runs a model without caches, on the host's memory.
    device: Option<AllocationDevice<'static>>,
    /// Bytes of own outputs that came to the host unasked.
    copied: u64,
}

impl Denoiser {
    /// A model that is run as it is: every input is given in each step.
    #[must_use]
    pub fn plain(session: Session) -> Self {
        Self {
            session,
            feedback: Feedback::default(),
            held: Held::default(),
            device: None,
            copied: 0,
        }
    }

    /// A patched model; the caches are empty.
    ///
    /// # Errors
    /// [`RuntimeError::Mismatch`] when the model lacks a flag or cache of the description,
    /// [`RuntimeError::Inputs`] when one of them has another type or rank.
    pub fn patched(session: Session, feedback: Feedback) -> Result<Self, RuntimeError> {
        let device = session.provider().memory();
        for (name, element_type) in feedback.driving_inputs() {
            let port = find(&session, "input", session.inputs(), name)?;
            if port.element_type != Some(element_type) {
                let reason = format!("`{name}` is {} instead of a {element_type} scalar", port.description);
                return Err(inputs(&session, reason));
            }
        }
        for cache in &feedback.caches {
            find(&session, "output", session.outputs(), &cache.output)?;
            let port = find(&session, "input", session.inputs(), &cache.input)?;
            if port.element_type != Some(cache.element_type) || port.shape.len() != cache.shape.len() {
                let reason = format!(
                    "cache `{}` is {} in the model and {} of rank {} in its plan; patch the model again",
                    cache.input,
                    port.description,
                    cache.element_type,
                    cache.shape.len()
                );
                return Err(inputs(&session, reason));
            }
            if cache.rule >= feedback.flags.len() {
                let reason = format!(
                    "cache `{}` belongs to rule {}, and there are {}",
                    cache.input,
                    cache.rule,
                    feedback.flags.len()
                );
                return Err(inputs(&session, reason));
            }
        }
        for state in &feedback.states {
            find(&session, "output", session.outputs(), &state.output)?;
            let port = find(&session, "input", session.inputs(), &state.input)?;
            if port.element_type != Some(ElementType::Float32) {
                let reason = format!("state `{}` is {} instead of float32", state.input, port.description);
                return Err(inputs(&session, reason));
            }
        }
        Ok(Self {
            held: Held::new(&feedback)?,
            session,
            feedback,
            device: Some(device),
            copied: 0,
        })
    }

    /// The session.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The description of flags and caches; empty for a plain model.
    #[must_use]
    pub fn feedback(&self) -> &Feedback {
        &self.feedback
    }

    /// Forgets the caches: the next step begins another clip. Their memory is kept until it is overwritten.
    ///
    /// # Errors
    /// [`RuntimeError::Value`] where the states of forecasts cannot be set to zero.
    pub fn reset(&mut self) -> Result<(), RuntimeError> {
        self.held.forget(&self.feedback)
    }

    /// Forgets the caches and begins a clip with this schedule: the memory of each cache is held only from the step that
    /// computes it for a broadcast to the last broadcast that reads it. In between, its output is not even fetched.
    ///
    /// A step with other flags ends that: from there on, everything is held.
    ///
    /// # Errors
    /// [`RuntimeError::Value`] where the states of forecasts cannot be set to zero.
    pub fn begin(&mut self, schedule: &Schedule) -> Result<(), RuntimeError> {
        self.held.begin(&self.feedback, schedule)
    }

    /// Bytes of the caches that are held now, between two steps. What stands in for caches that are not held is not
    /// counted: one tensor for each type and shape.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held.bytes(&self.feedback)
    }

    /// Bytes of caches that steps copied in the host's memory since the model was opened, and of what [`Self::step_held`]
    /// gave there unasked: 0 where each cache stays on the session's device and is passed on in its place. It is counted
    /// from where the values lie that ONNX Runtime gave, not from what was asked of it.
    #[must_use]
    pub fn host_copies(&self) -> u64 {
        self.held.copied() + self.copied
    }

    /// What the last step really broadcast, a flag for each rule: what the flags said, but for rules that are adaptive.
    #[must_use]
    pub fn broadcast(&self) -> &[bool] {
        self.held.broadcast()
    }

    /// Copies of the filled caches and of the states by the names of their inputs, on the host.
    ///
    /// # Errors
    /// [`RuntimeError::Value`] for a cache that cannot be read.
    pub fn caches(&self) -> Result<Vec<(String, Tensor)>, RuntimeError> {
        let filled = self.held.filled(&self.feedback);
        filled
            .map(|(name, value)| Ok((name.to_owned(), Tensor::from_value(name, value)?)))
            .collect()
    }

    /// Gives the model back, without its caches.
    #[must_use]
    pub fn into_session(self) -> Session {
        self.session
    }

    /// Runs one step: `inputs` are the model's own inputs by name, `flags` one for each rule (`true` broadcasts).
    /// Returns the model's own outputs; the caches stay here.
    ///
    /// # Errors
    /// [`RuntimeError::Inputs`] for inputs that the model does not have or that are missing or of another type,
    /// [`RuntimeError::CacheEmpty`] for a flag whose caches were not computed since the last [`Self::reset`],
    /// [`RuntimeError::Run`] when ONNX Runtime fails; where it was writing into the caches, they are then empty.
    pub fn step(&mut self, inputs: &[(&str, &Tensor)], flags: &[bool]) -> Result<Vec<(String, Tensor)>, RuntimeError> {
        match self.device.clone() {
            None => {
                self.check_flags(flags)?;
                self.check_inputs(&on_host(inputs))?;
                to_tensors(self.run_plain(inputs)?)
            }
            Some(device) => to_tensors(self.run_bound(&on_host(inputs), flags, device, |_| true)?),
        }
    }

    /// The same with inputs that may lie on the session's device already. Own outputs stay there, but for those that
    /// `to_host` names.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn step_held(
        &mut self,
        inputs: &[(&str, Given<'_>)],
        flags: &[bool],
        to_host: &[&str],
    ) -> Result<Vec<(String, DeviceTensor)>, RuntimeError> {
        let device = self.session.provider().memory();
        let device_is_host = device == AllocationDevice::CPU;
        let outputs = self.run_bound(inputs, flags, device, |name| to_host.contains(&name))?;
        let (outputs, copied) = where_they_lie(outputs, to_host, device_is_host)?;
        self.copied += copied;
        Ok(outputs)
    }

    /// A step of a model without caches, on the host.
    fn run_plain(&mut self, given: &[(&str, &Tensor)]) -> Result<Vec<(String, DynValue)>, RuntimeError> {
        let mut values: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = Vec::with_capacity(given.len());
        for (name, tensor) in given {
            values.push((Cow::Borrowed(*name), tensor.value(name)?.into()));
        }
        let model = self.session.model().to_path_buf();
        let outputs = self.session.inner.run(values).map_err(failed(&model))?;
        Ok(owned(outputs.into_iter()))
    }

    /// A step with bound caches; of the model's own outputs come to the host those that are to. The binding is made anew for
    /// each step, which takes microseconds; one that is used again would write own outputs into those of its last run.
    fn run_bound(
        &mut self,
        inputs: &[(&str, Given<'_>)],
        flags: &[bool],
        device: AllocationDevice<'static>,
        to_host: impl Fn(&str) -> bool,
    ) -> Result<Vec<(String, DynValue)>, RuntimeError> {
        self.check_flags(flags)?;
        self.check_inputs(inputs)?;
        let driving = self.feedback.driving_values(&self.session, flags)?;
        self.held.compare(flags);
        let mut given = inputs.to_vec();
        given.extend(
            driving
                .iter()
                .map(|(name, tensor)| (name.as_str(), Given::Host(tensor))),
        );
        let shapes = given.iter();
        let coming = Coming {
            flags,
            shapes: shapes
                .map(|(name, tensor)| ((*name).to_owned(), tensor.shape().to_vec()))
                .collect(),
            sizes: self.open_sizes(&given),
            on_host: device == AllocationDevice::CPU,
        };
        self.held.make_placeholders(&self.feedback, &coming)?;
        let mut values = Vec::with_capacity(given.len());
        for (name, given) in &given {
            if let Given::Host(tensor) = given {
                values.push((*name, tensor.owned_value(name)?));
            }
        }
        let model = self.session.model().to_path_buf();
        let (feedback, held, session) = (&self.feedback, &mut self.held, &mut self.session);
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
            for (name, given) in &given {
                if let Given::Device(tensor) = given {
                    binding.bind_input(*name, tensor.value())?;
                }
            }
            let own = session.outputs().iter().filter(|port| !feedback.gives(&port.name));
            for port in own {
                let place = if to_host(&port.name) { &on_host } else { &on_device };
                binding.bind_output_to_device(port.name.as_str(), place)?;
            }
            held.bind(&mut binding, feedback, &coming, &on_device, &on_host)?;
            let outputs = session.inner.run_binding(&binding)?;
            Ok(owned(outputs.into_iter()))
        };
        match run().map_err(failed(&model)) {
            Ok(outputs) => Ok(self.held.take(&self.feedback, outputs, coming)),
            Err(error) => {
                self.held.failed(&self.feedback, &coming)?;
                Err(error)
            }
        }
    }

    /// The sizes of the model's open dimensions by their names.
    fn open_sizes(&self, given: &[(&str, Given<'_>)]) -> BTreeMap<String, i64> {
        let mut sizes = BTreeMap::new();
        for (name, tensor) in given {
            let port = self.session.inputs().iter().find(|port| port.name == *name);
            let symbols = port.map_or(&[][..], |port| port.symbols.as_slice());
            for (symbol, size) in symbols.iter().zip(tensor.shape()) {
                if let (false, Ok(size)) = (symbol.is_empty(), i64::try_from(*size)) {
                    sizes.insert(symbol.clone(), size);
                }
            }
        }
        sizes
    }

    fn check_flags(&self, flags: &[bool]) -> Result<(), RuntimeError> {
        if flags.len() != self.feedback.flags.len() {
            let reason = format!(
                "{} flags were given, and the model has {} rules",
                flags.len(),
                self.feedback.flags.len()
            );
            return Err(inputs(&self.session, reason));
        }
        match self.held.missing(&self.feedback, flags) {
            None => Ok(()),
            Some(cache) => Err(RuntimeError::CacheEmpty {
                model: self.session.model().to_path_buf(),
                flag: self.feedback.flags.get(cache.rule).cloned().unwrap_or_default(),
                cache: cache.input.clone(),
            }),
        }
    }

    fn check_inputs(&self, given: &[(&str, Given<'_>)]) -> Result<(), RuntimeError> {
        let fail = |reason: String| Err(inputs(&self.session, reason));
        let ports = self.session.inputs().iter();
        let expected: Vec<&Port> = ports.filter(|port| !self.feedback.takes(&port.name)).collect();
        let names = || {
            expected
                .iter()
                .map(|port| format!("`{}`", port.name))
                .collect::<Vec<_>>()
                .join(", ")
        };
        for (position, (name, tensor)) in given.iter().enumerate() {
            let Some(port) = expected.iter().find(|port| port.name == *name) else {
                return fail(format!("there is no input `{name}`; the inputs are {}", names()));
            };
            if given.iter().take(position).any(|(earlier, _)| earlier == name) {
                return fail(format!("input `{name}` is given twice"));
            }
            let fits = port.shape.len() == tensor.shape().len()
                && port
                    .shape
                    .iter()
                    .zip(tensor.shape())
                    .all(|(wanted, size)| wanted.is_none_or(|wanted| u64::try_from(wanted) == Ok(*size as u64)));
            if port.element_type != Some(tensor.element_type()) || !fits {
                return fail(format!(
                    "input `{name}` is {}, and was given as {} of shape {:?}",
                    port.description,
                    tensor.element_type(),
                    tensor.shape()
                ));
            }
        }
        match expected
            .iter()
            .find(|port| !given.iter().any(|(name, _)| *name == port.name))
        {
            Some(port) => fail(format!("input `{}` is missing; the inputs are {}", port.name, names())),
            None => Ok(()),
        }
    }
}

fn failed(model: &Path) -> impl Fn(ort::Error) -> RuntimeError {
    |error| RuntimeError::run(model, error.to_string())
}

fn inputs(session: &Session, reason: String) -> RuntimeError {
    RuntimeError::Inputs {
        model: session.model().to_path_buf(),
        reason,
    }
}

fn find<'a>(session: &Session, role: &'static str, ports: &'a [Port], name: &str) -> Result<&'a Port, RuntimeError> {
    ports
        .iter()
        .find(|port| port.name == name)
        .ok_or_else(|| RuntimeError::Mismatch {
            model: session.model().to_path_buf(),
            role,
            name: name.to_owned(),
        })
}

fn owned<'a>(outputs: impl Iterator<Item = (&'a str, DynValue)>) -> Vec<(String, DynValue)> {
    outputs.map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests;
