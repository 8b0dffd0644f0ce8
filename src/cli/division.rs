//! A model divided over ranks: what `split` writes and `run` runs.

use super::Failure;
use super::analysis::{Analysis, chosen};
use super::caches::CacheSettings;
use crate::onnx::Model;
use crate::rewrite::Wide;
use crate::rewrite::split::{self, LATENTS_KEY, RankGraph, RankLatents};
use crate::rules::Rules;
use crate::shard::{Mesh, Shares};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::Path;

/// The key of [`SplitRecord`] in the metadata of a rank's model.
pub const SPLIT_KEY: &str = "pab.split";

/// What a rank's model says of the split that it is a part of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitRecord {
    /// All ranks.
    pub mesh: Mesh,
    /// The rank that it is for.
    pub rank: usize,
    /// The same in all models of a split, and in those of no other.
    pub split: String,
    /// The original, relative to this model: beside it stand scheduler and prompt table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<String>,
}

impl SplitRecord {
    /// That of a model, where it is a rank's.
    pub fn of(model: &Model) -> Option<SplitRecord> {
        serde_json::from_str(model.proto.metadata(SPLIT_KEY)?).ok()
    }

    /// As it stands in the metadata.
    pub fn to_json(&self) -> String {
        // Names and numbers alone: there is nothing that JSON could not hold.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What of the latents the rank of a model keeps, where it keeps a part.
pub fn rank_latents(model: &Model) -> Option<RankLatents> {
    serde_json::from_str(model.proto.metadata(LATENTS_KEY)?).ok()
}

/// What tells a split from all others: the original with its weights, the ranks, and all else that was asked for, in words.
pub fn split_id(original: &Path, mesh: &Mesh, asked: &[String]) -> Result<String, Failure> {
    let mut hash = Sha256::new();
    hash.update(Model::load(original)?.sampled_sha256()?);
    hash.update(mesh.to_string());
    for word in asked {
        hash.update([0]);
        hash.update(word);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// How often the sites of a model compute in a run through `timesteps` by `rules`, which what is sent is weighed by.
pub fn shares(
    path: &Path,
    whole: &Analysis,
    rules: &Rules,
    wide: &Wide,
    caches: &CacheSettings<'_>,
    timesteps: &[f64],
) -> Result<Shares, Failure> {
    let choices = chosen(path, (&whole.model, &whole.axes, &whole.sites), rules, caches, wide)?;
    Ok(split::shares(&whole.sites, &choices, wide, rules, timesteps))
}

/// A rank's graph as if it had been analysed, and what rules leave out in it beside sites: what was found in the whole holds
/// for it too.
pub fn of_rank(graph: RankGraph, whole: &Analysis) -> (Analysis, Wide) {
    let analysis = Analysis {
        model: graph.model,
        graph_sha256: whole.graph_sha256.clone(),
        axes: whole.axes.clone(),
        sites: graph.sites,
        preset: None,
        fixed: whole.fixed.clone(),
    };
    (analysis, graph.wide)
}
