//! Feed-forward branches: projections around a nonlinearity that mix no tokens.
//!
//! They are found from the residual additions that no attention leads to. Plain, gated (GEGLU, SwiGLU), mixed (experts)
//! and convolutional ones (pointwise, depthwise, pointwise, and over frames) differ in what stands beside the first and the
//! last projection, which is looked at for one question only: whether tokens meet.

use super::core::{Search, label};
use super::cut::tokens;
use super::residual::Way;
use super::spelling::{self, Step, branch_step};
use super::work::{IdMap, IdSet};
use crate::axes::Note;
use crate::graph::{Node, NodeId, ValueId};

/// A feed-forward branch.
#[derive(Clone, Debug)]
pub(super) struct FeedForward {
    /// Its output, as far as the last projection.
    pub output: ValueId,
    /// Its nodes, from the first projection to the last.
    pub nodes: Vec<NodeId>,
}

/// How far a value is on the way through a feed-forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Progress {
    /// The stream, normalized and modulated.
    Entered,
    /// Behind a first projection.
    Projected,
    /// Behind a nonlinearity behind it.
    Activated,
    /// Behind another projection.
    Finished,
}

/// What a node on the way is.
enum Role {
    Projection {
        activated: bool,
    },
    Nonlinearity,
    /// Each token, and each channel or some of one token's, by themselves.
    Local,
    /// Neighbours and channels at once. Beside two projections around a nonlinearity it is one more layer of the feed-forward
    /// (Sana's over frames); without them, why the branch is none.
    Convolution(String),
    /// Why it is not part of a feed-forward.
    Mixing(String),
}

