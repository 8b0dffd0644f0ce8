//! The variant form in memory: a session for each set of rules that the steps of a run broadcast together.

use super::Failure;
use super::terminal::Terminal;
use crate::generation::{Generator, check_steps};
use crate::graph::ModelGraph;
use crate::onnx::Model;
use crate::rewrite::{Drive, PLAN_KEY, Plan, SchedulePlan, Variant, variants};
use crate::runtime::Session;
use std::path::{Path, PathBuf};

/// The static graphs of a run, not yet opened.
pub struct StaticGraphs {
    path: PathBuf,
    plan: Plan,
    variants: Vec<Variant>,
}

impl StaticGraphs {
    /// Those of the patched `model`, for a run through `timesteps`; errors name `path`.
    pub fn of(path: &Path, model: ModelGraph, timesteps: &[f64]) -> Result<StaticGraphs, Failure> {
        let plan = model.metadata(PLAN_KEY).map(Plan::parse).transpose()?.ok_or_else(|| {
            Failure::Usage(format!(
                "--form variants needs a patched model, and {} is none; patch it with `pab-patch {0}` first",
                path.display()
            ))
        })?;
        let schedule = match plan.drive {
            Drive::Flags => SchedulePlan::new(&plan, timesteps),
            Drive::Step => {
                check_steps(plan.schedule.as_ref(), timesteps).map_err(Failure::of(path, Failure::generation))?;
                plan.schedule
                    .clone()
                    .unwrap_or_else(|| SchedulePlan::new(&plan, timesteps))
            }
        };
        let variants = variants(&model, &plan, &schedule).map_err(Failure::of(path, Failure::rewrite))?;
        Ok(StaticGraphs {
            path: path.to_owned(),
            plan,
            variants,
        })
    }

    /// A generator on them, each opened by `open`; `given` are inputs that the user feeds.
    pub fn generator(
        self,
        given: &[&str],
        terminal: &Terminal,
        mut open: impl FnMut(Model) -> Result<Session, Failure>,
    ) -> Result<Generator, Failure> {
        let StaticGraphs { path, plan, variants } = self;
        let mut sessions = Vec::with_capacity(variants.len());
        for variant in variants {
            let model = variant.model.into_model();
            let model = model.map_err(Failure::of(&path, Failure::graph))?;
            terminal.stop().check()?;
            sessions.push((variant.flags, open(model)?));
        }
        terminal.detail(format!("{} sessions, one for each set of rules", sessions.len()));
        let generator = Generator::of_variants(sessions, plan, given);
        generator.map_err(Failure::of(&path, Failure::generation))
    }
}
