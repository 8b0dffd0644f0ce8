//! Ranks that are threads of one process: bytes are copied once, from one rank's tensor to the other's.

use std::{
    fmt,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use super::{
    Announcement, CollectiveError, Communicator, Group, Incoming, Mesh, Outgoing, Region, Traffic, operation::copy_box,
};

/// How long a rank waits for the others where nothing else was said.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// The ranks of a mesh, as threads of this process.
pub struct World {
    mesh: Mesh,
    timeout: Duration,
    /// Why all ranks end.
    failure: Mutex<Option<CollectiveError>>,
    /// For each rank whether a thread has it, and whether it had one and has it no more.
    joined: Vec<AtomicBool>,
    departed: Vec<AtomicBool>,
    /// The places where ranks meet, one for each group of ranks along each axis.
    meetings: Vec<Meeting>,
    /// For each rank, the meeting of each of its groups.
    meeting_of: Vec<[usize; 3]>,
}

/// Where the ranks of one group meet, again and again.
#[derive(Default)]
struct Meeting {
    state: Mutex<State>,
    changed: Condvar,
    /// The ranks of the group, in order of their places.
    members: Vec<usize>,
}

/// One exchange after the other: all come, all copy what is theirs, all go.
#[derive(Default)]
struct State {
    /// What the members offer; `None` for those who have not come.
    offers: Vec<Option<Offer>>,
    /// How many are copying from the offers of others.
    reading: usize,
    /// How many have what they came for.
    done: usize,
    /// Counts exchanges.
    generation: u64,
}

/// What one member offers. The memory is readable until the offer is taken back, which waits for those who read.
#[derive(Clone)]
struct Offer {
    announcement: Announcement,
    data: *const u8,
    regions: Arc<[Region]>,
}

// SAFETY: the pointer is only read from, and only while the owner waits.
unsafe impl Send for Offer {}

impl World {
    /// A world whose ranks wait at most `timeout` for each other.
    #[must_use]
    pub fn new(mesh: Mesh, timeout: Duration) -> Arc<World> {
        let mut meetings: Vec<Meeting> = Vec::new();
        let mut meeting_of = vec![[0; 3]; mesh.ranks()];
        for group in Group::ALL {
            for rank in (0..mesh.ranks()).filter(|rank| mesh.place(group, *rank) == 0) {
                let members = mesh.members(group, rank);
                for member in &members {
                    meeting_of[*member][group.index()] = meetings.len();
                }
                meetings.push(Meeting {
                    state: Mutex::new(State {
                        offers: vec![None; members.len()],
                        ..State::default()
                    }),
                    members,
                    ..Meeting::default()
                });
            }
        }
        let flags = || (0..mesh.ranks()).map(|_| AtomicBool::new(false)).collect();
        Arc::new(World {
            mesh,
            timeout,
            failure: Mutex::new(None),
            joined: flags(),
            departed: flags(),
            meetings,
            meeting_of,
        })
    }

    /// The mesh of its ranks.
    #[must_use]
    pub fn mesh(&self) -> Mesh {
        self.mesh
    }

    /// How long a rank waits for the others.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Takes a rank. Dropping it tells those who wait for it that it does not come any more.
    ///
    /// # Errors
    /// [`CollectiveError::Mesh`] where there is no such rank, or it is taken.
    pub fn join(self: &Arc<Self>, rank: usize) -> Result<Arc<Rank>, CollectiveError> {
        let refuse = |reason: String| Err(CollectiveError::Mesh { reason });
        let Some(joined) = self.joined.get(rank) else {
            return refuse(format!("there is no rank {rank} in {}", self.mesh));
        };
        if joined.swap(true, SeqCst) {
            return refuse(format!(
                "rank {rank} is taken already: every rank is a thread of its own"
            ));
        }
        self.departed[rank].store(false, SeqCst);
        Ok(Arc::new(Rank {
            world: self.clone(),
            rank,
            exchanging: AtomicBool::new(false),
            traffic: Traffic::default(),
        }))
    }

    /// Why no exchange works any more, if so.
    #[must_use]
    pub fn failure(&self) -> Option<CollectiveError> {
        lock(&self.failure).clone()
    }

    /// Ends the run of all ranks from outside of them.
    pub(super) fn abandon(&self, failure: CollectiveError) {
        self.fail(failure);
    }

    /// Keeps the first failure, and wakes everyone.
    fn fail(&self, failure: CollectiveError) {
        lock(&self.failure).get_or_insert(failure);
        self.wake();
    }

    fn wake(&self) {
        for meeting in &self.meetings {
            // Who waits has looked before it sleeps, and holds the lock in between.
            drop(lock(&meeting.state));
            meeting.changed.notify_all();
        }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut world = formatter.debug_struct("World");
        world.field("mesh", &self.mesh).field("timeout", &self.timeout);
        world.field("failure", &self.failure()).finish_non_exhaustive()
    }
}

/// One rank of a [`World`].
#[derive(Debug)]
pub struct Rank {
    world: Arc<World>,
    rank: usize,
    exchanging: AtomicBool,
    traffic: Traffic,
}

impl Rank {
    /// The ranks that it is one of.
    #[must_use]
    pub fn world(&self) -> &Arc<World> {
        &self.world
    }
}

impl Drop for Rank {
    fn drop(&mut self) {
        self.world.departed[self.rank].store(true, SeqCst);
        self.world.joined[self.rank].store(false, SeqCst);
        self.world.wake();
    }
}

impl Communicator for Rank {
    fn mesh(&self) -> Mesh {
        self.world.mesh
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
        let meeting = &self.world.meetings[self.world.meeting_of[self.rank][group.index()]];
        let visit = Visit {
            rank: self,
            meeting,
            group,
            outgoing,
            place: self.world.mesh.place(group, self.rank),
            deadline: Instant::now() + self.world.timeout,
        };
        let bytes = visit.outgoing_bytes()?;
        // What a second thread offered would take the place of what others read.
        if self.exchanging.swap(true, SeqCst) {
            return Err(visit.transport("two threads exchange at once; one session of a rank runs after the other"));
        }
        let result = visit.exchange(receive);
        match &result {
            Ok(()) => self.traffic.count(group, bytes),
            Err(error) => {
                self.world.fail(error.clone());
                visit.take_back();
            }
        }
        self.exchanging.store(false, SeqCst);
        result
    }

    fn fail(&self, error: &CollectiveError) {
        let failure = match error {
            // The errors that name the rank stay as they are.
            CollectiveError::TimedOut { .. } | CollectiveError::Left { .. } | CollectiveError::Failed { .. } => {
                error.clone()
            }
            _ => CollectiveError::Failed {
                rank: self.rank,
                reason: error.to_string(),
            },
        };
        self.world.fail(failure);
    }

    fn failure(&self) -> Option<CollectiveError> {
        self.world.failure()
    }

    fn traffic(&self) -> &Traffic {
        &self.traffic
    }
}

/// One rank in one exchange.
struct Visit<'a> {
    rank: &'a Rank,
    meeting: &'a Meeting,
    group: Group,
    outgoing: &'a Outgoing<'a>,
    place: usize,
    deadline: Instant,
}

