//! The kernels of a step: what each computes and moves.

use super::extent::Extents;
use super::operator::Class;
use crate::attention::{Kind, Sites};
use crate::axes::{Axes, Bindings, Dimension};
use crate::graph::{Graph, GraphError, ModelGraph, Node, NodeId, Origin, ValueId};
use crate::onnx::messages::{DataType, TensorProto};
use crate::onnx::tensor::element_bits;
use std::collections::{HashMap, HashSet};

/// A kernel: one node, or all nodes of an attention's core.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// Its nodes.
    pub nodes: Vec<NodeId>,
    /// What its time goes by.
    pub class: Class,
    /// Operations; a multiply-add counts as two.
    pub flops: f64,
    /// Bytes of stored tensors that it reads.
    pub weight_bytes: f64,
    /// Bytes of computed values that it reads and writes.
    pub bytes: f64,
    /// Elements of its result.
    pub elements: f64,
    /// Bits of its result's elements.
    pub bits: u32,
    /// Queries and keys of an attention's core.
    pub scores: Option<(f64, f64)>,
    /// What of it can be divided among ranks.
    pub extents: Extents,
    /// The kind and heads of the attention whose core it is a part of.
    pub core: Option<(Kind, Option<i64>)>,
}

/// Why nothing can be predicted.
#[derive(Debug, thiserror::Error)]
pub enum PredictError {
    /// The nodes have no order.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// Sizes that are not known.
    #[error(
        "the sizes of {nodes} nodes are not known, the first is {first}; give every size that the model leaves open ({open}), \
         such as --size batch=2"
    )]
    OpenSizes {
        /// How many nodes.
        nodes: usize,
        /// One of them.
        first: String,
        /// The names of open sizes that were not given, or that there are none.
        open: String,
    },
}

/// All kernels of a graph, in the order in which they can run.
#[derive(Clone, Debug, PartialEq)]
pub struct Works {
    /// The kernels.
    pub works: Vec<Work>,
    /// Bytes of all stored tensors.
    pub weight_bytes: f64,
    /// The bytes of each computed value that is held in memory, what of it can be divided, and the kernels, as indices,
    /// that write it and that read it last.
    pub(super) held: Vec<Held>,
    /// Nodes that could not be counted and are left out: those of operators without an axis rule, and nested graphs.
    pub uncounted: usize,
}

/// A computed value while it is needed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Held {
    pub bytes: f64,
    pub extents: Extents,
    pub first: usize,
    pub last: usize,
}

impl Works {
    /// The kernels of a model's step where symbols have the values in `bindings`. With `fused` the core of an attention is
    /// one kernel that keeps its scores to itself.
    ///
    /// What only stored tensors go into is computed before the run, and is a stored tensor itself.
    ///
    /// # Errors
    /// [`PredictError::OpenSizes`] where sizes have no number.
    pub fn of(
        model: &ModelGraph,
        axes: &Axes,
        sites: &Sites,
        bindings: &Bindings,
        fused: bool,
    ) -> Result<Works, PredictError> {
        let graph = &model.graph;
        let order = graph.topological_order()?;
        let count = Count {
            model,
            axes,
            bindings,
            stored: stored(graph, &order),
        };
        let mut cores: HashMap<NodeId, usize> = HashMap::new();
        for (index, site) in sites
            .sites
            .iter()
            .enumerate()
            .filter(|(_, site)| site.kind != Kind::Mlp)
        {
            cores.extend(site.core.iter().map(|node| (*node, index)));
        }
        let mut works: Vec<Work> = Vec::new();
        let mut place: HashMap<NodeId, usize> = HashMap::new();
        let mut of_core: HashMap<usize, usize> = HashMap::new();
        let mut unknown: Vec<NodeId> = Vec::new();
        let mut uncounted = 0;
        for id in order {
            let node = graph.node(id);
            if node
                .outputs()
                .iter()
                .flatten()
                .all(|output| count.stored.contains(output))
            {
                continue;
            }
            if axes.is_opaque(id) || !node.bodies().is_empty() {
                uncounted += 1;
                continue;
            }
            let Some(mut work) = count.work(id) else {
                unknown.push(id);
                continue;
            };
            let core = cores.get(&id).copied();
            let site = core.and_then(|core| sites.sites.get(core));
            work.core = site.map(|site| (site.kind, site.heads));
            match core.filter(|_| fused && work.class != Class::Attention) {
                None => {
                    place.insert(id, works.len());
                    works.push(work);
                }
                Some(core) => {
                    let index = *of_core.entry(core).or_insert_with(|| {
                        works.push(Work {
                            nodes: Vec::new(),
                            ..work.clone()
                        });
                        works.len() - 1
                    });
                    place.insert(id, index);
                    if let Some(whole) = works.get_mut(index) {
                        whole.nodes.push(id);
                    }
                }
            }
        }
        if let Some(first) = unknown.first() {
            return Err(count.open_sizes(*first, unknown.len()));
        }
        for core in of_core.values() {
            if let Some(work) = works.get_mut(*core) {
                count.fuse(work);
            }
        }
        let stored_bytes = graph.initializers().filter_map(|value| count.tensor_bytes(value));
        Ok(Works {
            weight_bytes: stored_bytes.sum(),
            held: count.held(&works, &place),
            works,
            uncounted,
        })
    }

