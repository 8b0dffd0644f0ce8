//! The graph of one rank: its own numbers and its own part of the weights.

use super::Split;
use super::sizes::{LocalSize, stored};
use crate::attention::{Site, Sites};
use crate::axes::Size;
use crate::graph::{Graph, ModelGraph, NodeId, ValueId};
use crate::onnx::messages::TensorProto;
use crate::onnx::tensor::{element_bits, element_type};
use crate::rewrite::Wide;
use crate::shard::{DOMAIN, Group, Mesh, ShardError, part};
use bytes::{Bytes, BytesMut};

/// What one rank runs.
#[derive(Clone, Debug)]
pub struct RankGraph {
    /// The rank.
    pub rank: usize,
    /// Its graph.
    pub model: ModelGraph,
    /// The sites in it, with the sizes that it has.
    pub sites: Sites,
    /// The same of what rules leave out beside sites.
    pub wide: Wide,
}

impl LocalSize {
    /// The size at `rank`, where it does not depend on the inputs.
    pub fn at(&self, mesh: &Mesh, rank: usize, whole: &Size) -> Option<i64> {
        let whole = usize::try_from(whole.as_number()?).ok()?;
        let range = part(whole, mesh.along(self.group), mesh.place(self.group, rank));
        i64::try_from(range.len()).ok()
    }
}

/// The sizes of a rank: a number for each symbol of [`Split::locals`] that does not depend on the inputs.
pub(super) struct Numbers(Vec<(String, i64)>);

impl Numbers {
    fn of(split: &Split, rank: usize) -> Numbers {
        let mut numbers = Numbers(Vec::new());
        for local in &split.locals {
            let whole = local.whole.substitute(&|symbol| numbers.known(symbol));
            if let Some(number) = local.at(&split.mesh, rank, &whole) {
                numbers.0.push((local.symbol.clone(), number));
            }
        }
        numbers
    }

    fn known(&self, symbol: &str) -> Option<Size> {
        let found = self.0.iter().find(|(known, _)| known == symbol);
        found.map(|(_, number)| Size::number(*number))
    }

    /// Writes them into sizes.
    pub fn write(&self, sizes: &mut [Size]) {
        for size in sizes {
            *size = size.substitute(&|symbol| self.known(symbol));
        }
    }
}

impl Split {
    /// The graph of `rank`.
    ///
    /// # Errors
    /// [`ShardError::Rank`] where the mesh has no such rank.
    pub fn at_rank(&self, rank: usize) -> Result<RankGraph, ShardError> {
        let ranks = self.mesh.ranks().unwrap_or(0);
        if rank >= ranks {
            return Err(ShardError::Rank { rank, ranks });
        }
        let mut model = self.model.clone();
        let numbers = Numbers::of(self, rank);
        for (symbol, number) in &numbers.0 {
            let Some(value) = model.graph.find(symbol) else {
                continue;
            };
            let constant = model
                .graph
                .add_initializer(stored(&format!("{symbol}.rank"), &[*number]))?;
            model.graph.replace_uses(value, constant);
        }
        take_parts(&mut model, &self.mesh, rank)?;
        if let Some(latents) = &self.latents {
            latents.declare(&mut model, &self.mesh, rank);
        }
        model.graph.eliminate_dead_code();
        let mut sites = self.sites.clone();
        let cuts = sites.sites.iter_mut().flat_map(Site::cuts_mut);
        cuts.for_each(|cut| numbers.write(&mut cut.shape));
        let wide = super::wide::at_rank(&self.wide, &model.graph, &numbers);
        Ok(RankGraph {
            rank,
            model,
            sites,
            wide,
        })
    }
}

/// Weights of which the rank needs a part only: the part takes their place.
fn take_parts(model: &mut ModelGraph, mesh: &Mesh, rank: usize) -> Result<(), ShardError> {
    let slices: Vec<NodeId> = model
        .graph
        .nodes()
        .filter(|(_, node)| node.domain() == DOMAIN && node.operator() == "ShardSlice")
        .map(|(id, _)| id)
        .collect();
    for id in slices {
        let Some((tensor, output)) = stored_part(model, id, mesh, rank) else {
            continue;
        };
        let name = format!("{}.rank", model.graph.value(output).name());
        let part = model.graph.add_initializer(TensorProto {
            name: Some(name),
            ..tensor
        })?;
        model.graph.replace_uses(output, part);
    }
    Ok(())
}

/// The rank's part of the weight that node `id` slices, and the node's output; `None` where it slices something else.
fn stored_part(model: &ModelGraph, id: NodeId, mesh: &Mesh, rank: usize) -> Option<(TensorProto, ValueId)> {
    let node = model.graph.node(id);
    let word = node.text("group")?;
    let group = Group::ALL.into_iter().find(|group| group.name() == word)?;
    let axis = usize::try_from(node.int("axis", 0)).ok()?;
    let (tensor, dims) = laid_out(model, node.input(0)?)?;
    let size = usize::try_from(*dims.get(axis)?).ok()?;
    let range = part(size, mesh.along(group), mesh.place(group, rank));
    let count = |dims: &[i64]| {
        dims.iter()
            .try_fold(1usize, |product, dim| product.checked_mul(usize::try_from(*dim).ok()?))
    };
    let (rows, inner) = (count(dims.get(..axis)?)?, count(dims.get(axis + 1..)?)?);
    let bits = element_bits(element_type(tensor).ok()?)?;
    if bits % 8 != 0 {
        return None;
    }
    let row = inner.checked_mul(bits as usize / 8)?;
    let bytes = model.weights().bytes(tensor).ok()?;
    let whole = row.checked_mul(size)?;
    if bytes.len() != whole.checked_mul(rows)? {
        return None;
    }
    let cut = |place: usize| place * whole + range.start * row..place * whole + range.end * row;
    let raw: Bytes = match rows {
        // A run of rows stays where it is.
        1 => bytes.slice(cut(0)),
        _ => {
            let mut parts = BytesMut::with_capacity(rows * range.len() * row);
            for place in 0..rows {
                parts.extend_from_slice(bytes.get(cut(place))?);
            }
            parts.freeze()
        }
    };
    let mut dims = dims;
    *dims.get_mut(axis)? = i64::try_from(range.len()).ok()?;
    let part = TensorProto {
        dims,
        data_type: tensor.data_type,
        raw_data: Some(raw),
        ..TensorProto::default()
    };
    Some((part, node.output(0)?))
}

/// A stored tensor, and the layout in which `value` has it.
fn laid_out(model: &ModelGraph, value: ValueId) -> Option<(&TensorProto, Vec<i64>)> {
    let graph: &Graph = &model.graph;
    if let Some(tensor) = graph.constant(value) {
        return Some((tensor, tensor.dims.clone()));
    }
    let (_, node) = graph.producer(value).filter(|(_, node)| node.is("Reshape"))?;
    let tensor = graph.constant(node.input(0)?)?;
    let target = graph.constant(node.input(1)?)?;
    let dims = model.weights().integers(target).ok()?;
    // Written by a split: every size stands there.
    dims.iter().all(|dim| *dim > 0).then_some((tensor, dims))
}
