//! Rules of operators that set dimensions behind each other, or take parts of them.

use super::algebra::unify;
use super::call::{Call, Shapes, axis};
use super::dimension::Dimension;
use super::size::Size;

pub(super) fn concat(call: &Call<'_>) -> Option<Shapes> {
    let count = call.node.inputs().len();
    let mut result = call.shape(0)?.to_vec();
    let place = axis(call.node.attribute("axis")?.i?, result.len())?;
    let mut parts = Vec::with_capacity(count);
    for slot in 0..count {
        let shape = call.shape(slot)?;
        if shape.len() != result.len() {
            return None;
        }
        for (at, (dim, other)) in result.iter_mut().zip(shape).enumerate() {
            if at == place {
                parts.push(other.clone());
            } else {
                *dim = unify(dim, other);
            }
        }
    }
    *result.get_mut(place)? = Dimension::joined(parts);
    Some(vec![Some(result)])
}

/// `Split` into sizes given by attribute or input, or into equal parts.
pub(super) fn split(call: &Call<'_>) -> Option<Shapes> {
    let shape = call.shape(0)?;
    let place = axis(call.node.int("axis", 0), shape.len())?;
    let whole = shape.get(place)?;
    let count = call.node.outputs().len();
    let sizes: Vec<Size> = if call.node.ints("split").is_some() || call.node.input(1).is_some() {
        call.sizes("split", 1)?
    } else {
        let parts = Size::number(count as i64);
        match whole.size().divide_exactly(&parts) {
            Some(each) => vec![each; count],
            None => {
                // The last part is the smaller one.
                let each = (&(&whole.size() + &parts) - &Size::ONE).divide_down(&parts);
                let last = &whole.size() - &(&each * &Size::number(count as i64 - 1));
                (0..count)
                    .map(|at| if at + 1 == count { last.clone() } else { each.clone() })
                    .collect()
            }
        }
    };
    let mut start = Size::number(0);
    let mut shapes = Vec::with_capacity(count);
    for size in sizes.iter().take(count) {
        let end = &start + size;
        let mut part = shape.to_vec();
        *part.get_mut(place)? = whole.slice(&start, &end);
        shapes.push(Some(part));
        start = end;
    }
    Some(shapes)
}

pub(super) fn slice(call: &Call<'_>) -> Option<Shapes> {
    let mut shape = call.shape(0)?.to_vec();
    let starts = call.sizes("starts", 1);
    let ends = call.sizes("ends", 2);
    let count = match (&starts, &ends) {
        (Some(starts), _) => starts.len(),
        (None, Some(ends)) => ends.len(),
        (None, None) => call.integers(1).or_else(|| call.integers(2))?.elements().len(),
    };
    let axes = match call.numbers("axes", 3)? {
        Some(axes) => axes,
        None => (0..count as i64).collect(),
    };
    let steps = call.numbers("steps", 4)?.unwrap_or_else(|| vec![1; count]);
    if axes.len() != count || steps.len() != count {
        return None;
    }
    let rank = shape.len();
    for (index, (place, step)) in axes.iter().zip(&steps).enumerate() {
        let dim = shape.get_mut(axis(*place, rank)?)?;
        let bound = |bounds: &Option<Vec<Size>>| bounds.as_ref().and_then(|bounds| bounds.get(index).cloned());
        *dim = match (bound(&starts), bound(&ends)) {
            (Some(start), Some(end)) => part(dim, &start, &end, *step),
            _ => dim.resized(Size::unknown()),
        };
    }
    Some(vec![Some(shape)])
}

/// Elements `start..end` in steps, with ONNX's clamping.
fn part(dim: &Dimension, start: &Size, end: &Size, step: i64) -> Dimension {
    let size = dim.size();
    let provably = |bound: Size| match bound.least() {
        Some(0..) => bound,
        _ => Size::unknown(),
    };
    // A bound that is no plain number is a size computed in the graph, and taken to lie within the dimension.
    let clamp = |bound: &Size| match (bound.as_number(), size.as_number()) {
        (Some(value), Some(size)) => {
            let from_front = if value < 0 { value.saturating_add(size) } else { value };
            Size::number(from_front.clamp(0, size.max(0)))
        }
        (Some(value), None) if value >= i64::from(i32::MAX) => size.clone(),
        (Some(value), None) if value <= i64::from(i32::MIN) => Size::number(0),
        // ONNX takes what lies outside for the nearest end: 4 of `batch` is 4 or `batch`, whichever is less.
        (Some(value), None) if value < 0 => provably(&size + bound),
        (Some(_), None) if (&size - bound).least().is_some_and(|left| left >= 0) => bound.clone(),
        (Some(0), None) => Size::number(0),
        (Some(_), None) => Size::unknown(),
        (None, _) if (&Size::number(0) - bound).least().is_some_and(|value| value > 0) => provably(&size + bound),
        (None, _) => bound.clone(),
    };
    match step {
        1 => dim.slice(&clamp(start), &clamp(end)),
        2.. => {
            let length = (&clamp(end) - &clamp(start)).or_empty();
            dim.resized((&length + &Size::number(step - 1)).divide_down(&Size::number(step)))
        }
        -1 if start.as_number() == Some(-1) && end.as_number().is_some_and(|end| end <= i64::from(i32::MIN)) => {
            dim.clone()
        }
        _ => dim.resized(Size::unknown()),
    }
}

/// `Gather`: the indices' dimensions stand where the axis was. Rows picked out of an axis are of that axis.
pub(super) fn gather(call: &Call<'_>) -> Option<Shapes> {
    let (data, indices) = (call.shape(0)?, call.shape(1)?);
    let place = axis(call.node.int("axis", 0), data.len())?;
    let along = data.get(place)?;
    let picked = indices
        .iter()
        .map(|dim| match (dim.labels().is_empty(), indices.len()) {
            (true, 1) => along.resized(dim.size()),
            _ => dim.clone(),
        });
    let mut shape = data.get(..place)?.to_vec();
    shape.extend(picked);
    shape.extend(data.get(place + 1..)?.iter().cloned());
    Some(vec![Some(shape)])
}

/// `GatherND`: the last axis of the indices has places along the first axes of the data. Rows picked out of one axis are
/// of that axis.
pub(super) fn gather_nd(call: &Call<'_>) -> Option<Shapes> {
    let (data, indices) = (call.shape(0)?, call.shape(1)?);
    let shared = usize::try_from(call.node.int("batch_dims", 0)).ok()?;
    let (length, rows) = indices.split_last()?;
    let picks = usize::try_from(length.size().as_number()?).ok()?;
    let along = data.get(shared..shared.checked_add(picks)?)?;
    let mut shape = rows.to_vec();
    if let ([along], [.., row]) = (along, shape.as_mut_slice())
        && rows.len() == shared + 1
        && row.labels().is_empty()
    {
        *row = along.resized(row.size());
    }
    shape.extend(data.get(shared + picks..)?.iter().cloned());
    Some(vec![Some(shape)])
}

/// `GatherElements`: the shape of the indices, with the labels of the data.
pub(super) fn gather_elements(call: &Call<'_>) -> Option<Shapes> {
    let (data, indices) = (call.shape(0)?, call.shape(1)?);
    if data.len() != indices.len() {
        return None;
    }
    let dims = indices.iter().zip(data).map(|(index, data)| {
        if index.size() == data.size() {
            unify(index, data)
        } else {
            index.clone()
        }
    });
    Some(vec![Some(dims.collect())])
}
