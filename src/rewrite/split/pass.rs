//! One axis of the mesh: the flow that was found, written into the graph.

use super::exchange::{Exchange, Exchanges};
use super::sizes::{PREFIX, Sizes};
use crate::axes::Size;
use crate::graph::{Graph, NodeId, Position, Slot, ValueId};
use crate::onnx::messages::{DataType, Dimension};
use crate::rewrite::build::Build;
use crate::rewrite::node::integer;
use crate::shard::{Division, Facts, Kept, Operation, Placement, ShardError, Step};
use std::collections::HashMap;

/// Values of the original that readers now find elsewhere.
pub(super) type Moved = HashMap<ValueId, ValueId>;

/// Writes `division` into `graph`. Afterwards `facts` has the sizes of one rank. Gives the values that have what `wanted`
/// names where it wants it.
pub(super) fn write(
    graph: &mut Graph,
    facts: &mut Facts<'_>,
    division: &Division,
    sizes: &mut Sizes,
    written: &mut Vec<Exchange>,
    moved: &mut Moved,
    wanted: &[(ValueId, Placement)],
) -> Result<Vec<ValueId>, ShardError> {
    let order = graph.topological_order()?;
    let opset = facts.opset();
    let mut pass = Pass {
        whole: facts.clone(),
        exchanges: Exchanges {
            group: division.group,
            sizes,
            written,
            opset,
        },
        division,
        moved: HashMap::new(),
        origins: HashMap::new(),
        converted: HashMap::new(),
    };
    if let Some(kept) = division.kept() {
        pass.keep(graph, facts, kept)?;
    }
    for id in order {
        pass.node(graph, facts, id)?;
    }
    let wanted = wanted
        .iter()
        .map(|(value, placement)| pass.needed(graph, facts, *value, placement));
    let wanted = wanted.collect::<Result<_, _>>()?;
    pass.outputs(graph, facts)?;
    for (old, new) in pass.moved {
        for later in moved.values_mut().filter(|later| **later == old) {
            *later = new;
        }
        moved.entry(old).or_insert(new);
    }
    Ok(wanted)
}

struct Pass<'p, 'a> {
    /// Sizes before this pass.
    whole: Facts<'a>,
    exchanges: Exchanges<'p>,
    division: &'p Division,
    /// Pinned values and sums, where they were brought to their places.
    moved: HashMap<ValueId, ValueId>,
    /// The same, the other way round.
    origins: HashMap<ValueId, ValueId>,
    converted: HashMap<(ValueId, Placement), ValueId>,
}

impl Pass<'_, '_> {
    fn held(&self, value: ValueId) -> Placement {
        self.division.held(value)
    }

    fn whole_sizes(&self, graph: &Graph, value: ValueId) -> Result<Vec<Size>, ShardError> {
        let unknown = || ShardError::UnknownSize {
            value: graph.value(value).name().to_owned(),
        };
        self.whole.sizes(value).map(<[Size]>::to_vec).ok_or_else(unknown)
    }

    /// Where what `value` is brought to should stand.
    fn position(graph: &Graph, value: ValueId) -> Option<Position> {
        graph.producer(value).map(|(id, _)| graph.position(id))
    }

    /// Declares the part of the latent that a rank is given and gives.
    fn keep(&mut self, graph: &mut Graph, facts: &mut Facts<'_>, kept: &Kept) -> Result<(), ShardError> {
        let placement = Some(kept.shard.clone());
        for value in [kept.input, kept.output] {
            let whole = self.whole_sizes(graph, value)?;
            let local = self.exchanges.local_sizes(graph, &whole, &placement)?;
            let size = local.get(kept.shard.dim).map(Size::to_string);
            let size = Dimension {
                dim_param: size,
                ..Dimension::default()
            };
            graph.declare_dimension(value, kept.shard.dim, size);
            facts.set(value, local, self.whole.element_type(value));
        }
        Ok(())
    }

