//! A plan as the runtime takes it.

use super::GenerationError;
use crate::rewrite::{CacheRole, Drive, Plan, PlanSize, STEP_INPUT};
use crate::rules::Strategy;
use crate::runtime::{CachePort, ElementType, Extent, Feedback, StatePort, StepTable};

/// Flags and caches of a plan, as the runtime takes them.
impl TryFrom<&Plan> for Feedback {
    type Error = GenerationError;

    fn try_from(plan: &Plan) -> Result<Feedback, GenerationError> {
        let guidance = plan.rules.iter().position(|rule| rule.strategy == Strategy::Guidance);
        let caches = plan.caches().map(|(site, cache)| {
            let element_type =
                ElementType::from_onnx(cache.element_type).ok_or_else(|| GenerationError::CacheType {
                    cache: cache.input.clone(),
                    element_type: format!("{:?}", cache.element_type),
                })?;
            let shape = cache.shape.iter().map(|size| match size {
                PlanSize::Number(number) => Extent::Number(*number),
                PlanSize::Symbol(symbol) => Extent::Formula(symbol.clone()),
            });
            let (input, output) = (cache.input.clone(), cache.output.clone());
            Ok(CachePort {
                input,
                output,
                rule: site.rule,
                element_type,
                shape: shape.collect(),
                difference: match cache.role {
                    CacheRole::Value | CacheRole::Residual | CacheRole::Guidance | CacheRole::Indicator => 0,
                    CacheRole::FirstDifference => 1,
                    CacheRole::SecondDifference => 2,
                },
                in_place: cache.in_place,
                // Beside guidance there are no forecasts, so nothing else keeps it from being written in place.
                halved_by: guidance.filter(|_| !cache.in_place),
                adaptive: plan.rules.get(site.rule).is_some_and(|rule| rule.adaptive.is_some()),
            })
        });
        let flags = plan.rules.iter().map(|rule| rule.flag.clone()).collect();
        let steps = match (plan.drive, &plan.schedule) {
            (Drive::Step, Some(schedule)) => Some(StepTable {
                input: STEP_INPUT.to_owned(),
                flags: (0..schedule.steps()).map(|step| schedule.flags(step)).collect(),
            }),
            _ => None,
        };
        Ok(Feedback {
            flags,
            steps,
            caches: caches.collect::<Result<_, GenerationError>>()?,
            states: plan
                .rules
                .iter()
                .enumerate()
                .filter_map(|(index, rule)| Some((rule.state.as_ref()?, rule.adaptive.as_ref().map(|_| index))))
                .map(|(state, decides)| StatePort {
                    input: state.input.clone(),
                    output: state.output.clone(),
                    decides,
                })
                .collect(),
        })
    }
}
