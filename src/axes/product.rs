//! Rules of operators that contract dimensions: matrix products, convolutions, `Einsum`, fused attention.

use super::algebra::{broadcast, unify};
use super::call::{Call, Shapes};
use super::dimension::{Dimension, Origin};
use super::label::{Label, Labels};
use super::size::Size;
use crate::graph::Node;
use std::collections::BTreeMap;

fn one(shape: Vec<Dimension>) -> Option<Shapes> {
    Some(vec![Some(shape)])
}

/// A dimension of a weight that the result inherits: new channels.
fn channels(dim: &Dimension, of: &[Dimension]) -> Dimension {
    let constant = of
        .iter()
        .all(|dim| dim.labels().is_empty() && dim.disputed().is_empty());
    if constant {
        Dimension::axis(Label::Channels, dim.size())
    } else {
        dim.clone()
    }
}

fn transposed(shape: &[Dimension], really: bool) -> Vec<Dimension> {
    let mut shape = shape.to_vec();
    if really && let [.., a, b] = shape.as_mut_slice() {
        std::mem::swap(a, b);
    }
    shape
}

/// `[.., m, k] × [.., k, n] → [.., m, n]`, with NumPy's treatment of vectors.
fn multiply(left: &[Dimension], right: &[Dimension]) -> Option<Vec<Dimension>> {
    let (outer_left, row) = match left {
        [] => return None,
        [_] => (&[][..], None),
        [outer @ .., m, _] => (outer, Some(channels(m, left))),
    };
    let (outer_right, column) = match right {
        [] => return None,
        [_] => (&[][..], None),
        [outer @ .., _, n] => (outer, Some(channels(n, right))),
    };
    let mut shape = broadcast(outer_left, outer_right);
    shape.extend(row);
    shape.extend(column);
    Some(shape)
}

pub(super) fn matmul(call: &Call<'_>) -> Option<Shapes> {
    one(multiply(call.shape(0)?, call.shape(1)?)?)
}

/// `QLinearMatMul`: scales and zero points stand between the operands.
pub(super) fn quantized_matmul(call: &Call<'_>) -> Option<Shapes> {
    one(multiply(call.shape(0)?, call.shape(3)?)?)
}

/// `com.microsoft:MatMulNBits`: a weight of few bits for each element, whose sizes stand in attributes.
pub(super) fn packed_matmul(call: &Call<'_>) -> Option<Shapes> {
    let columns = call.node.attribute("N")?.i?;
    let [outer @ .., _] = call.shape(0)? else {
        return None;
    };
    let mut shape = outer.to_vec();
    shape.push(Dimension::axis(Label::Channels, Size::number(columns)));
    one(shape)
}

pub(super) fn fused_matmul(call: &Call<'_>) -> Option<Shapes> {
    if call.node.int("transBatchA", 0) != 0 || call.node.int("transBatchB", 0) != 0 {
        return None;
    }
    let left = transposed(call.shape(0)?, call.node.int("transA", 0) != 0);
    let right = transposed(call.shape(1)?, call.node.int("transB", 0) != 0);
    one(multiply(&left, &right)?)
}

pub(super) fn gemm(call: &Call<'_>) -> Option<Shapes> {
    let left = transposed(call.shape(0)?, call.node.int("transA", 0) != 0);
    let right = transposed(call.shape(1)?, call.node.int("transB", 0) != 0);
    if left.len() != 2 || right.len() != 2 {
        return None;
    }
    one(multiply(&left, &right)?)
}

/// `floor((size + pads - dilation * (kernel - 1) - 1) / stride) + 1` for each spatial axis.
fn windows(call: &Call<'_>, spatial: &[Dimension], kernel: &[Size]) -> Option<Vec<Dimension>> {
    let count = spatial.len();
    let attribute = |name: &str, default: i64, length: usize| match call.node.ints(name) {
        Some(values) => Some(values.to_vec()).filter(|values| values.len() == length),
        None => Some(vec![default; length]),
    };
    let strides = attribute("strides", 1, count)?;
    let dilations = attribute("dilations", 1, count)?;
    let pads = attribute("pads", 0, 2 * count)?;
    let same = matches!(call.node.text("auto_pad"), Some("SAME_UPPER" | "SAME_LOWER"));
    let mut dims = Vec::with_capacity(count);
    for (index, dim) in spatial.iter().enumerate() {
        let (size, stride) = (dim.size(), Size::number(*strides.get(index)?));
        let length = if same || call.node.int("ceil_mode", 0) != 0 && pads.iter().all(|pad| *pad == 0) {
            (&(&size + &stride) - &Size::ONE).divide_down(&stride)
        } else {
            let reach = &(kernel.get(index)? - &Size::ONE) * &Size::number(*dilations.get(index)?);
            let pad = Size::number(pads.get(index)?.saturating_add(*pads.get(index + count)?));
            &(&(&(&size + &pad) - &reach) - &Size::ONE).divide_down(&stride) + &Size::ONE
        };
        // A kernel that is larger than what it runs over gives no window.
        dims.push(dim.resized(length.or_empty()));
    }
    Some(dims)
}

