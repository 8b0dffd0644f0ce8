//! Where every dimension of every tensor comes from: batch, frames, height, width, channels, text.
//!
//! The axes of the inputs are labelled ([`InputLabels`]), and the labels are pushed through the nodes in topological
//! order. A [`Dimension`] is an ordered product of labelled factors, for example `[batch·frames, height·width,
//! channels]`; sizes are numbers or symbols ([`Size`]). What each operator does to dimensions stands in one table
//! (`table.rs`), one line an operator. Shape arithmetic is followed on the way (`integers.rs`), so that the targets of
//! `Reshape` and `Expand` are known also where the exporter computes them in the graph.
//!
//! Labels come from the inputs alone. Declared shapes (`value_info`) fill in sizes where a rule says nothing, and are
//! compared with the sizes that rules give; two axes of one size are never taken for the same. An operator without a
//! rule leaves its outputs without labels and is listed in [`Axes::opaque`].

mod algebra;
mod applied;
mod arithmetic;
mod call;
mod cost;
mod dimension;
mod doubt;
mod inputs;
mod integers;
mod join;
mod label;
mod layout;
mod movement;
mod nested;
mod note;
mod polynomial;
mod product;
mod size;
mod stored;
mod table;

#[cfg(test)]
pub(crate) mod test_graph;
#[cfg(test)]
mod tests;

pub use dimension::{Dimension, Factor, Joined, Origin, display_shape};
pub use inputs::InputLabels;
pub use integers::Integers;
pub use label::{Label, Labels};
pub(crate) use note::labelling;
pub use note::{AxesError, Note};
pub use size::{Base, Bindings, Product, Size, Term};

use crate::graph::{ModelGraph, NodeId, ValueId};
use crate::onnx::messages::DataType;
use applied::Applied;
use call::{Call, Facts};
use layout::Layout;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// The dimensions of every value of a model's top-level graph. See the [module](self).
#[derive(Clone, Debug)]
pub struct Axes {
    facts: Vec<Known>,
    opaque: Vec<OpaqueOperator>,
    opaque_nodes: HashSet<NodeId>,
    notes: Vec<Note>,
    contradicted: bool,
    symbols: BTreeSet<String>,
}

#[derive(Clone, Debug, Default)]
struct Known {
    shape: Option<Vec<Dimension>>,
    element: Option<DataType>,
    integers: Option<Integers>,
}

/// An operator that left outputs without labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpaqueOperator {
    /// Its domain; empty for the ONNX standard.
    pub domain: String,
    /// Its name.
    pub operator: String,
    /// How many nodes.
    pub count: usize,
    /// Whether there is a rule for it, which could not be applied to these nodes.
    pub has_rule: bool,
}

impl Axes {
    /// Labels every value of the model's top-level graph.
    ///
    /// # Errors
    /// [`AxesError`] where the graph has a circle, where `labels` do not fit the inputs, or where no input can be the
    /// latent.
    pub fn analyse(model: &ModelGraph, labels: &InputLabels) -> Result<Axes, AxesError> {
        let order = model.graph.topological_order()?;
        let choices = inputs::choices(model, labels)?;
        let Some(first) = choices.first() else {
            return Err(AxesError::NoLatent {
                inputs: Vec::new(),
                example: "latent".into(),
            });
        };
        let start = stored::facts(model, &model.graph);
        // Where every layout makes a projection sum over a whole axis, the model mixes tokens so, and that tells nothing.
        for strictness in [Mistakes::EndAtProjections, Mistakes::EndAtConvolutions] {
            if choices.len() > 1
                && let Some(axes) = fitting(model, &order, &choices, &start, strictness)
            {
                return Ok(axes);
            }
        }
        let (mistakes, mut axes) = push(model, &order, first, &start, Mistakes::Collect);
        if mistakes.is_empty() {
            return Ok(axes);
        }
        axes.notes.push(Note::new(
            "the inputs",
            format!("a convolution sums over {mistakes}, so the axes of an input are probably not what its rank says"),
            match &first.layout {
                Some(layout) => format!("say what they count, in the form {}", layout.labelling()),
                None => "say what they count with --axes, or in the rules file under `inputs`".to_owned(),
            },
        ));
        Ok(axes)
    }

    /// The dimensions of `value`; `None` where nothing is known, not even its rank.
    pub fn dimensions(&self, value: ValueId) -> Option<&[Dimension]> {
        self.facts.get(value.index())?.shape.as_deref()
    }

    /// The sizes of `value`'s dimensions.
    pub fn sizes(&self, value: ValueId) -> Option<Vec<Size>> {
        Some(self.dimensions(value)?.iter().map(Dimension::size).collect())
    }

    /// The element type of `value`.
    pub fn element_type(&self, value: ValueId) -> Option<DataType> {
        self.facts.get(value.index())?.element
    }

    /// The elements of `value`, where it is a small tensor of integers such as the target of a `Reshape`.
    pub fn integers(&self, value: ValueId) -> Option<&Integers> {
        self.facts.get(value.index())?.integers.as_ref()
    }

    /// Operators that left outputs without labels, by domain and name.
    pub fn opaque(&self) -> &[OpaqueOperator] {
        &self.opaque
    }

