//! Forecast: the branch that broadcasts predicts the value from the last computed ones.
//!
//! The prediction is the idea of TaylorSeer ([arXiv 2503.06923](https://arxiv.org/abs/2503.06923)): a Taylor polynomial in
//! the steps, whose derivatives are finite differences of the computed values. With `x` steps since the last computed one
//! it is `f + d1*x`, and at second order `f + d1*x + d2*x*x/2`. A step that computes divides by the steps since the last
//! computed one: `d1 = (new - f) / x`, `d2 = (new d1 - d1) / x`; what needs more computed steps than there were is 0.
//! Arithmetic is in float32 where values have 16 bits.
//!
//! What all sites of a rule share stands at the top level: the state `[steps since the last computed, steps between the
//! last two computed, number computed]`, fed back like a cache, all zeros before the first step.

use super::build::{Build, described, of_cache, of_cut};
use super::module::Module;
use super::plan::StatePlan;
use super::{CachePlan, Choice, PlanSize, RewriteError};
use crate::graph::{Graph, GraphError, ValueId};
use crate::onnx::messages::DataType;
use std::iter::zip;

/// Numbers in a state.
const STATE: i64 = 3;

/// What the sites of one rule share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    /// Steps since the last computed one, this one included: float32 scalar.
    ahead: Named,
    /// Half its square, where second differences are used.
    half_square: Option<Named>,
    /// For each order of difference from the first, whether enough steps were computed before: bool scalars.
    enough: Vec<Named>,
    /// The float32 scalar 0.
    zero: Named,
}

/// A value of the top-level graph that nested graphs capture by its name.
#[derive(Clone, Debug)]
struct Named {
    value: ValueId,
    name: String,
}

impl Named {
    fn capture(&self, inner: &mut Graph) -> ValueId {
        inner.capture(self.value, &self.name)
    }
}

impl Shared {
    /// Adds the state of the rule named `rule` and what is computed from it. `order` is the highest difference.
    pub fn add(graph: &mut Graph, rule: &str, order: usize, flag: ValueId) -> Result<(Shared, StatePlan), GraphError> {
        let input = format!("pab.state.{rule}");
        let plan = StatePlan {
            output: format!("{input}.next"),
            input,
        };
        let name = |part: &str| format!("pab.forecast.{rule}.{part}");
        let info = |name: &str| described(name, DataType::Float, &[PlanSize::Number(STATE)]);
        let state = graph.add_input(info(&plan.input))?;
        let mut build = Build::new(graph);
        let mut constant = |part: &str, shape: &[i64], numbers: &[f32]| build.floats(&name(part), shape, numbers);
        let zero = constant("zero", &[], &[0.0])?;
        let one = constant("one", &[], &[1.0])?;
        let half = constant("half", &[], &[0.5])?;
        let one_step = constant("one_step", &[STATE], &[1.0, 0.0, 0.0])?;
        let all_parts = constant("all_parts", &[STATE], &[0.0, 1.0, 1.0])?;
        let no_distance = constant("no_distance", &[STATE], &[0.0, 0.0, 1.0])?;
        let first = build.integers(&name("first"), &[], &[0])?;
        let last = build.integers(&name("last"), &[], &[STATE - 1])?;
        let places = build.integers(&name("places"), &[STATE], &[0, 0, 2])?;

        let since = build.node("Gather", &[state, first], Vec::new(), &name("since"))?;
        let ahead = build.node("Add", &[since, one], Vec::new(), &name("ahead"))?;
        let count = build.node("Gather", &[state, last], Vec::new(), &name("count"))?;
        let mut enough = Vec::with_capacity(order);
        for difference in 1..=order {
            // Counts are whole numbers, so half of one lies safely between two.
            let least = build.floats(&name(&format!("least_{difference}")), &[], &[difference as f32 - 0.5])?;
            let name = name(&format!("enough_{difference}"));
            let value = build.node("Greater", &[count, least], Vec::new(), &name)?;
            enough.push(Named { value, name });
        }
        let half_square = (order > 1)
            .then(|| -> Result<Named, GraphError> {
                let square = build.node("Mul", &[ahead, ahead], Vec::new(), &name("square"))?;
                let name = name("half_square");
                let value = build.node("Mul", &[square, half], Vec::new(), &name)?;
                Ok(Named { value, name })
            })
            .transpose()?;

        // Broadcast: one step more. Computed: [0, steps since the last computed, one more], without a distance at first.
        let passed = build.node("Add", &[state, one_step], Vec::new(), &name("passed"))?;
        let parts = build.node("Gather", &[state, places], Vec::new(), &name("parts"))?;
        let more = build.node("Add", &[parts, one], Vec::new(), &name("more"))?;
        let before = match enough.first() {
            Some(enough) => build.node(
                "Where",
                &[enough.value, all_parts, no_distance],
                Vec::new(),
                &name("kept_parts"),
            )?,
            None => all_parts,
        };
        let computed = build.node("Mul", &[more, before], Vec::new(), &name("computed"))?;
        let next = build.node("Where", &[flag, passed, computed], Vec::new(), &plan.output)?;
        graph.add_output(next, info(&plan.output));
        let shared = Shared {
            ahead: Named {
                value: ahead,
                name: name("ahead"),
            },
            half_square,
            enough,
            zero: Named {
                value: zero,
                name: name("zero"),
            },
        };
        Ok((shared, plan))
    }

