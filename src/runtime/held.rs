//! What is held between two steps: caches, and the small states of rules that forecast or are adaptive.

use std::collections::{BTreeMap, HashMap};

use half::{bf16, f16};
use ort::{
    memory::{Allocator, MemoryInfo},
    session::IoBinding,
    value::{DynTensor, DynValue, TensorElementType},
};

use super::{
    element::ElementType,
    error::RuntimeError,
    extent::Extent,
    lifetime::Lifetimes,
    step::{CachePort, Feedback},
    tensor::Tensor,
};
use crate::schedule::Schedule;

/// Numbers in a state.
pub(super) const STATE: usize = 3;

/// The caches and states of a model, and how long they are kept.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// One a cache.
    slots: Vec<Slot>,
    /// What stands in for caches that are not held, one for each type and shape.
    placeholders: Vec<DynValue>,
    /// The open sizes that they were made for.
    sizes: Option<BTreeMap<String, i64>>,
    /// One a state.
    states: Vec<DynValue>,
    /// The run whose schedule is known.
    run: Option<Run>,
    /// Bytes of caches that were copied in the host's memory: see [`Held::copied`].
    copied: u64,
    /// The shapes of the inputs of the last step that went well: for these the caches have the right memory.
    shapes: Vec<(String, Vec<usize>)>,
    /// What the last step broadcast.
    broadcast: Vec<bool>,
}

#[derive(Debug, Default)]
struct Slot {
    /// What the last step gave, while it is held.
    value: Option<DynValue>,
    /// What of it was computed since the caches were forgotten.
    filled: Filled,
    /// What stands in for it.
    placeholder: usize,
}

/// What of a cache was computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Filled {
    #[default]
    Nothing,
    /// The second half of the batch, at a step that left the first out.
    SecondHalf,
    All,
}

impl Filled {
    /// What is there behind a step with these flags.
    fn behind(self, cache: &CachePort, flags: &[bool]) -> Filled {
        match self {
            filled if is_set(flags, cache.rule) => filled,
            Filled::Nothing | Filled::SecondHalf if is_halved(cache, flags) => Filled::SecondHalf,
            _ => Filled::All,
        }
    }

    /// Whether a step with these flags can broadcast it.
    fn suffices(self, cache: &CachePort, flags: &[bool]) -> bool {
        match self {
            Filled::Nothing => false,
            Filled::SecondHalf => is_halved(cache, flags),
            Filled::All => true,
        }
    }
}

fn is_set(flags: &[bool], rule: usize) -> bool {
    flags.get(rule) == Some(&true)
}

/// Whether a step with these flags runs for one half of what the cache holds.
fn is_halved(cache: &CachePort, flags: &[bool]) -> bool {
    cache.halved_by.is_some_and(|guidance| is_set(flags, guidance))
}

#[derive(Debug)]
struct Run {
    schedule: Schedule,
    lifetimes: Lifetimes,
    /// The step that comes next.
    step: usize,
}

/// A step that is about to be run.
pub(super) struct Coming<'s> {
    /// One flag for each rule: true broadcasts.
    pub flags: &'s [bool],
    /// Names and shapes of the model's inputs.
    pub shapes: Vec<(String, Vec<usize>)>,
    /// The sizes of open dimensions by name.
    pub sizes: BTreeMap<String, i64>,
    /// Whether the model runs on the host, whose memory is then the device's.
    pub on_host: bool,
}

impl Held {
    /// Nothing is held yet.
    pub fn new(feedback: &Feedback) -> Result<Held, RuntimeError> {
        let mut held = Held {
            slots: feedback.caches.iter().map(|_| Slot::default()).collect(),
            ..Held::default()
        };
        held.zero_states(feedback)?;
        Ok(held)
    }

