//! Runs a model step by step and hands the caches of a patched model from each step to the next.

use std::{borrow::Cow, path::Path};

use ort::{
    memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType},
    session::SessionInputValue,
    value::{DynTensor, DynValue, TensorElementType},
};
use serde::{Deserialize, Serialize};

use super::{
    element::ElementType,
    error::RuntimeError,
    session::{Port, Provider, Session},
    tensor::Tensor,
};

/// How a patched model is to be driven: its flags and its caches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feedback {
    /// The names of the flag inputs (`bool` scalars), one for each rule: `true` broadcasts, `false` computes.
    pub flags: Vec<String>,
    /// The caches, one for each site.
    pub caches: Vec<CachePort>,
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
    /// The sizes of its dimensions; `None` for those that depend on the inputs.
    pub shape: Vec<Option<i64>>,
}

/// A model that denoises a clip step by step.
#[derive(Debug)]
pub struct Denoiser {
    session: Session,
    feedback: Feedback,
    /// For each cache what the last step gave, or a placeholder.
    caches: Vec<Slot>,
    /// The shapes of the inputs of the last step that went well: for these the caches have the right memory.
    shapes: Vec<(String, Vec<usize>)>,
    /// Where caches live and steps are bound to; `None` runs a model without caches, on the host's memory.
    device: Option<AllocationDevice<'static>>,
}

#[derive(Debug)]
struct Slot {
    value: DynValue,
    filled: bool,
}

impl Denoiser {
    /// A model that is run as it is: every input is given in each step.
    #[must_use]
    pub fn plain(session: Session) -> Self {
        Self {
            session,
            feedback: Feedback::default(),
            caches: Vec::new(),
            shapes: Vec::new(),
            device: None,
        }
    }

