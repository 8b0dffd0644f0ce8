//! Sizes that the axis analysis knows: written once instead of computed wherever an exporter asks for them.

mod scales;

use super::build::Build;
use crate::axes::{Axes, Integers, Size, Term};
use crate::graph::{Graph, GraphError, Node, ValueId};
use crate::onnx::messages::{AttributeProto, AttributeType, DataType, TensorProto};
use std::collections::{BTreeMap, HashMap};

/// Prefix of the names of what is added.
const PREFIX: &str = "pab.size";

/// Lets every `Reshape`, `Slice` and the like whose sizes are known read them from where they are stored, or computed once
/// from the sizes of the inputs. What computed them before goes.
///
/// Exporters compute the target of each `Reshape` anew from the `Shape` of what is reshaped: several hundred small
/// nodes in a model of some ten blocks, at each step. ONNX Runtime folds those that are numbers only where nothing
/// beside them is open, and merges none that start from different tensors. The values stay the same, and so does all
/// that is computed from them.
///
/// Nothing is done where the file declares other sizes than the analysis finds. Where several inputs name a size alike,
/// it is read from the first of them.
///
/// Returns how many inputs of nodes were replaced.
///
/// # Errors
/// [`GraphError::NameTaken`] where a name that begins with `pab.size` is taken.
pub fn write_known_sizes(graph: &mut Graph, axes: &Axes) -> Result<usize, GraphError> {
    if axes.is_contradicted() {
        return Ok(0);
    }
    let sources = sources(graph, axes);
    let mut wanted = Vec::new();
    for (id, node) in graph.nodes() {
        for slot in slots_of_sizes(node) {
            let value = node.input(slot);
            let known = value.and_then(|value| Known::of(graph, axes, &sources, value));
            wanted.extend(known.map(|known| (id, slot, known)));
        }
    }
    let scales = scales::find(graph, axes);
    let mut written = Written {
        build: Build::new(graph),
        sources: &sources,
        values: HashMap::new(),
    };
    for (node, slot, known) in &wanted {
        let by = written.tensor(known)?;
        written.build.graph.set_input(*node, *slot, by);
    }
    let replaced = wanted.len() + scales::share(&mut written, &scales)?;
    if replaced > 0 {
        graph.eliminate_dead_code();
    }
    Ok(replaced)
}

/// The inputs of operators that say what size or which part of the data is meant, from the first to the last.
///
/// What else reads sizes goes on to compute with them: see [`scales`].
const TAKE_SIZES: [(&str, usize, usize); 6] = [
    ("Expand", 1, 1),
    ("Pad", 1, 1),
    ("Reshape", 1, 1),
    ("Slice", 1, 4),
    ("Split", 1, 1),
    ("Tile", 1, 1),
];

fn slots_of_sizes(node: &Node) -> std::ops::Range<usize> {
    let line = TAKE_SIZES.iter().find(|(operator, ..)| node.is(operator));
    line.map_or(0..0, |(_, first, last)| *first..last + 1)
}

/// Where the size that a symbol stands for can be read: an input and the dimension.
type Sources = BTreeMap<String, (ValueId, usize)>;

/// The first dimension of an input for each symbol that is the size of one.
fn sources(graph: &Graph, axes: &Axes) -> Sources {
    let mut sources = BTreeMap::new();
    for input in graph.inputs() {
        for (dimension, size) in axes.sizes(input).unwrap_or_default().iter().enumerate() {
            if let Some([Term { coefficient: 1, powers }]) = size.terms().as_deref()
                && let [(symbol, 1)] = powers.as_slice()
            {
                sources.entry(symbol.clone()).or_insert((input, dimension));
            }
        }
    }
    sources
}

/// A tensor of sizes that can be written.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Known {
    element_type: DataType,
    dims: Vec<usize>,
    elements: Vec<Size>,
}