/// `[batch, channels, spatial..] → [batch, new channels, spatial / stride..]`.
pub(super) fn convolution(call: &Call<'_>) -> Option<Shapes> {
    convolved(call, call.shape(0)?, call.shape(1)?)
}

/// `QLinearConv`: scales and zero points stand between image and weight.
pub(super) fn quantized_convolution(call: &Call<'_>) -> Option<Shapes> {
    convolved(call, call.shape(0)?, call.shape(3)?)
}

fn convolved(call: &Call<'_>, input: &[Dimension], weight: &[Dimension]) -> Option<Shapes> {
    let ([batch, _, spatial @ ..], [filters, _, kernel @ ..]) = (input, weight) else {
        return None;
    };
    let kernel: Vec<Size> = kernel.iter().map(Dimension::size).collect();
    let mut shape = vec![batch.clone(), channels(filters, weight)];
    shape.extend(windows(call, spatial, &kernel)?);
    one(shape)
}

/// Whether the node sums over axis 1 of its first input.
fn is_convolution(node: &Node) -> bool {
    matches!(
        (node.domain(), node.operator()),
        ("", "Conv" | "ConvInteger" | "QLinearConv") | ("com.microsoft", "FusedConv") | ("com.microsoft.nchwc", "Conv")
    )
}

/// Labels that a convolution sums over and should not: a sign that the input's axes were named wrongly.
pub(super) fn contracted_by_mistake(call: &Call<'_>) -> Labels {
    match call.shape(0) {
        Some([_, summed, ..]) if is_convolution(call.node) => {
            summed.labels().without(Labels::of([Label::Channels, Label::Other]))
        }
        _ => Labels::NONE,
    }
}

/// The same of a projection: it may sum over a part of the rows and columns, those of a patch, but hardly over all of an
/// axis.
pub(super) fn projected_by_mistake(call: &Call<'_>) -> Labels {
    match call.shape(0) {
        Some([kept @ .., summed]) if call.node.is("MatMul") && is_weight(call.shape(1)) => {
            let left = kept.iter().map(Dimension::labels).fold(Labels::NONE, Labels::union);
            let latent = Labels::of([Label::Frames, Label::Height, Label::Width]);
            summed.labels().intersection(latent).without(left)
        }
        _ => Labels::NONE,
    }
}

fn is_weight(shape: Option<&[Dimension]>) -> bool {
    shape.is_some_and(|shape| shape.len() == 2 && shape.iter().all(|dim| dim.labels().is_empty()))
}

pub(super) fn pool(call: &Call<'_>) -> Option<Shapes> {
    let [batch, channels, spatial @ ..] = call.shape(0)? else {
        return None;
    };
    let kernel: Vec<Size> = call
        .node
        .ints("kernel_shape")?
        .iter()
        .map(|size| Size::number(*size))
        .collect();
    let mut shape = vec![batch.clone(), channels.clone()];
    shape.extend(windows(call, spatial, &kernel)?);
    one(shape)
}

pub(super) fn global_pool(call: &Call<'_>) -> Option<Shapes> {
    let shape = call.shape(0)?;
    one(shape
        .iter()
        .enumerate()
        .map(|(at, dim)| if at < 2 { dim.clone() } else { Dimension::ONE })
        .collect())
}

/// What an ellipsis stands for, counted from the last axis: characters that are no letters.
const ELLIPSIS: [char; 8] = ['7', '6', '5', '4', '3', '2', '1', '0'];

/// A term with letters for its ellipsis, which stands for `axes` of them.
fn written_out(term: &str, axes: usize) -> Option<String> {
    let letters: String = ELLIPSIS.get(ELLIPSIS.len().checked_sub(axes)?..)?.iter().collect();
    Some(term.replacen("...", &letters, 1))
}

/// The equation without ellipsis, for inputs of these ranks.
fn without_ellipsis(equation: &str, ranks: &[usize]) -> Option<String> {
    let equation: String = equation.chars().filter(|letter| !letter.is_whitespace()).collect();
    if !equation.contains("...") {
        return Some(equation);
    }
    let (inputs, output) = equation.split_once("->")?;
    let mut most = 0;
    let mut terms = Vec::new();
    for (place, term) in inputs.split(',').enumerate() {
        let letters = term.chars().filter(|letter| *letter != '.').count();
        let axes = match term.contains("...") {
            true => ranks.get(place)?.checked_sub(letters)?,
            false => 0,
        };
        most = most.max(axes);
        terms.push(written_out(term, axes)?);
    }
    Some(format!("{}->{}", terms.join(","), written_out(output, most)?))
}

