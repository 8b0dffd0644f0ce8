//! The way from a module's core to the residual additions: output projection, parts, gate, and where it may be cut.

use super::core::{Search, label};
use super::site::Addition;
use super::spelling::{Step, branch_step, weights_of};
use super::work::MOST_READERS;
use crate::axes::{Dimension, Note};
use crate::graph::{Node, NodeId, ValueId};
use std::collections::HashMap;

/// One way out of a module: what is added to one residual stream.
#[derive(Clone, Debug)]
pub(super) struct Exit {
    /// The module's output: behind the output projection, before gate and residual addition.
    pub output: ValueId,
    /// What is added to the residual stream.
    pub added: ValueId,
    /// Whether it was gated or normalized on the way from `output`.
    pub gated: bool,
    /// The residual stream that it is added to.
    pub stream: ValueId,
    /// The node that adds it.
    pub addition: NodeId,
    /// The output projection, where the exit has one.
    pub projection: Option<NodeId>,
    /// What else was added to it before the residual addition: other branches of the block.
    pub beside: Vec<ValueId>,
}

/// Where a walk to the residual additions starts.
pub(super) struct Start {
    /// The node that notes are about.
    pub node: NodeId,
    /// What the module computed so far.
    pub value: ValueId,
    /// Whether `value` is a module's output already, as that of a feed-forward is; a core's output is projected first.
    pub is_output: bool,
    /// What has to be computed from the stream: the queries, or the output of a feed-forward.
    pub source: ValueId,
}

/// Longer ways to the residual additions come from no known model.
const LONGEST_BRANCH: usize = 64;

/// The scale of a product of integers is that of its input times that of its weights.
const MOST_SCALES: usize = 4;

/// As many readers of a result are named at most.
const MOST_NAMED: usize = 4;
/// The output of a residual addition with the next normalization fused in that is the sum itself.
const SUM_OF_SKIP: usize = 3;

/// A walk from a module to a residual addition, as far as it has come.
#[derive(Clone)]
pub(super) struct Walk {
    /// What became of the result so far.
    pub value: ValueId,
    /// The module's output so far; none before the output projection.
    pub cut: Option<ValueId>,
    /// The layout was changed behind the projection, or a part taken, so the module has ended.
    pub settled: bool,
    /// It was gated or normalized behind the module.
    pub gated: bool,
    /// Another branch was put beside it or added to it: what is added to the stream is not the module's alone.
    pub shared: bool,
    /// A part of the result, which may end in nothing: the last block of a model needs no text any more.
    pub part: bool,
    /// The output projection so far.
    pub projection: Option<NodeId>,
    /// The nodes that added it to something else than the stream.
    pub beside: Vec<NodeId>,
    /// What they added.
    pub companions: Vec<ValueId>,
}

