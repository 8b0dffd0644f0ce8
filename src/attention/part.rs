//! Parts of a module's result: streams that part behind it and come together again, and what is put beside it.

use super::core::Search;
use super::exit::Walk;
use super::spelling::{Step, branch_step};
use super::work::MOST_READERS;
use crate::axes::Dimension;
use crate::graph::{Node, ValueId};

impl Search<'_> {
    /// Whether a node takes some tokens of `value`, with all their channels.
    pub(super) fn takes_part(&self, node: &Node, value: ValueId) -> bool {
        let channels = |value: ValueId| self.axes.dimensions(value).and_then(<[Dimension]>::last);
        let whole = channels(value).map(Dimension::size);
        branch_step(node) == Some(Step::Part)
            && node.input(0) == Some(value)
            && node.outputs().len() <= MOST_READERS
            && node.outputs().iter().flatten().all(|output| {
                // Of an axis whose size is not known both ways it is not claimed that it was cut.
                channels(*output).map(Dimension::size) == whole
            })
    }

    /// The ways on from the parts of the result that `node` takes.
    pub(super) fn parts(&self, walk: &Walk, node: &Node) -> Vec<Walk> {
        let outputs = node.outputs().iter().flatten();
        let walks = outputs.map(|output| Walk {
            value: *output,
            settled: walk.cut.is_some(),
            part: true,
            ..walk.clone()
        });
        walks.collect()
    }

    /// Whether `node` puts values behind each other along an axis of tokens.
    pub(super) fn joins_tokens(&self, node: &Node, value: ValueId) -> bool {
        branch_step(node) == Some(Step::Concatenate) && !self.is_along_channels(node, value)
    }

    /// The way on where all `parts` that `node` puts together are there: Hunyuan's single blocks part the streams and put
    /// them together again, and its image-to-video model gates the tokens of the first frame by themselves.
    pub(super) fn rejoined(&self, node: &Node, parts: &[Walk]) -> Option<Walk> {
        let (first, output) = (parts.first()?, node.output(0)?);
        let is_there = |input: ValueId| parts.iter().any(|part| part.value == input);
        // Parts that were projected each on its own are the module's output together.
        let together = parts.iter().all(|part| part.cut == first.cut);
        let gated = parts.iter().any(|part| part.gated);
        let shared = parts.iter().any(|part| part.shared);
        if !node.inputs().flatten().all(is_there) || ((gated || shared) && !together) {
            return None;
        }
        Some(Walk {
            value: output,
            cut: if together { first.cut } else { Some(output) },
            settled: together && first.cut.is_some(),
            gated,
            shared,
            ..first.clone()
        })
    }

    /// Whether a `Concat` puts clips behind each other, each of which is one element of an axis before the tokens.
    pub(super) fn gathers_clips(&self, node: &Node) -> bool {
        let along = |input: ValueId| {
            let dims = self.axes.dimensions(input)?;
            let axis = node.int("axis", 0);
            let place = if axis < 0 { axis + dims.len() as i64 } else { axis };
            dims.get(usize::try_from(place).ok()?)
        };
        let mut inputs = node.inputs().flatten();
        inputs.all(|input| self.variable.is(input) && along(input).is_some_and(Dimension::is_one))
    }

    /// Whether a `Concat` is along the last axis.
    pub(super) fn is_along_channels(&self, node: &Node, value: ValueId) -> bool {
        let rank = self.axes.dimensions(value).map(|dims| dims.len() as i64);
        let axis = node.int("axis", 0);
        axis == -1 || rank.is_some_and(|rank| axis == rank - 1)
    }
}