    /// Makes what stands in for caches that are not held, before a step.
    ///
    /// Where a cache is written in its place, its contents are never read while it is not held, and ONNX Runtime checks
    /// type, rank and fixed sizes alone: open sizes are 1. A step that computes differences, or one half of the batch, does
    /// read it, and though nothing comes of that, the sizes have to be those of the step.
    pub fn make_placeholders(&mut self, feedback: &Feedback, coming: &Coming<'_>) -> Result<(), RuntimeError> {
        let read = feedback.caches.iter().any(|cache| !cache.in_place);
        match &self.sizes {
            Some(sizes) if !read || *sizes == coming.sizes => return Ok(()),
            _ => {}
        }
        self.placeholders.clear();
        let mut known = HashMap::new();
        for (cache, slot) in feedback.caches.iter().zip(&mut self.slots) {
            let sizes = cache.shape.iter().map(|extent| match extent {
                Extent::Number(number) => *number,
                Extent::Formula(_) if cache.in_place => 1,
                Extent::Formula(_) => extent.evaluate(&coming.sizes).unwrap_or(1),
            });
            let shape: Vec<i64> = sizes.collect();
            let key = (cache.element_type, shape.clone());
            slot.placeholder = match known.get(&key) {
                Some(place) => *place,
                None => {
                    self.placeholders.push(placeholder(cache, shape)?);
                    known.insert(key, self.placeholders.len() - 1);
                    self.placeholders.len() - 1
                }
            };
        }
        self.sizes = Some(coming.sizes.clone());
        Ok(())
    }

    /// Forgets the caches. The memory of those that are written where they stand is kept.
    pub fn forget(&mut self, feedback: &Feedback) -> Result<(), RuntimeError> {
        self.run = None;
        for (slot, cache) in self.slots.iter_mut().zip(&feedback.caches) {
            slot.filled = Filled::Nothing;
            if !cache.in_place {
                // A step that computes it reads it, and may have other sizes.
                slot.value = None;
            }
        }
        self.zero_states(feedback)
    }

    /// Forgets the caches and gives their memory up; from now on each is held only while a step of `schedule` needs it.
    pub fn begin(&mut self, feedback: &Feedback, schedule: &Schedule) -> Result<(), RuntimeError> {
        self.forget(feedback)?;
        for slot in &mut self.slots {
            slot.value = None;
        }
        self.run = Some(Run {
            lifetimes: Lifetimes::new(schedule, &feedback.caches),
            schedule: schedule.clone(),
            step: 0,
        });
        Ok(())
    }