impl Visit<'_> {
    fn exchange(
        &self,
        receive: &mut dyn FnMut(&[Announcement]) -> Result<Incoming, CollectiveError>,
    ) -> Result<(), CollectiveError> {
        let mut state = lock(&self.meeting.state);
        let generation = state.generation;
        state.offers[self.place] = Some(Offer {
            announcement: self.outgoing.announcement,
            data: self.outgoing.data.as_ptr(),
            regions: self.outgoing.regions.into(),
        });
        if state.offers.iter().all(Option::is_some) {
            self.meeting.changed.notify_all();
        }
        state = self.wait(state, |state| state.offers.iter().all(Option::is_some))?;
        let offers: Vec<Offer> = state.offers.iter().flatten().cloned().collect();
        drop(state);
        let announcements: Vec<Announcement> = offers.iter().map(|offer| offer.announcement).collect();
        let incoming = receive(&announcements)?;

        state = lock(&self.meeting.state);
        if let Some(failure) = self.rank.world.failure() {
            return Err(failure);
        }
        state.reading += 1;
        drop(state);
        let copied = self.copy(&offers, &incoming);
        state = lock(&self.meeting.state);
        state.reading -= 1;
        self.meeting.changed.notify_all();
        copied?;
        state.done += 1;
        if state.done == offers.len() {
            state.offers.fill(None);
            state.done = 0;
            state.generation += 1;
        } else {
            drop(self.wait(state, |state| state.generation != generation)?);
        }
        Ok(())
    }

    /// Copies what everyone has for this rank.
    fn copy(&self, offers: &[Offer], incoming: &Incoming) -> Result<(), CollectiveError> {
        if incoming.regions.len() != offers.len() {
            return Err(self.transport("a place for the bytes of each rank of the group is needed"));
        }
        for (offer, to) in offers.iter().zip(&incoming.regions) {
            let from = &offer.regions[self.place];
            // SAFETY: every rank checked that its regions lie in what it offers, and leaves its memory alone while this one
            // counts as reading; `Incoming` is writable memory of this rank alone.
            let copied = unsafe { copy_box(offer.data, from, incoming.data.as_ptr(), to) };
            copied.ok_or_else(|| self.transport("parts of other sizes were announced than came"))?;
        }
        Ok(())
    }

    /// Bytes for other ranks, once the regions are known to lie in the data.
    fn outgoing_bytes(&self) -> Result<usize, CollectiveError> {
        let regions = self.outgoing.regions;
        let fits = regions
            .iter()
            .all(|region| region.span().end <= self.outgoing.data.len());
        if regions.len() != self.meeting.members.len() || !fits {
            return Err(self.transport("a box for each rank of the group, inside of the data, has to be offered"));
        }
        let others = regions.iter().enumerate().filter(|(place, _)| *place != self.place);
        Ok(others.map(|(_, region)| region.len()).sum())
    }

    /// Waits for `ready`, but not longer than the time-out, nor for ranks that are gone.
    fn wait<'s>(
        &self,
        mut state: MutexGuard<'s, State>,
        ready: impl Fn(&State) -> bool,
    ) -> Result<MutexGuard<'s, State>, CollectiveError> {
        loop {
            if ready(&state) {
                return Ok(state);
            }
            if let Some(failure) = self.rank.world.failure() {
                return Err(failure);
            }
            let missing = self
                .meeting
                .members
                .iter()
                .zip(&state.offers)
                .filter(|(_, offer)| offer.is_none());
            let missing: Vec<usize> = missing.map(|(member, _)| *member).collect();
            let gone = |rank: &usize| self.rank.world.departed[*rank].load(SeqCst);
            let (rank, group) = (self.rank.rank, self.group);
            let (operation, node) = (self.outgoing.announcement.operation, self.outgoing.node.to_owned());
            if missing.iter().any(gone) {
                return Err(CollectiveError::Left {
                    rank,
                    operation,
                    node,
                    group,
                    missing: missing.into_iter().filter(gone).collect(),
                });
            }
            let now = Instant::now();
            if now >= self.deadline {
                return Err(CollectiveError::TimedOut {
                    rank,
                    operation,
                    node,
                    group,
                    missing,
                    timeout: self.rank.world.timeout,
                });
            }
            let waited = self.meeting.changed.wait_timeout(state, self.deadline - now);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes the offer back after a failure, once no one reads it any more; that takes no longer than a copy.
    fn take_back(&self) {
        let mut state = lock(&self.meeting.state);
        while state.reading > 0 {
            state = self.meeting.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.offers[self.place] = None;
    }

    fn transport(&self, reason: &str) -> CollectiveError {
        CollectiveError::Transport {
            rank: self.rank.rank,
            transport: "shared memory",
            reason: reason.to_owned(),
        }
    }
}

/// Nothing is done under these locks that can panic half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
