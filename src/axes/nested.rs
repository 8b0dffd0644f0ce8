//! Dimensions of what nodes with nested graphs give: `If` and `Loop`.
//!
//! The nested graphs are gone through as the one around them is. What is said of a value holds whichever branch is taken,
//! and after any number of iterations.

use super::algebra::unify;
use super::applied::Applied;
use super::call::{Call, Facts};
use super::dimension::Dimension;
use super::size::Size;
use super::stored;
use crate::graph::{Graph, Origin};

/// Graphs nested deeper than this are not gone through: iterations in iterations take twice the time each.
const DEEPEST: usize = 6;

/// What is known of the outputs of an `If` or `Loop` that stands in `depth` nested graphs; `None` for other nodes.
pub(super) fn results(call: &Call<'_>, depth: usize) -> Option<Vec<Facts>> {
    if depth > DEEPEST {
        return None;
    }
    if call.node.is("If") {
        let branch = |name: &str| inside(call, call.node.body(name)?, &[], depth);
        // TorchScript asks sizes that are known: an axis is dropped if it has size 1.
        if let Some(taken) = condition(call) {
            return branch(if taken { "then_branch" } else { "else_branch" });
        }
        let (one, other) = (branch("then_branch")?, branch("else_branch")?);
        return Some(one.iter().zip(&other).map(|(one, other)| either(one, other)).collect());
    }
    if call.node.is("Loop") {
        return iterations(call, depth);
    }
    None
}

/// The condition of an `If`, where sizes decide it.
fn condition(call: &Call<'_>) -> Option<bool> {
    match call.integers(0)?.elements() {
        [Some(condition)] => condition.as_number().map(|condition| condition != 0),
        _ => None,
    }
}

/// Trip count and condition stand before what is carried from one iteration to the next, in the node's inputs and in the
/// inputs of its graph; in the outputs of its graph the condition alone does.
fn iterations(call: &Call<'_>, depth: usize) -> Option<Vec<Facts>> {
    let body = call.node.body("body")?;
    let facts = |slot: usize| {
        let value = call.node.input(slot)?;
        let mut fact = call.facts.get(value.index())?.clone();
        // Elements change from one iteration to the next.
        fact.integers = None;
        Some(fact)
    };
    let carried = call.node.inputs().len().saturating_sub(2);
    let mut before: Vec<Facts> = (0..2 + carried).map(|slot| facts(slot).unwrap_or_default()).collect();
    let mut after = inside(call, body, &before, depth)?;
    // What an iteration changes may change again: a second one, and what that changes is not known.
    for last in [false, true] {
        let known = before.get(2..)?.to_vec();
        let held: Vec<Facts> = known
            .iter()
            .zip(after.get(1..)?)
            .map(|(one, other)| either(one, other))
            .collect();
        if held.iter().zip(&known).all(|(held, known)| held.shape == known.shape) {
            break;
        }
        let changed = held.iter().zip(&known).map(|(held, known)| match last {
            true if held.shape != known.shape => Facts {
                shape: None,
                ..held.clone()
            },
            _ => held.clone(),
        });
        let changed: Vec<Facts> = changed.collect();
        before.truncate(2);
        before.extend(changed);
        after = inside(call, body, &before, depth)?;
    }
    let mut results = before.split_off(2);
    // One row an iteration of what is collected.
    results.extend(after.drain(1..).skip(carried).map(|fact| {
        let rows = Dimension::unlabelled(Size::unknown());
        Facts {
            shape: fact.shape.map(|shape| std::iter::once(rows).chain(shape).collect()),
            integers: None,
            ..fact
        }
    }));
    Some(results)
}

/// What is known of the outputs of a nested graph with these inputs.
fn inside(call: &Call<'_>, graph: &Graph, inputs: &[Facts], depth: usize) -> Option<Vec<Facts>> {
    let order = graph.topological_order().ok()?;
    let mut facts = stored::facts(call.model, graph);
    for (value, entry) in graph.values() {
        if let (Origin::Outer(outer), Some(fact)) = (entry.origin(), facts.get_mut(value.index())) {
            *fact = call.facts.get(outer.index()).cloned().unwrap_or_default();
        }
    }
    for (value, input) in graph.inputs().zip(inputs) {
        if let Some(fact) = facts.get_mut(value.index()) {
            *fact = input.clone();
        }
    }
    for id in order {
        let node = graph.node(id);
        let call = Call {
            model: call.model,
            node,
            facts: &facts,
        };
        Applied::of(&call, depth + 1).record(graph, node, &mut facts);
    }
    graph.outputs().map(|value| facts.get(value.index()).cloned()).collect()
}

/// What holds of a value that is the one or the other.
fn either(one: &Facts, other: &Facts) -> Facts {
    let shape = match (&one.shape, &other.shape) {
        (Some(left), Some(right)) if left.len() == right.len() => {
            let pairs = left.iter().zip(right);
            Some(pairs.map(|(left, right)| common(left, right)).collect())
        }
        _ => None,
    };
    Facts {
        shape,
        element: one.element.filter(|element| other.element == Some(*element)),
        integers: one
            .integers
            .clone()
            .filter(|integers| other.integers.as_ref() == Some(integers)),
    }
}

fn common(left: &Dimension, right: &Dimension) -> Dimension {
    if left.size() == right.size() {
        unify(left, right)
    } else {
        Dimension::unlabelled(Size::unknown())
    }
}
