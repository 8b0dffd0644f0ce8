//! Nodes whose results contradict what the file declares or what the inputs are labelled, as notes.

use super::call::{Call, Shapes};
use super::declared;
use super::dimension::Dimension;
use super::label::Labels;
use super::note::{Note, labelling};
use super::size::Size;
use crate::graph::{ModelGraph, Node};

/// The first output whose declared sizes are not those that the rule gives, as a note.
pub(super) fn disagrees(model: &ModelGraph, node: &Node, shapes: &Shapes) -> Option<Note> {
    for (output, shape) in node.outputs().iter().zip(shapes) {
        let (Some(output), Some(shape)) = (output, shape) else {
            continue;
        };
        let Some(declared) = declared(model, *output) else {
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

/// The note on a node that [`disputes`].
pub(super) fn labelled_differently(model: &ModelGraph, node: &Node, labels: Labels) -> Note {
    let name = match (node.name(), node.output(0)) {
        ("", Some(output)) => model.graph.value(output).name(),
        (name, _) => name,
    };
    Note::new(
        format!("{} `{name}`", node.operator()),
        format!("it takes axes for one that are labelled differently ({labels}), so none of these labels is kept"),
        format!(
            "one of the inputs is labelled wrongly: say what its axes count, for example {}",
            labelling("pose", "batch,frames,channels")
        ),
    )
}
