//! Results of other commands, found in files and folders and told apart by what is in them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::super::comparison::{CLIPS, Comparison, ORIGINAL, PATCHED};
use super::super::judgement::Judgement;
use super::super::step_times::StepTimes;
use super::{Drift, Inspection};
use crate::report::ReportError;
use crate::rewrite::Plan;

/// No result is as large as this.
const MOST_BYTES: u64 = 256 << 20;
/// How many folders below the given one are looked into.
const DEPTH: usize = 4;

/// A result, and the file that has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Named<T> {
    /// The file.
    pub path: PathBuf,
    /// The result.
    pub value: T,
}

/// Two folders of clips, or two clips.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipFolders {
    /// What made the others.
    pub title: String,
    /// Pairs of clips: name, reference, other.
    pub pairs: Vec<(String, PathBuf, PathBuf)>,
    /// PSNR of each pair, where it is known; the inner `None` is infinite.
    pub psnr: Vec<Option<Option<f64>>>,
}

/// Everything that a page shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results {
    /// From `pab-patch inspect --json`.
    pub inspections: Vec<Named<Inspection>>,
    /// From patching, beside the patched model.
    pub plans: Vec<Named<Plan>>,
    /// From `pab-patch compare`.
    pub comparisons: Vec<Named<Comparison>>,
    /// From `pab-patch bench --json`.
    pub step_times: Vec<Named<StepTimes>>,
    /// From `pab-patch calibrate`.
    pub calibrations: Vec<Named<Drift>>,
    /// From `pab-patch quality`.
    pub judgements: Vec<Named<Judgement>>,
    /// Clips that belong to these.
    pub clips: Vec<ClipFolders>,
    /// Files that seem to be results and cannot be read, with the reason.
    pub skipped: Vec<(PathBuf, String)>,
}

/// What a file turned out to be.
enum Kind {
    Result,
    /// It seems to be one, and cannot be read.
    Broken(String),
    Other,
}

impl Results {
    /// Reads results: from files, and from all `.json` files in folders and the folders below.
    ///
    /// # Errors
    /// [`ReportError::Read`] where the operating system refuses, [`ReportError::NoResult`] for a file that is none, and where a
    /// path has none.
    pub fn read(paths: &[PathBuf]) -> Result<Results, ReportError> {
        let mut results = Results::default();
        for path in paths {
            let before = results.count();
            if path.is_dir() {
                results.read_folder(path, DEPTH)?;
                if results.count() == before {
                    let first = results.skipped.first();
                    return Err(ReportError::NoResult {
                        path: path.clone(),
                        reason: first.map_or_else(
                            || "there is none in it".to_owned(),
                            |(path, reason)| format!("{}: {reason}", path.display()),
                        ),
                    });
                }
            } else {
                let reason = match results.read_file(path)? {
                    Kind::Result => continue,
                    Kind::Broken(reason) => reason,
                    Kind::Other => "it is not JSON of a known form".to_owned(),
                };
                let path = path.clone();
                return Err(ReportError::NoResult { path, reason });
            }
        }
        results.find_clips();
        Ok(results)
    }

    fn count(&self) -> usize {
        self.inspections.len()
            + self.plans.len()
            + self.comparisons.len()
            + self.step_times.len()
            + self.calibrations.len()
            + self.judgements.len()
    }

