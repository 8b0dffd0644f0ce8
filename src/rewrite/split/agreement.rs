//! What ranks agree on before an adaptive rule decides.
//!
//! Each rank sees its part of the indicator, so both sums of its drift are added up over the ranks of every axis of the mesh.
//! Where an axis does not divide the indicator, both become as many times larger, and their quotient stays. So all ranks
//! have the same two numbers, to the bit, also where one of them rounds otherwise, and none waits for another in vain.

use super::exchange::{Collective, Exchange};
use super::sizes::{collective, int};
use crate::axes::Size;
use crate::graph::{Graph, GraphError, ValueId};
use crate::onnx::messages::DataType;
use crate::rewrite::Plan;
use crate::rewrite::build::Build;
use crate::shard::{Group, Mesh};

/// How many numbers are added up.
const SUMS: i64 = 2;

/// The name of the collective of a rule along an axis of the mesh.
fn name_of(rule: &str, group: Group) -> String {
    format!("pab.drift.{rule}.agreed.{group}")
}

/// Adds `sums`, two float32 scalars of the rule named `rule`, up over the ranks along `groups`.
pub(in crate::rewrite) fn agreed(
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
    let mut both = build.node("Concat", &parts, vec![int("axis", 0)], &name("sums"))?;
    for group in groups {
        both = collective(graph, "AllReduce", both, *group, &[], &name_of(rule, *group), None)?;
    }
    let mut build = Build::new(graph);
    let mut taken = |place: i64, part: &str| {
        let place = build.integers(&name(&format!("{part}_at")), &[], &[place])?;
        build.node(
            "Gather",
            &[both, place],
            vec![int("axis", 0)],
            &name(&format!("{part}_of_all")),
        )
    };
    Ok([taken(0, "changed")?, taken(1, "whole")?])
}

/// The collectives that this adds to the graph of a rank of `mesh` that was patched by `plan`.
pub(super) fn exchanges(mesh: &Mesh, plan: &Plan) -> Vec<Exchange> {
    let adaptive = plan.rules.iter().filter(|rule| rule.adaptive.is_some());
    let of_rule = |rule: &str| {
        let exchange = |group: Group| Exchange {
            name: name_of(rule, group),
            collective: Collective::AllReduce,
            group,
            rest: Size::number(SUMS),
            from: Size::ONE,
            to: Size::ONE,
            element_type: DataType::Float,
        };
        mesh.divided().map(exchange).collect::<Vec<_>>()
    };
    adaptive.flat_map(|rule| of_rule(&rule.name)).collect()
}
