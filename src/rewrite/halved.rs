//! Sites and spans beside guidance: their caches hold both halves of the batch, and some steps run the second alone.
//!
//! A step at which guidance is broadcast too takes the second half of a cache, and hands all of it on. One that computes a
//! site for the second half alone keeps the first half of its cache and gives it a new second half, so that each half is
//! what was computed last for it. So such a step reads the cache that it computes.

use super::build::{of_cache, of_cut};
use super::plan::CachePlan;
use super::{GuidanceChoice, RewriteError, node};
use crate::attention::{Cut, Sites};
use crate::axes::{Axes, Dimension, Factor, Label, Origin, Size};
use crate::graph::{Graph, ValueId};
use crate::onnx::messages::ValueInfoProto;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};

/// Where the batch is in a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchAxis {
    /// It is the outermost part of this axis, whose first half then belongs to the first half of the batch.
    Outermost(usize),
    /// Nowhere: both halves have the same.
    Absent,
}

impl BatchAxis {
    /// The batch, of size `batch`, in a value of these dimensions; `None` where no axis falls into its halves.
    pub fn of(dimensions: &[Dimension], batch: &Size) -> Option<BatchAxis> {
        let mut with_batch = dimensions.iter().enumerate().filter(|(_, dim)| counts(dim, batch));
        let Some((axis, dimension)) = with_batch.next() else {
            return Some(BatchAxis::Absent);
        };
        if with_batch.next().is_some() {
            return None;
        }
        // As for inputs and outputs, an axis of the batch's size is its own, whatever it counts.
        let alone = dimension.size() == *batch;
        let outermost = match dimension.factors() {
            [first, rest @ ..] => {
                first.origin == Origin::Axis(Label::Batch)
                    && first.size == *batch
                    && !rest.iter().any(|factor| is_of(factor, batch))
            }
            [] => false,
        };
        (alone || outermost).then_some(BatchAxis::Outermost(axis))
    }
}

fn counts(dimension: &Dimension, batch: &Size) -> bool {
    dimension.labels().contains(Label::Batch) || mentions(&dimension.size(), batch)
}

fn is_of(factor: &Factor, batch: &Size) -> bool {
    factor.origin == Origin::Axis(Label::Batch) || mentions(&factor.size, batch)
}

/// Whether a size has a symbol of the batch in it.
fn mentions(size: &Size, batch: &Size) -> bool {
    let mut found = false;
    batch.symbols(&mut |symbol| size.symbols(&mut |other| found |= symbol == other));
    found
}

/// Where the batch is in each value that rules could cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchAxes(HashMap<ValueId, BatchAxis>);

impl BatchAxes {
    /// Looks at the cuts of all sites, and at `others`.
    pub fn of(axes: &Axes, sites: &Sites, others: impl IntoIterator<Item = ValueId>, batch: &Size) -> BatchAxes {
        let of_sites = sites.sites.iter().flat_map(|site| {
            let cuts = std::iter::once(&site.output).chain(&site.gated);
            cuts.flat_map(|cuts| cuts.values())
        });
        let found = of_sites.chain(others).filter_map(|value| {
            let axis = BatchAxis::of(axes.dimensions(value)?, batch)?;
            Some((value, axis))
        });
        BatchAxes(found.collect())
    }

    /// The same for other values: `now` tells which took the place of one.
    pub(super) fn move_to(&mut self, now: impl Fn(ValueId) -> ValueId) {
        let moved = self.0.drain().map(|(value, axis)| (now(value), axis)).collect();
        self.0 = moved;
    }

    /// Where it is in `value`; `None` where the value does not fall into its halves.
    pub fn get(&self, value: ValueId) -> Option<BatchAxis> {
        self.0.get(&value).copied()
    }
}

/// What tells the halves of the batch apart in a model with guidance.
#[derive(Clone, Debug)]
pub(super) struct Guided {
    /// True where the model runs for the second half alone.
    pub flag: ValueId,
    pub zero: ValueId,
    pub two: ValueId,
    /// Behind the end of every axis.
    pub end: ValueId,
    /// The numbers of axes, by axis.
    axes: BTreeMap<usize, ValueId>,
    rule: String,
    batch: Size,
    batch_axes: BatchAxes,
}

