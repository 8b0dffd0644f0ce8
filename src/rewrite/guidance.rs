//! Guidance: at steps that broadcast, the model runs for the prompt alone.
//!
//! Under classifier-free guidance the batch is the sample twice, first without the prompt and then with it. The
//! difference between the two outputs changes slowly, so that the first can be had from the second
//! ([FasterCache](https://arxiv.org/abs/2410.19355) goes by this idea). The model's nodes stand once: only its inputs and
//! outputs pass small `If`s, which take the second half of each input, and give the difference that was computed last
//! back to the output.

use super::build::{Build, of_cache};
use super::halved::Guided;
use super::plan::{CachePlan, CacheRole, PlanSize, can_be_cached};
use super::{GuidanceChoice, RewriteError, SwitchOptions, node};
use crate::axes::{Axes, Label, Labels, Size};
use crate::graph::{Graph, ModelGraph, ValueId};
use crate::onnx::messages::{DataType, ValueInfoProto};
use std::iter::zip;

/// The inputs and outputs of a model that have both halves of the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Halves {
    /// The size of the batch, a symbol.
    pub batch: Size,
    /// Inputs, each with the axis of its batch; at least one.
    pub inputs: Vec<(ValueId, usize)>,
    /// Outputs; at least one.
    pub outputs: Vec<HalvedOutput>,
}

/// An output with both halves of the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HalvedOutput {
    /// The value.
    pub value: ValueId,
    /// The output's name, which stays where a span gives another value there.
    pub name: String,
    /// The axis of its batch.
    pub axis: usize,
    /// Its element type.
    pub element_type: DataType,
    /// The sizes of one half of it.
    pub half: Vec<Size>,
}

/// Why the batch of a model cannot be halved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuidanceError {
    /// The batch is a number.
    #[error(
        "input `{input}` has a batch of {batch}, so that the model cannot run half of it; export the model with a dynamic \
         batch"
    )]
    StaticBatch {
        /// The input.
        input: String,
        /// Its batch.
        batch: i64,
    },
    /// No input counts a batch.
    #[error("no input of the model has an axis `batch`; say what the inputs' axes count with --axes")]
    NoBatch,
    /// The inputs do not have one batch.
    #[error("the inputs have different batches ({one} and {other}); export the model with one dynamic batch for all")]
    SeveralBatches {
        /// The one.
        one: String,
        /// The other.
        other: String,
    },
    /// An output has no axis of the batch's size.
    #[error(
        "output `{output}` is {shape}, without an axis of the batch {batch} by itself; export the model with a dynamic batch"
    )]
    Output {
        /// The output.
        output: String,
        /// Its shape, as far as it is known.
        shape: String,
        /// The batch.
        batch: String,
    },
    /// An output is an input or a stored tensor.
    #[error("output `{output}` is not computed by the model; nothing can be saved there")]
    NotComputed {
        /// The output.
        output: String,
    },
    /// The operator set has no `Slice` with computed ends.
    #[error("the model has operator set {0}, and halving the batch needs 10; export the model with a newer one")]
    Opset(i64),
}

