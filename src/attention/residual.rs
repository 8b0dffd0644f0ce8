//! The way from a core to the residual addition: output projection, gate, and where it may be cut.

use super::core::{Core, Search, label};
use super::spelling::{Step, branch_step};
use crate::axes::{Dimension, Note};
use crate::graph::{Node, NodeId, ValueId};
use std::collections::HashSet;

/// A branch from its core to the residual addition.
#[derive(Clone, Debug)]
pub(super) struct Branch {
    /// The module's output: behind the output projection, before gate and residual addition.
    pub output: ValueId,
    /// What is added to the residual stream, where it was gated or normalized on the way.
    pub gated: Option<ValueId>,
    /// The residual stream that it is added to.
    pub stream: ValueId,
    /// The output projection and what stands behind it.
    pub nodes: Vec<NodeId>,
}

/// Longer ways to the residual addition come from no known model.
const LONGEST_BRANCH: usize = 48;

/// Layout changes that the residual stream is followed through.
const MOST_REGROUPINGS: usize = 12;

impl Search<'_> {
    /// Walks from `core` to the residual addition.
    pub(super) fn branch(&self, core: &Core) -> Result<Branch, Note> {
        let mut walk = Walk {
            search: self,
            value: core.output,
            cut: None,
            settled: false,
            gated: false,
            nodes: Vec::new(),
        };
        for _ in 0..LONGEST_BRANCH {
            let (id, node) = walk.only_user(core)?;
            let Some(step) = branch_step(node) else {
                let reason = format!(
                    "its result goes into {}, which is not understood as part of a residual branch",
                    label(node)
                );
                return Err(self.core_note(core, reason));
            };
            match step {
                Step::SkipNormalize | Step::Sum
                    if self
                        .other(node, walk.value)
                        .is_some_and(|other| self.variable.is(other)) =>
                {
                    return walk.finish(core, node);
                }
                Step::SkipNormalize => return Err(self.core_note(core, format!("{} adds no residual", label(node)))),
                _ => walk.step(core, id, node, step)?,
            }
        }
        Err(self.core_note(core, "no residual addition follows it"))
    }

    fn core_note(&self, core: &Core, reason: impl Into<String>) -> Note {
        let advice = "the attention is left as it is; report the model's architecture to pab-patch";
        match core.nodes.last() {
            Some(last) => self.note(*last, reason, advice),
            None => Note::new("attention", reason, advice),
        }
    }

    /// The other one of inputs 0 and 1.
    fn other(&self, node: &Node, value: ValueId) -> Option<ValueId> {
        match (node.input(0), node.input(1)) {
            (Some(a), Some(b)) if a == value => Some(b),
            (Some(a), Some(b)) if b == value => Some(a),
            _ => None,
        }
    }

    /// Whether `query` is computed from `stream`, looked at in any layout.
    fn derives(&self, query: ValueId, stream: ValueId) -> bool {
        let layouts = self.layouts(stream);
        // What stands before the stream in the order cannot be computed from it: the search stays in the branch.
        let first = layouts.last().and_then(|value| self.graph.producer(*value));
        let earliest = first.map(|(id, _)| self.variable.place(id));
        let mut seen = HashSet::new();
        let mut pending = vec![query];
        while let Some(value) = pending.pop() {
            if layouts.contains(&value) {
                return true;
            }
            let Some((id, node)) = self.graph.producer(value) else {
                continue;
            };
            if earliest.is_some_and(|earliest| self.variable.place(id) <= earliest) || !seen.insert(id) {
                continue;
            }
            pending.extend(node.inputs().flatten().filter(|input| self.variable.is(*input)));
        }
        false
    }

    /// `value`, and what it is another layout or element type of, in order.
    fn layouts(&self, value: ValueId) -> Vec<ValueId> {
        let mut layouts = vec![value];
        let mut value = value;
        for _ in 0..MOST_REGROUPINGS {
            let Some((_, node)) = self.graph.producer(value) else {
                break;
            };
            let regroups = matches!(branch_step(node), Some(Step::Regroup | Step::Keep));
            let Some(input) = node.input(0).filter(|_| regroups) else {
                break;
            };
            layouts.push(input);
            value = input;
        }
        layouts
    }
}

