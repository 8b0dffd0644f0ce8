//! Static graphs instead of switches: one for each set of rules that a run broadcasts together (the variant form).
//!
//! Execution providers that dislike control flow run them, and none holds a node that its steps do not need. A cache is
//! an input only where it is read, and an output only where a later step reads it; the host keeps it in between.

use super::drift::decision_name;
use super::drive::STEP_INPUT;
use super::{PLAN_KEY, Plan, RewriteError, SchedulePlan};
use crate::graph::{Graph, GraphError, ModelGraph, NodeId, ValueId};
use crate::onnx::messages::{DataType, TensorProto};
use std::collections::BTreeSet;

/// The static graph of the steps that broadcast the same rules.
#[derive(Clone, Debug)]
pub struct Variant {
    /// One flag for each rule of the plan: true where its sites are broadcast.
    pub flags: Vec<bool>,
    /// The steps that it is for, counted from 0.
    pub steps: Vec<usize>,
    /// The model, without a plan.
    pub model: ModelGraph,
    /// What it takes of earlier steps: inputs, in the order of the plan.
    pub caches_in: Vec<String>,
    /// What it gives to later steps: outputs, in the order of the plan.
    pub caches_out: Vec<String>,
}

/// The variants of a run: one for each distinct set of rules that `schedule` broadcasts together, in the order in which
/// they first come.
///
/// `model` is what [`super::switch`] or [`super::drive_by_step`] made by `plan`. The model's own inputs and outputs are
/// the same in all variants, also where one does not need an input.
///
/// # Errors
/// [`RewriteError::Undecided`] where the model decides itself; [`RewriteError::Graph`] where the model is not one that was
/// made by this plan.
pub fn variants(model: &ModelGraph, plan: &Plan, schedule: &SchedulePlan) -> Result<Vec<Variant>, RewriteError> {
    if let Some(rule) = plan.rules.iter().find(|rule| rule.adaptive.is_some()) {
        return Err(RewriteError::Undecided {
            rule: rule.name.clone(),
        });
    }
    let mut variants: Vec<Variant> = Vec::new();
    // The variant of each step.
    let mut course = Vec::with_capacity(schedule.steps());
    for step in 0..schedule.steps() {
        let flags = schedule.flags(step);
        let known = variants.iter().position(|variant| variant.flags == flags);
        let index = match known {
            Some(index) => index,
            None => {
                let mut model = model.clone();
                fix_flags(&mut model.graph, plan, &flags)?;
                model.remove_metadata(PLAN_KEY);
                let mut variant = Variant {
                    flags,
                    steps: Vec::new(),
                    model,
                    caches_in: Vec::new(),
                    caches_out: Vec::new(),
                };
                // What is only passed on stays with the host.
                variant.put_out(plan, |graph, input, output| !passes(graph, input, output));
                variants.push(variant);
                variants.len() - 1
            }
        };
        variants[index].steps.push(step);
        course.push(index);
    }
    // Outputs that no later step reads go. What then is read no more may make further outputs useless.
    loop {
        let needed = needed_outputs(&variants, &course, plan);
        let before: usize = variants.iter().map(|variant| variant.caches_out.len()).sum();
        for (variant, needed) in variants.iter_mut().zip(&needed) {
            variant.put_out(plan, |graph, _, output| needed.contains(graph.value(output).name()));
        }
        if variants.iter().map(|variant| variant.caches_out.len()).sum::<usize>() == before {
            return Ok(variants);
        }
    }
}

impl Variant {
    /// Keeps those cache outputs that `keep` wants, given the cache's input and output, and what they and the model's own
    /// outputs need.
    fn put_out(&mut self, plan: &Plan, keep: impl Fn(&Graph, Option<ValueId>, ValueId) -> bool) {
        let graph = &mut self.model.graph;
        self.caches_out.clear();
        for (input, output) in plan.fed_back() {
            let Some(next) = graph.find(output).filter(|next| graph.value(*next).is_output()) else {
                continue;
            };
            if keep(graph, graph.find(input), next) {
                self.caches_out.push(output.to_owned());
            } else {
                graph.remove_output(next);
            }
        }
        remove_unread(graph, plan);
        let inputs = plan.fed_back().map(|(input, _)| input);
        self.caches_in = inputs
            .filter(|input| graph.find(input).is_some())
            .map(str::to_owned)
            .collect();
    }
}

