//! The graph of one rank: its own numbers and its own part of the weights.

use super::Split;
use super::sizes::{LocalSize, stored};
use crate::attention::{Cut, Sites};
use crate::axes::Size;
use crate::graph::ModelGraph;
use crate::shard::{Mesh, ShardError, part};

/// What one rank runs.
#[derive(Clone, Debug)]
pub struct RankGraph {
    /// The rank.
    pub rank: usize,
    /// Its graph.
    pub model: ModelGraph,
    /// The sites in it, with the sizes that it has.
    pub sites: Sites,
}

impl LocalSize {
    /// The size at `rank`, where it does not depend on the inputs.
    pub fn at(&self, mesh: &Mesh, rank: usize, whole: &Size) -> Option<i64> {
        let whole = usize::try_from(whole.as_number()?).ok()?;
        let range = part(whole, mesh.along(self.group), mesh.place(self.group, rank));
        i64::try_from(range.len()).ok()
    }
}

impl Split {
    /// The sizes of `rank`: a number for each symbol of [`Split::locals`] that does not depend on the inputs.
    pub fn numbers(&self, rank: usize) -> Vec<(String, i64)> {
        let mut numbers: Vec<(String, i64)> = Vec::new();
        for local in &self.locals {
            let known = |symbol: &str| {
                let found = numbers.iter().find(|(known, _)| known == symbol);
                found.map(|(_, number)| Size::number(*number))
            };
            let whole = local.whole.substitute(&known);
            if let Some(number) = local.at(&self.mesh, rank, &whole) {
                numbers.push((local.symbol.clone(), number));
            }
        }
        numbers
    }

    /// The graph of `rank`.
    ///
    /// # Errors
    /// [`ShardError::Rank`] where the mesh has no such rank.
    pub fn at_rank(&self, rank: usize) -> Result<RankGraph, ShardError> {
        let ranks = self.mesh.ranks().unwrap_or(0);
        if rank >= ranks {
            return Err(ShardError::Rank { rank, ranks });
        }
        let mut model = self.model.clone();
        let numbers = self.numbers(rank);
        for (symbol, number) in &numbers {
            let Some(value) = model.graph.find(symbol) else {
                continue;
            };
            let constant = model.graph.add_initializer(stored(&format!("{symbol}.rank"), &[*number]))?;
            model.graph.replace_uses(value, constant);
        }
        model.graph.eliminate_dead_code();
        let known = |symbol: &str| {
            let found = numbers.iter().find(|(known, _)| known == symbol);
            found.map(|(_, number)| Size::number(*number))
        };
        let cut = |cut: &Cut| Cut {
            shape: cut.shape.iter().map(|size| size.substitute(&known)).collect(),
            ..cut.clone()
        };
        let mut sites = self.sites.clone();
        for site in &mut sites.sites {
            site.output = site.output.map(cut);
            site.gated = site.gated.as_ref().map(|gated| gated.map(cut));
        }
        Ok(RankGraph { rank, model, sites })
    }
}
