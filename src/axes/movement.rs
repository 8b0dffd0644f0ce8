//! Rules of operators that keep, permute, regroup, repeat or drop dimensions.

use super::algebra::{broadcast, regroup};
use super::call::{Call, Shapes, axis};
use super::dimension::Dimension;
use super::size::Size;
use crate::onnx::messages::TensorProto;

fn one(shape: Vec<Dimension>) -> Option<Shapes> {
    Some(vec![Some(shape)])
}

/// The first input's dimensions: unary operators, normalizations, softmax.
pub(super) fn same(call: &Call<'_>) -> Option<Shapes> {
    one(call.shape(0)?.to_vec())
}

/// `DynamicQuantizeLinear`: the quantized elements, and a scale and a zero point for all of them.
pub(super) fn dynamic_quantization(call: &Call<'_>) -> Option<Shapes> {
    Some(vec![Some(call.shape(0)?.to_vec()), Some(Vec::new()), Some(Vec::new())])
}

/// The first half of the channels, times an activation of the second.
pub(super) fn bias_split(call: &Call<'_>) -> Option<Shapes> {
    let mut shape = call.shape(0)?.to_vec();
    let last = shape.last_mut()?;
    let half = last.size().divide_exactly(&Size::number(2))?;
    *last = last.resized(half);
    one(shape)
}

/// The places of what is not zero, one row for each axis: of a list, they count what the list counts.
pub(super) fn non_zero(call: &Call<'_>) -> Option<Shapes> {
    let shape = call.shape(0)?;
    let rows = Dimension::unlabelled(Size::number(shape.len() as i64));
    let mut long = shape.iter().filter(|dim| !dim.is_one());
    let found = match (long.next(), long.next()) {
        (Some(list), None) => list.resized(Size::unknown()),
        _ => Dimension::unlabelled(Size::unknown()),
    };
    one(vec![rows, found])
}

/// Rows and columns at other sizes, from `sizes`, or `scales` that are not followed.
pub(super) fn resize(call: &Call<'_>) -> Option<Shapes> {
    let shape = call.shape(0)?;
    let axes = match call.node.ints("axes") {
        Some(axes) => axes
            .iter()
            .map(|place| axis(*place, shape.len()))
            .collect::<Option<Vec<_>>>()?,
        None => (0..shape.len()).collect(),
    };
    let sizes = call.integers(3).map(|sizes| sizes.elements().to_vec());
    let mut resized = shape.to_vec();
    for (index, place) in axes.into_iter().enumerate() {
        let size = sizes.as_ref().and_then(|sizes| sizes.get(index).cloned().flatten());
        let dim = resized.get_mut(place)?;
        *dim = dim.resized(size.unwrap_or_else(Size::unknown));
    }
    one(resized)
}

/// Elements written into a tensor. What is written into a constant, as rotary embeddings are put together, says what the
/// axes count that both have whole.
pub(super) fn scatter(call: &Call<'_>) -> Option<Shapes> {
    let data = call.shape(0)?;
    let Some(updates) = call.shape(2).filter(|updates| updates.len() == data.len()) else {
        return one(data.to_vec());
    };
    let pairs = data.iter().zip(updates);
    let written = pairs.map(|(dim, update)| {
        let unlabelled = dim.labels().is_empty() && dim.disputed().is_empty();
        if unlabelled && update.size() == dim.size() {
            update.clone()
        } else {
            dim.clone()
        }
    });
    one(written.collect())
}

/// Normalization of the sum of two inputs; the sum itself may be output 3.
pub(super) fn skip_normalization(call: &Call<'_>) -> Option<Shapes> {
    let shape = broadcast(call.shape(0)?, call.shape(1)?);
    Some(vec![Some(shape.clone()), None, None, Some(shape)])
}

/// NumPy broadcasting of all inputs.
pub(super) fn elementwise(call: &Call<'_>) -> Option<Shapes> {
    let mut result: Option<Vec<Dimension>> = None;
    for slot in 0..call.node.inputs().len() {
        if call.node.input(slot).is_none() {
            continue;
        }
        let shape = call.shape(slot)?;
        result = Some(match result {
            None => shape.to_vec(),
            Some(result) => broadcast(&result, shape),
        });
    }
    one(result?)
}

/// The dimensions of a stored tensor.
pub(super) fn of_tensor(tensor: &TensorProto) -> Vec<Dimension> {
    tensor
        .dims
        .iter()
        .map(|dim| Dimension::unlabelled(Size::number(*dim)))
        .collect()
}

pub(super) fn constant(call: &Call<'_>) -> Option<Shapes> {
    if let Some(tensor) = call.node.attribute("value").and_then(|attribute| attribute.t.as_ref()) {
        return one(of_tensor(tensor));
    }
    let list = |length: usize| one(vec![Dimension::unlabelled(Size::number(length as i64))]);
    if let Some(values) = call.node.attribute("value_ints") {
        return list(values.ints.len());
    }
    if let Some(values) = call.node.attribute("value_floats") {
        return list(values.floats.len());
    }
    call.node
        .attribute("value_int")
        .or_else(|| call.node.attribute("value_float"))?;
    one(Vec::new())
}