    /// A patched model; the caches are empty.
    ///
    /// # Errors
    /// [`RuntimeError::Mismatch`] when the model lacks a flag or cache of the description,
    /// [`RuntimeError::Inputs`] when one of them has another type or rank.
    pub fn patched(session: Session, feedback: Feedback) -> Result<Self, RuntimeError> {
        let device = match session.provider() {
            Provider::Cuda => AllocationDevice::CUDA,
            Provider::Cpu | Provider::Auto => AllocationDevice::CPU,
        };
        for flag in &feedback.flags {
            let port = find(&session, "input", session.inputs(), flag)?;
            if port.element_type != Some(ElementType::Bool) {
                return Err(inputs(
                    &session,
                    format!("flag `{flag}` is {} instead of a bool scalar", port.description),
                ));
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
        let caches = feedback.caches.iter().map(placeholder).collect::<Result<_, _>>()?;
        Ok(Self {
            session,
            feedback,
            caches,
            shapes: Vec::new(),
            device: Some(device),
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
    pub fn reset(&mut self) {
        for slot in &mut self.caches {
            slot.filled = false;
        }
    }

    /// Copies of the filled caches by the name of their input, on the host.
    ///
    /// # Errors
    /// [`RuntimeError::Value`] for a cache that cannot be read.
    pub fn caches(&self) -> Result<Vec<(String, Tensor)>, RuntimeError> {
        let filled = self
            .feedback
            .caches
            .iter()
            .zip(&self.caches)
            .filter(|(_, slot)| slot.filled);
        filled
            .map(|(port, slot)| Ok((port.input.clone(), Tensor::from_value(&port.input, &slot.value)?)))
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
        self.check_flags(flags)?;
        self.check_inputs(inputs)?;
        let flags: Vec<(String, Tensor)> = self
            .feedback
            .flags
            .iter()
            .cloned()
            .zip(flags.iter().map(|flag| Tensor::scalar(*flag)))
            .collect();
        let mut given = inputs.to_vec();
        given.extend(flags.iter().map(|(name, tensor)| (name.as_str(), tensor)));
        let outputs = match self.device.clone() {
            None => self.run_plain(&given)?,
            Some(device) => self.run_bound(&given, device)?,
        };
        let mut results = Vec::new();
        for (name, value) in outputs {
            match self.feedback.caches.iter().position(|cache| cache.output == name) {
                Some(position) => {
                    if let Some(slot) = self.caches.get_mut(position) {
                        *slot = Slot { value, filled: true };
                    }
                }
                None => {
                    let tensor = Tensor::from_value(&name, &value)?;
                    results.push((name, tensor));
                }
            }
        }
        Ok(results)
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

    /// A step with bound caches; the model's own outputs come to the host.
    ///
    /// A cache comes out where it went in. That is safe, because the branch that computes it does not read it, and it
    /// saves the broadcast step its copy: ONNX Runtime's `Identity` copies nothing onto itself. The binding is made anew
    /// for each step, which takes microseconds; one that is used again would write own outputs into those of its last run.
    fn run_bound(
        &mut self,
        given: &[(&str, &Tensor)],
        device: AllocationDevice<'static>,
    ) -> Result<Vec<(String, DynValue)>, RuntimeError> {
        let shapes: Vec<_> = given
            .iter()
            .map(|(name, tensor)| ((*name).to_owned(), tensor.shape().to_vec()))
            .collect();
        let in_place = self.shapes == shapes;
        let mut values = Vec::with_capacity(given.len());
        for (name, tensor) in given {
            values.push((*name, tensor.owned_value(name)?));
        }
        let model = self.session.model().to_path_buf();
        let run = || -> Result<Vec<(String, DynValue)>, ort::Error> {
            let on_device = MemoryInfo::new(device, 0, AllocatorType::Device, MemoryType::Default)?;
            let on_host = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default)?;
            let mut binding = self.session.inner.create_binding()?;
            for (name, value) in &values {
                binding.bind_input(*name, value)?;
            }
            for port in self.session.outputs() {
                binding.bind_output_to_device(port.name.as_str(), &on_host)?;
            }
            for (port, slot) in self.feedback.caches.iter().zip(&mut self.caches) {
                binding.bind_input(port.input.as_str(), &slot.value)?;
                if in_place {
                    binding.bind_output(port.output.as_str(), &mut slot.value)?;
                } else {
                    binding.bind_output_to_device(port.output.as_str(), &on_device)?;
                }
            }
            let outputs = self.session.inner.run_binding(&binding)?;
            Ok(owned(outputs.into_iter()))
        };
        let outputs = run().map_err(failed(&model));
        match &outputs {
            Ok(_) => self.shapes = shapes,
            // What was being written is neither the old cache nor the new one.
            Err(_) if in_place => self.reset(),
            Err(_) => {}
        }
        outputs
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
        for (cache, slot) in self.feedback.caches.iter().zip(&self.caches) {
            if !slot.filled && flags.get(cache.rule) == Some(&true) {
                return Err(RuntimeError::CacheEmpty {
                    model: self.session.model().to_path_buf(),
                    flag: self.feedback.flags.get(cache.rule).cloned().unwrap_or_default(),
                    cache: cache.input.clone(),
                });
            }
        }
        Ok(())
    }

    fn check_inputs(&self, given: &[(&str, &Tensor)]) -> Result<(), RuntimeError> {
        let fail = |reason: String| Err(inputs(&self.session, reason));
        let own = |name: &str| {
            !self.feedback.flags.iter().any(|flag| flag == name)
                && !self.feedback.caches.iter().any(|cache| cache.input == name)
        };
        let expected: Vec<&Port> = self.session.inputs().iter().filter(|port| own(&port.name)).collect();
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
    |error| RuntimeError::Run {
        model: model.to_owned(),
        reason: error.to_string(),
    }
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

/// What stands in for a cache that no step has filled. Its contents are never read; ONNX Runtime checks type, rank
/// and the sizes that the model fixes, so sizes that depend on the inputs may be 1.
fn placeholder(cache: &CachePort) -> Result<Slot, RuntimeError> {
    super::load::environment()?;
    let shape: Vec<i64> = cache.shape.iter().map(|size| size.unwrap_or(1)).collect();
    let value = DynTensor::new(
        &Allocator::default(),
        TensorElementType::from(cache.element_type),
        shape,
    )
    .map_err(|error| RuntimeError::Value {
        name: cache.input.clone(),
        reason: error.to_string(),
    })?;
    Ok(Slot {
        value: value.into_dyn(),
        filled: false,
    })
}

fn owned<'a>(outputs: impl Iterator<Item = (&'a str, DynValue)>) -> Vec<(String, DynValue)> {
    outputs.map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests;
