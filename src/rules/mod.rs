//! YAML rules, strictly checked: which sites are broadcast, how often, and when.
//!
//! `rules/README.md` in the repository is the reference of the language. A file is read in three steps: text → tree with
//! places (`tree`) → rules (`check`, and `reach` for rules that can never apply) → [`Rules`]. All errors of a file
//! are reported at once ([`Report`]).

mod adaptive;
mod after;
mod assign;
mod blocks;
mod broadcast;
mod bytes;
mod check;
mod diagnostic;
mod fit;
mod indices;
mod inputs;
mod limit;
mod pattern;
mod preset;
mod range;
mod reach;
mod read;
mod scalar;
mod schema;
mod select;
mod steps;
mod strategy;
mod suggest;
mod timing;
mod tree;
mod window;

#[cfg(test)]
mod tests;

pub use adaptive::{Adaptive, AdaptiveError};
pub use after::{AfterError, AfterTable};
pub use assign::NamedSite;
pub use blocks::{BlockEnd, BlockRange, Blocks};
pub use broadcast::{Broadcast, BroadcastError};
pub use bytes::Bytes;
pub use diagnostic::{Diagnostic, Report, RulesError};
pub use fit::{Medium, Proposal, propose};
pub use indices::{IndexRange, IndexSet, IndicesError, MAX_INDEX};
pub use inputs::InputAxes;
pub use limit::{CacheLimit, Limit, LimitError, Limits, Order, ShareLimit};
pub use pattern::{Pattern, PatternError};
pub use preset::{DEFAULT_PRESET, Preset, preset_names, presets};
pub use range::{Range, RangeError};
pub use schema::schema;
pub use select::{Match, SiteFacts, Unknown};
pub use steps::{StepSet, StepsError};
pub use strategy::{Action, ForecastOrder, Strategy, UnknownOrder};
pub use timing::{Timing, TimingError};
pub use window::{Window, WindowError};

use crate::shard::Mesh;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::io::Read;
use std::path::Path;

/// The most bytes of a rules file.
const LARGEST: usize = 256 * 1024;

/// Checked rules, in the order of the file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rules {
    /// The file that the rules are from, or `preset` and its name.
    pub file: String,
    /// What the rules are for, in the author's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The most bytes that all caches together may take.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "written_bytes")]
    pub memory: Option<u64>,
    /// The ranks that the model is split over, where the file says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel: Option<Mesh>,
    /// What the axes of the model's inputs count, where the file says so.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "inputs::as_mapping")]
    pub inputs: Vec<InputAxes>,
    /// The rules.
    pub rules: Vec<Rule>,
    /// The text of the file, for errors that show only with a model.
    #[serde(skip)]
    text: String,
}

/// One rule. Serialises to the form that it has in YAML.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Unique in its file: 1 to 64 of the characters `a-z`, `0-9`, `_` and `-`, as it becomes part of tensor names.
    pub name: String,
    /// What the rule is for, in the author's words.
    pub description: Option<String>,
    /// What the rule is for: sites, or spans of blocks ([`Strategy::is_by_span`]).
    pub select: Match,
    /// Which value is cached.
    pub cut: CutPoint,
    /// What it does with its sites; `None` if nothing (`broadcast: never`), which keeps them from the other rules.
    pub action: Option<Action>,
    /// The line of the file in which the rule begins, from 1.
    pub line: usize,
    /// The column in which it begins, from 1.
    pub column: usize,
}

impl Rule {
    /// What takes the place of computing; `None` for a rule that never broadcasts.
    pub fn strategy(&self) -> Option<Strategy> {
        self.action.as_ref().map(|action| action.strategy)
    }

    /// Whether the rule claims a site with these facts. Rules for spans and for guidance claim none by themselves.
    ///
    /// # Errors
    /// What is not known of the site, where that decides.
    pub fn claims(&self, site: &SiteFacts<'_>) -> Result<bool, Unknown> {
        match self.strategy().is_none_or(Strategy::is_by_site) {
            true => self.select.claims(site, self.cut),
            false => Ok(false),
        }
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut rule = serializer.serialize_map(None)?;
        rule.serialize_entry("name", &self.name)?;
        if let Some(description) = &self.description {
            rule.serialize_entry("description", description)?;
        }
        match self.strategy() {
            Some(Strategy::Guidance) => {}
            Some(strategy) if strategy.is_by_span() => rule.serialize_entry("match", &self.select.of_spans())?,
            _ => rule.serialize_entry("match", &self.select)?,
        }
        match &self.action {
            None => rule.serialize_entry("broadcast", "never")?,
            Some(Action {
                strategy,
                timing,
                adaptive,
            }) => {
                if strategy.is_by_site() {
                    rule.serialize_entry("cut", &self.cut)?;
                }
                let order = match strategy {
                    Strategy::Forecast { order } | Strategy::ResidualForecast { order } => Some(*order),
                    _ => None,
                };
                rule.serialize_entry(
                    strategy.key(),
                    &ActionForm {
                        order,
                        timing,
                        adaptive,
                    },
                )?;
            }
        }
        rule.end()
    }
}

/// What stands under the key of a strategy.
#[derive(Serialize)]
struct ActionForm<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<ForecastOrder>,
    #[serde(flatten)]
    timing: &'a Timing,
    #[serde(skip_serializing_if = "Option::is_none")]
    adaptive: &'a Option<Adaptive>,
}

/// Which value of a residual branch is cached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CutPoint {
    /// The branch's output after its output projection, before the gate (as in diffusers).
    #[default]
    Output,
    /// The gated output that is added to the residual stream (as in VideoSys' Open-Sora).
    Gated,
}

