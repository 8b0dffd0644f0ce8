//! Whether a run is one of several ranks, and of which.

use super::folder::SplitFolder;
use super::options::Carrier;
use crate::cli::Failure;
use crate::cli::run::RunOptions;
use crate::collective::{Mesh, launched};
use crate::rules::Rules;
use crate::shard;
use std::path::PathBuf;

/// A run of several ranks, as the options want it.
#[derive(Debug)]
pub struct Wanted {
    /// Models of ranks that `split` wrote; without, the model is split in memory.
    pub folder: Option<SplitFolder>,
    /// Rules by which an original is patched.
    pub rules: Option<Rules>,
    /// How many processes were started together.
    pub launched: Option<usize>,
    asked: shard::Mesh,
    ranks: Option<usize>,
    /// Whether someone says how many ranks stand along the sequence.
    is_given: bool,
}

impl Wanted {
    /// What the options, the rules and the environment say; none where there is one rank.
    pub fn of(options: &RunOptions) -> Result<Option<Wanted>, Failure> {
        let launched = launched();
        if let Some(processes) = launched.filter(|_| !cfg!(feature = "mpi")) {
            return Err(Failure::Usage(format!(
                "mpirun started {processes} processes, and this pab-patch was built without MPI: build it with `cargo build \
                 --release --features mpi`, or leave mpirun out and give --ranks {processes} for threads of one process"
            )));
        }
        let of_ranks = &options.ranks;
        let path = options.source.transformer.as_ref().unwrap_or(&options.model);
        let folder = SplitFolder::find(path)?;
        let rules = of_ranks.rules.as_deref().map(Rules::find).transpose()?;
        let ranks = of_ranks.ranks.map(usize::from);
        let (asked, is_given) = match &folder {
            Some(folder) => {
                if of_ranks.has_mesh() || rules.is_some() {
                    return Err(Failure::Usage(format!(
                        "{} was split over {} already: leave out --rules and the options of the mesh, or give the original",
                        path.display(),
                        folder.mesh()
                    )));
                }
                (folder.mesh(), true)
            }
            None => {
                let given = rules.as_ref().and_then(|rules| rules.parallel);
                let mesh = &of_ranks.mesh;
                let base = given.unwrap_or(shard::Mesh::ONE);
                let asked = shard::Mesh {
                    guidance: mesh.guidance.unwrap_or(base.guidance),
                    sequence: mesh.sequence.unwrap_or(base.sequence),
                    tensor: mesh.tensor.unwrap_or(base.tensor),
                };
                (asked, mesh.sequence.is_some() || base.sequence > 1)
            }
        };
        let wanted = Wanted {
            folder,
            rules,
            launched,
            asked,
            ranks,
            is_given,
        };
        let ranks = wanted.mesh(launched)?.ranks();
        if ranks > 1 {
            return Ok(Some(wanted));
        }
        if of_ranks.keep_latents {
            return Err(Failure::Usage(
                "--keep-latents leaves each of several ranks its part of the latents; give --ranks N, or leave it out"
                    .to_owned(),
            ));
        }
        if of_ranks.communicator != Carrier::Host {
            return Err(Failure::Usage(
                "--communicator carries tensors between several ranks; give --ranks N, or leave it out".to_owned(),
            ));
        }
        Ok(None)
    }

    /// The mesh. Ranks that no axis was given for stand along the sequence.
    pub fn mesh(&self, processes: Option<usize>) -> Result<Mesh, Failure> {
        let mut mesh = self.asked;
        let refuse = |text: String| Err(Failure::Usage(text));
        if let (Some(ranks), Some(processes)) = (self.ranks, processes)
            && ranks != processes
        {
            return refuse(format!(
                "--ranks {ranks}, and mpirun started {processes} processes: leave --ranks out, or start as many (mpirun -n \
                 {ranks})"
            ));
        }
        if let Some(ranks) = self.ranks.or(processes) {
            let others = mesh.guidance.saturating_mul(mesh.tensor).max(1);
            if !self.is_given && ranks.is_multiple_of(others) {
                mesh.sequence = ranks / others;
            }
            if mesh.ranks() != Some(ranks) {
                return refuse(format!(
                    "{ranks} ranks cannot be {mesh}; give as many as guidance × sequence × tensor"
                ));
            }
        }
        Ok(Mesh::try_from(mesh)?)
    }

    /// The file that `rank` runs, where it is one of a split.
    pub fn file(&self, rank: usize) -> Result<Option<PathBuf>, Failure> {
        let file = self.folder.as_ref().map(|folder| folder.file(rank));
        Ok(file.transpose()?.map(ToOwned::to_owned))
    }
}
