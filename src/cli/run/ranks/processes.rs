//! Ranks as processes that `mpirun` started.

use super::identity;
use super::parts::Parts;
use super::team::{Team, carrier, session_options};
use super::wanted::Wanted;
use crate::cli::Failure;
use crate::cli::run::watch::Watch;
use crate::cli::run::{Batch, Report, RunOptions, lead};
use crate::cli::terminal::Terminal;
use crate::collective::{CollectiveError, Communicator, Processes, handshake, on_this_host};
use std::sync::Arc;

/// Makes the clips; only rank 0 has a report.
pub fn run(options: &RunOptions, wanted: Wanted, terminal: &Terminal) -> Result<Option<Report>, Failure> {
    let mesh = wanted.mesh(wanted.launched)?;
    let processes = Processes::start(options.ranks.patience(), |_| Ok(mesh))?;
    processes.stop_on(terminal.stop().clone());
    let hushed = terminal.hushed();
    let shown = if processes.rank() == 0 { terminal } else { &hushed };
    let made = make(options, wanted, &processes, shown);
    made.map_err(|failure| cause(&processes, failure, terminal))
}

fn make(
    options: &RunOptions,
    wanted: Wanted,
    processes: &Arc<Processes>,
    terminal: &Terminal,
) -> Result<Option<Report>, Failure> {
    let rank = processes.rank();
    let batch = Arc::new(Batch::read(options, wanted.file(rank)?, terminal)?);
    let parts = Parts::of(wanted, &batch, terminal)?;
    handshake(&**processes, &identity(&batch, &parts, rank)?)?;
    let (place, here) = on_this_host().unwrap_or((rank, processes.mesh().ranks()));
    let session = session_options(&options.session, place, here);
    let team = Team {
        carrier: carrier(&options.ranks, &session, processes.clone())?,
        session,
        communicator: processes.clone(),
        parts: Arc::new(parts),
        crew: None,
        processes: Some(processes.clone()),
    };
    if rank == 0 {
        return lead(&batch, Some(&team), terminal).map(Some);
    }
    let prompts = team.agree(&[])?;
    if !prompts.is_empty() {
        let conditionings = batch.conditionings(&prompts, &mut Watch::new(false), terminal)?;
        team.follow(&batch, &prompts, &conditionings, || (), || true, terminal)?;
    }
    Ok(None)
}

/// Has all ranks end, and gives the error to show. A rank that rank 0 shows the error of shows none.
fn cause(processes: &Processes, failure: Failure, terminal: &Terminal) -> Failure {
    let rank = processes.rank();
    let (failure, is_told) = match processes.failure() {
        Some(told @ CollectiveError::Failed { .. }) => (told.into(), true),
        // What ranks saw of each other says more than that a run of theirs failed.
        Some(seen) => (seen.into(), false),
        None => {
            processes.fail(&CollectiveError::Failed {
                rank,
                reason: failure.to_string(),
            });
            (failure, false)
        }
    };
    if rank == 0 {
        return failure;
    }
    if is_told || terminal.stop().is_asked() || processes.first_rank_knows() {
        return Failure::Shown(Box::new(failure));
    }
    match failure {
        Failure::Ranks(_) => failure,
        failure => Failure::Rank {
            rank,
            failure: Box::new(failure),
        },
    }
}
