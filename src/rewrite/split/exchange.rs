//! A value brought to where a reader needs it: slices, gathers and all-to-alls, with the layouts around them.

use super::sizes::Sizes;
use crate::axes::Size;
use crate::graph::{Graph, NewNode, Position, ValueId};
use crate::onnx::messages::DataType;
use crate::rewrite::build::Build;
use crate::rewrite::collective::collective;
use crate::rewrite::node::integer;
use crate::shard::{Facts, Group, Part, Placement, Shard, ShardError};

/// What a collective does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Collective {
    /// Every rank sends its part to every other.
    AllGather,
    /// Every rank sends each other that rank's part of its part.
    AllToAll,
    /// The ranks' values are added.
    AllReduce,
}

impl Collective {
    /// The operator of domain `ai.pab`.
    pub fn operator(self) -> &'static str {
        match self {
            Collective::AllGather => "AllGather",
            Collective::AllToAll => "AllToAll",
            Collective::AllReduce => "AllReduce",
        }
    }
}

/// A collective of a split graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The name of its node, and of the node's output.
    pub name: String,
    /// What it does.
    pub collective: Collective,
    /// Over which axis of the mesh.
    pub group: Group,
    /// Elements of the whole value, apart from what is divided.
    pub rest: Size,
    /// How many entries are divided before.
    pub from: Size,
    /// How many entries are divided afterwards; 1 where nothing is.
    pub to: Size,
    /// The type of the elements.
    pub element_type: DataType,
}

impl Exchange {
    /// Elements apart from what is divided, from the sizes of its result; `None` where that does not tell.
    pub(super) fn rest_of(&self, result: &[Size]) -> Option<Size> {
        match self.collective {
            Collective::AllReduce | Collective::AllGather => Size::product(result).divide_exactly(&self.from),
            Collective::AllToAll => None,
        }
    }
}

/// Writes exchanges along one axis of the mesh.
pub(super) struct Exchanges<'e> {
    pub group: Group,
    pub sizes: &'e mut Sizes,
    pub written: &'e mut Vec<Exchange>,
    /// Operator set of the standard's operators.
    pub opset: i64,
}

/// A piece of a dimension: what is divided, or what stands before or behind it.
#[derive(Clone)]
struct Piece {
    whole: Size,
    from: bool,
    to: bool,
}

/// The pieces of every dimension of a value that lies as `from` and is wanted as `to`; `None` where what is divided
/// before and afterwards overlap.
fn pieces(whole: &[Size], from: &Placement, to: &Placement) -> Option<Vec<Vec<Piece>>> {
    let plain = |whole: Size| Piece {
        whole,
        from: false,
        to: false,
    };
    let divided = |shard: &Shard, is_from: bool| Piece {
        whole: shard.total(),
        from: is_from,
        to: !is_from,
    };
    let dims = whole.iter().enumerate().map(|(dim, size)| {
        let here = |placement: &Placement| placement.clone().filter(|shard| shard.dim == dim);
        let pieces = match (here(from), here(to)) {
            (None, None) => vec![plain(size.clone())],
            (Some(shard), None) => vec![
                plain(shard.outer.clone()),
                divided(&shard, true),
                plain(shard.inner.clone()),
            ],
            (None, Some(shard)) => vec![
                plain(shard.outer.clone()),
                divided(&shard, false),
                plain(shard.inner.clone()),
            ],
            (Some(from), Some(to)) => {
                let (first, second, from_first) = match to.outer.divide_exactly(&(&from.outer * &from.total())) {
                    Some(_) => (from, to, true),
                    None => (to, from, false),
                };
                let between = second.outer.divide_exactly(&(&first.outer * &first.total()))?;
                vec![
                    plain(first.outer.clone()),
                    divided(&first, from_first),
                    plain(between),
                    divided(&second, !from_first),
                    plain(second.inner.clone()),
                ]
            }
        };
        // A dimension keeps one piece at least.
        let is_one = |piece: &Piece| piece.whole.is_one() && !piece.from && !piece.to;
        let mut kept: Vec<Piece> = pieces.iter().filter(|piece| !is_one(piece)).cloned().collect();
        if kept.is_empty() {
            kept.push(plain(Size::ONE));
        }
        Some(kept)
    });
    dims.collect()
}

