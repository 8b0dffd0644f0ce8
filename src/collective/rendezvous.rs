//! How ranks on one host or several find each other: all know the address where rank 0 listens.
//!
//! Every rank but 0 calls rank 0 and says where it listens itself; once all have called, rank 0 tells everyone where the others
//! are, and each calls those of lower numbers. Two connections join each pair: one for what is exchanged, one for failures.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

use super::{CollectiveError, Mesh, sockets::Link};

/// Between two looks at what does not come by itself.
const PAUSE: Duration = Duration::from_millis(5);

/// How long a stranger may take to say who it is.
const GREETING_TIME: Duration = Duration::from_secs(2);

/// What a rank says when it calls another, and the bytes of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Greeting {
    version: u64,
    group: u64,
    mesh: [u32; 3],
    rank: u32,
    /// 0 for what is exchanged, 1 for failures.
    channel: u32,
    /// Where it listens itself.
    port: u32,
}
const GREETING: usize = 48;
const MAGIC: [u8; 8] = *b"PABRANK1";

/// Bytes of an answer: a number that is 0 for "welcome", 1 for "not here" and 2 for "we cannot run together", and why.
const ANSWER: usize = 512;
/// Bytes of an address: that of version 6, and the port.
const ADDRESS: usize = 18;

/// What a rank needs to find the others.
#[derive(Clone, Debug)]
pub(super) struct Party {
    pub mesh: Mesh,
    pub rank: usize,
    /// Where rank 0 listens: `host:port`.
    pub address: String,
    /// All ranks of a run name the same.
    pub group: String,
    pub timeout: Duration,
}

/// Why ranks did not find each other.
pub(super) enum Failed {
    /// These did not come in time.
    Missing(Vec<usize>),
    Error(CollectiveError),
}

impl From<CollectiveError> for Failed {
    fn from(error: CollectiveError) -> Self {
        Self::Error(error)
    }
}

impl Party {
    /// The links to all other ranks, by rank.
    pub fn meet(&self, deadline: Instant) -> Result<Vec<Option<Link>>, Failed> {
        let ranks = self.mesh.ranks();
        if ranks == 1 {
            return Ok(vec![None]);
        }
        let mut table = Table {
            party: self,
            data: (0..ranks).map(|_| None).collect(),
            control: (0..ranks).map(|_| None).collect(),
            listening: vec![None; ranks],
        };
        if self.rank == 0 {
            let listener = TcpListener::bind(&*self.address)
                .map_err(|error| self.failed(format!("rank 0 cannot listen at {}: {error}", self.address)))?;
            table.accept(&listener, 1..ranks, deadline)?;
            let known: Vec<u8> = table
                .listening
                .iter()
                .flat_map(|address| encode_address(*address))
                .collect();
            for stream in table.data.iter_mut().flatten() {
                write(stream, &known, deadline).map_err(|error| self.failed(error.to_string()))?;
            }
            return table.links();
        }

        let first = self.call_first(deadline)?;
        let own_ip = first.local_addr().map_err(|error| self.failed(error.to_string()))?.ip();
        let listener = TcpListener::bind((own_ip, 0)).map_err(|error| self.failed(error.to_string()))?;
        let port = listener
            .local_addr()
            .map_err(|error| self.failed(error.to_string()))?
            .port();
        let root = first.peer_addr().map_err(|error| self.failed(error.to_string()))?;
        table.data[0] = Some(self.greet(first, 0, port, deadline)?);
        table.control[0] = Some(self.greet(self.call(root, 0)?, 1, port, deadline)?);
        let mut known = vec![0; ADDRESS * ranks];
        if let Some(stream) = &mut table.data[0] {
            read(stream, &mut known, deadline).map_err(|error| match error.kind() {
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Failed::Missing(Vec::new()),
                _ => Failed::Error(self.failed("rank 0 ended before all ranks had come: see what it says".to_owned())),
            })?;
        }
        for (other, bytes) in known.chunks_exact(ADDRESS).enumerate().take(self.rank).skip(1) {
            let address = decode_address(bytes).ok_or_else(|| self.failed("an address that is none".to_owned()))?;
            table.data[other] = Some(self.greet(self.call(address, other)?, 0, port, deadline)?);
            table.control[other] = Some(self.greet(self.call(address, other)?, 1, port, deadline)?);
        }
        table.accept(&listener, self.rank + 1..ranks, deadline)?;
        table.links()
    }

