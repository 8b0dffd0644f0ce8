//! Ranks that are processes without MPI, or sessions of a host that is not this program: bytes go over TCP.
//!
//! Nothing is encrypted, and who knows the address and the group's name may take part: for networks that are trusted.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    Announcement, CollectiveError, Communicator, Group, Incoming, Mesh, Outgoing, Region, Traffic,
    encoding::{ANNOUNCEMENT, FAILURE, decode_failure, encode_failure},
    operation::copy_box,
    rendezvous::{Failed, Party},
};

/// How often a rank looks for bytes before it leaves the processor to others for a while.
const LOOKS: u32 = 200;
const PAUSE: Duration = Duration::from_micros(50);

/// How long the reason of a rank that is gone may take to come.
const GRACE: Duration = Duration::from_millis(300);

/// One rank's way to the others, over TCP. They find each other in the first exchange.
#[derive(Debug)]
pub struct Sockets {
    party: Party,
    /// By rank, once the others are found.
    links: Mutex<Option<Vec<Option<Link>>>>,
    failure: Mutex<Option<CollectiveError>>,
    traffic: Traffic,
}

/// The connections to one other rank.
#[derive(Debug)]
pub(super) struct Link {
    data: TcpStream,
    control: TcpStream,
    /// What has come of a failure.
    told: Vec<u8>,
    /// The other rank has ended.
    gone: bool,
    sent: Message,
    received: Message,
}

/// Bytes on their way, and how many of them are there.
#[derive(Debug, Default)]
struct Message {
    bytes: Vec<u8>,
    done: usize,
}

impl Message {
    fn reset(&mut self, length: usize) {
        self.bytes.resize(length, 0);
        self.done = 0;
    }

    fn is_done(&self) -> bool {
        self.done == self.bytes.len()
    }

    /// Has `step` move what it can of the rest; whether anything was moved, or none where the other side is gone.
    fn advance(&mut self, mut step: impl FnMut(&mut [u8]) -> std::io::Result<usize>) -> Option<bool> {
        let mut moved = false;
        while !self.is_done() {
            match step(&mut self.bytes[self.done..]) {
                Ok(count) if count > 0 => {
                    self.done += count;
                    moved = true;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                _ => return None,
            }
        }
        Some(moved)
    }
}

impl Link {
    pub(super) fn new(data: TcpStream, control: TcpStream) -> std::io::Result<Self> {
        for stream in [&data, &control] {
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
        }
        Ok(Self {
            data,
            control,
            told: Vec::new(),
            gone: false,
            sent: Message::default(),
            received: Message::default(),
        })
    }

    /// Moves what can be moved; whether anything was.
    fn advance(&mut self) -> bool {
        let (data, sent, received) = (&mut self.data, &mut self.sent, &mut self.received);
        let pushed = sent.advance(|rest| data.write(rest));
        let pulled = received.advance(|rest| data.read(rest));
        self.gone |= pushed.is_none() || pulled.is_none();
        pushed == Some(true) || pulled == Some(true)
    }

    /// The failure that the other rank told, once all of it is there.
    fn failure(&mut self) -> Option<CollectiveError> {
        let mut bytes = [0; FAILURE];
        while self.told.len() < FAILURE {
            match self.control.read(&mut bytes[self.told.len()..]) {
                Ok(count) if count > 0 => {
                    let from = self.told.len();
                    self.told.extend_from_slice(&bytes[from..from + count]);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => return None,
            }
        }
        Some(decode_failure(&self.told))
    }
}

impl Sockets {
    /// Rank `rank` of a mesh, whose rank 0 listens at `address` (`host:port`) once all come to exchange something. `group` is
    /// any name, the same for all ranks of a run, and tells it from others. Nobody is waited for longer than `timeout`.
    ///
    /// # Errors
    /// [`CollectiveError::Mesh`] where the mesh has no such rank.
    pub fn new(
        mesh: Mesh,
        rank: usize,
        address: &str,
        group: &str,
        timeout: Duration,
    ) -> Result<Arc<Self>, CollectiveError> {
        if rank >= mesh.ranks() {
            return Err(CollectiveError::Mesh {
                reason: format!("there is no rank {rank} in {mesh}"),
            });
        }
        Ok(Arc::new(Self {
            party: Party {
                mesh,
                rank,
                address: address.to_owned(),
                group: group.to_owned(),
                timeout,
            },
            links: Mutex::new(None),
            failure: Mutex::new(None),
            traffic: Traffic::default(),
        }))
    }

