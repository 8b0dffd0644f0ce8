//! Ranks with a GPU each: tensors go from device to device by NCCL, on the session's own stream.
//!
//! What ranks announce to each other, and how they fail, is the matter of another communicator ([`Nccl::over`]), whichever
//! brings the ranks together. A collective is over on the device when its kernel returns: so a rank that never comes is noticed
//! within the time-out, and no step gives outputs that a broken connection made.

use std::{
    ffi::{c_int, c_void},
    fmt,
    ptr::{self, NonNull},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use cudarc::{
    driver::sys::{self as cuda, CUdeviceptr, CUresult},
    nccl::sys::{ncclComm_t, ncclUniqueId},
};

use super::{
    Announcement, CollectiveError, Communicator, Element, Group, Incoming, Mesh, Outgoing, Region, Traffic,
    handshake::tell_all,
    nccl_library::{self as library, Functions, driver},
    region::Rows,
};

/// Between two looks at the device.
const PAUSE: Duration = Duration::from_micros(20);

/// How often the device is looked at before the processor is left to others for a while.
const LOOKS: u32 = 1000;

/// Boxes lie at multiples of that in scratch memory.
const ALIGNMENT: usize = 256;

/// One rank of those that have a GPU each.
pub struct Nccl {
    host: Arc<dyn Communicator>,
    functions: &'static Functions,
    timeout: Duration,
    device: Mutex<Device>,
    traffic: Traffic,
}

/// What NCCL and the driver gave.
struct Device {
    /// By group, once they were needed.
    communicators: [Option<ncclComm_t>; 3],
    scratch: CUdeviceptr,
    scratch_bytes: usize,
    /// That of the memory.
    context: cuda::CUcontext,
}

// SAFETY: the handles may be used by any thread, one at a time, which the lock around them sees to.
unsafe impl Send for Device {}

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

/// Memory of the device, and the boxes of it that belong to the members of a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Boxes<'a> {
    pub memory: CUdeviceptr,
    pub regions: &'a [Region],
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

    /// Every member's box for this rank goes to its box of `incoming`. All members have announced that they are here. Gives the
    /// bytes that left for others.
    ///
    /// # Safety
    /// The boxes lie in memory of the current device, readable and writable, that does not overlap; boxes of two ranks for each
    /// other have one size.
    pub(super) unsafe fn exchange_boxes(
        &self,
        group: Group,
        outgoing: Boxes<'_>,
        incoming: Boxes<'_>,
        stream: Stream,
    ) -> Result<usize, CollectiveError> {
        let deadline = Instant::now() + self.timeout;
        let mut device = self.lock();
        let place = self.mesh().place(group, self.rank());
        let communicator = self.communicator(&mut device, group, deadline)?;
        // Boxes with gaps go by way of scratch memory, and so does one that stays here between two shapes of rows.
        let mut bytes = 0;
        let mut reserve = |rows: &Rows, always: bool| {
            let packed = always || rows.height > 1;
            let at = packed.then_some(bytes);
            bytes += if packed {
                (rows.width * rows.height).next_multiple_of(ALIGNMENT)
            } else {
                0
            };
            at
        };
        // Of each member: the boxes as rows, and where in the scratch memory they lie packed, if they do.
        let mut moves = Vec::new();
        for (member, (from, to)) in outgoing.regions.iter().zip(incoming.regions).enumerate() {
            let (from, to) = (self.rows(from)?, self.rows(to)?);
            let scratch = match member == place {
                true => [reserve(&from, true), None],
                false => [reserve(&from, false), reserve(&to, false)],
            };
            moves.push((member, from, to, scratch));
        }
        self.reserve(&mut device, group, bytes, stream, deadline)?;
        let scratch = device.scratch;
        let at = |offset: usize| scratch + offset as CUdeviceptr;

        for (_, from, _, [packed, _]) in &moves {
            if let Some(packed) = packed {
                self.copy(from, outgoing.memory, &packed_rows(from), at(*packed), stream)?;
            }
        }
        let mut sent = 0;
        self.grouped(&device, group, deadline, |functions| {
            for (member, from, to, [out, back]) in moves.iter().filter(|(member, ..)| *member != place) {
                let peer = c_int::try_from(*member).unwrap_or(c_int::MAX);
                let source = out.map_or(outgoing.memory + from.offset as CUdeviceptr, at) as *const c_void;
                let target = back.map_or(incoming.memory + to.offset as CUdeviceptr, at) as *mut c_void;
                let (going, coming) = (from.width * from.height, to.width * to.height);
                sent += going;
                let answers = [
                    match going {
                        0 => library::SUCCESS,
                        // SAFETY: as the caller says.
                        _ => unsafe {
                            (functions.send)(source, going, library::BYTES, peer, communicator, stream.0.cast())
                        },
                    },
                    match coming {
                        0 => library::SUCCESS,
                        // SAFETY: as the caller says.
                        _ => unsafe {
                            (functions.receive)(target, coming, library::BYTES, peer, communicator, stream.0.cast())
                        },
                    },
                ];
                let bad = |answer: &c_int| ![library::SUCCESS, library::IN_PROGRESS].contains(answer);
                if let Some(answer) = answers.into_iter().find(bad) {
                    return answer;
                }
            }
            library::SUCCESS
        })?;
        for (member, from, to, [out, back]) in &moves {
            let packed = if *member == place { out } else { back };
            if let Some(packed) = packed {
                let rows = Rows {
                    offset: 0,
                    ..packed_rows(if *member == place { from } else { to })
                };
                self.unpack(&rows, at(*packed), to, incoming.memory, stream)?;
            }
        }
        self.finish(&device, group, stream, deadline)?;
        Ok(sent)
    }

    /// The sum of all ranks' `elements`, which NCCL adds in an order of its own, the same on every rank.
    ///
    /// # Safety
    /// Both lie in memory of the current device and do not overlap.
    pub(super) unsafe fn all_reduce(
        &self,
        group: Group,
        element: Element,
        elements: usize,
        from: CUdeviceptr,
        to: CUdeviceptr,
        stream: Stream,
    ) -> Result<(), CollectiveError> {
        let deadline = Instant::now() + self.timeout;
        let mut device = self.lock();
        let communicator = self.communicator(&mut device, group, deadline)?;
        let number = self.number(element)?;
        self.grouped(&device, group, deadline, |functions| {
            let (from, to) = (from as *const c_void, to as *mut c_void);
            // SAFETY: as the caller says.
            unsafe { (functions.all_reduce)(from, to, elements, number, library::SUM, communicator, stream.0.cast()) }
        })?;
        self.finish(&device, group, stream, deadline)
    }

    /// This rank's box of the sum of all ranks' tensors, whose boxes are those of all members.
    ///
    /// # Safety
    /// As [`Self::exchange_boxes`]; `to` has the bytes of this rank's box.
    pub(super) unsafe fn reduce_scatter(
        &self,
        group: Group,
        element: Element,
        from: Boxes<'_>,
        to: CUdeviceptr,
        stream: Stream,
    ) -> Result<(), CollectiveError> {
        let deadline = Instant::now() + self.timeout;
        let mut device = self.lock();
        let communicator = self.communicator(&mut device, group, deadline)?;
        let number = self.number(element)?;
        let place = self.mesh().place(group, self.rank());
        // NCCL takes parts of one size: the largest. What lies behind the smaller ones is summed and not looked at.
        let largest = from.regions.iter().map(Region::len).max().unwrap_or(0);
        let count = largest / element.bytes();
        self.reserve(&mut device, group, largest * (from.regions.len() + 1), stream, deadline)?;
        let at = |part: usize| device.scratch + (part * largest) as CUdeviceptr;
        for (member, region) in from.regions.iter().enumerate() {
            let rows = self.rows(region)?;
            self.copy(&rows, from.memory, &packed_rows(&rows), at(member), stream)?;
        }
        let sum = at(from.regions.len());
        self.grouped(&device, group, deadline, |functions| {
            let (from, to) = (at(0) as *const c_void, sum as *mut c_void);
            // SAFETY: the scratch memory has a part for each rank, and one for the sum.
            unsafe { (functions.reduce_scatter)(from, to, count, number, library::SUM, communicator, stream.0.cast()) }
        })?;
        let own = packed_rows(&self.rows(&from.regions[place])?);
        self.copy(&own, sum, &own, to, stream)?;
        self.finish(&device, group, stream, deadline)
    }

    /// Copies one box of the device's memory to another, without anyone else.
    ///
    /// # Safety
    /// As [`Self::exchange_boxes`].
    pub(super) unsafe fn copy_box(
        &self,
        from: (&Region, CUdeviceptr),
        to: (&Region, CUdeviceptr),
        stream: Stream,
    ) -> Result<(), CollectiveError> {
        let (rows, target) = (self.rows(from.0)?, self.rows(to.0)?);
        match target.height {
            1 => self.copy(
                &rows,
                from.1,
                &Rows {
                    offset: target.offset,
                    ..packed_rows(&rows)
                },
                to.1,
                stream,
            ),
            _ => Err(self.failed("a result that is no block".to_owned())),
        }
    }

    pub(super) fn count(&self, group: Group, bytes: usize) {
        self.traffic.count(group, bytes);
    }

    fn rows(&self, region: &Region) -> Result<Rows, CollectiveError> {
        match region.is_empty() {
            true => Ok(Rows {
                offset: 0,
                width: 0,
                pitch: 0,
                height: 1,
            }),
            false => region
                .rows()
                .ok_or_else(|| self.failed("a box that is no rows".to_owned())),
        }
    }

    /// From packed memory into a box of other rows.
    fn unpack(
        &self,
        packed: &Rows,
        from: CUdeviceptr,
        to: &Rows,
        memory: CUdeviceptr,
        stream: Stream,
    ) -> Result<(), CollectiveError> {
        let bytes = packed.width * packed.height;
        let source = Rows {
            offset: 0,
            pitch: to.width,
            ..*to
        };
        match bytes == to.width * to.height {
            true => self.copy(&source, from, to, memory, stream),
            false => Err(self.failed("parts of other sizes were announced than came".to_owned())),
        }
    }

    /// Copies rows to as many rows of the same length.
    fn copy(
        &self,
        from: &Rows,
        source: CUdeviceptr,
        to: &Rows,
        target: CUdeviceptr,
        stream: Stream,
    ) -> Result<(), CollectiveError> {
        if from.width == 0 || from.height == 0 {
            return Ok(());
        }
        let (source, target) = (source + from.offset as CUdeviceptr, target + to.offset as CUdeviceptr);
        let stream = stream.0.cast();
        // SAFETY: rows lie in their memory, as the callers say.
        let answer = unsafe {
            if from.height == 1 {
                cuda::cuMemcpyDtoDAsync_v2(target, source, from.width, stream)
            } else {
                let copy = cuda::CUDA_MEMCPY2D {
                    srcXInBytes: 0,
                    srcY: 0,
                    srcMemoryType: cuda::CUmemorytype::CU_MEMORYTYPE_DEVICE,
                    srcHost: ptr::null(),
                    srcDevice: source,
                    srcArray: ptr::null_mut(),
                    srcPitch: from.pitch,
                    dstXInBytes: 0,
                    dstY: 0,
                    dstMemoryType: cuda::CUmemorytype::CU_MEMORYTYPE_DEVICE,
                    dstHost: ptr::null_mut(),
                    dstDevice: target,
                    dstArray: ptr::null_mut(),
                    dstPitch: to.pitch,
                    WidthInBytes: from.width,
                    Height: from.height,
                };
                cuda::cuMemcpy2DAsync_v2(&raw const copy, stream)
            }
        };
        driver(answer).map_err(|reason| {
            self.failed(format!(
                "a copy of {} rows of {} bytes: {reason}",
                from.height, from.width
            ))
        })
    }

    /// The communicator of a group, which starts with the first exchange: its members agree on an id by way of the host.
    fn communicator(
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
    fn grouped(
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
    fn wait(&self, communicator: ncclComm_t, group: Group, deadline: Instant) -> Result<(), CollectiveError> {
        self.patiently(deadline, group, || {
            let mut answer = library::SUCCESS;
            // SAFETY: the communicator is NCCL's, and the pointer to a local.
            self.check(unsafe { (self.functions.progress)(communicator, &raw mut answer) })?;
            self.check(answer)?;
            Ok(answer != library::IN_PROGRESS)
        })
    }

    /// Waits until the device has done everything on the stream.
    fn finish(&self, device: &Device, group: Group, stream: Stream, deadline: Instant) -> Result<(), CollectiveError> {
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
    fn reserve(
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

    fn number(&self, element: Element) -> Result<c_int, CollectiveError> {
        library::number(element).ok_or_else(|| self.failed(format!("{element} cannot be summed")))
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

/// The same rows without gaps.
fn packed_rows(rows: &Rows) -> Rows {
    Rows {
        offset: 0,
        pitch: rows.width,
        ..*rows
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
