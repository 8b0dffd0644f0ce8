//! `pab-patch split`: the graphs that ranks run together, and what they send each other.

mod options;
mod report;
mod write;

pub use options::{MeshOptions, SplitOptions};

use super::Failure;
use super::along::Along;
use super::analysis::{Purpose, analyse, rules, wide};
use super::caches::CacheSettings;
use super::course::Course;
use super::division::shares;
use super::folder::OutputFolder;
use super::terminal::Terminal;
use crate::rewrite::Wide;
use crate::rewrite::split::{self, Split};
use crate::rules::{DEFAULT_PRESET, Rule, Rules};
use crate::shard::{Alternative, Factor, Preference, Shares};
use report::{Bytes, Report, text};
use std::collections::BTreeMap;
use write::Work;

/// Splits, reports and writes.
pub fn run(options: &SplitOptions, terminal: &Terminal) -> Result<(), Failure> {
    let path = &options.model;
    let rules = match options.plain && options.rules.rules.is_none() {
        true => Rules::preset(DEFAULT_PRESET)?,
        false => rules(&options.rules, terminal)?,
    };
    let mesh = options.mesh.mesh(&rules);
    if mesh.ranks() == Some(1) {
        let text = "a split over one rank is the model itself; give ranks with --sequence, --guidance-ranks or --tensor, or \
                    in the rules under `parallel`";
        return Err(Failure::Usage(text.to_owned()));
    }
    // No rank knows the size of an open axis from its part alone.
    let kept: BTreeMap<String, i64> = match options.keep_latents {
        true => options
            .sizes
            .iter()
            .map(|(name, size)| (name.clone(), *size as i64))
            .collect(),
        false => BTreeMap::new(),
    };
    let analysis = analyse(path, &options.rules, &rules, Purpose::Run(&kept), terminal)?;
    let mut open = options.sizes.clone();
    open.retain(|(name, _)| !analysis.fixed.contains(name));
    let wide = match options.plain {
        true => Wide::default(),
        false => wide(path, &analysis, &rules)?,
    };
    let refuse = || Failure::of(path, Failure::shard);
    let course = Course::of(path, &options.course, terminal)?;
    let caches = CacheSettings {
        options: &options.caches,
        sizes: open.clone(),
        given_up: None,
    };
    let timesteps = course.likely_timesteps();
    let shares = match options.plain {
        true => Shares::default(),
        false => shares(path, &analysis, &rules, &wide, &caches, &timesteps)?,
    };
    let make = |preference: Preference| {
        let options = split::SplitOptions {
            sequence: preference,
            shares: shares.clone(),
        };
        let (model, axes, sites) = (analysis.model.clone(), &analysis.axes, &analysis.sites);
        split::split_wide(model, axes, sites, &wide, &mesh, &options)
    };
    let preference = Preference {
        keep: options.keep_latents,
        ..options.mesh.split_options().sequence
    };
    let split = make(preference).map_err(refuse())?;
    let is_adaptive = |rule: &Rule| rule.action.as_ref().is_some_and(|action| action.adaptive.is_some());
    if !options.plain && rules.rules.iter().any(is_adaptive) {
        terminal.note("adaptive rules decide in the run: bytes are told as if they broadcast wherever they may");
    }
    let work = Work {
        options,
        rules: &rules,
        open,
        split: &split,
        course,
        terminal,
    };
    let folder = options.output.as_deref().map(OutputFolder::make).transpose()?;
    let (bytes, files) = work.ranks(&analysis)?;
    if let Some(folder) = folder {
        folder.keep();
    }
    let ulysses = make(Preference {
        factor: split
            .axes
            .iter()
            .find_map(|axis| axis.factor.filter(|factor| *factor != Factor::Batch)),
        attention: Some(Alternative::Heads),
        ..preference
    });
    let sizes = work.sizes();
    let most = |split: &Split| {
        let ranks = 0..split.mesh.ranks()?;
        let sent = ranks.map(|rank| {
            split
                .traffic(&split.model, None, rank, &sizes)
                .map(|traffic| traffic.always)
        });
        sent.collect::<Option<Vec<u64>>>()?.into_iter().max()
    };
    let bytes = bytes.map(|bytes| Bytes {
        ulysses: ulysses.ok().and_then(|split| most(&split)),
        ..bytes
    });
    let mut collectives = BTreeMap::new();
    for exchange in &split.exchanges {
        *collectives.entry(exchange.collective.operator()).or_default() += 1;
    }
    let report = Report {
        mesh,
        candidates: Along::of(&split),
        weighed_over: shares.say_something().then_some(timesteps.len()),
        divided: split.axes.iter().map(|axis| (axis.group.name(), axis.factor)).collect(),
        collectives,
        latents: split.latents.clone(),
        gathered: split.gathered.as_ref().map(ToString::to_string),
        bytes,
        files: files.iter().map(|file| file.as_path().into()).collect(),
    };
    terminal.result(&report, || text(&report, terminal))
}
