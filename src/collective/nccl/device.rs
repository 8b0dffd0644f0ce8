//! The device's side of a rank: NCCL's communicators, the scratch memory, and waiting for either without hanging.

use std::{
    ffi::c_int,
    ptr,
    time::{Duration, Instant},
};

use cudarc::{
    driver::sys::{self as cuda, CUdeviceptr, CUresult},
    nccl::sys::{ncclComm_t, ncclUniqueId},
};

use super::{
    Nccl, Stream,
    library::{self, Functions, driver},
};
use crate::collective::{CollectiveError, Communicator, Group, handshake::tell_all};

/// Between two looks at the device.
const PAUSE: Duration = Duration::from_micros(20);

/// How often the device is looked at before the processor is left to others for a while.
const LOOKS: u32 = 1000;

/// What NCCL and the driver gave.
pub(super) struct Device {
    /// By group, once they were needed.
    pub communicators: [Option<ncclComm_t>; 3],
    pub scratch: CUdeviceptr,
    pub scratch_bytes: usize,
    /// That of the memory.
    pub context: cuda::CUcontext,
}

// SAFETY: the handles may be used by any thread, one at a time, which the lock around them sees to.
unsafe impl Send for Device {}

impl Nccl {
    /// The communicator of a group, which starts with the first exchange: its members agree on an id by way of the host.
    pub(super) fn communicator(
        &self,
        device: &mut Device,
        group: Group,
        deadline: Instant,
    ) -> Result<ncclComm_t, CollectiveError> {
        if let Some(communicator) = device.communicators[group.index()] {
            return Ok(communicator);
        }
        let (ranks, place) = (self.mesh().size(group), self.mesh().place(group, self.rank()));
        let mut id = ncclUniqueId { internal: [0; 128] };
        if place == 0 {
            // SAFETY: the pointer is to a local.
            self.check(unsafe { (self.functions.get_unique_id)(&raw mut id) })?;
        }
        let told = tell_all(&*self.host, group, "nccl", &id.internal.map(|byte| byte as u8))?;
        for (byte, told) in id.internal.iter_mut().zip(told) {
            *byte = told as std::ffi::c_char;
        }
        let number = |size: usize| c_int::try_from(size).unwrap_or(c_int::MAX);
        let mut communicator: ncclComm_t = ptr::null_mut();
        let mut settings = library::nonblocking();
        let pointers = (&raw mut communicator, &raw mut settings);
        // SAFETY: the pointers are to locals.
        let answer = unsafe { (self.functions.init)(pointers.0, number(ranks), id, number(place), pointers.1) };
        self.check(answer)?;
        device.communicators[group.index()] = Some(communicator);
        self.wait(communicator, group, deadline)?;
        Ok(communicator)
    }

    /// Calls that NCCL is to see as one.
    pub(super) fn grouped(
        &self,
        device: &Device,
        group: Group,
        deadline: Instant,
        calls: impl FnOnce(&Functions) -> c_int,
    ) -> Result<(), CollectiveError> {
        // SAFETY: NCCL is loaded.
        self.check(unsafe { (self.functions.group_start)() })?;
        let called = calls(self.functions);
        // SAFETY: a group was started.
        let ended = unsafe { (self.functions.group_end)() };
        self.check(called)?;
        self.check(ended)?;
        match device.communicators[group.index()] {
            Some(communicator) => self.wait(communicator, group, deadline),
            None => Ok(()),
        }
    }

    /// Waits until NCCL has done what it was asked for, on the host's side.
    pub(super) fn wait(
        &self,
        communicator: ncclComm_t,
        group: Group,
        deadline: Instant,
    ) -> Result<(), CollectiveError> {
        self.patiently(deadline, group, || {
            let mut answer = library::SUCCESS;
            // SAFETY: the communicator is NCCL's, and the pointer to a local.
            self.check(unsafe { (self.functions.progress)(communicator, &raw mut answer) })?;
            self.check(answer)?;
            Ok(answer != library::IN_PROGRESS)
        })
    }

    /// Waits until the device has done everything on the stream.
    pub(super) fn finish(
        &self,
        device: &Device,
        group: Group,
        stream: Stream,
        deadline: Instant,
    ) -> Result<(), CollectiveError> {
        self.patiently(deadline, group, || {
            for communicator in device.communicators.into_iter().flatten() {
                let mut answer = library::SUCCESS;
                // SAFETY: the communicator is NCCL's, and the pointer to a local.
                self.check(unsafe { (self.functions.progress)(communicator, &raw mut answer) })?;
                self.check(answer)?;
            }
            // SAFETY: the stream is ONNX Runtime's.
            match unsafe { cuda::cuStreamQuery(stream.0.cast()) } {
                CUresult::CUDA_ERROR_NOT_READY => Ok(false),
                answer => driver(answer).map(|()| true).map_err(|reason| self.failed(reason)),
            }
        })
    }

    fn patiently(
        &self,
        deadline: Instant,
        group: Group,
        mut done: impl FnMut() -> Result<bool, CollectiveError>,
    ) -> Result<(), CollectiveError> {
        let mut looks = 0;
        while !done()? {
            if let Some(failure) = self.host.failure() {
                return Err(failure);
            }
            if Instant::now() >= deadline {
                return Err(self.failed(format!(
                    "the ranks of the {group} group did not all come within {} s: a rank hangs, or two share a GPU",
                    self.timeout.as_secs_f64()
                )));
            }
            looks += 1;
            match looks < LOOKS {
                true => std::hint::spin_loop(),
                false => std::thread::sleep(PAUSE),
            }
        }
        Ok(())
    }

    /// Makes the scratch memory large enough; what is on the stream may still use the old.
    pub(super) fn reserve(
        &self,
        device: &mut Device,
        group: Group,
        bytes: usize,
        stream: Stream,
        deadline: Instant,
    ) -> Result<(), CollectiveError> {
        if bytes <= device.scratch_bytes {
            return Ok(());
        }
        self.finish(device, group, stream, deadline)?;
        let failed = |reason: String| self.failed(format!("{bytes} bytes of the device: {reason}"));
        // SAFETY: the memory is this module's and nothing uses it any more; the pointers are to fields of a local.
        unsafe {
            if device.scratch != 0 {
                let freed = cuda::cuMemFree_v2(device.scratch);
                (device.scratch, device.scratch_bytes) = (0, 0);
                driver(freed).map_err(failed)?;
            }
            driver(cuda::cuCtxGetCurrent(&raw mut device.context)).map_err(failed)?;
            driver(cuda::cuMemAlloc_v2(&raw mut device.scratch, bytes)).map_err(failed)?;
        }
        device.scratch_bytes = bytes;
        Ok(())
    }
}