impl Halves {
    /// Finds the batch in the inputs and outputs of a model.
    ///
    /// # Errors
    /// [`GuidanceError`] where the model cannot run half of its batch.
    pub fn find(model: &ModelGraph, axes: &Axes) -> Result<Halves, GuidanceError> {
        const FIRST_WITH_COMPUTED_SLICES: i64 = 10;
        if let Some(opset) = model.opset("").filter(|opset| *opset < FIRST_WITH_COMPUTED_SLICES) {
            return Err(GuidanceError::Opset(opset));
        }
        let graph = &model.graph;
        let batch = batch(graph, axes)?;
        let axis_of = |value: ValueId| axes.sizes(value)?.iter().position(|size| *size == batch);
        let inputs = own_inputs(graph).filter_map(|input| Some((input, axis_of(input)?)));
        let inputs: Vec<(ValueId, usize)> = inputs.collect();
        let mut outputs: Vec<HalvedOutput> = Vec::new();
        for value in graph.outputs() {
            let name = || graph.value(value).name().to_owned();
            if graph.producer(value).is_none() {
                return Err(GuidanceError::NotComputed { output: name() });
            }
            let sizes = axes.sizes(value).unwrap_or_default();
            let refuse = || GuidanceError::Output {
                output: name(),
                shape: format!("{sizes:?}"),
                batch: batch.to_string(),
            };
            let axis = axis_of(value).ok_or_else(refuse)?;
            let element_type = axes.element_type(value).ok_or_else(refuse)?;
            let mut half = sizes.clone();
            if let Some(size) = half.get_mut(axis) {
                *size = batch.divide_down(&Size::number(2));
            }
            if half.iter().any(Size::has_unknown) {
                return Err(refuse());
            }
            if !outputs.iter().any(|output| output.value == value) {
                outputs.push(HalvedOutput {
                    value,
                    name: name(),
                    axis,
                    element_type,
                    half,
                });
            }
        }
        match outputs.is_empty() {
            true => Err(GuidanceError::NoBatch),
            false => Ok(Halves { batch, inputs, outputs }),
        }
    }
}

/// Inputs that the caller gives: old files list stored tensors among them.
fn own_inputs(graph: &Graph) -> impl Iterator<Item = ValueId> + '_ {
    let given = |value: &ValueId| graph.value(*value).initializer().is_none();
    graph.inputs().filter(given)
}

/// The symbolic size of the batch.
fn batch(graph: &Graph, axes: &Axes) -> Result<Size, GuidanceError> {
    let mut found: Option<Size> = None;
    for input in own_inputs(graph) {
        let dims = axes.dimensions(input).unwrap_or_default();
        let counted = dims.iter().filter(|dim| dim.labels() == Labels::of([Label::Batch]));
        for size in counted.map(crate::axes::Dimension::size) {
            if let Some(batch) = size.as_number() {
                return Err(GuidanceError::StaticBatch {
                    input: graph.value(input).name().to_owned(),
                    batch,
                });
            }
            match &found {
                Some(other) if *other != size => {
                    return Err(GuidanceError::SeveralBatches {
                        one: other.to_string(),
                        other: size.to_string(),
                    });
                }
                _ => found = Some(size),
            }
        }
    }
    found.ok_or(GuidanceError::NoBatch)
}

/// A cache for each output: the first half less the second.
pub(super) fn caches_of(choice: &GuidanceChoice, options: &SwitchOptions) -> Result<Vec<CachePlan>, RewriteError> {
    let outputs = &choice.halves.outputs;
    let caches = outputs.iter().map(|output| {
        if !can_be_cached(output.element_type) {
            return Err(RewriteError::ElementType {
                site: choice.name.clone(),
                element_type: format!("{:?}", output.element_type),
            });
        }
        let input = match outputs.len() {
            1 => format!("pab.cache.{}", choice.name),
            _ => format!("pab.cache.{}.{}", choice.name, output.name),
        };
        Ok(CachePlan {
            output: format!("{input}.next"),
            input,
            element_type: options.element_type(output.element_type),
            shape: output.half.iter().map(PlanSize::from).collect(),
            role: CacheRole::Guidance,
            in_place: true,
        })
    });
    caches.collect()
}

/// Where the batch of the inputs is parted.
struct Numbers {
    /// Half of the batch, rounded down.
    half: ValueId,
    /// Where the second half begins.
    rest: ValueId,
}

/// Lets inputs and outputs pass `If`s on the flag of `guided`.
pub(super) fn wrap(
    graph: &mut Graph,
    choice: &GuidanceChoice,
    guided: &Guided,
    caches: &[CachePlan],
    cached: &[ValueId],
) -> Result<(), RewriteError> {
    let numbers = numbers(graph, choice, guided)?;
    for (input, axis) in &choice.halves.inputs {
        halve_input(graph, choice, guided, *input, *axis, &numbers)?;
    }
    complete_outputs(graph, choice, guided, caches, cached, &numbers)
}

