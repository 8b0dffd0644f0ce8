//! Shape arithmetic: small tensors of integers whose elements are numbers or symbolic sizes.
//!
//! Exporters compute shapes in the graph (`Shape → Gather → Mul → Concat → Reshape`). Following the elements of these
//! tensors is what gives `Reshape` its target; what cannot be followed is unknown, never guessed.

use super::arithmetic::{absolute, choose, compare, divide, equal, modulo};
use super::call::{Call, axis};
use super::size::Size;
use crate::onnx::messages::DataType;

/// Larger tensors than this hold no shapes.
pub(super) const MOST_ELEMENTS: usize = 64;

/// A tensor of at most [`MOST_ELEMENTS`] integers, in row-major order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Integers {
    dims: Vec<usize>,
    elements: Vec<Option<Size>>,
}

impl Integers {
    /// A tensor, if it is small enough and `dims` fit the elements.
    pub(super) fn new(dims: Vec<usize>, elements: Vec<Option<Size>>) -> Option<Integers> {
        let count = dims.iter().try_fold(1usize, |product, dim| product.checked_mul(*dim))?;
        (count == elements.len() && count <= MOST_ELEMENTS).then_some(Integers { dims, elements })
    }

    /// A list.
    pub(super) fn list(elements: Vec<Option<Size>>) -> Option<Integers> {
        Integers::new(vec![elements.len()], elements)
    }

    /// Its shape.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// The elements; `None` where one is not known.
    pub fn elements(&self) -> &[Option<Size>] {
        &self.elements
    }

    fn scalar(&self) -> Option<&Size> {
        match self.elements.as_slice() {
            [element] => element.as_ref(),
            _ => None,
        }
    }

    fn is_list(&self) -> bool {
        self.dims.len() == 1
    }
}

