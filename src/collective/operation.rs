//! The collectives themselves, on bytes: which box of which rank's tensor goes where. Communicators carry the boxes.

use std::{fmt, ptr::NonNull};

use super::{
    Announcement, CollectiveError, Communicator, Element, Group, Incoming, Outgoing, Region, layout::Axes, part,
    sum::add_in_order,
};

/// An operator of domain `ai.pab`, or what else ranks do together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)] // Described in `Call`.
pub enum Operation {
    ShardSlice,
    AllGather,
    AllToAll,
    AllReduce,
    ReduceScatter,
    /// Not an operator: ranks compare what they were started with.
    Handshake,
}

impl Operation {
    /// The operators.
    pub const OPERATORS: [Operation; 5] = [
        Self::ShardSlice,
        Self::AllGather,
        Self::AllToAll,
        Self::AllReduce,
        Self::ReduceScatter,
    ];

    /// The operator's name in a graph.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ShardSlice => "ShardSlice",
            Self::AllGather => "AllGather",
            Self::AllToAll => "AllToAll",
            Self::AllReduce => "AllReduce",
            Self::ReduceScatter => "ReduceScatter",
            Self::Handshake => "Handshake",
        }
    }

    /// Whether it sums, which only floating-point numbers are for.
    #[must_use]
    pub fn sums(self) -> bool {
        matches!(self, Self::AllReduce | Self::ReduceScatter)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Gives memory for a result of this shape, which may be any non-null pointer where the result is empty; the error is the
/// allocator's reason.
pub type Allocate<'a> = dyn FnMut(&[usize]) -> Result<NonNull<u8>, String> + 'a;

/// What a node does, apart from its tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The operator.
    pub operation: Operation,
    /// The node's name, for messages; ranks compare it.
    pub node: String,
    /// The ranks that take part.
    pub group: Group,
    /// The axis that is cut: `axis` of ShardSlice and ReduceScatter, `split_axis` of AllToAll.
    pub cut: Option<i64>,
    /// The axis that is put together: `axis` of AllGather, `concat_axis` of AllToAll.
    pub gathered: Option<i64>,
}

impl Call {
    /// Runs the collective for this rank. `data` is the tensor of `shape` in row-major order; `allocate` is given the
    /// result's shape, and gives the memory for it.
    ///
    /// # Errors
    /// [`CollectiveError::Node`] for axes and element types that cannot be, [`CollectiveError::Parts`] where ranks' parts do
    /// not fit each other, and those of [`Communicator::exchange`]. Any error ends the run of all ranks.
    ///
    /// # Safety
    /// What `allocate` gives must be writable until this returns, and be no part of `data`.
    pub unsafe fn run(
        &self,
        communicator: &dyn Communicator,
        element: Element,
        shape: &[usize],
        data: &[u8],
        allocate: &mut Allocate<'_>,
    ) -> Result<(), CollectiveError> {
        // SAFETY: as the caller says.
        let result = unsafe { self.run_unguarded(communicator, element, shape, data, allocate) };
        if let Err(error) = &result {
            communicator.fail(error);
        }
        result
    }

    unsafe fn run_unguarded(
        &self,
        communicator: &dyn Communicator,
        element: Element,
        shape: &[usize],
        data: &[u8],
        allocate: &mut Allocate<'_>,
    ) -> Result<(), CollectiveError> {
        let mesh = communicator.mesh();
        let ranks = mesh.size(self.group);
        let place = mesh.place(self.group, communicator.rank());
        let axes = self.axes(shape)?;
        let bytes = axes
            .shape
            .iter()
            .try_fold(element.bytes(), |bytes, size| bytes.checked_mul(*size));
        if bytes != Some(data.len()) {
            return Err(self.refuse(format!(
                "a tensor of shape {shape:?} of {element} has not {} bytes",
                data.len()
            )));
        }
        self.can_sum(element)?;
        let mut result = Output {
            call: self,
            rank: communicator.rank(),
            input_shape: shape,
            element,
            allocate,
        };
        match self.operation {
            Operation::ShardSlice => {
                let (axis, entries) = axes.of_cut();
                let range = part(entries, ranks, place);
                let from = axes.region(element, axis, &range).ok_or_else(|| self.refuse_region())?;
                let mut whole = axes;
                whole.shape[axis] = range.len();
                let target = result.memory(self.cut, range.len(), None, 0)?;
                let to = whole
                    .region(element, axis, &(0..range.len()))
                    .ok_or_else(|| self.refuse_region())?;
                // SAFETY: `from` lies in `data`, `to` is all of the result, and they do not overlap.
                unsafe { copy_box(data.as_ptr(), &from, target.as_ptr(), &to) }.ok_or_else(|| self.refuse_region())
            }
            Operation::AllGather | Operation::AllToAll => {
                // SAFETY: as the caller says.
                unsafe { self.move_parts(communicator, axes, element, data, &mut result) }
            }
            Operation::ReduceScatter => {
                let (axis, entries) = axes.of_cut();
                let range = part(entries, ranks, place);
                let sum = self.sum_of_part(communicator, axes, axis, element, data)?;
                let target = result.memory(self.cut, range.len(), None, 0)?;
                // SAFETY: the memory has the size of the result, which is that of the sum.
                unsafe { target.copy_from_nonoverlapping(NonNull::from(sum.as_slice()).cast(), sum.len()) };
                Ok(())
            }
            Operation::AllReduce => {
                // Each rank sums one part and gives it to the others: less is sent than if each summed all.
                let entries: usize = shape.iter().product();
                let flat = Axes {
                    shape: [1, entries, 1, 1, 1],
                    cut: Some(1),
                    gathered: Some(1),
                };
                let sum = self.sum_of_part(communicator, flat, 1, element, data)?;
                let summed = Axes {
                    shape: [1, part(entries, ranks, place).len(), 1, 1, 1],
                    cut: None,
                    gathered: Some(1),
                };
                // SAFETY: as the caller says.
                unsafe { self.move_parts(communicator, summed, element, &sum, &mut result) }
            }
            Operation::Handshake => Err(self.refuse("it is no operator".to_owned())),
        }
    }