    fn exchange_on(
        &self,
        links: &mut Option<Vec<Option<Link>>>,
        group: Group,
        outgoing: &Outgoing<'_>,
        receive: &mut dyn FnMut(&[Announcement]) -> Result<Incoming, CollectiveError>,
    ) -> Result<usize, CollectiveError> {
        let visit = Visit {
            party: &self.party,
            group,
            outgoing,
            members: self.party.mesh.members(group, self.party.rank),
            deadline: Instant::now() + self.party.timeout,
        };
        let links = match links {
            Some(links) => links,
            None => links.insert(visit.meet()?),
        };
        visit.exchange(links, receive)
    }

    /// Keeps the first failure; `true` where it is this one.
    fn keep(&self, failure: &CollectiveError) -> bool {
        let mut kept = lock(&self.failure);
        let first = kept.is_none();
        kept.get_or_insert_with(|| failure.clone());
        first
    }

    /// Tells all other ranks.
    fn tell(&self, links: &mut Option<Vec<Option<Link>>>, failure: &CollectiveError) {
        let text = encode_failure(self.party.rank, failure);
        for link in links.iter_mut().flatten().flatten() {
            // It fits what a connection holds that was never written to; who is gone need not know.
            let _ = link.control.write(&text);
        }
    }
}

impl Communicator for Sockets {
    fn mesh(&self) -> Mesh {
        self.party.mesh
    }

    fn rank(&self) -> usize {
        self.party.rank
    }

    fn exchange(
        &self,
        group: Group,
        outgoing: &Outgoing<'_>,
        receive: &mut dyn FnMut(&[Announcement]) -> Result<Incoming, CollectiveError>,
    ) -> Result<(), CollectiveError> {
        let mut links = lock(&self.links);
        if let Some(failure) = self.failure() {
            return Err(failure);
        }
        match self.exchange_on(&mut links, group, outgoing, receive) {
            Ok(bytes) => {
                self.traffic.count(group, bytes);
                Ok(())
            }
            Err(error) => {
                if self.keep(&error) {
                    self.tell(&mut links, &error);
                }
                Err(error)
            }
        }
    }

    fn fail(&self, error: &CollectiveError) {
        if self.keep(error) {
            self.tell(&mut lock(&self.links), error);
        }
    }

    fn failure(&self) -> Option<CollectiveError> {
        lock(&self.failure).clone()
    }

    fn traffic(&self) -> &Traffic {
        &self.traffic
    }
}

/// One exchange.
struct Visit<'a> {
    party: &'a Party,
    group: Group,
    outgoing: &'a Outgoing<'a>,
    members: Vec<usize>,
    deadline: Instant,
}

impl Visit<'_> {
    fn meet(&self) -> Result<Vec<Option<Link>>, CollectiveError> {
        self.party.meet(self.deadline).map_err(|failed| match failed {
            Failed::Error(error) => error,
            // Rank 0 knows who is missing; the others know that somebody is.
            Failed::Missing(missing) if missing.is_empty() => self.party.failed(format!(
                "not all ranks came to {} within {} s: start all of them, or allow more time",
                self.party.address,
                self.party.timeout.as_secs_f64()
            )),
            Failed::Missing(missing) => self.timed_out(missing),
        })
    }