/// The letters of an equation: one list for each input, and one for the output.
pub(super) fn letters(equation: &str) -> Option<(Vec<Vec<char>>, Vec<char>)> {
    if equation.contains('.') {
        return None;
    }
    let equation = equation.to_owned();
    let (inputs, output) = match equation.split_once("->") {
        Some((inputs, output)) => (inputs.to_owned(), Some(output.chars().collect::<Vec<_>>())),
        None => (equation, None),
    };
    let output = output.unwrap_or_else(|| {
        let mut counts: BTreeMap<char, usize> = BTreeMap::new();
        for letter in inputs.chars().filter(|letter| *letter != ',') {
            *counts.entry(letter).or_default() += 1;
        }
        counts
            .into_iter()
            .filter(|(_, count)| *count == 1)
            .map(|(letter, _)| letter)
            .collect()
    });
    Some((inputs.split(',').map(|term| term.chars().collect()).collect(), output))
}

/// The dimension of every letter of an `Einsum`, unified over its inputs.
pub(super) fn einsum_dimensions(
    equation: &str,
    shape: impl Fn(usize) -> Option<Vec<Dimension>>,
) -> Option<(BTreeMap<char, Dimension>, Vec<char>)> {
    let count = equation.split("->").next()?.split(',').count();
    let ranks: Option<Vec<usize>> = (0..count).map(|slot| Some(shape(slot)?.len())).collect();
    let (terms, output) = letters(&without_ellipsis(equation, &ranks?)?)?;
    let mut dims: BTreeMap<char, Dimension> = BTreeMap::new();
    for (slot, term) in terms.iter().enumerate() {
        let shape = shape(slot)?;
        if shape.len() != term.len() {
            return None;
        }
        for (letter, dim) in term.iter().zip(&shape) {
            let dim = if terms.len() > 1 {
                channels(dim, &shape)
            } else {
                dim.clone()
            };
            let entry = dims.entry(*letter).or_insert_with(|| dim.clone());
            *entry = unify(entry, &dim);
        }
    }
    Some((dims, output))
}

pub(super) fn einsum(call: &Call<'_>) -> Option<Shapes> {
    let equation = call.node.text("equation")?;
    let (dims, output) = einsum_dimensions(equation, |slot| call.shape(slot).map(<[Dimension]>::to_vec))?;
    one(output
        .iter()
        .map(|letter| dims.get(letter).cloned())
        .collect::<Option<Vec<_>>>()?)
}

/// `Attention` of operator sets 23 and later: `[batch, heads, tokens, head]` or `[batch, tokens, channels]`.
pub(super) fn attention(call: &Call<'_>) -> Option<Shapes> {
    let (query, value) = (call.shape(0)?, call.shape(2)?);
    match (query, value) {
        ([batch, heads, tokens, _], [_, _, _, head]) => {
            one(vec![batch.clone(), heads.clone(), tokens.clone(), head.clone()])
        }
        ([batch, tokens, channels], [_, _, values]) => {
            // With grouped queries the value has fewer heads than the query.
            let heads = (call.node.int("q_num_heads", 0), call.node.int("kv_num_heads", 0));
            let out = match values.size().divide_exactly(&Size::number(heads.1.max(1))) {
                Some(head) if heads.0 > 0 && heads.1 > 0 => &head * &Size::number(heads.0),
                _ => channels.size(),
            };
            one(vec![
                batch.clone(),
                tokens.clone(),
                Dimension::axis(Label::Channels, out),
            ])
        }
        _ => None,
    }
}

/// `com.microsoft:MultiHeadAttention`: the query is `[batch, tokens, channels]`, or `[batch, tokens, heads, 3, head]`
/// with keys and values packed in.
pub(super) fn multi_head_attention(call: &Call<'_>) -> Option<Shapes> {
    match call.shape(0)? {
        [batch, tokens, heads, _, head] => one(vec![batch.clone(), tokens.clone(), Dimension::product([heads, head])]),
        [batch, tokens, channels] => {
            let out = match call.shape(2) {
                Some([_, _, values]) => values.clone(),
                Some([_, heads, _, head]) => Dimension::product([heads, head]),
                _ => channels.clone(),
            };
            let out = if out.labels().is_empty() {
                Dimension::new(Origin::Axis(Label::Channels), out.size())
            } else {
                out
            };
            one(vec![batch.clone(), tokens.clone(), out])
        }
        _ => None,
    }
}

/// `com.microsoft:Attention`: input `[batch, tokens, channels]`, weights `[channels, 3 * channels]`.
pub(super) fn attention_packed_weights(call: &Call<'_>) -> Option<Shapes> {
    let ([batch, tokens, _], [_, packed]) = (call.shape(0)?, call.shape(1)?) else {
        return None;
    };
    let out = match call.node.ints("qkv_hidden_sizes") {
        Some([_, _, value]) => Size::number(*value),
        _ => packed.size().divide_exactly(&Size::number(3))?,
    };
    one(vec![
        batch.clone(),
        tokens.clone(),
        Dimension::axis(Label::Channels, out),
    ])
}
