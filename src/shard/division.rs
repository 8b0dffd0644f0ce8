//! How a graph is divided along one axis of the mesh.

use super::choice::{self, Factor, Preference};
use super::error::ShardError;
use super::facts::Facts;
use super::flow::{Alternative, Flow, asks_for_sizes};
use super::kept::{Gathered, Kept};
use super::mesh::Group;
use super::placement::Placement;
use super::score::Candidate;
use super::share::Shares;
use super::step::Step;
use crate::attention::Sites;
use crate::graph::{Graph, Node, NodeId, ValueId};

/// Where every value of a graph lies along one axis of the mesh.
#[derive(Clone, Debug)]
pub struct Division {
    /// The axis.
    pub group: Group,
    /// How many ranks divide.
    pub ranks: usize,
    /// What the residual streams are divided along; none where weights are.
    pub factor: Option<Factor>,
    /// What was tried for attentions that mix it.
    pub alternatives: Vec<Alternative>,
    /// Why the latent is gathered in every step, where it was to be kept.
    pub gathered: Option<Gathered>,
    /// The factors that were compared.
    pub candidates: Vec<Candidate>,
    flow: Flow,
}

impl Division {
    /// The division of `graph` over `ranks` ranks that sends least in a run, as far as `preference` leaves it open. `shares`
    /// say how often the sites compute in it.
    ///
    /// # Errors
    /// [`ShardError`] where there is none, with what stands in the way.
    pub fn find(
        graph: &Graph,
        facts: &Facts<'_>,
        sites: &Sites,
        group: Group,
        ranks: usize,
        preference: Preference,
        shares: &Shares,
    ) -> Result<Division, ShardError> {
        let chosen = match group {
            Group::Tensor => choice::divide_weights(graph, facts, sites, ranks, shares)?,
            Group::Guidance | Group::Sequence => choice::choose(graph, facts, sites, group, ranks, preference, shares)?,
        };
        Ok(Division {
            group,
            ranks,
            factor: chosen.factor,
            alternatives: chosen.alternatives,
            gathered: chosen.gathered,
            candidates: chosen.candidates,
            flow: chosen.flow,
        })
    }

    /// The latent of which each rank keeps its part.
    pub(crate) fn kept(&self) -> Option<&Kept> {
        self.flow.kept.as_ref()
    }

    /// Where a value lies for its readers.
    pub(crate) fn held(&self, value: ValueId) -> Placement {
        self.flow.held.get(value.index()).cloned().flatten()
    }

    /// What a node needs and gives.
    pub(crate) fn step(&self, id: NodeId) -> Option<&Step> {
        self.flow.steps.get(id.index())?.as_ref()
    }

    /// Whether a node asks for the shape of what it reads only.
    pub(crate) fn asks_for_sizes(&self, node: &Node) -> bool {
        asks_for_sizes(node)
    }
}
