//! Drift: how far a cheap value has changed since the last computed step, and whether that lets a rule broadcast.
//!
//! The idea is that of TeaCache ([arXiv 2411.19108](https://arxiv.org/abs/2411.19108)): what enters the first module of a rule
//! behind its modulation changes about as much as what the rule leaves out. Each step adds the relative change of that
//! indicator, `sum |x - y| / sum |y|` for `x` now and `y` in the step before, to what was added since the last computed
//! step; below the rule's threshold the rule broadcasts, else it computes and the sum begins anew. Where a polynomial is
//! given, the change is put through it first, and what comes out below 0 counts as 0.
//!
//! All of it stands at the top level, in float32. The state `[drift since the last computed step, 1 behind the first step,
//! 1 if this step broadcast]` is fed back like that of a forecast, zeros before the first step, and the indicator like a
//! cache. A comparison with what is no number is false, so that such a step computes.
//!
//! Ranks of a split model add up both sums first (`agreement.rs`), so that all decide alike, and as the whole does.

use super::PlanSize;
use super::agreement::agreed;
use super::build::{Build, described};
use super::plan::{CachePlan, CacheRole, StatePlan};
use crate::attention::Cut;
use crate::graph::{Graph, GraphError, ValueId};
use crate::onnx::messages::DataType;
use crate::rules::Adaptive;
use crate::shard::Group;

/// Numbers in a state.
const STATE: i64 = 3;

/// The value that says whether a rule broadcasts: what the host allows and the drift lets pass.
pub(super) fn decision_name(rule: &str) -> String {
    format!("pab.decision.{rule}")
}

/// What decides for a rule.
#[derive(Debug)]
pub(super) struct Decision {
    /// A bool scalar: true broadcasts.
    pub value: ValueId,
    /// Its state.
    pub state: StatePlan,
    /// The indicator of the step before.
    pub indicator: CachePlan,
}

impl Decision {
    /// Adds what decides for the rule named `rule`, where `flag` says whether it may broadcast. `agreeing` are the axes of
    /// the mesh whose ranks decide together.
    pub fn add(
        graph: &mut Graph,
        rule: &str,
        adaptive: &Adaptive,
        indicator: &Cut,
        flag: ValueId,
        agreeing: &[Group],
    ) -> Result<Decision, GraphError> {
        let input = format!("pab.state.{rule}");
        let state = StatePlan {
            output: format!("{input}.next"),
            input,
        };
        let input = format!("pab.cache.indicator.{rule}");
        let kept = CachePlan {
            output: format!("{input}.next"),
            input,
            element_type: indicator.element_type,
            shape: indicator.shape.iter().map(PlanSize::from).collect(),
            role: CacheRole::Indicator,
            // The step reads what it replaces.
            in_place: false,
        };
        let name = |part: &str| format!("pab.drift.{rule}.{part}");
        let state_info = |name: &str| described(name, DataType::Float, &[PlanSize::Number(STATE)]);
        let kept_info = |name: &str| described(name, kept.element_type, &kept.shape);
        let before = graph.add_input(kept_info(&kept.input))?;
        let held = graph.add_input(state_info(&state.input))?;
        let mut build = Build::new(graph);
        let mut float = |value: ValueId, part: &str| match kept.element_type {
            DataType::Float => Ok(value),
            _ => build.cast(value, DataType::Float, &name(part)),
        };
        let (now, before) = (float(indicator.value, "now")?, float(before, "before")?);
        let change = build.node("Sub", &[now, before], Vec::new(), &name("change"))?;
        // Without axes both sum over all elements, to a scalar where dimensions are not kept.
        let scalar = || vec![super::node::integer("keepdims", 0)];
        let changed = build.node("ReduceL1", &[change], scalar(), &name("changed"))?;
        let whole = build.node("ReduceL1", &[before], scalar(), &name("whole"))?;
        let [changed, whole] = agreed(build.graph, rule, [changed, whole], agreeing)?;
        let mut step = build.node("Div", &[changed, whole], Vec::new(), &name("relative"))?;
        if let Some(rescaled) = rescaled(&mut build, step, adaptive.rescale(), &name)? {
            step = rescaled;
        }
        let places = ["drift", "filled"].into_iter().zip(0..);
        let parts = places.map(|(part, place)| {
            let place = build.integers(&name(&format!("{part}_place")), &[], &[place])?;
            build.node("Gather", &[held, place], Vec::new(), &name(&format!("{part}_before")))
        });
        let parts: Vec<ValueId> = parts.collect::<Result<_, GraphError>>()?;
        let [drift, filled] = parts[..] else {
            // There are two places.
            return Err(GraphError::Undefined {
                name: state.input,
                by: "a decision".to_owned(),
            });
        };
        let drift = build.node("Add", &[drift, step], Vec::new(), &name("drift"))?;
        let threshold = build.floats(&name("threshold"), &[], &[adaptive.threshold() as f32])?;
        let below = build.node("Less", &[drift, threshold], Vec::new(), &name("below"))?;
        let half = build.floats(&name("half"), &[], &[0.5])?;
        let is_filled = build.node("Greater", &[filled, half], Vec::new(), &name("is_filled"))?;
        let may = build.node("And", &[flag, is_filled], Vec::new(), &name("may"))?;
        let value = build.node("And", &[may, below], Vec::new(), &decision_name(rule))?;
        // Behind a broadcast the drift goes on; a computed step begins anew.
        let only = |build: &mut Build<'_>, part: &str, numbers: [f32; 3]| build.floats(&name(part), &[STATE], &numbers);
        let first = only(&mut build, "first", [1.0, 0.0, 0.0])?;
        let broadcast = only(&mut build, "broadcast", [0.0, 1.0, 1.0])?;
        let computed = only(&mut build, "computed", [0.0, 1.0, 0.0])?;
        let drift = build.node("Mul", &[drift, first], Vec::new(), &name("alone"))?;
        let passed = build.node("Add", &[drift, broadcast], Vec::new(), &name("passed"))?;
        let next = build.node("Where", &[value, passed, computed], Vec::new(), &state.output)?;
        let same = build.identity(indicator.value, &kept.output)?;
        graph.add_output(next, state_info(&state.output));
        graph.add_output(same, kept_info(&kept.output));
        Ok(Decision {
            value,
            state,
            indicator: kept,
        })
    }
}

/// A change put through a polynomial, whose coefficients stand from the highest power down; nothing where there are none.
fn rescaled(
    build: &mut Build<'_>,
    change: ValueId,
    coefficients: &[f64],
    name: &impl Fn(&str) -> String,
) -> Result<Option<ValueId>, GraphError> {
    let Some((highest, others)) = coefficients.split_first() else {
        return Ok(None);
    };
    let mut sum = build.floats(&name("coefficient_0"), &[], &[*highest as f32])?;
    for (place, coefficient) in others.iter().enumerate() {
        let product = build.node("Mul", &[sum, change], Vec::new(), &name(&format!("product_{place}")))?;
        let part = format!("coefficient_{}", place + 1);
        let coefficient = build.floats(&name(&part), &[], &[*coefficient as f32])?;
        sum = build.node(
            "Add",
            &[product, coefficient],
            Vec::new(),
            &name(&format!("polynomial_{place}")),
        )?;
    }
    // What is no number stays none, which `Max` does not promise.
    let zero = build.floats(&name("zero"), &[], &[0.0])?;
    let negative = build.node("Less", &[sum, zero], Vec::new(), &name("negative"))?;
    let clamped = build.node("Where", &[negative, zero, sum], Vec::new(), &name("rescaled"))?;
    Ok(Some(clamped))
}