impl Exchanges<'_> {
    /// The size of a rank's part of what `shard` divides.
    pub fn local_total(&mut self, graph: &mut Graph, shard: &Shard) -> Result<Size, ShardError> {
        let mut sum = Size::number(0);
        for part in &shard.parts {
            sum = &sum + &self.local_part(graph, part)?;
        }
        Ok(sum)
    }

    /// The entries that a rank has of a part.
    pub fn local_part(&mut self, graph: &mut Graph, part: &Part) -> Result<Size, ShardError> {
        Ok(&self.sizes.local(graph, self.group, &part.count)? * &part.unit)
    }

    /// The size of a rank's dimension that `shard` divides.
    pub fn local_size(&mut self, graph: &mut Graph, shard: &Shard) -> Result<Size, ShardError> {
        Ok(&(&shard.outer * &self.local_total(graph, shard)?) * &shard.inner)
    }

    /// The sizes of a rank's part of a value of sizes `whole`.
    pub fn local_sizes(
        &mut self,
        graph: &mut Graph,
        whole: &[Size],
        placement: &Placement,
    ) -> Result<Vec<Size>, ShardError> {
        let mut sizes = whole.to_vec();
        if let Some(shard) = placement {
            let local = self.local_size(graph, shard)?;
            if let Some(size) = sizes.get_mut(shard.dim) {
                *size = local;
            }
        }
        Ok(sizes)
    }

    /// `value`, whose whole sizes are `whole`, brought from where it lies to where it is needed.
    #[allow(clippy::too_many_arguments)]
    pub fn convert(
        &mut self,
        graph: &mut Graph,
        facts: &mut Facts<'_>,
        value: ValueId,
        whole: &[Size],
        from: &Placement,
        to: &Placement,
        after: Option<Position>,
    ) -> Result<ValueId, ShardError> {
        let element_type = facts.element_type(value);
        let Some(pieces) = pieces(whole, from, to) else {
            let gathered = self.convert(graph, facts, value, whole, from, &None, after)?;
            return self.convert(graph, facts, gathered, whole, &None, to, after);
        };
        let flat: Vec<Piece> = pieces.iter().flatten().cloned().collect();
        let is_laid_out = flat.len() == whole.len();
        let behind = self.local_sizes(graph, whole, to)?;
        let mut laid_out = value;
        if !is_laid_out {
            let sizes = self.sizes_of(graph, &flat, from, true)?;
            laid_out = self.reshape(graph, value, &sizes, after)?;
        }
        let exchanged = self.exchange(graph, laid_out, &flat, from, to, element_type, after)?;
        let result = match is_laid_out {
            true => exchanged,
            false => self.reshape(graph, exchanged, &behind, after)?,
        };
        facts.set(result, behind, element_type);
        Ok(result)
    }

    /// The sizes of a rank's pieces before an exchange, where `placement` says how they lie, or behind it.
    fn sizes_of(
        &mut self,
        graph: &mut Graph,
        pieces: &[Piece],
        placement: &Placement,
        is_before: bool,
    ) -> Result<Vec<Size>, ShardError> {
        let mut sizes = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let is_divided = if is_before { piece.from } else { piece.to };
            sizes.push(match (is_divided, placement) {
                (true, Some(shard)) => self.local_total(graph, shard)?,
                _ => piece.whole.clone(),
            });
        }
        Ok(sizes)
    }

    #[allow(clippy::too_many_arguments)]
    fn exchange(
        &mut self,
        graph: &mut Graph,
        value: ValueId,
        pieces: &[Piece],
        from: &Placement,
        to: &Placement,
        element_type: Option<DataType>,
        after: Option<Position>,
    ) -> Result<ValueId, ShardError> {
        let places = (
            pieces.iter().position(|piece| piece.from),
            pieces.iter().position(|piece| piece.to),
        );
        let others = pieces.iter().filter(|piece| !piece.from && !piece.to);
        let rest = Size::product(others.map(|piece| &piece.whole));
        let element_type = element_type.unwrap_or(DataType::Float);
        let group = self.group;
        let of_parts = |placement: &Placement| placement.as_ref().map_or(Vec::new(), |shard| shard.parts.clone());
        // One along which parts stand one behind the other is taken apart, exchanged part by part, and put together.
        let seams = [(places.0, of_parts(from), true), (places.1, of_parts(to), false)];
        for (axis, parts, is_from) in seams {
            let (Some(axis), 2..) = (axis, parts.len()) else {
                continue;
            };
            let mut lengths = Vec::with_capacity(parts.len());
            for part in &parts {
                lengths.push(match is_from {
                    true => self.local_part(graph, part)?,
                    false => part.size(),
                });
            }
            let values = self.split(graph, value, axis, &lengths, after)?;
            let mut exchanged = Vec::with_capacity(parts.len());
            for (value, part) in values.into_iter().zip(&parts) {
                let of_part = |placement: &Placement| {
                    placement.as_ref().map(|shard| Shard {
                        parts: vec![Part {
                            unit: Size::ONE,
                            ..part.clone()
                        }],
                        ..shard.clone()
                    })
                };
                let (from, to) = match is_from {
                    true => (of_part(from), to.clone()),
                    false => (from.clone(), of_part(to)),
                };
                let mut apart = pieces.to_vec();
                if let Some(piece) = apart.get_mut(axis) {
                    piece.whole = part.count.clone();
                }
                if part.unit.is_one() {
                    exchanged.push(self.exchange(graph, value, &apart, &from, &to, Some(element_type), after)?);
                    continue;
                }
                // What stays together is a dimension of its own meanwhile.
                let unit = Piece {
                    whole: part.unit.clone(),
                    from: false,
                    to: false,
                };
                apart.insert(axis + 1, unit);
                let sizes = self.sizes_of(graph, &apart, &from, true)?;
                let value = self.reshape(graph, value, &sizes, after)?;
                let value = self.exchange(graph, value, &apart, &from, &to, Some(element_type), after)?;
                let mut sizes = self.sizes_of(graph, &apart, &to, false)?;
                let unit = sizes.remove(axis + 1);
                if let Some(size) = sizes.get_mut(axis) {
                    *size = &*size * &unit;
                }
                exchanged.push(self.reshape(graph, value, &sizes, after)?);
            }
            return self.concat(graph, &exchanged, axis, after);
        }
        let name = self.sizes.name(graph);
        let mut write = |collective: Collective| {
            let total = |place: Option<usize>| place.map_or(Size::ONE, |place| pieces[place].whole.clone());
            self.written.push(Exchange {
                name: name.clone(),
                collective,
                group,
                rest: rest.clone(),
                from: total(places.0),
                to: total(places.1),
                element_type,
            });
        };
        match places {
            (None, None) => Ok(value),
            (None, Some(axis)) => {
                let axes = [("axis", axis)];
                Ok(collective(graph, "ShardSlice", value, group, &axes, &name, after)?)
            }
            (Some(axis), None) => {
                write(Collective::AllGather);
                let axes = [("axis", axis)];
                Ok(collective(graph, "AllGather", value, group, &axes, &name, after)?)
            }
            (Some(concat), Some(split)) => {
                write(Collective::AllToAll);
                let axes = [("split_axis", split), ("concat_axis", concat)];
                Ok(collective(graph, "AllToAll", value, group, &axes, &name, after)?)
            }
        }
    }

    /// The sum of what the ranks have.
    pub fn reduce(
        &mut self,
        graph: &mut Graph,
        facts: &mut Facts<'_>,
        value: ValueId,
        after: Option<Position>,
    ) -> Result<ValueId, ShardError> {
        let name = self.sizes.name(graph);
        let sizes = facts.sizes(value).unwrap_or_default().to_vec();
        let element_type = facts.element_type(value);
        self.written.push(Exchange {
            name: name.clone(),
            collective: Collective::AllReduce,
            group: self.group,
            rest: Size::product(&sizes),
            from: Size::ONE,
            to: Size::ONE,
            element_type: element_type.unwrap_or(DataType::Float),
        });
        let sum = collective(graph, "AllReduce", value, self.group, &[], &name, after)?;
        facts.set(sum, sizes, element_type);
        Ok(sum)
    }

    fn reshape(
        &mut self,
        graph: &mut Graph,
        value: ValueId,
        sizes: &[Size],
        after: Option<Position>,
    ) -> Result<ValueId, ShardError> {
        let target = self.sizes.list(graph, sizes)?;
        let name = self.sizes.name(graph);
        let mut build = Build { graph, after };
        // A rank may have no entry; that is no "as it is".
        let attributes = match self.opset {
            14.. => vec![integer("allowzero", 1)],
            _ => Vec::new(),
        };
        Ok(build.node("Reshape", &[value, target], attributes, &name)?)
    }

    fn concat(
        &mut self,
        graph: &mut Graph,
        values: &[ValueId],
        axis: usize,
        after: Option<Position>,
    ) -> Result<ValueId, ShardError> {
        let name = self.sizes.name(graph);
        let mut build = Build { graph, after };
        Ok(build.node("Concat", values, vec![integer("axis", axis as i64)], &name)?)
    }

    fn split(
        &mut self,
        graph: &mut Graph,
        value: ValueId,
        axis: usize,
        lengths: &[Size],
        after: Option<Position>,
    ) -> Result<Vec<ValueId>, ShardError> {
        let lengths_list = self.sizes.list(graph, lengths)?;
        let outputs: Vec<String> = lengths.iter().map(|_| self.sizes.name(graph)).collect();
        let node = graph.add_node(NewNode {
            operator: "Split".to_owned(),
            name: outputs.first().cloned().unwrap_or_default(),
            inputs: vec![Some(value), Some(lengths_list)],
            outputs,
            attributes: vec![integer("axis", axis as i64)],
            after,
            ..NewNode::default()
        })?;
        Ok(graph.node(node).outputs().iter().copied().flatten().collect())
    }
}
