//! The arguments of the command line.

use super::bench::BenchOptions;
use super::calibrate::CalibrateOptions;
use super::compare::CompareOptions;
use super::plan::PlanOptions;
use super::quality::QualityOptions;
use super::report::ReportOptions;
use super::run::RunOptions;
use super::split::SplitOptions;
use super::values::{assignment, bytes, finite, input, size, video};
use crate::rewrite::{CacheType, Drive};
use crate::rules::{DEFAULT_PRESET, preset_names};
use crate::runtime::Provider;
use crate::sampler::VideoSize;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

const AFTER_HELP: &str = "\
Exit codes:
  0  done
  1  something failed that has no code of its own
  2  wrong arguments
  3  a model file is missing, damaged, unsafe or not understood
  4  the rules are wrong
  5  nothing to do: no attention was found, no rule matches any, or there is no result for a page
  6  the output cannot be written
  7  ONNX Runtime is missing, too old or unusable
  8  running the model failed
  9  clips are further apart than was asked for
 10  a rank of a split run died, hangs, or differs from the others
130  interrupted by Ctrl-C or SIGTERM; what was finished is kept

Examples:
  pab-patch model.onnx                          writes patched/model.onnx beside the model
  pab-patch model.onnx --rules rules.yaml -o out
  pab-patch inspect model.onnx --html model.html
  pab-patch run patched/model.onnx --prompt 'red circle right black' -o clip
  pab-patch run patched/model.onnx --ranks 2 -o clip
  pab-patch compare model.onnx --rules latte -o comparison
  pab-patch compare model.onnx --rules pab --rules mine.yaml --clips 32
  pab-patch compare PIPELINE_DIR --rules latte --prompt 'a ship on the sea' --clips 2
  pab-patch calibrate model.onnx --min-ssim 0.95 --against pab -o calibration
  pab-patch quality comparison/clips/original comparison/clips/patched --min-ssim 0.95
  pab-patch run PIPELINE_DIR --prompt 'a ship on the sea' --steps 30 --animation mp4 -o clip";

/// Makes exported diffusion transformers (.onnx) faster by Pyramid Attention Broadcast.
///
/// Without a subcommand, patches MODEL: finds every attention by the structure of the graph, tells its kind, and wraps
/// it so that a step can reuse the output of an earlier one. The original file is never modified.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 110, after_help = AFTER_HELP)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub patch: PatchOptions,
    #[command(flatten)]
    pub output: OutputOptions,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what is found in a model, and what broadcasting it saves
    Inspect(InspectOptions),
    /// Write a static graph for each set of rules that the steps of a run broadcast together, over one copy of the weights
    Variants(VariantsOptions),
    /// Split a model over ranks, and show what they send each other
    Split(SplitOptions),
    /// Generate a clip with a model, original or patched
    Run(RunOptions),
    /// Patch a model or a pipeline, generate the same clips with original and patched, and compare speed and quality
    Compare(CompareOptions),
    /// Measure how much sites change from step to step and what broadcasting them costs, and fit rules to that
    Calibrate(CalibrateOptions),
    /// Tell how close clips are to their references: PSNR, SSIM, MS-SSIM, LPIPS, flicker
    Quality(QualityOptions),
    /// Put results on one page: what was found, rules, schedule, speed, quality, clips, and how to make it again
    Report(ReportOptions),
    /// Time single steps of original and patched model in alternating order
    Bench(BenchOptions),
    /// Predict time, communication and memory on 1 to 64 ranks of a device that need not be here, from the graph alone
    Plan(PlanOptions),
    /// Fetch ONNX Runtime into the cache, so that all else works offline
    Setup(SetupOptions),
    /// Show which ONNX Runtime, execution providers, devices and threads are used
    Doctor(DoctorOptions),
    /// Print completions for a shell
    Completions(CompletionsOptions),
}

