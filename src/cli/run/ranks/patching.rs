//! How the graph of each rank is patched.

use crate::cli::Failure;
use crate::cli::analysis::{Analysis, wide};
use crate::cli::args::{CacheOptions, FormChoice};
use crate::cli::caches::CacheSettings;
use crate::cli::division::shares;
use crate::cli::plan_beside;
use crate::cli::terminal::Terminal;
use crate::onnx::Model;
use crate::rewrite::split;
use crate::rewrite::{PLAN_KEY, Plan, RewriteError, Wide, planned_rules, select_planned};
use crate::rules::{Rule, Rules};
use crate::shard::Shares;
use std::path::{Path, PathBuf};

/// How the graph of each rank is patched.
#[derive(Debug)]
pub enum Patching {
    /// Not at all.
    None,
    /// By rules.
    Rules(Rules),
    /// As the patched model was whose original was split.
    Plan(Box<Plan>),
}

impl Patching {
    /// What is patched, and how: the model that was given, or, of a patched one, its original by its plan.
    pub fn of(model: &Path, rules: Option<Rules>, terminal: &Terminal) -> Result<(PathBuf, Patching), Failure> {
        let loaded = Model::load(model)?;
        plan_beside::check(model, &loaded, terminal)?;
        let Some(plan) = loaded.proto.metadata(PLAN_KEY) else {
            return Ok((model.to_owned(), rules.map_or(Patching::None, Patching::Rules)));
        };
        if rules.is_some() {
            return Err(Failure::Usage(format!(
                "--rules: {} is patched already; give its original",
                model.display()
            )));
        }
        let plan = Plan::parse(plan)?;
        let original = plan.original.as_ref();
        let original = original.map(|original| model.with_file_name("").join(original));
        let Some(original) = original.filter(|original| original.is_file()) else {
            return Err(Failure::Usage(format!(
                "{} is patched, and its original, which is what is split, is not where its plan says; give the original with \
                 --rules",
                model.display()
            )));
        };
        let hash = Model::load(&original)?.graph_sha256();
        if plan.original_sha256.as_ref().is_some_and(|planned| *planned != hash) {
            return Err(Failure::Usage(format!(
                "{} is another model than the one that {} was patched from; patch it again",
                original.display(),
                model.display()
            )));
        }
        Ok((original, Patching::Plan(Box::new(plan))))
    }

    /// Its rules.
    pub fn rules(&self) -> Rules {
        match self {
            Patching::None => Rules::of_plan("", []),
            Patching::Rules(rules) => rules.clone(),
            Patching::Plan(plan) => planned_rules(plan),
        }
    }

    /// What is left out beside sites, by what was found in the whole.
    pub fn wide(&self, path: &Path, whole: &Analysis) -> Result<Wide, Failure> {
        match self {
            Patching::None => Ok(Wide::default()),
            Patching::Rules(rules) => wide(path, whole, rules),
            Patching::Plan(plan) => Wide::planned(&whole.model, &whole.axes, &whole.sites, &self.rules(), plan)
                .map_err(Failure::of(path, Failure::rewrite)),
        }
    }

    /// Refuses the variant form of what is not patched, or decides in the run.
    pub fn check_form(&self, path: &Path, form: FormChoice) -> Result<(), Failure> {
        if form == FormChoice::Switch {
            return Ok(());
        }
        let rules = match self {
            Patching::None => {
                return Err(Failure::Usage(format!(
                    "--form variants needs a patched model, and {} is none; give --rules",
                    path.display()
                )));
            }
            Patching::Rules(_) | Patching::Plan(_) => self.rules(),
        };
        let is_adaptive = |rule: &&Rule| rule.action.as_ref().is_some_and(|action| action.adaptive.is_some());
        let undecided = rules
            .rules
            .iter()
            .find(is_adaptive)
            .map(|rule| RewriteError::Undecided {
                rule: rule.name.clone(),
            });
        undecided.map_or(Ok(()), |error| Err(Failure::rewrite(path.to_owned(), error)))
    }

    /// How often the sites compute in a run through `timesteps`.
    pub fn shares(
        &self,
        path: &Path,
        whole: &Analysis,
        wide: &Wide,
        sizes: &[(String, usize)],
        timesteps: &[f64],
    ) -> Result<Shares, Failure> {
        match self {
            Patching::None => Ok(Shares::default()),
            Patching::Rules(rules) => {
                let caches = CacheSettings {
                    options: &CacheOptions::default(),
                    sizes: sizes.to_vec(),
                    given_up: None,
                };
                shares(path, whole, rules, wide, &caches, timesteps)
            }
            Patching::Plan(plan) => {
                let (choices, _) =
                    select_planned(&whole.sites, wide, plan).map_err(Failure::of(path, Failure::rewrite))?;
                Ok(split::shares(
                    &whole.sites,
                    &choices,
                    wide,
                    &planned_rules(plan),
                    timesteps,
                ))
            }
        }
    }
}