    /// The highest order of difference.
    fn order(&self) -> usize {
        self.enough.len()
    }
}

/// Puts the module of the site of `choice` into an `If` on `flag`. `caches` are the site's: for each cut the value and its differences
/// in their order; `inputs` are their inputs.
///
/// The `If` gives a value for each cut, and then the caches.
pub(super) fn wrap(
    graph: &mut Graph,
    mut module: Module,
    choice: &Choice<'_>,
    caches: &[CachePlan],
    inputs: &[ValueId],
    flag: ValueId,
    shared: &Shared,
) -> Result<(), RewriteError> {
    let mut broadcast = module.broadcast(graph);
    let each = shared.order() + 1;
    let computed: Vec<ValueId> = module.compute.outputs().collect();
    let cuts = choice.cuts.iter().zip(caches.chunks(each)).zip(inputs.chunks(each));
    let sites: Vec<Site<'_>> = cuts
        .map(|((cut, caches), inputs)| Site {
            element_type: cut.element_type,
            caches,
            inputs,
            shared,
        })
        .collect();
    let mut outputs: Vec<String> = Vec::with_capacity(choice.cuts.count() * (each + 1));
    for (site, cut) in zip(&sites, choice.cuts.iter()) {
        let value = site.predicted(&mut broadcast)?;
        broadcast.add_output(value, of_cut("", cut));
        outputs.push(site.name("value"));
    }
    for (site, value) in zip(&sites, computed) {
        let kept = site.kept(&mut broadcast)?;
        let fresh = site.fresh(&mut module.compute, value)?;
        for ((kept, fresh), cache) in zip(kept, fresh).zip(site.caches) {
            let info = of_cache("", cache);
            broadcast.add_output(kept, info.clone());
            module.compute.add_output(fresh, info);
            outputs.push(cache.output.clone());
        }
    }
    module.put_back(graph, flag, broadcast, outputs)?;
    for cache in caches {
        if let Some(next) = graph.find(&cache.output) {
            graph.add_output(next, of_cache("", cache));
        }
    }
    Ok(())
}

/// A value that is forecast, with its caches: a cut of a site, or what a span added to a stream.
pub(super) struct Site<'s> {
    /// The type of the value's elements.
    pub element_type: DataType,
    /// Of the value, and of its differences in their order.
    pub caches: &'s [CachePlan],
    /// Their inputs.
    pub inputs: &'s [ValueId],
    /// What the sites of the rule share.
    pub shared: &'s Shared,
}