struct Walk<'w> {
    search: &'w Search<'w>,
    value: ValueId,
    /// The module's output so far; none before the output projection.
    cut: Option<ValueId>,
    /// The layout was changed behind the projection, so the module has ended.
    settled: bool,
    gated: bool,
    nodes: Vec<NodeId>,
}

impl<'w> Walk<'w> {
    /// The node that reads the value; shapes read off it do not count.
    fn only_user(&self, core: &Core) -> Result<(NodeId, &'w Node), Note> {
        let graph = self.search.graph;
        let value = graph.value(self.value);
        if value.is_output() {
            return Err(self.search.core_note(core, "its result is an output of the model"));
        }
        let mut users: Vec<NodeId> = value
            .uses()
            .iter()
            .map(|usage| usage.node)
            .filter(|id| !graph.node(*id).is("Shape"))
            .collect();
        users.sort_unstable();
        users.dedup();
        match users.as_slice() {
            [id] => Ok((*id, graph.node(*id))),
            [] => Err(self.search.core_note(core, "nothing uses its result")),
            _ => {
                let names: Vec<String> = users.iter().map(|id| label(graph.node(*id))).collect();
                let reason = format!(
                    "its result is used in several places ({}), as in joint attention",
                    names.join(", ")
                );
                Err(self.search.core_note(core, reason))
            }
        }
    }

    fn step(&mut self, core: &Core, id: NodeId, node: &Node, step: Step) -> Result<(), Note> {
        let variable = &self.search.variable;
        let Some(output) = node.output(0) else {
            return Err(self.search.core_note(core, format!("{} has no output", label(node))));
        };
        match step {
            Step::Project => {
                if node.input(0) != Some(self.value) || node.input(1).is_none_or(|weight| variable.is(weight)) {
                    let reason = format!(
                        "its result goes into {}, a product with another activation",
                        label(node)
                    );
                    return Err(self.search.core_note(core, reason));
                }
                self.cut = Some(output);
                (self.settled, self.gated) = (false, false);
            }
            Step::Regroup if self.cut.is_some() => {
                if self.settled || !self.restores_rank(node, output) {
                    self.settled = true;
                } else if !self.gated {
                    self.cut = Some(output);
                }
            }
            Step::Scale if node.inputs().flatten().filter(|input| variable.is(*input)).count() > 1 => {
                if self.cut.is_none() {
                    // A gate before the projection (gated attention) belongs to the module.
                } else {
                    self.gated = true;
                }
            }
            Step::Normalize if self.cut.is_some() => self.gated = true,
            Step::Keep | Step::Scale | Step::Sum if self.cut.is_some() && !self.gated && !self.settled => {
                self.cut = Some(output);
            }
            _ => {}
        }
        if self.cut.is_some() {
            self.nodes.push(id);
        }
        self.value = output;
        Ok(())
    }

    /// Optimizers write a linear layer as `Reshape > Gemm > Reshape`; the second one still belongs to the layer.
    fn restores_rank(&self, node: &Node, output: ValueId) -> bool {
        let axes = self.search.axes;
        let rank = |value: ValueId| axes.dimensions(value).map(<[Dimension]>::len);
        !node.is("Transpose") && rank(self.value) == Some(2) && rank(output).is_some_and(|rank| rank > 2)
    }

    fn finish(self, core: &Core, node: &Node) -> Result<Branch, Note> {
        let search = self.search;
        let Some(stream) = search.other(node, self.value) else {
            return Err(search.core_note(core, format!("{} adds its result to itself", label(node))));
        };
        if !search.derives(core.query, stream) {
            let reason = format!(
                "{} adds its result to something that its queries are not computed from",
                label(node)
            );
            return Err(search.core_note(core, reason));
        }
        let gated = self.gated.then_some(self.value);
        let Some(output) = self.cut else {
            return Err(search.core_note(core, "there is no output projection before the residual addition"));
        };
        Ok(Branch {
            output,
            gated,
            stream,
            nodes: self.nodes,
        })
    }
}
