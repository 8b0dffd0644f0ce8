//! Why the axes of a core are not known: the operators before it that are not understood.

use super::core::{Search, label};
use super::work::IdSet;
use crate::axes::{Note, labelling};
use crate::graph::{NodeId, ValueId};
use std::collections::VecDeque;

/// As many operators are named at most.
const MOST_NAMED: usize = 3;

/// As many nodes before a core are looked at: several blocks of any known model.
const MOST_LOOKED_AT: usize = 4096;

/// All notes together look at as many steps for each node of the graph.
const STEPS_EACH_NODE: u64 = 16;

impl Search<'_> {
    /// A note on `id`, whose axes or shapes are not known, with the operators before `value` that are the cause.
    pub(super) fn unknown(&self, id: NodeId, value: ValueId, reason: &str) -> Note {
        let mut causes = self.opaque_before(value);
        // The first ones in the order of computing are those that the others follow from.
        causes.sort_by_key(|cause| self.variable.place(*cause));
        if causes.is_empty() {
            return self.note(id, reason, self.label_the_latent());
        }
        let names: Vec<String> = causes
            .iter()
            .take(MOST_NAMED)
            .map(|cause| label(self.graph.node(*cause)))
            .collect();
        let more = match causes.len().saturating_sub(MOST_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        self.note(
            id,
            format!(
                "{reason}; before it stand operators whose axes are not understood: {}{more}",
                names.join(", ")
            ),
            "export the model without these operators; `pab-patch inspect --json` lists all of them under `opaque`",
        )
    }

    /// What to do where labels of the inputs did not reach far enough: how to label the likeliest latent.
    fn label_the_latent(&self) -> String {
        const FORMS: [(usize, &str); 2] = [
            (5, "batch,channels,frames,height,width"),
            (4, "batch,channels,height,width"),
        ];
        let rank = |input: &ValueId| {
            let shape = self.graph.tensor_type(*input)?.shape.as_ref()?;
            Some(shape.dim.len())
        };
        let form = |(wanted, axes)| {
            let mut inputs = self.graph.inputs();
            let latent = inputs.find(|input| rank(input) == Some(wanted))?;
            Some(labelling(self.graph.value(latent).name(), axes))
        };
        FORMS.into_iter().find_map(form).map_or_else(
            || "say what the inputs' axes count with --axes, or in the rules file under `inputs`".to_owned(),
            |line| format!("say what the inputs' axes count, for example {line}"),
        )
    }

    /// Opaque operators that `value` is computed from, without those that only follow from another one.
    fn opaque_before(&self, value: ValueId) -> Vec<NodeId> {
        let mut causes = Vec::new();
        if self.axes.opaque().is_empty() {
            return causes;
        }
        let most = STEPS_EACH_NODE * self.graph.node_count() as u64;
        let mut inputs = 0;
        let mut seen: IdSet<NodeId> = IdSet::default();
        let mut pending = VecDeque::from([value]);
        while let Some(value) = pending.pop_front() {
            let Some((id, node)) = self.graph.producer(value) else {
                continue;
            };
            inputs += node.inputs().len();
            if seen.len() >= MOST_LOOKED_AT || inputs > 4 * MOST_LOOKED_AT || self.causes.steps() >= most {
                break;
            }
            if !seen.insert(id) {
                continue;
            }
            self.causes.add(1 + node.inputs().len());
            let follows = || {
                let mut producers = node.inputs().flatten().filter_map(|input| self.graph.producer(input));
                producers.any(|(producer, _)| self.axes.is_opaque(producer))
            };
            if self.axes.is_opaque(id) && !follows() {
                causes.push(id);
            }
            pending.extend(node.inputs().flatten());
        }
        causes
    }
}
