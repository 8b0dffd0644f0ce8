//! Which axis of which input counts what: from ranks and sizes, from names where these leave a choice, or as given.

use super::dimension::Dimension;
use super::label::Label::{self, Batch, Channels, Frames, Height, Other, Text, Tokens, Width};
use super::layout::{LATENTS, Layout, TOKEN_LATENTS};
use super::note::{AxesError, Note, labelling};
use super::size::Size;
use crate::graph::{ModelGraph, ValueId};
use crate::onnx::messages::DataType;
use std::collections::BTreeMap;

/// Labels of the inputs' axes, by the name of the input. Inputs that are not named here are labelled by rank and name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InputLabels {
    /// One label for each axis.
    pub inputs: BTreeMap<String, Vec<Label>>,
}

impl InputLabels {
    /// Labels that do not fit the model: those of inputs that it does not have, and too many or too few for the rank.
    pub fn faults(&self, model: &ModelGraph) -> Vec<AxesError> {
        faults(&read(model), self)
    }
}

fn faults(inputs: &[Input], given: &InputLabels) -> Vec<AxesError> {
    let fault = |(name, labels): (&String, &Vec<Label>)| match inputs.iter().find(|input| input.name == *name) {
        None => Some(AxesError::UnknownInput {
            name: name.clone(),
            inputs: names(inputs),
        }),
        Some(input) => input
            .rank()
            .filter(|rank| *rank != labels.len())
            .map(|rank| AxesError::Rank {
                name: name.clone(),
                rank,
                labels: labels.len(),
            }),
    };
    given.inputs.iter().filter_map(fault).collect()
}

fn names(inputs: &[Input]) -> Vec<String> {
    inputs.iter().map(|input| input.name.clone()).collect()
}

/// Names of text inputs. They tell text from latents whose tokens were put together; where the latent has axes of its
/// own for height and width, an input of rank 3 is taken for text whatever its name is.
static TEXT_NAMES: &[&str] = &[
    "encoder_hidden_states",
    "context",
    "prompt_embeds",
    "text_embeds",
    "txt",
    "y",
];

/// Names of latents whose tokens were put together before the model.
static TOKEN_NAMES: &[&str] = &["hidden_states", "sample", "latent", "latents", "x", "img"];

/// An input of the model.
#[derive(Clone, Debug)]
struct Input {
    value: ValueId,
    name: String,
    element: Option<DataType>,
    dims: Option<Vec<Option<Size>>>,
}

impl Input {
    fn rank(&self) -> Option<usize> {
        self.dims.as_ref().map(Vec::len)
    }

    fn is_float(&self) -> bool {
        use DataType::{Bfloat16, Double, Float, Float16};
        matches!(self.element, None | Some(Float | Float16 | Bfloat16 | Double))
    }

    fn is_named(&self, names: &[&str]) -> bool {
        names.contains(&self.name.to_ascii_lowercase().as_str())
    }

    /// Whether it has a name of text, or of one of several texts (`encoder_hidden_states_t5`).
    fn is_named_text(&self) -> bool {
        let name = self.name.to_ascii_lowercase();
        TEXT_NAMES.contains(&name.as_str()) || name.starts_with("encoder_hidden_states_")
    }

    fn size(&self, place: usize) -> Option<&Size> {
        self.dims.as_ref()?.get(place)?.as_ref()
    }
}

/// Dimensions of the inputs under one choice of layout.
#[derive(Clone)]
pub(super) struct Labelled {
    pub shapes: Vec<(ValueId, Vec<Dimension>)>,
    pub notes: Vec<Note>,
    /// The layout that was chosen, where there was a choice.
    pub layout: Option<Layout>,
    /// Whether it is only worth a look where no choice before it fits.
    pub is_last_resort: bool,
}

