//! A model from which modules are taken out: the static graph of a step that broadcasts them.

use super::{PLAN_KEY, Plan, RewriteError};
use crate::graph::ModelGraph;
use crate::onnx::messages::{DataType, TensorProto};

/// Turns the flags of a patched model into constants: one static graph for one set of flags (a variant).
///
/// `flags` holds one entry for each rule of the plan. Modules that are broadcast are taken out with all that served
/// them alone, and their cache inputs take their place; the others stand as in the original, without their `If`. No
/// cache is put out and none is taken that is not read: this is the least that such a step can cost.
///
/// # Errors
/// [`RewriteError::Graph`] where the model is not one that [`super::switch`] made by this plan.
pub fn without(mut model: ModelGraph, plan: &Plan, flags: &[bool]) -> Result<ModelGraph, RewriteError> {
    for (rule, broadcast) in plan.rules.iter().zip(flags) {
        let Some(flag) = model.graph.find(&rule.flag) else {
            continue;
        };
        let users: Vec<_> = model.graph.value(flag).uses().iter().map(|usage| usage.node).collect();
        let taken = if *broadcast { "then_branch" } else { "else_branch" };
        for node in users {
            if model.graph.contains(node) && model.graph.node(node).is("If") {
                model.graph.inline_body(node, taken)?;
            }
        }
        let constant = TensorProto {
            data_type: Some(DataType::Bool as i32),
            int32_data: vec![i32::from(*broadcast)],
            ..TensorProto::default()
        };
        model.graph.fix_input(flag, constant);
    }
    for (_, cache) in plan.caches() {
        if let Some(next) = model.graph.find(&cache.output) {
            model.graph.remove_output(next);
        }
    }
    model.graph.eliminate_dead_code();
    model
        .graph
        .remove_unused_inputs(|name| plan.caches().any(|(_, cache)| cache.input == name));
    model.remove_metadata(PLAN_KEY);
    Ok(model)
}
