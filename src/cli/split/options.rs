//! The arguments of `split`, and of a mesh of ranks.

use crate::cli::args::{CacheOptions, CourseOptions, RulesOptions};
use crate::cli::values::size;
use crate::rewrite::split;
use crate::rules::Rules;
use crate::shard::{Factor, Mesh, Preference};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct SplitOptions {
    /// The exported model, not patched
    pub model: PathBuf,
    #[command(flatten)]
    pub rules: RulesOptions,
    #[command(flatten)]
    pub mesh: MeshOptions,
    #[command(flatten)]
    pub caches: CacheOptions,
    #[command(flatten)]
    pub course: CourseOptions,
    /// Split the model as it is: nothing is broadcast
    #[arg(long)]
    pub plain: bool,
    /// Leave each rank its part of the latents from step to step, where the model takes and gives them along one axis:
    /// a step that broadcasts everything then sends nothing, and the host gathers once, when the run is over
    #[arg(long)]
    pub keep_latents: bool,
    /// Folder for the graphs, one for each rank; without it nothing is written
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Write one graph that computes what all ranks compute, with standard operators only, to check the split anywhere
    #[arg(long, requires_all = ["output", "plain"])]
    pub unrolled: bool,
    /// Size of an open dimension, such as text=120 (may be given several times); batch is 2 unless given. With --keep-latents
    /// the graphs are for these sizes alone
    #[arg(long = "size", value_name = "NAME=N", value_parser = size)]
    pub sizes: Vec<(String, usize)>,
}

#[derive(Clone, Debug, Args)]
pub struct MeshOptions {
    /// Ranks over tokens [default: what the rules say under `parallel`, or 1]
    #[arg(long, value_name = "N")]
    pub sequence: Option<usize>,
    /// Ranks over the halves of the batch that guidance puts together [default: the same]
    #[arg(id = "guidance-ranks", long = "guidance-ranks", value_name = "N")]
    pub guidance: Option<usize>,
    /// Ranks over weights [default: the same]
    #[arg(long, value_name = "N")]
    pub tensor: Option<usize>,
    /// What tokens are divided along [default: what sends least in a run by the rules]
    #[arg(long, value_enum, value_name = "FACTOR")]
    pub along: Option<FactorChoice>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FactorChoice {
    /// Frames: spatial attention is local, temporal attention exchanges
    Frames,
    /// Rows and columns: temporal attention is local, spatial attention exchanges
    Space,
    /// All tokens: attention exchanges tokens for heads
    Tokens,
}

impl MeshOptions {
    /// The mesh: that of the rules, as far as the options do not say another.
    pub fn mesh(&self, rules: &Rules) -> Mesh {
        let given = rules.parallel.unwrap_or(Mesh::ONE);
        Mesh {
            guidance: self.guidance.unwrap_or(given.guidance),
            sequence: self.sequence.unwrap_or(given.sequence),
            tensor: self.tensor.unwrap_or(given.tensor),
        }
    }

    /// How a graph is split.
    pub fn split_options(&self) -> split::SplitOptions {
        let factor = self.along.map(|along| match along {
            FactorChoice::Frames => Factor::Frames,
            FactorChoice::Space => Factor::Space,
            FactorChoice::Tokens => Factor::Tokens,
        });
        split::SplitOptions {
            sequence: Preference {
                factor,
                ..Preference::default()
            },
            ..split::SplitOptions::default()
        }
    }
}