/// Every way to label the inputs that fits their ranks, the likeliest first. Never empty.
pub(super) fn choices(model: &ModelGraph, given: &InputLabels) -> Result<Vec<Labelled>, AxesError> {
    let inputs = read(model);
    if let Some(fault) = faults(&inputs, given).into_iter().next() {
        return Err(fault);
    }
    let labeller = |latent| Labeller {
        inputs: &inputs,
        given,
        latent,
        tokens: TOKEN_LATENTS[0],
    };
    // A latent that was given leaves nothing to choose, and is what tells text from latents.
    let is_latent = |labels: &&Vec<Label>| labels.contains(&Channels) && labels.contains(&Height);
    if let Some(latent) = given.inputs.values().find(is_latent) {
        return Ok(vec![labeller(Some(latent.as_slice())).label()]);
    }
    let latent = [5, 4].into_iter().find_map(|rank| {
        inputs.iter().find(|input| {
            let is_free = !given.inputs.contains_key(&input.name) && !input.is_named_text();
            input.is_float() && input.rank() == Some(rank) && is_free
        })
    });
    let layouts = LATENTS
        .iter()
        .copied()
        .filter(|layout| latent.is_some_and(|latent| latent.rank() == Some(layout.len())));
    let Some(latent) = latent else {
        let labelled = labeller(None).label();
        let labels = labelled
            .shapes
            .iter()
            .flat_map(|(_, shape)| shape)
            .map(Dimension::labels);
        let seen = labels.fold(super::Labels::NONE, super::Labels::union);
        if [Frames, Height, Width, Tokens]
            .into_iter()
            .all(|label| !seen.contains(label))
        {
            let example = inputs
                .first()
                .map_or_else(|| "latent".to_owned(), |input| input.name.clone());
            return Err(AxesError::NoLatent {
                inputs: names(&inputs),
                example,
            });
        }
        let other = Labeller {
            tokens: TOKEN_LATENTS[1],
            ..labeller(None)
        };
        let other = Labelled {
            is_last_resort: true,
            ..other.label()
        };
        return Ok(vec![labelled, other]);
    };
    let labelled = layouts.map(|labels| Labelled {
        layout: Some(Layout {
            input: latent.name.clone(),
            labels,
        }),
        ..labeller(Some(labels)).label()
    });
    Ok(labelled.collect())
}

fn read(model: &ModelGraph) -> Vec<Input> {
    let graph = &model.graph;
    let real = graph
        .inputs()
        .filter(|value| graph.value(*value).initializer().is_none());
    real.map(|value| {
        let tensor = graph.tensor_type(value);
        let dims = tensor.and_then(|tensor| tensor.shape.as_ref()).map(|shape| {
            shape.dim.iter().map(|dim| match (&dim.dim_param, dim.dim_value) {
                (Some(name), _) if !name.is_empty() => Some(Size::symbol(name)),
                (_, Some(size @ 0..)) => Some(Size::number(size)),
                // Negative sizes are how some exporters write that they know none.
                _ => None,
            })
        });
        Input {
            value,
            name: graph.value(value).name().to_owned(),
            element: tensor.and_then(|tensor| DataType::try_from(tensor.elem_type?).ok()),
            dims: dims.map(Iterator::collect),
        }
    })
    .collect()
}

struct Labeller<'l> {
    inputs: &'l [Input],
    given: &'l InputLabels,
    /// The layout of inputs of its rank.
    latent: Option<&'l [Label]>,
    /// The layout of a latent of tokens.
    tokens: &'static [Label],
}

impl Labeller<'_> {
    fn label(&self) -> Labelled {
        let mut sizes = Sizes::default();
        let mut notes = Vec::new();
        let mut labels: Vec<Option<Vec<Label>>> = Vec::with_capacity(self.inputs.len());
        // Latents and text first: masks and embeddings are told by having their sizes.
        for input in self.inputs {
            let found = self
                .given
                .inputs
                .get(&input.name)
                .cloned()
                .or_else(|| self.by_rank(input));
            for (place, label) in found.iter().flatten().enumerate() {
                if let Some(size) = input.size(place) {
                    sizes.0.push((*label, size.clone()));
                }
            }
            labels.push(found);
        }
        for (input, found) in self.inputs.iter().zip(&labels) {
            let guessed =
                found.as_deref() == Some(&[Batch, Text, Channels]) && !self.given.inputs.contains_key(&input.name);
            if let Some(label) = same_size(input, &sizes).filter(|_| guessed && !input.is_named_text()) {
                notes.push(Note::new(
                    format!("input `{}`", input.name),
                    format!("is taken for text from its rank alone, but its second axis has the size of {label}"),
                    format!(
                        "say what its axes count, for example {}",
                        labelling(&input.name, &format!("batch,{label},channels"))
                    ),
                ));
            }
        }
        let mut shapes = Vec::with_capacity(self.inputs.len());
        for (input, found) in self.inputs.iter().zip(labels) {
            let Some(dims) = &input.dims else {
                notes.push(ambiguous(input, "has no declared shape"));
                continue;
            };
            let found = found.or_else(|| by_sizes(input, dims, &sizes));
            if found.is_none() && dims.len() > 1 {
                notes.push(ambiguous(
                    input,
                    "has axes that cannot be told from rank, sizes or name",
                ));
            }
            shapes.push((input.value, dimensions(dims, found.as_deref())));
        }
        Labelled {
            shapes,
            notes,
            layout: None,
            is_last_resort: false,
        }
    }

    /// Whether axis `place` of an input has the size of the latent's axis `label`.
    fn is_latent_sized(&self, input: &Input, place: usize, label: Label) -> bool {
        let Some(layout) = self.latent else { return false };
        let Some(at) = layout.iter().position(|other| *other == label) else {
            return false;
        };
        let latent = self
            .inputs
            .iter()
            .find(|input| input.rank() == Some(layout.len()) && !input.is_named_text());
        let size = latent.and_then(|latent| latent.size(at));
        size.is_some() && size == input.size(place)
    }

    /// What the rank of an input says, together with its name where there is a choice.
    fn by_rank(&self, input: &Input) -> Option<Vec<Label>> {
        let rank = input.rank()?;
        if !input.is_float() {
            return None;
        }
        let alone = self
            .inputs
            .iter()
            .filter(|other| other.is_float() && other.rank() == Some(3))
            .count()
            == 1;
        match (rank, self.latent) {
            (_, Some(latent)) if latent.len() == rank && !input.is_named_text() => Some(latent.to_vec()),
            // A mask of the latent's rows and columns, without channels.
            (4, Some(_)) if self.is_latent_sized(input, 2, Height) && self.is_latent_sized(input, 3, Width) => {
                Some(vec![Batch, Other, Height, Width])
            }
            (4, Some(_)) if input.size(1).is_some_and(Size::is_one) => Some(vec![Batch, Other, Text, Channels]),
            (3, Some(_)) => Some(vec![Batch, Text, Channels]),
            (3, None) if input.is_named_text() => Some(vec![Batch, Text, Channels]),
            (3, None) if input.is_named(TOKEN_NAMES) || alone => Some(self.tokens.to_vec()),
            _ => None,
        }
    }
}

