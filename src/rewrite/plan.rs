//! The plan of a patched model: what a host needs to drive it, in any language.
//!
//! It stands as JSON in the model's metadata under [`PLAN_KEY`] and in a file beside the model. A host feeds
//! `rules[].flag` (`true` broadcasts) and every `sites[].caches[].input`, and hands each `sites[].caches[].output` to
//! the next step; the same for the state that a rule may have. At which steps a rule broadcasts, its `timing` says, in the
//! form that it has in the rules; the first step always computes. Caches and states begin as zeros.

use super::drive::Drive;
use crate::attention::Kind;
use crate::axes::Size;
use crate::onnx::messages::DataType;
use crate::rules::{Action, Adaptive, CutPoint, Strategy, Timing};
use crate::schedule::Schedule;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The key of the plan in the model's metadata.
pub const PLAN_KEY: &str = "pab.plan";

/// The version of the plan's format that this program writes and reads.
///
/// 2: a site has a list of caches, since it may have several exits. 3: a rule has a strategy and a timing, and may have a
/// state; a cache has a role, and says whether it may be written in place.
const FORMAT: u32 = 3;

/// How to drive a patched model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Version of this format.
    pub format: PlanFormat,
    /// The program that made it, with its version.
    pub generator: String,
    /// Where the rules came from.
    pub rules_from: String,
    /// The original model, relative to the patched one: beside it stand scheduler and prompt table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<String>,
    /// SHA-256 of the original's graph, without what its weights hold: see [`Model::graph_sha256`](crate::onnx::Model::graph_sha256).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_sha256: Option<String>,
    /// Whether the host feeds the flags or the number of the step.
    #[serde(default)]
    pub drive: Drive,
    /// One entry a rule that broadcasts at least one site; a flag each.
    pub rules: Vec<RulePlan>,
    /// One entry a site that is broadcast.
    pub sites: Vec<SitePlan>,
    /// Sites that rules match, and that were given up so that the caches stay below a ceiling, the worst first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<DroppedSite>,
    /// For the scheduler that was known when the model was patched: which steps broadcast.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<SchedulePlan>,
}

/// Version of the plan's format. Only [`PlanFormat::default`] is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct PlanFormat(());

impl TryFrom<u32> for PlanFormat {
    type Error = String;

    fn try_from(format: u32) -> Result<Self, String> {
        match format {
            FORMAT => Ok(PlanFormat(())),
            _ => Err(format!("format {format} is not known, only {FORMAT}")),
        }
    }
}

impl From<PlanFormat> for u32 {
    fn from(_: PlanFormat) -> u32 {
        FORMAT
    }
}

/// A rule of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RulePlan {
    /// The rule's name.
    pub name: String,
    /// The `bool` scalar that broadcasts its sites: an input, or, where [`Drive::Step`] drives, a value inside the graph.
    pub flag: String,
    /// What takes the place of computing: `strategy`, and what belongs to it.
    #[serde(flatten)]
    pub strategy: Strategy,
    /// At which steps.
    pub timing: Timing,
    /// What decides of these steps, inside the model; without it all of them broadcast.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<Adaptive>,
    /// What the sites of the rule share from step to step, where they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<StatePlan>,
}

impl RulePlan {
    /// What the rule does, and when.
    pub fn action(&self) -> Action {
        Action {
            strategy: self.strategy,
            timing: self.timing.clone(),
            adaptive: self.adaptive.clone(),
        }
    }
}

/// A small tensor that the sites of a rule share, handed from step to step like a cache. It begins as zeros.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatePlan {
    /// The input that takes it.
    pub input: String,
    /// The output that gives it for the next step.
    pub output: String,
}

/// What a cache holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheRole {
    /// The value that was computed last.
    #[default]
    Value,
    /// How much the value changed in a step, when it was computed last.
    FirstDifference,
    /// How much that changed in a step.
    SecondDifference,
    /// What a span of blocks added to the residual stream.
    Residual,
    /// The difference that guidance made.
    Guidance,
    /// What the drift of an adaptive rule is told by, as it was in the last step.
    Indicator,
}

/// A site of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SitePlan {
    /// The site's name, unique in the model.
    pub name: String,
    /// What it mixes, or that it is a span of blocks or the model's whole guidance.
    pub kind: SiteKind,
    /// Its block, counted from 0 among sites of its kind; of a span the first, counted over all blocks of the stack.
    pub block: usize,
    /// The last block of a span.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_block: Option<usize>,
    /// The exporter's name of the module, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// Its rule, as an index of [`Plan::rules`].
    pub rule: usize,
    /// Which value is cached.
    pub cut: CutPoint,
    /// Its caches: one, or one for each exit of a module whose streams part.
    pub caches: Vec<CachePlan>,
}