    /// `value` as a reader needs it.
    fn needed(
        &mut self,
        graph: &mut Graph,
        facts: &mut Facts<'_>,
        value: ValueId,
        need: &Placement,
    ) -> Result<ValueId, ShardError> {
        let held = self.held(value);
        let at = self.moved.get(&value).copied().unwrap_or(value);
        if held == *need {
            return Ok(at);
        }
        let key = (value, need.clone());
        if let Some(known) = self.converted.get(&key) {
            return Ok(*known);
        }
        let whole = self.whole_sizes(graph, value)?;
        let after = Self::position(graph, at);
        let result = self.exchanges.convert(graph, facts, at, &whole, &held, need, after)?;
        // A slice of it asks how long the whole is.
        self.whole.set(result, whole, self.whole.element_type(value));
        self.converted.insert(key, result);
        Ok(result)
    }

    fn node(&mut self, graph: &mut Graph, facts: &mut Facts<'_>, id: NodeId) -> Result<(), ShardError> {
        let Some(step) = self.division.step(id) else {
            return Ok(());
        };
        let inputs: Vec<Option<ValueId>> = graph.node(id).inputs().collect();
        let captures: Vec<ValueId> = graph.node(id).captures().collect();
        if let Some(captured) = captures.into_iter().find(|value| self.held(*value).is_some()) {
            return Err(ShardError::Captured {
                node: graph.label(id),
                value: graph.value(captured).name().to_owned(),
            });
        }
        let outputs: Vec<Option<ValueId>> = graph.node(id).outputs().to_vec();
        if self.division.asks_for_sizes(graph.node(id)) {
            return self.answer(graph, id);
        }
        for (slot, (value, need)) in inputs.iter().zip(&step.needs).enumerate() {
            // What was moved is read by its readers already; what they read was another value of the original.
            let Some(value) = value.map(|value| self.original(value)) else {
                continue;
            };
            let needed = self.needed(graph, facts, value, need)?;
            if Some(needed) != inputs[slot] {
                graph.set_input(id, slot, needed);
            }
        }
        self.write_sizes(graph, id, step)?;
        let bias = match step.is_partial && graph.node(id).is("Gemm") {
            true => self.without_bias(graph, id)?,
            false => None,
        };
        for (output, gives) in outputs.into_iter().zip(&step.gives) {
            let Some(output) = output else { continue };
            self.output(graph, facts, output, gives, step.is_partial, bias)?;
        }
        Ok(())
    }

    /// Takes the bias off a `Gemm` whose results are added over ranks: it is to be added once.
    fn without_bias(&mut self, graph: &mut Graph, id: NodeId) -> Result<Option<ValueId>, ShardError> {
        let Some(bias) = graph.node(id).input(2) else {
            return Ok(None);
        };
        let (zero, name) = (self.exchanges.sizes.name(graph), self.exchanges.sizes.name(graph));
        let mut build = Build::new(graph);
        let mut value = build.floats(&zero, &[1], &[0.0])?;
        if let Some(element_type) = self.whole.element_type(bias).filter(|of| *of != DataType::Float) {
            value = build.cast(value, element_type, &name)?;
        }
        graph.set_input(id, 2, value);
        Ok(Some(bias))
    }

    /// The value of the original that was moved to `value`.
    fn original(&self, value: ValueId) -> ValueId {
        self.origins.get(&value).copied().unwrap_or(value)
    }

    fn output(
        &mut self,
        graph: &mut Graph,
        facts: &mut Facts<'_>,
        output: ValueId,
        gives: &Placement,
        is_partial: bool,
        bias: Option<ValueId>,
    ) -> Result<(), ShardError> {
        let gives = if is_partial { &None } else { gives };
        let Some(whole) = self.whole.sizes(output).map(<[Size]>::to_vec) else {
            return Ok(());
        };
        if gives.is_some() {
            let local = self.exchanges.local_sizes(graph, &whole, gives)?;
            facts.set(output, local, self.whole.element_type(output));
            graph.forget_type(output);
        }
        let held = self.held(output);
        if *gives == held && !is_partial {
            return Ok(());
        }
        let uses = graph.value(output).uses().to_vec();
        let after = Self::position(graph, output);
        let mut result = output;
        if is_partial {
            result = self.exchanges.reduce(graph, facts, result, after)?;
            if let Some(bias) = bias {
                let name = self.exchanges.sizes.name(graph);
                let mut build = Build { graph, after };
                result = build.node("Add", &[result, bias], Vec::new(), &name)?;
                facts.set(result, whole.clone(), self.whole.element_type(output));
            }
        }
        if *gives != held {
            result = self
                .exchanges
                .convert(graph, facts, result, &whole, gives, &held, after)?;
        }
        for usage in uses {
            if let Slot::Input(slot) = usage.slot {
                graph.set_input(usage.node, slot, result);
            }
        }
        self.moved.insert(output, result);
        self.origins.insert(result, output);
        Ok(())
    }