impl Search<'_> {
    /// Walks from a module to every residual addition that it leads to. At least one.
    pub(super) fn exits(&self, start: &Start) -> Result<Vec<Exit>, Note> {
        let mut exits = Vec::new();
        let mut joints: HashMap<NodeId, Vec<Walk>> = HashMap::new();
        let mut pending = vec![Walk {
            value: start.value,
            cut: start.is_output.then_some(start.value),
            settled: false,
            gated: false,
            shared: false,
            part: false,
            projection: None,
            beside: Vec::new(),
            companions: Vec::new(),
        }];
        for _ in 0..LONGEST_BRANCH {
            let Some(walk) = pending.pop() else { break };
            let users = self.users(start, &walk)?;
            if let Some(output) = self.normalized(&walk, &users) {
                pending.push(Walk {
                    value: output,
                    gated: walk.gated || walk.cut.is_some(),
                    ..walk
                });
                continue;
            }
            let parts = users.len() > 1 || users.first().is_some_and(|(_, node)| self.takes_part(node, walk.value));
            for (id, node) in users {
                if parts {
                    pending.extend(self.parts(&walk, node));
                    continue;
                }
                match self.stream(start, &walk, node)? {
                    Some(stream) => exits.push(self.exit(start, &walk, id, stream)?),
                    None if walk.part && self.joins_tokens(node, walk.value) => {
                        let parts = joints.entry(id).or_default();
                        parts.push(walk.clone());
                        pending.extend(self.rejoined(node, parts));
                    }
                    None => pending.push(self.step(start, walk.clone(), id, node)?),
                }
            }
        }
        let is_apart = |(id, parts): (&NodeId, &Vec<Walk>)| self.rejoined(self.graph.node(*id), parts).is_none();
        if let Some((id, _)) = joints.iter().find(|joint| is_apart(*joint)) {
            let reason = format!("{} puts parts of it behind something else", label(self.graph.node(*id)));
            return Err(self.left_as_it_is(start, reason));
        }
        if !pending.is_empty() || exits.is_empty() {
            return Err(self.ends(start, pending.first(), "no residual addition follows it"));
        }
        Ok(exits)
    }

    fn left_as_it_is(&self, start: &Start, reason: impl Into<String>) -> Note {
        let advice = "the module is left as it is; report the model's architecture to pab-patch";
        self.note(start.node, reason, advice)
    }

    /// Why a walk ended without a residual addition: an addition to something else says more than what came after it.
    fn ends(&self, start: &Start, walk: Option<&Walk>, reason: &str) -> Note {
        match walk.and_then(|walk| walk.beside.first()) {
            Some(beside) => {
                let beside = label(self.graph.node(*beside));
                let reason = format!("{beside} adds its result to something that it is not computed from");
                self.left_as_it_is(start, reason)
            }
            None => self.left_as_it_is(start, reason),
        }
    }

    /// The nodes that read the value; shapes read off it do not count. Several have to take parts of it.
    fn users(&self, start: &Start, walk: &Walk) -> Result<Vec<(NodeId, &Node)>, Note> {
        let value = self.graph.value(walk.value);
        if value.is_output() {
            return Err(self.ends(start, Some(walk), "its result is an output of the model"));
        }
        if value.uses().len() > MOST_READERS {
            let reason = format!("its result is used in {} places", value.uses().len());
            return Err(self.ends(start, Some(walk), &reason));
        }
        self.work.add(value.uses().len());
        let mut users: Vec<NodeId> = value
            .uses()
            .iter()
            .map(|usage| usage.node)
            .filter(|id| !self.graph.node(*id).is("Shape"))
            .collect();
        users.sort_unstable();
        users.dedup();
        let users: Vec<(NodeId, &Node)> = users.into_iter().map(|id| (id, self.graph.node(id))).collect();
        if users.is_empty() && !walk.part {
            return Err(self.ends(start, Some(walk), "nothing uses its result"));
        }
        let parts = users.iter().all(|(_, node)| self.takes_part(node, walk.value));
        if users.len() > 1 && !parts && self.normalization(walk.value, &users).is_none() {
            let mut names: Vec<String> = users.iter().take(MOST_NAMED).map(|(_, node)| label(node)).collect();
            names.extend((users.len() > MOST_NAMED).then(|| format!("and {} more", users.len() - MOST_NAMED)));
            let reason = format!("its result is used in several places ({})", names.join(", "));
            return Err(self.ends(start, Some(walk), &reason));
        }
        Ok(users)
    }

    /// The value normalized, where several nodes read it and do nothing else.
    fn normalized(&self, walk: &Walk, users: &[(NodeId, &Node)]) -> Option<ValueId> {
        let normalization = self.normalization(walk.value, users).filter(|_| users.len() > 1)?;
        self.graph.node(normalization).output(0)
    }

    /// The residual stream, where `node` is the residual addition.
    fn stream(&self, start: &Start, walk: &Walk, node: &Node) -> Result<Option<ValueId>, Note> {
        let step = branch_step(node);
        if !matches!(step, Some(Step::Sum | Step::SkipNormalize)) {
            return Ok(None);
        }
        let other = self.other(node, walk.value).filter(|other| self.variable.is(*other));
        let stream = other.filter(|other| *other != walk.value && self.derives(start.source, *other));
        match (stream, other, step) {
            (None, None, Some(Step::SkipNormalize)) => {
                Err(self.left_as_it_is(start, format!("{} adds no residual", label(node))))
            }
            (None, Some(_), Some(Step::SkipNormalize)) => Err(self.left_as_it_is(
                start,
                format!(
                    "{} adds its result to something that it is not computed from",
                    label(node)
                ),
            )),
            (stream, _, _) => Ok(stream),
        }
    }

    fn step(&self, start: &Start, mut walk: Walk, id: NodeId, node: &Node) -> Result<Walk, Note> {
        let variable = self.variable;
        let Some(output) = node.output(0) else {
            return Err(self.left_as_it_is(start, format!("{} has no output", label(node))));
        };
        if node.inputs().len() > MOST_READERS {
            let reason = format!(
                "{} puts it together with {} others",
                label(node),
                node.inputs().len() - 1
            );
            return Err(self.left_as_it_is(start, reason));
        }
        self.work.add(node.inputs().len());
        let activations = node.inputs().flatten().filter(|input| variable.is(*input)).count();
        match branch_step(node) {
            // The module ends before such a choice; what is chosen still goes to the stream.
            None if self.chooses(node, walk.value, output) => walk.settled = walk.cut.is_some(),
            None => {
                let reason = format!(
                    "its result goes into {}, which is not understood as part of a residual branch",
                    label(node)
                );
                return Err(self.left_as_it_is(start, reason));
            }
            Some(Step::Part) => {
                let reason = format!("{} takes some of its channels only", label(node));
                return Err(self.left_as_it_is(start, reason));
            }
            Some(Step::Project) => {
                if node.input(0) != Some(walk.value)
                    || node.input(weights_of(node)).is_none_or(|weight| variable.is(weight))
                {
                    let reason = format!(
                        "its result goes into {}, a product with another activation",
                        label(node)
                    );
                    return Err(self.left_as_it_is(start, reason));
                }
                if !walk.shared {
                    walk.cut = Some(output);
                    (walk.settled, walk.gated) = (false, false);
                    walk.projection.get_or_insert(id);
                }
            }
            // Mochi attends for each clip by itself, over the valid text alone, and projects all of them at once.
            Some(Step::Pad) if walk.cut.is_some() => {
                let reason = format!("{} lengthens it", label(node));
                return Err(self.left_as_it_is(start, reason));
            }
            Some(Step::Concatenate)
                if walk.cut.is_none() && self.joins_tokens(node, walk.value) && self.gathers_clips(node) => {}
            // Channels of another branch beside it, before one projection for both (Flux' single blocks): the module
            // ends here. What both become is not its own.
            Some(Step::Concatenate) => {
                if !self.is_along_channels(node, walk.value) {
                    let reason = format!("{} puts it behind something else", label(node));
                    return Err(self.left_as_it_is(start, reason));
                }
                walk.cut.get_or_insert(walk.value);
                (walk.settled, walk.shared) = (true, true);
            }
            Some(Step::Regroup) if walk.cut.is_some() => {
                if walk.settled || !self.restores_rank(node, walk.value, output) {
                    walk.settled = true;
                } else if !walk.gated {
                    walk.cut = Some(output);
                }
            }
            // What a product of integers is scaled by belongs to the product.
            Some(Step::Scale) if activations > 1 && self.is_quantization_scale(node, walk.value) => {
                if walk.cut.is_some() && !walk.gated && !walk.settled {
                    walk.cut = Some(output);
                }
            }
            // A gate before the projection (gated attention) belongs to the module.
            Some(Step::Scale) if activations > 1 && walk.cut.is_some() => walk.gated = true,
            Some(Step::Normalize) if walk.cut.is_some() => walk.gated = true,
            // Two attentions added before one projection are one module; added behind it, they are two.
            Some(Step::Sum) if activations > 1 => {
                (walk.settled, walk.shared) = (walk.cut.is_some(), walk.cut.is_some());
                walk.beside.push(id);
                walk.companions.extend(self.other(node, walk.value));
            }
            // Exporters write `x / 1`, which runtimes take out, but not where its result is what a branch of an `If` gives.
            Some(Step::Scale) if self.is_by_one(node) => {}
            Some(Step::Keep | Step::Scale | Step::Sum) if walk.cut.is_some() && !walk.gated && !walk.settled => {
                walk.cut = Some(output);
            }
            Some(_) => {}
        }
        walk.value = output;
        Ok(walk)
    }

    /// Whether `node` is an `If` that gives `value`, or something of its shape made of it: scaled at some steps, for example.
    fn chooses(&self, node: &Node, value: ValueId, output: ValueId) -> bool {
        let sizes = self.axes.sizes(value);
        node.is("If")
            && node.outputs().len() == 1
            && node.captures().any(|captured| captured == value)
            && sizes.is_some()
            && self.axes.sizes(output) == sizes
    }

    /// Whether `node` multiplies or divides by the constant 1.
    fn is_by_one(&self, node: &Node) -> bool {
        let is_one = |value: ValueId| {
            let constant = self.graph.constant(value);
            let single = constant.filter(|tensor| tensor.dims.iter().all(|size| *size == 1));
            let numbers = single.and_then(|tensor| self.weights.floats(tensor).ok());
            numbers.is_some_and(|numbers| numbers == [1.0])
        };
        node.input(1).is_some_and(is_one) || (node.is("Mul") && node.input(0).is_some_and(is_one))
    }

    /// Whether `node` multiplies `value` by a scale that was found while its input was quantized.
    fn is_quantization_scale(&self, node: &Node, value: ValueId) -> bool {
        let mut scale = self.other(node, value);
        for _ in 0..MOST_SCALES {
            let Some((_, node)) = scale.and_then(|scale| self.graph.producer(scale)) else {
                return false;
            };
            if node.is("DynamicQuantizeLinear") {
                return node.output(1) == scale;
            }
            let variable = node.inputs().flatten().find(|input| self.variable.is(*input));
            scale = variable.filter(|_| node.is("Mul"));
        }
        false
    }

    /// Optimizers write a linear layer as `Reshape > Gemm > Reshape`; the second one still belongs to the layer.
    fn restores_rank(&self, node: &Node, value: ValueId, output: ValueId) -> bool {
        let rank = |value: ValueId| self.axes.dimensions(value).map(<[Dimension]>::len);
        !node.is("Transpose") && rank(value) == Some(2) && rank(output).is_some_and(|rank| rank > 2)
    }

    /// The residual addition of an exit.
    pub(super) fn addition(&self, exit: &Exit) -> Addition {
        let node = self.graph.node(exit.addition);
        let after = match branch_step(node) {
            Some(Step::SkipNormalize) => node.output(SUM_OF_SKIP),
            _ => node.output(0),
        };
        Addition {
            before: exit.stream,
            node: exit.addition,
            after,
        }
    }

    fn exit(&self, start: &Start, walk: &Walk, addition: NodeId, stream: ValueId) -> Result<Exit, Note> {
        let Some(output) = walk.cut else {
            let reason = "there is no output projection before the residual addition";
            return Err(self.left_as_it_is(start, reason));
        };
        Ok(Exit {
            output,
            added: walk.value,
            gated: walk.gated && !walk.shared,
            stream,
            addition,
            projection: walk.projection,
            beside: walk.companions.clone(),
        })
    }
}