/// For each variant the outputs that a step behind one of its steps reads before they are made anew.
fn needed_outputs(variants: &[Variant], course: &[usize], plan: &Plan) -> Vec<BTreeSet<String>> {
    let mut needed = vec![BTreeSet::new(); variants.len()];
    // The caches that the steps behind the one at hand read.
    let mut read: BTreeSet<&str> = BTreeSet::new();
    for &index in course.iter().rev() {
        let (Some(variant), Some(needed)) = (variants.get(index), needed.get_mut(index)) else {
            continue;
        };
        for (input, output) in plan.fed_back() {
            if variant.caches_out.iter().any(|given| given == output) && read.remove(input) {
                needed.insert(output.to_owned());
            }
        }
        for (input, _) in plan.fed_back() {
            if variant.caches_in.iter().any(|taken| taken == input) {
                read.insert(input);
            }
        }
    }
    needed
}

/// Turns the flags into constants and puts one branch in the place of each of their switches.
pub(super) fn fix_flags(graph: &mut Graph, plan: &Plan, flags: &[bool]) -> Result<(), GraphError> {
    let rules = plan.rules.iter().zip(flags.iter().copied());
    let mut fixed: Vec<(String, ValueId, bool)> = Vec::new();
    for (rule, broadcast) in rules {
        // The switches of an adaptive rule are on its decision, which is fixed as well.
        let decision = rule.adaptive.as_ref().map(|_| decision_name(&rule.name));
        for name in decision.into_iter().chain([rule.flag.clone()]) {
            if let Some(value) = graph.find(&name) {
                fixed.push((name, value, broadcast));
            }
        }
    }
    // A branch that takes its switch's place may bring switches with it.
    let mut changed = true;
    while changed {
        changed = false;
        for (_, flag, broadcast) in &fixed {
            let branch = if *broadcast { "then_branch" } else { "else_branch" };
            for node in switches_on(graph, *flag) {
                graph.inline_body(node, branch)?;
                changed |= !graph.contains(node);
            }
        }
    }
    for (name, flag, broadcast) in fixed {
        let mut constant = TensorProto {
            data_type: Some(DataType::Bool as i32),
            int32_data: vec![i32::from(broadcast)],
            ..TensorProto::default()
        };
        // A flag that is looked up is no input; nobody but switches reads it unless they stand in other nested graphs.
        if !graph.fix_input(flag, constant.clone()) && !graph.value(flag).uses().is_empty() {
            constant.name = Some(name.replacen("pab.", "pab.fixed.", 1));
            let constant = graph.add_initializer(constant)?;
            graph.replace_uses(flag, constant);
        }
    }
    Ok(())
}

/// The `If`s whose condition is `flag`.
fn switches_on(graph: &Graph, flag: ValueId) -> Vec<NodeId> {
    let readers = graph.value(flag).uses().iter().map(|usage| usage.node);
    readers
        .filter(|node| graph.node(*node).is("If") && graph.node(*node).input(0) == Some(flag))
        .collect()
}

/// Removes what nobody needs: nodes, cache inputs, the step.
pub(super) fn remove_unread(graph: &mut Graph, plan: &Plan) {
    graph.eliminate_dead_code();
    graph.remove_unused_inputs(|name| name == STEP_INPUT || plan.fed_back().any(|(input, _)| input == name));
}

/// Whether `output` is `input` as it came in.
fn passes(graph: &Graph, input: Option<ValueId>, output: ValueId) -> bool {
    let mut value = output;
    loop {
        if Some(value) == input {
            return true;
        }
        match graph.producer(value).filter(|(_, node)| node.is("Identity")) {
            Some((_, node)) => match node.input(0) {
                Some(source) => value = source,
                None => return false,
            },
            None => return false,
        }
    }
}
