//! The two forms in which a model is run: one graph, or one for each set of rules that a run broadcasts together.

use super::GenerationError;
use crate::runtime::{Denoiser, DeviceTensor, Given, Session, Tensor, VariantDenoiser};
use crate::schedule::Schedule;

/// An open model.
#[derive(Debug)]
pub enum Form {
    /// One graph: plain, or with switches.
    Switch(Box<Denoiser>),
    /// Static graphs.
    Variants(Box<VariantDenoiser>),
}

impl Form {
    /// The session; of several that of the first step.
    pub fn session(&self) -> &Session {
        match self {
            Form::Switch(denoiser) => denoiser.session(),
            Form::Variants(denoiser) => denoiser.session(),
        }
    }

    /// Forgets the caches: another clip begins.
    pub fn begin(&mut self, schedule: &Schedule) -> Result<(), GenerationError> {
        match self {
            Form::Switch(denoiser) => denoiser.begin(schedule)?,
            Form::Variants(denoiser) => denoiser.reset()?,
        }
        Ok(())
    }

    /// Forgets the caches, and holds all of them from now on.
    pub fn forget(&mut self) -> Result<(), GenerationError> {
        match self {
            Form::Switch(denoiser) => denoiser.reset()?,
            Form::Variants(denoiser) => denoiser.reset()?,
        }
        Ok(())
    }

    /// Copies of the caches by the names of their inputs; of variants, which keep what a later step reads, none.
    pub fn caches(&self) -> Result<Vec<(String, Tensor)>, GenerationError> {
        Ok(match self {
            Form::Switch(denoiser) => denoiser.caches()?,
            Form::Variants(_) => Vec::new(),
        })
    }

    /// Bytes of the caches that are held.
    pub fn held_bytes(&self) -> usize {
        match self {
            Form::Switch(denoiser) => denoiser.held_bytes(),
            Form::Variants(denoiser) => denoiser.held_bytes(),
        }
    }

    /// Bytes that the arenas of the sessions have taken of the device's memory.
    pub fn arena_bytes(&self) -> Option<u64> {
        match self {
            Form::Switch(denoiser) => denoiser.session().arena_bytes(),
            Form::Variants(denoiser) => denoiser.arena_bytes(),
        }
    }

    /// Bytes of caches that were copied in the host's memory.
    pub fn host_copies(&self) -> u64 {
        match self {
            Form::Switch(denoiser) => denoiser.host_copies(),
            Form::Variants(denoiser) => denoiser.host_copies(),
        }
    }

    /// What the last step broadcast, where the model may decide that itself.
    pub fn broadcast(&self) -> Option<&[bool]> {
        match self {
            Form::Switch(denoiser) => Some(denoiser.broadcast()),
            Form::Variants(_) => None,
        }
    }

    /// One step; gives the model's own outputs.
    pub fn step(
        &mut self,
        inputs: &[(&str, &Tensor)],
        flags: &[bool],
    ) -> Result<Vec<(String, Tensor)>, GenerationError> {
        Ok(match self {
            Form::Switch(denoiser) => denoiser.step(inputs, flags)?,
            Form::Variants(denoiser) => denoiser.step(inputs, flags)?,
        })
    }

    /// One step with inputs that may lie on the device; gives the model's own outputs, which stay there.
    pub fn step_held(
        &mut self,
        inputs: &[(&str, Given<'_>)],
        flags: &[bool],
    ) -> Result<Vec<(String, DeviceTensor)>, GenerationError> {
        Ok(match self {
            Form::Switch(denoiser) => denoiser.step_held(inputs, flags, &[])?,
            Form::Variants(denoiser) => denoiser.step_held(inputs, flags, &[])?,
        })
    }
}
