//! Nodes that break the rules of ONNX, or whose results contradict what the file declares or what the inputs are
//! labelled, as notes.

use super::applied::declared;
use super::call::{Call, Shapes, axis};
use super::dimension::Dimension;
use super::label::{Label, Labels};
use super::movement::is_long;
use super::note::{Note, labelling};
use super::size::Size;
use crate::graph::{ModelGraph, Node, ValueId};
use std::collections::{HashSet, VecDeque};

/// The first output whose declared sizes are not those that the rule gives, as a note.
pub(super) fn disagrees(model: &ModelGraph, node: &Node, shapes: &Shapes) -> Option<Note> {
    for (output, shape) in node.outputs().iter().zip(shapes) {
        let (Some(output), Some(shape)) = (output, shape) else {
            continue;
        };
        let Some(declared) = declared(&model.graph, *output) else {
            continue;
        };
        let differs = |(mine, theirs): (&Dimension, &Dimension)| matches!((mine.size().as_number(), theirs.size().as_number()), (Some(a), Some(b)) if a != b);
        if declared.len() != shape.len() || shape.iter().zip(&declared).any(differs) {
            let sizes: Vec<Size> = shape.iter().map(Dimension::size).collect();
            let theirs: Vec<Size> = declared.iter().map(Dimension::size).collect();
            return Some(Note::new(
                format!("value `{}` of {}", model.graph.value(*output).name(), node.operator()),
                format!("the file declares {theirs:?}, the axis analysis finds {sizes:?}"),
                "check the model with onnx.checker; if it is valid, report this operator to pab-patch",
            ));
        }
    }
    None
}

/// A node that breaks the rules of ONNX in a way that exporters do, and is read as they mean it: as a note.
pub(super) fn mended(call: &Call<'_>) -> Option<Note> {
    if !call.node.is("Squeeze") {
        return None;
    }
    let (shape, axes) = (call.shape(0)?, call.numbers("axes", 1)??);
    let mut dims = axes.iter().filter_map(|place| shape.get(axis(*place, shape.len())?));
    let long = dims.find(|dim| is_long(dim))?.size();
    let reason = format!("it drops an axis of size {long}, which ONNX does not allow; it is read as one that keeps it");
    Some(Note::new(
        subject(call),
        reason,
        "ONNX Runtime refuses such a model: export it with torch's other exporter",
    ))
}

/// The labels that the node takes for one although they differ; none where its inputs have that from before.
pub(super) fn disputes(call: &Call<'_>, shapes: &Shapes) -> Option<Labels> {
    let disputed = |shape: &[Dimension]| shape.iter().map(Dimension::disputed).fold(Labels::NONE, Labels::union);
    let labels = shapes
        .iter()
        .flatten()
        .map(|shape| disputed(shape))
        .fold(Labels::NONE, Labels::union);
    let before = (0..call.node.inputs().len())
        .filter_map(|slot| call.shape(slot))
        .map(disputed)
        .fold(Labels::NONE, Labels::union);
    (!labels.is_within(before)).then_some(labels)
}

/// The note on a call that [`disputes`].
pub(super) fn labelled_differently(call: &Call<'_>, labels: Labels) -> Note {
    let advice = match relabelled(call, labels) {
        Some(line) => format!("one of the inputs is labelled wrongly: say what its axes count, perhaps {line}"),
        None => "one of the inputs is labelled wrongly: say what its axes count with --axes, or in the rules file \
                 under `inputs`"
            .to_owned(),
    };
    Note::new(
        subject(call),
        format!("it takes axes for one that are labelled differently ({labels}), so none of these labels is kept"),
        advice,
    )
}

/// Operator and name of a call's node, or that of its output where it has none.
fn subject(call: &Call<'_>) -> String {
    let name = match (call.node.name(), call.node.output(0)) {
        ("", Some(output)) => call.model.graph.value(output).name(),
        (name, _) => name,
    };
    format!("{} `{name}`", call.node.operator())
}

/// As many nodes before a disputing one are looked at.
const MOST_LOOKED_AT: usize = 4096;

/// How to label the nearest input that has one of the `disputed` labels, and is not the latent, with the other one.
fn relabelled(call: &Call<'_>, disputed: Labels) -> Option<String> {
    let graph = &call.model.graph;
    let mut pending: VecDeque<ValueId> = call.node.inputs().flatten().collect();
    let mut seen: HashSet<ValueId> = pending.iter().copied().collect();
    while let Some(value) = pending.pop_front() {
        if seen.len() > MOST_LOOKED_AT {
            break;
        }
        if let Some((_, node)) = graph.producer(value) {
            pending.extend(node.inputs().flatten().filter(|input| seen.insert(*input)));
        } else if graph.value(value).initializer().is_none() {
            let shape = call.facts.get(value.index()).and_then(|facts| facts.shape.as_deref());
            if let Some(axes) = shape.and_then(|shape| exchanged(shape, disputed)) {
                return Some(labelling(graph.value(value).name(), &axes));
            }
        }
    }
    None
}

/// The labels of an input with the other one of two `disputed` labels; `None` where that is no sensible advice.
fn exchanged(shape: &[Dimension], disputed: Labels) -> Option<String> {
    let own: Vec<Label> = shape
        .iter()
        .map(|dimension| dimension.labels().single().unwrap_or(Label::Other))
        .collect();
    let mine = Labels::of(own.iter().copied()).intersection(disputed).single()?;
    let other = disputed.without(Labels::of([mine])).single()?;
    if own.contains(&Label::Height) {
        return None;
    }
    let words: Vec<&str> = own
        .iter()
        .map(|label| if *label == mine { other.word() } else { label.word() })
        .collect();
    Some(words.join(","))
}