    fn exchange(
        &self,
        links: &mut [Option<Link>],
        receive: &mut dyn FnMut(&[Announcement]) -> Result<Incoming, CollectiveError>,
    ) -> Result<usize, CollectiveError> {
        let outgoing = self.outgoing;
        let fits = outgoing
            .regions
            .iter()
            .all(|region| region.span().end <= outgoing.data.len());
        if outgoing.regions.len() != self.members.len() || !fits {
            return Err(self
                .party
                .failed("a box for each rank of the group, inside of the data, has to be offered".to_owned()));
        }
        let own = outgoing.announcement.encode();
        for other in &self.members {
            if let Some(link) = &mut links[*other] {
                link.sent.reset(ANNOUNCEMENT);
                link.sent.bytes.copy_from_slice(&own);
                link.received.reset(ANNOUNCEMENT);
            }
        }
        self.transfer(links)?;
        let mut announcements = Vec::with_capacity(self.members.len());
        for other in &self.members {
            let bytes = links[*other]
                .as_ref()
                .map_or(own.as_slice(), |link| &link.received.bytes);
            let announcement = Announcement::decode(bytes);
            announcements.push(announcement.ok_or_else(|| {
                self.party.failed(format!(
                    "rank {other} is of another version of this program: start all ranks with the same"
                ))
            })?);
        }

        let incoming = receive(&announcements)?;
        let sizes = || {
            self.party
                .failed("parts of other sizes were announced than came".to_owned())
        };
        if incoming.regions.len() != self.members.len() {
            return Err(sizes());
        }
        let mut bytes = 0;
        let boxes = || outgoing.regions.iter().zip(&incoming.regions).zip(&self.members);
        for ((region, to), other) in boxes() {
            let Some(link) = &mut links[*other] else {
                // SAFETY: the region lies in the data, and `Incoming` is writable memory that nothing else uses.
                let copied = unsafe { copy_box(outgoing.data.as_ptr(), region, incoming.data.as_ptr(), to) };
                copied.ok_or_else(sizes)?;
                continue;
            };
            bytes += region.len();
            link.sent.reset(region.len());
            link.received.reset(to.len());
            let (data, packed) = (outgoing.data.as_ptr(), Region::packed(region));
            // SAFETY: the region lies in the data, and the buffer has the size of the packed box.
            unsafe { copy_box(data, region, link.sent.bytes.as_mut_ptr(), &packed) }.ok_or_else(sizes)?;
        }
        self.transfer(links)?;
        for ((_, to), other) in boxes() {
            if let Some(link) = &links[*other] {
                let (data, packed) = (link.received.bytes.as_ptr(), Region::packed(to));
                // SAFETY: the buffer has the size of the packed box, and `Incoming` is writable memory of this rank alone.
                unsafe { copy_box(data, &packed, incoming.data.as_ptr(), to) }.ok_or_else(sizes)?;
            }
        }
        Ok(bytes)
    }

    /// Sends and receives what lies ready, with all members of the group at once.
    fn transfer(&self, links: &mut [Option<Link>]) -> Result<(), CollectiveError> {
        let mut looks = 0;
        loop {
            let mut moved = false;
            let mut open = Vec::new();
            let mut gone = Vec::new();
            for other in &self.members {
                let Some(link) = &mut links[*other] else { continue };
                moved |= link.advance();
                if !link.sent.is_done() || !link.received.is_done() {
                    open.push(*other);
                    if link.gone {
                        gone.push(*other);
                    }
                }
            }
            if open.is_empty() {
                return Ok(());
            }
            if !gone.is_empty() {
                return Err(self.reason(links, gone));
            }
            if moved {
                looks = 0;
                continue;
            }
            looks += 1;
            if looks < LOOKS {
                std::thread::yield_now();
                continue;
            }
            if let Some(failure) = told(links) {
                return Err(failure);
            }
            if Instant::now() >= self.deadline {
                let waiting = |other: &usize| links[*other].as_ref().is_some_and(|link| !link.received.is_done());
                let silent: Vec<usize> = open.iter().copied().filter(waiting).collect();
                return Err(self.timed_out(if silent.is_empty() { open } else { silent }));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Why ranks are gone: what one told, or that they ended.
    fn reason(&self, links: &mut [Option<Link>], gone: Vec<usize>) -> CollectiveError {
        let end = self.deadline.min(Instant::now() + GRACE);
        loop {
            if let Some(failure) = told(links) {
                return failure;
            }
            if Instant::now() >= end {
                break;
            }
            std::thread::sleep(PAUSE);
        }
        CollectiveError::Left {
            rank: self.party.rank,
            operation: self.outgoing.announcement.operation,
            node: self.outgoing.node.to_owned(),
            group: self.group,
            missing: gone,
        }
    }

    fn timed_out(&self, missing: Vec<usize>) -> CollectiveError {
        CollectiveError::TimedOut {
            rank: self.party.rank,
            operation: self.outgoing.announcement.operation,
            node: self.outgoing.node.to_owned(),
            group: self.group,
            missing,
            timeout: self.party.timeout,
        }
    }
}

/// What any rank told of its failure.
fn told(links: &mut [Option<Link>]) -> Option<CollectiveError> {
    links.iter_mut().flatten().find_map(Link::failure)
}

/// Nothing is done under these locks that can panic half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
