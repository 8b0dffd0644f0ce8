//! Models that are patched on the way, and run from memory: the plan is the one that `pab-patch MODEL --rules` would write.

use super::Failure;
use super::args::{CacheOptions, RulesOptions, SessionOptions};
use super::caches::CacheSettings;
use super::course::Course;
use super::patch::{Order, Request, patched};
use super::session;
use super::terminal::Terminal;
use crate::generation::Generator;
use crate::onnx::Model;
use crate::rewrite::{Drive, PLAN_KEY, Patched};
use crate::runtime::SharedWeights;
use std::path::Path;

/// Patches a model for a run through `timesteps`, by flags; `sizes` are those of open dimensions that are known.
pub fn patch(
    model: &Path,
    rules: &RulesOptions,
    sizes: Vec<(String, usize)>,
    timesteps: &[f64],
    terminal: &Terminal,
) -> Result<Patched, Failure> {
    let loaded = Model::load(model)?;
    super::plan_beside::check(model, &loaded, terminal)?;
    if loaded.proto.metadata(PLAN_KEY).is_some() {
        return Err(Failure::Usage(format!(
            "--rules: {} is patched already, by the rules in its plan; leave --rules out, or give its original",
            model.display()
        )));
    }
    drop(loaded);
    let course = Course::Timesteps(timesteps.to_vec());
    let request = Request {
        model,
        rules,
        caches: CacheSettings {
            options: &CacheOptions::default(),
            sizes,
            given_up: None,
        },
        output: Path::new(""),
        order: Order::new(&course, Drive::Flags),
    };
    let (mut result, _) = patched(&request, terminal)?;
    result.model.set_metadata(PLAN_KEY, result.plan.to_json()?);
    Ok(result)
}

/// Opens what was made of the file `model`.
pub fn generator(
    model: &Path,
    patched: &Patched,
    options: &SessionOptions,
    given: &[&str],
    terminal: &Terminal,
) -> Result<Generator, Failure> {
    terminal.stop().check()?;
    let graph = patched.model.clone();
    let made = graph.into_model().map_err(Failure::of(model, Failure::graph))?;
    // Weights that stand in the original's files stay there.
    let session = SharedWeights::default().open(model, made, &session::runtime_options(options))?;
    session::generator_on(session, model, given, terminal)
}
