//! Spans: blocks inside an `If`, of which what they add to the residual stream is cached.
//!
//! The branch that computes holds the nodes of the span as they are, and takes the stream before it from the stream
//! behind it. The branch that broadcasts adds that difference to the stream as it comes. Neither reads what it writes, so
//! a cache can be written in place; but beside guidance (`halved.rs`), and where the difference is forecast (`forecast.rs`).

use super::build::{Build, of_cache};
use super::forecast::{Shared, Site};
use super::halved::{Guided, Halved, of_value};
use super::plan::{CachePlan, CacheRole, PlanSize, can_be_cached};
use super::switch::DIFFERENCES;
use super::{RewriteError, SpanChoice, SwitchOptions, node};
use crate::attention::{Part, SpanEntry, SpanStream};
use crate::graph::{Graph, NewNode, ValueId};
use crate::onnx::messages::AttributeProto;
use std::iter::zip;

/// A cache for each stream of a span, and of a forecast one for each of its finite differences behind it.
pub(super) fn caches_of(
    choice: &SpanChoice,
    guided: Option<&Guided>,
    options: &SwitchOptions,
) -> Result<Vec<CachePlan>, RewriteError> {
    let mut caches = Vec::with_capacity(choice.span.streams.len() * (1 + choice.differences));
    for stream in &choice.span.streams {
        let input = match stream.exit.part {
            Part::Whole => format!("pab.cache.{}", choice.name),
            part => format!("pab.cache.{}.{part}", choice.name),
        };
        if !can_be_cached(stream.exit.element_type) {
            return Err(RewriteError::ElementType {
                site: choice.name.clone(),
                element_type: format!("{:?}", stream.exit.element_type),
            });
        }
        let halved = Halved::of(guided, &choice.name, &stream.exit)?;
        let differences = DIFFERENCES.into_iter().take(choice.differences);
        for (role, ending) in std::iter::once((CacheRole::Residual, "")).chain(differences) {
            let input = format!("{input}{ending}");
            caches.push(CachePlan {
                output: format!("{input}.next"),
                input,
                element_type: options.element_type(stream.exit.element_type),
                shape: stream.exit.shape.iter().map(PlanSize::from).collect(),
                role,
                in_place: halved.is_none() && choice.differences == 0,
            });
        }
    }
    Ok(caches)
}

