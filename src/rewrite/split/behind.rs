//! What was found in a graph before a pass of its split, told in the graph behind it.

use super::pass::Moved;
use crate::attention::{Addition, Cut, Sites};
use crate::graph::ValueId;
use crate::shard::Facts;

/// A graph behind a pass: where its readers find values, and the sizes that they have there.
pub(super) struct Behind<'b> {
    /// The values that moved.
    pub moved: &'b Moved,
    /// Sizes as ranks have them.
    pub facts: &'b Facts<'b>,
}

impl Behind<'_> {
    /// Where `value` is now.
    pub fn value(&self, value: ValueId) -> ValueId {
        self.moved.get(&value).copied().unwrap_or(value)
    }

    /// Puts a cut where it is now.
    pub fn cut(&self, cut: &mut Cut) {
        cut.value = self.value(cut.value);
        if let Some(sizes) = self.facts.sizes(cut.value) {
            cut.shape = sizes.to_vec();
        }
    }

    /// Puts the cuts and streams of sites where they are now.
    pub fn sites(&self, sites: &mut Sites) {
        for site in &mut sites.sites {
            site.cuts_mut().for_each(|cut| self.cut(cut));
            site.streams.iter_mut().for_each(|stream| *stream = self.value(*stream));
            for addition in &mut site.additions {
                *addition = Addition {
                    before: self.value(addition.before),
                    after: addition.after.map(|value| self.value(value)),
                    ..*addition
                };
            }
        }
    }
}