    /// Operations of a step.
    pub fn flops(&self) -> f64 {
        self.works.iter().map(|work| work.flops).sum()
    }
}

/// Values that are known before a run: stored tensors, and what is computed of them alone.
fn stored(graph: &Graph, order: &[NodeId]) -> HashSet<ValueId> {
    let mut stored: HashSet<ValueId> = graph
        .values()
        .filter(|(_, value)| value.origin() == Origin::Initializer)
        .map(|(value, _)| value)
        .collect();
    for id in order {
        let node = graph.node(*id);
        if node.reads().all(|value| stored.contains(&value)) {
            stored.extend(node.outputs().iter().flatten());
        }
    }
    stored
}

struct Count<'c> {
    model: &'c ModelGraph,
    axes: &'c Axes,
    bindings: &'c Bindings,
    stored: HashSet<ValueId>,
}

impl Count<'_> {
    fn shape(&self, value: ValueId) -> Option<&[Dimension]> {
        self.axes.dimensions(value)
    }

    fn elements(&self, value: ValueId) -> Option<f64> {
        self.shape(value)?
            .iter()
            .map(|dim| dim.size().evaluate(self.bindings).map(|size| size as f64))
            .product()
    }

    fn bits(&self, value: ValueId) -> u32 {
        let element = self.axes.element_type(value).unwrap_or(DataType::Float);
        element_bits(element).unwrap_or(32)
    }

    fn bytes(&self, value: ValueId) -> Option<f64> {
        Some(self.elements(value)? * f64::from(self.bits(value)) / 8.0)
    }

    /// Bytes of a stored tensor, by its own dimensions.
    fn tensor_bytes(&self, value: ValueId) -> Option<f64> {
        let tensor: &TensorProto = self.model.graph.value(value).initializer()?;
        let elements: f64 = tensor.dims.iter().map(|dim| *dim as f64).product();
        let element = DataType::try_from(tensor.data_type?).ok()?;
        Some(elements * f64::from(element_bits(element)?) / 8.0)
    }

    /// The value whose extents a node's work is divided by: the largest of its results.
    fn extents<'v>(&self, values: impl IntoIterator<Item = &'v ValueId>) -> Extents {
        let sized = values
            .into_iter()
            .filter_map(|value| Some((self.elements(*value)?, *value)));
        let largest = sized.max_by(|one, other| one.0.total_cmp(&other.0));
        let shape = largest.and_then(|(_, value)| self.shape(value));
        shape.map_or(Extents::NONE, |shape| Extents::of(shape, self.bindings))
    }

    /// One node by itself.
    fn work(&self, id: NodeId) -> Option<Work> {
        let node = self.model.graph.node(id);
        let outputs: Vec<ValueId> = node.outputs().iter().flatten().copied().collect();
        // Sizes are computed beside the device, and cost nothing that counts.
        let class = match outputs.iter().any(|output| self.axes.integers(*output).is_some()) {
            true => Class::View,
            false => Class::of(node.operator()),
        };
        let mut work = Work {
            nodes: vec![id],
            class,
            flops: 0.0,
            weight_bytes: 0.0,
            bytes: 0.0,
            elements: 0.0,
            bits: outputs.first().map_or(32, |value| self.bits(*value)),
            scores: None,
            extents: self.extents(&outputs),
            core: None,
        };
        if class == Class::View {
            return Some(work);
        }
        let written: f64 = outputs.iter().map(|value| self.bytes(*value)).sum::<Option<f64>>()?;
        work.elements = self.elements(*outputs.first()?)?;
        work.flops = self.axes.flops(self.model, id, self.bindings)?;
        if class == Class::Movement {
            // As much is read as is written, whatever it is a part of.
            work.bytes = 2.0 * written;
            return Some(work);
        }
        work.bytes = written;
        for input in unique(node) {
            let bytes = self.bytes(input)?;
            match self.stored.contains(&input) {
                true => work.weight_bytes += bytes,
                false => work.bytes += bytes,
            }
        }
        if class == Class::Attention {
            work.scores = self
                .tokens(node.input(0)?)
                .zip(self.tokens(node.input(1).or(node.input(0))?));
        }
        Some(work)
    }

    /// The tokens of queries or keys of an attention operator: the axis before the last of `[.., tokens, channels]`; of
    /// packed ones that come by heads, the second.
    fn tokens(&self, value: ValueId) -> Option<f64> {
        let shape = self.shape(value)?;
        let place = match shape.len() {
            5 => 1,
            rank => rank.checked_sub(2)?,
        };
        shape.get(place)?.size().evaluate(self.bindings).map(|size| size as f64)
    }

    /// Turns the nodes of a core into one kernel: what comes from outside is read, what is read outside is written.
    fn fuse(&self, work: &mut Work) {
        let graph = &self.model.graph;
        let within: HashSet<NodeId> = work.nodes.iter().copied().collect();
        let mut read: HashSet<ValueId> = HashSet::new();
        let mut written: HashSet<ValueId> = HashSet::new();
        let mut largest_scores = 0.0;
        (work.flops, work.weight_bytes, work.bytes) = (0.0, 0.0, 0.0);
        for id in &work.nodes {
            let node = graph.node(*id);
            // The softmax is hidden behind the products.
            if Class::of(node.operator()) == Class::Product {
                work.flops += self.axes.flops(self.model, *id, self.bindings).unwrap_or(0.0);
            }
            if node.is("Softmax")
                && let Some(scores) = node.output(0)
                && let Some([.., queries, keys]) = self.shape(scores)
            {
                let number = |dim: &Dimension| dim.size().evaluate(self.bindings).map(|size| size as f64);
                work.scores = number(queries).zip(number(keys));
                largest_scores = self.elements(scores).unwrap_or(0.0);
            }
            let outside = |value: &ValueId| graph.producer(*value).is_none_or(|(id, _)| !within.contains(&id));
            read.extend(unique(node).into_iter().filter(outside));
            for output in node.outputs().iter().flatten() {
                let value = graph.value(*output);
                if value.is_output() || value.uses().iter().any(|usage| !within.contains(&usage.node)) {
                    written.insert(*output);
                }
            }
        }
        for value in read {
            let bytes = self.bytes(value).unwrap_or(0.0);
            match self.stored.contains(&value) {
                true => work.weight_bytes += bytes,
                false => work.bytes += bytes,
            }
        }
        work.bytes += written.iter().filter_map(|value| self.bytes(*value)).sum::<f64>();
        work.elements = written.iter().filter_map(|value| self.elements(*value)).sum();
        work.extents = self.extents(&written);
        work.class = match largest_scores > 0.0 {
            true => Class::Attention,
            // Linear attention has no scores: its products are products.
            false => Class::Product,
        };
    }

    /// Every computed value that is held, from its kernel to the last that reads it, also as a view.
    fn held(&self, works: &[Work], place: &HashMap<NodeId, usize>) -> Vec<Held> {
        let graph = &self.model.graph;
        let mut root: HashMap<ValueId, usize> = HashMap::new();
        let mut held: Vec<Held> = Vec::new();
        for (index, work) in works.iter().enumerate() {
            for id in &work.nodes {
                let node = graph.node(*id);
                for value in node.reads() {
                    if let Some(held) = root.get(&value).and_then(|root| held.get_mut(*root)) {
                        held.last = held.last.max(index);
                    }
                }
                let source = node.input(0).and_then(|value| root.get(&value)).copied();
                for output in node.outputs().iter().flatten() {
                    if let Some(source) = source.filter(|_| work.class == Class::View) {
                        root.insert(*output, source);
                        continue;
                    }
                    let value = graph.value(*output);
                    let outside = |other: &NodeId| place.get(other) != Some(&index);
                    let kept = value.is_output() || value.uses().iter().any(|usage| outside(&usage.node));
                    if work.class == Class::View || !kept {
                        continue;
                    }
                    root.insert(*output, held.len());
                    held.push(Held {
                        bytes: self.bytes(*output).unwrap_or(0.0),
                        extents: self.extents([output]),
                        first: index,
                        last: index,
                    });
                }
            }
        }
        for output in graph.outputs() {
            if let Some(held) = root.get(&output).and_then(|root| held.get_mut(*root)) {
                held.last = works.len();
            }
        }
        held
    }

    fn open_sizes(&self, first: NodeId, nodes: usize) -> PredictError {
        let node = self.model.graph.node(first);
        let open: Vec<&str> = self
            .axes
            .symbols()
            .filter(|name| self.bindings.get(name).is_none())
            .collect();
        PredictError::OpenSizes {
            nodes,
            first: match node.name() {
                "" => format!("a {}", node.operator()),
                name => format!("{} `{name}`", node.operator()),
            },
            open: match open.is_empty() {
                true => "it leaves none open".to_owned(),
                false => open.join(", "),
            },
        }
    }
}

/// Every value that a node reads, each once.
fn unique(node: &Node) -> Vec<ValueId> {
    let mut values: Vec<ValueId> = node.reads().collect();
    values.sort_unstable();
    values.dedup();
    values
}
