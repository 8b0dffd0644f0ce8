//! A model for one set of flags: the static graph of a step that broadcasts them.

use super::variant::{fix_flags, remove_unread};
use super::{PLAN_KEY, Plan, RewriteError};
use crate::graph::ModelGraph;

/// The static graph of a patched model for one set of flags, which takes caches and gives them (a variant).
///
/// `flags` holds one entry for each rule of the plan. Modules that are broadcast are taken out with all that served
/// them alone; the others stand as in the original, without their `If`. Inputs that nothing reads are not there.
/// Variants chained over the steps of a run, each fed what the one before gave, compute what the patched model does.
/// [`super::variants`] makes all that a run needs, without the outputs that no step of it reads.
///
/// # Errors
/// [`RewriteError::Graph`] where the model is not one that [`super::switch`] made by this plan.
pub fn variant(mut model: ModelGraph, plan: &Plan, flags: &[bool]) -> Result<ModelGraph, RewriteError> {
    fix_flags(&mut model.graph, plan, flags)?;
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
    fix_flags(&mut model.graph, plan, flags)?;
    for (_, output) in plan.fed_back() {
        if let Some(next) = model.graph.find(output) {
            model.graph.remove_output(next);
        }
    }
    finish(&mut model, plan);
    Ok(model)
}

fn finish(model: &mut ModelGraph, plan: &Plan) {
    remove_unread(&mut model.graph, plan);
    model.remove_metadata(PLAN_KEY);
}
