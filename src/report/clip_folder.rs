//! Clips of a folder, and those of two folders by their names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::ReportError;
use super::clip_file::{clip_rank, stills};

/// What a path has of clips.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClipPaths {
    /// It is a clip itself.
    One(PathBuf),
    /// It is a folder of clips: each with the name by which it is matched, a file's without its ending.
    Several(BTreeMap<String, PathBuf>),
}

impl ClipPaths {
    /// Looks at a path: a file is a clip, and so is a folder with PNG frames; other folders have clips in files and in folders
    /// below. Where files differ in their ending alone, the most exact is taken.
    ///
    /// # Errors
    /// [`ReportError::Read`] where the operating system refuses, [`ReportError::ClipFile`] where there is no clip.
    pub fn at(path: &Path) -> Result<ClipPaths, ReportError> {
        let read = |path: &Path| {
            std::fs::read_dir(path).map_err(|source| ReportError::Read {
                path: path.to_owned(),
                source,
            })
        };
        if !path.is_dir() {
            std::fs::metadata(path).map_err(|source| ReportError::Read {
                path: path.to_owned(),
                source,
            })?;
            return Ok(ClipPaths::One(path.to_owned()));
        }
        if !stills(path)?.is_empty() {
            return Ok(ClipPaths::One(path.to_owned()));
        }
        let mut found: BTreeMap<String, (usize, PathBuf)> = BTreeMap::new();
        for entry in read(path)? {
            let entry = entry.map_err(|source| ReportError::Read {
                path: path.to_owned(),
                source,
            })?;
            let place = entry.path();
            let (name, rank, clip) = if place.is_dir() {
                let Some(clip) = clip_in(&place)? else { continue };
                (place.file_name(), 0, clip)
            } else {
                let Some(rank) = clip_rank(&place) else { continue };
                (place.file_stem(), rank + 1, place.clone())
            };
            let name = name.unwrap_or_default().to_string_lossy().into_owned();
            match found.get(&name) {
                Some((better, _)) if *better <= rank => {}
                _ => {
                    found.insert(name, (rank, clip));
                }
            }
        }
        if found.is_empty() {
            return Err(ReportError::ClipFile {
                path: path.to_owned(),
                reason: "there is no clip in it".to_owned(),
                advice: "give a folder of PNG frames, or one with clips as files or as folders of PNG frames"
                    .to_owned(),
            });
        }
        let several = found.into_iter().map(|(name, (_, clip))| (name, clip)).collect();
        Ok(ClipPaths::Several(several))
    }
}

/// The clip of a folder below: its PNG frames, or the most exact of its files.
fn clip_in(folder: &Path) -> Result<Option<PathBuf>, ReportError> {
    if !stills(folder)?.is_empty() {
        return Ok(Some(folder.to_owned()));
    }
    let entries = std::fs::read_dir(folder).map_err(|source| ReportError::Read {
        path: folder.to_owned(),
        source,
    })?;
    let files = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_file());
    let ranked = files.filter_map(|path| Some((clip_rank(&path)?, path)));
    Ok(ranked.min().map(|(_, path)| path))
}

/// A clip and what it is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClipPair {
    /// The name that both have, or that of the reference.
    pub name: String,
    /// The reference.
    pub reference: PathBuf,
    /// The other.
    pub other: PathBuf,
}

/// The clips of two paths in pairs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClipPairs {
    /// In the order of their names.
    pub pairs: Vec<ClipPair>,
    /// Clips of the reference that the other does not have.
    pub reference_only: Vec<String>,
    /// Clips of the other that the reference does not have.
    pub other_only: Vec<String>,
}