/// How an operator acts on tensors of integers.
type Fold = fn(&Call<'_>) -> Option<Integers>;

/// The operators that shape arithmetic is made of.
static FOLDS: &[(&str, Fold)] = &[
    ("Abs", |call| each(call, absolute)),
    ("Add", |call| elementwise(call, |a, b| Some(a + b))),
    ("And", |call| {
        elementwise(call, |a, b| compare(a, b, |a, b| a != 0 && b != 0))
    }),
    ("Cast", same_elements),
    ("Ceil", same_elements),
    ("Concat", concat),
    ("ConstantOfShape", constant_of_shape),
    ("Div", |call| {
        elementwise(call, if is_float(call) { Size::divide_exactly } else { divide })
    }),
    ("Equal", |call| elementwise(call, equal)),
    ("Expand", expand),
    ("Floor", same_elements),
    ("Gather", gather),
    ("Greater", |call| elementwise(call, |a, b| compare(a, b, |a, b| a > b))),
    ("GreaterOrEqual", |call| {
        elementwise(call, |a, b| compare(a, b, |a, b| a >= b))
    }),
    ("Identity", same_elements),
    ("Less", |call| elementwise(call, |a, b| compare(a, b, |a, b| a < b))),
    ("LessOrEqual", |call| {
        elementwise(call, |a, b| compare(a, b, |a, b| a <= b))
    }),
    ("Max", |call| elementwise(call, |a, b| choose(a, b, i64::max))),
    ("Min", |call| elementwise(call, |a, b| choose(a, b, i64::min))),
    ("Mod", |call| {
        elementwise(call, |a, b| modulo(a.as_number()?, b.as_number()?))
    }),
    ("Mul", |call| elementwise(call, |a, b| Some(a * b))),
    ("Neg", |call| each(call, |size| Some(&Size::number(0) - size))),
    ("Not", |call| {
        each(call, |size| Some(Size::number(i64::from(size.as_number()? == 0))))
    }),
    ("OneHot", one_hot),
    ("Or", |call| {
        elementwise(call, |a, b| compare(a, b, |a, b| a != 0 || b != 0))
    }),
    ("Range", range),
    ("ReduceProd", reduce_product),
    ("Reshape", same_elements),
    ("Round", same_elements),
    ("Shape", shape),
    ("Size", size),
    ("Slice", slice),
    ("Squeeze", same_elements),
    ("Sub", |call| elementwise(call, |a, b| Some(a - b))),
    ("Transpose", transpose),
    ("Unsqueeze", same_elements),
    ("Where", select),
];

/// The elements of the call's first output. `dims` is the shape that its rule gave it.
pub(super) fn fold(call: &Call<'_>, dims: Option<&[super::dimension::Dimension]>) -> Option<Integers> {
    if !call.node.domain().is_empty() {
        return None;
    }
    let place = FOLDS
        .binary_search_by_key(&call.node.operator(), |(operator, _)| operator)
        .ok()?;
    let folded = FOLDS.get(place)?.1(call)?;
    // Rules know the rank; the folds above keep the elements in order whatever the rank is.
    let dims: Option<Vec<usize>> = match dims {
        Some(dims) => dims
            .iter()
            .map(|dim| usize::try_from(dim.size().as_number()?).ok())
            .collect(),
        None => Some(folded.dims.clone()),
    };
    Integers::new(dims?, folded.elements)
}

fn is_float(call: &Call<'_>) -> bool {
    !matches!(
        call.element(0),
        Some(DataType::Int64 | DataType::Int32 | DataType::Int16 | DataType::Int8)
    )
}

fn same_elements(call: &Call<'_>) -> Option<Integers> {
    call.integers(0).cloned()
}

fn each(call: &Call<'_>, operation: fn(&Size) -> Option<Size>) -> Option<Integers> {
    let given = call.integers(0)?;
    let elements = given.elements.iter().map(|element| operation(element.as_ref()?));
    Integers::new(given.dims.clone(), elements.collect())
}

fn elementwise(call: &Call<'_>, operation: fn(&Size, &Size) -> Option<Size>) -> Option<Integers> {
    let (left, right) = (call.integers(0)?, call.integers(1)?);
    let count = match (left.elements.len(), right.elements.len()) {
        (a, b) if a == b => a,
        (1, b) => b,
        (a, 1) => a,
        _ => return None,
    };
    let at = |tensor: &Integers, index: usize| {
        tensor
            .elements
            .get(if tensor.elements.len() == 1 { 0 } else { index })
            .cloned()
            .flatten()
    };
    let elements = (0..count)
        .map(|index| operation(&at(left, index)?, &at(right, index)?))
        .collect();
    let dims = if left.dims.len() >= right.dims.len() && left.elements.len() == count {
        &left.dims
    } else {
        &right.dims
    };
    Integers::new(dims.clone(), elements)
}

fn select(call: &Call<'_>) -> Option<Integers> {
    let (condition, yes, no) = (call.integers(0)?, call.integers(1)?, call.integers(2)?);
    let count = condition.elements.len().max(yes.elements.len()).max(no.elements.len());
    let at = |tensor: &Integers, index: usize| match tensor.elements.len() {
        1 => tensor.elements.first().cloned().flatten(),
        length if length == count => tensor.elements.get(index).cloned().flatten(),
        _ => None,
    };
    let elements = (0..count).map(|index| match at(condition, index)?.as_number()? {
        0 => at(no, index),
        _ => at(yes, index),
    });
    Integers::list(elements.collect())
}

fn shape(call: &Call<'_>) -> Option<Integers> {
    let dims = call.shape(0)?;
    let rank = dims.len() as i64;
    let bound = |value: i64| if value < 0 { value + rank } else { value }.clamp(0, rank) as usize;
    let (start, end) = (bound(call.node.int("start", 0)), bound(call.node.int("end", rank)));
    Integers::list(
        dims.get(start..end.max(start))?
            .iter()
            .map(|dim| Some(dim.size()))
            .collect(),
    )
}

fn size(call: &Call<'_>) -> Option<Integers> {
    let sizes: Vec<Size> = call.shape(0)?.iter().map(|dim| dim.size()).collect();
    Integers::new(Vec::new(), vec![Some(Size::product(&sizes))])
}

fn gather(call: &Call<'_>) -> Option<Integers> {
    let (data, indices) = (call.integers(0)?, call.integers(1)?);
    if !data.is_list() {
        return None;
    }
    let elements = indices.elements.iter().map(|index| {
        let place = axis(index.as_ref()?.as_number()?, data.elements.len())?;
        data.elements.get(place).cloned().flatten()
    });
    Integers::new(indices.dims.clone(), elements.collect())
}

/// Rows and columns change places: TorchScript turns pads, which it has by axis, into those before and those after.
fn transpose(call: &Call<'_>) -> Option<Integers> {
    let data = call.integers(0)?;
    let [rows, columns] = *data.dims.as_slice() else {
        return None;
    };
    if call.node.ints("perm").is_some_and(|order| order != [1, 0]) {
        return None;
    }
    let places = (0..columns).flat_map(|column| (0..rows).map(move |row| row * columns + column));
    let elements = places.map(|place| data.elements.get(place)?.clone());
    Integers::new(vec![columns, rows], elements.collect())
}

/// Along the first axis: elements of a list, rows of a table.
fn slice(call: &Call<'_>) -> Option<Integers> {
    let data = call.integers(0)?;
    let length = *data.dims.first()?;
    let row = data.elements.len().checked_div(length)?;
    if let Some(axes) = call.numbers("axes", 3)?
        && axes.iter().any(|place| axis(*place, data.dims.len()) != Some(0))
    {
        return None;
    }
    let length = length as i64;
    let starts = call.numbers("starts", 1)??;
    let ends = call.numbers("ends", 2)??;
    let steps = call.numbers("steps", 4)?.unwrap_or_else(|| vec![1]);
    let ([start], [end], [step]) = (starts.as_slice(), ends.as_slice(), steps.as_slice()) else {
        return None;
    };
    let bound = |value: i64| if value < 0 { value.saturating_add(length) } else { value };
    let rows: Vec<i64> = match step {
        1.. => {
            let (from, to) = (bound(*start).clamp(0, length), bound(*end).clamp(0, length));
            (from..to).step_by(usize::try_from(*step).ok()?).collect()
        }
        -1 => {
            let (from, to) = (bound(*start).clamp(-1, length - 1), bound(*end).clamp(-1, length - 1));
            (to + 1..=from).rev().collect()
        }
        _ => return None,
    };
    let mut dims = data.dims.clone();
    *dims.first_mut()? = rows.len();
    let elements = rows.into_iter().flat_map(|at| {
        let first = at as usize * row;
        (first..first + row).map(|at| data.elements.get(at)?.clone())
    });
    Integers::new(dims, elements.collect())
}

fn concat(call: &Call<'_>) -> Option<Integers> {
    let mut elements = Vec::new();
    for slot in 0..call.node.inputs().len() {
        match call.integers(slot) {
            Some(part) if part.is_list() => elements.extend(part.elements.iter().cloned()),
            Some(_) => return None,
            // A part whose length is known and whose elements are not still leaves the others in their places.
            None => {
                let [length] = call.shape(slot)? else { return None };
                let length = usize::try_from(length.size().as_number()?)
                    .ok()
                    .filter(|length| *length <= MOST_ELEMENTS)?;
                elements.extend(std::iter::repeat_n(None, length));
            }
        }
        if elements.len() > MOST_ELEMENTS {
            return None;
        }
    }
    Integers::list(elements)
}

fn filled(call: &Call<'_>, element: Option<Size>) -> Option<Integers> {
    let sizes = call.integers(if call.node.is("ConstantOfShape") { 0 } else { 1 })?;
    let dims: Option<Vec<usize>> = sizes
        .elements
        .iter()
        .map(|size| usize::try_from(size.as_ref()?.as_number()?).ok())
        .collect();
    let dims = dims?;
    let count = dims.iter().try_fold(1usize, |product, dim| product.checked_mul(*dim))?;
    (count <= MOST_ELEMENTS)
        .then(|| Integers::new(dims, vec![element; count]))
        .flatten()
}

fn constant_of_shape(call: &Call<'_>) -> Option<Integers> {
    let value = match call.node.attribute("value").and_then(|attribute| attribute.t.as_ref()) {
        None => 0,
        Some(tensor) => *call.model.weights().integers(tensor).ok()?.first()?,
    };
    filled(call, Some(Size::number(value)))
}

fn expand(call: &Call<'_>) -> Option<Integers> {
    filled(call, call.integers(0)?.scalar().cloned())
}

/// `repeat_interleave` of the TorchScript exporter spells "1, but the repeats at this place" with `OneHot`.
fn one_hot(call: &Call<'_>) -> Option<Integers> {
    let place = call.integers(0)?.scalar()?.as_number()?;
    let depth = call.integers(1)?.scalar()?.as_number()?;
    let depth = usize::try_from(depth).ok().filter(|depth| *depth <= MOST_ELEMENTS)?;
    let [off, on] = call.integers(2)?.elements.as_slice() else {
        return None;
    };
    let place = axis(place, depth)?;
    Integers::list(
        (0..depth)
            .map(|at| if at == place { on.clone() } else { off.clone() })
            .collect(),
    )
}

fn range(call: &Call<'_>) -> Option<Integers> {
    let number = |slot: usize| call.integers(slot)?.scalar()?.as_number();
    let (start, limit, step) = (number(0)?, number(1)?, number(2)?);
    if step <= 0 || limit.checked_sub(start)? / step > MOST_ELEMENTS as i64 {
        return None;
    }
    Integers::list(
        (start..limit)
            .step_by(usize::try_from(step).ok()?)
            .map(|at| Some(Size::number(at)))
            .collect(),
    )
}

fn reduce_product(call: &Call<'_>) -> Option<Integers> {
    let data = call.integers(0).filter(|data| data.is_list())?;
    let product = data
        .elements
        .iter()
        .try_fold(Size::ONE, |product, element| Some(&product * element.as_ref()?));
    Integers::new(
        if call.node.int("keepdims", 1) == 0 {
            Vec::new()
        } else {
            vec![1]
        },
        vec![product],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_for_its_binary_search() {
        assert!(FOLDS.is_sorted_by_key(|(operator, _)| operator));
    }

    #[test]
    fn dims_must_fit_the_elements() {
        assert_eq!(Integers::new(vec![2, 2], vec![None; 3]), None);
        assert_eq!(Integers::new(vec![usize::MAX, 2], vec![]), None);
        assert!(Integers::new(vec![65], vec![None; 65]).is_none());
    }

    #[test]
    fn a_symbolic_size_is_not_minus_one() {
        assert_eq!(equal(&Size::symbol("batch"), &Size::number(-1)), Some(Size::number(0)));
        assert_eq!(equal(&Size::symbol("batch"), &Size::number(5)), None);
    }

    #[test]
    fn integers_are_divided_towards_zero() {
        assert_eq!(divide(&Size::number(-7), &Size::number(2)), Some(Size::number(-3)));
        assert_eq!(divide(&Size::number(7), &Size::number(0)), None);
    }
}
