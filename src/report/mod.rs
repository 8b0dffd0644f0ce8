//! What people and pipelines get to see: tables, numbers, frames, animated pictures, arrays and the JSON of a comparison.
//!
//! Every file is written to a temporary sibling and renamed, so that a full disk or an interrupt leaves no torn file.

mod animation;
mod arrays;
mod atomic;
mod clip_file;
mod clip_folder;
mod comparison;
mod comparison_table;
mod error;
mod file_path;
mod font;
mod frames;
mod html;
mod judgement;
mod named_arrays;
pub mod number;
mod page;
mod picture;
pub mod plot;
mod provenance;
mod stack;
mod statistics;
mod step_times;
mod table;
mod trace;
mod video;

pub use animation::{FramesPerSecond, Pair, write_animation, write_apng, write_pairs};
pub use arrays::{Elements, read_array, read_matrix, write_arrays};
pub use atomic::{Pending, write_atomically, write_json};
pub use clip_file::{ValueRange, read_clip};
pub use clip_folder::{ClipPair, ClipPairs, ClipPaths};
pub use comparison::{
    CLIPS, ClipFigures, Comparison, Facts, Measured, MeasuredClip, ORIGINAL, PATCHED, RuleFigures, RunFacts,
    RuntimeFacts, SpeedUp, VariantFigures,
};
pub use comparison_table::side_by_side;
pub use error::ReportError;
pub use file_path::FilePath;
pub use frames::write_frames;
pub use judgement::{JudgedClip, Judgement, LpipsFiles};
pub use named_arrays::{is_named, read_array_named, read_named, write_safetensors};
pub use page::{Drift, Inspection, Named, Page, PageSettings, Results};
pub use picture::frame_pictures;
pub use provenance::Provenance;
pub use stack::{Branch, BranchCut, BranchNode, Stack, StackBlock, StackNote};
pub use statistics::{Distribution, mean, median, median_of_ratios, quantile, ratio_of_medians};
pub use step_times::{StepRatios, StepTimes};
pub use table::{Alignment, Table, TableStyle};
pub use trace::Trace;
pub use video::{check_ffmpeg, write_mp4};