    /// The first cache that a step with these flags reads and that is not there.
    pub fn missing<'f>(&self, feedback: &'f Feedback, flags: &[bool]) -> Option<&'f CachePort> {
        let mut caches = feedback.caches.iter().zip(&self.slots);
        let missing = caches.find(|(cache, slot)| is_set(flags, cache.rule) && !slot.filled.suffices(cache, flags));
        missing.map(|(cache, _)| cache)
    }

    /// Bytes of the caches that are held now. Placeholders are not counted, nor are the states, of some bytes each.
    pub fn bytes(&self, feedback: &Feedback) -> usize {
        let held = feedback.caches.iter().zip(&self.slots);
        held.filter_map(|(cache, slot)| bytes_of(slot.value.as_ref()?, cache))
            .sum()
    }

    /// Bytes of caches that steps copied in the host's memory, in all: what a broadcast step put out elsewhere than where it
    /// stood, and what a step on another device gave into the host's memory. It is told from where the values lie.
    pub fn copied(&self) -> u64 {
        self.copied
    }

    /// What the last step broadcast, a flag for each rule.
    pub fn broadcast(&self) -> &[bool] {
        &self.broadcast
    }

    /// The filled caches and the states, by the names of their inputs.
    pub fn filled<'h>(&'h self, feedback: &'h Feedback) -> impl Iterator<Item = (&'h str, &'h DynValue)> + 'h {
        let caches = feedback.caches.iter().zip(&self.slots);
        let caches = caches.filter_map(|(cache, slot)| {
            let value = slot.value.as_ref().filter(|_| slot.filled != Filled::Nothing)?;
            Some((cache.input.as_str(), value))
        });
        let states = feedback.states.iter().map(|state| state.input.as_str());
        caches.chain(states.zip(&self.states))
    }

    /// Binds caches and states of a step, whose own inputs and outputs are bound elsewhere.
    ///
    /// A cache comes out where it went in, where the branch that runs does not read it or only passes it on: that saves a
    /// broadcast step its copy, since ONNX Runtime's `Identity` copies nothing onto itself. What nobody needs behind the
    /// step is not fetched.
    pub fn bind(
        &mut self,
        binding: &mut IoBinding,
        feedback: &Feedback,
        coming: &Coming<'_>,
        on_device: &MemoryInfo,
        on_host: &MemoryInfo,
    ) -> Result<(), ort::Error> {
        let fits = self.shapes == coming.shapes;
        for (place, (cache, slot)) in feedback.caches.iter().zip(&mut self.slots).enumerate() {
            // A step that the model decides itself may compute, and then reads what is not written in its place.
            let broadcasts = is_set(coming.flags, cache.rule) && (cache.in_place || !cache.adaptive);
            // Beside guidance only a step that computes one half reads what it writes.
            let unread = cache.in_place || cache.halved_by.is_some() && !is_halved(cache, coming.flags);
            let kept = keeps(self.run.as_ref(), place);
            if let Some(value) = slot.value.as_ref().or(self.placeholders.get(slot.placeholder)) {
                binding.bind_input(cache.input.as_str(), value)?;
            }
            let in_place = slot.value.as_mut().filter(|_| fits && (broadcasts || unread && kept));
            match in_place {
                Some(value) => binding.bind_output(cache.output.as_str(), value)?,
                None if kept => binding.bind_output_to_device(cache.output.as_str(), on_device)?,
                None => {}
            }
        }
        for (port, state) in feedback.states.iter().zip(&self.states) {
            binding.bind_input(port.input.as_str(), state)?;
            // What was decided is read on the host.
            let place = if port.decides.is_some() { on_host } else { on_device };
            binding.bind_output_to_device(port.output.as_str(), place)?;
        }
        Ok(())
    }

    /// Takes what a step gave: caches and states stay, the model's own outputs are given back.
    pub fn take(
        &mut self,
        feedback: &Feedback,
        outputs: Vec<(String, DynValue)>,
        coming: Coming<'_>,
    ) -> Vec<(String, DynValue)> {
        let flags = decided(feedback, &outputs, coming.flags);
        let mut own = Vec::new();
        for (name, value) in outputs {
            let cache = feedback.caches.iter().zip(&mut self.slots);
            if let Some((cache, slot)) = cache.into_iter().find(|(cache, _)| cache.output == name) {
                // What a rule decides by is new in every step.
                let broadcast = is_set(&flags, cache.rule) && (cache.in_place || !cache.adaptive);
                let stood = slot.value.as_ref().filter(|_| broadcast);
                self.copied += copied(stood, &value, cache, coming.on_host);
                slot.value = Some(value);
                slot.filled = slot.filled.behind(cache, &flags);
            } else if let Some(place) = feedback.states.iter().position(|state| state.output == name) {
                if let Some(state) = self.states.get_mut(place) {
                    *state = value;
                }
            } else {
                own.push((name, value));
            }
        }
        for (place, slot) in self.slots.iter_mut().enumerate() {
            if !keeps(self.run.as_ref(), place) {
                slot.value = None;
                slot.filled = Filled::Nothing;
            }
        }
        self.shapes = coming.shapes;
        self.broadcast = flags;
        if let Some(run) = &mut self.run {
            run.step += 1;
        }
        own
    }

    /// A step failed: what was being written is neither the old cache nor the new one.
    pub fn failed(&mut self, feedback: &Feedback, coming: &Coming<'_>) -> Result<(), RuntimeError> {
        if self.shapes == coming.shapes {
            self.forget(feedback)?;
        }
        Ok(())
    }

    /// Holds everything from now on where a step does not go by the schedule that was given.
    pub fn compare(&mut self, flags: &[bool]) {
        self.run.take_if(|run| run.schedule.flags(run.step) != flags);
    }

    fn zero_states(&mut self, feedback: &Feedback) -> Result<(), RuntimeError> {
        let zeros = Tensor::zeros(ElementType::Float32, &[STATE]);
        let states = feedback.states.iter().map(|state| zeros.owned_value(&state.input));
        self.states = states.collect::<Result<_, _>>()?;
        Ok(())
    }

    /// Where the caches lie in memory.
    #[cfg(test)]
    pub fn places(&self) -> Vec<Option<usize>> {
        let place = |slot: &Slot| {
            let value = slot.value.as_ref()?;
            Some(value.try_extract_tensor::<f32>().unwrap().1.as_ptr() as usize)
        };
        self.slots.iter().map(place).collect()
    }
}