    /// The sizes that an operator reads, as a rank has them.
    fn write_sizes(&mut self, graph: &mut Graph, id: NodeId, step: &Step) -> Result<(), ShardError> {
        let gives = step.gives.first().cloned().flatten();
        let operator = graph.node(id).operator().to_owned();
        let Some(output) = graph.node(id).output(0) else {
            return Ok(());
        };
        if !graph.node(id).domain().is_empty() {
            return Ok(());
        }
        let wants = match operator.as_str() {
            "Reshape" | "Expand" | "Tile" => gives.is_some(),
            "Slice" | "Split" => step.needs.first().is_some_and(Option::is_some),
            _ => false,
        };
        if !wants {
            return Ok(());
        }
        let whole = self.whole_sizes(graph, output)?;
        match operator.as_str() {
            "Reshape" => {
                let local = self.exchanges.local_sizes(graph, &whole, &gives)?;
                let target = self.exchanges.sizes.list(graph, &local)?;
                graph.set_input(id, 1, target);
                if self.exchanges.opset >= 14 {
                    graph.set_attribute(id, integer("allowzero", 1));
                }
            }
            "Expand" => {
                let local = self.exchanges.local_sizes(graph, &whole, &gives)?;
                let target = self.exchanges.sizes.list(graph, &local)?;
                graph.set_input(id, 1, target);
            }
            "Tile" => self.repeats(graph, id, output, &whole, &gives)?,
            "Slice" => self.slice(graph, id, output, step)?,
            _ => self.split(graph, id, step)?,
        }
        Ok(())
    }

    fn repeats(
        &mut self,
        graph: &mut Graph,
        id: NodeId,
        output: ValueId,
        whole: &[Size],
        gives: &Placement,
    ) -> Result<(), ShardError> {
        let unknown = || ShardError::UnknownSize {
            value: graph.value(output).name().to_owned(),
        };
        let input = graph.node(id).input(0).map(|value| self.original(value));
        let from = input
            .and_then(|input| self.whole.sizes(input))
            .ok_or_else(unknown)?
            .to_vec();
        let mut repeats = Vec::with_capacity(whole.len());
        for (from, to) in from.iter().zip(whole) {
            repeats.push(to.divide_exactly(from).ok_or_else(unknown)?);
        }
        if let Some(shard) = gives
            && from.get(shard.dim).is_some_and(Size::is_one)
        {
            let local = self.exchanges.local_sizes(graph, whole, gives)?;
            if let (Some(repeat), Some(local)) = (repeats.get_mut(shard.dim), local.get(shard.dim)) {
                repeat.clone_from(local);
            }
        }
        let repeats = self.exchanges.sizes.list(graph, &repeats)?;
        graph.set_input(id, 1, repeats);
        Ok(())
    }

