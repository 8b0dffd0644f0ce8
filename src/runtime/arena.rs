//! One arena for sessions that run in turn.
//!
//! ONNX Runtime gives each session an arena, which keeps what it once took of the device's memory. Of several sessions of which
//! one runs at a time, each would so keep the activations of a step. An arena that is registered with the environment is
//! taken by all sessions that ask for it when they are opened, and what one gave back at the end of a run the next one takes.
//! They keep it alive: it goes with the last of them once it is registered no longer.

use std::{
    ffi::{CStr, CString},
    ptr::{null, null_mut},
    sync::{Mutex, PoisonError},
};

use ort::{
    AsPointer,
    environment::Environment,
    memory::{Allocator, AllocatorType, MemoryInfo, MemoryType},
};

use super::{load, provider::Provider};

/// Providers whose sessions may take an arena from the environment.
const PROVIDERS: &[Provider] = &[Provider::Cpu, Provider::Cuda];

/// How many hold the registered arena of each device: ONNX Runtime has one for each, for the whole process.
static HOLDERS: Mutex<Vec<(Provider, u32, usize)>> = Mutex::new(Vec::new());

/// A device's arena, registered with ONNX Runtime's environment as long as one of these is there.
#[derive(Debug)]
pub(super) struct Arena {
    provider: Provider,
    device_index: u32,
}

impl Arena {
    /// Registers the arena of a device, unless it is. None where ONNX Runtime refuses: each session then has its own.
    ///
    /// CUDA's library must have been loaded: where it is missing, ONNX Runtime ends the process.
    pub(super) fn on(provider: Provider, device_index: u32) -> Option<Self> {
        if !PROVIDERS.contains(&provider) {
            return None;
        }
        let environment = load::environment().ok()?;
        let mut holders = HOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
        let found = holders
            .iter_mut()
            .find(|(held, index, _)| (*held, *index) == (provider, device_index));
        match found {
            Some((.., count)) => *count += 1,
            None => {
                register(environment, provider, device_index).ok()?;
                holders.push((provider, device_index, 1));
            }
        }
        Some(Self { provider, device_index })
    }

    /// Whether it is this device's.
    pub(super) fn is_of(&self, provider: Provider, device_index: u32) -> bool {
        (self.provider, self.device_index) == (provider, device_index)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let mut holders = HOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
        for (provider, index, count) in holders.iter_mut() {
            if self.is_of(*provider, *index) {
                *count -= 1;
            }
        }
        let last = holders.iter().any(|(.., count)| *count == 0);
        holders.retain(|(.., count)| *count > 0);
        if last && let (Ok(environment), Ok(memory)) = (load::environment(), memory(self.provider, self.device_index)) {
            // SAFETY: the pointers are valid for the call. Sessions that took the arena hold it themselves.
            let status = unsafe { (ort::api().UnregisterAllocator)(environment.ptr().cast_mut(), memory.ptr()) };
            // SAFETY: the status comes from ONNX Runtime and is used once. An arena that stays only costs memory.
            let _ = unsafe { ort::Error::result_from_status(status) };
        }
    }
}

fn memory(provider: Provider, device_index: u32) -> Result<MemoryInfo<'static>, ort::Error> {
    let index = i32::try_from(device_index).unwrap_or(0);
    MemoryInfo::new(provider.memory(), index, AllocatorType::Arena, MemoryType::Default)
}

fn register(environment: &Environment, provider: Provider, device_index: u32) -> Result<(), ort::Error> {
    let memory = memory(provider, device_index)?;
    let identifier = CString::new(provider.identifier()).unwrap_or_default();
    let mut settings = null_mut();
    // As sessions' own arenas are: as large as it must be, growing by powers of two, in chunks of ONNX Runtime's choice.
    // SAFETY: the pointer is valid for the call.
    let status = unsafe { (ort::api().CreateArenaCfg)(0, 0, -1, -1, &mut settings) };
    // SAFETY: the status comes from ONNX Runtime and is used once.
    unsafe { ort::Error::result_from_status(status) }?;
    // SAFETY: the pointers are valid for the call, and ONNX Runtime keeps none of them; there are no options.
    let status = unsafe {
        (ort::api().CreateAndRegisterAllocatorV2)(
            environment.ptr().cast_mut(),
            identifier.as_ptr(),
            memory.ptr(),
            settings,
            null(),
            null(),
            0,
        )
    };
    // SAFETY: made above, and used no more.
    unsafe { (ort::api().ReleaseArenaCfg)(settings) };
    // SAFETY: the status comes from ONNX Runtime and is used once.
    unsafe { ort::Error::result_from_status(status) }
}

/// Bytes that the arena of a session has taken of its device's memory; none where ONNX Runtime does not tell.
pub(super) fn taken(session: &ort::session::Session, provider: Provider, device_index: u32) -> Option<u64> {
    let allocator = Allocator::new(session, memory(provider, device_index).ok()?).ok()?;
    let mut figures = null_mut();
    // SAFETY: the pointers are valid for the call.
    let status = unsafe { (ort::api().AllocatorGetStats)(allocator.ptr(), &mut figures) };
    // SAFETY: the status comes from ONNX Runtime and is used once.
    unsafe { ort::Error::result_from_status(status) }.ok()?;
    if figures.is_null() {
        return None;
    }
    // SAFETY: the figures were just given; the text belongs to them and is read before they are released.
    unsafe {
        let text = (ort::api().GetKeyValue)(figures, c"TotalAllocated".as_ptr());
        let bytes = (!text.is_null()).then(|| CStr::from_ptr(text).to_str().ok()?.parse().ok());
        (ort::api().ReleaseKeyValuePairs)(figures);
        bytes.flatten()
    }
}
