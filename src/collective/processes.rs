//! Ranks that are processes, started by `mpirun` on one host or several: bytes go through MPI.
//!
//! Every call is nonblocking and polled against a deadline, and a rank that fails tells all others. Which MPI is used, and
//! how ranks are launched and cleaned up, is that of the installation: a process that ends without [`Processes`] having been
//! dropped in peace makes `mpirun` end all others.

mod messages;

use std::{
    ffi::c_int,
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use mpi::{environment::Threading, ffi};

use super::{
    Announcement, CollectiveError, Communicator, Group, Incoming, Mesh, Outgoing, Region, Traffic,
    encoding::ANNOUNCEMENT, operation::copy_box,
};
use crate::stop::Stop;
use messages::{ANNOUNCEMENTS, FAILURE, PAYLOAD, Wire, no_request};

/// How long a rank that has failed stays, so that the others are told before `mpirun` ends them.
const GRACE: Duration = Duration::from_secs(1);

/// The ranks of a mesh, as processes: this one's way to the others.
pub struct Processes {
    mesh: Mesh,
    rank: usize,
    timeout: Duration,
    wire: Mutex<Wire>,
    failure: Mutex<Option<CollectiveError>>,
    traffic: Traffic,
    stop: OnceLock<Stop>,
}

impl Processes {
    /// Starts MPI in this process, once, and makes it a rank of the mesh that `mesh` says for this number of processes.
    ///
    /// # Errors
    /// [`CollectiveError::Transport`] where MPI does not start, [`CollectiveError::Mesh`] where the mesh has another number of
    /// ranks.
    pub fn start(
        timeout: Duration,
        mesh: impl FnOnce(usize) -> Result<Mesh, CollectiveError>,
    ) -> Result<Arc<Self>, CollectiveError> {
        let refuse = |rank: usize, reason: &str| CollectiveError::Transport {
            rank,
            transport: "MPI",
            reason: reason.to_owned(),
        };
        let started = mpi::initialize_with_threading(Threading::Serialized);
        let (universe, threading) = started.ok_or_else(|| refuse(0, "it was started before in this process"))?;
        // Finalizing waits for all ranks, for ever where one is dead: this module does it where all are well.
        std::mem::forget(universe);
        // SAFETY: MPI's constant.
        let mut communicator = unsafe { ffi::RSMPI_COMM_NULL };
        let (mut rank, mut size): (c_int, c_int) = (0, 0);
        // SAFETY: MPI is initialized, and the pointers are to locals.
        unsafe {
            ffi::MPI_Comm_dup(ffi::RSMPI_COMM_WORLD, &raw mut communicator);
            ffi::MPI_Comm_set_errhandler(communicator, ffi::RSMPI_ERRORS_RETURN);
            ffi::MPI_Comm_rank(communicator, &raw mut rank);
            ffi::MPI_Comm_size(communicator, &raw mut size);
        }
        let (rank, size) = (usize::try_from(rank).unwrap_or(0), usize::try_from(size).unwrap_or(0));
        if threading < Threading::Serialized {
            return Err(refuse(rank, "this MPI was built without support for threads"));
        }
        let mesh = mesh(size)?;
        if mesh.ranks() != size {
            return Err(CollectiveError::Mesh {
                reason: format!(
                    "{mesh} are {}, and mpirun started {size} processes: start as many (-n)",
                    mesh.ranks()
                ),
            });
        }
        Ok(Arc::new(Self {
            mesh,
            rank,
            timeout,
            wire: Mutex::new(Wire {
                communicator,
                ended: false,
                outgoing: Vec::new(),
                incoming: Vec::new(),
            }),
            failure: Mutex::new(None),
            traffic: Traffic::default(),
            stop: OnceLock::new(),
        }))
    }

    /// Ends MPI once all ranks are here. What this process does afterwards concerns no other.
    ///
    /// # Errors
    /// [`CollectiveError::NoEnd`] where ranks do not come in time, and what they tell of a failure.
    pub fn end(&self) -> Result<(), CollectiveError> {
        let mut wire = lock(&self.wire);
        if let Some(failure) = self.failure() {
            return Err(failure);
        }
        if wire.ended {
            return Ok(());
        }
        match self.meet_at_the_end(wire.communicator) {
            Ok(()) => {
                wire.ended = true;
                // SAFETY: all ranks are here, and nothing is on its way.
                unsafe { ffi::MPI_Finalize() };
                Ok(())
            }
            Err(error) => {
                if self.keep(&error) || self.rank == 0 {
                    self.tell(&wire, &error);
                }
                Err(error)
            }
        }
    }

    /// Waits until all ranks are here, but not longer than the time-out.
    fn meet_at_the_end(&self, communicator: ffi::MPI_Comm) -> Result<(), CollectiveError> {
        let deadline = Instant::now() + self.timeout;
        let mut request = no_request();
        // SAFETY: MPI is initialized, and the request is tested until it is done, or left to the end of the process.
        let code = unsafe { ffi::MPI_Ibarrier(communicator, &raw mut request) };
        self.check(code)?;
        loop {
            let mut done: c_int = 0;
            // SAFETY: the request is MPI's own and not done yet.
            let code = unsafe { ffi::MPI_Test(&raw mut request, &raw mut done, ffi::RSMPI_STATUS_IGNORE) };
            self.check(code)?;
            if done != 0 {
                return Ok(());
            }
            if let Some(failure) = self.told(communicator)? {
                return Err(failure);
            }
            self.check_stop()?;
            if Instant::now() >= deadline {
                return Err(CollectiveError::NoEnd {
                    rank: self.rank,
                    timeout: self.timeout,
                });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether rank 0 tells of a failure within a second. It answers whoever tells it of one, so that a rank whose own
    /// failure is known there need not show it.
    #[must_use]
    pub fn first_rank_knows(&self) -> bool {
        let wire = lock(&self.wire);
        if wire.ended {
            return false;
        }
        let end = Instant::now() + GRACE;
        while Instant::now() < end {
            let mut there: c_int = 0;
            // SAFETY: the pointer is to a local.
            let code =
                unsafe { ffi::MPI_Iprobe(0, FAILURE, wire.communicator, &raw mut there, ffi::RSMPI_STATUS_IGNORE) };
            if code != ffi::MPI_SUCCESS as c_int || there != 0 {
                return there != 0;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        false
    }

    /// From now on this rank waits for no other where `stop` is asked: a launcher that ends all ranks asks them to stop first.
    pub fn stop_on(&self, stop: Stop) {
        // The first one counts.
        let _ = self.stop.set(stop);
    }

    /// The end of a wait that someone asked for.
    fn check_stop(&self) -> Result<(), CollectiveError> {
        let Some(Err(stopped)) = self.stop.get().map(Stop::check) else {
            return Ok(());
        };
        Err(CollectiveError::Failed {
            rank: self.rank,
            reason: stopped.to_string(),
        })
    }

    fn exchange_on(
        &self,
        wire: &mut Wire,
        group: Group,
        outgoing: &Outgoing<'_>,
        receive: &mut dyn FnMut(&[Announcement]) -> Result<Incoming, CollectiveError>,
    ) -> Result<usize, CollectiveError> {
        let deadline = Instant::now() + self.timeout;
        let members = self.mesh.members(group, self.rank);
        let place = self.mesh.place(group, self.rank);
        let fits = outgoing
            .regions
            .iter()
            .all(|region| region.span().end <= outgoing.data.len());
        if outgoing.regions.len() != members.len() || !fits {
            return Err(
                self.transport("a box for each rank of the group, inside of the data, has to be offered".to_owned())
            );
        }
        let shift = group.index() as c_int;
        wire.outgoing.resize_with(members.len(), Vec::new);
        wire.incoming.resize_with(members.len(), Vec::new);

        // Announcements, of one size.
        let own = outgoing.announcement.encode();
        for (sent, received) in wire.outgoing.iter_mut().zip(&mut wire.incoming) {
            sent.clear();
            sent.extend_from_slice(&own);
            received.clear();
            received.resize(ANNOUNCEMENT, 0);
        }
        self.transfer(wire, &members, place, ANNOUNCEMENTS + shift, deadline, outgoing, group)?;
        let mut announcements = Vec::with_capacity(members.len());
        for (received, other) in wire.incoming.iter().zip(&members) {
            let bytes = if *other == self.rank { own.as_slice() } else { received };
            let announcement = Announcement::decode(bytes);
            announcements.push(announcement.ok_or_else(|| {
                self.transport(format!(
                    "rank {other} is of another version of this program: start all ranks with the same"
                ))
            })?);
        }

        let incoming = receive(&announcements)?;
        if incoming.regions.len() != members.len() {
            return Err(self.transport("a place for the bytes of each rank of the group is needed".to_owned()));
        }
        let sizes = || self.transport("parts of other sizes were announced than came".to_owned());
        let mut bytes = 0;
        for (member, region) in outgoing.regions.iter().enumerate() {
            let to = &incoming.regions[member];
            if member == place {
                // SAFETY: the region lies in the data, and `Incoming` is writable memory that nothing else uses.
                let copied = unsafe { copy_box(outgoing.data.as_ptr(), region, incoming.data.as_ptr(), to) };
                copied.ok_or_else(sizes)?;
                continue;
            }
            bytes += region.len();
            let (sent, received) = (&mut wire.outgoing[member], &mut wire.incoming[member]);
            sent.resize(region.len(), 0);
            received.resize(to.len(), 0);
            // SAFETY: the region lies in the data, and the buffer has the size of the packed box.
            unsafe {
                copy_box(
                    outgoing.data.as_ptr(),
                    region,
                    sent.as_mut_ptr(),
                    &Region::packed(region),
                )
            }
            .ok_or_else(sizes)?;
        }
        self.transfer(wire, &members, place, PAYLOAD + shift, deadline, outgoing, group)?;
        for (member, to) in incoming
            .regions
            .iter()
            .enumerate()
            .filter(|(member, _)| *member != place)
        {
            let received = &wire.incoming[member];
            // SAFETY: the buffer has the size of the packed box, and `Incoming` is writable memory that nothing else uses.
            unsafe { copy_box(received.as_ptr(), &Region::packed(to), incoming.data.as_ptr(), to) }
                .ok_or_else(sizes)?;
        }
        Ok(bytes)
    }

    /// Keeps the first failure; `true` where it is this one.
    fn keep(&self, failure: &CollectiveError) -> bool {
        let mut kept = lock(&self.failure);
        let first = kept.is_none();
        kept.get_or_insert_with(|| failure.clone());
        first
    }

    fn transport(&self, reason: String) -> CollectiveError {
        CollectiveError::Transport {
            rank: self.rank,
            transport: "MPI",
            reason,
        }
    }
}

impl Communicator for Processes {
    fn mesh(&self) -> Mesh {
        self.mesh
    }

    fn rank(&self) -> usize {
        self.rank
    }

    fn exchange(
        &self,
        group: Group,
        outgoing: &Outgoing<'_>,
        receive: &mut dyn FnMut(&[Announcement]) -> Result<Incoming, CollectiveError>,
    ) -> Result<(), CollectiveError> {
        let mut wire = lock(&self.wire);
        if let Some(failure) = self.failure() {
            return Err(failure);
        }
        if wire.ended {
            return Err(self.transport("it has ended".to_owned()));
        }
        match self.exchange_on(&mut wire, group, outgoing, receive) {
            Ok(bytes) => {
                self.traffic.count(group, bytes);
                Ok(())
            }
            Err(error) => {
                // Rank 0 answers.
                if self.keep(&error) || self.rank == 0 {
                    self.tell(&wire, &error);
                }
                Err(error)
            }
        }
    }

    fn fail(&self, error: &CollectiveError) {
        if self.keep(error) {
            let wire = lock(&self.wire);
            if !wire.ended {
                self.tell(&wire, error);
            }
        }
    }

    fn failure(&self) -> Option<CollectiveError> {
        lock(&self.failure).clone()
    }

    fn traffic(&self) -> &Traffic {
        &self.traffic
    }
}

impl Drop for Processes {
    /// Ends MPI where all ranks are well and come in time. After a failure MPI is left as it is, and `mpirun` ends the ranks that
    /// hang once this process ends.
    fn drop(&mut self) {
        if self.end().is_ok() {
            return;
        }
        // Messages only move inside of MPI's calls.
        let communicator = lock(&self.wire).communicator;
        let end = Instant::now() + GRACE;
        while Instant::now() < end {
            let _ = self.told(communicator);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl fmt::Debug for Processes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut processes = formatter.debug_struct("Processes");
        processes
            .field("mesh", &self.mesh)
            .field("rank", &self.rank)
            .field("timeout", &self.timeout);
        processes.field("failure", &self.failure()).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
