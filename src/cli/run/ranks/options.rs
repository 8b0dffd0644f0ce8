//! The arguments of a run over several ranks.

use crate::cli::args::RulesOptions;
use crate::cli::split::MeshOptions;
use crate::cli::values::assignment;
use clap::{Args, ValueEnum};
use std::time::Duration;

/// What carries tensors from rank to rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Carrier {
    /// Through the host's memory: between threads directly, between processes by MPI
    Host,
    /// From GPU to GPU by NCCL, which is loaded for it; needs --device cuda and a GPU for each rank
    Nccl,
}

#[derive(Clone, Debug, Args)]
pub struct RankOptions {
    /// Split the model over N ranks, which run it together as threads of this process: over tokens, unless the options below or
    /// the rules say otherwise. Under mpirun ranks are processes, and as many as it started
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub ranks: Option<u16>,
    #[command(flatten)]
    pub mesh: MeshOptions,
    /// Rules by which an original is patched on the way, in memory; of two transformers both, each for its own steps: a YAML file
    /// or a preset [default: nothing is patched]
    #[arg(long, value_name = "FILE|PRESET")]
    pub rules: Option<String>,
    /// Meaning of an input's axes where it cannot be told while the model is patched or split, such as
    /// x=batch,channels,frames,height,width
    #[arg(long = "axes", value_name = "INPUT=AXIS,…", value_parser = assignment::<String>)]
    pub axes: Vec<(String, String)>,
    /// Leave each rank its part of the latents from step to step, where model and scheduler let it: a step that broadcasts
    /// everything then sends nothing, and the clip is put together when it is over. A folder that `split` wrote says so itself
    #[arg(long)]
    pub keep_latents: bool,
    /// What carries tensors from rank to rank
    #[arg(long, value_enum, value_name = "WAY", default_value_t = Carrier::Host)]
    pub communicator: Carrier,
    /// How many seconds a rank waits for another before all end with an error
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    pub timeout: u32,
}

impl RankOptions {
    /// How long a rank waits.
    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.timeout.into())
    }

    /// As `split` has them.
    pub fn rules_options(&self) -> RulesOptions {
        RulesOptions {
            rules: self.rules.clone(),
            axes: self.axes.clone(),
        }
    }

    /// Whether the axes of a mesh are given.
    pub fn has_mesh(&self) -> bool {
        let mesh = &self.mesh;
        mesh.sequence.is_some() || mesh.guidance.is_some() || mesh.tensor.is_some()
    }
}