/// A site that was given up because its caches take too much memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DroppedSite {
    /// The site's name.
    pub site: String,
    /// The name of its rule.
    pub rule: String,
    /// Bytes of its caches.
    pub bytes: u64,
    /// The share of a step's operations that broadcasting it would save, 0 to 1.
    pub share: f64,
}

/// What stands in the place of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SiteKind {
    /// A module of this kind.
    Module(Kind),
    /// More than a module.
    Wide(WideKind),
}

/// What is wider than a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WideKind {
    /// Blocks that follow each other.
    Span,
    /// The half of the batch that is computed without the prompt.
    Guidance,
}

impl SiteKind {
    /// The word used in plans and tables.
    pub fn word(self) -> &'static str {
        match self {
            SiteKind::Module(kind) => kind.word(),
            SiteKind::Wide(WideKind::Span) => "span",
            SiteKind::Wide(WideKind::Guidance) => "guidance",
        }
    }
}

/// A cache of a site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CachePlan {
    /// The input that takes the cached tensor.
    pub input: String,
    /// The output that gives the tensor to cache.
    pub output: String,
    /// Type of its elements, as ONNX writes it in `tensor(float16)`.
    #[serde(with = "element_type")]
    pub element_type: DataType,
    /// Sizes; those that depend on the model's inputs are written as products, such as `16*batch`.
    pub shape: Vec<PlanSize>,
    /// What it holds.
    pub role: CacheRole,
    /// Whether the output may be written over the input: true where the step that computes does not read the input.
    pub in_place: bool,
}

/// A size of a cache: a number, or a product of numbers and names of the model's dimensions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PlanSize {
    /// Known when the model was patched.
    Number(i64),
    /// Depends on the inputs.
    Symbol(String),
}

impl From<&Size> for PlanSize {
    fn from(size: &Size) -> PlanSize {
        size.as_number()
            .map_or_else(|| PlanSize::Symbol(size.to_string()), PlanSize::Number)
    }
}

impl fmt::Display for PlanSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlanSize::Number(number) => number.fmt(f),
            PlanSize::Symbol(symbol) => f.write_str(symbol),
        }
    }
}

/// Which steps broadcast, for one scheduler and number of steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SchedulePlan {
    /// The timesteps in the order of the run; empty where only the number of steps was known.
    pub timesteps: Vec<f64>,
    /// For each rule in the order of [`Plan::rules`], for each step: whether it broadcasts.
    pub broadcast: Vec<Vec<bool>>,
}

impl SchedulePlan {
    /// The schedule of a plan's rules at `timesteps`.
    pub fn new(plan: &Plan, timesteps: &[f64]) -> SchedulePlan {
        let schedule = plan.schedule(timesteps);
        let steps = 0..timesteps.len();
        let broadcast = (0..plan.rules.len())
            .map(|rule| steps.clone().map(|step| schedule.broadcasts(step, rule)).collect())
            .collect();
        SchedulePlan {
            timesteps: timesteps.to_vec(),
            broadcast,
        }
    }

    /// The schedule of a plan's rules over `steps` steps whose timesteps nobody knows; `None` where a rule needs them.
    pub fn of_steps(plan: &Plan, steps: usize) -> Option<SchedulePlan> {
        if plan.rules.iter().any(|rule| rule.timing.needs_timesteps()) {
            return None;
        }
        let counted: Vec<f64> = (0..steps).map(|step| step as f64).collect();
        Some(SchedulePlan {
            timesteps: Vec::new(),
            ..SchedulePlan::new(plan, &counted)
        })
    }

    /// The number of steps.
    pub fn steps(&self) -> usize {
        self.broadcast.first().map_or(0, Vec::len)
    }

    /// The flags of a step, one for each rule.
    pub fn flags(&self, step: usize) -> Vec<bool> {
        let flag = |steps: &Vec<bool>| steps.get(step).copied().unwrap_or(false);
        self.broadcast.iter().map(flag).collect()
    }

    /// Whether this is the schedule of a run through `timesteps`.
    ///
    /// Timesteps are compared with a tolerance of a billionth: the same configuration gives the same ones, but a plan
    /// may have passed through other programs.
    pub fn is_for(&self, timesteps: &[f64]) -> bool {
        let close = |(one, other): (&f64, &f64)| (one - other).abs() <= 1e-9 * one.abs().max(1.0);
        self.steps() == timesteps.len()
            && (self.timesteps.is_empty() || self.timesteps.len() == timesteps.len())
            && self.timesteps.iter().zip(timesteps).all(close)
    }
}

