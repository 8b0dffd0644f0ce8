//! A run of several ranks: threads of this process, or processes that `mpirun` started.
//!
//! Every rank does the whole loop on its part of the model, with the same noise, texts and flags, and feeds whole inputs: the
//! graph slices them, but for latents of which each rank keeps a part from step to step (`part.rs`). Rank 0 alone shows, writes
//! and decodes. Of threads it also makes the texts for all; processes each make their own.

mod folder;
mod options;
mod part;
mod parts;
mod patching;
#[cfg(feature = "mpi")]
mod processes;
mod report;
mod team;
mod threads;
mod wanted;

pub use options::RankOptions;
pub use part::Part;
pub use report::RanksReport;
pub use team::Team;
pub use wanted::Wanted;

use super::{Batch, Report, RunOptions, settings};
use crate::cli::Failure;
use crate::cli::terminal::Terminal;
use crate::collective::Identity;
use parts::Parts;
use sha2::{Digest, Sha256};

/// Makes the clips; the report is that of rank 0.
pub fn run(options: &RunOptions, wanted: Wanted, terminal: &Terminal) -> Result<Option<Report>, Failure> {
    #[cfg(feature = "mpi")]
    if wanted.launched.is_some() {
        return processes::run(options, wanted, terminal);
    }
    threads::run(options, wanted, terminal).map(Some)
}

/// What a rank must have the same as all others.
fn identity(batch: &Batch, parts: &Parts, rank: usize) -> Result<Identity, Failure> {
    let mut settings = settings::of(batch)?;
    // Files of ranks differ; which split they are of, does not.
    for own in [settings::MODEL, settings::PLAN] {
        settings.remove(own);
    }
    // Static graphs leave out exchanges that no later step needs.
    settings.insert("--form".to_owned(), format!("{:?}", batch.options.form).into());
    let text = serde_json::to_string(&settings).unwrap_or_default();
    let digest = Sha256::digest(text.as_bytes());
    let plan: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Identity::new(&parts.id(rank)?, &plan))
}
