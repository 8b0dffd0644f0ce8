//! A folder with a model for each rank, as `split` writes it.

use crate::cli::Failure;
use crate::cli::division::SplitRecord;
use crate::onnx::Model;
use crate::shard::Mesh;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The models of the ranks, as far as they are here.
#[derive(Clone, Debug)]
pub struct SplitFolder {
    path: PathBuf,
    files: BTreeMap<usize, PathBuf>,
    mesh: Mesh,
}

impl SplitFolder {
    /// The models in a folder; none where it is none, or has no models of ranks.
    pub fn find(folder: &Path) -> Result<Option<SplitFolder>, Failure> {
        let Ok(entries) = std::fs::read_dir(folder) else {
            return Ok(None);
        };
        let (mut files, mut names) = (BTreeMap::new(), BTreeSet::new());
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some((stem, rank)) = parts_of(&name) {
                files.insert(rank, entry.path());
                names.insert(stem.to_owned());
            }
        }
        let Some(file) = files.values().next() else {
            return Ok(None);
        };
        if names.len() > 1 {
            return Err(Failure::Usage(format!(
                "{} has the ranks of several models ({}); give a folder with one",
                folder.display(),
                names.into_iter().collect::<Vec<_>>().join(", ")
            )));
        }
        let mesh = record(file)?.mesh;
        Ok(Some(SplitFolder {
            path: folder.to_owned(),
            files,
            mesh,
        }))
    }

    /// What the model was split over.
    pub fn mesh(&self) -> Mesh {
        self.mesh
    }

    /// The model of a rank.
    pub fn file(&self, rank: usize) -> Result<&Path, Failure> {
        self.files.get(&rank).map(PathBuf::as_path).ok_or_else(|| {
            Failure::Usage(format!(
                "{} has no model of rank {rank}, and was split over {}; split the original again",
                self.path.display(),
                self.mesh
            ))
        })
    }
}

/// What a rank's model says of its split.
pub fn record(file: &Path) -> Result<SplitRecord, Failure> {
    SplitRecord::of(&Model::load(file)?).ok_or_else(|| {
        Failure::Usage(format!(
            "{} does not say which split it is a part of; split the original again with this version",
            file.display()
        ))
    })
}

/// Name and rank of `NAME.rankN.onnx`.
fn parts_of(name: &str) -> Option<(&str, usize)> {
    let (stem, rank) = name.strip_suffix(".onnx")?.rsplit_once(".rank")?;
    Some((stem, rank.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ranks_are_told_from_others() {
        assert_eq!(parts_of("latte.ts17.rank12.onnx"), Some(("latte.ts17", 12)));
        for other in ["model.onnx", "model.rank.onnx", "model.rank1.pab.json", "rank1"] {
            assert_eq!(parts_of(other), None, "{other}");
        }
    }
}
