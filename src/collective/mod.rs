//! Tensors moved among the ranks of a split run.
//!
//! A split model runs once for each rank, and its operators of domain `ai.pab` ([`Operators`]) exchange parts of tensors. The
//! ranks form a [`Mesh`] of guidance, sequence and tensor ranks; each operator runs over one [`Group`] of it. How bytes
//! get from rank to rank is a [`Communicator`]'s matter, and [`operation`] has everything that communicators share: which
//! box of which tensor goes where. [`World`] is the communicator of ranks that are threads of one process, [`Sockets`] that
//! of ranks that meet over TCP, and `Processes` (feature `mpi`) that of ranks that `mpirun` starts. With a GPU for each rank,
//! [`Nccl`] moves tensors between devices, and one of the others brings the ranks together. Hosts of ONNX Runtime
//! that are not this program get the operators from a shared library ([`host`]).
//!
//! A rank that fails, leaves, or asks for something else than the others makes the call of every rank fail, at once or
//! when the communicator's time-out is over; nothing waits for ever.

mod communicator;
mod device;
mod element;
mod encoding;
mod error;
mod gather;
pub mod groups;
mod handshake;
pub mod host;
mod launch;
mod layout;
mod mesh;
mod nccl;
pub mod operation;
mod operators;
#[cfg(feature = "mpi")]
mod processes;
mod ranks;
mod region;
mod rendezvous;
mod sockets;
mod sum;
#[cfg(test)]
mod tests;
mod threads;
mod traffic;

#[cfg(feature = "mpi")]
pub use self::processes::Processes;
pub use self::{
    communicator::{Announcement, Communicator, Incoming, Outgoing},
    element::Element,
    error::CollectiveError,
    gather::gather,
    handshake::{Identity, handshake},
    launch::{is_first_process, launched, on_this_host},
    mesh::{Group, Mesh, part},
    nccl::library::VARIABLE as NCCL_VARIABLE,
    nccl::{Nccl, Stream},
    operation::Operation,
    operators::{DOMAIN, Operators, Seat, VERSION},
    ranks::{Followers, RanksError, run_ranks},
    region::Region,
    sockets::Sockets,
    threads::{DEFAULT_TIMEOUT, Rank, World},
    traffic::{Sent, Traffic},
};