    /// Calls rank 0, again and again until it listens.
    fn call_first(&self, deadline: Instant) -> Result<TcpStream, Failed> {
        loop {
            let addresses = self.address.to_socket_addrs().map_err(|error| {
                let advice = "give it as HOST:PORT, the same on all ranks";
                self.failed(format!("{} is no address of rank 0 ({error}): {advice}", self.address))
            })?;
            for address in addresses {
                let left = deadline.saturating_duration_since(Instant::now()).max(PAUSE);
                if let Ok(stream) = TcpStream::connect_timeout(&address, left) {
                    return Ok(stream);
                }
            }
            if Instant::now() >= deadline {
                return Err(Failed::Missing(vec![0]));
            }
            std::thread::sleep(10 * PAUSE);
        }
    }

    fn call(&self, address: SocketAddr, other: usize) -> Result<TcpStream, CollectiveError> {
        TcpStream::connect_timeout(&address, self.timeout.max(PAUSE))
            .map_err(|error| self.failed(format!("rank {other} cannot be called at {address}: {error}")))
    }

    /// Says who this is, and waits until that is welcome.
    fn greet(&self, mut stream: TcpStream, channel: u32, port: u16, deadline: Instant) -> Result<TcpStream, Failed> {
        let mut answer = vec![0; ANSWER];
        let greeting = self.greeting(channel, port);
        let talked =
            write(&mut stream, &greeting.encode(), deadline).and_then(|()| read(&mut stream, &mut answer, deadline));
        talked.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Failed::Missing(Vec::new()),
            _ => Failed::Error(self.failed(format!(
                "what listens at {} is no rank of this version ({error})",
                self.address
            ))),
        })?;
        match answer[0] {
            0 => Ok(stream),
            _ => {
                let reason = String::from_utf8_lossy(&answer[1..]);
                Err(Failed::Error(self.failed(reason.trim_end_matches('\0').to_owned())))
            }
        }
    }

    fn greeting(&self, channel: u32, port: u16) -> Greeting {
        let number = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
        Greeting {
            version: hash(env!("CARGO_PKG_VERSION")),
            group: hash(&self.group),
            mesh: crate::shard::Group::ALL.map(|group| number(self.mesh.size(group))),
            rank: number(self.rank),
            channel,
            port: u32::from(port),
        }
    }

    pub fn failed(&self, reason: String) -> CollectiveError {
        CollectiveError::Transport {
            rank: self.rank,
            transport: "TCP",
            reason,
        }
    }
}

/// Who has come so far.
struct Table<'a> {
    party: &'a Party,
    data: Vec<Option<TcpStream>>,
    control: Vec<Option<TcpStream>>,
    /// Where each rank listens.
    listening: Vec<Option<SocketAddr>>,
}

