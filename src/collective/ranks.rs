//! Runs the same work for every rank of a world, each in a thread of its own.

use std::{
    fmt::Display,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, channel},
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
                let reason = error.to_string();
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
            return Err(error.into());
        }
    }
    drop(sender);

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
    // The others' errors follow from the first.
    let first = world.failure().and_then(|failure| failure.rank());
    let place = errors.iter().position(|(rank, _)| Some(*rank) == first).unwrap_or(0);
    if errors.is_empty() {
        let results: Option<Vec<T>> = results.into_iter().collect();
        let reason = "a rank ended without a result".to_owned();
        return results.ok_or(RanksError::Collective(CollectiveError::Mesh { reason }));
    }
    Err(errors.swap_remove(place).1)
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "it gave no reason".to_owned())
}
