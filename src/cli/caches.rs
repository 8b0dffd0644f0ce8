//! The caches of a patched model: their element type, the memory they take, and what a ceiling leaves of them.

use super::Failure;
use super::analysis::Analysis;
use super::args::CacheOptions;
use super::terminal::Terminal;
use crate::axes::{Bindings, Size};
use crate::report::number;
use crate::rewrite::{CacheMemory, Choice, DroppedSite, SwitchOptions, Weight, Wide, over_ceiling};
use crate::rules::Rules;
use serde::Serialize;
use std::collections::BTreeSet;

/// The value of open dimensions that no size was given for, when operations are counted: as `inspect` has it.
const OPEN_SIZE: i64 = 16;

/// What is wanted of the caches.
#[derive(Debug)]
pub struct CacheSettings<'a> {
    /// The options.
    pub options: &'a CacheOptions,
    /// Sizes of open dimensions, as far as they are known.
    pub sizes: Vec<(String, usize)>,
    /// The sites that are given up, where that was decided before: ranks whose parts differ have to agree.
    pub given_up: Option<Vec<DroppedSite>>,
}

/// The memory of the caches, as `--json` prints it.
#[derive(Clone, Debug, Serialize)]
pub struct CacheReport {
    /// All caches together.
    #[serde(flatten)]
    total: Bytes,
    /// By rule.
    rules: Vec<RuleBytes>,
    /// The ceiling, where there is one.
    ceiling: Option<u64>,
    /// Sites that were given up so that the rest stays below the ceiling.
    dropped: Vec<DroppedSite>,
}

#[derive(Clone, Debug, Serialize)]
struct Bytes {
    /// The number, where all sizes are known.
    bytes: Option<u64>,
    /// The number, or a formula of the open sizes, such as `4096*batch`.
    formula: String,
}

#[derive(Clone, Debug, Serialize)]
struct RuleBytes {
    rule: String,
    sites: usize,
    #[serde(flatten)]
    bytes: Bytes,
}

