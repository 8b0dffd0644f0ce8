//! Whether a model and the plan beside it belong together.

use super::Failure;
use super::terminal::Terminal;
use crate::onnx::Model;
use crate::rewrite::{PLAN_KEY, Plan};
use std::path::Path;

/// Refuses a model beside which the plan of another one stands, and says where its original has changed since.
///
/// What counts is the plan in the model; but hosts may read the file, and would then drive it wrongly.
pub fn check(path: &Path, model: &Model, terminal: &Terminal) -> Result<(), Failure> {
    let file = path.with_extension("pab.json");
    let beside = std::fs::read_to_string(&file).ok();
    let beside = beside.and_then(|text| Plan::parse(&text).ok());
    let own = model.proto.metadata(PLAN_KEY).map(Plan::parse).transpose()?;
    let reason = match (&own, &beside) {
        (Some(own), Some(beside)) => difference(own, beside),
        (None, Some(_)) => Some("the model is not patched"),
        (_, None) => None,
    };
    if let Some(reason) = reason {
        return Err(Failure::OtherPlan {
            model: path.to_owned(),
            file,
            reason,
        });
    }
    if let Some(own) = &own {
        warn_of_changed_original(path, own, terminal);
    }
    Ok(())
}

/// In what two plans differ that drive a model.
fn difference(own: &Plan, beside: &Plan) -> Option<&'static str> {
    if let (Some(one), Some(other)) = (&own.original_sha256, &beside.original_sha256)
        && one != other
    {
        return Some("the originals are different models (original_sha256)");
    }
    if own.drive != beside.drive {
        return Some("one is driven by flags and one by its step");
    }
    if own.rules != beside.rules {
        return Some("the rules differ");
    }
    (own.sites != beside.sites).then_some("the sites differ")
}

fn warn_of_changed_original(path: &Path, plan: &Plan, terminal: &Terminal) {
    let (Some(original), Some(hash)) = (&plan.original, &plan.original_sha256) else {
        return;
    };
    let original = path.with_file_name("").join(original);
    // Where the original is gone or damaged, the patched model still runs.
    if let Ok(found) = Model::load(&original)
        && found.graph_sha256() != *hash
    {
        terminal.warning(format!(
            "{} is another model than the one that {} was patched from; patch it again to run what it is now",
            original.display(),
            path.display()
        ));
    }
}
