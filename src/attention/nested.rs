//! Attention where no site is looked for: in nested graphs (`If`, `Loop`, `Scan`) and in functions of the model.

use super::core::label;
use super::spelling::is_attention;
use crate::axes::Note;
use crate::graph::{Graph, ModelGraph, Node};
use crate::onnx::messages::{FunctionProto, NodeProto};
use std::collections::{BTreeMap, HashMap, HashSet};

/// A domain and a name.
type Name<'n> = (&'n str, &'n str);

/// A note on every node whose nested graphs hold an attention, and on the first call of every function that does.
pub(super) fn notes(model: &ModelGraph) -> Vec<Note> {
    let functions = holding(&model.header().functions);
    let mut notes = Vec::new();
    let mut calls: BTreeMap<Name<'_>, (&Node, usize)> = BTreeMap::new();
    for (_, node) in model.graph.nodes() {
        let name = (node.domain(), node.operator());
        if functions.contains(&name) {
            calls.entry(name).or_insert((node, 0)).1 += 1;
        } else if node.bodies().iter().any(|body| holds(body.graph(), &functions)) {
            notes.push(Note::new(
                label(node),
                "it holds an attention in a nested graph, where no site is looked for",
                "export the model without control flow around its blocks",
            ));
        }
    }
    notes.extend(calls.into_values().map(|(node, count)| {
        Note::new(
            label(node),
            format!(
                "it calls a function of the model that holds an attention, where no site is looked for ({count} calls)"
            ),
            "export the model so that its functions and itself need one version of each operator set; they are then put in \
             the place of their calls",
        )
    }));
    notes
}

fn holds(graph: &Graph, functions: &HashSet<Name<'_>>) -> bool {
    graph.nodes().any(|(_, node)| {
        is_attention(node.domain(), node.operator())
            || functions.contains(&(node.domain(), node.operator()))
            || node.bodies().iter().any(|body| holds(body.graph(), functions))
    })
}

/// The functions that hold an attention, themselves or in a function that they call.
fn holding(functions: &[FunctionProto]) -> HashSet<Name<'_>> {
    let mut callers: HashMap<Name<'_>, Vec<Name<'_>>> = HashMap::new();
    let mut pending: Vec<Name<'_>> = Vec::new();
    for function in functions {
        let own = (
            domain(function.domain.as_deref()),
            function.name.as_deref().unwrap_or_default(),
        );
        let mut nodes: Vec<&NodeProto> = function.node.iter().collect();
        while let Some(node) = nodes.pop() {
            let name = (
                domain(node.domain.as_deref()),
                node.op_type.as_deref().unwrap_or_default(),
            );
            if is_attention(name.0, name.1) {
                pending.push(own);
            } else {
                callers.entry(name).or_default().push(own);
            }
            for attribute in &node.attribute {
                let bodies = attribute.g.as_deref().into_iter().chain(&attribute.graphs);
                nodes.extend(bodies.flat_map(|graph| &graph.node));
            }
        }
    }
    let mut holding = HashSet::new();
    while let Some(name) = pending.pop() {
        if holding.insert(name) {
            pending.extend(callers.get(&name).into_iter().flatten());
        }
    }
    holding
}

fn domain(domain: Option<&str>) -> &str {
    match domain.unwrap_or_default() {
        "ai.onnx" => "",
        domain => domain,
    }
}