/// Puts the span into an `If` on `flag`: its outputs are the streams behind it, then the caches. `shared` is what the values
/// of the rule share where it forecasts.
#[allow(clippy::too_many_arguments)]
pub(super) fn wrap(
    graph: &mut Graph,
    choice: &SpanChoice,
    flag: ValueId,
    caches: &[CachePlan],
    inputs: &[ValueId],
    guided: Option<&Guided>,
    shared: Option<&Shared>,
) -> Result<(), RewriteError> {
    let name = &choice.name;
    let streams = &choice.span.streams;
    // Those of a stream stand side by side: the difference, and how that changed.
    let each = 1 + choice.differences;
    let after = choice.span.nodes.last().map(|node| graph.position(*node));
    let value_names: Vec<String> = caches
        .iter()
        .step_by(each)
        .map(|cache| cache.input.replacen("pab.cache.", "pab.value.", 1))
        .collect();
    let mut outputs = Vec::with_capacity(2 * streams.len());
    for (stream, value) in zip(streams, &value_names) {
        let exit = graph.value(stream.exit.value);
        // An output of the model keeps its name.
        if exit.is_output() {
            let own = exit.name().to_owned();
            graph.rename(stream.exit.value, &format!("{value}.computed"))?;
            outputs.push(own);
        } else {
            outputs.push(value.clone());
        }
    }
    let halved = streams.iter().map(|stream| Halved::of(guided, name, &stream.exit));
    let halved: Vec<Option<Halved<'_>>> = halved.collect::<Result<_, _>>()?;
    let joins: Vec<Option<Join>> = streams.iter().map(|stream| Join::of(graph, stream)).collect();
    let exits: Vec<_> = zip(streams, &halved)
        .map(|(stream, halved)| (stream.exit.value, of_value(&stream.exit, *halved)))
        .collect();
    // An output stays one until the `If` takes its place.
    let mut compute = graph.extract(&choice.span.nodes, &exits, &format!("pab.compute.{name}"))?;
    let computed: Vec<ValueId> = compute.outputs().collect();
    let mut broadcast = graph.nested(&format!("pab.broadcast.{name}"));
    let mut kept = Vec::with_capacity(caches.len());
    let of_streams = zip(zip(streams, &joins), zip(caches.chunks(each), &halved));
    let of_streams = of_streams.zip(zip(inputs.chunks(each), computed));
    for (((stream, join), (caches, halved)), (inputs, behind)) in of_streams {
        let ([cache, ..], [input, ..]) = (caches, inputs) else {
            continue;
        };
        let before = entry(
            graph,
            &mut compute,
            stream,
            join.as_ref(),
            &format!("{}.computed.before", cache.input),
        )?;
        let residual = node::add(
            &mut compute,
            "Sub",
            &[behind, before],
            Vec::new(),
            &format!("{}.residual", cache.input),
        )?;
        let before = entry(
            graph,
            &mut broadcast,
            stream,
            join.as_ref(),
            &format!("{}.before", cache.input),
        )?;
        if let Some(shared) = shared {
            let site = Site {
                element_type: stream.exit.element_type,
                caches,
                inputs,
                shared,
            };
            for (fresh, cache) in zip(site.fresh(&mut compute, residual)?, caches) {
                compute.add_output(fresh, of_cache("", cache));
            }
            let predicted = site.predicted(&mut broadcast)?;
            let name = format!("{}.added", cache.input);
            let sum = node::add(&mut broadcast, "Add", &[before, predicted], Vec::new(), &name)?;
            broadcast.add_output(sum, of_value(&stream.exit, *halved));
            kept.extend(zip(site.kept(&mut broadcast)?, caches));
            continue;
        }
        let narrowed = stream.exit.element_type != cache.element_type;
        let residual = match narrowed {
            true => {
                let name = format!("{}.narrowed", cache.input);
                Build::new(&mut compute).cast(residual, cache.element_type, &name)?
            }
            false => residual,
        };
        let residual = match halved {
            Some(halved) => halved.kept(graph, &mut compute, residual, *input, cache)?,
            None => residual,
        };
        compute.add_output(residual, of_cache("", cache));
        let cached = broadcast.capture(*input, &cache.input);
        let part = match halved {
            Some(halved) => halved.broadcast(graph, &mut broadcast, cached, cache)?,
            None => cached,
        };
        let added = match narrowed {
            true => {
                let name = format!("{}.widened", cache.input);
                Build::new(&mut broadcast).cast(part, stream.exit.element_type, &name)?
            }
            false => part,
        };
        let sum = node::add(
            &mut broadcast,
            "Add",
            &[before, added],
            Vec::new(),
            &format!("{}.added", cache.input),
        )?;
        broadcast.add_output(sum, of_value(&stream.exit, *halved));
        let name = format!("{}.reuse", cache.input);
        kept.push((
            node::add(&mut broadcast, "Identity", &[cached], Vec::new(), &name)?,
            cache,
        ));
    }
    for (same, cache) in kept {
        broadcast.add_output(same, of_cache("", cache));
    }
    outputs.extend(caches.iter().map(|cache| cache.output.clone()));
    let switch = graph.add_node(NewNode {
        operator: "If".to_owned(),
        name: format!("pab.{name}"),
        inputs: vec![Some(flag)],
        outputs,
        bodies: vec![
            ("then_branch".to_owned(), broadcast),
            ("else_branch".to_owned(), compute),
        ],
        after,
        ..NewNode::default()
    })?;
    let outputs: Vec<ValueId> = graph.node(switch).outputs().iter().flatten().copied().collect();
    for (stream, output) in zip(streams, &outputs) {
        graph.replace_uses(stream.exit.value, *output);
    }
    for (cache, output) in zip(caches, outputs.iter().skip(streams.len())) {
        graph.add_output(*output, of_cache("", cache));
    }
    Ok(())
}

/// How the `Concat` of a span puts streams together.
struct Join {
    attributes: Vec<AttributeProto>,
}

impl Join {
    fn of(graph: &Graph, stream: &SpanStream) -> Option<Join> {
        match &stream.entry {
            SpanEntry::Value(_) => None,
            SpanEntry::Joined { concat, .. } => Some(Join {
                attributes: graph.node(*concat).attributes().to_vec(),
            }),
        }
    }
}

/// The stream before the span, in one of the branches. Parts are put together as the span does.
fn entry(
    graph: &Graph,
    branch: &mut Graph,
    stream: &SpanStream,
    join: Option<&Join>,
    name: &str,
) -> Result<ValueId, RewriteError> {
    let captured = |branch: &mut Graph, value: ValueId| branch.capture(value, graph.value(value).name());
    let parts: Vec<ValueId> = stream
        .entry
        .values()
        .iter()
        .map(|value| captured(branch, *value))
        .collect();
    match (join, parts.as_slice()) {
        (None, [value]) => Ok(*value),
        (join, parts) => {
            let attributes = join.map_or_else(Vec::new, |join| join.attributes.clone());
            node::add(branch, "Concat", parts, attributes, name)
        }
    }
}
