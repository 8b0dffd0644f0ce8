//! What was compared, and how, as figures have it.

use super::candidate::Candidate;
use super::generate::Made;
use super::task::Task;
use crate::cli::session::runtime_options;
use crate::report::{Facts, RuleFigures, RunFacts, RuntimeFacts};
use crate::runtime::Library;
use std::collections::BTreeSet;

/// The facts of one set of rules.
pub fn facts(task: &Task<'_>, candidate: &Candidate, library: &Library, made: &Made) -> Facts {
    let options = task.options;
    let mut clip_shape = [1; 4];
    for (size, given) in clip_shape.iter_mut().rev().zip(made.shape.iter().rev()) {
        *size = *given;
    }
    let plan = candidate.transformers.first().map(|first| &first.written.plan);
    Facts {
        model: options.model.display().to_string(),
        patched_model: match candidate.transformers.as_slice() {
            [only] => only.written.model.display().to_string(),
            _ => candidate.folder.display().to_string(),
        },
        rules_from: plan.map(|plan| plan.rules_from.clone()).unwrap_or_default(),
        runtime: RuntimeFacts {
            version: library.version.clone(),
            library: library.path.display().to_string(),
            provider: made.provider.identifier().to_owned(),
            threads: runtime_options(&options.session)
                .threads
                .unwrap_or_else(|| crate::runtime::devices::cpu().physical_cores),
        },
        run: RunFacts {
            scheduler: task.config.class().to_owned(),
            steps: options.sampling.steps,
            guidance: f64::from(task.source.asked_guidance()),
            clip_shape,
        },
        rules: rules(candidate),
    }
}

/// The rules of all transformers by their names: sites and broadcasts are added, and the share of a step is that of the mean step.
fn rules(candidate: &Candidate) -> Vec<RuleFigures> {
    let all: usize = candidate.transformers.iter().map(|one| one.broadcast.len()).sum();
    let of_all = |steps: usize| steps as f64 / all.max(1) as f64;
    let mut rules: Vec<(RuleFigures, BTreeSet<&str>)> = Vec::new();
    for transformer in &candidate.transformers {
        let (plan, steps) = (&transformer.written.plan, &transformer.broadcast);
        for (index, rule) in plan.rules.iter().enumerate() {
            let kinds = plan.sites_of(index).map(|site| site.kind.word());
            let sites = plan.sites_of(index).count();
            let broadcast = steps.iter().filter(|flags| flags.get(index) == Some(&true)).count();
            let share = transformer.work.shares.get(index);
            let share = share.map(|share| share * of_all(steps.len()));
            match rules.iter_mut().find(|(found, _)| found.name == rule.name) {
                Some((found, all)) => {
                    found.sites += sites;
                    found.steps_broadcast += of_all(broadcast);
                    found.step_share = found.step_share.zip(share).map(|(one, other)| one + other);
                    all.extend(kinds);
                }
                None => rules.push((
                    RuleFigures {
                        name: rule.name.clone(),
                        kind: String::new(),
                        strategy: rule.strategy,
                        timing: rule.timing.clone(),
                        adaptive: rule.adaptive.clone(),
                        sites,
                        steps_broadcast: of_all(broadcast),
                        step_share: share,
                    },
                    kinds.collect(),
                )),
            }
        }
    }
    let named = rules.into_iter().map(|(figures, kinds)| RuleFigures {
        kind: kinds.into_iter().collect::<Vec<_>>().join(", "),
        ..figures
    });
    named.collect()
}
