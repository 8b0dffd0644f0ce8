//! How often what is exchanged is: a site that a rule broadcasts exchanges nothing in the steps that do.

use crate::attention::Sites;
use crate::graph::{Graph, NodeId};

/// For each site the share of a run's steps in which it computes, 0 to 1, in the order of the sites. Sites that nothing is
/// said of compute in all of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shares {
    of_sites: Vec<f64>,
}

impl Shares {
    /// Shares in the order of the sites.
    pub fn new(of_sites: Vec<f64>) -> Shares {
        Shares { of_sites }
    }

    /// That of site number `site`.
    pub fn of(&self, site: usize) -> f64 {
        self.of_sites.get(site).copied().unwrap_or(1.0)
    }

    /// Whether some site computes less often than the model is run.
    pub fn say_something(&self) -> bool {
        self.of_sites.iter().any(|share| *share < 1.0)
    }
}

/// The nodes that run only where their site computes: those that serve its cuts alone.
#[derive(Clone, Debug, Default)]
pub(super) struct Branches {
    /// The site of each node, by the node's index.
    of_nodes: Vec<Option<usize>>,
    shares: Shares,
}

impl Branches {
    /// Those of the sites that compute less often than the model is run. What a rule cuts behind the gate is counted up to the
    /// output: between the two nothing is exchanged.
    pub fn find(graph: &Graph, sites: &Sites, shares: &Shares) -> Branches {
        let mut of_nodes = vec![None; graph.node_bound()];
        for (index, site) in sites.sites.iter().enumerate() {
            if shares.of(index) >= 1.0 {
                continue;
            }
            let cuts: Vec<_> = site.output.iter().map(|cut| cut.value).collect();
            for id in graph.exclusive_to(&cuts) {
                // Where one site stands within another it comes first.
                if let Some(of_node) = of_nodes.get_mut(id.index()) {
                    of_node.get_or_insert(index);
                }
            }
        }
        Branches {
            of_nodes,
            shares: shares.clone(),
        }
    }

    /// The share of steps in which something happens that serves `nodes` alone: that of their site, where they have one in
    /// common.
    pub fn share(&self, nodes: impl IntoIterator<Item = NodeId>) -> f64 {
        let of = |id: NodeId| self.of_nodes.get(id.index()).copied().flatten();
        let mut nodes = nodes.into_iter().map(of);
        match nodes.next().flatten() {
            Some(site) if nodes.all(|other| other == Some(site)) => self.shares.of(site),
            _ => 1.0,
        }
    }
}
