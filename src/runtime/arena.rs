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

/// For tests that open sessions with an arena of the process: one at a time, since they see each other's.
#[cfg(test)]
pub(super) static TURN: Mutex<()> = Mutex::new(());

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::onnx::Model;
    use crate::runtime::{Denoiser, ElementType, Options, Port, Session, SharedWeights, Tensor};

    fn export() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpus/latte.ts17.static.onnx")
    }

    fn open(weights: &mut SharedWeights, options: &Options) -> Denoiser {
        Denoiser::plain(
            weights
                .open(&export(), Model::load(&export()).unwrap(), options)
                .unwrap(),
        )
    }

    fn taken(denoiser: &Denoiser) -> u64 {
        denoiser.session().arena_bytes().unwrap()
    }

    /// What the arena has taken after some steps.
    fn run(denoiser: &mut Denoiser) -> u64 {
        let zeros = |port: &Port| {
            let shape: Vec<usize> = port.shape.iter().map(|size| size.unwrap() as usize).collect();
            (
                port.name.clone(),
                Tensor::zeros(port.element_type.unwrap_or(ElementType::Float32), &shape),
            )
        };
        let inputs: Vec<(String, Tensor)> = denoiser.session().inputs().iter().map(zeros).collect();
        let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        for _ in 0..2 {
            denoiser.step(&inputs, &[]).unwrap();
        }
        taken(denoiser)
    }

    #[test]
    fn sessions_that_run_in_turn_have_one_arena_which_goes_with_the_last() {
        crate::runtime::ensure().unwrap();
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let options = Options {
            provider: Provider::Cpu,
            threads: Some(1),
            ..Options::default()
        };
        let mut weights = SharedWeights::default();
        let (mut first, mut second) = (open(&mut weights, &options), open(&mut weights, &options));
        assert!(first.session().shares_arena() && second.session().shares_arena());
        let before = taken(&second);
        let alone = run(&mut first);
        assert!(before < alone, "{before} {alone}");
        assert_eq!((run(&mut second), taken(&first)), (alone, alone));
        // Others have another one, also while these are there.
        drop(weights);
        assert!(HOLDERS.lock().unwrap().is_empty());
        let mut weights = SharedWeights::default();
        let third = open(&mut weights, &options);
        assert!(third.session().shares_arena() && taken(&third) < alone);
        assert_eq!(run(&mut first), alone);
        let own = Session::open(&export(), &options).unwrap();
        assert!(!own.shares_arena());
        // A step that is recorded writes where it wrote.
        let recorded = Options {
            cuda_graph: true,
            ..options
        };
        assert!(!open(&mut weights, &recorded).session().shares_arena());
    }

    #[test]
    fn an_arena_is_registered_until_nobody_holds_it() {
        crate::runtime::ensure().unwrap();
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let held = || HOLDERS.lock().unwrap().clone();
        let first = Arena::on(Provider::Cpu, 0).unwrap();
        let second = Arena::on(Provider::Cpu, 0).unwrap();
        assert_eq!(held(), [(Provider::Cpu, 0, 2)]);
        drop(first);
        assert_eq!(held(), [(Provider::Cpu, 0, 1)]);
        assert!(Arena::on(Provider::WebGpu, 0).is_none());
        drop(second);
        assert_eq!(held(), []);
    }
}
