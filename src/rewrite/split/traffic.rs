//! How much a rank sends: in closed form, from the collectives of a split graph.

use super::{Collective, Exchange, Split};
use crate::axes::{Bindings, Size};
use crate::graph::{Graph, ModelGraph};
use crate::onnx::messages::DataType;
use crate::onnx::tensor::element_bits;
use crate::rewrite::agreement::{SUMS, agreement_name};
use crate::rewrite::drift::decision_name;
use crate::rewrite::{Plan, RulePlan};
use crate::rules::Strategy;
use crate::shard::volume::Place;
use crate::shard::{Group, Mesh, part};
use std::collections::HashMap;

/// Bytes that one rank sends in a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// At every step.
    pub always: u64,
    /// At steps that compute, by rule of the plan.
    pub computing: Vec<u64>,
    /// The same of steps that broadcast guidance, and so run half of the batch: the rule of the plan that says so, and what
    /// is sent then.
    pub halved: Option<(usize, Box<Traffic>)>,
}

impl Traffic {
    /// Bytes of a step that broadcasts the rules that `flags` are true for.
    pub fn step(&self, flags: &[bool]) -> u64 {
        if let Some((rule, halved)) = &self.halved
            && flags.get(*rule).copied().unwrap_or(false)
        {
            return halved.step(flags);
        }
        let computed = self.computing.iter().enumerate();
        let computed = computed.filter(|(rule, _)| !flags.get(*rule).copied().unwrap_or(false));
        computed.fold(self.always, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }
}

impl Split {
    /// `sizes`, and the sizes of `rank`.
    pub fn bindings(&self, rank: usize, sizes: &Bindings) -> Bindings {
        let mut bindings = sizes.clone();
        for local in &self.locals {
            let whole = local.whole.evaluate(&bindings);
            if let Some(whole) = whole.and_then(|whole| usize::try_from(whole).ok()) {
                let range = part(whole, self.mesh.along(local.group), self.mesh.place(local.group, rank));
                bindings.values.insert(local.symbol.clone(), range.len() as i64);
            }
        }
        bindings
    }

    /// Bytes that `rank` sends for an exchange, by the formulas of [`crate::shard::volume`]; `None` where a size has no
    /// value.
    pub fn bytes_sent(&self, exchange: &Exchange, rank: usize, sizes: &Bindings) -> Option<u64> {
        let bindings = self.bindings(rank, sizes);
        let number = |size: &Size| usize::try_from(size.evaluate(&bindings)?).ok();
        let place = Place {
            ranks: self.mesh.along(exchange.group),
            place: self.mesh.place(exchange.group, rank),
        };
        let (rest, from, to) = (number(&exchange.rest)?, number(&exchange.from)?, number(&exchange.to)?);
        let elements = match exchange.collective {
            Collective::AllGather => place.all_gather(from, rest)?,
            Collective::AllToAll => place.all_to_all(from, to, rest)?,
            Collective::AllReduce => place.all_reduce(rest)?,
        };
        let bytes = elements.checked_mul(usize::try_from(element_bits(exchange.element_type)?).ok()? / 8)?;
        u64::try_from(bytes).ok()
    }

    /// What `rank` sends in a step of `model`, which was made from the graph of this split: as it is, or patched by
    /// `plan`. `None` where a size has no value.
    pub fn traffic(&self, model: &ModelGraph, plan: Option<&Plan>, rank: usize, sizes: &Bindings) -> Option<Traffic> {
        let mut traffic = self.traffic_of(model, plan, rank, sizes)?;
        let is_guidance = |rule: &RulePlan| rule.strategy == Strategy::Guidance;
        let rule = plan.and_then(|plan| plan.rules.iter().position(is_guidance));
        if let Some((rule, choice)) = rule.zip(self.wide.guidance.as_ref()) {
            // The second half is the larger one, where they differ.
            let mut half = sizes.clone();
            // Half of a batch that is made of several sizes is no size of any of them.
            let symbol = choice.halves.batch.as_symbol()?;
            let batch = sizes.get(&symbol)?;
            half.values.insert(symbol, batch - batch / 2);
            traffic.halved = Some((rule, Box::new(self.traffic_of(model, plan, rank, &half)?)));
        }
        Some(traffic)
    }

    /// The same of steps that run the whole batch of `sizes`.
    fn traffic_of(&self, model: &ModelGraph, plan: Option<&Plan>, rank: usize, sizes: &Bindings) -> Option<Traffic> {
        let agreed = plan.map_or_else(Vec::new, |plan| agreements(&self.mesh, plan));
        let exchanges = self.exchanges.iter().chain(&agreed);
        let mut count = Count {
            split: self,
            exchanges: exchanges.map(|exchange| (exchange.name.as_str(), exchange)).collect(),
            rank,
            sizes,
        };
        let rules = plan.map_or(&[][..], |plan| plan.rules.as_slice());
        let mut traffic = Traffic {
            always: 0,
            computing: vec![0; rules.len()],
            halved: None,
        };
        for (_, node) in model.graph.nodes() {
            let flag = node.input(0).filter(|_| node.is("If"));
            let flag = flag.map(|flag| model.graph.value(flag).name());
            let is_on = |rule: &RulePlan, flag: &str| match rule.adaptive {
                Some(_) => decision_name(&rule.name) == flag,
                None => rule.flag == flag,
            };
            let rule = flag.and_then(|flag| rules.iter().position(|rule| is_on(rule, flag)));
            let bytes = match (rule, node.body("else_branch")) {
                (Some(_), Some(body)) => count.graph(body)?,
                _ => count.node(node)?,
            };
            let sum = match rule {
                Some(rule) => traffic.computing.get_mut(rule)?,
                None => &mut traffic.always,
            };
            *sum = sum.checked_add(bytes)?;
        }
        Some(traffic)
    }
}

/// The collectives by which ranks agree on what adaptive rules decide, in the graph of a rank of `mesh` that was patched by `plan`.
fn agreements(mesh: &Mesh, plan: &Plan) -> Vec<Exchange> {
    let adaptive = plan.rules.iter().filter(|rule| rule.adaptive.is_some());
    let of_rule = |rule: &str| {
        let exchange = |group: Group| Exchange {
            name: agreement_name(rule, group),
            collective: Collective::AllReduce,
            group,
            rest: Size::number(SUMS),
            from: Size::ONE,
            to: Size::ONE,
            element_type: DataType::Float,
        };
        mesh.divided().map(exchange).collect::<Vec<_>>()
    };
    adaptive.flat_map(|rule| of_rule(&rule.name)).collect()
}

struct Count<'c> {
    split: &'c Split,
    exchanges: HashMap<&'c str, &'c Exchange>,
    rank: usize,
    sizes: &'c Bindings,
}

impl Count<'_> {
    fn node(&mut self, node: &crate::graph::Node) -> Option<u64> {
        if let Some(exchange) = self.exchanges.get(node.name()) {
            return self.split.bytes_sent(exchange, self.rank, self.sizes);
        }
        // Whichever branch is taken: the one that sends more.
        let bodies = node.bodies().iter().map(|body| self.graph(body.graph()));
        bodies
            .collect::<Option<Vec<u64>>>()
            .map(|bytes| bytes.into_iter().max().unwrap_or(0))
    }

    fn graph(&mut self, graph: &Graph) -> Option<u64> {
        let mut sum = 0u64;
        for (_, node) in graph.nodes() {
            sum = sum.checked_add(self.node(node)?)?;
        }
        Some(sum)
    }
}