impl Guided {
    /// Stores the numbers that are needed, among them those of the axes that `cuts` and the model's own inputs and outputs
    /// have their batch in.
    pub fn add<'c>(
        graph: &mut Graph,
        choice: &GuidanceChoice,
        rule: &str,
        flag: ValueId,
        cuts: impl IntoIterator<Item = &'c Cut>,
    ) -> Result<Guided, RewriteError> {
        let name = |what: &str| format!("pab.{}.{what}", choice.name);
        let halves = &choice.halves;
        let of_cuts = cuts
            .into_iter()
            .filter_map(|cut| match choice.batch_axes.get(cut.value) {
                Some(BatchAxis::Outermost(axis)) => Some(axis),
                _ => None,
            });
        let own = halves.inputs.iter().map(|(_, axis)| *axis);
        let own = own.chain(halves.outputs.iter().map(|output| output.axis));
        let mut axes = BTreeMap::new();
        for axis in own.chain(of_cuts) {
            if let Entry::Vacant(place) = axes.entry(axis) {
                place.insert(node::stored(graph, &name(&format!("axis.{axis}")), axis as i64)?);
            }
        }
        Ok(Guided {
            flag,
            zero: node::stored(graph, &name("zero"), 0)?,
            two: node::stored(graph, &name("two"), 2)?,
            end: node::stored(graph, &name("end"), i64::MAX)?,
            axes,
            rule: rule.to_owned(),
            batch: halves.batch.clone(),
            batch_axes: choice.batch_axes.clone(),
        })
    }

    /// The stored number of an axis.
    pub fn axis(&self, axis: usize) -> ValueId {
        self.axes.get(&axis).copied().unwrap_or(self.zero)
    }

    /// The axis in which the value of a cut has its halves; `None` where both have the same.
    ///
    /// # Errors
    /// [`RewriteError::GuidanceSite`] where the value does not fall into halves.
    pub fn halved(&self, site: &str, cut: &Cut) -> Result<Option<usize>, RewriteError> {
        match self.batch_axes.get(cut.value) {
            Some(BatchAxis::Outermost(axis)) => Ok(Some(axis)),
            Some(BatchAxis::Absent) => Ok(None),
            None => Err(RewriteError::GuidanceSite {
                guidance: self.rule.clone(),
                site: site.to_owned(),
                shape: format!("{:?}", cut.shape),
                batch: self.batch.to_string(),
            }),
        }
    }
}

/// A cache that holds both halves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Halved<'g> {
    guided: &'g Guided,
    axis: usize,
}