    /// Where a `Slice` begins and ends on a rank, where it ends at seams of what is divided.
    fn slice(&mut self, graph: &mut Graph, id: NodeId, output: ValueId, step: &Step) -> Result<(), ShardError> {
        let (Some(Some(before)), Some(Some(behind))) = (step.needs.first(), step.gives.first()) else {
            return Ok(());
        };
        if before.parts == behind.parts && before.outer == behind.outer {
            return Ok(());
        }
        let name = graph.value(output).name().to_owned();
        let unknown = || ShardError::UnknownSize { value: name.clone() };
        let operation = Operation {
            node: graph.node(id),
            facts: &self.whole,
        };
        let (start, place) = operation.sliced_from(before.dim).ok_or_else(unknown)?;
        let mut starts = operation.numbers("starts", 1).ok_or_else(unknown)?;
        let mut ends = operation.numbers("ends", 2).ok_or_else(unknown)?;
        if before.parts == behind.parts {
            // A chunk of several: as many chunks stand before it as ever.
            let chunk = behind.size();
            let local = self.exchanges.local_size(graph, behind)?;
            let number = match start.as_number() {
                Some(0) => Size::number(0),
                _ => start.divide_exactly(&chunk).ok_or_else(unknown)?,
            };
            let local_start = &number * &local;
            if let (Some(first), Some(last)) = (starts.get_mut(place), ends.get_mut(place)) {
                *last = &local_start + &local;
                *first = local_start;
            }
            return self.bounds(graph, id, starts, ends);
        }
        // The parts before the one that is taken.
        let mut parts = before.in_parts().unwrap_or_default().into_iter();
        let (mut seam, mut local_start) = (Size::number(0), Size::number(0));
        while seam != start {
            let part = parts.next().ok_or_else(unknown)?;
            seam = &seam + &part.size();
            local_start = &local_start + &self.exchanges.local_part(graph, &part)?;
        }
        let length = self.exchanges.local_size(graph, behind)?;
        if let (Some(first), Some(last)) = (starts.get_mut(place), ends.get_mut(place)) {
            *last = &local_start + &length;
            *first = local_start;
        }
        self.bounds(graph, id, starts, ends)
    }

    fn bounds(&mut self, graph: &mut Graph, id: NodeId, starts: Vec<Size>, ends: Vec<Size>) -> Result<(), ShardError> {
        for (slot, numbers) in [(1, starts), (2, ends)] {
            let list = self.exchanges.sizes.list(graph, &numbers)?;
            graph.set_input(id, slot, list);
        }
        Ok(())
    }

    /// The lengths of a `Split` along what is divided.
    fn split(&mut self, graph: &mut Graph, id: NodeId, step: &Step) -> Result<(), ShardError> {
        let Some(Some(before)) = step.needs.first() else {
            return Ok(());
        };
        let changes = step
            .gives
            .iter()
            .flatten()
            .any(|gives| gives.parts != before.parts || gives.outer != before.outer);
        if !changes {
            return Ok(());
        }
        let mut lengths = Vec::with_capacity(step.gives.len());
        for gives in step.gives.iter().flatten() {
            lengths.push(self.exchanges.local_size(graph, gives)?);
        }
        let list = self.exchanges.sizes.list(graph, &lengths)?;
        graph.set_input(id, 1, list);
        Ok(())
    }

    /// The shape of the whole value for who asks for that of a divided one.
    fn answer(&mut self, graph: &mut Graph, id: NodeId) -> Result<(), ShardError> {
        let node = graph.node(id);
        let asked = node.input(0).map(|value| self.original(value));
        let (Some(asked), Some(output)) = (asked, node.output(0)) else {
            return Ok(());
        };
        if self.held(asked).is_none() || graph.value(output).is_unused() {
            return Ok(());
        }
        // What an earlier axis of the mesh wrote reads open sizes, and an axis that ranks keep parts of has none.
        let is_kept = self.division.kept().is_some_and(|kept| kept.input == asked);
        if is_kept && node.name().starts_with(PREFIX) {
            return Ok(());
        }
        let unknown = || ShardError::UnknownSize {
            value: graph.value(asked).name().to_owned(),
        };
        let answer = self
            .whole
            .integers(output)
            .filter(|_| node.is("Shape"))
            .ok_or_else(unknown)?;
        let answer = self.exchanges.sizes.list(graph, &answer)?;
        graph.replace_uses(output, answer);
        Ok(())
    }

    /// Graph outputs are whole on every rank, under their names, but for the latent where ranks keep their parts.
    fn outputs(&mut self, graph: &mut Graph, facts: &mut Facts<'_>) -> Result<(), ShardError> {
        let kept = self.division.kept().map(|kept| kept.output);
        for output in graph
            .outputs()
            .filter(|output| Some(*output) != kept)
            .collect::<Vec<_>>()
        {
            let whole = self.needed(graph, facts, output, &None)?;
            if whole == output {
                continue;
            }
            let name = graph.value(output).name().to_owned();
            let inner = self.exchanges.sizes.name(graph);
            graph.rename(output, &inner)?;
            graph.rename(whole, &name)?;
            graph.replace_output(output, whole);
        }
        Ok(())
    }
}
