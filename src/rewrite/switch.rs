//! The switch form (design: one graph, both halves): each chosen module inside an `If`.
//!
//! The branch that computes holds the nodes that serve the cut alone; the branch that broadcasts passes the cached
//! tensor on. Weights stay in the top-level graph and are held once. Only standard operators are used, so that every
//! ONNX host runs the result.

use super::plan::{CachePlan, Plan, PlanFormat, PlanSize, RulePlan, SitePlan, can_be_cached};
use super::{Choice, PLAN_KEY, RewriteError};
use crate::graph::{Graph, ModelGraph, NewNode, ValueId};
use crate::onnx::messages::{DataType, Dimension, TensorShapeProto, TensorType, TypeProto, ValueInfoProto};
use crate::rules::Rules;

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
/// New inputs: the flags (`pab.broadcast.<rule>`, `bool` scalars) and the caches (`pab.cache.<site>`); new outputs: the
/// caches for the next step (`pab.cache.<site>.next`). The original's inputs and outputs keep their places in front.
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
    let mut caches = Vec::with_capacity(choices.len());
    for choice in choices {
        let cache = cache_of(choice)?;
        caches.push(model.graph.add_input(described(&cache.input, &cache))?);
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
            cache,
        });
    }
    for ((choice, site), cache) in choices.iter().zip(&plan.sites).zip(caches) {
        if let Some((_, flag)) = flags.get(site.rule) {
            wrap(&mut model.graph, choice, site, *flag, cache)?;
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
        let Some(broadcast) = rule
            .broadcast
            .filter(|_| choices.iter().any(|choice| choice.rule == index))
        else {
            continue;
        };
        let flag = format!("pab.broadcast.{}", rule.name);
        flags.push((index, graph.add_input(tensor_info(&flag, DataType::Bool, Vec::new()))?));
        plan.rules.push(RulePlan {
            name: rule.name.clone(),
            flag,
            broadcast,
        });
    }
    Ok(flags)
}

fn cache_of(choice: &Choice<'_>) -> Result<CachePlan, RewriteError> {
    let input = format!("pab.cache.{}", choice.site.name);
    let element_type = choice.cut.element_type;
    if !can_be_cached(element_type) {
        return Err(RewriteError::ElementType {
            site: choice.site.name.clone(),
            element_type: format!("{element_type:?}"),
        });
    }
    let shape = choice.cut.shape.iter().map(PlanSize::from);
    Ok(CachePlan {
        output: format!("{input}.next"),
        input,
        element_type,
        shape: shape.collect(),
    })
}

/// Moves the module of one site into an `If`.
fn wrap(
    graph: &mut Graph,
    choice: &Choice<'_>,
    site: &SitePlan,
    flag: ValueId,
    cache: ValueId,
) -> Result<(), RewriteError> {
    let value = choice.cut.value;
    let nodes = graph.exclusive_to(&[value]);
    let producer = graph.producer(value).map(|(node, _)| node);
    if producer.is_none_or(|producer| !nodes.contains(&producer)) {
        return Err(RewriteError::Entangled {
            site: site.name.clone(),
        });
    }
    let after = nodes.last().map(|node| graph.position(*node));
    let name = &site.name;
    let compute = graph.extract(
        &nodes,
        &[(value, described("", &site.cache))],
        &format!("pab.compute.{name}"),
    )?;
    let mut broadcast = graph.nested(&format!("pab.broadcast.{name}"));
    let cached = broadcast.capture(cache, &site.cache.input);
    let kept = broadcast.add_node(NewNode {
        operator: "Identity".to_owned(),
        name: format!("pab.reuse.{name}"),
        inputs: vec![Some(cached)],
        outputs: vec![format!("{}.reuse", site.cache.input)],
        ..NewNode::default()
    })?;
    if let Some(kept) = broadcast.node(kept).output(0) {
        broadcast.add_output(kept, described("", &site.cache));
    }
    let choice = graph.add_node(NewNode {
        operator: "If".to_owned(),
        name: format!("pab.{name}"),
        inputs: vec![Some(flag)],
        outputs: vec![site.cache.output.clone()],
        bodies: vec![
            ("then_branch".to_owned(), broadcast),
            ("else_branch".to_owned(), compute),
        ],
        after,
        ..NewNode::default()
    })?;
    if let Some(next) = graph.node(choice).output(0) {
        graph.replace_uses(value, next);
        graph.add_output(next, described("", &site.cache));
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