    /// Whether `node` is one of those counted in [`Axes::opaque`].
    pub fn is_opaque(&self, node: NodeId) -> bool {
        self.opaque_nodes.contains(&node)
    }

    /// Inputs and shapes that were not understood.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// Whether the file declares another size somewhere than was found. One of the two is wrong, and so may others be.
    pub fn is_contradicted(&self) -> bool {
        self.contradicted
    }

    /// The names that sizes of the inputs have, such as `batch`: what [`Bindings`] can bind.
    pub fn symbols(&self) -> impl Iterator<Item = &str> {
        self.symbols.iter().map(String::as_str)
    }
}

/// What a label that a convolution or projection sums over by mistake does.
#[derive(Clone, Copy, PartialEq)]
enum Mistakes {
    /// It ends the analysis.
    EndAtProjections,
    /// That of a convolution ends the analysis, others are none.
    EndAtConvolutions,
    /// That of a convolution is put to the others.
    Collect,
}

/// The axes under the first of `choices` that makes no mistake.
///
/// All are tried: where two of them fit, neither is certain, and that is said. A wrong one is given up at its first mistake,
/// in the layers that a model begins with.
fn fitting(
    model: &ModelGraph,
    order: &[NodeId],
    choices: &[inputs::Labelled],
    start: &[Facts],
    strictness: Mistakes,
) -> Option<Axes> {
    let mut fitting: Option<(Option<Layout>, Axes)> = None;
    let mut others = Vec::new();
    for choice in choices {
        if choice.is_last_resort && fitting.is_some() {
            break;
        }
        match push(model, order, choice, start, strictness) {
            (mistakes, _) if !mistakes.is_empty() => {}
            (_, axes) if fitting.is_none() => fitting = Some((choice.layout.clone(), axes)),
            _ => others.extend(choice.layout.clone()),
        }
    }
    let (layout, mut axes) = fitting?;
    axes.notes.extend(layout.and_then(|layout| layout.assumed(&others)));
    Some(axes)
}

/// Pushes the labels of the inputs through the graph, from the facts of `start`. Gives the labels that a convolution sums
/// over by mistake, too.
fn push(
    model: &ModelGraph,
    order: &[NodeId],
    inputs: &inputs::Labelled,
    start: &[Facts],
    on_mistake: Mistakes,
) -> (Labels, Axes) {
    let graph = &model.graph;
    let mut facts = start.to_vec();
    let mut symbols = BTreeSet::new();
    for (value, shape) in &inputs.shapes {
        for dim in shape {
            dim.size().symbols(&mut |symbol| {
                symbols.insert(symbol.to_owned());
            });
        }
        if let Some(fact) = facts.get_mut(value.index()) {
            fact.shape = Some(shape.clone());
        }
    }
    let mut opaque: BTreeMap<(String, String), (usize, bool)> = BTreeMap::new();
    let mut opaque_nodes = HashSet::new();
    let mut mistakes = Labels::NONE;
    let mut disagreement: Option<Note> = None;
    let mut mended: Option<Note> = None;
    let mut dispute: Option<(Note, usize)> = None;
    for id in order {
        let node = graph.node(*id);
        let call = Call {
            model,
            node,
            facts: &facts,
        };
        let applied = Applied::of(&call, 0);
        if !applied.understood {
            let entry = opaque.entry((node.domain().to_owned(), node.operator().to_owned()));
            let has_rule = table::find(node.domain(), node.operator()).is_some();
            entry.or_insert((0, has_rule)).0 += 1;
            opaque_nodes.insert(*id);
        }
        mistakes = mistakes.union(product::contracted_by_mistake(&call));
        if on_mistake == Mistakes::EndAtProjections {
            mistakes = mistakes.union(product::projected_by_mistake(&call));
        }
        if on_mistake != Mistakes::Collect && !mistakes.is_empty() {
            break;
        }
        mended = mended.or_else(|| doubt::mended(&call));
        disagreement = disagreement.or_else(|| doubt::disagrees(model, node, &applied.shapes));
        if let Some(labels) = doubt::disputes(&call, &applied.shapes) {
            match &mut dispute {
                Some((_, more)) => *more += 1,
                None => dispute = Some((doubt::labelled_differently(&call, labels), 0)),
            }
        }
        applied.record(graph, node, &mut facts);
    }
    let mut notes = inputs.notes.clone();
    let contradicted = disagreement.is_some();
    notes.extend(mended);
    notes.extend(disagreement);
    notes.extend(dispute.map(|(mut note, more)| {
        if more > 0 {
            note.reason.push_str(&format!(", and so do {more} more nodes"));
        }
        note
    }));
    let opaque = opaque
        .into_iter()
        .map(|((domain, operator), (count, has_rule))| OpaqueOperator {
            domain,
            operator,
            count,
            has_rule,
        });
    let known = facts
        .into_iter()
        .map(|fact| Known {
            shape: fact.shape,
            element: fact.element,
            integers: fact.integers,
        })
        .collect();
    (
        mistakes,
        Axes {
            facts: known,
            opaque: opaque.collect(),
            opaque_nodes,
            notes,
            contradicted,
            symbols,
        },
    )
}
