//! What stands beside written variants: which file each step uses, and what is handed from step to step.

use super::{Plan, SchedulePlan, Variant};
use serde::{Deserialize, Serialize};

/// The version of the index' format.
const FORMAT: u32 = 1;

/// The index of written variants, `variants.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VariantIndex {
    /// Version of this format.
    pub format: u32,
    /// The program that made it, with its version.
    pub generator: String,
    /// The file of the plan, beside the index.
    pub plan: String,
    /// The timesteps in the order of the run; empty where only the number of steps was known.
    pub timesteps: Vec<f64>,
    /// For each step the variant that it uses, as an index of [`VariantIndex::variants`].
    pub steps: Vec<usize>,
    /// The static graphs, in the order in which they first come.
    pub variants: Vec<VariantFile>,
    /// Everything that is handed from step to step, whichever variant takes and gives it.
    pub fed_back: Vec<FedBack>,
}

/// A written variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VariantFile {
    /// The file, beside the index.
    pub file: String,
    /// The names of the rules that it broadcasts.
    pub broadcast: Vec<String>,
    /// The steps that use it, counted from 0.
    pub steps: Vec<usize>,
    /// Its inputs that take what an earlier step gave.
    pub caches_in: Vec<String>,
    /// Its outputs that a later step takes.
    pub caches_out: Vec<String>,
}

/// An input, and the output that gives it for a later step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FedBack {
    /// The input.
    pub input: String,
    /// The output.
    pub output: String,
}

impl VariantIndex {
    /// The index of `variants`, each with the file that it is written into.
    pub fn new(plan: &Plan, plan_file: &str, schedule: &SchedulePlan, variants: &[(String, &Variant)]) -> VariantIndex {
        let of_step = |step: usize| variants.iter().position(|(_, variant)| variant.steps.contains(&step));
        let listed = variants.iter().map(|(file, variant)| VariantFile {
            file: file.clone(),
            broadcast: {
                let rules = plan.rules.iter().zip(&variant.flags);
                let rules = rules.filter(|(_, broadcast)| **broadcast);
                rules.map(|(rule, _)| rule.name.clone()).collect()
            },
            steps: variant.steps.clone(),
            caches_in: variant.caches_in.clone(),
            caches_out: variant.caches_out.clone(),
        });
        let fed_back = plan.fed_back().map(|(input, output)| FedBack {
            input: input.to_owned(),
            output: output.to_owned(),
        });
        VariantIndex {
            format: FORMAT,
            generator: plan.generator.clone(),
            plan: plan_file.to_owned(),
            timesteps: schedule.timesteps.clone(),
            steps: (0..schedule.steps()).filter_map(of_step).collect(),
            variants: listed.collect(),
            fed_back: fed_back.collect(),
        }
    }
}
