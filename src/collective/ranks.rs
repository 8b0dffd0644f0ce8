//! Runs the same work for every rank of a world, each in a thread of its own.

use std::{
    fmt::Display,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    time::{Duration, Instant},
};

use super::{CollectiveError, Communicator, Rank, World};

/// Why the work of a world failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RanksError<E> {
    /// The work of a rank failed, and with it that of all.
    #[error("rank {rank}: {error}")]
    Rank {
        /// The first rank that failed.
        rank: usize,
        /// Its error.
        error: E,
    },
    /// The work of a rank panicked, and with it failed that of all.
    #[error("rank {rank} panicked, which is a mistake in this program: {reason}")]
    Panicked {
        /// The rank.
        rank: usize,
        /// What the panic said.
        reason: String,
    },
    /// The world could not start, or a rank did not end.
    #[error(transparent)]
    Collective(#[from] CollectiveError),
}

/// As the main thread of most systems has it; a thread's own default is less than ONNX Runtime's kernels may use.
const STACK: usize = 8 << 20;

/// How much longer than the world's time-out ranks are waited for once one has failed.
const GRACE: Duration = Duration::from_secs(1);

/// Runs `work` for every rank of `world`, and gives the results in order of ranks.
///
/// Where the work of a rank fails or panics, all ranks that wait for it fail, and its error is returned. A rank that then
/// does not end within the world's time-out (it hangs) is left behind: its thread ends with the process.
///
/// # Errors
/// The error of the rank that failed first, [`CollectiveError`] where ranks are taken or cannot have a thread.
pub fn run_ranks<T, E>(
    world: &Arc<World>,
    work: impl Fn(Arc<Rank>) -> Result<T, E> + Send + Sync + 'static,
) -> Result<Vec<T>, RanksError<E>>
where
    T: Send + 'static,
    E: Display + Send + 'static,
{
    let count = world.mesh().ranks();
    let ranks = (0..count).map(|rank| world.join(rank)).collect::<Result<Vec<_>, _>>()?;
    let receiver = start(world, ranks, work)?;

    let mut results: Vec<Option<T>> = (0..count).map(|_| None).collect();
    let mut errors = Vec::new();
    let mut deadline: Option<Instant> = None;
    loop {
        let received = match deadline {
            None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(deadline) => receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())),
        };
        match received {
            Ok((rank, Ok(result))) => results[rank] = Some(result),
            Ok((rank, Err(error))) => {
                errors.push((rank, error));
                deadline.get_or_insert(Instant::now() + world.timeout() + GRACE);
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    if errors.is_empty() {
        let results: Option<Vec<T>> = results.into_iter().collect();
        let reason = "a rank ended without a result".to_owned();
        return results.ok_or(RanksError::Collective(CollectiveError::Mesh { reason }));
    }
    Err(first(world, errors))
}

/// What ranks tell when they end: their number and what came of it.
type Ended<T, E> = (usize, Result<T, RanksError<E>>);

/// Gives each rank a thread.
fn start<T, E>(
    world: &Arc<World>,
    ranks: Vec<Arc<Rank>>,
    work: impl Fn(Arc<Rank>) -> Result<T, E> + Send + Sync + 'static,
) -> Result<Receiver<Ended<T, E>>, CollectiveError>
where
    T: Send + 'static,
    E: Display + Send + 'static,
{
    let work = Arc::new(work);
    let (sender, receiver) = channel();
    for rank in ranks {
        let (number, sender, work) = (rank.rank(), sender.clone(), work.clone());
        let keeper = rank.clone();
        let thread = std::thread::Builder::new()
            .name(format!("rank {number}"))
            .stack_size(STACK);
        let spawned = thread.spawn(move || {
            let result = match catch_unwind(AssertUnwindSafe(|| work(rank))) {
                Ok(result) => result.map_err(|error| RanksError::Rank { rank: number, error }),
                Err(panic) => Err(RanksError::Panicked {
                    rank: number,
                    reason: said(&*panic),
                }),
            };
            if let Err(error) = &result {
                let reason = match error {
                    RanksError::Rank { error, .. } => error.to_string(),
                    other => other.to_string(),
                };
                keeper.fail(&CollectiveError::Failed { rank: number, reason });
            }
            // Whoever waits for this rank learns that it is gone.
            drop(keeper);
            let _ = sender.send((number, result));
        });
        if let Err(error) = spawned {
            let reason = format!("rank {number} gets no thread: {error}; use fewer ranks");
            let error = CollectiveError::Mesh { reason };
            world.abandon(error.clone());
            return Err(error);
        }
    }
    Ok(receiver)
}

/// The error of the rank that failed first; those of the others follow from it. There is at least one.
fn first<E>(world: &World, mut errors: Vec<(usize, RanksError<E>)>) -> RanksError<E> {
    let first = world.failure().and_then(|failure| failure.rank());
    let place = errors.iter().position(|(rank, _)| Some(*rank) == first).unwrap_or(0);
    errors.swap_remove(place).1
}

/// All ranks of a world but rank 0, at work in threads of their own; rank 0 is the thread that started them.
#[derive(Debug)]
pub struct Followers<E> {
    world: Arc<World>,
    receiver: Receiver<Ended<(), E>>,
    count: usize,
}

impl<E: Display + Send + 'static> Followers<E> {
    /// Starts them, and gives rank 0.
    ///
    /// # Errors
    /// [`CollectiveError`] where ranks are taken or cannot have a thread.
    pub fn start(
        world: &Arc<World>,
        work: impl Fn(Arc<Rank>) -> Result<(), E> + Send + Sync + 'static,
    ) -> Result<(Arc<Rank>, Self), CollectiveError> {
        let lead = world.join(0)?;
        let others = 1..world.mesh().ranks();
        let ranks = others.map(|rank| world.join(rank)).collect::<Result<Vec<_>, _>>()?;
        let followers = Self {
            world: world.clone(),
            count: ranks.len(),
            receiver: start(world, ranks, work)?,
        };
        Ok((lead, followers))
    }

    /// Waits for them once rank 0 has ended with `led`. One that does not end within the world's time-out (it hangs) is left
    /// behind: its thread ends with the process.
    ///
    /// # Errors
    /// The error of the rank that failed first.
    pub fn join<T>(self, lead: Arc<Rank>, led: Result<T, E>) -> Result<T, RanksError<E>> {
        let mut errors = Vec::new();
        let led = led.map_err(|error| {
            let reason = error.to_string();
            lead.fail(&CollectiveError::Failed { rank: 0, reason });
            errors.push((0, RanksError::Rank { rank: 0, error }));
        });
        drop(lead);
        let deadline = Instant::now() + self.world.timeout() + GRACE;
        for _ in 0..self.count {
            match self
                .receiver
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok((_, Ok(()))) => {}
                Ok((rank, Err(error))) => errors.push((rank, error)),
                Err(_) => break,
            }
        }
        match led {
            Ok(result) if errors.is_empty() => Ok(result),
            _ => Err(first(&self.world, errors)),
        }
    }
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "it gave no reason".to_owned())
}
