//! The switch form (design: one graph, both halves): each chosen module inside an `If`.
//!
//! The branch that computes holds the nodes that serve the cuts alone; the branch that broadcasts passes the cached
//! tensors on. Weights stay in the top-level graph and are held once. Only standard operators are used, so that every
//! ONNX host runs the result.

use super::build::{described, of_cache};
use super::drift::Decision;
use super::forecast::{self, Shared};
use super::halved::{Guided, Halved, of_value};
use super::module::Module;
use super::plan::{CachePlan, CacheRole, Plan, PlanFormat, PlanSize, RulePlan, SiteKind, SitePlan, can_be_cached};
use super::shape_arithmetic::ShapeArithmetic;
use super::{CacheType, Choice, Drive, PLAN_KEY, RewriteError, Wide, reuse};
use crate::attention::Part;
use crate::graph::{Graph, ModelGraph, ValueId};
use crate::onnx::messages::DataType;
use crate::rules::{ForecastOrder, Rules, Strategy};

/// How caches are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwitchOptions {
    /// The element type of caches; `None` is that of their values. Never wider than the value.
    pub cache_type: Option<CacheType>,
}

impl SwitchOptions {
    /// The type in which a value of type `value` is cached.
    pub fn element_type(&self, value: DataType) -> DataType {
        self.cache_type.map_or(value, |cache_type| cache_type.narrow(value))
    }
}

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
/// several cuts `pab.cache.<site>.<part>`); new outputs: the caches for the next step (the input's name and `.next`).
/// A rule that is adaptive has a state, too, and a cache for what it decides by (`pab.cache.indicator.<rule>`).
/// Forecasts also have caches of the finite differences (`.d1`, `.d2`) and a state for each rule (`pab.state.<rule>`).
/// The original's inputs and outputs keep their places in front.
///
/// # Errors
/// [`RewriteError::AlreadyPatched`]; [`RewriteError::CacheType`] for caches that the model's operator set cannot give;
/// [`RewriteError::ElementType`] for caches that no host can hold;
/// [`RewriteError::Entangled`] for sites whose modules are not apart; [`RewriteError::NoSuchRule`] for choices that were
/// not made by [`super::select`] with these rules;
/// [`RewriteError::Graph`] where names of the new values are taken.
pub fn switch(
    model: ModelGraph,
    choices: &[Choice<'_>],
    rules: &Rules,
    options: &SwitchOptions,
) -> Result<Patched, RewriteError> {
    switch_wide(model, choices, &Wide::default(), rules, options)
}

/// The same with spans of blocks and guidance, which have caches of their own (`pab.cache.span.<rule>`,
/// `pab.cache.guidance.<rule>`).
///
/// # Errors
/// Those of [`switch`]; [`RewriteError::ElementType`] for streams that no host can hold, and
/// [`RewriteError::GuidanceSite`] for values beside guidance that do not fall into halves of the batch.
pub fn switch_wide(
    mut model: ModelGraph,
    choices: &[Choice<'_>],
    wide: &Wide,
    rules: &Rules,
    options: &SwitchOptions,
) -> Result<Patched, RewriteError> {
    refuse_patched(&model)?;
    if let Some(cache_type) = options.cache_type {
        refuse_old(&model, choices, wide, cache_type)?;
    }
    model.declare_runtime_operators();
    let mut plan = Plan {
        format: PlanFormat::default(),
        generator: concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")).to_owned(),
        rules_from: rules.file.clone(),
        original: None,
        original_sha256: None,
        drive: Drive::Flags,
        rules: Vec::new(),
        sites: Vec::new(),
        dropped: Vec::new(),
        schedule: None,
    };
    let driven = add_rules(&mut model.graph, choices, wide, rules, &mut plan)?;
    let flags: Vec<(usize, ValueId)> = driven.iter().map(|driven| (driven.rule, driven.flag)).collect();
    let guided = match &wide.guidance {
        Some(choice) => {
            let cuts = choices.iter().flat_map(|choice| choice.cuts.iter());
            Some(wide.guided(&mut model.graph, choice, rules, &flags, cuts)?)
        }
        None => None,
    };
    let shared: Vec<Option<&Shared>> = driven.iter().map(|driven| driven.shared.as_ref()).collect();
    wide.wrap(&mut model.graph, &flags, &shared, guided.as_ref(), options, &mut plan)?;
    let mut inputs = Vec::with_capacity(choices.len());
    for choice in choices {
        let refuse = || RewriteError::NoSuchRule {
            site: choice.site.name.clone(),
            rule: choice.rule,
        };
        let driven_by = driven.iter().position(|driven| driven.rule == choice.rule);
        let driven_by = driven_by.ok_or_else(refuse)?;
        let rule = rules.rules.get(choice.rule).ok_or_else(refuse)?;
        let strategy = rule.strategy().unwrap_or_default();
        let caches = caches_of(choice, strategy, guided.as_ref(), options)?;
        let added = caches.iter().map(|cache| {
            let info = of_cache(&cache.input, cache);
            model.graph.add_input(info)
        });
        inputs.push(added.collect::<Result<Vec<ValueId>, _>>()?);
        plan.sites.push(SitePlan {
            name: choice.site.name.clone(),
            kind: SiteKind::Module(choice.site.kind),
            block: choice.site.block,
            last_block: None,
            module: choice.site.module.clone(),
            rule: driven_by,
            cut: rule.cut,
            caches,
        });
    }
    let sizes = ShapeArithmetic::prepare(&mut model.graph, choices);
    let sites = plan.sites.iter().skip(wide.count());
    for ((choice, site), inputs) in choices.iter().zip(sites).zip(inputs) {
        let Some(Driven { flag, shared, .. }) = driven.get(site.rule) else {
            continue;
        };
        let halved = choice
            .cuts
            .iter()
            .map(|cut| Halved::of(guided.as_ref(), &site.name, cut));
        let halved: Vec<Option<Halved<'_>>> = halved.collect::<Result<_, _>>()?;
        let types = choice
            .cuts
            .iter()
            .zip(&halved)
            .map(|(cut, halved)| of_value(cut, *halved));
        let module = Module::take(&mut model.graph, choice, &sizes, types)?;
        match shared {
            None => reuse::wrap(&mut model.graph, module, choice, &site.caches, &inputs, *flag, &halved)?,
            Some(shared) => forecast::wrap(&mut model.graph, module, choice, &site.caches, &inputs, *flag, shared)?,
        }
    }
    for (place, indicator) in driven
        .iter()
        .enumerate()
        .filter_map(|(place, driven)| Some((place, driven.indicator.as_ref()?)))
    {
        // It stands with the rule's first site, so that a host that hands on all caches hands it on too.
        if let Some(site) = plan.sites.iter_mut().find(|site| site.rule == place) {
            site.caches.push(indicator.clone());
        }
    }
    model.graph.eliminate_dead_code();
    let json = plan.to_json()?;
    model.set_metadata(PLAN_KEY, json);
    Ok(Patched { model, plan })
}

/// Refuses bfloat16 where the operator set has no `If` for it.
fn refuse_old(
    model: &ModelGraph,
    choices: &[Choice<'_>],
    wide: &Wide,
    cache_type: CacheType,
) -> Result<(), RewriteError> {
    /// The first operator set whose `If` gives bfloat16.
    const NEEDED: i64 = 16;
    let of_sites = choices.iter().flat_map(|choice| choice.cuts.iter());
    let mut types = of_sites.map(|cut| cut.element_type).chain(wide.element_types());
    let narrowed = types.any(|value| value != DataType::Bfloat16 && cache_type.narrow(value) == DataType::Bfloat16);
    match model.opset("") {
        Some(opset) if narrowed && opset < NEEDED => Err(RewriteError::CacheType {
            cache_type,
            opset,
            needed: NEEDED,
        }),
        _ => Ok(()),
    }
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
            .any(|value| model.graph.value(value).name().starts_with("pab.")) =>
        {
            "something that removed the plan".to_owned()
        }
        None => return Ok(()),
    };
    Err(RewriteError::AlreadyPatched { by })
}

/// What drives the sites of a rule.
struct Driven {
    /// The rule, as an index of [`Rules::rules`].
    rule: usize,
    /// True broadcasts: the host's flag, or what the model decides where that allows it.
    flag: ValueId,
    /// What its sites share, where it forecasts.
    shared: Option<Shared>,
    /// What the model decides by, where it does.
    indicator: Option<CachePlan>,
}

/// A flag input for each rule that has a site, in the order of the rules, and what the sites of forecasts share.
fn add_rules(
    graph: &mut Graph,
    choices: &[Choice<'_>],
    wide: &Wide,
    rules: &Rules,
    plan: &mut Plan,
) -> Result<Vec<Driven>, RewriteError> {
    let mut driven = Vec::new();
    for (index, rule) in rules.rules.iter().enumerate() {
        let Some(action) = rule
            .action
            .as_ref()
            .filter(|_| wide.has(index) || choices.iter().any(|choice| choice.rule == index))
        else {
            continue;
        };
        let name = format!("pab.broadcast.{}", rule.name);
        let flag = graph.add_input(described(&name, DataType::Bool, &[]))?;
        let (mut drives, mut shared, mut state, mut indicator) = (flag, None, None, None);
        match (differences(action.strategy), &action.adaptive) {
            (0, None) => {}
            (0, Some(adaptive)) => {
                let told_by = wide.indicator(index, rule, choices)?;
                let decision = Decision::add(graph, &rule.name, adaptive, told_by, flag, &wide.agreeing)?;
                drives = decision.value;
                state = Some(decision.state);
                indicator = Some(decision.indicator);
            }
            (order, _) => {
                let (added, of_rule) = Shared::add(graph, &rule.name, order, flag)?;
                shared = Some(added);
                state = Some(of_rule);
            }
        }
        driven.push(Driven {
            rule: index,
            flag: drives,
            shared,
            indicator,
        });
        plan.rules.push(RulePlan {
            name: rule.name.clone(),
            flag: name,
            strategy: action.strategy,
            timing: action.timing.clone(),
            adaptive: action.adaptive.clone(),
            state,
        });
    }
    Ok(driven)
}

/// How many finite differences a strategy caches beside each value.
pub(super) fn differences(strategy: Strategy) -> usize {
    match strategy {
        Strategy::Reuse | Strategy::Residual | Strategy::Guidance => 0,
        Strategy::Forecast { order } | Strategy::ResidualForecast { order } => match order {
            ForecastOrder::First => 1,
            ForecastOrder::Second => 2,
        },
    }
}

/// Caches of finite differences by their order, with the endings of their names.
pub(super) const DIFFERENCES: [(CacheRole, &str); 2] = [
    (CacheRole::FirstDifference, ".d1"),
    (CacheRole::SecondDifference, ".d2"),
];

/// The caches for each cut: the value, named by the site, and by the part of its result where there are several; and
/// its finite differences where it is forecast.
fn caches_of(
    choice: &Choice<'_>,
    strategy: Strategy,
    guided: Option<&Guided>,
    options: &SwitchOptions,
) -> Result<Vec<CachePlan>, RewriteError> {
    let mut caches = Vec::new();
    for cut in choice.cuts.iter() {
        if !can_be_cached(cut.element_type) {
            return Err(RewriteError::ElementType {
                site: choice.site.name.clone(),
                element_type: format!("{:?}", cut.element_type),
            });
        }
        let name = match cut.part {
            Part::Whole => format!("pab.cache.{}", choice.site.name),
            part => format!("pab.cache.{}.{part}", choice.site.name),
        };
        let halved = Halved::of(guided, &choice.site.name, cut)?;
        let differences_of = DIFFERENCES.into_iter().take(differences(strategy));
        for (role, ending) in std::iter::once((CacheRole::Value, "")).chain(differences_of) {
            let input = format!("{name}{ending}");
            caches.push(CachePlan {
                output: format!("{input}.next"),
                input,
                element_type: options.element_type(cut.element_type),
                shape: cut.shape.iter().map(PlanSize::from).collect(),
                role,
                // A step that computes differences, or one half of the batch, reads what was there.
                in_place: differences(strategy) == 0 && halved.is_none(),
            });
        }
    }
    Ok(caches)
}