    fn read_folder(&mut self, folder: &Path, depth: usize) -> Result<(), ReportError> {
        let refused = |source| ReportError::Read {
            path: folder.to_owned(),
            source,
        };
        let entries = std::fs::read_dir(folder).map_err(refused)?;
        let mut paths = Vec::new();
        for entry in entries {
            paths.push(entry.map_err(refused)?.path());
        }
        paths.sort_by_cached_key(|path| super::super::clip_file::by_number(&path.to_string_lossy()));
        let (folders, files): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| path.is_dir());
        for path in files {
            if path.extension() == Some(OsStr::new("json"))
                && let Kind::Broken(reason) = self.read_file(&path)?
            {
                self.skipped.push((path, reason));
            }
        }
        // Folders that are links may lead back here.
        for path in folders.into_iter().filter(|path| !path.is_symlink()) {
            if depth > 0 {
                self.read_folder(&path, depth - 1)?;
            }
        }
        Ok(())
    }

    fn read_file(&mut self, path: &Path) -> Result<Kind, ReportError> {
        let refused = |source| ReportError::Read {
            path: path.to_owned(),
            source,
        };
        if std::fs::metadata(path).map_err(refused)?.len() > MOST_BYTES {
            return Ok(Kind::Other);
        }
        let bytes = std::fs::read(path).map_err(refused)?;
        let Ok(value) = serde_json::from_slice::<Value>(&bytes) else {
            return Ok(Kind::Other);
        };
        Ok(self.take(path, value))
    }

    /// Takes a result in, told by the keys that it has.
    fn take(&mut self, path: &Path, value: Value) -> Kind {
        let has = |keys: &[&str]| keys.iter().all(|key| value.get(key).is_some());
        if has(&["speed_up", "patched_model", "clips"]) {
            keep(&mut self.comparisons, path, value)
        } else if let Some(Value::Array(comparisons)) = value.get("comparisons") {
            let mut kind = Kind::Other;
            for comparison in comparisons.clone() {
                // Each stands in a folder of its own beside this file, where its figures are too.
                let figures = comparison.get("figures").and_then(Value::as_str).map(Path::new);
                let name = figures.and_then(Path::parent).and_then(Path::file_name);
                let path = path.with_file_name(name.unwrap_or_default()).join("figures.json");
                kind = keep(&mut self.comparisons, &path, comparison);
            }
            kind
        } else if has(&["computing", "broadcasting", "ratios"]) {
            keep(&mut self.step_times, path, value)
        } else if has(&["drift", "kinds", "stable_below"]) {
            keep(&mut self.calibrations, path, value)
        } else if has(&["reference", "other", "summary", "clips"]) {
            keep(&mut self.judgements, path, value)
        } else if has(&["sites", "rules", "generator"]) {
            match Plan::parse(&value.to_string()) {
                Ok(plan) => keep_new(&mut self.plans, path, plan),
                Err(error) => return Kind::Broken(error.to_string()),
            }
            Kind::Result
        } else if has(&["sites", "flops", "open_size"]) {
            keep(&mut self.inspections, path, value)
        } else {
            Kind::Other
        }
    }

    /// The clips beside comparisons, and those that judgements are about.
    fn find_clips(&mut self) {
        let mut seen = BTreeSet::new();
        for comparison in &self.comparisons {
            let Some(folder) = comparison.path.parent() else {
                continue;
            };
            let below = [folder.join(CLIPS).join(ORIGINAL), folder.join(CLIPS).join(PATCHED)];
            let beside = folder.file_name().map(|name| {
                let clips = folder.join("..").join(CLIPS);
                [clips.join(ORIGINAL), clips.join(name)]
            });
            let places = std::iter::once(below).chain(beside);
            let found = places
                .into_iter()
                .find(|places| places.iter().all(|place| place.is_dir()));
            let Some([original, patched]) = found else { continue };
            let clips = &comparison.value.clips;
            let place = |number: usize| format!("clip_{number:03}.apng");
            let pairs = clips.iter().enumerate().map(|(number, clip)| {
                let name = clip.prompt.clone().unwrap_or_else(|| format!("seed {}", clip.seed));
                (name, original.join(place(number)), patched.join(place(number)))
            });
            let quality = |clip: &super::super::ClipFigures| clip.quality.as_ref().map(|quality| quality.psnr);
            let clips = ClipFolders {
                title: comparison.value.facts.rules_from.clone(),
                psnr: clips.iter().map(quality).collect(),
                pairs: pairs.collect(),
            };
            self.clips.extend(clips.unseen(&mut seen));
        }
        for judgement in &self.judgements {
            let folder = judgement.path.parent().unwrap_or(Path::new(""));
            // As they were given, or from where the file is.
            let found = |path: &str| {
                let path = PathBuf::from(path);
                if path.exists() { path } else { folder.join(path) }
            };
            let judged = &judgement.value.clips;
            let pairs = judged
                .iter()
                .map(|clip| (clip.name.clone(), found(&clip.reference), found(&clip.other)));
            let clips = ClipFolders {
                title: judgement.value.other.clone(),
                pairs: pairs.collect(),
                psnr: judged.iter().map(|clip| Some(clip.quality.psnr)).collect(),
            };
            self.clips.extend(clips.unseen(&mut seen));
        }
    }

    /// The names of the models that the results are about.
    pub(super) fn models(&self) -> Vec<String> {
        let compared = self.comparisons.iter().map(|result| &result.value.facts.model);
        let timed = self.step_times.iter().map(|result| &result.value.model);
        let inspected = self.inspections.iter().map(|result| &result.value.model);
        let mut names: Vec<String> = Vec::new();
        for model in compared.chain(timed).chain(inspected) {
            if !names.contains(model) {
                names.push(model.clone());
            }
        }
        names
    }
}

impl ClipFolders {
    /// The pairs whose clips are on no other list; none where all are.
    fn unseen(mut self, seen: &mut BTreeSet<PathBuf>) -> Option<ClipFolders> {
        let new = |path: &Path| seen.insert(path.canonicalize().unwrap_or_else(|_| path.to_owned()));
        let fresh: Vec<bool> = self
            .pairs
            .iter()
            .map(|(_, _, other)| other)
            .map(PathBuf::as_path)
            .map(new)
            .collect();
        let mut keep = fresh.iter();
        self.pairs.retain(|_| keep.next() == Some(&true));
        let mut keep = fresh.iter();
        self.psnr.retain(|_| keep.next() == Some(&true));
        (!self.pairs.is_empty()).then_some(self)
    }
}

/// Reads a result and keeps it, unless it is there already: the same figures may stand in several files.
fn keep<T: DeserializeOwned + PartialEq>(list: &mut Vec<Named<T>>, path: &Path, value: Value) -> Kind {
    match serde_json::from_value(value) {
        Ok(value) => {
            keep_new(list, path, value);
            Kind::Result
        }
        Err(error) => Kind::Broken(format!(
            "it was written by another version of pab-patch ({error}); make it again"
        )),
    }
}

fn keep_new<T: PartialEq>(list: &mut Vec<Named<T>>, path: &Path, value: T) {
    if list.iter().all(|known| known.value != value) {
        list.push(Named {
            path: path.to_owned(),
            value,
        });
    }
}