impl<'g> Halved<'g> {
    /// That of the value of a cut, in a model with guidance; `None` where nothing is halved.
    ///
    /// # Errors
    /// Those of [`Guided::halved`].
    pub fn of(guided: Option<&'g Guided>, site: &str, cut: &Cut) -> Result<Option<Halved<'g>>, RewriteError> {
        let Some(guided) = guided else { return Ok(None) };
        let axis = guided.halved(site, cut)?;
        Ok(axis.map(|axis| Halved { guided, axis }))
    }

    /// In `branch`, which belongs into `graph`: what a step broadcasts of the cache that `cached` stands for there.
    pub fn broadcast(
        &self,
        graph: &Graph,
        branch: &mut Graph,
        cached: ValueId,
        cache: &CachePlan,
    ) -> Result<ValueId, RewriteError> {
        let name = |what: &str| format!("{}.{what}", cache.input);
        let info = self.without_batch(of_cache("", cache));
        let mut second = branch.nested(&name("second_half"));
        let all = second.capture(cached, branch.value(cached).name());
        let half = self.half(graph, branch, &mut second, all, &name("broadcast"))?;
        let end = self.read(graph, branch, &mut second, self.guided.end);
        let given = self.slice(graph, branch, &mut second, [all, half, end], &name("second"))?;
        second.add_output(given, info.clone());
        let mut both = branch.nested(&name("both_halves"));
        let all = both.capture(cached, branch.value(cached).name());
        let given = node::add(&mut both, "Identity", &[all], Vec::new(), &name("both"))?;
        both.add_output(given, info);
        self.branches(graph, branch, &name("broadcast"), second, both)
    }

    /// In `branch`, which belongs into `graph`: what is cached where `value` was computed. `input` takes the cache.
    pub fn kept(
        &self,
        graph: &Graph,
        branch: &mut Graph,
        value: ValueId,
        input: ValueId,
        cache: &CachePlan,
    ) -> Result<ValueId, RewriteError> {
        let name = |what: &str| format!("{}.{what}", cache.input);
        let info = of_cache("", cache);
        let mut second = branch.nested(&name("second_half_computed"));
        let new = second.capture(value, branch.value(value).name());
        let old = self.read(graph, branch, &mut second, input);
        let half = self.half(graph, branch, &mut second, old, &name("kept"))?;
        let zero = self.read(graph, branch, &mut second, self.guided.zero);
        let first = self.slice(graph, branch, &mut second, [old, zero, half], &name("kept.first"))?;
        let axis = vec![node::integer("axis", self.axis as i64)];
        let joined = node::add(&mut second, "Concat", &[first, new], axis, &name("kept.joined"))?;
        second.add_output(joined, info.clone());
        let mut both = branch.nested(&name("both_halves_computed"));
        let new = both.capture(value, branch.value(value).name());
        let same = node::add(&mut both, "Identity", &[new], Vec::new(), &name("kept.computed"))?;
        both.add_output(same, info);
        self.branches(graph, branch, &name("kept"), second, both)
    }

    /// The type of a value that some steps have half of: its halved axis has any size.
    pub fn without_batch(&self, mut info: ValueInfoProto) -> ValueInfoProto {
        let tensor = info.r#type.as_mut().and_then(|r#type| r#type.tensor_type.as_mut());
        let shape = tensor.and_then(|tensor| tensor.shape.as_mut());
        if let Some(dim) = shape.and_then(|shape| shape.dim.get_mut(self.axis)) {
            dim.dim_value = None;
            dim.dim_param = None;
        }
        info
    }

    fn branches(
        &self,
        graph: &Graph,
        branch: &mut Graph,
        name: &str,
        second: Graph,
        both: Graph,
    ) -> Result<ValueId, RewriteError> {
        let flag = branch.capture(self.guided.flag, graph.value(self.guided.flag).name());
        let given = node::add_if(branch, flag, name, vec![name.to_owned()], second, both)?;
        // It was given one output.
        let missing = || crate::graph::GraphError::NameTaken { name: name.to_owned() };
        Ok(given.first().copied().ok_or_else(missing)?)
    }

    /// A value of `graph` in a graph inside of `branch`.
    fn read(&self, graph: &Graph, branch: &mut Graph, inner: &mut Graph, value: ValueId) -> ValueId {
        let name = graph.value(value).name();
        let between = branch.capture(value, name);
        inner.capture(between, name)
    }

    /// Half the size of a cache along its axis.
    fn half(
        &self,
        graph: &Graph,
        branch: &mut Graph,
        inner: &mut Graph,
        cache: ValueId,
        name: &str,
    ) -> Result<ValueId, RewriteError> {
        let name = |what: &str| format!("{name}.{what}");
        let axis = self.read(graph, branch, inner, self.guided.axis(self.axis));
        let two = self.read(graph, branch, inner, self.guided.two);
        let shape = node::add(inner, "Shape", &[cache], Vec::new(), &name("shape"))?;
        let along = vec![node::integer("axis", 0)];
        let size = node::add(inner, "Gather", &[shape, axis], along, &name("size"))?;
        node::add(inner, "Div", &[size, two], Vec::new(), &name("half"))
    }

    fn slice(
        &self,
        graph: &Graph,
        branch: &mut Graph,
        inner: &mut Graph,
        [value, start, end]: [ValueId; 3],
        name: &str,
    ) -> Result<ValueId, RewriteError> {
        let axis = self.read(graph, branch, inner, self.guided.axis(self.axis));
        node::add(inner, "Slice", &[value, start, end, axis], Vec::new(), name)
    }
}

/// Type of the value of a cut.
pub(super) fn of_value(cut: &Cut, halved: Option<Halved<'_>>) -> ValueInfoProto {
    let info = of_cut("", cut);
    match halved {
        Some(halved) => halved.without_batch(info),
        None => info,
    }
}