    pub(super) fn can_sum(&self, element: Element) -> Result<(), CollectiveError> {
        if self.operation.sums() && !element.is_floating() {
            return Err(self.refuse(format!("{element} cannot be summed, only floating-point numbers")));
        }
        Ok(())
    }

    /// AllGather and AllToAll: each member gets a part of the cut axis or the whole, and puts what it gets together on the
    /// gathered axis.
    ///
    /// # Safety
    /// That of [`Self::run`].
    unsafe fn move_parts(
        &self,
        communicator: &dyn Communicator,
        axes: Axes,
        element: Element,
        data: &[u8],
        result: &mut Output<'_, '_>,
    ) -> Result<(), CollectiveError> {
        let mesh = communicator.mesh();
        let ranks = mesh.size(self.group);
        let place = mesh.place(self.group, communicator.rank());
        let gathered = axes.gathered.unwrap_or(0);
        let regions = self.offered(axes, element, ranks)?;
        let outgoing = Outgoing {
            node: &self.node,
            announcement: Announcement::new(self.operation, element, axes.shape, &self.node),
            data,
            regions: &regions,
        };
        communicator.exchange(self.group, &outgoing, &mut |announcements| {
            self.compare(communicator, &outgoing.announcement, announcements, Some(gathered))?;
            let placed = self.placed(axes, element, announcements, ranks, place)?;
            let memory = match self.operation {
                Operation::AllReduce => result.same_shape()?,
                _ => result.memory(self.cut, placed.cut, self.gathered, placed.gathered)?,
            };
            // SAFETY: the memory has the size of the result, and stays until the caller returns.
            unsafe { Incoming::new(memory, placed.bytes, placed.regions) }.ok_or_else(|| self.refuse_region())
        })
    }

    /// This rank's part of the sum of all ranks' tensors along an axis.
    fn sum_of_part(
        &self,
        communicator: &dyn Communicator,
        axes: Axes,
        axis: usize,
        element: Element,
        data: &[u8],
    ) -> Result<Vec<u8>, CollectiveError> {
        let mesh = communicator.mesh();
        let ranks = mesh.size(self.group);
        let place = mesh.place(self.group, communicator.rank());
        let mut regions = Vec::with_capacity(ranks);
        for member in 0..ranks {
            let range = part(axes.shape[axis], ranks, member);
            regions.push(axes.region(element, axis, &range).ok_or_else(|| self.refuse_region())?);
        }
        let bytes = regions[place].len();
        let mut terms = self.scratch(communicator, bytes.checked_mul(ranks))?;
        let mut sum = self.scratch(communicator, Some(bytes))?;
        let outgoing = Outgoing {
            node: &self.node,
            announcement: Announcement::new(self.operation, element, axes.shape, &self.node),
            data,
            regions: &regions,
        };
        let memory = NonNull::from(terms.as_mut_slice()).cast();
        communicator.exchange(self.group, &outgoing, &mut |announcements| {
            self.compare(communicator, &outgoing.announcement, announcements, None)?;
            let targets = (0..ranks)
                .map(|member| Region::bytes_at(member * bytes, bytes))
                .collect();
            // SAFETY: `terms` is not touched before the exchange has returned.
            unsafe { Incoming::new(memory, bytes * ranks, targets) }.ok_or_else(|| self.refuse_region())
        })?;
        let parts: Vec<&[u8]> = (0..ranks).map(|member| &terms[member * bytes..][..bytes]).collect();
        add_in_order(element, &parts, &mut sum);
        Ok(sum)
    }

