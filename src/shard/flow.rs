//! Placements of all values: followed from the residual streams on, with exchanges where an operator needs what a rank
//! does not have, and then moved to where they cost least.
//!
//! Everything is whole until it meets what is pinned: the residual streams, and the cuts of the sites, lie divided along
//! the *ambient* factor. An attention that mixes this factor gets another one for its core. What was exchanged too late
//! is mended by a pass from the end to the beginning: an exchange moves before an operator that can work on what comes
//! out of it, where that costs no more.

use super::facts::{Facts, Operation};
use super::kept::Kept;
use super::labelled::{along, in_dimension, latent, without_batch};
use super::link::{self, Spelling};
use super::placement::{Placement, Shard};
use super::share::Branches;
use super::step::Step;
use crate::axes::{Label, Labels};
use crate::graph::{Graph, GraphError, NodeId, ValueId};
use std::collections::{HashMap, HashSet};

/// What the core of an attention that mixes the ambient factor is divided along instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alternative {
    /// Tokens that it does not mix: DSP's switch.
    Tokens,
    /// Heads: Ulysses.
    Heads,
    /// The queries stay as they are, keys and values are gathered.
    Queries,
}

/// What is wanted of a flow.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// How many ranks divide.
    pub ranks: usize,
    /// Where values have to lie.
    pub pins: HashMap<ValueId, Placement>,
    /// The labels of the ambient factor, tried in order.
    pub ambient: Vec<Labels>,
    /// The nodes of attention cores.
    pub cores: HashSet<NodeId>,
    /// What is tried for cores, in this order.
    pub alternatives: Vec<Alternative>,
    /// Inputs that have to be divided, whatever else: the hidden channels before the last projection of a feed-forward.
    pub demands: HashMap<NodeId, Vec<Placement>>,
    /// Whether sums over parts may be added up over ranks.
    pub may_add_up: bool,
}

/// Where every value lies.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    /// What each node does, by its index.
    pub steps: Vec<Option<Step>>,
    /// Where each value lies when it was computed.
    pub gives: Vec<Placement>,
    /// Where it lies for its readers; differs from what was computed where the value is pinned.
    pub held: Vec<Placement>,
    /// Operators that could not work on parts, in the order of computing: everything they read is gathered.
    pub stuck: Vec<NodeId>,
    /// The latent of which each rank keeps its part.
    pub kept: Option<Kept>,
}

/// Moves that can be made and taken back.
#[derive(Default)]
struct Moved {
    /// Values with where they were computed and where they lie.
    values: Vec<(ValueId, Placement, Placement)>,
    nodes: Vec<(NodeId, Option<Step>)>,
}

impl Moved {
    /// Makes the moves, or takes them back if they were made.
    fn swap(&mut self, flow: &mut Flow) {
        for (value, gives, held) in &mut self.values {
            std::mem::swap(&mut flow.gives[value.index()], gives);
            std::mem::swap(&mut flow.held[value.index()], held);
        }
        for (id, step) in &mut self.nodes {
            std::mem::swap(&mut flow.steps[id.index()], step);
        }
    }
}

/// Finds flows through one graph.
pub(super) struct Follower<'a> {
    pub graph: &'a Graph,
    pub facts: &'a Facts<'a>,
    pub wanted: &'a Wanted,
    /// What runs only in some steps.
    pub branches: &'a Branches,
}