impl CacheSettings<'_> {
    /// How caches are made.
    pub fn switch_options(&self) -> SwitchOptions {
        SwitchOptions {
            cache_type: self.options.cache_dtype.map(Into::into),
        }
    }

    /// The ceiling: of the command line, else of the rules.
    fn ceiling(&self, rules: &Rules) -> Option<u64> {
        self.options.memory.or(rules.memory)
    }

    /// The sizes that are known, and no others.
    pub fn bindings(&self) -> Bindings {
        let sizes = self.sizes.iter();
        Bindings::of(sizes.filter_map(|(name, size)| Some((name.as_str(), i64::try_from(*size).ok()?))))
    }

    /// Gives up sites until the caches of the rest stay below the ceiling, and says what the caches take.
    pub fn fit(
        &self,
        choices: &mut Vec<Choice<'_>>,
        wide: &Wide,
        analysis: &Analysis,
        rules: &Rules,
        terminal: &Terminal,
    ) -> Result<CacheReport, Failure> {
        self.check_sizes(analysis)?;
        let options = self.switch_options();
        self.note_unchanged(choices, &options, terminal);
        let bindings = self.bindings();
        let ceiling = self.ceiling(rules);
        let dropped = match (&self.given_up, ceiling) {
            (Some(given_up), _) => {
                choices.retain(|choice| given_up.iter().all(|site| site.site != choice.site.name));
                given_up.clone()
            }
            (None, Some(ceiling)) => self.drop_sites(choices, wide, analysis, rules, ceiling, terminal)?,
            (None, None) => Vec::new(),
        };
        let memory = CacheMemory::of(choices, wide, rules, &options);
        let report = CacheReport {
            total: Bytes::new(&memory.total, &bindings),
            rules: memory
                .rules
                .iter()
                .map(|rule| RuleBytes {
                    rule: rule.name.clone(),
                    sites: rule.sites,
                    bytes: Bytes::new(&rule.bytes, &bindings),
                })
                .collect(),
            ceiling,
            dropped,
        };
        terminal.note(report.line(&memory.total));
        Ok(report)
    }

    /// Refuses sizes of what the model does not leave open. The batch may be given where it is fixed, too.
    fn check_sizes(&self, analysis: &Analysis) -> Result<(), Failure> {
        let open: Vec<&str> = analysis.axes.symbols().collect();
        let known = |name: &str| name == "batch" || open.contains(&name);
        match self.sizes.iter().find(|(name, _)| !known(name)) {
            None => Ok(()),
            Some((name, _)) if open.is_empty() => Err(Failure::Usage(format!(
                "--size {name}: the model has no open dimensions"
            ))),
            Some((name, _)) => Err(Failure::Usage(format!(
                "--size {name}: the open dimensions of the model are {}",
                open.join(", ")
            ))),
        }
    }

    /// Says where a type was asked for that no cache gets.
    fn note_unchanged(&self, choices: &[Choice<'_>], options: &SwitchOptions, terminal: &Terminal) {
        let Some(cache_type) = options.cache_type else { return };
        let cuts = choices.iter().flat_map(|choice| choice.cuts.iter());
        let unchanged = cuts.filter(|cut| options.element_type(cut.element_type) == cut.element_type);
        let unchanged = unchanged.count();
        if unchanged > 0 {
            terminal.note(format!(
                "--cache-dtype {cache_type}: {unchanged} caches keep the type of their values, which is as narrow"
            ));
        }
    }

    fn drop_sites(
        &self,
        choices: &mut Vec<Choice<'_>>,
        wide: &Wide,
        analysis: &Analysis,
        rules: &Rules,
        ceiling: u64,
        terminal: &Terminal,
    ) -> Result<Vec<DroppedSite>, Failure> {
        let options = self.switch_options();
        let known = self.bindings();
        let counted = Bindings {
            otherwise: Some(OPEN_SIZE),
            ..known.clone()
        };
        let costs = analysis.sites.costs(&analysis.model, &analysis.axes, &counted);
        let share = |choice: &Choice<'_>| {
            let place = analysis
                .sites
                .sites
                .iter()
                .position(|site| site.name == choice.site.name);
            let cost = place.and_then(|place| costs.sites.get(place));
            cost.map_or(0.0, |cost| cost.share)
        };
        let mut weights = Vec::with_capacity(choices.len());
        for choice in choices.iter() {
            let size = choice.cache_bytes(rules, &options);
            let Some(bytes) = number_of(&size, &known) else {
                return Err(Failure::Usage(open_sizes(&size, &known)));
            };
            weights.push(Weight {
                bytes,
                share: share(choice),
            });
        }
        // Spans and guidance are one each, and stay.
        let mut reserved = 0_u64;
        for rule in 0..rules.rules.len() {
            let size = &wide.cache_bytes(rule, &options) + &wide.indicator_bytes(rule, rules, choices);
            let bytes = number_of(&size, &known).ok_or_else(|| Failure::Usage(open_sizes(&size, &known)))?;
            reserved = reserved.saturating_add(bytes);
        }
        let left = ceiling.checked_sub(reserved).ok_or(Failure::NothingFits {
            ceiling,
            least: reserved,
        })?;
        let places = over_ceiling(&weights, left);
        let dropped: Vec<DroppedSite> = places
            .iter()
            .filter_map(|place| {
                let (choice, weight) = (choices.get(*place)?, weights.get(*place)?);
                Some(DroppedSite {
                    site: choice.site.name.clone(),
                    rule: rules.rules.get(choice.rule)?.name.clone(),
                    bytes: weight.bytes,
                    share: weight.share,
                })
            })
            .collect();
        if places.len() == choices.len() && !choices.is_empty() && reserved == 0 {
            let least = weights.iter().map(|weight| weight.bytes).min().unwrap_or(0);
            return Err(Failure::NothingFits { ceiling, least });
        }
        let given_up: BTreeSet<usize> = places.into_iter().collect();
        let mut place = 0;
        choices.retain(|_| {
            place += 1;
            !given_up.contains(&(place - 1))
        });
        if !dropped.is_empty() {
            let names: Vec<&str> = dropped.iter().map(|site| site.site.as_str()).collect();
            terminal.note(format!(
                "the caches would take more than {}: always computed are now {} (the least saved for a byte)",
                number::bytes(ceiling),
                names.join(", ")
            ));
        }
        Ok(dropped)
    }
}

impl CacheReport {
    /// The sites that were given up.
    pub fn dropped(&self) -> &[DroppedSite] {
        &self.dropped
    }

    /// The line for people.
    fn line(&self, total: &Size) -> String {
        let rules = self
            .rules
            .iter()
            .map(|rule| format!("{} {}", rule.rule, rule.bytes.text()));
        let open = match self.total.bytes {
            Some(_) => String::new(),
            None => {
                let names: Vec<String> = symbols(total)
                    .into_iter()
                    .map(|name| format!("--size {name}=N"))
                    .collect();
                format!("; {} gives a number", names.join(" "))
            }
        };
        format!(
            "caches: {} ({}){open}",
            self.total.text(),
            rules.collect::<Vec<_>>().join(", ")
        )
    }
}

impl Bytes {
    fn new(size: &Size, bindings: &Bindings) -> Bytes {
        Bytes {
            bytes: number_of(size, bindings),
            formula: size.to_string(),
        }
    }

    fn text(&self) -> String {
        self.bytes
            .map_or_else(|| format!("{} bytes", self.formula), number::bytes)
    }
}

fn number_of(size: &Size, bindings: &Bindings) -> Option<u64> {
    size.evaluate(bindings).and_then(|bytes| u64::try_from(bytes).ok())
}

fn symbols(size: &Size) -> BTreeSet<String> {
    let mut symbols = BTreeSet::new();
    size.symbols(&mut |name| {
        symbols.insert(name.to_owned());
    });
    symbols
}

/// Why a ceiling cannot be kept: sizes that are missing.
fn open_sizes(size: &Size, known: &Bindings) -> String {
    let missing: Vec<String> = symbols(size)
        .into_iter()
        .filter(|name| known.get(name).is_none())
        .map(|name| format!("--size {name}=N"))
        .collect();
    format!(
        "the ceiling for the memory of caches needs the sizes that the model leaves open: give {}",
        missing.join(" ")
    )
}
