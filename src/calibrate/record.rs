//! What a calibration found, as `calibration.json` has it.

use super::{Change, KindCurve};
use crate::attention::Kind;
use crate::quality::QualitySummary;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The version of the format. 2: ranges are measured and written in timesteps, over one run or several.
pub const CALIBRATION_FORMAT: u32 = 2;

/// A calibration, finished or as far as it got. `docs/calibration/README.md` says what each part means.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Calibration {
    /// [`CALIBRATION_FORMAT`].
    pub format: u32,
    /// The program that made it, with its version.
    pub generator: String,
    /// The command line that made it.
    pub command: Vec<String>,
    /// What was measured depends on these: settings by the words that a person knows them by.
    pub settings: BTreeMap<String, Value>,
    /// The run that was fitted.
    pub run: RunRecord,
    /// Further runs that rules were fitted to as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<RunRecord>,
    /// The change of every site, from step to step; empty until it was recorded.
    pub drift: Vec<SiteDrift>,
    /// A step of a kind counts as stable where its relative L2 change is at most this.
    pub stable_below: f64,
    /// By kind, the mean over its sites, and the share of stable steps.
    pub kinds: Vec<KindCurve>,
    /// What broadcasting cost, each arm alone in each window.
    pub measured: Vec<Measured>,
    /// The points of the frontier: predicted, and then run.
    pub frontier: Vec<Point>,
    /// The point of the frontier that the target chose, and that is `rules.yaml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen: Option<usize>,
    /// Rules on seeds and prompts that were not used for fitting, one entry for each run (scheduler and steps).
    #[serde(default)]
    pub judged: Vec<Judged>,
}

/// A run that clips are made by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The scheduler's class.
    pub scheduler: String,
    /// The steps asked for.
    pub steps: usize,
    /// The timestep of each call of the model.
    pub timesteps: Vec<f64>,
    /// The scale of guidance.
    pub guidance: f64,
}

/// The change of a site's value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SiteDrift {
    /// The site's name; with several exits one entry each.
    pub site: String,
    /// Its kind.
    pub kind: Kind,
    /// Its block, from 0 among those of its kind.
    pub block: usize,
    /// The changes from step to step, from the second step of the run; means over clips.
    pub steps: Vec<Change>,
}

/// What one arm costs that broadcasts alone in one window: means over the clips for fitting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The run: 0 is [`Calibration::run`], then those of [`Calibration::also`].
    #[serde(default)]
    pub run: usize,
    /// The form's name.
    pub form: String,
    /// The arm, as an index of the form's.
    pub arm: usize,
    /// The window, counted from 0.
    pub window: usize,
    /// The range, in steps of [`Calibration::run`].
    pub range: u32,
    /// Steps of the run that broadcast. Where there are none, nothing else was measured.
    pub steps: usize,
    /// Mean squared error of the finished clip, for pixels in [0, 1] (of latents: of the values as they are).
    pub mse: f64,
    /// 1 less the SSIM of the finished clip; none where clips are latents.
    pub dissimilarity: Option<f64>,
    /// The time of a step that broadcasts over that of one that computes, in the same clips.
    pub step_time: f64,
}

/// A point of the frontier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The form's name.
    pub form: String,
    /// For each arm a range for each window, in steps of [`Calibration::run`], 1 where it computes.
    pub ranges: Vec<Vec<u32>>,
    /// The file with these rules, relative to this one.
    pub rules: String,
    /// The time of a clip over that of the original's, as predicted: the mean over runs.
    pub predicted_time: f64,
    /// Mean squared error as predicted, of the worst run.
    pub predicted_mse: f64,
    /// 1 less SSIM as predicted, of the worst run.
    pub predicted_dissimilarity: Option<f64>,
    /// Mean squared error on the clips for fitting, really run, the mean of the worst run; none until then.
    pub mse: Option<f64>,
    /// 1 less SSIM, likewise.
    pub dissimilarity: Option<f64>,
    /// Mean squared error of the worst clip of all runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst_mse: Option<f64>,
    /// 1 less the SSIM of the worst clip of all runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst_dissimilarity: Option<f64>,
    /// The time of a clip over that of the original's beside it: the median over clips, of it the mean over runs.
    pub time: Option<f64>,
    /// What each run gave: [`Calibration::run`], then those of [`Calibration::also`]. Empty until they were run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<PointRun>,
}

/// What a point gave in one run: means over the clips for fitting.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PointRun {
    /// Mean squared error.
    pub mse: f64,
    /// 1 less SSIM; none where clips are latents.
    pub dissimilarity: Option<f64>,
    /// The time of a clip over that of the original's beside it, the median.
    pub time: f64,
}

impl Point {
    /// How far it is from the original, as far as that is known: 1 less SSIM, or the mean squared error.
    pub fn error(&self) -> f64 {
        let measured = self.dissimilarity.or(self.mse);
        measured.or(self.predicted_dissimilarity).unwrap_or(self.predicted_mse)
    }
}

/// Rules on clips that were not used for fitting.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Judged {
    /// The run.
    pub run: RunRecord,
    /// The seeds, from the first to the last.
    pub seeds: [u64; 2],
    /// The prompts, where they were given; else they are from the prompt table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prompts: Vec<String>,
    /// The median time of the original's clips in milliseconds.
    pub original_milliseconds: f64,
    /// By rules.
    pub rules: Vec<JudgedRules>,
}

/// One set of rules, or the original with fewer steps, on clips that were not used for fitting.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct JudgedRules {
    /// Where the rules are from.
    pub rules: String,
    /// SHA-256 of the rules as they were read, without comments.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    /// Whether this calibration made them.
    pub fitted: bool,
    /// The steps, where it is the original with fewer of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fewer_steps: Option<usize>,
    /// The original's time over the patched model's: the median over clips.
    pub speed_up: f64,
    /// The quartiles of that.
    pub quartiles: [f64; 2],
    /// PSNR and SSIM; none where clips are latents.
    pub quality: Option<QualitySummary>,
    /// Mean squared error, the mean over clips.
    pub mse: f64,
    /// Each clip, in the order of the seeds.
    #[serde(default)]
    pub clips: Vec<JudgedClip>,
}

/// One clip beside the original's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgedClip {
    /// The time of the original's clip in milliseconds.
    pub original_milliseconds: f64,
    /// The time of this one.
    pub milliseconds: f64,
    /// Mean squared error.
    pub mse: f64,
    /// PSNR in dB; none where clips are equal or latents.
    pub psnr: Option<f64>,
    /// SSIM; none where clips are latents.
    pub ssim: Option<f64>,
}
