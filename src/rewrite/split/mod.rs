//! A graph split over ranks: every rank runs the same graph on its part of the data, and exchanges what it lacks.
//!
//! [`split`] finds how the graph is divided along each axis of a [`Mesh`] (`crate::shard`) and writes it: collectives of
//! domain `ai.pab` where data has to move, sizes as a rank has them wherever an operator reads one. The result is one
//! graph for all ranks; [`Split::at_rank`] makes the graph of one rank, with numbers in the place of sizes and its parts
//! of the weights alone. [`unroll`] puts the graphs of all ranks into one that needs no collective.

mod behind;
mod exchange;
mod latents;
mod pass;
mod rank;
mod share;
mod sizes;
#[cfg(test)]
mod tests;
mod traffic;
mod unroll;
mod wide;

pub use exchange::{Collective, Exchange};
pub use latents::{KeptLatents, LATENTS_KEY, RankLatents};
pub use rank::RankGraph;
pub use share::shares;
pub use sizes::LocalSize;
pub use traffic::Traffic;
pub use unroll::unroll;

use crate::attention::Sites;
use crate::axes::Axes;
use crate::graph::{ModelGraph, ValueId};
use crate::rewrite::collective::VERSION;
use crate::rewrite::{Wide, write_known_sizes};
use crate::shard::{
    Candidate, DOMAIN, Division, Factor, Facts, Gathered, Group, Kept, Mesh, Preference, ShardError, Shares,
};
use behind::Behind;
use pass::Moved;
use sizes::Sizes;
use std::collections::HashMap;

/// How a graph is split.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SplitOptions {
    /// How tokens are divided; what is left open is what sends least.
    pub sequence: Preference,
    /// How often sites compute in a run ([`shares`]): what is sent is weighed by it.
    pub shares: Shares,
}

/// How the graph is divided along one axis of the mesh.
#[derive(Clone, Debug, PartialEq)]
pub struct DividedAxis {
    /// The axis.
    pub group: Group,
    /// How many ranks it has.
    pub ranks: usize,
    /// What the residual streams are divided along.
    pub factor: Option<Factor>,
    /// What it was chosen from.
    pub candidates: Vec<Candidate>,
}

impl DividedAxis {
    /// What was taken of the candidates.
    pub fn chosen(&self) -> Option<&Candidate> {
        self.candidates
            .iter()
            .find(|candidate| Some(candidate.factor) == self.factor)
    }
}

/// A graph that ranks run together.
#[derive(Clone, Debug)]
pub struct Split {
    /// The graph, the same for all ranks.
    pub model: ModelGraph,
    /// The sites in it. Cuts have the sizes of one rank, in which the symbols of [`Split::locals`] occur.
    pub sites: Sites,
    /// What rules leave out beside sites, in it; nodes of spans are those of the whole, sizes as in [`Split::sites`].
    pub wide: Wide,
    /// The ranks.
    pub mesh: Mesh,
    /// What was divided, for each axis of the mesh that has more than one rank.
    pub axes: Vec<DividedAxis>,
    /// Everything that is sent.
    pub exchanges: Vec<Exchange>,
    /// Sizes that differ from rank to rank.
    pub locals: Vec<LocalSize>,
    /// The latent of which each rank keeps a part from step to step, where that was asked for and can be.
    pub latents: Option<KeptLatents>,
    /// Why the latent is gathered in every step all the same.
    pub gathered: Option<Gathered>,
}

/// Splits `model` over the ranks of `mesh`. `axes` and `sites` are what was found in it.
///
/// Inputs and outputs stay as they are, whole on every rank, but for the latent where ranks keep their parts of it
/// ([`Preference::keep`]).
///
/// # Errors
/// [`ShardError`] with the node that stands in the way where the graph cannot be divided, where sizes are not known, and
/// where the model was split already.
pub fn split(
    model: ModelGraph,
    axes: &Axes,
    sites: &Sites,
    mesh: &Mesh,
    options: &SplitOptions,
) -> Result<Split, ShardError> {
    split_wide(model, axes, sites, &Wide::default(), mesh, options)
}