impl CutPoint {
    /// Every cut, the default first.
    pub const ALL: [CutPoint; 2] = [CutPoint::Output, CutPoint::Gated];

    /// The word used in rules, plans and tables.
    pub fn word(self) -> &'static str {
        match self {
            CutPoint::Output => "output",
            CutPoint::Gated => "gated",
        }
    }
}

impl fmt::Display for CutPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl Rules {
    /// Reads rules from YAML text. `file` is the name that errors give it.
    ///
    /// # Errors
    /// [`RulesError::Invalid`] with every error of the text and its place; [`RulesError::TooLarge`].
    pub fn parse(file: &str, text: &str) -> Result<Rules, RulesError> {
        if text.len() > LARGEST {
            return Err(RulesError::TooLarge {
                file: file.to_owned(),
                limit: LARGEST,
            });
        }
        let mut findings = tree::Findings::default();
        let root = tree::parse(text, &mut findings);
        let mut checked = None;
        match &root {
            Some(root) => {
                checked = read::Reader {
                    findings: &mut findings,
                }
                .file(root)
            }
            None if findings.diagnostics.is_empty() => {
                let start = tree::Place {
                    line: 1,
                    column: 1,
                    length: 1,
                };
                findings.add(
                    start,
                    "the file is empty",
                    "begin with `version: 1` and a list `rules:`",
                );
            }
            None => {}
        }
        if let Some(checked) = &checked {
            reach::check(checked, &mut findings);
        }
        match checked {
            Some(checked) if findings.diagnostics.is_empty() => Ok(Rules {
                file: file.to_owned(),
                description: checked.description,
                memory: checked.memory,
                parallel: checked.parallel,
                inputs: checked.inputs,
                rules: checked.rules,
                text: text.to_owned(),
            }),
            _ => {
                findings.diagnostics.sort_by_key(|found| (found.line, found.column));
                Err(RulesError::Invalid(Report {
                    file: file.to_owned(),
                    text: text.to_owned(),
                    diagnostics: findings.diagnostics,
                    left_out: findings.left_out,
                }))
            }
        }
    }

    /// The rules of a plan, that go by names of sites and match none by themselves: names, cuts and actions, in order.
    pub fn of_plan(file: &str, rules: impl IntoIterator<Item = (String, CutPoint, Action)>) -> Rules {
        let rule = |(name, cut, action)| Rule {
            name,
            description: None,
            select: Match {
                kinds: Vec::new(),
                blocks: Blocks::all(),
                name: None,
                cache: None,
                share: None,
            },
            cut,
            action: Some(action),
            line: 0,
            column: 0,
        };
        Rules {
            file: file.to_owned(),
            description: None,
            memory: None,
            parallel: None,
            inputs: Vec::new(),
            rules: rules.into_iter().map(rule).collect(),
            text: String::new(),
        }
    }

    /// Where a rule stands: its file and line, of a plan's the file alone.
    pub fn place(&self, rule: &Rule) -> String {
        match rule.line {
            0 => self.file.clone(),
            line => format!("{}:{line}", self.file),
        }
    }

    /// Reads rules from a file.
    ///
    /// # Errors
    /// Those of [`Rules::parse`]; [`RulesError::Read`]; bytes that are no UTF-8 are an error at their place.
    pub fn load(path: &Path) -> Result<Rules, RulesError> {
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path);
        file.and_then(|file| file.take(LARGEST as u64 + 1).read_to_end(&mut bytes))
            .map_err(|reason| {
                let path = path.to_owned();
                RulesError::Read { path, reason }
            })?;
        let name = path.display().to_string();
        match String::from_utf8(bytes) {
            Ok(text) => Rules::parse(&name, &text),
            Err(error) if error.as_bytes().len() > LARGEST => Err(RulesError::TooLarge {
                file: name,
                limit: LARGEST,
            }),
            Err(error) => Err(RulesError::Invalid(not_utf8(name, &error))),
        }
    }

    /// Reads rules from a file or, where there is no such file, takes the preset of that name.
    ///
    /// # Errors
    /// Those of [`Rules::load`] and [`Rules::preset`].
    pub fn find(file_or_preset: &str) -> Result<Rules, RulesError> {
        let path = Path::new(file_or_preset);
        let is_preset = presets().iter().any(|preset| preset.name == file_or_preset);
        if is_preset && !path.is_file() {
            Rules::preset(file_or_preset)
        } else {
            Rules::load(path)
        }
    }
}

/// The report on bytes that are no UTF-8.
fn not_utf8(file: String, error: &std::string::FromUtf8Error) -> Report {
    let bytes = error.as_bytes();
    let valid = bytes.get(..error.utf8_error().valid_up_to()).unwrap_or_default();
    let before = String::from_utf8_lossy(valid);
    let lines = diagnostic::lines(&before);
    let column = lines.last().map_or(0, |line| line.chars().count()) + 1;
    let byte = bytes.get(valid.len()).copied().unwrap_or_default();
    Report {
        diagnostics: vec![Diagnostic {
            line: lines.len(),
            column,
            length: 1,
            message: format!("the byte 0x{byte:02x} is no UTF-8 text"),
            help: "save the file as UTF-8; if it is no text at all, it is no rules file".to_owned(),
        }],
        file,
        text: String::from_utf8_lossy(bytes).into_owned(),
        left_out: 0,
    }
}

fn written_bytes<S: Serializer>(bytes: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    match bytes {
        Some(bytes) => serializer.collect_str(&bytes::Bytes(*bytes)),
        None => serializer.serialize_none(),
    }
}
