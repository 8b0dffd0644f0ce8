//! What is told of clips: by `--json`, in words, and in the record of a batch.

use super::ranks::RanksReport;
use crate::cli::source::Stage;
use crate::generation::LatentPlace;
use crate::report::{Distribution, FilePath, number};
use crate::runtime::Provider;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What `--json` prints.
#[derive(Serialize)]
pub struct Report {
    pub model: FilePath,
    pub steps: usize,
    pub guidance: f32,
    #[serde(flatten)]
    pub head: Head,
    /// The transformers, where two take turns.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub transformers: Vec<TransformerReport>,
    /// The ranks, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ranks: Option<RanksReport>,
    /// The clip, where there is one.
    #[serde(flatten)]
    pub clip: Option<ClipReport>,
    /// The clips, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub clips: Vec<ClipReport>,
}

/// What is said of the model once it is open.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Head {
    pub patched: bool,
    pub provider: Provider,
    /// For each rule the share of the steps at which it broadcast.
    pub broadcast: Vec<Broadcast>,
    /// Where the latents lay between the steps, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latents: Option<LatentPlace>,
}

/// A transformer of several that take turns.
#[derive(Clone, Debug, Serialize)]
pub struct TransformerReport {
    pub component: String,
    pub model: FilePath,
    /// The number of its steps.
    pub steps: usize,
    pub guidance: f32,
}

impl TransformerReport {
    /// What is told of the transformer of a stage, where there are several.
    pub fn of(stage: &Stage) -> Option<TransformerReport> {
        Some(TransformerReport {
            component: stage.component?.to_owned(),
            model: stage.model.as_path().into(),
            steps: stage.steps.len(),
            guidance: stage.guidance,
        })
    }
}

/// A rule of the run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Broadcast {
    pub rule: String,
    pub share: f64,
}

/// A clip as it was made.
#[derive(Serialize)]
pub struct ClipReport {
    prompt: Option<String>,
    /// Of the noise, where it was drawn.
    seed: Option<u64>,
    /// Milliseconds of each step; of clips that were made side by side for all of them.
    step_milliseconds: Option<Distribution>,
    clip_milliseconds: f64,
    /// How much faster its steps are than those that computed everything.
    speed_up: Option<f64>,
    arrays: FilePath,
    animation: Option<FilePath>,
    animations: Vec<FilePath>,
    frames: Vec<FilePath>,
}

/// What a clip is and where it goes.
#[derive(Clone, Debug)]
pub struct ClipPlace {
    /// Its number in the batch.
    pub number: usize,
    pub prompt: Option<String>,
    pub seed: Option<u64>,
    pub folder: PathBuf,
    /// The file of its arrays in the folder.
    pub arrays: &'static str,
}

/// What is recorded of a clip: how long it took, and its pictures once they are written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClipRecord {
    pub step_milliseconds: Vec<f64>,
    pub speed_up: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pictures: Option<PictureFiles>,
}

/// Names of pictures in the clip's folder; none where none are wanted or the clip is no picture.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PictureFiles {
    pub animations: Vec<String>,
    pub frames: Vec<String>,
}

impl PictureFiles {
    /// Whether all of them are in the folder.
    pub fn are_in(&self, folder: &Path) -> bool {
        let mut names = self.animations.iter().chain(&self.frames);
        names.all(|name| folder.join(name).is_file())
    }
}

impl ClipReport {
    /// Of a clip in its place.
    pub fn new(place: &ClipPlace, record: &ClipRecord) -> ClipReport {
        let pictures = record.pictures.clone().unwrap_or_default();
        let paths = |names: &[String]| -> Vec<FilePath> {
            let paths = names.iter().map(|name| place.folder.join(name));
            paths.map(FilePath::from).collect()
        };
        let animations = paths(&pictures.animations);
        ClipReport {
            prompt: place.prompt.clone(),
            seed: place.seed,
            step_milliseconds: Distribution::of(&record.step_milliseconds),
            clip_milliseconds: record.step_milliseconds.iter().sum(),
            speed_up: record.speed_up,
            arrays: place.folder.join(place.arrays).into(),
            animation: animations.first().cloned(),
            animations,
            frames: paths(&pictures.frames),
        }
    }
}

impl Report {
    /// With the clips.
    pub fn with(mut self, mut clips: Vec<ClipReport>) -> Report {
        match clips.len() {
            1 => self.clip = clips.pop(),
            _ => self.clips = clips,
        }
        self
    }

    /// In words.
    pub fn text(&self) -> String {
        let mut lines = Vec::new();
        for clip in self.clip.iter().chain(&self.clips) {
            let steps = clip.step_milliseconds.as_ref().map_or_else(String::new, |step| {
                format!(
                    " (mean step {}, median {})",
                    number::milliseconds(step.mean),
                    number::milliseconds(step.median)
                )
            });
            lines.push(format!(
                "{} steps in {}{steps}",
                self.steps,
                number::milliseconds(clip.clip_milliseconds)
            ));
            for transformer in &self.transformers {
                lines.push(format!(
                    "{}: {} of the steps, guidance {}",
                    transformer.component, transformer.steps, transformer.guidance
                ));
            }
            for broadcast in &self.head.broadcast {
                lines.push(format!(
                    "rule {}: broadcast in {} of the steps",
                    broadcast.rule,
                    number::percent(broadcast.share)
                ));
            }
            lines.extend(clip.animations.iter().map(|path| path.display().to_string()));
            if let [first, .., last] = clip.frames.as_slice() {
                lines.push(format!("{} … {}", first.display(), last.display()));
            }
            lines.push(clip.arrays.display().to_string());
        }
        lines.extend(self.ranks.as_ref().map(RanksReport::text));
        lines.join("\n")
    }
}
