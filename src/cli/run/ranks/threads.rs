//! Ranks as threads of this process.

use super::identity;
use super::parts::Parts;
use super::team::{Team, carrier, session_options};
use super::wanted::Wanted;
use crate::cli::Failure;
use crate::cli::run::{Batch, Report, RunOptions, lead};
use crate::cli::terminal::Terminal;
use crate::collective::{CollectiveError, Communicator, Followers, Rank, RanksError, World, handshake};
use crate::generation::Conditioning;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How rank 0 has the others follow.
pub struct Crew {
    orders: Vec<Sender<Order>>,
    opened: Receiver<()>,
}

/// What a rank does next.
enum Order {
    /// Opens its part.
    Open(Arc<Job>),
    /// Makes the next clip.
    Begin,
}

/// What the clips are made from.
struct Job {
    prompts: Vec<usize>,
    conditionings: Vec<Conditioning>,
}

/// How often rank 0 looks whether a rank failed that it waits for.
const PAUSE: Duration = Duration::from_millis(50);

impl Crew {
    /// Has all other ranks open their parts.
    pub fn open(&self, prompts: &[usize], conditionings: &[Conditioning]) {
        let job = Arc::new(Job {
            prompts: prompts.to_vec(),
            conditionings: conditionings.to_vec(),
        });
        for orders in &self.orders {
            // Who is gone has failed, which shows at the next meeting.
            let _ = orders.send(Order::Open(job.clone()));
        }
    }

    /// Waits until all have done so, or one has failed: a large model may take longer than ranks wait for each other.
    pub fn wait_until_open(&self, communicator: &dyn Communicator) {
        let mut missing = self.orders.len();
        while missing > 0 && communicator.failure().is_none() {
            match self.opened.recv_timeout(PAUSE) {
                Ok(()) => missing -= 1,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    }

    /// The next clip begins: ranks do not wait in it while rank 0 still writes the one before.
    pub fn begin_clip(&self) {
        for orders in &self.orders {
            let _ = orders.send(Order::Begin);
        }
    }
}

/// Makes the clips by threads.
pub fn run(options: &RunOptions, wanted: Wanted, terminal: &Terminal) -> Result<Report, Failure> {
    let mesh = wanted.mesh(None)?;
    let ranks = mesh.ranks();
    for rank in 1..ranks {
        wanted.file(rank)?;
    }
    let batch = Arc::new(Batch::read(options, wanted.file(0)?, terminal)?);
    let parts = Arc::new(Parts::of(wanted, &batch, terminal)?);
    let world = World::new(mesh, options.ranks.patience());
    let (orders, taken): (Vec<Sender<Order>>, Vec<Receiver<Order>>) = (1..ranks).map(|_| channel()).unzip();
    let taken = Mutex::new(taken.into_iter().map(Some).collect::<Vec<_>>());
    let (opens, opened) = channel();
    let hushed = terminal.hushed();
    let shared = (batch.clone(), parts.clone());
    let team = move |rank: Arc<Rank>, parts: &Arc<Parts>, batch: &Batch, crew| -> Result<Team, Failure> {
        let session = session_options(&batch.options.session, rank.rank(), ranks);
        Ok(Team {
            carrier: carrier(&batch.options.ranks, &session, rank.clone())?,
            session,
            communicator: rank,
            parts: parts.clone(),
            crew,
            #[cfg(feature = "mpi")]
            processes: None,
        })
    };
    let (first, followers) = Followers::start(&world, move |rank: Arc<Rank>| {
        let (batch, parts) = &shared;
        let number = rank.rank();
        handshake(&*rank, &identity(batch, parts, number)?)?;
        let orders = taken.lock().unwrap_or_else(PoisonError::into_inner)[number - 1].take();
        let Some(orders) = orders else { return Ok(()) };
        // Where rank 0 has nothing to be made, or failed, there is no order.
        let Ok(Order::Open(job)) = orders.recv() else {
            return Ok(());
        };
        let opened = || {
            let _ = opens.send(());
        };
        let begin = || matches!(orders.recv(), Ok(Order::Begin));
        let team = team(rank, parts, batch, None)?;
        team.follow(batch, &job.prompts, &job.conditionings, opened, begin, &hushed)
    })?;
    let led = team(first.clone(), &parts, &batch, Some(Crew { orders, opened })).and_then(|team| {
        handshake(&*first, &identity(&batch, &parts, 0)?)?;
        lead(&batch, Some(&team), terminal)
    });
    followers
        .join(first, led)
        .map_err(|error| cause(world.failure(), error, terminal))
}

/// The error to show: the first, with the rank that it is of.
fn cause(failure: Option<CollectiveError>, error: RanksError<Failure>, terminal: &Terminal) -> Failure {
    if terminal.stop().is_asked() {
        return crate::stop::Stopped.into();
    }
    match (failure, error) {
        // What ranks saw of each other says more than that a run of theirs failed.
        (Some(failure), _) if !matches!(failure, CollectiveError::Failed { .. }) => failure.into(),
        (_, RanksError::Rank { rank: 0, error }) => error,
        (_, RanksError::Rank { rank, error }) => Failure::Rank {
            rank,
            failure: Box::new(error),
        },
        (_, RanksError::Panicked { rank, reason }) => CollectiveError::Failed { rank, reason }.into(),
        (_, RanksError::Collective(error)) => error.into(),
    }
}