pub(super) fn constant_of_shape(call: &Call<'_>) -> Option<Shapes> {
    let sizes = call.integers(0)?.elements();
    one(sizes
        .iter()
        .map(|size| Dimension::unlabelled(size.clone().unwrap_or_else(Size::unknown)))
        .collect())
}

pub(super) fn scalar(_call: &Call<'_>) -> Option<Shapes> {
    one(Vec::new())
}

pub(super) fn shape_of(call: &Call<'_>) -> Option<Shapes> {
    let rank = call.shape(0)?.len() as i64;
    let bound = |value: i64| if value < 0 { value + rank } else { value }.clamp(0, rank);
    let (start, end) = (bound(call.node.int("start", 0)), bound(call.node.int("end", rank)));
    one(vec![Dimension::unlabelled(Size::number((end - start).max(0)))])
}

pub(super) fn range(call: &Call<'_>) -> Option<Shapes> {
    let bound = |slot: usize| call.integers(slot)?.elements().first()?.clone();
    let length = match (bound(0), bound(1), bound(2)) {
        (Some(start), Some(limit), Some(step)) if step.is_one() => (&limit - &start).or_empty(),
        _ => Size::unknown(),
    };
    one(vec![Dimension::unlabelled(length)])
}

pub(super) fn one_hot(call: &Call<'_>) -> Option<Shapes> {
    let mut shape = call.shape(0)?.to_vec();
    let depth = call
        .integers(1)
        .and_then(|depth| depth.elements().first()?.clone())
        .unwrap_or_else(Size::unknown);
    let place = axis(call.node.int("axis", -1), shape.len() + 1)?;
    shape.insert(place, Dimension::unlabelled(depth));
    one(shape)
}

pub(super) fn transpose(call: &Call<'_>) -> Option<Shapes> {
    let shape = call.shape(0)?;
    match call.node.ints("perm") {
        None => one(shape.iter().rev().cloned().collect()),
        Some(order) if order.len() == shape.len() => {
            let permuted = order
                .iter()
                .map(|place| shape.get(usize::try_from(*place).ok()?).cloned());
            one(permuted.collect::<Option<Vec<_>>>()?)
        }
        Some(_) => None,
    }
}

/// To groups of channels: from channels first, or from channels last.
pub(super) fn reorder_input(call: &Call<'_>) -> Option<Shapes> {
    let shape = call.shape(0)?;
    match (call.node.int("channels_last", 0), shape) {
        (0, _) => one(shape.to_vec()),
        (_, [batch, spatial @ .., channels]) => {
            let channels_first = [batch, channels].into_iter().chain(spatial);
            one(channels_first.cloned().collect())
        }
        _ => None,
    }
}

/// Back from groups of channels, of which the last may not have been full.
pub(super) fn reorder_output(call: &Call<'_>) -> Option<Shapes> {
    let [batch, channels, spatial @ ..] = call.shape(0)? else {
        return None;
    };
    let real = Size::number(call.node.int("channels", 0));
    let channels = if channels.size() == real {
        channels.clone()
    } else {
        channels.resized(real)
    };
    let mut shape = vec![batch.clone()];
    if call.node.int("channels_last", 0) == 0 {
        shape.push(channels);
        shape.extend(spatial.iter().cloned());
    } else {
        shape.extend(spatial.iter().cloned());
        shape.push(channels);
    }
    one(shape)
}

/// `Reshape`: 0 keeps a dimension (unless `allowzero`), -1 takes what is left over.
pub(super) fn reshape(call: &Call<'_>) -> Option<Shapes> {
    let from = call.shape(0)?;
    let wanted: Vec<Option<Size>> = match call.node.ints("shape") {
        Some(values) => values.iter().map(|value| Some(Size::number(*value))).collect(),
        None => call.integers(1)?.elements().to_vec(),
    };
    let zero_keeps = call.node.int("allowzero", 0) == 0;
    let mut targets: Vec<Option<Size>> = Vec::with_capacity(wanted.len());
    for (place, size) in wanted.into_iter().enumerate() {
        targets.push(match size.as_ref().and_then(Size::as_number) {
            Some(0) if zero_keeps => Some(from.get(place)?.size()),
            Some(-1) => None,
            Some(..-1) => Some(Size::unknown()),
            _ => size,
        });
    }
    let total = Dimension::product(from).size();
    let known = Size::product(targets.iter().flatten());
    let mut open = targets.iter_mut().filter(|target| target.is_none());
    if let Some(target) = open.next()
        && open.next().is_none()
    {
        *target = total.divide_exactly(&known);
    }
    let targets: Vec<Size> = targets
        .into_iter()
        .map(|target| target.unwrap_or_else(Size::unknown))
        .collect();
    one(regroup(from, &targets))
}

