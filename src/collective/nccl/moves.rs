//! Tensors from device to device: boxes exchanged, sums, and the copies on the device before and after them.

use std::{
    ffi::{c_int, c_void},
    ptr,
    time::Instant,
};

use cudarc::driver::sys::{self as cuda, CUdeviceptr};

use super::{
    Nccl, Stream,
    library::{self, driver},
};
use crate::collective::{CollectiveError, Communicator, Element, Group, Region, region::Rows};

/// Boxes lie at multiples of that in scratch memory.
const ALIGNMENT: usize = 256;

/// Memory of the device, and the boxes of it that belong to the members of a group.
#[derive(Clone, Copy, Debug)]
pub(in crate::collective) struct Boxes<'a> {
    pub memory: CUdeviceptr,
    pub regions: &'a [Region],
}

impl Nccl {
    /// Every member's box for this rank goes to its box of `incoming`. All members have announced that they are here. Gives the
    /// bytes that left for others.
    ///
    /// # Safety
    /// The boxes lie in memory of the current device, readable and writable, that does not overlap; boxes of two ranks for each
    /// other have one size.
    pub(in crate::collective) unsafe fn exchange_boxes(
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
    pub(in crate::collective) unsafe fn all_reduce(
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
    pub(in crate::collective) unsafe fn reduce_scatter(
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
    pub(in crate::collective) unsafe fn copy_box(
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

    fn number(&self, element: Element) -> Result<c_int, CollectiveError> {
        library::number(element).ok_or_else(|| self.failed(format!("{element} cannot be summed")))
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