impl ClipPairs {
    /// Two clips, or the clips of two folders that have the same names.
    ///
    /// # Errors
    /// Those of [`ClipPaths::at`], and [`ReportError::ClipFile`] where one is a clip and one a folder of clips, or no name is the
    /// same.
    pub fn of(reference: &Path, other: &Path) -> Result<ClipPairs, ReportError> {
        let refuse = |path: &Path, reason: String, advice: &str| ReportError::ClipFile {
            path: path.to_owned(),
            reason,
            advice: advice.to_owned(),
        };
        match (ClipPaths::at(reference)?, ClipPaths::at(other)?) {
            (ClipPaths::One(reference), ClipPaths::One(other)) => {
                let name = reference.file_name().unwrap_or(reference.as_os_str());
                let pair = ClipPair {
                    name: name.to_string_lossy().into_owned(),
                    reference,
                    other,
                };
                Ok(ClipPairs {
                    pairs: vec![pair],
                    ..ClipPairs::default()
                })
            }
            (ClipPaths::Several(of_reference), ClipPaths::Several(mut of_other)) => {
                let mut found = ClipPairs::default();
                for (name, clip) in of_reference {
                    match of_other.remove(&name) {
                        Some(other) => found.pairs.push(ClipPair {
                            name,
                            reference: clip,
                            other,
                        }),
                        None => found.reference_only.push(name),
                    }
                }
                found.other_only = of_other.into_keys().collect();
                found
                    .pairs
                    .sort_by_cached_key(|pair| super::clip_file::by_number(&pair.name));
                if found.pairs.is_empty() {
                    let has = found.other_only.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
                    return Err(refuse(
                        other,
                        format!(
                            "none of its clips ({has}, …) has the name of one in {}",
                            reference.display()
                        ),
                        "clips are matched by the names of their files or folders",
                    ));
                }
                Ok(found)
            }
            (ClipPaths::One(_), ClipPaths::Several(clips)) => Err(refuse(
                other,
                format!(
                    "it is a folder of {} clips, and {} is one clip",
                    clips.len(),
                    reference.display()
                ),
                "give two clips, or two folders of clips",
            )),
            (ClipPaths::Several(clips), ClipPaths::One(_)) => Err(refuse(
                reference,
                format!(
                    "it is a folder of {} clips, and {} is one clip",
                    clips.len(),
                    other.display()
                ),
                "give two clips, or two folders of clips",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array4;

    use super::*;
    use crate::report::{FramesPerSecond, write_apng, write_frames};

    #[test]
    fn clips_are_matched_by_name() {
        let root = tempfile::tempdir().unwrap();
        let clip = Array4::<f32>::zeros((3, 2, 4, 4));
        let at = |name: &str| root.path().join(name);
        let file = |name: &str| {
            std::fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            std::fs::write(at(name), "").unwrap();
        };
        write_frames(&at("a/clip_2"), clip.view()).unwrap();
        for name in [
            "a/clip_10.gif",
            "a/clip_10.npz",
            "a/notes.txt",
            "a/alone.gif",
            "b/clip_10/clip.npz",
            "b/clip_10/clip.gif",
        ] {
            file(name);
        }
        write_apng(&at("b/clip_2.png"), clip.view(), FramesPerSecond::new(8).unwrap(), 1).unwrap();
        let found = ClipPairs::of(&at("a"), &at("b")).unwrap();
        let pair = |name: &str, reference: &str, other: &str| ClipPair {
            name: name.to_owned(),
            reference: at(reference),
            other: at(other),
        };
        assert_eq!(
            found.pairs,
            [
                pair("clip_2", "a/clip_2", "b/clip_2.png"),
                pair("clip_10", "a/clip_10.npz", "b/clip_10/clip.npz")
            ]
        );
        assert_eq!(
            (found.reference_only, found.other_only),
            (vec!["alone".to_owned()], vec![])
        );
        let two = ClipPairs::of(&at("a/clip_2"), &at("b/clip_2.png")).unwrap();
        assert_eq!(two.pairs, [pair("clip_2", "a/clip_2", "b/clip_2.png")]);
    }

    #[test]
    fn what_does_not_match_says_so() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for (folder, name) in [("a", "x.gif"), ("b", "y.gif"), ("c", "notes.txt")] {
            std::fs::create_dir(at(folder)).unwrap();
            std::fs::write(at(folder).join(name), "").unwrap();
        }
        let message = |one: &str, other: &str| ClipPairs::of(&at(one), &at(other)).unwrap_err().to_string();
        assert!(message("a", "b").contains("(y, …)"), "{}", message("a", "b"));
        assert!(message("a", "c").contains("no clip in it"));
        assert!(message("a", "b/y.gif").contains("folder of 1 clips"));
        assert!(message("a/x.gif", "b").contains("folder of 1 clips"));
        assert!(message("a", "none").contains("cannot read"));
    }
}