fn numbers(graph: &mut Graph, choice: &GuidanceChoice, guided: &Guided) -> Result<Numbers, RewriteError> {
    let name = |what: &str| format!("pab.{}.{what}", choice.name);
    let first = choice.halves.inputs.first().copied();
    let (input, axis) = first.ok_or_else(|| RewriteError::NoSuchRule {
        site: choice.name.clone(),
        rule: choice.rule,
    })?;
    let shape = node::add(graph, "Shape", &[input], Vec::new(), &name("shape"))?;
    let axis = guided.axis(axis);
    let batch = node::add(
        graph,
        "Gather",
        &[shape, axis],
        vec![node::integer("axis", 0)],
        &name("batch"),
    )?;
    let half = node::add(graph, "Div", &[batch, guided.two], Vec::new(), &name("half"))?;
    let rest = node::add(graph, "Sub", &[batch, half], Vec::new(), &name("rest"))?;
    Ok(Numbers { half, rest })
}

/// In a branch: `value` from `start` to `end` along `axis`, all of which but `value` stand outside.
fn slice(
    graph: &Graph,
    branch: &mut Graph,
    value: ValueId,
    [start, end, axis]: [ValueId; 3],
    name: &str,
) -> Result<ValueId, RewriteError> {
    let mut inputs = vec![value];
    for outer in [start, end, axis] {
        inputs.push(branch.capture(outer, graph.value(outer).name()));
    }
    node::add(branch, "Slice", &inputs, Vec::new(), name)
}

/// Lets all readers of an input read its second half where the flag says so.
fn halve_input(
    graph: &mut Graph,
    choice: &GuidanceChoice,
    guided: &Guided,
    input: ValueId,
    axis: usize,
    numbers: &Numbers,
) -> Result<(), RewriteError> {
    let own = graph.value(input).name().to_owned();
    // The size of the batch is read off the whole input.
    let shape = format!("pab.{}.shape", choice.name);
    let reader = graph.find(&shape).and_then(|shape| Some(graph.producer(shape)?.0));
    let name = format!("pab.{}.input.{own}", choice.name);
    // The `If` reads the input, so its readers wait at a node in between until it is there.
    let between = node::add(graph, "Identity", &[input], Vec::new(), &format!("{name}.all"))?;
    graph.replace_uses(input, between);
    for reader in graph.producer(between).map(|(id, _)| id).into_iter().chain(reader) {
        if graph.node(reader).input(0) == Some(between) {
            graph.set_input(reader, 0, input);
        }
    }
    let info = ValueInfoProto {
        r#type: graph.value_type(input).cloned().map(without_batch(axis)),
        ..ValueInfoProto::default()
    };
    let mut broadcast = graph.nested(&format!("{name}.broadcast"));
    let whole = broadcast.capture(input, &own);
    let along = guided.axis(axis);
    let second = slice(
        graph,
        &mut broadcast,
        whole,
        [numbers.rest, guided.end, along],
        &format!("{name}.second"),
    )?;
    broadcast.add_output(second, info.clone());
    let mut compute = graph.nested(&format!("{name}.compute"));
    let whole = compute.capture(input, &own);
    let same = node::add(&mut compute, "Identity", &[whole], Vec::new(), &format!("{name}.same"))?;
    compute.add_output(same, info);
    let given = node::add_if(graph, guided.flag, &name, vec![name.clone()], broadcast, compute)?;
    if let Some(given) = given.first() {
        let waiting = graph.producer(between).map(|(id, _)| id);
        graph.replace_uses(between, *given);
        if let Some(waiting) = waiting {
            graph.remove_node(waiting);
        }
    }
    Ok(())
}