    fn scratch(&self, communicator: &dyn Communicator, bytes: Option<usize>) -> Result<Vec<u8>, CollectiveError> {
        let mut memory = Vec::new();
        let bytes = bytes.unwrap_or(usize::MAX);
        memory
            .try_reserve_exact(bytes)
            .map_err(|error| CollectiveError::Memory {
                operation: self.operation,
                node: self.node.clone(),
                rank: communicator.rank(),
                bytes,
                reason: error.to_string(),
            })?;
        memory.resize(bytes, 0);
        Ok(memory)
    }

    /// Refuses what other ranks announced where it does not fit; parts may differ on axis `free`.
    pub(super) fn compare(
        &self,
        communicator: &dyn Communicator,
        own: &Announcement,
        announcements: &[Announcement],
        free: Option<usize>,
    ) -> Result<(), CollectiveError> {
        let rank = communicator.rank();
        let members = communicator.mesh().members(self.group, rank);
        for (other, announcement) in members.into_iter().zip(announcements) {
            let mut shape = announcement.shape;
            if let Some(axis) = free {
                shape[axis] = own.shape[axis];
            }
            let same = announcement.operation == own.operation && announcement.node == own.node;
            if same && announcement.element == own.element && shape == own.shape {
                continue;
            }
            if same {
                let describe =
                    |announcement: &Announcement| format!("{:?} of {}", announcement.shape, announcement.element);
                return Err(CollectiveError::Parts {
                    operation: self.operation,
                    node: self.node.clone(),
                    rank,
                    other,
                    here: describe(own),
                    there: describe(announcement),
                });
            }
            return Err(CollectiveError::Disagree {
                rank,
                other,
                here: format!("{} `{}`", own.operation, self.node),
                there: match announcement.node == own.node {
                    true => format!("{} `{}`", announcement.operation, self.node),
                    false => format!("{} of another node", announcement.operation),
                },
            });
        }
        Ok(())
    }

    /// The error of a node that cannot be.
    pub(super) fn refuse(&self, reason: String) -> CollectiveError {
        CollectiveError::Node {
            operation: self.operation,
            node: self.node.clone(),
            reason,
        }
    }

    pub(super) fn refuse_region(&self) -> CollectiveError {
        self.refuse("the tensor is larger than memory can be".to_owned())
    }
}

/// Asks for the memory of the result.
pub(super) struct Output<'a, 'b> {
    pub(super) call: &'a Call,
    pub(super) rank: usize,
    pub(super) input_shape: &'a [usize],
    pub(super) element: Element,
    pub(super) allocate: &'b mut Allocate<'b>,
}

impl Output<'_, '_> {
    /// The memory of a result that has other sizes on the two axes.
    pub(super) fn memory(
        &mut self,
        cut: Option<i64>,
        cut_entries: usize,
        gathered: Option<i64>,
        gathered_entries: usize,
    ) -> Result<NonNull<u8>, CollectiveError> {
        let mut shape = self.input_shape.to_vec();
        for (axis, entries) in [(cut, cut_entries), (gathered, gathered_entries)] {
            if let Some(axis) = axis {
                shape[self.call.resolve(axis, self.input_shape.len())?] = entries;
            }
        }
        self.of_shape(&shape)
    }

    pub(super) fn same_shape(&mut self) -> Result<NonNull<u8>, CollectiveError> {
        self.of_shape(self.input_shape)
    }

    fn of_shape(&mut self, shape: &[usize]) -> Result<NonNull<u8>, CollectiveError> {
        (self.allocate)(shape).map_err(|reason| CollectiveError::Memory {
            operation: self.call.operation,
            node: self.call.node.clone(),
            rank: self.rank,
            bytes: shape.iter().product::<usize>().saturating_mul(self.element.bytes()),
            reason,
        })
    }
}

/// Copies one box to another. `None`, and nothing copied, where they do not fit each other.
///
/// # Safety
/// `from` must lie in readable memory at `source`, `to` in writable memory at `target`, and the two must not overlap.
pub(super) unsafe fn copy_box(source: *const u8, from: &Region, target: *mut u8, to: &Region) -> Option<()> {
    // SAFETY: runs lie in their boxes, and the caller vouches for those.
    from.runs(to, |source_offset, target_offset, bytes| unsafe {
        std::ptr::copy_nonoverlapping(source.add(source_offset), target.add(target_offset), bytes);
    })
}