impl Table<'_> {
    /// Waits for both calls of each of these ranks.
    fn accept(
        &mut self,
        listener: &TcpListener,
        expected: std::ops::Range<usize>,
        deadline: Instant,
    ) -> Result<(), Failed> {
        let party = self.party;
        listener
            .set_nonblocking(true)
            .map_err(|error| party.failed(error.to_string()))?;
        loop {
            let mut missing = expected
                .clone()
                .filter(|rank| self.data[*rank].is_none() || self.control[*rank].is_none());
            let Some(first) = missing.next() else { return Ok(()) };
            match listener.accept() {
                Ok((stream, address)) => self.welcome(stream, address, &expected, deadline)?,
                Err(_) if Instant::now() < deadline => std::thread::sleep(PAUSE),
                Err(_) => return Err(Failed::Missing([first].into_iter().chain(missing).collect())),
            }
        }
    }

    /// Hears who called. Strangers are sent away; a rank of this run that was started with something else ends it.
    fn welcome(
        &mut self,
        mut stream: TcpStream,
        address: SocketAddr,
        expected: &std::ops::Range<usize>,
        deadline: Instant,
    ) -> Result<(), Failed> {
        let patience = deadline.min(Instant::now() + GREETING_TIME);
        let mut bytes = [0; GREETING];
        let heard = stream
            .set_nonblocking(false)
            .and_then(|()| read(&mut stream, &mut bytes, patience));
        let Some(greeting) = heard.ok().and_then(|()| Greeting::decode(&bytes)) else {
            return Ok(());
        };
        let own = self.party.greeting(0, 0);
        let rank = greeting.rank as usize;
        let channel = match greeting.channel {
            0 => &mut self.data,
            _ => &mut self.control,
        };
        let (code, reason) = if greeting.group != own.group {
            (
                1,
                format!("the ranks at {} are those of another group", self.party.address),
            )
        } else if greeting.version != own.version {
            (
                2,
                format!(
                    "rank {rank} is of another version than rank {}: start all ranks with the same",
                    own.rank
                ),
            )
        } else if greeting.mesh != own.mesh {
            let [guidance, sequence, tensor] = greeting.mesh;
            let there = format!("guidance={guidance},sequence={sequence},tensor={tensor}");
            let here = format!("{} of rank {}", self.party.mesh, own.rank);
            (
                2,
                format!("rank {rank} has the mesh {there}, which is not {here}: give all ranks the same"),
            )
        } else if !expected.contains(&rank) {
            (1, format!("rank {rank} has no business with rank {}", own.rank))
        } else if channel[rank].is_some() {
            (
                1,
                format!("there is a rank {rank} already: give each rank a number of its own"),
            )
        } else {
            (0, String::new())
        };
        let mut answer = vec![0; ANSWER];
        answer[0] = code;
        let length = reason.len().min(ANSWER - 1);
        answer[1..=length].copy_from_slice(&reason.as_bytes()[..length]);
        let answered = write(&mut stream, &answer, patience);
        match code {
            0 if answered.is_ok() => {
                let port = u16::try_from(greeting.port).unwrap_or(0);
                self.listening[rank] = Some(SocketAddr::new(address.ip(), port));
                channel[rank] = Some(stream);
                Ok(())
            }
            2 => Err(Failed::Error(self.party.failed(reason))),
            _ => Ok(()),
        }
    }

    fn links(self) -> Result<Vec<Option<Link>>, Failed> {
        let party = self.party;
        let pairs = self.data.into_iter().zip(self.control);
        let links = pairs.map(|(data, control)| data.zip(control).map(|(data, control)| Link::new(data, control)));
        let links: io::Result<Vec<Option<Link>>> = links.map(Option::transpose).collect();
        links.map_err(|error| Failed::Error(party.failed(error.to_string())))
    }
}

impl Greeting {
    fn encode(&self) -> [u8; GREETING] {
        let mut bytes = [0; GREETING];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.version.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.group.to_le_bytes());
        let [guidance, sequence, tensor] = self.mesh;
        let numbers = [guidance, sequence, tensor, self.rank, self.channel, self.port];
        for (number, field) in numbers.iter().zip(bytes[24..].as_chunks_mut::<4>().0) {
            *field = number.to_le_bytes();
        }
        bytes
    }

    fn decode(bytes: &[u8; GREETING]) -> Option<Self> {
        let long = |at: usize| bytes[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
        let short = |at: usize| bytes[at..at + 4].try_into().map_or(0, u32::from_le_bytes);
        (bytes[..8] == MAGIC).then(|| Self {
            version: long(8),
            group: long(16),
            mesh: [short(24), short(28), short(32)],
            rank: short(36),
            channel: short(40),
            port: short(44),
        })
    }
}

fn encode_address(address: Option<SocketAddr>) -> [u8; ADDRESS] {
    let mut bytes = [0; ADDRESS];
    if let Some(address) = address {
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        bytes[..16].copy_from_slice(&ip.octets());
        bytes[16..].copy_from_slice(&address.port().to_le_bytes());
    }
    bytes
}

fn decode_address(bytes: &[u8]) -> Option<SocketAddr> {
    let ip: [u8; 16] = bytes.get(..16)?.try_into().ok()?;
    let port = bytes.get(16..18)?.try_into().ok().map(u16::from_le_bytes)?;
    Some(SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), port))
}

/// FNV-1a: the same in every process.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(io::ErrorKind::TimedOut.into()),
        false => Ok(left),
    }
}

fn read(stream: &mut TcpStream, bytes: &mut [u8], deadline: Instant) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut bytes[filled..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn write(stream: &mut TcpStream, bytes: &[u8], deadline: Instant) -> io::Result<()> {
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(bytes)
}
