//! What every way of moving bytes among ranks offers.

use std::{fmt, ptr::NonNull};

use super::{CollectiveError, Element, Group, Mesh, Nccl, Operation, Region, Traffic};

/// What a rank tells the others of its group before bytes move: which collective it is in, and the shape of its tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The operator.
    pub operation: Operation,
    /// The type of the elements.
    pub element: Element,
    /// The tensor's shape, neighbouring axes that stay as they are taken together.
    pub shape: [usize; 5],
    /// A hash of the node's name.
    pub node: u64,
}

impl Announcement {
    /// The announcement of the node of this name.
    #[must_use]
    pub fn new(operation: Operation, element: Element, shape: [usize; 5], node: &str) -> Self {
        // FNV-1a: the same in every process and version.
        let hash = node.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self {
            operation,
            element,
            shape,
            node: hash,
        }
    }
}

/// The bytes that a rank offers, and which box of them each member of the group gets.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// The node of the graph, for messages.
    pub node: &'a str,
    /// What the others are told.
    pub announcement: Announcement,
    /// The bytes.
    pub data: &'a [u8],
    /// A box for each member of the group, in order of places; all lie in `data`.
    pub regions: &'a [Region],
}

/// Where the bytes from the others go. Only [`Communicator`]s write there, and they check the boxes first.
#[derive(Debug)]
pub struct Incoming {
    pub(super) data: NonNull<u8>,
    /// A box for each member of the group, in order of places.
    pub(super) regions: Vec<Region>,
}

impl Incoming {
    /// Memory of `bytes` bytes at `data`, and a box of it for each member of the group. `None` where a box does not lie in it.
    ///
    /// # Safety
    /// The memory must be writable until the exchange that it was made for has returned, and nothing else may read or write
    /// it until then.
    pub unsafe fn new(data: NonNull<u8>, bytes: usize, regions: Vec<Region>) -> Option<Self> {
        let fits = regions.iter().all(|region| region.span().end <= bytes);
        fits.then_some(Self { data, regions })
    }
}

/// The way of one rank to the others.
///
/// All ranks of a group call [`Self::exchange`] in the same order; a call returns when this rank needs the others no more,
/// and they no longer need its memory.
pub trait Communicator: Send + Sync + fmt::Debug {
    /// The mesh of all ranks.
    fn mesh(&self) -> Mesh;

    /// This rank.
    fn rank(&self) -> usize;

    /// Meets the other ranks of the group. `receive` is called once all announcements are there, in order of places, and
    /// says where the bytes go; then every member's box for this rank is copied to its box of the incoming bytes, this rank's
    /// own too.
    ///
    /// # Errors
    /// Whatever `receive` says, [`CollectiveError::TimedOut`] and the errors of other ranks. After an error the communicator
    /// works no more: every later call fails, of this rank and of all others that learn of it.
    fn exchange(
        &self,
        group: Group,
        outgoing: &Outgoing<'_>,
        receive: &mut dyn FnMut(&[Announcement]) -> Result<Incoming, CollectiveError>,
    ) -> Result<(), CollectiveError>;

    /// Ends the run of all ranks because of an error of this one, which need not have to do with an exchange.
    fn fail(&self, error: &CollectiveError);

    /// Why no exchange works any more, if so.
    fn failure(&self) -> Option<CollectiveError>;

    /// What this rank has sent.
    fn traffic(&self) -> &Traffic;

    /// How tensors go that lie on a device, where they need not come to the host first.
    fn device(&self) -> Option<&Nccl> {
        None
    }
}
