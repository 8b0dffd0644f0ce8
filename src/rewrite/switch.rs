//! The switch form (design: one graph, both halves): each chosen module inside an `If`.
//!
//! The branch that computes holds the nodes that serve the cuts alone; the branch that broadcasts passes the cached
//! tensors on. Weights stay in the top-level graph and are held once. Only standard operators are used, so that every
//! ONNX host runs the result.

use super::plan::{CachePlan, CacheRole, Plan, PlanFormat, PlanSize, RulePlan, SitePlan, can_be_cached};
use super::{Choice, PLAN_KEY, RewriteError};
use crate::attention::Part;
use crate::graph::{Graph, ModelGraph, NewNode, ValueId};
use crate::onnx::messages::{DataType, Dimension, TensorShapeProto, TensorType, TypeProto, ValueInfoProto};
use crate::rules::{Rules, Strategy};

/// A patched model and how to drive it.
#[derive(Debug)]
pub struct Patched {
    /// The model, with the plan in its metadata.
    pub model: ModelGraph,
    /// The plan.
    pub plan: Plan,
}

/// Wraps every chosen site in an `If` on its rule's flag.
///
/// New inputs: the flags (`pab.broadcast.<rule>`, `bool` scalars) and the caches (`pab.cache.<site>`; with
/// several cuts `pab.cache.<site>.<part>`); new outputs: the caches for the next step (the input's name and `.next`). The original's inputs and outputs keep their places in front.
///
/// # Errors
/// [`RewriteError::AlreadyPatched`]; [`RewriteError::ElementType`] for caches that no host can hold;
/// [`RewriteError::Entangled`] for sites whose modules are not apart; [`RewriteError::NoSuchRule`] for choices that were
/// not made by [`super::select`] with these rules;
/// [`RewriteError::Graph`] where names of the new values are taken.
pub fn switch(mut model: ModelGraph, choices: &[Choice<'_>], rules: &Rules) -> Result<Patched, RewriteError> {
    refuse_patched(&model)?;
    let mut plan = Plan {
        format: PlanFormat::default(),
        generator: concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")).to_owned(),
        rules_from: rules.file.clone(),
        original: None,
        rules: Vec::new(),
        sites: Vec::new(),
        schedule: None,
    };
    let flags = add_flags(&mut model.graph, choices, rules, &mut plan)?;
    let mut inputs = Vec::with_capacity(choices.len());
    for choice in choices {
        let caches = caches_of(choice)?;
        let added = caches
            .iter()
            .map(|cache| model.graph.add_input(described(&cache.input, cache)))
            .collect::<Result<Vec<ValueId>, _>>()?;
        inputs.push(added);
        let refuse = || RewriteError::NoSuchRule {
            site: choice.site.name.clone(),
            rule: choice.rule,
        };
        let rule = flags
            .iter()
            .position(|(rule, _)| *rule == choice.rule)
            .ok_or_else(refuse)?;
        let cut = rules.rules.get(choice.rule).ok_or_else(refuse)?.cut;
        plan.sites.push(SitePlan {
            name: choice.site.name.clone(),
            kind: choice.site.kind,
            block: choice.site.block,
            module: choice.site.module.clone(),
            rule,
            cut,
            caches,
        });
    }
    for ((choice, site), caches) in choices.iter().zip(&plan.sites).zip(inputs) {
        if let Some((_, flag)) = flags.get(site.rule) {
            wrap(&mut model.graph, choice, site, *flag, &caches)?;
        }
    }
    model.graph.eliminate_dead_code();
    let json = plan.to_json()?;
    model.set_metadata(PLAN_KEY, json);
    Ok(Patched { model, plan })
}

/// Refuses a model that holds a plan: its modules stand in branches, where they are not found again.
///
/// # Errors
/// [`RewriteError::AlreadyPatched`].
pub fn refuse_patched(model: &ModelGraph) -> Result<(), RewriteError> {
    let by = match model.metadata(PLAN_KEY) {
        Some(json) => Plan::parse(json).map_or_else(|_| "an unknown version".to_owned(), |plan| plan.generator),
        None if model
            .graph
            .inputs()
            .any(|value| model.graph.value(value).name().starts_with("pab.broadcast.")) =>
        {
            "something that removed the plan".to_owned()
        }
        None => return Ok(()),
    };
    Err(RewriteError::AlreadyPatched { by })
}

/// One flag input for each rule that has a site, in the order of the rules.
fn add_flags(
    graph: &mut Graph,
    choices: &[Choice<'_>],
    rules: &Rules,
    plan: &mut Plan,
) -> Result<Vec<(usize, ValueId)>, RewriteError> {
    let mut flags = Vec::new();
    for (index, rule) in rules.rules.iter().enumerate() {
        let Some(action) = rule
            .action
            .as_ref()
            .filter(|_| choices.iter().any(|choice| choice.rule == index))
        else {
            continue;
        };
        if action.strategy != Strategy::Reuse {
            return Err(RewriteError::Strategy {
                rule: rule.name.clone(),
                strategy: action.strategy,
            });
        }
        let flag = format!("pab.broadcast.{}", rule.name);
        flags.push((index, graph.add_input(tensor_info(&flag, DataType::Bool, Vec::new()))?));
        plan.rules.push(RulePlan {
            name: rule.name.clone(),
            flag,
            strategy: action.strategy,
            timing: action.timing.clone(),
            state: None,
        });
    }
    Ok(flags)
}

/// A cache for each cut, named by the site, and by the part of its result where there are several.
fn caches_of(choice: &Choice<'_>) -> Result<Vec<CachePlan>, RewriteError> {
    let caches = choice.cuts.iter().map(|cut| {
        let input = match cut.part {
            Part::Whole => format!("pab.cache.{}", choice.site.name),
            part => format!("pab.cache.{}.{part}", choice.site.name),
        };
        let element_type = cut.element_type;
        if !can_be_cached(element_type) {
            return Err(RewriteError::ElementType {
                site: choice.site.name.clone(),
                element_type: format!("{element_type:?}"),
            });
        }
        Ok(CachePlan {
            output: format!("{input}.next"),
            input,
            element_type,
            shape: cut.shape.iter().map(PlanSize::from).collect(),
            role: CacheRole::Value,
            in_place: true,
        })
    });
    caches.collect()
}

/// Moves the module of one site into an `If` with an output for each cut.
fn wrap(
    graph: &mut Graph,
    choice: &Choice<'_>,
    site: &SitePlan,
    flag: ValueId,
    caches: &[ValueId],
) -> Result<(), RewriteError> {
    let values = choice.cuts.values();
    let nodes = graph.exclusive_to(&values);
    let is_apart = |value: &ValueId| {
        let producer = graph.producer(*value);
        producer.is_some_and(|(producer, _)| nodes.contains(&producer))
    };
    if !values.iter().all(is_apart) {
        return Err(RewriteError::Entangled {
            site: site.name.clone(),
        });
    }
    let after = nodes.last().map(|node| graph.position(*node));
    let name = &site.name;
    let outputs = values.iter().zip(&site.caches);
    let outputs: Vec<(ValueId, ValueInfoProto)> =
        outputs.map(|(value, cache)| (*value, described("", cache))).collect();
    let compute = graph.extract(&nodes, &outputs, &format!("pab.compute.{name}"))?;
    let mut broadcast = graph.nested(&format!("pab.broadcast.{name}"));
    for (input, cache) in caches.iter().zip(&site.caches) {
        let cached = broadcast.capture(*input, &cache.input);
        let kept = broadcast.add_node(NewNode {
            operator: "Identity".to_owned(),
            name: cache.input.replacen("pab.cache.", "pab.reuse.", 1),
            inputs: vec![Some(cached)],
            outputs: vec![format!("{}.reuse", cache.input)],
            ..NewNode::default()
        })?;
        if let Some(kept) = broadcast.node(kept).output(0) {
            broadcast.add_output(kept, described("", cache));
        }
    }
    let choice = graph.add_node(NewNode {
        operator: "If".to_owned(),
        name: format!("pab.{name}"),
        inputs: vec![Some(flag)],
        outputs: site.caches.iter().map(|cache| cache.output.clone()).collect(),
        bodies: vec![
            ("then_branch".to_owned(), broadcast),
            ("else_branch".to_owned(), compute),
        ],
        after,
        ..NewNode::default()
    })?;
    let next = graph.node(choice).outputs().to_vec();
    for ((value, next), cache) in values.into_iter().zip(next).zip(&site.caches) {
        if let Some(next) = next {
            graph.replace_uses(value, next);
            graph.add_output(next, described("", cache));
        }
    }
    Ok(())
}

/// Name and type of a cache.
fn described(name: &str, cache: &CachePlan) -> ValueInfoProto {
    let shape = cache.shape.iter().map(|size| match size {
        PlanSize::Number(number) => Dimension {
            dim_value: Some(*number),
            ..Dimension::default()
        },
        PlanSize::Symbol(symbol) => Dimension {
            dim_param: Some(symbol.clone()),
            ..Dimension::default()
        },
    });
    tensor_info(name, cache.element_type, shape.collect())
}

fn tensor_info(name: &str, element_type: DataType, dim: Vec<Dimension>) -> ValueInfoProto {
    let tensor_type = Some(TensorType {
        elem_type: Some(element_type as i32),
        shape: Some(TensorShapeProto { dim }),
    });
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto {
            tensor_type,
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}
