//! A model for one set of flags: the static graph of a step that broadcasts them.

use super::{PLAN_KEY, Plan, RewriteError};
use crate::graph::{GraphError, ModelGraph};
use crate::onnx::messages::{DataType, TensorProto};

/// The static graph of a patched model for one set of flags, which takes caches and gives them (a variant).
///
/// `flags` holds one entry for each rule of the plan. Modules that are broadcast are taken out with all that served
/// them alone; the others stand as in the original, without their `If`. Inputs that nothing reads are not there.
/// Variants chained over the steps of a run, each fed what the one before gave, compute what the patched model does.
///
/// # Errors
/// [`RewriteError::Graph`] where the model is not one that [`super::switch`] made by this plan.
pub fn variant(mut model: ModelGraph, plan: &Plan, flags: &[bool]) -> Result<ModelGraph, RewriteError> {
    fix_flags(&mut model, plan, flags)?;
    finish(&mut model, plan);
    Ok(model)
}

/// Takes the modules that are broadcast out of a patched model: its [`variant`] without the caches that it gives.
///
/// What is read of the caches is taken as inputs, and none is put out: this is the least that such a step can cost.
///
/// # Errors
/// Those of [`variant`].
pub fn without(mut model: ModelGraph, plan: &Plan, flags: &[bool]) -> Result<ModelGraph, RewriteError> {
    fix_flags(&mut model, plan, flags)?;
    for output in plan.fed_back().map(|(_, output)| output) {
        if let Some(next) = model.graph.find(output) {
            model.graph.remove_output(next);
        }
    }
    finish(&mut model, plan);
    Ok(model)
}

/// Puts the branches that the flags choose in the place of their `If`s.
fn fix_flags(model: &mut ModelGraph, plan: &Plan, flags: &[bool]) -> Result<(), GraphError> {
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
    Ok(())
}

fn finish(model: &mut ModelGraph, plan: &Plan) {
    model.graph.eliminate_dead_code();
    model
        .graph
        .remove_unused_inputs(|name| plan.fed_back().any(|(input, _)| input == name));
    model.remove_metadata(PLAN_KEY);
}