impl Follower<'_> {
    /// The flow with the exchanges where they cost least.
    ///
    /// A move may pay only together with others before it: the value and the norm of a value, of which the norm is small.
    /// So moves that cost a little more are tried as well, and the better outcome is taken.
    pub fn follow(&self) -> Result<Flow, GraphError> {
        const ALLOWED: [f64; 2] = [0.0, 0.25];
        let order = self.graph.topological_order()?;
        let start = self.forward(&order);
        let flows = ALLOWED.map(|allowed| {
            let mut flow = start.clone();
            for id in order.iter().rev() {
                self.move_before(*id, allowed, &mut flow);
            }
            flow
        });
        let [strict, daring] = flows;
        Ok(match self.total_cost(&daring) < self.total_cost(&strict) {
            true => daring,
            false => strict,
        })
    }

    pub fn operation(&self, id: NodeId) -> Operation<'_> {
        Operation {
            node: self.graph.node(id),
            facts: self.facts,
        }
    }

    fn forward(&self, order: &[NodeId]) -> Flow {
        let values = self.graph.value_bound();
        let mut flow = Flow {
            steps: vec![None; self.graph.node_bound()],
            gives: vec![None; values],
            held: vec![None; values],
            stuck: Vec::new(),
            kept: None,
        };
        for (value, placement) in &self.wanted.pins {
            flow.held[value.index()].clone_from(placement);
        }
        // Values that lie along another factor than the ambient one.
        let mut foreign = vec![false; values];
        for id in order {
            let node = self.graph.node(*id);
            let current: Vec<Placement> = node
                .inputs()
                .map(|input| input.and_then(|input| flow.held[input.index()].clone()))
                .collect();
            let strange: Vec<bool> = node
                .inputs()
                .map(|input| input.is_some_and(|input| foreign[input.index()]))
                .collect();
            let (step, is_foreign) = self.step(*id, &current, &strange, &mut flow.stuck);
            for (output, gives) in node.outputs().iter().zip(&step.gives) {
                let Some(output) = output else { continue };
                let gives = if step.is_partial { None } else { gives.clone() };
                flow.gives[output.index()] = gives.clone();
                if !self.wanted.pins.contains_key(output) {
                    foreign[output.index()] = is_foreign && gives.is_some();
                    flow.held[output.index()] = gives;
                }
            }
            flow.steps[id.index()] = Some(step);
        }
        flow
    }

    /// The step of a node, and whether it runs along another factor than the ambient one.
    fn step(&self, id: NodeId, current: &[Placement], strange: &[bool], stuck: &mut Vec<NodeId>) -> (Step, bool) {
        let operation = self.operation(id);
        if let Some(step) = self.demanded(&operation, id) {
            return (step, false);
        }
        let thick;
        let current = match takes_nothing(operation.node) {
            true => current,
            false => {
                let is_thick = |shard: &Shard| !shard.is_thin(self.wanted.ranks);
                thick = current
                    .iter()
                    .map(|placement| placement.clone().filter(is_thick))
                    .collect::<Vec<_>>();
                thick.as_slice()
            }
        };
        let is_foreign = strange.contains(&true);
        if let Some(step) = operation.forward(current) {
            return (step, is_foreign);
        }
        let only = |keep: &dyn Fn(usize) -> bool| -> Vec<Placement> {
            let kept = current.iter().enumerate();
            kept.map(|(slot, placement)| placement.clone().filter(|_| keep(slot)))
                .collect()
        };
        if self.wanted.may_add_up
            && let Some(step) = operation.summed(&only(&|slot| slot == 0))
        {
            return (step, false);
        }
        if self.wanted.cores.contains(&id) {
            if is_foreign && let Some(step) = operation.forward(&only(&|slot| strange[slot])) {
                return (step, true);
            }
            for alternative in &self.wanted.alternatives {
                let step = match alternative {
                    Alternative::Queries => operation
                        .forward(&only(&|slot| slot == 0))
                        .filter(|step| step.needs.iter().any(Option::is_some))
                        .map(|step| (step, false)),
                    _ => self.core(&operation, *alternative).map(|step| (step, true)),
                };
                if let Some(step) = step {
                    return step;
                }
            }
        }
        if is_foreign {
            let node = operation.node;
            let back = node.inputs().zip(current).zip(strange);
            let back: Vec<Placement> = back
                .map(|((input, placement), strange)| match (strange, input) {
                    (true, Some(input)) => self.ambient(input),
                    _ => placement.clone(),
                })
                .collect();
            if back.iter().any(Option::is_some)
                && let Some(step) = operation.forward(&back)
            {
                return (step, false);
            }
        }
        stuck.push(id);
        (operation.whole(), false)
    }

    /// A projection by a stored weight, divided along what it sums over: what it needs.
    pub fn hidden(&self, id: NodeId) -> Option<(NodeId, Vec<Placement>)> {
        let operation = self.operation(id);
        let is_stored = |slot: usize| {
            let value = operation.node.input(slot)?;
            let mut value = Some(value);
            // A weight may be turned first.
            if let Some((_, node)) = self.graph.producer(value?).filter(|(_, node)| node.is("Transpose")) {
                value = node.input(0);
            }
            self.graph.value(value?).initializer()
        };
        is_stored(1)?;
        let links = operation.links()?;
        let link = links.iter().find(|link| link.adds_up)?;
        let (_, dim) = link.inputs.iter().find(|(slot, _)| *slot == 0)?;
        let size = operation.input(0)?.get(*dim)?;
        let ranks = self.wanted.ranks;
        let enough = size
            .as_number()
            .is_none_or(|size| usize::try_from(size).is_ok_and(|size| size >= ranks));
        let mut current: Vec<Placement> = vec![None; operation.node.inputs().len()];
        *current.first_mut()? = Some(Shard::of(*dim, size.clone()));
        let step = operation.summed(&current).filter(|_| enough)?;
        Some((id, step.needs))
    }

    fn demanded(&self, operation: &Operation<'_>, id: NodeId) -> Option<Step> {
        let demand = self.wanted.demands.get(&id)?;
        let forward = operation.forward(demand);
        forward.or_else(|| operation.summed(demand).filter(|_| self.wanted.may_add_up))
    }

    /// The ambient placement of a value, from what its dimensions count.
    pub fn ambient(&self, value: ValueId) -> Placement {
        let mut labels = self.wanted.ambient.iter();
        labels.find_map(|labels| along(self.facts, value, *labels))
    }

    /// The step of a core along another factor than the ambient one.
    pub fn core(&self, operation: &Operation<'_>, alternative: Alternative) -> Option<Step> {
        let output = operation.node.output(0)?;
        let (dims, sizes) = (self.facts.dimensions(output)?, self.facts.sizes(output)?);
        for link in operation.links()? {
            let mut slots: Vec<usize> = link.inputs.iter().map(|(slot, _)| *slot).collect();
            slots.dedup();
            let Some((_, dim)) = link.outputs.first().filter(|_| slots.len() > 1) else {
                continue;
            };
            let (counts, size) = (dims.get(*dim)?, sizes.get(*dim)?);
            let channels = Labels::of([Label::Channels]);
            let has_tokens = !counts.labels().intersection(latent()).is_empty();
            let whole = Some(Shard::of(*dim, size.clone()));
            let shards = match alternative {
                Alternative::Tokens if has_tokens => [
                    in_dimension(*dim, counts, size, latent()),
                    without_batch(*dim, counts, size),
                    whole,
                ],
                Alternative::Heads if counts.labels().without(channels).is_empty() => [None, None, whole],
                Alternative::Heads => [in_dimension(*dim, counts, size, channels), None, None],
                _ => continue,
            };
            let fits = |shard: &Shard| !shard.is_thin(self.wanted.ranks);
            let step = shards.into_iter().flatten().find(fits);
            if let Some(step) = step.and_then(|shard| operation.backward(0, &shard)) {
                return Some(step);
            }
        }
        None
    }

    /// Moves the exchanges behind a node before it, where it can work on what comes out of them.
    fn move_before(&self, id: NodeId, allowed: f64, flow: &mut Flow) {
        // Readers of one value may have to move together: three projections of one stream, or the parts of one projection.
        let mut readers: Vec<NodeId> = self.graph.users(id).collect();
        readers.sort_unstable();
        readers.dedup();
        if readers.len() > 1 {
            self.move_all(&readers, allowed, flow);
        }
        self.move_all(&[id], allowed, flow);
    }

    /// Moves the exchanges behind `nodes` before them, those that can, if that costs no more, or more by a share that is
    /// allowed. Where it costs more, what stands before them is moved along, as far as rotary positions reach: a mean of
    /// squares is small, and the squares are not, but what they are of may be exchanged anyway.
    fn move_all(&self, nodes: &[NodeId], allowed: f64, flow: &mut Flow) {
        const ROUNDS: usize = 10;
        let mut moved = Moved::default();
        let mut candidates = nodes.to_vec();
        for _ in 0..ROUNDS {
            // Nodes are asked with the moves so far in place, costs are compared with and without.
            moved.swap(flow);
            let is_new = |id: &&NodeId| !moved.nodes.iter().any(|(other, _)| other == *id);
            let new = candidates.iter().filter(is_new);
            let new: Vec<(NodeId, Step)> = new.filter_map(|id| Some((*id, self.moved(*id, flow)?))).collect();
            moved.swap(flow);
            if new.is_empty() {
                return;
            }
            for (id, step) in new {
                for (output, gives) in self.graph.node(id).outputs().iter().zip(&step.gives) {
                    moved
                        .values
                        .extend(output.map(|output| (output, gives.clone(), gives.clone())));
                }
                moved.nodes.push((id, Some(step)));
            }
            let touched: Vec<NodeId> = moved.nodes.iter().map(|(id, _)| *id).collect();
            let before = self.local_cost(&touched, flow);
            moved.swap(flow);
            if self.local_cost(&touched, flow) <= before * (1.0 + allowed) {
                flow.stuck.retain(|other| !touched.contains(other));
                return;
            }
            moved.swap(flow);
            candidates = touched.iter().flat_map(|id| self.graph.producers(*id)).collect();
            candidates.sort_unstable();
            candidates.dedup();
        }
    }

    /// The step that takes what stands between two seams out of a value whose parts lie along the ambient factor, where that is
    /// what `wanted` says.
    fn between_seams(&self, operation: &Operation<'_>, slot: usize, wanted: &Shard) -> Option<Step> {
        let mut current: Vec<Placement> = vec![None; operation.node.inputs().len()];
        *current.first_mut()? = Some(
            self.ambient(operation.node.input(0)?)
                .filter(|shard| shard.parts.len() > 1)?,
        );
        let step = operation.forward(&current)?;
        (step.gives.get(slot)?.as_ref() == Some(wanted)).then_some(step)
    }

    /// The step of a node that gives what its readers need, where it gives another placement and can do so.
    fn moved(&self, id: NodeId, flow: &Flow) -> Option<Step> {
        let old = flow.steps[id.index()].as_ref().filter(|step| !step.is_partial)?;
        let node = self.graph.node(id);
        let mut wanted: Option<(usize, Placement)> = None;
        for (slot, output) in node.outputs().iter().enumerate() {
            let Some(output) = *output else { continue };
            if self.wanted.pins.contains_key(&output) {
                if flow.gives[output.index()] == flow.held[output.index()] {
                    return None;
                }
                wanted.get_or_insert((slot, flow.held[output.index()].clone()));
                continue;
            }
            if self.graph.value(output).is_output() {
                return None;
            }
            for need in self.needs(output, flow) {
                match &wanted {
                    None => wanted = Some((slot, need)),
                    Some((other, placement)) if *other == slot && *placement != need => return None,
                    _ => {}
                }
            }
        }
        let (slot, shard) = wanted?;
        let shard = shard.filter(|shard| old.gives.get(slot) != Some(&Some(shard.clone())))?;
        if shard.is_thin(self.wanted.ranks) && !takes_nothing(node) {
            return None;
        }
        let operation = self.operation(id);
        let backward = operation.backward(slot, &shard);
        let new = backward.or_else(|| self.between_seams(&operation, slot, &shard))?;
        let agrees = node.outputs().iter().enumerate().all(|(slot, output)| match output {
            Some(output) if self.wanted.pins.contains_key(output) => new.gives[slot] == flow.held[output.index()],
            Some(output) => self.needs(*output, flow).iter().all(|need| *need == new.gives[slot]),
            None => true,
        });
        // What would have to be gathered instead is as good as not divided.
        let gathers = node.inputs().enumerate().any(|(slot, input)| {
            let is_divided = input.is_some_and(|input| flow.held[input.index()].is_some());
            is_divided && new.needs[slot].is_none() && old.needs[slot].is_some()
        });
        (agrees && !gathers).then_some(new)
    }
}

/// Whether a node asks for the shape of what it reads only.
pub(super) fn asks_for_sizes(node: &crate::graph::Node) -> bool {
    matches!(link::spelling(node.domain(), node.operator()), Some(Spelling::Sizes))
}

/// Whether a node can do where a rank has nothing: it moves data. ONNX Runtime's fused projections and norms cannot.
fn takes_nothing(node: &crate::graph::Node) -> bool {
    use Spelling::{Concat, Regroup, Sizes, Slice, Split};
    let spelling = link::spelling(node.domain(), node.operator());
    matches!(spelling, Some(Concat | Regroup | Sizes | Slice | Split)) || node.is("Transpose")
}