impl Search<'_> {
    /// The feed-forward that node `addition` adds to the residual stream.
    ///
    /// `None` where it adds none: what it adds to is not what the branch is computed from, the branch has no projection
    /// (the sums within activation functions), or it spans other branches, which are added by `taken` nodes or have notes of
    /// their own. A note where the branch is something else.
    pub(super) fn feed_forward(&self, addition: NodeId, taken: &IdSet<NodeId>) -> Option<Result<FeedForward, Note>> {
        let (later, earlier) = self.sides(self.graph.node(addition))?;
        // The stream may be computed last, where an attention was added to it since the feed-forward began.
        let (branch, way) = [(later, earlier), (earlier, later)]
            .into_iter()
            .find_map(|(branch, stream)| {
                let way = self.has_projection(branch, stream).then(|| self.way(branch, stream));
                Some((branch, way.flatten()?))
            })?;
        let taken = way.nodes.iter().filter(|id| taken.contains(id));
        match taken.max_by_key(|id| self.variable.place(**id)) {
            None => self.judge(addition, branch, &way),
            // The stream goes around an attention and a feed-forward behind it (AuraFlow), or around whole blocks: what
            // stands behind the last branch is looked at by itself.
            Some(last) => {
                let sums = self.graph.node(*last).outputs().iter().flatten();
                let way = sums.copied().find_map(|sum| self.way_from(branch, sum))?;
                self.judge(addition, branch, &way)?.ok().map(Ok)
            }
        }
    }

    /// The feed-forward that `branch` is, which is added to an attention's result before the residual addition to `stream`:
    /// the branches of a parallel block. `None` where it is something else, which has a note of its own if it attends.
    pub(super) fn beside(&self, branch: ValueId, stream: ValueId) -> Option<Result<FeedForward, Note>> {
        let (addition, _) = self.graph.producer(branch)?;
        if !self.has_projection(branch, stream) {
            return None;
        }
        self.judge(addition, branch, &self.way(branch, stream)?)
    }

    /// What the nodes on the way from a stream to a branch make of it. As [`Self::feed_forward`].
    fn judge(&self, addition: NodeId, branch: ValueId, way: &Way) -> Option<Result<FeedForward, Note>> {
        // A softmax may also be the router of a mixture: only where tokens meet, too, is it an attention.
        let attends = way.nodes.iter().any(|id| {
            let node = self.graph.node(*id);
            spelling::is_attention(node.domain(), node.operator())
        });
        let note = |reason: String| {
            let advice = "the branch is left as it is; if it is a feed-forward, report the architecture to pab-patch";
            Some(Err(self.note(addition, reason, advice)))
        };
        if attends && !way.is_whole {
            return None;
        }
        if !way.is_whole {
            return note(match self.is_exhausted() {
                true => "it stands in a graph that is too tangled to look at every addition".into(),
                false => "the residual branch that it adds is longer than any that is known".into(),
            });
        }
        let mut reached: IdMap<ValueId, Progress> = IdMap::default();
        let mut nodes = Vec::new();
        let mut projections = 0;
        let (mut mixing, mut convolution) = (None, None);
        for id in &way.nodes {
            let node = self.graph.node(*id);
            let read = node.reads().filter(|read| way.values.contains(read));
            let before = read
                .map(|read| reached.get(&read).copied().unwrap_or(Progress::Entered))
                .max()
                .unwrap_or(Progress::Entered);
            projections += usize::from(branch_step(node) == Some(Step::Project));
            let after = match self.role(*id, node, way) {
                Role::Projection { activated } => match (before, activated) {
                    (Progress::Activated | Progress::Finished, _) => Progress::Finished,
                    (_, true) => Progress::Activated,
                    (_, false) => Progress::Projected,
                },
                Role::Nonlinearity if before == Progress::Projected => Progress::Activated,
                Role::Nonlinearity | Role::Local => before,
                Role::Convolution(reason) => {
                    convolution.get_or_insert(reason);
                    before
                }
                Role::Mixing(reason) => {
                    mixing.get_or_insert(reason);
                    before
                }
            };
            if after > Progress::Entered {
                nodes.push(*id);
            }
            reached.extend(node.outputs().iter().flatten().map(|output| (*output, after)));
        }
        if projections == 0 {
            return None;
        }
        if let Some(reason) = mixing {
            if attends {
                return None;
            }
            return note(format!("the residual branch that it adds is no feed-forward: {reason}"));
        }
        if reached.get(&branch) != Some(&Progress::Finished) {
            let reason = convolution
                .unwrap_or_else(|| format!("it has {projections} projections, but not two around a nonlinearity"));
            return note(format!("the residual branch that it adds is no feed-forward: {reason}"));
        }
        if !self.variable.sees_tokens(branch) {
            return note(
                "neither latent nor text reach the residual branch that it adds, so it is none of a block".into(),
            );
        }
        let output = self.end_of_module(branch, way);
        let last = self.graph.producer(output).map(|(id, _)| self.variable.place(id));
        nodes.retain(|id| Some(self.variable.place(*id)) <= last);
        Some(Ok(FeedForward { output, nodes }))
    }

    /// What a node on the way from the stream to the branch is.
    fn role(&self, id: NodeId, node: &Node, way: &Way) -> Role {
        if self.axes.is_opaque(id) {
            return Role::Mixing(format!("what {} does to the axes is not understood", label(node)));
        }
        if spelling::is_mixer(node) || spelling::is_fused_attention(node) {
            return Role::Mixing(format!("{} mixes tokens", label(node)));
        }
        if !node.bodies().iter().all(|body| spelling::is_local(body.graph())) {
            return Role::Mixing(format!("{} holds more than elementwise operators", label(node)));
        }
        let (Some(input), Some(output)) = (node.input(0), node.output(0)) else {
            return Role::Local;
        };
        let sums =
            spelling::is_reduction(node) || branch_step(node) == Some(Step::Project) || spelling::is_product(node);
        let summed = tokens(self.axes, input).without(tokens(self.axes, output));
        if sums && !summed.is_empty() {
            return Role::Mixing(format!("{} sums over {summed}", label(node)));
        }
        if branch_step(node) == Some(Step::Project) || spelling::is_product(node) {
            let slot = spelling::weights_of(node);
            let weighs =
                node.input(slot).is_some_and(|weight| !self.variable.is(weight)) && way.values.contains(&input);
            if !weighs {
                return Role::Mixing(format!("{} is a product of activations", label(node)));
            }
            return match node.input(slot).and_then(|weight| self.kernel(node, weight)) {
                Some(Kernel::Depthwise) => Role::Local,
                Some(Kernel::Neighbours) => Role::Convolution(format!("{} mixes neighbours", label(node))),
                None => Role::Projection {
                    activated: spelling::is_activated(node),
                },
            };
        }
        if spelling::is_nonlinear(node) {
            return Role::Nonlinearity;
        }
        Role::Local
    }

    /// What a convolution mixes beside channels; none where `node` mixes channels alone.
    fn kernel(&self, node: &Node, weight: ValueId) -> Option<Kernel> {
        if !node.operator().contains("Conv") {
            return None;
        }
        let sizes = self.axes.sizes(weight)?;
        match sizes.iter().skip(2).all(crate::axes::Size::is_one) {
            true => None,
            false if node.int("group", 1) > 1 => Some(Kernel::Depthwise),
            false => Some(Kernel::Neighbours),
        }
    }

    /// Walks back from what is added over gate, normalization, layout and parts to the module's last projection.
    fn end_of_module(&self, branch: ValueId, way: &Way) -> ValueId {
        let mut value = branch;
        while let Some((id, node)) = self.graph.producer(value) {
            let step = branch_step(node);
            let passes = !matches!(
                step,
                None | Some(Step::Project | Step::Concatenate | Step::Pad | Step::SkipNormalize)
            );
            let mut inputs: Vec<ValueId> = node.reads().filter(|read| way.values.contains(read)).collect();
            inputs.dedup();
            match inputs.as_slice() {
                [input]
                    if passes
                        && way
                            .nodes
                            .binary_search_by_key(&self.variable.place(id), |id| self.variable.place(*id))
                            .is_ok() =>
                {
                    value = *input
                }
                // A normalization that is written out.
                [one, other] if passes && self.statistic(*other, *one).is_some() => value = *one,
                [one, other] if passes && self.statistic(*one, *other).is_some() => value = *other,
                _ => break,
            }
        }
        value
    }
}

/// What a convolution mixes beside channels.
enum Kernel {
    /// Neighbours, each channel by itself, as between the pointwise convolutions of a feed-forward.
    Depthwise,
    /// Neighbours and channels.
    Neighbours,
}
