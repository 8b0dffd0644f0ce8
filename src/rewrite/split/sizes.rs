//! Sizes as one rank has them, written once and read by every `Reshape`, `Expand` and `Slice`.

use crate::axes::{Axes, Base, Product, Size};
use crate::graph::{Graph, ValueId};
use crate::onnx::messages::TensorProto;
use crate::rewrite::build::Build;
use crate::rewrite::collective::collective;
use crate::rewrite::node::integer;
use crate::shard::{Group, ShardError};
use std::collections::{BTreeMap, HashMap};

/// Prefix of the names of what a split adds.
pub(super) const PREFIX: &str = "pab.shard";

/// A size that differs from rank to rank: its part of `whole` along `group`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalSize {
    /// The symbol that stands for it in sizes, and the name of the value that holds it (one int64 in a list).
    pub symbol: String,
    /// The axis of the mesh.
    pub group: Group,
    /// What is divided.
    pub whole: Size,
}

/// Sizes that were written already.
#[derive(Debug)]
pub(super) struct Sizes {
    /// An input and the dimension whose size a symbol is.
    sources: BTreeMap<String, (ValueId, usize)>,
    locals: Vec<LocalSize>,
    lists: HashMap<Vec<Size>, ValueId>,
    count: usize,
}

impl Sizes {
    pub fn of(graph: &Graph, axes: &Axes) -> Sizes {
        let mut sources = BTreeMap::new();
        for input in graph.inputs() {
            for (dimension, size) in axes.sizes(input).unwrap_or_default().iter().enumerate() {
                if let Some([Product { coefficient: 1, powers }]) = size.products().as_deref()
                    && let [(Base::Symbol(symbol), 1)] = powers.as_slice()
                {
                    sources.entry(symbol.clone()).or_insert((input, dimension));
                }
            }
        }
        Sizes {
            sources,
            locals: Vec::new(),
            lists: HashMap::new(),
            count: 0,
        }
    }

    /// The sizes that differ from rank to rank.
    pub fn into_locals(self) -> Vec<LocalSize> {
        self.locals
    }

    /// A name that is free.
    pub fn name(&mut self, graph: &Graph) -> String {
        loop {
            let name = format!("{PREFIX}.{}", self.count);
            self.count += 1;
            if graph.find(&name).is_none() {
                return name;
            }
        }
    }

    /// The size of a rank's part of `whole` along `group`.
    pub fn local(&mut self, graph: &mut Graph, group: Group, whole: &Size) -> Result<Size, ShardError> {
        let known = self
            .locals
            .iter()
            .find(|local| local.group == group && local.whole == *whole);
        if let Some(local) = known {
            return Ok(Size::symbol(&local.symbol));
        }
        let symbol = format!("{PREFIX}.{group}.{}", self.locals.len());
        let list = self.list(graph, std::slice::from_ref(whole))?;
        let (entries, part) = (self.name(graph), self.name(graph));
        let mut build = Build::new(graph);
        let entries = build.node("ConstantOfShape", &[list], Vec::new(), &entries)?;
        let part = collective(graph, "ShardSlice", entries, group, &[("axis", 0)], &part, None)?;
        let size = Build::new(graph).node("Shape", &[part], Vec::new(), &symbol)?;
        self.lists.insert(vec![Size::symbol(&symbol)], size);
        self.locals.push(LocalSize {
            symbol: symbol.clone(),
            group,
            whole: whole.clone(),
        });
        Ok(Size::symbol(&symbol))
    }

    /// A list of int64.
    pub fn list(&mut self, graph: &mut Graph, sizes: &[Size]) -> Result<ValueId, ShardError> {
        if let Some(value) = self.lists.get(sizes) {
            return Ok(*value);
        }
        let numbers: Option<Vec<i64>> = sizes.iter().map(Size::as_number).collect();
        let value = match (numbers, sizes) {
            (Some(numbers), _) => {
                let name = self.name(graph);
                Build::new(graph).integers(&name, &[numbers.len() as i64], &numbers)?
            }
            (None, [size]) => self.size(graph, size)?,
            (None, sizes) => {
                let mut parts = Vec::new();
                for run in sizes.chunk_by(|one, other| one.as_number().is_some() && other.as_number().is_some()) {
                    parts.push(self.list(graph, run)?);
                }
                let name = self.name(graph);
                Build::new(graph).node("Concat", &parts, vec![integer("axis", 0)], &name)?
            }
        };
        self.lists.insert(sizes.to_vec(), value);
        Ok(value)
    }

    /// A list of one size, computed from the sizes of the inputs and of the ranks' parts.
    fn size(&mut self, graph: &mut Graph, size: &Size) -> Result<ValueId, ShardError> {
        let unknown = || ShardError::UnknownSize {
            value: size.to_string(),
        };
        let mut sum = None;
        for product in size.products().ok_or_else(unknown)? {
            let mut value = None;
            for (base, power) in &product.powers {
                let factor = match base {
                    Base::Symbol(symbol) => self.symbol(graph, symbol)?,
                    Base::Quotient(numerator, divisor) => {
                        let numerator = self.list(graph, std::slice::from_ref(numerator))?;
                        let divisor = self.list(graph, std::slice::from_ref(divisor))?;
                        self.joined(graph, "Div", Some(numerator), divisor)?
                    }
                };
                for _ in 0..*power {
                    value = Some(self.joined(graph, "Mul", value, factor)?);
                }
            }
            if product.coefficient != 1 || value.is_none() {
                let factor = self.list(graph, &[Size::number(product.coefficient)])?;
                value = Some(self.joined(graph, "Mul", value, factor)?);
            }
            if let Some(value) = value {
                sum = Some(self.joined(graph, "Add", sum, value)?);
            }
        }
        match sum {
            Some(sum) => Ok(sum),
            None => self.list(graph, &[Size::number(0)]),
        }
    }

    fn joined(
        &mut self,
        graph: &mut Graph,
        operator: &str,
        left: Option<ValueId>,
        right: ValueId,
    ) -> Result<ValueId, ShardError> {
        let Some(left) = left else { return Ok(right) };
        let name = self.name(graph);
        Ok(Build::new(graph).node(operator, &[left, right], Vec::new(), &name)?)
    }

    /// A list of the one size that a symbol stands for, read from an input.
    fn symbol(&mut self, graph: &mut Graph, symbol: &str) -> Result<ValueId, ShardError> {
        let key = vec![Size::symbol(symbol)];
        if let Some(value) = self.lists.get(&key) {
            return Ok(*value);
        }
        let unknown = || ShardError::UnknownSize {
            value: symbol.to_owned(),
        };
        let (input, dimension) = *self.sources.get(symbol).ok_or_else(unknown)?;
        let (shape, size) = (self.name(graph), self.name(graph));
        let at = self.list(graph, &[Size::number(dimension as i64)])?;
        let mut build = Build::new(graph);
        let shape = build.node("Shape", &[input], Vec::new(), &shape)?;
        let value = build.node("Gather", &[shape, at], vec![integer("axis", 0)], &size)?;
        self.lists.insert(key, value);
        Ok(value)
    }
}

/// A stored list of int64.
pub(super) fn stored(name: &str, numbers: &[i64]) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        dims: vec![numbers.len() as i64],
        data_type: Some(crate::onnx::messages::DataType::Int64 as i32),
        int64_data: numbers.to_vec(),
        ..TensorProto::default()
    }
}