/// A type whose axis `axis` has any size.
fn without_batch(axis: usize) -> impl Fn(crate::onnx::messages::TypeProto) -> crate::onnx::messages::TypeProto {
    move |mut r#type| {
        let shape = r#type.tensor_type.as_mut().and_then(|tensor| tensor.shape.as_mut());
        if let Some(dim) = shape.and_then(|shape| shape.dim.get_mut(axis)) {
            dim.dim_value = None;
            dim.dim_param = None;
        }
        r#type
    }
}

/// Gives each output both halves, also where the model ran for the second alone.
fn complete_outputs(
    graph: &mut Graph,
    choice: &GuidanceChoice,
    guided: &Guided,
    caches: &[CachePlan],
    cached: &[ValueId],
    numbers: &Numbers,
) -> Result<(), RewriteError> {
    let name = format!("pab.{}", choice.name);
    let outputs = &choice.halves.outputs;
    let mut names = Vec::with_capacity(2 * outputs.len());
    let mut broadcast = graph.nested(&format!("{name}.broadcast"));
    let mut compute = graph.nested(&format!("{name}.compute"));
    let mut kept = Vec::with_capacity(outputs.len());
    let mut values = Vec::with_capacity(outputs.len());
    for ((output, cache), input) in zip(zip(outputs, caches), cached) {
        let own = output.name.clone();
        // A span may give another value there by now.
        let value = graph.find(&own).unwrap_or(output.value);
        let info = ValueInfoProto {
            r#type: graph.value_type(value).cloned(),
            ..ValueInfoProto::default()
        };
        // The output of the model keeps its name.
        let computed = format!("{name}.computed.{own}");
        graph.rename(value, &computed)?;
        let name = |what: &str| format!("{}.{what}", cache.input);
        let along = guided.axis(output.axis);
        let second = broadcast.capture(value, &computed);
        let difference = broadcast.capture(*input, &cache.input);
        let added = match output.element_type != cache.element_type {
            true => Build::new(&mut broadcast).cast(difference, output.element_type, &name("widened"))?,
            false => difference,
        };
        let first = node::add(&mut broadcast, "Add", &[second, added], Vec::new(), &name("first"))?;
        let axis = vec![node::integer("axis", output.axis as i64)];
        let both = node::add(&mut broadcast, "Concat", &[first, second], axis, &name("both"))?;
        broadcast.add_output(both, info.clone());
        let all = compute.capture(value, &computed);
        let same = node::add(&mut compute, "Identity", &[all], Vec::new(), &name("same"))?;
        compute.add_output(same, info);
        names.push(own);
        kept.push((difference, all, along, output, cache));
        values.push(value);
    }
    for (difference, all, along, output, cache) in kept {
        let name = |what: &str| format!("{}.{what}", cache.input);
        let reuse = node::add(&mut broadcast, "Identity", &[difference], Vec::new(), &name("reuse"))?;
        broadcast.add_output(reuse, of_cache("", cache));
        let first = slice(
            graph,
            &mut compute,
            all,
            [guided.zero, numbers.half, along],
            &name("without"),
        )?;
        let second = slice(
            graph,
            &mut compute,
            all,
            [numbers.rest, guided.end, along],
            &name("with"),
        )?;
        let difference = node::add(&mut compute, "Sub", &[first, second], Vec::new(), &name("difference"))?;
        let difference = match output.element_type != cache.element_type {
            true => Build::new(&mut compute).cast(difference, cache.element_type, &name("narrowed"))?,
            false => difference,
        };
        compute.add_output(difference, of_cache("", cache));
        names.push(cache.output.clone());
    }
    let given = node::add_if(graph, guided.flag, &name, names, broadcast, compute)?;
    for (value, given) in zip(values, &given) {
        graph.replace_output(value, *given);
    }
    for (cache, given) in zip(caches, given.iter().skip(outputs.len())) {
        graph.add_output(*given, of_cache("", cache));
    }
    Ok(())
}
