//! The weights that ONNX Runtime leaves as they are.

use crate::onnx::messages::GraphProto;
use std::collections::{BTreeMap, HashSet};

/// Uses of weights that ONNX Runtime leaves as they are when it rewrites a graph: the operator and the input. Other
/// weights may be transposed or folded under their own names, and would then no longer be what is handed over.
const KEPT: &[(&str, usize)] = &[("MatMul", 1), ("Gemm", 1), ("Gather", 0)];

/// The initializers that are used only in ways that ONNX Runtime keeps.
pub(super) fn kept(graph: &GraphProto) -> HashSet<String> {
    let mut uses: BTreeMap<&str, bool> = BTreeMap::new();
    walk(graph, &mut uses);
    for output in &graph.output {
        uses.insert(output.name.as_deref().unwrap_or_default(), false);
    }
    let kept = uses.into_iter().filter(|(_, kept)| *kept);
    kept.map(|(name, _)| name.to_owned()).collect()
}

fn walk<'g>(graph: &'g GraphProto, uses: &mut BTreeMap<&'g str, bool>) {
    for node in &graph.node {
        let operator = node.op_type.as_deref().unwrap_or_default();
        let standard = matches!(node.domain.as_deref(), None | Some("" | "ai.onnx"));
        for (place, input) in node.input.iter().enumerate() {
            let kept = standard && KEPT.contains(&(operator, place));
            uses.entry(input).and_modify(|all| *all &= kept).or_insert(kept);
        }
        for attribute in &node.attribute {
            let nested = attribute.g.as_deref().into_iter().chain(&attribute.graphs);
            nested.for_each(|graph| walk(graph, uses));
        }
    }
}
