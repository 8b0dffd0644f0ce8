//! Which sites are in one block of the stack.

use super::kind::Kind;
use super::site::{Site, Sites};
use crate::graph::Graph;

impl Sites {
    /// For each site, the index of its block in the stack, from 0, in the order in which the model computes them.
    ///
    /// A block is what exporters and papers call one: a self-attention and what follows it, cross-attention and MLP, up to
    /// the next self-attention. A second self-attention that starts where the first one does (Stable Diffusion 3.5) is in
    /// the same block, and so is what stands before the first self-attention. Spatial and temporal blocks count alike:
    /// Latte's are spatial block 0, temporal block 0, spatial block 1, and so on.
    pub fn layers(&self, graph: &Graph) -> Vec<usize> {
        let begins = |site: &Site| begins_a_block(site.kind) && !is_beside_another(graph, site);
        number(self.sites.iter().map(begins))
    }
}

/// Whether nobody but the site's own additions reads the streams that it is added to: it is computed from what they were
/// before, as the branch that was added last. A normalization that is fused into the addition reads the stream, too.
fn is_beside_another(graph: &Graph, site: &Site) -> bool {
    site.additions.iter().all(|addition| {
        let Some((_, node)) = graph.producer(addition.before) else {
            return false;
        };
        let mut uses = node
            .outputs()
            .iter()
            .flatten()
            .flat_map(|output| graph.value(*output).uses());
        uses.all(|usage| usage.node == addition.node)
    })
}

fn number(begins: impl Iterator<Item = bool>) -> Vec<usize> {
    let mut layer = 0;
    let mut begun = false;
    begins
        .map(|begins| {
            layer += usize::from(begins && begun);
            begun |= begins;
            layer
        })
        .collect()
}

fn begins_a_block(kind: Kind) -> bool {
    match kind {
        Kind::Spatial | Kind::Temporal | Kind::Full | Kind::Joint | Kind::Text => true,
        Kind::Cross | Kind::Mlp | Kind::Other => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Kind::{Cross, Joint, Mlp, Spatial, Temporal, Text};

    fn layers(kinds: &[Kind]) -> Vec<usize> {
        number(kinds.iter().copied().map(begins_a_block))
    }

    #[test]
    fn a_block_begins_with_a_self_attention() {
        assert_eq!(
            layers(&[Spatial, Cross, Mlp, Temporal, Mlp, Spatial, Cross]),
            [0, 0, 0, 1, 1, 2, 2]
        );
        assert_eq!(layers(&[Cross, Spatial, Mlp, Spatial]), [0, 0, 0, 1]);
        assert_eq!(layers(&[Text, Joint, Joint]), [0, 1, 2]);
        assert_eq!(layers(&[]), [] as [usize; 0]);
    }
}
