//! The latent of which each rank keeps its part from step to step.
//!
//! Samplers work on each element by itself. Where a model takes and gives the latent divided alike, along one axis, a loop
//! over steps can go on with the ranks' parts: nothing is gathered but once, at the end of the run.

use super::flow::{Flow, Follower};
use super::placement::Shard;
use crate::graph::{Origin, ValueId};
use std::fmt;

/// An input and an output of which each rank has the same part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The latent before the step.
    pub input: ValueId,
    /// What the model says of it.
    pub output: ValueId,
    /// Where both are divided: all of one dimension, in units of `inner` entries.
    pub shard: Shard,
}

/// Tokens that stay together, so that a rank's part is a range of the latent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Units {
    /// Those of a frame.
    Frames,
    /// Those of a row.
    Rows,
}

impl fmt::Display for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Units::Frames => "frames",
            Units::Rows => "rows of patches",
        })
    }
}

/// Why the latent is gathered in every step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Gathered {
    /// What ranks have at the end is no part of an axis.
    #[error(
        "what a rank has of the output is no range of one of its axes, as far as sizes are known; divide frames where there are some \
         (--along frames), or give open sizes with --size"
    )]
    NoAxis,
    /// There is less of what could be kept together than there are ranks.
    #[error(
        "there are {count} {units} for {ranks} ranks, and only whole {units} are a range of the latent; use fewer ranks{otherwise}",
        otherwise = match units { Units::Rows => ", or divide frames where there are some (--along frames)", Units::Frames => "" }
    )]
    Few {
        /// What stays together.
        units: Units,
        /// How many there are of them.
        count: i64,
        /// Ranks.
        ranks: usize,
    },
    /// No input is divided as the output is.
    #[error("no input is divided along axis {axis} as output `{output}` is")]
    NoInput {
        /// The output.
        output: String,
        /// Its axis.
        axis: usize,
    },
    /// How long the axis is depends on the inputs.
    #[error("axis {axis} of `{input}` has an open size, which no rank knows of its part alone; give it with --size")]
    Open {
        /// The input.
        input: String,
        /// Its axis.
        axis: usize,
    },
}

impl Follower<'_> {
    /// Leaves the latent divided where it is taken and given, if both lie alike.
    pub(super) fn keep(&self, flow: &mut Flow) -> Result<Kept, Gathered> {
        let place = |output: ValueId| {
            let shard = flow.held[output.index()].clone()?;
            let is_own = !self.wanted.pins.contains_key(&output);
            let is_plain = shard.outer.is_one() && shard.parts.len() == 1;
            (is_own && is_plain).then_some((output, shard))
        };
        let (output, shard) = self.graph.outputs().find_map(place).ok_or(Gathered::NoAxis)?;
        let needed = Some(shard.clone());
        let is_latent = |input: &ValueId| {
            let value = self.graph.value(*input);
            let is_given = value.origin() == Origin::Input && value.initializer().is_none();
            let alike = self.facts.sizes(*input).map(<[_]>::len) == self.facts.sizes(output).map(<[_]>::len);
            is_given && alike && !value.is_output() && self.needs(*input, flow) == [needed.clone()]
        };
        let input = self.graph.inputs().find(is_latent).ok_or_else(|| Gathered::NoInput {
            output: self.graph.value(output).name().to_owned(),
            axis: shard.dim,
        })?;
        if shard.size().as_number().is_none() || shard.inner.as_number().is_none() {
            return Err(Gathered::Open {
                input: self.graph.value(input).name().to_owned(),
                axis: shard.dim,
            });
        }
        flow.gives[input.index()].clone_from(&needed);
        flow.held[input.index()] = needed;
        let kept = Kept { input, output, shard };
        flow.kept = Some(kept.clone());
        Ok(kept)
    }
}