#[derive(Debug, Args)]
pub struct OutputOptions {
    /// Print the result as JSON on standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// Print no messages, only the result and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print more; twice prints all
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Debug, Args)]
pub struct RulesOptions {
    #[arg(long, value_name = "FILE|PRESET", help = rules_help())]
    pub rules: Option<String>,
    /// Meaning of an input's axes where it cannot be told, such as x=batch,channels,frames,height,width; goes before what
    /// the rules say under `inputs`
    #[arg(long = "axes", value_name = "INPUT=AXIS,…", value_parser = assignment::<String>)]
    pub axes: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub struct SeveralRulesOptions {
    /// Rules: a file, or a preset's name (may be given several times: all are compared with the same clips of the original,
    /// each in a folder of its own) [default: pab]
    #[arg(long, value_name = "FILE|PRESET")]
    pub rules: Vec<String>,
    /// Meaning of an input's axes where it cannot be told, such as x=batch,channels,frames,height,width; goes before what
    /// the rules say under `inputs`
    #[arg(long = "axes", value_name = "INPUT=AXIS,…", value_parser = assignment::<String>)]
    pub axes: Vec<(String, String)>,
}

impl SeveralRulesOptions {
    /// Each for itself; at least one.
    pub fn each(&self) -> Vec<RulesOptions> {
        let named = self.rules.iter().cloned().map(Some);
        let mut each: Vec<Option<String>> = named.collect();
        if each.is_empty() {
            each.push(None);
        }
        let options = |rules| RulesOptions {
            rules,
            axes: self.axes.clone(),
        };
        each.into_iter().map(options).collect()
    }
}

#[derive(Clone, Debug, Default, Args)]
pub struct CacheOptions {
    /// Element type of caches, where that is narrower than the values': half the memory, and what is reused is rounded.
    /// f16 overflows beyond 65504
    #[arg(long, value_enum, value_name = "TYPE")]
    pub cache_dtype: Option<CacheTypeChoice>,
    /// Ceiling for the memory of all caches, such as 2GiB: sites that save the least for a byte are always computed;
    /// goes before what the rules say under `memory`
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub memory: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CacheTypeChoice {
    /// 16 bits, 11 of them significant
    F16,
    /// 16 bits, 8 of them significant, with the range of f32
    Bf16,
    /// 32 bits, for models in float64
    F32,
}

impl From<CacheTypeChoice> for CacheType {
    fn from(choice: CacheTypeChoice) -> CacheType {
        match choice {
            CacheTypeChoice::F16 => CacheType::F16,
            CacheTypeChoice::Bf16 => CacheType::Bf16,
            CacheTypeChoice::F32 => CacheType::F32,
        }
    }
}

#[derive(Debug, Args)]
pub struct PatchOptions {
    /// The exported model
    #[arg(required = true, value_name = "MODEL")]
    pub model: Option<PathBuf>,
    #[command(flatten)]
    pub rules: RulesOptions,
    #[command(flatten)]
    pub caches: CacheOptions,
    /// Size of an open dimension, for the memory of the caches and for rules that ask what a site costs, such as batch=2
    /// (may be given several times)
    #[arg(long = "size", value_name = "NAME=N", value_parser = size)]
    pub sizes: Vec<(String, usize)>,
    /// Let data files be hard links to the original's instead of copies, where the file system cannot clone them. The
    /// official onnx package then refuses to load both
    #[arg(long)]
    pub hard_links: bool,
    /// Folder for the patched model and its plan [default: patched, beside the model]
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub course: CourseOptions,
    /// What tells the patched model which rules broadcast
    #[arg(long, value_enum, default_value_t = DriveChoice::Flags)]
    pub drive: DriveChoice,
}

#[derive(Debug, Default, Args)]
pub struct CourseOptions {
    /// diffusers' scheduler_config.json, to write into the plan which steps broadcast [default: the one beside the model]
    #[arg(long, value_name = "FILE")]
    pub scheduler: Option<PathBuf>,
    /// Denoising steps for the plan's schedule [default: 50 where a scheduler is known]
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    #[command(flatten)]
    pub clip: ClipOptions,
}

impl CourseOptions {
    /// Whether nothing was given.
    pub fn is_empty(&self) -> bool {
        self.scheduler.is_none() && self.steps.is_none()
    }
}

/// What some schedulers must know of the clip.
#[derive(Clone, Debug, Default, Args)]
pub struct ClipOptions {
    /// Tokens that the transformer sees of the latent, for schedulers with `use_dynamic_shifting`
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub tokens: Option<u32>,
    /// Size of the video, such as 51x480x854, for Open-Sora's scheduler
    #[arg(long, value_name = "FRAMESxHEIGHTxWIDTH", value_parser = video)]
    pub video: Option<VideoSize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DriveChoice {
    /// A bool input for each rule: any scheduler, any number of steps
    Flags,
    /// The number of the step; the model holds the schedule of one scheduler and number of steps
    Step,
}

impl From<DriveChoice> for Drive {
    fn from(choice: DriveChoice) -> Drive {
        match choice {
            DriveChoice::Flags => Drive::Flags,
            DriveChoice::Step => Drive::Step,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormChoice {
    /// One session; the modules stand in switches
    Switch,
    /// A session for each set of rules that steps broadcast together, without switches; made in memory
    Variants,
}

#[derive(Debug, Args)]
pub struct VariantsOptions {
    /// The exported model, or one that was patched already
    pub model: PathBuf,
    #[command(flatten)]
    pub rules: RulesOptions,
    #[command(flatten)]
    pub caches: CacheOptions,
    /// Size of an open dimension, to count the memory of the caches (may be given several times)
    #[arg(long = "size", value_name = "NAME=N", value_parser = size)]
    pub sizes: Vec<(String, usize)>,
    /// Let data files be hard links to the original's instead of copies, where the file system cannot clone them
    #[arg(long)]
    pub hard_links: bool,
    /// Folder for the variants, their index, the patched model and the weights that all share [default: variants, beside
    /// the model]
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub course: CourseOptions,
}

#[derive(Debug, Args)]
pub struct InspectOptions {
    /// The exported model
    pub model: PathBuf,
    #[command(flatten)]
    pub rules: RulesOptions,
    /// Size of an open dimension, for costs, such as batch=2 (may be given several times)
    #[arg(long = "size", value_name = "NAME=N", value_parser = size)]
    pub sizes: Vec<(String, usize)>,
    /// Write the stack of blocks as a graph for Graphviz (`-` is standard output)
    #[arg(long, value_name = "FILE")]
    pub dot: Option<PathBuf>,
    /// Write the stack of blocks as a page for a browser, with the nodes and cuts of every module (`-` is standard output)
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub struct SessionOptions {
    /// ONNX Runtime's library, or the folder that holds it [default: found, else fetched]
    #[arg(long, value_name = "PATH")]
    pub ort_lib: Option<PathBuf>,
    /// What runs the model: an execution provider and the number of its device, such as `cpu`, `cuda`, `cuda:1`, `tensorrt` or
    /// `webgpu`, or an error where that cannot be used; `auto` is CUDA where it can be used, and the processor otherwise
    #[arg(long, alias = "provider", value_name = "NAME[:N]", default_value = "auto", value_parser = crate::runtime::provider::parse)]
    pub device: (Provider, u32),
    /// Threads within an operator [default: the number of cores]
    #[arg(long, value_name = "N", env = "PAB_PATCH_THREADS")]
    pub threads: Option<usize>,
}

#[derive(Clone, Debug, Args)]
pub struct SamplingOptions {
    /// diffusers' scheduler_config.json [default: the one beside the model, or in scheduler/]
    #[arg(long, value_name = "FILE")]
    pub scheduler: Option<PathBuf>,
    /// Denoising steps
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub steps: usize,
    #[command(flatten)]
    pub clip: ClipOptions,
    /// Scale of classifier-free guidance; 1 is without [default: the pipeline's own, of a single model 2]
    #[arg(long, value_name = "SCALE", value_parser = finite, allow_negative_numbers = true)]
    pub guidance: Option<f32>,
    /// Embeddings of the prompt, [tokens, width], for models without a prompt table
    #[arg(long, value_name = "FILE.npy", conflicts_with = "prompt")]
    pub prompt_embeds: Option<PathBuf>,
    /// Embeddings of the empty prompt, [tokens, width] [default: zeros]
    #[arg(long, value_name = "FILE.npy", requires = "prompt_embeds")]
    pub empty_embeds: Option<PathBuf>,
    /// Value of a further input of the model: .npy, or .npz and .safetensors, of which a FILE alone gives every input that
    /// it has by name (may be given several times)
    #[arg(long = "input", value_name = "[NAME=]FILE", value_parser = input)]
    pub inputs: Vec<InputFile>,
    /// Size of an open dimension, such as frames=16 (may be given several times)
    #[arg(long = "size", value_name = "NAME=N", value_parser = size)]
    pub sizes: Vec<(String, usize)>,
    /// Frames a second of written animations
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50))]
    pub fps: u32,
    /// How many pixels wide each pixel is in animations
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=32))]
    pub scale: u32,
}

impl SamplingOptions {
    /// The scale of guidance, of a single model where nobody says.
    pub fn guidance(&self) -> f32 {
        self.guidance.unwrap_or(2.0)
    }
}

/// A file with a value for one input, or with several by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFile {
    /// The input.
    pub name: Option<String>,
    /// The file.
    pub path: PathBuf,
}

#[derive(Debug, Args)]
pub struct SetupOptions {}

#[derive(Debug, Args)]
pub struct DoctorOptions {
    /// ONNX Runtime's library, or the folder that holds it [default: found]
    #[arg(long, value_name = "PATH")]
    pub ort_lib: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct CompletionsOptions {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// Help for `--rules`, with the names of the presets.
fn rules_help() -> String {
    format!(
        "Rules: a YAML file, or a preset ({}) [default: {DEFAULT_PRESET}, the paper's]",
        preset_names()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_model_alone_patches() {
        let arguments = Arguments::try_parse_from(["pab-patch", "m.onnx", "--rules", "r.yaml", "-o", "d"]).unwrap();
        assert!(arguments.command.is_none());
        assert_eq!(arguments.patch.model, Some(PathBuf::from("m.onnx")));
        assert!(Arguments::try_parse_from(["pab-patch"]).is_err());
        let inspect = Arguments::try_parse_from(["pab-patch", "inspect", "m.onnx", "--json"]).unwrap();
        assert!(matches!(inspect.command, Some(Command::Inspect(_))) && inspect.output.json);
    }
}
