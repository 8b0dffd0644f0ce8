//! What launchers of processes tell in the environment, before MPI is started and also where this program cannot.

/// Variables with the number of processes: of Open MPI, and of launchers that speak PMI (MPICH, Intel MPI, Slurm).
const SIZES: [&str; 2] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"];

/// Variables with the number of this process.
const RANKS: [&str; 3] = ["OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK"];

/// Variables with the number of processes on this host.
const LOCAL_SIZES: [&str; 3] = ["OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "SLURM_NTASKS_PER_NODE"];

/// Variables with the number of this process among those on this host.
const LOCAL_RANKS: [&str; 3] = ["OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID"];

/// How many processes `mpirun`, `mpiexec` or `srun` started together with this one; none where it runs alone.
#[must_use]
pub fn launched() -> Option<usize> {
    // Slurm sets its own variables in every job; only under PMIx they speak of an MPI launch.
    let of_slurm = || std::env::var_os("PMIX_RANK").and_then(|_| number("SLURM_NTASKS"));
    first(&SIZES).or_else(of_slurm).filter(|size| *size > 1)
}

/// This process's number among those on this host, and how many there are; none where nobody says.
#[must_use]
pub fn on_this_host() -> Option<(usize, usize)> {
    let (rank, size) = (first(&LOCAL_RANKS)?, first(&LOCAL_SIZES)?);
    (rank < size).then_some((rank, size))
}

/// Whether this is the first of the processes that were started together, or alone.
#[must_use]
pub fn is_first_process() -> bool {
    launched().is_none() || first(&RANKS).is_none_or(|rank| rank == 0)
}

fn first(names: &[&str]) -> Option<usize> {
    names.iter().find_map(|name| number(name))
}

fn number(name: &str) -> Option<usize> {
    std::env::var(name).ok()?.trim().parse().ok()
}
