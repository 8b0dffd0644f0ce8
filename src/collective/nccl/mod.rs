//! Ranks with a GPU each: tensors go from device to device by NCCL, on the session's own stream.
//!
//! What ranks announce to each other, and how they fail, is the matter of another communicator ([`Nccl::over`]), whichever
//! brings the ranks together. A collective is over on the device when its kernel returns: so a rank that never comes is noticed
//! within the time-out, and no step gives outputs that a broken connection made.

mod device;
pub(super) mod library;
mod moves;

use std::{
    ffi::{c_int, c_void},
    fmt,
    ptr::{self, NonNull},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use cudarc::driver::sys as cuda;

use self::{device::Device, library::Functions};
use super::{Announcement, CollectiveError, Communicator, Group, Incoming, Mesh, Outgoing, Region, Traffic};

pub(super) use self::moves::Boxes;

/// One rank of those that have a GPU each.
pub struct Nccl {
    host: Arc<dyn Communicator>,
    functions: &'static Functions,
    timeout: Duration,
    device: Mutex<Device>,
    traffic: Traffic,
}

/// A CUDA stream, as ONNX Runtime gives it.
#[derive(Clone, Copy, Debug)]
pub struct Stream(*mut c_void);

impl Stream {
    /// ONNX Runtime's handle; none is the device's default stream.
    #[must_use]
    pub fn new(stream: Option<NonNull<c_void>>) -> Self {
        Self(stream.map_or(ptr::null_mut(), NonNull::as_ptr))
    }
}

impl Nccl {
    /// The rank that `host` is, with the device that is current where its kernels run. Ranks must have a device each. NCCL starts
    /// in the first exchange, and no rank waits for others longer than `timeout`.
    ///
    /// # Errors
    /// [`CollectiveError::Transport`] where there is no NCCL or no driver.
    pub fn over(host: Arc<dyn Communicator>, timeout: Duration) -> Result<Arc<Self>, CollectiveError> {
        let functions = library::functions().map_err(|reason| CollectiveError::Transport {
            rank: host.rank(),
            transport: "NCCL",
            reason,
        })?;
        Ok(Arc::new(Self {
            host,
            functions,
            timeout,
            device: Mutex::new(Device {
                communicators: [None; 3],
                scratch: 0,
                scratch_bytes: 0,
                context: ptr::null_mut(),
            }),
            traffic: Traffic::default(),
        }))
    }

    /// Meets the group without bytes; `check` gets what the members announce, in order of places.
    pub(super) fn announce(
        &self,
        group: Group,
        node: &str,
        announcement: Announcement,
        check: &mut dyn FnMut(&[Announcement]) -> Result<(), CollectiveError>,
    ) -> Result<(), CollectiveError> {
        let nothing = vec![Region::bytes_at(0, 0); self.mesh().size(group)];
        let outgoing = Outgoing {
            node,
            announcement,
            data: &[],
            regions: &nothing,
        };
        self.host.exchange(group, &outgoing, &mut |announcements| {
            check(announcements)?;
            // SAFETY: nothing is written to memory of no bytes.
            let incoming = unsafe { Incoming::new(NonNull::dangling(), 0, nothing.clone()) };
            incoming.ok_or_else(|| self.failed("no bytes are no memory".to_owned()))
        })
    }

    pub(super) fn count(&self, group: Group, bytes: usize) {
        self.traffic.count(group, bytes);
    }

    fn check(&self, answer: c_int) -> Result<(), CollectiveError> {
        match answer {
            library::SUCCESS | library::IN_PROGRESS => Ok(()),
            other => Err(self.failed(self.functions.reason(other))),
        }
    }

    fn failed(&self, reason: String) -> CollectiveError {
        CollectiveError::Transport {
            rank: self.rank(),
            transport: "NCCL",
            reason,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Device> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends what is on its way, so that the stream is free again.
    fn abort(&self) {
        let mut device = self.lock();
        for communicator in device.communicators.iter_mut().filter_map(Option::take) {
            // SAFETY: the communicator is NCCL's, and used no more.
            unsafe { (self.functions.abort)(communicator) };
        }
    }
}

impl Communicator for Nccl {
    fn mesh(&self) -> Mesh {
        self.host.mesh()
    }

    fn rank(&self) -> usize {
        self.host.rank()
    }

    /// Of memory of the host.
    fn exchange(
        &self,
        group: Group,
        outgoing: &Outgoing<'_>,
        receive: &mut dyn FnMut(&[Announcement]) -> Result<Incoming, CollectiveError>,
    ) -> Result<(), CollectiveError> {
        self.host.exchange(group, outgoing, receive)
    }

    fn fail(&self, error: &CollectiveError) {
        self.host.fail(error);
        self.abort();
    }

    fn failure(&self) -> Option<CollectiveError> {
        self.host.failure()
    }

    fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    fn device(&self) -> Option<&Nccl> {
        Some(self)
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        if self.host.failure().is_some() {
            self.abort();
        }
        let mut device = self.lock();
        let deadline = Instant::now() + self.timeout;
        for (index, group) in Group::ALL.into_iter().enumerate() {
            let Some(communicator) = device.communicators[index].take() else {
                continue;
            };
            // SAFETY: the communicator is NCCL's, and used no more.
            unsafe {
                let finalized = self.check((self.functions.finalize)(communicator));
                match finalized.and_then(|()| self.wait(communicator, group, deadline)) {
                    Ok(()) => (self.functions.destroy)(communicator),
                    Err(_) => (self.functions.abort)(communicator),
                };
            }
        }
        if device.scratch != 0 {
            // SAFETY: the memory is this module's, and nothing uses it any more.
            unsafe {
                cuda::cuCtxSetCurrent(device.context);
                cuda::cuMemFree_v2(device.scratch);
            }
        }
    }
}

impl fmt::Debug for Nccl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Nccl")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}