impl Known {
    fn of(graph: &Graph, axes: &Axes, sources: &Sources, value: ValueId) -> Option<Known> {
        let element_type = axes.element_type(value)?;
        if !matches!(element_type, DataType::Int64 | DataType::Int32) || graph.constant(value).is_some() {
            return None;
        }
        let integers: &Integers = axes.integers(value)?;
        let elements: Vec<Size> = integers.elements().iter().cloned().collect::<Option<_>>()?;
        let can_be_written = |term: &Term| {
            term.powers
                .iter()
                .all(|(symbol, power)| *power <= MOST_POWER && sources.contains_key(symbol))
        };
        let all = elements.iter().all(|size| match size.as_number() {
            Some(_) => true,
            None => size.terms().is_some_and(|terms| terms.iter().all(can_be_written)),
        });
        (all && integers.dims().len() <= 1 && !elements.is_empty()).then(|| Known {
            element_type,
            dims: integers.dims().to_vec(),
            elements,
        })
    }
}

/// Higher powers of a size come from no model.
const MOST_POWER: u32 = 4;

/// What was written already.
struct Written<'g> {
    build: Build<'g>,
    sources: &'g Sources,
    values: HashMap<Known, ValueId>,
}

impl Written<'_> {
    /// The tensor, stored or computed.
    fn tensor(&mut self, wanted: &Known) -> Result<ValueId, GraphError> {
        if let Some(value) = self.values.get(wanted) {
            return Ok(*value);
        }
        let value = self.write(wanted)?;
        self.values.insert(wanted.clone(), value);
        Ok(value)
    }

    fn write(&mut self, wanted: &Known) -> Result<ValueId, GraphError> {
        let numbers: Option<Vec<i64>> = wanted.elements.iter().map(Size::as_number).collect();
        if let Some(numbers) = numbers {
            return self.numbers(wanted, &numbers);
        }
        if wanted.element_type != DataType::Int64 {
            let wide = Known {
                element_type: DataType::Int64,
                ..wanted.clone()
            };
            let wide = self.tensor(&wide)?;
            let name = self.name();
            return self.build.cast(wide, wanted.element_type, &name);
        }
        match (wanted.dims.as_slice(), wanted.elements.as_slice()) {
            ([1], [size]) => self.size(size),
            ([], [_]) => {
                let list = self.tensor(&list(wanted.elements.clone()))?;
                let shape = self.shape(&[])?;
                let name = self.name();
                self.build.node("Reshape", &[list, shape], Vec::new(), &name)
            }
            (_, elements) => {
                let parts = parts(elements);
                let parts = parts.into_iter().map(|part| self.tensor(&list(part)));
                let parts = parts.collect::<Result<Vec<_>, _>>()?;
                let name = self.name();
                self.build.node("Concat", &parts, vec![axis(0)], &name)
            }
        }
    }

    /// A list of one size, from the sizes of the inputs.
    fn size(&mut self, size: &Size) -> Result<ValueId, GraphError> {
        let terms = size.terms().unwrap_or_default();
        let mut sum = None;
        for term in &terms {
            let mut product = None;
            for (symbol, power) in &term.powers {
                for _ in 0..*power {
                    let factor = self.symbol(symbol)?;
                    product = Some(self.joined("Mul", product, factor)?);
                }
            }
            if term.coefficient != 1 || product.is_none() {
                let factor = self.tensor(&list(vec![Size::number(term.coefficient)]))?;
                product = Some(self.joined("Mul", product, factor)?);
            }
            if let Some(product) = product {
                sum = Some(self.joined("Add", sum, product)?);
            }
        }
        match sum {
            Some(sum) => Ok(sum),
            None => self.tensor(&list(vec![Size::number(0)])),
        }
    }

    fn joined(&mut self, operator: &str, left: Option<ValueId>, right: ValueId) -> Result<ValueId, GraphError> {
        let Some(left) = left else { return Ok(right) };
        let name = self.name();
        self.build.node(operator, &[left, right], Vec::new(), &name)
    }

    /// A list of the one size that a symbol stands for, read from an input.
    fn symbol(&mut self, symbol: &str) -> Result<ValueId, GraphError> {
        let key = list(vec![Size::symbol(symbol)]);
        if let Some(value) = self.values.get(&key) {
            return Ok(*value);
        }
        let missing = || GraphError::NameTaken {
            name: symbol.to_owned(),
        };
        let (input, dimension) = *self.sources.get(symbol).ok_or_else(missing)?;
        let name = self.name();
        let shape = self.build.node("Shape", &[input], Vec::new(), &name)?;
        let at = self.tensor(&list(vec![Size::number(dimension as i64)]))?;
        let name = self.name();
        let value = self.build.node("Gather", &[shape, at], vec![axis(0)], &name)?;
        self.values.insert(key, value);
        Ok(value)
    }

    /// A number that ONNX Runtime computes at each step, in a list or as a scalar; `None` where no size is open.
    fn computed(&mut self, number: i64, in_list: bool) -> Result<Option<ValueId>, GraphError> {
        let Some(symbol) = self.sources.keys().next() else {
            return Ok(None);
        };
        let symbol = self.symbol(symbol)?;
        let name = self.name();
        let nothing = self.build.node("Sub", &[symbol, symbol], Vec::new(), &name)?;
        let stored = self.tensor(&list(vec![Size::number(number)]))?;
        let name = self.name();
        let sum = self.build.node("Add", &[nothing, stored], Vec::new(), &name)?;
        if in_list {
            return Ok(Some(sum));
        }
        let shape = self.shape(&[])?;
        let name = self.name();
        Ok(Some(self.build.node("Reshape", &[sum, shape], Vec::new(), &name)?))
    }

    fn numbers(&mut self, wanted: &Known, numbers: &[i64]) -> Result<ValueId, GraphError> {
        let dims: Vec<i64> = wanted.dims.iter().map(|dim| *dim as i64).collect();
        let name = self.name();
        if wanted.element_type == DataType::Int64 {
            return self.build.integers(&name, &dims, numbers);
        }
        let narrow = numbers.iter().map(|number| i32::try_from(*number).unwrap_or(i32::MAX));
        self.build.graph.add_initializer(TensorProto {
            name: Some(name),
            dims,
            data_type: Some(wanted.element_type as i32),
            int32_data: narrow.collect(),
            ..TensorProto::default()
        })
    }

    /// A stored list of int64, which has no element for a scalar's shape.
    fn shape(&mut self, dims: &[i64]) -> Result<ValueId, GraphError> {
        let key = list(dims.iter().map(|dim| Size::number(*dim)).collect());
        if let Some(value) = self.values.get(&key) {
            return Ok(*value);
        }
        let name = self.name();
        let value = self.build.integers(&name, &[dims.len() as i64], dims)?;
        self.values.insert(key, value);
        Ok(value)
    }

    /// A name that is free, as far as nobody else writes `pab.size`.
    fn name(&mut self) -> String {
        let mut number = self.values.len();
        loop {
            let name = format!("{PREFIX}.{number}");
            if self.build.graph.find(&name).is_none() {
                return name;
            }
            number += 1;
        }
    }
}

/// A list of int64.
fn list(elements: Vec<Size>) -> Known {
    Known {
        element_type: DataType::Int64,
        dims: vec![elements.len()],
        elements,
    }
}

/// Runs of numbers together, and each other size by itself.
fn parts(elements: &[Size]) -> Vec<Vec<Size>> {
    let mut parts: Vec<Vec<Size>> = Vec::new();
    for size in elements {
        match parts.last_mut() {
            Some(last) if size.as_number().is_some() && last.iter().all(|size| size.as_number().is_some()) => {
                last.push(size.clone());
            }
            _ => parts.push(vec![size.clone()]),
        }
    }
    parts
}

fn axis(axis: i64) -> AttributeProto {
    AttributeProto {
        name: Some("axis".to_owned()),
        r#type: Some(AttributeType::Int as i32),
        i: Some(axis),
        ..AttributeProto::default()
    }
}

#[cfg(test)]
mod tests;
