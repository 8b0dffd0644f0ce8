//! What the sites of one block have in common.

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