/// Sizes of labelled axes: several of a label, where two text encoders have texts of two lengths.
#[derive(Default)]
struct Sizes(Vec<(Label, Size)>);

impl Sizes {
    fn has(&self, label: Label, size: &Size) -> bool {
        self.0.iter().any(|(other, known)| *other == label && known == size)
    }
}

/// The latent's axis that has the size of the input's second one.
fn same_size(input: &Input, sizes: &Sizes) -> Option<Label> {
    let second = input.size(1)?;
    [Frames, Height, Width]
        .into_iter()
        .find(|label| sizes.has(*label, second))
}

/// Masks, position ids and embeddings are told by having the sizes of other inputs' axes.
fn by_sizes(input: &Input, dims: &[Option<Size>], sizes: &Sizes) -> Option<Vec<Label>> {
    let is = |place: usize, label: Label| {
        let size = dims.get(place).and_then(Option::as_ref);
        size.is_some_and(|size| sizes.has(label, size))
    };
    let fits = |labels: &[Label]| labels.iter().enumerate().all(|(place, label)| is(place, *label));
    let candidates: &[&[Label]] = match dims.len() {
        0 => return Some(Vec::new()),
        1 => &[&[Batch]],
        2 => &[&[Batch, Text], &[Batch, Tokens], &[Batch, Frames]],
        3 => &[&[Batch, Height, Width], &[Batch, Frames, Text]],
        4 => &[&[Batch, Frames, Height, Width]],
        _ => return None,
    };
    if let Some(labels) = candidates.iter().find(|labels| fits(labels)) {
        return Some(labels.to_vec());
    }
    match dims.len() {
        2 if is(0, Batch) && input.is_float() => Some(vec![Batch, Channels]),
        2 if is(0, Text) => Some(vec![Text, Channels]),
        2 if is(0, Tokens) => Some(vec![Tokens, Channels]),
        _ => None,
    }
}

fn dimensions(dims: &[Option<Size>], labels: Option<&[Label]>) -> Vec<Dimension> {
    let label_at = |place: usize| labels.and_then(|labels| labels.get(place)).copied();
    let named = |place: usize| match label_at(place) {
        // An axis without a declared size gets the name of what it counts, the same in every input.
        Some(label) if label != Other => Size::symbol(label.word()),
        _ => Size::unknown(),
    };
    let each = dims.iter().enumerate().map(|(place, size)| {
        let size = size.clone().unwrap_or_else(|| named(place));
        match label_at(place) {
            Some(label) if label != Other => Dimension::axis(label, size),
            _ => Dimension::unlabelled(size),
        }
    });
    each.collect()
}

fn ambiguous(input: &Input, reason: &str) -> Note {
    let axes = match input.rank() {
        Some(2) => "batch,text",
        Some(3) => "batch,text,channels",
        Some(4) => "batch,channels,height,width",
        _ => "batch,channels,frames,height,width",
    };
    Note::new(
        format!("input `{}`", input.name),
        reason,
        format!("say what they count, for example {}", labelling(&input.name, axes)),
    )
}
