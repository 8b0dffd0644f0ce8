//! Messages between processes: sent and received without waiting, and polled until all are through.

use std::{ffi::c_int, time::Instant};

use mpi::ffi;

use super::Processes;
use crate::collective::{
    CollectiveError, Group, Outgoing,
    encoding::{FAILURE as FAILED, decode_failure, encode_failure},
};

/// Bytes of one message; larger tensors go in several. MPI counts in C's `int`.
const MESSAGE: usize = 64 << 20;

/// Tags of messages.
pub(super) const ANNOUNCEMENTS: c_int = 0;
pub(super) const PAYLOAD: c_int = 10;
pub(super) const FAILURE: c_int = 20;

/// MPI's handle, and buffers for what is on its way. They are this module's own and live as long as the process where
/// messages are never completed: MPI may use them until then.
pub(super) struct Wire {
    pub communicator: ffi::MPI_Comm,
    /// Whether MPI has ended, and may be called no more.
    pub ended: bool,
    pub outgoing: Vec<Vec<u8>>,
    pub incoming: Vec<Vec<u8>>,
}

// SAFETY: MPI was started for calls from any thread, one at a time, which the lock around it sees to.
unsafe impl Send for Wire {}

/// A message on its way, and the rank at its other end.
pub(super) struct Request {
    pub request: ffi::MPI_Request,
    pub other: usize,
}

impl Processes {
    /// Sends each member its outgoing buffer, and fills the incoming ones.
    #[allow(clippy::too_many_arguments)] // They are one call's, and pass through.
    pub(super) fn transfer(
        &self,
        wire: &mut Wire,
        members: &[usize],
        place: usize,
        tag: c_int,
        deadline: Instant,
        outgoing: &Outgoing<'_>,
        group: Group,
    ) -> Result<(), CollectiveError> {
        let communicator = wire.communicator;
        let mut requests = Vec::with_capacity(2 * members.len());
        for (member, other) in members.iter().enumerate().filter(|(member, _)| *member != place) {
            let rank = *other as c_int;
            for part in wire.incoming[member].chunks_mut(MESSAGE) {
                let mut request = no_request();
                // SAFETY: the buffer stays where it is until the request is done, or for ever.
                let code = unsafe {
                    ffi::MPI_Irecv(
                        part.as_mut_ptr().cast(),
                        part.len() as c_int,
                        ffi::RSMPI_UINT8_T,
                        rank,
                        tag,
                        communicator,
                        &raw mut request,
                    )
                };
                self.check(code)?;
                requests.push(Request { request, other: *other });
            }
            for part in wire.outgoing[member].chunks(MESSAGE) {
                requests.push(self.send(communicator, part, *other, tag)?);
            }
        }
        loop {
            // What is done, is gone.
            let mut pending = Vec::with_capacity(requests.len());
            for mut request in requests {
                let mut done: c_int = 0;
                // SAFETY: the request is MPI's own and not done yet.
                let code = unsafe { ffi::MPI_Test(&raw mut request.request, &raw mut done, ffi::RSMPI_STATUS_IGNORE) };
                self.check(code)?;
                if done == 0 {
                    pending.push(request);
                }
            }
            requests = pending;
            if requests.is_empty() {
                return Ok(());
            }
            if let Some(failure) = self.told(communicator)? {
                return Err(failure);
            }
            self.check_stop()?;
            if Instant::now() >= deadline {
                let mut missing: Vec<usize> = requests.iter().map(|request| request.other).collect();
                missing.sort_unstable();
                missing.dedup();
                return Err(CollectiveError::TimedOut {
                    rank: self.rank,
                    operation: outgoing.announcement.operation,
                    node: outgoing.node.to_owned(),
                    group,
                    missing,
                    timeout: self.timeout,
                });
            }
            // Where ranks share a core, the others need it.
            std::thread::yield_now();
        }
    }

    pub(super) fn send(
        &self,
        communicator: ffi::MPI_Comm,
        data: &[u8],
        other: usize,
        tag: c_int,
    ) -> Result<Request, CollectiveError> {
        let mut request = no_request();
        // SAFETY: the buffer stays where it is until the request is done, or for ever.
        let code = unsafe {
            ffi::MPI_Isend(
                data.as_ptr().cast(),
                data.len() as c_int,
                ffi::RSMPI_UINT8_T,
                other as c_int,
                tag,
                communicator,
                &raw mut request,
            )
        };
        self.check(code)?;
        Ok(Request { request, other })
    }

    /// What another rank told of its failure, if one did.
    pub(super) fn told(&self, communicator: ffi::MPI_Comm) -> Result<Option<CollectiveError>, CollectiveError> {
        let mut there: c_int = 0;
        let (any, ignore) = unsafe { (ffi::RSMPI_ANY_SOURCE, ffi::RSMPI_STATUS_IGNORE) };
        // SAFETY: the pointer is to a local.
        let code = unsafe { ffi::MPI_Iprobe(any, FAILURE, communicator, &raw mut there, ignore) };
        self.check(code)?;
        if there == 0 {
            return Ok(None);
        }
        let mut text = [0_u8; FAILED];
        // SAFETY: messages of this tag have this size, and one is there.
        let code = unsafe {
            ffi::MPI_Recv(
                text.as_mut_ptr().cast(),
                FAILED as c_int,
                ffi::RSMPI_UINT8_T,
                any,
                FAILURE,
                communicator,
                ignore,
            )
        };
        self.check(code)?;
        Ok(Some(decode_failure(&text)))
    }

    /// Tells all other ranks, without waiting for them.
    pub(super) fn tell(&self, wire: &Wire, failure: &CollectiveError) {
        // The others may take it at any time.
        let text: &'static [u8] = encode_failure(self.rank, failure).leak();
        for other in (0..self.mesh.ranks()).filter(|other| *other != self.rank) {
            // Who cannot be told finds out when the time is over.
            let _ = self.send(wire.communicator, text, other, FAILURE);
        }
    }

    pub(super) fn check(&self, code: c_int) -> Result<(), CollectiveError> {
        if code == ffi::MPI_SUCCESS as c_int {
            return Ok(());
        }
        let mut text = vec![0_u8; ffi::MPI_MAX_ERROR_STRING as usize + 1];
        let mut length: c_int = 0;
        // SAFETY: the buffer has the size that MPI asks for.
        unsafe { ffi::MPI_Error_string(code, text.as_mut_ptr().cast(), &raw mut length) };
        text.truncate(usize::try_from(length).unwrap_or(0));
        Err(self.transport(String::from_utf8_lossy(&text).into_owned()))
    }
}

pub(super) fn no_request() -> ffi::MPI_Request {
    // SAFETY: MPI's constant.
    unsafe { ffi::RSMPI_REQUEST_NULL }
}