pub(super) fn flatten(call: &Call<'_>) -> Option<Shapes> {
    let shape = call.shape(0)?;
    let rank = shape.len() as i64;
    let place = call.node.int("axis", 1);
    let place = usize::try_from(if place < 0 { place + rank } else { place }).ok()?;
    let (outer, inner) = (shape.get(..place)?, shape.get(place..)?);
    one(vec![Dimension::product(outer), Dimension::product(inner)])
}

/// `Squeeze`. Axes that are longer than 1 stay, which ONNX does not allow: exporters write PyTorch's operator so, which
/// leaves them (`doubt.rs` says it).
pub(super) fn squeeze(call: &Call<'_>) -> Option<Shapes> {
    let shape = call.shape(0)?;
    let dropped = match call.numbers("axes", 1)? {
        Some(axes) => axes
            .iter()
            .map(|place| axis(*place, shape.len()))
            .collect::<Option<Vec<_>>>()?,
        None => (0..shape.len())
            .filter(|place| shape.get(*place).is_some_and(Dimension::is_one))
            .collect(),
    };
    one(shape
        .iter()
        .enumerate()
        .filter(|(place, dim)| !dropped.contains(place) || is_long(dim))
        .map(|(_, dim)| dim.clone())
        .collect())
}

/// Whether it is known that there is more than one.
pub(super) fn is_long(dim: &Dimension) -> bool {
    dim.size().as_number().is_some_and(|size| size > 1)
}

pub(super) fn unsqueeze(call: &Call<'_>) -> Option<Shapes> {
    let shape = call.shape(0)?;
    let axes = call.numbers("axes", 1)??;
    let rank = shape.len() + axes.len();
    let new = axes
        .iter()
        .map(|place| axis(*place, rank))
        .collect::<Option<Vec<_>>>()?;
    let mut kept = shape.iter();
    (0..rank)
        .map(|place| {
            if new.contains(&place) {
                Some(Dimension::ONE)
            } else {
                kept.next().cloned()
            }
        })
        .collect::<Option<Vec<_>>>()
        .and_then(one)
}

/// `Expand`: a dimension of size 1 becomes one that nothing is known of until it meets a labelled one.
pub(super) fn expand(call: &Call<'_>) -> Option<Shapes> {
    let target: Vec<Dimension> = call.integers(1)?.elements().iter().map(repeated).collect();
    one(broadcast(call.shape(0)?, &target))
}

fn repeated(times: &Option<Size>) -> Dimension {
    Dimension::unlabelled(times.clone().unwrap_or_else(Size::unknown))
}

/// `Tile`: the repeats are an outer factor.
pub(super) fn tile(call: &Call<'_>) -> Option<Shapes> {
    let shape = call.shape(0)?;
    let repeats = call.integers(1)?.elements();
    if repeats.len() != shape.len() {
        return None;
    }
    one(shape
        .iter()
        .zip(repeats)
        .map(|(dim, times)| Dimension::product([&repeated(times), dim]))
        .collect())
}

pub(super) fn reduce(call: &Call<'_>) -> Option<Shapes> {
    let shape = call.shape(0)?;
    let keep = call.node.int("keepdims", 1) != 0;
    let axes = match call.node.attribute("axis").and_then(|attribute| attribute.i) {
        Some(place) => Some(vec![place]),
        None => call.numbers("axes", 1)?,
    };
    let reduced = match axes {
        Some(axes) if !axes.is_empty() => axes
            .iter()
            .map(|place| axis(*place, shape.len()))
            .collect::<Option<Vec<_>>>()?,
        _ if call.node.int("noop_with_empty_axes", 0) != 0 => Vec::new(),
        _ => (0..shape.len()).collect(),
    };
    let dims = shape
        .iter()
        .enumerate()
        .filter_map(|(place, dim)| match (reduced.contains(&place), keep) {
            (false, _) => Some(dim.clone()),
            (true, true) => Some(Dimension::ONE),
            (true, false) => None,
        });
    one(dims.collect())
}

pub(super) fn pad(call: &Call<'_>) -> Option<Shapes> {
    let shape = call.shape(0)?;
    let pads = call.sizes("pads", 1)?;
    let axes = match call.numbers("axes", 3)? {
        Some(axes) => axes
            .iter()
            .map(|place| axis(*place, shape.len()))
            .collect::<Option<Vec<_>>>()?,
        None => (0..shape.len()).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return None;
    }
    let mut padded = shape.to_vec();
    let (before, after) = pads.split_at(axes.len());
    for ((place, before), after) in axes.iter().zip(before).zip(after) {
        let dim = padded.get_mut(*place)?;
        // Negative pads cut off.
        let size = &(&dim.size() + before) + after;
        *dim = dim.resized(size.or_empty());
    }
    one(padded)
}
