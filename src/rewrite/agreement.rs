//! What ranks agree on before an adaptive rule decides.
//!
//! Each rank sees its part of the indicator, so both sums of its drift are added up over the ranks of every axis of the mesh.
//! Where an axis does not divide the indicator, both become as many times larger, and their quotient stays. So all ranks
//! have the same two numbers, to the bit, also where one of them rounds otherwise, and none waits for another in vain.

use super::build::Build;
use super::collective::collective;
use super::node::integer;
use crate::graph::{Graph, GraphError, ValueId};
use crate::shard::Group;

/// How many numbers are added up.
pub(super) const SUMS: i64 = 2;

/// The name of the collective of a rule along an axis of the mesh.
pub(super) fn agreement_name(rule: &str, group: Group) -> String {
    format!("pab.drift.{rule}.agreed.{group}")
}

/// Adds `sums`, two float32 scalars of the rule named `rule`, up over the ranks along `groups`.
pub(super) fn agreed(
    graph: &mut Graph,
    rule: &str,
    sums: [ValueId; 2],
    groups: &[Group],
) -> Result<[ValueId; 2], GraphError> {
    if groups.is_empty() {
        return Ok(sums);
    }
    let name = |part: &str| format!("pab.drift.{rule}.{part}");
    let mut build = Build::new(graph);
    let one = build.integers(&name("one"), &[1], &[1])?;
    let parts = sums.iter().zip(["changed", "whole"]);
    let parts =
        parts.map(|(sum, part)| build.node("Reshape", &[*sum, one], Vec::new(), &name(&format!("{part}_alone"))));
    let parts: Vec<ValueId> = parts.collect::<Result<_, _>>()?;
    let mut both = build.node("Concat", &parts, vec![integer("axis", 0)], &name("sums"))?;
    for group in groups {
        both = collective(
            graph,
            "AllReduce",
            both,
            *group,
            &[],
            &agreement_name(rule, *group),
            None,
        )?;
    }
    let mut build = Build::new(graph);
    let mut taken = |place: i64, part: &str| {
        let place = build.integers(&name(&format!("{part}_at")), &[], &[place])?;
        build.node(
            "Gather",
            &[both, place],
            vec![integer("axis", 0)],
            &name(&format!("{part}_of_all")),
        )
    };
    Ok([taken(0, "changed")?, taken(1, "whole")?])
}