/// The flags of a step as the model decided: those of adaptive rules stand in their states.
fn decided(feedback: &Feedback, outputs: &[(String, DynValue)], flags: &[bool]) -> Vec<bool> {
    let mut decided = flags.to_vec();
    for state in &feedback.states {
        let value = outputs.iter().find(|(name, _)| *name == state.output);
        let numbers = value.and_then(|(_, value)| value.try_extract_tensor::<f32>().ok());
        if let Some(flag) = state.decides.and_then(|rule| decided.get_mut(rule))
            && let Some((_, [.., last])) = numbers
        {
            *flag = *last > 0.5;
        }
    }
    decided
}

/// Bytes of a cache that a step copied in the host's memory. `stood` is what it only passed on, where it did.
fn copied(stood: Option<&DynValue>, given: &DynValue, cache: &CachePort, on_host: bool) -> u64 {
    let place = host_place(given, cache.element_type);
    // What was computed lies anywhere; what was passed on lies where it stood, unless it was copied.
    let moved = stood.is_some_and(|stood| host_place(stood, cache.element_type) != place);
    match place.is_some() && (moved || !on_host) {
        true => bytes_of(given, cache).unwrap_or(0) as u64,
        false => 0,
    }
}

/// Where a tensor lies in the host's memory, if it lies there.
pub(super) fn host_place(value: &DynValue, element_type: ElementType) -> Option<usize> {
    macro_rules! place {
        ($rust:ty) => {
            value
                .try_extract_tensor::<$rust>()
                .map(|(_, elements)| elements.as_ptr() as usize)
        };
    }
    let place = match element_type {
        ElementType::Float32 => place!(f32),
        ElementType::Float16 => place!(f16),
        ElementType::Bfloat16 => place!(bf16),
        ElementType::Float64 => place!(f64),
        ElementType::Int32 => place!(i32),
        ElementType::Int64 => place!(i64),
        ElementType::Bool => place!(bool),
    };
    place.ok()
}

fn bytes_of(value: &DynValue, cache: &CachePort) -> Option<usize> {
    let elements: i64 = value.dtype().tensor_shape()?.iter().product();
    Some(usize::try_from(elements).ok()? * cache.element_type.bytes())
}

/// Whether cache number `place` is held behind the coming step; always, where no schedule is known.
fn keeps(run: Option<&Run>, place: usize) -> bool {
    run.is_none_or(|run| run.lifetimes.keeps(run.step, place))
}

/// What stands in for a cache that is not held. Its contents decide nothing.
fn placeholder(cache: &CachePort, shape: Vec<i64>) -> Result<DynValue, RuntimeError> {
    super::load::environment()?;
    let value = DynTensor::new(
        &Allocator::default(),
        TensorElementType::from(cache.element_type),
        shape,
    );
    value.map(DynTensor::into_dyn).map_err(|error| RuntimeError::Value {
        name: cache.input.clone(),
        reason: error.to_string(),
    })
}
