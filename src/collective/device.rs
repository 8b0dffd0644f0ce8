//! The collectives on memory of a device: the same boxes as on the host, moved and summed by NCCL.

use std::ptr::NonNull;

use super::{
    Announcement, CollectiveError, Communicator, Element, Nccl, Operation,
    nccl::{Boxes, Stream},
    operation::{Allocate, Call, Output},
    part,
};

impl Call {
    /// As [`Self::run`], where the tensor and the result lie in memory of the current device, in use by `stream`.
    ///
    /// # Errors
    /// As [`Self::run`].
    ///
    /// # Safety
    /// `data` must be a tensor of this shape and element in the device's memory, and what `allocate` gives must be writable
    /// memory of it and no part of `data`.
    pub unsafe fn run_on_device(
        &self,
        nccl: &Nccl,
        element: Element,
        shape: &[usize],
        data: *const u8,
        stream: Stream,
        allocate: &mut Allocate<'_>,
    ) -> Result<(), CollectiveError> {
        // SAFETY: as the caller says.
        let result = unsafe { self.on_device(nccl, element, shape, data, stream, allocate) };
        if let Err(error) = &result {
            nccl.fail(error);
        }
        result
    }

    unsafe fn on_device(
        &self,
        nccl: &Nccl,
        element: Element,
        shape: &[usize],
        data: *const u8,
        stream: Stream,
        allocate: &mut Allocate<'_>,
    ) -> Result<(), CollectiveError> {
        let (mesh, rank) = (nccl.mesh(), nccl.rank());
        let (ranks, place) = (mesh.size(self.group), mesh.place(self.group, rank));
        let axes = self.axes(shape)?;
        self.can_sum(element)?;
        let memory = data.addr() as u64;
        let mut result = Output {
            call: self,
            rank,
            input_shape: shape,
            element,
            allocate,
        };
        let address = |memory: NonNull<u8>| memory.addr().get() as u64;
        let announcement = Announcement::new(self.operation, element, axes.shape, &self.node);
        match self.operation {
            Operation::ShardSlice => {
                let (axis, entries) = axes.of_cut();
                let range = part(entries, ranks, place);
                let from = axes.region(element, axis, &range).ok_or_else(|| self.refuse_region())?;
                let mut cut = axes;
                cut.shape[axis] = range.len();
                let target = result.memory(self.cut, range.len(), None, 0)?;
                let to = cut
                    .region(element, axis, &(0..range.len()))
                    .ok_or_else(|| self.refuse_region())?;
                // SAFETY: `from` lies in the tensor, and `to` is all of the result.
                unsafe { nccl.copy_box((&from, memory), (&to, address(target)), stream) }
            }
            Operation::AllGather | Operation::AllToAll => {
                let regions = self.offered(axes, element, ranks)?;
                let mut placed = None;
                nccl.announce(self.group, &self.node, announcement, &mut |announcements| {
                    self.compare(nccl, &announcement, announcements, axes.gathered)?;
                    placed = Some(self.placed(axes, element, announcements, ranks, place)?);
                    Ok(())
                })?;
                let placed = placed.ok_or_else(|| self.refuse_region())?;
                let target = result.memory(self.cut, placed.cut, self.gathered, placed.gathered)?;
                let outgoing = Boxes {
                    memory,
                    regions: &regions,
                };
                let incoming = Boxes {
                    memory: address(target),
                    regions: &placed.regions,
                };
                // SAFETY: the boxes lie in the tensor and the result, and all members announced the same.
                let sent = unsafe { nccl.exchange_boxes(self.group, outgoing, incoming, stream) }?;
                nccl.count(self.group, sent);
                Ok(())
            }
            Operation::ReduceScatter => {
                let (_, entries) = axes.of_cut();
                let regions = self.offered(axes, element, ranks)?;
                let target = result.memory(self.cut, part(entries, ranks, place).len(), None, 0)?;
                self.meet(nccl, announcement)?;
                let from = Boxes {
                    memory,
                    regions: &regions,
                };
                // SAFETY: the boxes lie in the tensor, and the result has the bytes of this rank's.
                unsafe { nccl.reduce_scatter(self.group, element, from, address(target), stream) }?;
                let sent = regions.iter().enumerate().filter(|(member, _)| *member != place);
                nccl.count(self.group, sent.map(|(_, region)| region.len()).sum());
                Ok(())
            }
            Operation::AllReduce => {
                let entries: usize = shape.iter().product();
                let target = result.same_shape()?;
                self.meet(nccl, announcement)?;
                if entries > 0 {
                    // SAFETY: both have the bytes of this shape.
                    unsafe { nccl.all_reduce(self.group, element, entries, memory, address(target), stream) }?;
                }
                // As if each rank summed a part and gave it to the others: no way of NCCL's sends less.
                let own = part(entries, ranks, place).len();
                nccl.count(self.group, (entries - own) * element.bytes());
                nccl.count(self.group, own * (ranks - 1) * element.bytes());
                Ok(())
            }
            Operation::Handshake => Err(self.refuse("it is no operator".to_owned())),
        }
    }

    /// All members announce the same.
    fn meet(&self, nccl: &Nccl, announcement: Announcement) -> Result<(), CollectiveError> {
        nccl.announce(self.group, &self.node, announcement, &mut |announcements| {
            self.compare(nccl, &announcement, announcements, None)
        })
    }
}
