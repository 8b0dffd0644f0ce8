//! The options of `plan`.

use crate::cli::args::{CacheTypeChoice, CourseOptions, RulesOptions};
use crate::cli::values::{duration, rate, size};
use crate::predict::{Method, ShardedAxis};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct PlanOptions {
    /// The exported model; its graph is enough, the file with its weights need not be there
    pub model: PathBuf,
    #[command(flatten)]
    pub rules: RulesOptions,
    /// Device: a100, h100, h200, h800, a JSON file with the numbers of another one, or `measure` for the processor here
    #[arg(long, default_value = "h100", value_name = "NAME|FILE")]
    pub device: String,
    /// Ranks whose kernels are listed; the table has 1 to 64 in any case
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = ranks)]
    pub ranks: usize,
    /// What a rank can send to the others of its node, in one direction [default: the device's own]
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub link: Option<f64>,
    /// What a rank can send to other nodes, in one direction [default: 50GB/s]
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub between: Option<f64>,
    /// Ranks of a node [default: 8]
    #[arg(long, value_name = "N", value_parser = ranks)]
    pub node: Option<usize>,
    /// What an exchange takes at least [default: 20us]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub latency: Option<f64>,
    /// How ranks exchange what an attention mixes
    #[arg(long, value_enum, default_value_t = MethodChoice::Dsp)]
    pub method: MethodChoice,
    /// What ranks divide [default: what gives the shorter clip]
    #[arg(long, value_enum, value_name = "AXIS")]
    pub axis: Option<AxisChoice>,
    /// Give the two halves of guidance to two groups of ranks
    #[arg(long)]
    pub split_guidance: bool,
    /// Size of an open dimension, such as text=120 (may be given several times); batch is 2 unless given
    #[arg(long = "size", value_name = "NAME=N", value_parser = size)]
    pub sizes: Vec<(String, usize)>,
    /// Element type of caches, where that is narrower than the values'
    #[arg(long, value_enum, value_name = "TYPE")]
    pub cache_dtype: Option<CacheTypeChoice>,
    #[command(flatten)]
    pub course: CourseOptions,
    /// Write the time of a clip over 1 to 64 ranks as a picture (.svg)
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
    /// Write the device as JSON, so that `--device FILE` takes it again
    #[arg(long, value_name = "FILE.json")]
    pub write_device: Option<PathBuf>,
    /// ONNX Runtime's library for `--device measure`, or the folder that holds it [default: found, else fetched]
    #[arg(long, value_name = "PATH")]
    pub ort_lib: Option<PathBuf>,
    /// Threads for `--device measure` [default: the number of cores]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MethodChoice {
    /// Dynamic Sequence Parallelism: two all-to-alls of the tokens
    Dsp,
    /// Ulysses: four all-to-alls of queries, keys, values and the result
    Ulysses,
}

impl From<MethodChoice> for Method {
    fn from(choice: MethodChoice) -> Method {
        match choice {
            MethodChoice::Dsp => Method::Dsp,
            MethodChoice::Ulysses => Method::Ulysses,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AxisChoice {
    /// Frames
    Frames,
    /// Height times width, or all tokens
    Places,
}

impl From<AxisChoice> for ShardedAxis {
    fn from(choice: AxisChoice) -> ShardedAxis {
        match choice {
            AxisChoice::Frames => ShardedAxis::Frames,
            AxisChoice::Places => ShardedAxis::Places,
        }
    }
}

/// A number of ranks.
fn ranks(text: &str) -> Result<usize, String> {
    const MOST: usize = 4096;
    match text.parse() {
        Ok(ranks) if (1..=MOST).contains(&ranks) => Ok(ranks),
        _ => Err(format!("expected a number of ranks from 1 to {MOST}")),
    }
}
