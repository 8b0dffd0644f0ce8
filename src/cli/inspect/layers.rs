//! Which sites are in one block of the stack.

use crate::attention::Kind;

/// For each site, in the order in which the model computes them, the index of its block in the stack, from 0.
///
/// A block is what exporters and papers call one: a self-attention and what follows it, cross-attention and MLP, up to
/// the next self-attention. What stands before the first self-attention is in its block.
pub fn layers(kinds: &[Kind]) -> Vec<usize> {
    let mut layers = Vec::with_capacity(kinds.len());
    let mut layer = 0;
    let mut begun = false;
    for kind in kinds {
        if begins_a_block(*kind) {
            layer += usize::from(begun);
            begun = true;
        }
        layers.push(layer);
    }
    layers
}

fn begins_a_block(kind: Kind) -> bool {
    match kind {
        Kind::Spatial | Kind::Temporal | Kind::Full | Kind::Joint | Kind::Text => true,
        Kind::Cross | Kind::Mlp | Kind::Other => false,
    }
}

/// The dotted name that all `modules` begin with, without the last part of any of them; `None` where there is none.
pub fn common_module<'a>(modules: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut common: Option<Vec<&str>> = None;
    for module in modules {
        let mut parts: Vec<&str> = module.split('.').collect();
        parts.pop();
        common = Some(match common {
            None => parts,
            Some(common) => {
                let same = common
                    .iter()
                    .zip(&parts)
                    .take_while(|(one, other)| one == other)
                    .count();
                common.into_iter().take(same).collect()
            }
        });
    }
    common.map(|parts| parts.join(".")).filter(|common| !common.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use Kind::{Cross, Joint, Mlp, Spatial, Temporal, Text};

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

    #[test]
    fn the_module_of_a_block_is_what_its_sites_share() {
        assert_eq!(
            common_module(["blocks.0.attn1", "blocks.0.attn2"]),
            Some("blocks.0".to_owned())
        );
        assert_eq!(common_module(["temporal.3.attn"]), Some("temporal.3".to_owned()));
        assert_eq!(common_module(["a.b", "c.b"]), None);
        assert_eq!(common_module(["attn"]), None);
        assert_eq!(common_module([]), None);
    }
}
