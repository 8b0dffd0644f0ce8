//! How the work of a step is divided among ranks, and what they send each other: closed formulas.
//!
//! What an all-to-all takes out of a rank is `crate::shard::volume`'s. Dynamic Sequence Parallelism (arXiv 2403.10266) has
//! two of them around an attention that mixes the axis that is divided, Ulysses (arXiv 2309.14509) four: queries, keys,
//! values and the result, between tokens and heads. An attention over all tokens always takes those four. An attention
//! that mixes another axis, cross attention and feed-forwards take none, and neither does what a step broadcasts.

use super::extent::Extents;
use super::work::Work;
use crate::attention::Kind;
use crate::shard::volume::mean_all_to_all;
use serde::{Deserialize, Serialize};

/// The axis of the tokens that ranks divide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShardedAxis {
    /// Frames.
    Frames,
    /// Height times width, or all tokens.
    Places,
}

/// What is exchanged around an attention that mixes the divided axis, where it leaves another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Dynamic Sequence Parallelism: the tokens themselves, so that the other axis is divided.
    Dsp,
    /// Queries, keys, values and result, so that heads are divided.
    Ulysses,
}

/// Ranks as a grid: groups for the halves of guidance, and in each group ranks that divide an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Split {
    /// Groups among which the batch is divided: 1 or 2.
    pub guidance: usize,
    /// Ranks of a group.
    pub sequence: usize,
    /// What they divide.
    pub axis: ShardedAxis,
    /// How they exchange it.
    pub method: Method,
}

/// What a rank sends in one module of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Exchange {
    /// All-to-alls.
    pub count: f64,
    /// Bytes that leave the rank for others.
    pub bytes: f64,
}

impl Split {
    /// Everything on one rank.
    pub const NONE: Split = Split {
        guidance: 1,
        sequence: 1,
        axis: ShardedAxis::Frames,
        method: Method::Dsp,
    };

    /// All ranks.
    pub fn ranks(&self) -> usize {
        self.guidance * self.sequence
    }

    /// Whether an attention of this kind mixes the divided axis.
    fn mixes(&self, kind: Kind) -> bool {
        match kind {
            Kind::Temporal => self.axis == ShardedAxis::Frames,
            Kind::Spatial => self.axis == ShardedAxis::Places,
            Kind::Full | Kind::Joint => true,
            _ => false,
        }
    }

    /// Whether heads are divided in an attention of this kind.
    fn by_heads(&self, kind: Kind) -> bool {
        match kind {
            Kind::Full | Kind::Joint => true,
            kind => self.method == Method::Ulysses && self.mixes(kind),
        }
    }

    /// What the rank with the most of it has of some work, 1 where every rank does it whole.
    pub fn share(&self, work: &Work) -> f64 {
        let (other, heads) = match work.core.filter(|(kind, _)| self.mixes(*kind)) {
            Some((kind, heads)) => match self.by_heads(kind) {
                true => (false, Some(heads)),
                false => (true, None),
            },
            None => (false, None),
        };
        let of_batch = part(work.extents.batch, self.guidance);
        of_batch
            * match heads {
                Some(Some(heads)) => part(heads, self.sequence),
                Some(None) => 1.0 / self.sequence as f64,
                None => self.of_axis(work.extents, other),
            }
    }

    /// What the rank with the most of it holds of a value.
    pub fn share_of(&self, extents: Extents) -> f64 {
        part(extents.batch, self.guidance) * self.of_axis(extents, false)
    }

    fn of_axis(&self, extents: Extents, other: bool) -> f64 {
        match (self.axis == ShardedAxis::Frames) != other {
            true => part(extents.frames, self.sequence),
            false => part(extents.places, self.sequence),
        }
    }

    /// What a rank sends in a module of this kind that computes; `bytes` are those of its whole output, `extents` what of
    /// it can be divided.
    pub fn exchange(&self, kind: Kind, bytes: f64, extents: Extents) -> Exchange {
        if self.sequence < 2 || !self.mixes(kind) {
            return Exchange::default();
        }
        let count = if self.by_heads(kind) { 4.0 } else { 2.0 };
        let whole = bytes * part(extents.batch, self.guidance);
        Exchange {
            count,
            bytes: count * mean_all_to_all(whole, self.sequence),
        }
    }

    /// What a rank sends at the end of a step so that both halves of guidance meet: its part of its half of the output.
    pub fn guidance_exchange(&self, bytes: f64) -> Exchange {
        match self.guidance {
            0 | 1 => Exchange::default(),
            groups => Exchange {
                count: 1.0,
                bytes: bytes / groups as f64 / self.sequence as f64,
            },
        }
    }
}

/// The largest part of `entries` over `ranks`; those that are not there are not divided.
fn part(entries: i64, ranks: usize) -> f64 {
    let ranks = i64::try_from(ranks).unwrap_or(i64::MAX).max(1);
    if entries <= 1 {
        return 1.0;
    }
    let most = (entries.saturating_sub(1) / ranks).saturating_add(1);
    most as f64 / entries as f64
}
