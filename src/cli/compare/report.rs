//! What is written and said of a comparison: figures, clips beside each other, and the clips themselves.

use super::candidate::{Both, Candidate};
use super::options::CompareOptions;
use crate::cli::Failure;
use crate::cli::caches::CacheReport;
use crate::cli::source::picture;
use crate::cli::terminal::Terminal;
use crate::report::{
    CLIPS, Comparison, FilePath, FramesPerSecond, PATCHED, Pair, ReportError, write_apng, write_json, write_pairs,
};
use ndarray::ArrayD;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What `--json` prints of one set of rules: the figures, and what was written.
#[derive(Serialize)]
pub struct Report<'a> {
    #[serde(flatten)]
    comparison: &'a Comparison,
    /// The memory of the caches; of two transformers each has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    caches: Option<&'a CacheReport>,
    /// The patched model; of two transformers the folder of both.
    patched_file: FilePath,
    /// The patched transformers, where two take turns.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    transformers: Vec<TransformerReport<'a>>,
    /// Original beside patched, where clips are pictures.
    animation: Option<FilePath>,
    /// The clips themselves, where they are pictures.
    clip_folders: Option<ClipFolders>,
    /// The same figures as a file.
    figures: FilePath,
}

/// What `--json` prints, and what `comparisons.json` holds, where there are several sets of rules.
#[derive(Serialize)]
pub struct Reports<'a> {
    pub comparisons: &'a [Report<'a>],
}

/// A patched transformer of two.
#[derive(Serialize)]
struct TransformerReport<'a> {
    component: &'static str,
    /// The patched model.
    patched_file: FilePath,
    /// How many of the steps are its own.
    steps: usize,
    /// The scale of guidance in them.
    guidance: f32,
    /// The memory of the caches.
    caches: &'a CacheReport,
}

/// Folders with a file for each clip, of the same names.
#[derive(Clone, Serialize)]
struct ClipFolders {
    original: FilePath,
    patched: FilePath,
}

/// Writes the figures and the animation of one set of rules.
pub fn report<'a>(
    options: &CompareOptions,
    candidate: &'a Candidate,
    comparison: &'a Comparison,
    originals: Option<&Path>,
    rate: FramesPerSecond,
) -> Result<Report<'a>, Failure> {
    let figures = candidate.folder.join("figures.json");
    write_json(&figures, comparison)?;
    let animation = animation(&candidate.folder, &candidate.pictures, rate, options.sampling.scale)?;
    // By the name of the rules where there are several.
    let below = candidate.folder.strip_prefix(&options.output).ok();
    let name = below
        .filter(|name| !name.as_os_str().is_empty())
        .unwrap_or(Path::new(PATCHED));
    let patched = write_clips(options, name, candidate, |both| &both.patched, rate)?;
    let clip_folders = originals.zip(patched).map(|(original, patched)| ClipFolders {
        original: original.into(),
        patched: patched.into(),
    });
    let only = match candidate.transformers.as_slice() {
        [only] => Some(&only.written),
        _ => None,
    };
    let transformers = candidate.transformers.iter().filter_map(|transformer| {
        Some(TransformerReport {
            component: transformer.stage.component?,
            patched_file: transformer.written.model.as_path().into(),
            steps: transformer.stage.steps.len(),
            guidance: transformer.stage.guidance,
            caches: &transformer.written.caches,
        })
    });
    Ok(Report {
        comparison,
        caches: only.map(|written| &written.caches),
        patched_file: only
            .map_or(&candidate.folder, |written| &written.model)
            .as_path()
            .into(),
        transformers: transformers.collect(),
        animation: animation.map(FilePath::from),
        clip_folders,
        figures: figures.into(),
    })
}

pub fn text(report: &Report<'_>, terminal: &Terminal) -> String {
    let mut text = report.comparison.render(terminal.table_style());
    text.push('\n');
    match report.transformers.as_slice() {
        [] => text.push_str(&format!("Patched model  {}\n", report.patched_file.display())),
        several => {
            for transformer in several {
                text.push_str(&format!(
                    "Patched model  {} ({} of the steps, guidance {})\n",
                    transformer.patched_file.display(),
                    transformer.steps,
                    transformer.guidance
                ));
            }
        }
    }
    if let Some(animation) = &report.animation {
        text.push_str(&format!("Animation      {}\n", animation.display()));
    }
    if let Some(clips) = &report.clip_folders {
        text.push_str(&format!(
            "Clips          {}\n               {}\n",
            clips.original.display(),
            clips.patched.display()
        ));
    }
    text.push_str(&format!("Figures        {}\n", report.figures.display()));
    text
}

/// Writes every clip by one of the models into a folder of its own below `clips`, exactly as it is; `None` where clips are no
/// pictures.
pub fn write_clips(
    options: &CompareOptions,
    name: impl AsRef<Path>,
    candidate: &Candidate,
    which: fn(&Both) -> &ArrayD<f32>,
    rate: FramesPerSecond,
) -> Result<Option<PathBuf>, Failure> {
    let folder = options.output.join(CLIPS).join(name);
    let file = |number: usize| folder.join(format!("clip_{number:03}.apng"));
    for (number, both) in candidate.pictures.iter().enumerate() {
        let Some(clip) = picture(which(both)) else {
            return Ok(None);
        };
        std::fs::create_dir_all(&folder).map_err(|source| ReportError::Write {
            path: folder.clone(),
            source,
        })?;
        write_apng(&file(number), clip, rate, 1)?;
    }
    // Those of an earlier comparison, which may have had more.
    for number in candidate.pictures.len().. {
        if std::fs::remove_file(file(number)).is_err() {
            break;
        }
    }
    Ok(Some(folder))
}

fn animation(folder: &Path, pictures: &[Both], rate: FramesPerSecond, scale: u32) -> Result<Option<PathBuf>, Failure> {
    let pairs: Option<Vec<Pair<'_>>> = pictures
        .iter()
        .map(|both| {
            Some(Pair {
                caption: &both.caption,
                original: picture(&both.original)?,
                patched: picture(&both.patched)?,
            })
        })
        .collect();
    let Some(pairs) = pairs else { return Ok(None) };
    let path = folder.join("comparison.gif");
    write_pairs(&path, &pairs, rate, scale)?;
    Ok(Some(path))
}