impl Plan {
    /// Reads a plan from its JSON.
    ///
    /// # Errors
    /// [`PlanError`] where it is no plan, or one of another format.
    pub fn parse(json: &str) -> Result<Plan, PlanError> {
        let plan: Plan = serde_json::from_str(json).map_err(|error| PlanError::Parse(error.to_string()))?;
        for site in &plan.sites {
            if site.rule >= plan.rules.len() {
                let (name, rule) = (&site.name, site.rule);
                return Err(PlanError::Parse(format!(
                    "site `{name}` has rule {rule}, which is not there"
                )));
            }
            if site.caches.is_empty() {
                return Err(PlanError::Parse(format!("site `{}` has no cache", site.name)));
            }
        }
        plan.check_schedule()?;
        Ok(plan)
    }

    /// The schedule has a row for each rule, of one length, and is there where the step drives.
    fn check_schedule(&self) -> Result<(), PlanError> {
        let refuse = |reason: &str| Err(PlanError::Parse(reason.to_owned()));
        match &self.schedule {
            None if self.drive == Drive::Step => refuse("it is driven by the step, and has no schedule"),
            None => Ok(()),
            Some(schedule) if schedule.broadcast.len() != self.rules.len() => {
                refuse("its schedule does not have a row for each rule")
            }
            Some(schedule) if schedule.broadcast.iter().any(|row| row.len() != schedule.steps()) => {
                refuse("the rows of its schedule have different lengths")
            }
            Some(_) => Ok(()),
        }
    }

    /// Writes the plan as JSON, in lines for people.
    ///
    /// # Errors
    /// [`PlanError::Write`], which no plan made here runs into.
    pub fn to_json(&self) -> Result<String, PlanError> {
        serde_json::to_string_pretty(self).map_err(|error| PlanError::Write(error.to_string()))
    }

    /// When each rule broadcasts.
    pub fn timings(&self) -> Vec<Timing> {
        self.rules.iter().map(|rule| rule.timing.clone()).collect()
    }

    /// For each step of a run and each rule: compute or broadcast.
    pub fn schedule(&self, timesteps: &[f64]) -> Schedule {
        Schedule::new(&self.timings(), timesteps)
    }

    /// Every cache with its site, in the order of the sites.
    pub fn caches(&self) -> impl Iterator<Item = (&SitePlan, &CachePlan)> + '_ {
        self.sites
            .iter()
            .flat_map(|site| site.caches.iter().map(move |cache| (site, cache)))
    }

    /// Every input that is fed back from the step before with the output that gives it: caches and states.
    pub fn fed_back(&self) -> impl Iterator<Item = (&str, &str)> + '_ {
        let caches = self
            .caches()
            .map(|(_, cache)| (cache.input.as_str(), cache.output.as_str()));
        let states = self.rules.iter().filter_map(|rule| rule.state.as_ref());
        caches.chain(states.map(|state| (state.input.as_str(), state.output.as_str())))
    }

    /// The sites of rule `rule`.
    pub fn sites_of(&self, rule: usize) -> impl Iterator<Item = &SitePlan> + '_ {
        self.sites.iter().filter(move |site| site.rule == rule)
    }
}

/// A plan that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// It is no plan.
    #[error("the plan in the model's metadata cannot be read: {0}; patch the original model again with this version")]
    Parse(String),
    /// It cannot be written.
    #[error("the plan cannot be written as JSON: {0}")]
    Write(String),
}

/// Element types that can be cached, by the words of `tensor(…)`.
mod element_type {
    use super::DataType;
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _, ser::Error as _};

    const WORDS: [(DataType, &str); 4] = [
        (DataType::Float, "float"),
        (DataType::Float16, "float16"),
        (DataType::Bfloat16, "bfloat16"),
        (DataType::Double, "double"),
    ];

    pub fn can_be_cached(element_type: DataType) -> bool {
        WORDS.iter().any(|(known, _)| *known == element_type)
    }

    pub fn serialize<S: Serializer>(element_type: &DataType, serializer: S) -> Result<S::Ok, S::Error> {
        match WORDS.iter().find(|(known, _)| known == element_type) {
            Some((_, word)) => serializer.serialize_str(word),
            None => Err(S::Error::custom(format!("{element_type:?} cannot be cached"))),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DataType, D::Error> {
        let text = String::deserialize(deserializer)?;
        let found = WORDS
            .iter()
            .find(|(_, word)| *word == text)
            .map(|(element_type, _)| *element_type);
        found.ok_or_else(|| D::Error::custom(format!("`{text}` is no element type of a cache")))
    }
}

pub(super) use element_type::can_be_cached;