/// The same where rules leave out spans of blocks or half of the batch, or decide by the drift of a value: `wide` is what they
/// find in the whole, and [`RankGraph::wide`] that of a rank.
///
/// # Errors
/// Those of [`split`]; [`ShardError::Span`] where a span cannot be left out by ranks, [`ShardError::Halves`] for half of a
/// batch that is divided.
pub fn split_wide(
    mut model: ModelGraph,
    axes: &Axes,
    sites: &Sites,
    wide: &Wide,
    mesh: &Mesh,
    options: &SplitOptions,
) -> Result<Split, ShardError> {
    self::wide::refuse_halves(wide, mesh)?;
    mesh.ranks().ok_or(ShardError::Mesh { mesh: *mesh })?;
    if model.opset(DOMAIN).is_some() {
        return Err(ShardError::AlreadySplit);
    }
    const NEEDED: i64 = 13;
    match model.opset("") {
        Some(opset) if opset < NEEDED => return Err(ShardError::TooOld { opset, needed: NEEDED }),
        _ => {}
    }
    model.declare_runtime_operators();
    write_known_sizes(&mut model.graph, axes)?;
    let mut split = Split {
        sites: sites.clone(),
        wide: Wide {
            agreeing: mesh.divided().collect(),
            ..wide.clone()
        },
        mesh: *mesh,
        axes: Vec::new(),
        exchanges: Vec::new(),
        locals: Vec::new(),
        latents: None,
        gathered: None,
        model,
    };
    let mut facts = Facts::of(&split.model, axes);
    let mut sizes = Sizes::of(&split.model.graph, axes);
    for group in [Group::Guidance, Group::Tensor, Group::Sequence] {
        let ranks = mesh.along(group);
        if ranks < 2 {
            continue;
        }
        let preference = match group {
            Group::Sequence => options.sequence,
            Group::Guidance | Group::Tensor => Preference::default(),
        };
        let graph = &mut split.model.graph;
        let division = Division::find(graph, &facts, &split.sites, group, ranks, preference, &options.shares)?;
        let mut moved = Moved::new();
        let entries = self::wide::entries(graph, &split.wide, &division)?;
        let entries = pass::write(
            graph,
            &mut facts,
            &division,
            &mut sizes,
            &mut split.exchanges,
            &mut moved,
            &entries,
        )?;
        let behind = Behind {
            moved: &moved,
            facts: &facts,
        };
        self::wide::behind(&mut split.wide, &behind, entries);
        behind.sites(&mut split.sites);
        let kept = division.kept().and_then(|kept| latents(&split.model, kept, group));
        split.latents = kept.or(split.latents);
        split.gathered = division.gathered.clone().or(split.gathered);
        split.axes.push(DividedAxis {
            group,
            ranks,
            factor: division.factor,
            candidates: division.candidates,
        });
    }
    // What one axis of the mesh exchanges, later axes may have divided further.
    let nodes = split.model.graph.nodes();
    let results: HashMap<&str, ValueId> = nodes
        .filter_map(|(_, node)| Some((node.name(), node.output(0)?)))
        .collect();
    for exchange in &mut split.exchanges {
        let result = results.get(exchange.name.as_str());
        if let Some(rest) = result.and_then(|value| exchange.rest_of(facts.sizes(*value)?)) {
            exchange.rest = rest;
        }
    }
    split.locals = sizes.into_locals();
    self::wide::halve_outputs(&mut split.wide, &split.model.graph, &facts);
    split.model.graph.eliminate_dead_code();
    split.model.declare_operators(DOMAIN, VERSION);
    Ok(split)
}

/// What is kept, for hosts.
fn latents(model: &ModelGraph, kept: &Kept, group: Group) -> Option<KeptLatents> {
    let number = |size: &crate::axes::Size| usize::try_from(size.as_number()?).ok();
    Some(KeptLatents {
        input: model.graph.value(kept.input).name().to_owned(),
        output: model.graph.value(kept.output).name().to_owned(),
        axis: kept.shard.dim,
        size: number(&kept.shard.size())?,
        unit: number(&kept.shard.inner)?,
        group,
    })
}