impl Site<'_> {
    /// The name of one of its values: that of the first cache with another middle.
    fn name(&self, part: &str) -> String {
        let cache = self.caches.first().map_or("", |cache| cache.input.as_str());
        cache.replacen("pab.cache.", &format!("pab.{part}."), 1)
    }

    /// The type that is computed in.
    fn arithmetic(&self) -> DataType {
        match self.element_type {
            DataType::Double => DataType::Double,
            _ => DataType::Float,
        }
    }

    /// The first `count` caches in the type that is computed in.
    fn read(&self, inner: &mut Graph, count: usize) -> Result<Vec<ValueId>, GraphError> {
        let caches = self.caches.iter().zip(self.inputs);
        caches
            .take(count)
            .map(|(cache, input)| {
                let value = inner.capture(*input, &cache.input);
                let name = cache.input.replacen("pab.cache.", "pab.read.", 1);
                cast(inner, value, cache.element_type, self.arithmetic(), &name)
            })
            .collect()
    }

    /// A number of the rule in the type that is computed in.
    fn number(&self, inner: &mut Graph, number: &Named, part: &str) -> Result<ValueId, GraphError> {
        let value = number.capture(inner);
        cast(inner, value, DataType::Float, self.arithmetic(), &self.name(part))
    }

    /// In the branch that broadcasts: the predicted value.
    pub fn predicted(&self, inner: &mut Graph) -> Result<ValueId, GraphError> {
        let read = self.read(inner, self.caches.len())?;
        let steps = [Some(&self.shared.ahead), self.shared.half_square.as_ref()];
        let mut read = read.into_iter();
        let mut sum = read.next().ok_or_else(|| self.without_cache())?;
        for (place, (difference, steps)) in read.zip(steps.into_iter().flatten()).enumerate() {
            let steps = self.number(inner, steps, &format!("steps_{place}"))?;
            let mut build = Build::new(inner);
            let term = build.node(
                "Mul",
                &[difference, steps],
                Vec::new(),
                &self.name(&format!("term_{place}")),
            )?;
            sum = build.node("Add", &[sum, term], Vec::new(), &self.name(&format!("sum_{place}")))?;
        }
        let name = self.name("predicted");
        cast(inner, sum, self.arithmetic(), self.element_type, &name)
    }

    /// In the branch that broadcasts: the caches as they are.
    pub fn kept(&self, inner: &mut Graph) -> Result<Vec<ValueId>, GraphError> {
        let caches = self.caches.iter().zip(self.inputs);
        caches
            .map(|(cache, input)| {
                let value = inner.capture(*input, &cache.input);
                Build::new(inner).identity(value, &format!("{}.reuse", cache.input))
            })
            .collect()
    }

    /// In the branch that computes: the caches of the new value.
    ///
    /// Each difference is that of the one below it, which is taken as it is cached: rounded where caches are narrowed, so
    /// that a value that stays the same has differences of 0.
    pub fn fresh(&self, inner: &mut Graph, value: ValueId) -> Result<Vec<ValueId>, GraphError> {
        // The highest difference is made from those below it.
        let read = self.read(inner, self.shared.order())?;
        let ahead = self.number(inner, &self.shared.ahead, "ahead")?;
        let zero = self.number(inner, &self.shared.zero, "zero")?;
        let mut fresh = Vec::with_capacity(self.caches.len());
        let (mut new, mut element_type) = (value, self.element_type);
        let mut differences = read.into_iter().zip(&self.shared.enough);
        for (order, cache) in self.caches.iter().enumerate() {
            let mut cached = cast(
                inner,
                new,
                element_type,
                cache.element_type,
                &format!("{}.narrowed", cache.input),
            )?;
            if cached == value {
                // The branch gives the value already, and each output is to be one of its own.
                cached = Build::new(inner).identity(value, &format!("{}.computed", cache.input))?;
            }
            fresh.push(cached);
            let Some((old, enough)) = differences.next() else { break };
            let name = |part: &str| self.name(&format!("{part}_{}", order + 1));
            element_type = self.arithmetic();
            let rounded = cast(
                inner,
                cached,
                cache.element_type,
                element_type,
                &format!("{}.rounded", cache.input),
            )?;
            let enough = enough.capture(inner);
            let mut build = Build::new(inner);
            let change = build.node("Sub", &[rounded, old], Vec::new(), &name("change"))?;
            let slope = build.node("Div", &[change, ahead], Vec::new(), &name("slope"))?;
            new = build.node("Where", &[enough, slope, zero], Vec::new(), &name("difference"))?;
        }
        Ok(fresh)
    }

    /// No plan made here runs into this.
    fn without_cache(&self) -> GraphError {
        GraphError::Undefined {
            name: self.name("cache"),
            by: "a forecast".to_owned(),
        }
    }
}

/// `value` of type `from` in type `to`; the value itself where these are the same.
fn cast(graph: &mut Graph, value: ValueId, from: DataType, to: DataType, name: &str) -> Result<ValueId, GraphError> {
    if from == to {
        return Ok(value);
    }
    Build::new(graph).cast(value, to, name)
}
