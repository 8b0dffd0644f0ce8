//! The latent of a split run: whole on every rank between two steps, or a part on each.

use crate::graph::ModelGraph;
use crate::onnx::messages::Dimension;
use crate::shard::{Group, Mesh, part};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// The metadata that tells a host which part of the latent the rank has: [`RankLatents`] as JSON.
pub const LATENTS_KEY: &str = "pab.latents";

/// An input and an output of which each rank has a part: the host gives and gets that, and gathers it when the run is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptLatents {
    /// The latent before a step.
    pub input: String,
    /// What the model says of it.
    pub output: String,
    /// The axis of both that is divided.
    pub axis: usize,
    /// Entries of the whole axis.
    pub size: usize,
    /// Entries that stay together: the axis is divided in units of so many.
    pub unit: usize,
    /// The axis of the mesh that divides it.
    pub group: Group,
}

/// What one rank has of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankLatents {
    /// What is divided.
    #[serde(flatten)]
    pub latents: KeptLatents,
    /// The first entry of the axis that the rank has.
    pub start: usize,
    /// The first behind those that it has.
    pub end: usize,
}

impl KeptLatents {
    /// Which entries of the axis `rank` has.
    pub fn range(&self, mesh: &Mesh, rank: usize) -> Range<usize> {
        let units = self.size / self.unit.max(1);
        let range = part(units, mesh.along(self.group), mesh.place(self.group, rank));
        range.start * self.unit..range.end * self.unit
    }

    /// Declares the sizes of `rank`, and tells them to the host.
    pub(super) fn declare(&self, model: &mut ModelGraph, mesh: &Mesh, rank: usize) {
        let range = self.range(mesh, rank);
        for name in [&self.input, &self.output] {
            if let Some(value) = model.graph.find(name) {
                let size = Dimension {
                    dim_value: i64::try_from(range.len()).ok(),
                    ..Dimension::default()
                };
                model.graph.declare_dimension(value, self.axis, size);
            }
        }
        let of_rank = RankLatents {
            latents: self.clone(),
            start: range.start,
            end: range.end,
        };
        if let Ok(text) = serde_json::to_string(&of_rank) {
            model.set_metadata(LATENTS_KEY, text);
        }
    }
}
