//! What each rank runs: its graph, made in memory or read from a folder.

use super::folder::{SplitFolder, record};
use super::wanted::Wanted;
use crate::cli::Failure;
use crate::cli::analysis::{Analysis, Purpose, analyse, patched_beside, wide};
use crate::cli::args::CacheOptions;
use crate::cli::caches::CacheSettings;
use crate::cli::division::{of_rank, shares, split_id};
use crate::cli::plan_beside;
use crate::cli::run::Batch;
use crate::cli::source::Source;
use crate::cli::terminal::Terminal;
use crate::collective::Communicator;
use crate::generation::check_steps;
use crate::graph::ModelGraph;
use crate::onnx::{Model, SaveOptions};
use crate::rewrite::split::{self, RankGraph, Split, SplitOptions};
use crate::rewrite::{Drive, DroppedSite, PLAN_KEY, Patched, Plan, Wide, planned_rules, select_planned, switch_wide};
use crate::rules::Rules;
use crate::runtime::{Options, Session, SharedWeights};
use crate::sampler::elementwise;
use crate::shard::Shares;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Where the graphs of the ranks come from.
#[derive(Debug)]
pub enum Parts {
    /// Files.
    Written(SplitFolder),
    /// The original, split in memory.
    Made(Box<Made>),
}

/// An original that was split in memory.
#[derive(Debug)]
pub struct Made {
    original: PathBuf,
    whole: Analysis,
    split: Split,
    patching: Patching,
    sizes: Vec<(String, usize)>,
    id: String,
    /// What ranks of one process share.
    weights: Mutex<SharedWeights>,
}

/// How the graph of each rank is patched.
#[derive(Debug)]
enum Patching {
    /// Not at all.
    None,
    /// By rules.
    Rules(Rules),
    /// As the patched model was whose original was split.
    Plan(Box<Plan>),
}

impl Patching {
    /// How often the sites compute in a run through `timesteps`.
    fn shares(
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

/// More bytes of a rank's own weights go through a file: a graph in memory ends at 2 GiB.
const MOST_IN_MEMORY: usize = 1 << 30;

impl Parts {
    /// Splits the model, or takes what was split.
    pub fn of(wanted: Wanted, batch: &Batch, terminal: &Terminal) -> Result<Parts, Failure> {
        let (options, source) = (&batch.options, &batch.source);
        let mesh = wanted.mesh(wanted.launched)?.axes();
        let needs_whole = elementwise(batch.config.scheduler_for(&batch.settings)?.as_mut()).err();
        if let Some(folder) = wanted.folder {
            check_kept(source, options.ranks.keep_latents, needs_whole)?;
            return Ok(Parts::Written(folder));
        }
        let (original, patching) = original_of(&source.model, wanted.rules, terminal)?;
        let rules = match &patching {
            Patching::None => Rules::of_plan("", []),
            Patching::Rules(rules) => rules.clone(),
            Patching::Plan(plan) => planned_rules(plan),
        };
        let keeps = options.ranks.keep_latents && needs_whole.is_none();
        let fixed = if keeps { source.latent_sizes() } else { BTreeMap::new() };
        let whole = analyse(
            &original,
            &options.ranks.rules_options(),
            &rules,
            Purpose::Run(&fixed),
            terminal,
        )?;
        let wide = match &patching {
            Patching::None => Wide::default(),
            Patching::Rules(rules) => wide(&original, &whole, rules)?,
            Patching::Plan(plan) => Wide::planned(&whole.model, &whole.axes, &whole.sites, &rules, plan)
                .map_err(Failure::of(&original, Failure::rewrite))?,
        };
        let mut how = options.ranks.mesh.split_options();
        let scheduler = batch.config.scheduler_for(&batch.settings)?;
        how.shares = patching.shares(&original, &whole, &wide, &options.sampling.sizes, scheduler.timesteps())?;
        how.sequence.keep = keeps;
        let made = |how: &SplitOptions| {
            let (model, axes, sites) = (whole.model.clone(), &whole.axes, &whole.sites);
            let split = split::split_wide(model, axes, sites, &wide, &mesh, how);
            split.map_err(Failure::of(&original, Failure::shard))
        };
        let mut split = made(&how)?;
        if options.ranks.keep_latents
            && let Some(reason) = why_gathered(&split, &source.latent_input, needs_whole)
        {
            terminal.note(format!("latents: gathered in every step, since {reason}"));
            if split.latents.is_some() {
                how.sequence.keep = false;
                split = made(&how)?;
            }
        }
        let asked = [
            format!(
                "{:?} {} {:?}",
                options.ranks.mesh.along, how.sequence.keep, options.sampling.sizes
            ),
            serde_json::to_string(&rules).unwrap_or_default(),
            // The steps of the run decide what is divided, too.
            format!("{:?}", split.exchanges),
        ];
        Ok(Parts::Made(Box::new(Made {
            id: split_id(&original, &mesh, &asked)?,
            sizes: options.sampling.sizes.clone(),
            weights: Mutex::default(),
            original,
            whole,
            split,
            patching,
        })))
    }

    /// What tells the split that a rank has from others.
    pub fn id(&self, rank: usize) -> Result<String, Failure> {
        match self {
            Parts::Written(folder) => Ok(record(folder.file(rank)?)?.split),
            Parts::Made(made) => Ok(made.id.clone()),
        }
    }

    /// Opens the graph of a rank. ONNX Runtime must be loaded.
    pub fn open(
        &self,
        communicator: &Arc<dyn Communicator>,
        options: &Options,
        timesteps: &[f64],
        terminal: &Terminal,
    ) -> Result<Session, Failure> {
        terminal.stop().check()?;
        let rank = communicator.rank();
        match self {
            Parts::Written(folder) => {
                let file = folder.file(rank)?;
                plan_beside::check(file, &Model::load(file)?, terminal)?;
                Ok(Session::open_rank(file, options, communicator)?)
            }
            Parts::Made(made) => made.open(communicator, options, timesteps, terminal),
        }
    }
}

impl Made {
    fn open(
        &self,
        communicator: &Arc<dyn Communicator>,
        options: &Options,
        timesteps: &[f64],
        terminal: &Terminal,
    ) -> Result<Session, Failure> {
        let path = &self.original;
        let model = self.at_rank(communicator.rank(), timesteps, terminal)?;
        let model = model.into_model().map_err(Failure::of(path, Failure::graph))?;
        let graph = model.proto.graph.as_ref();
        let stored = graph.map_or(&[][..], |graph| graph.initializer.as_slice());
        let mut own = 0usize;
        for tensor in stored {
            if model.weights().standing(tensor)?.is_none() {
                own += tensor.raw_data.as_ref().map_or(0, |bytes| bytes.len());
            }
        }
        if own > MOST_IN_MEMORY {
            return self.open_from_file(&model, communicator, options, terminal);
        }
        let mut weights = self.weights.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(weights.open_rank(path, model, options, communicator)?)
    }

    /// The same by way of a temporary folder.
    fn open_from_file(
        &self,
        model: &Model,
        communicator: &Arc<dyn Communicator>,
        options: &Options,
        terminal: &Terminal,
    ) -> Result<Session, Failure> {
        let refuse = |source| crate::report::ReportError::Write {
            path: std::env::temp_dir(),
            source,
        };
        let folder = tempfile::Builder::new().prefix(".pab-").tempdir().map_err(refuse)?;
        let file = folder.path().join("model.onnx");
        let how = SaveOptions {
            move_weights: true,
            stop: terminal.stop().clone(),
            ..SaveOptions::default()
        };
        model.save(&file, &how)?;
        Ok(Session::open_rank(&file, options, communicator)?)
    }

    /// The graph of a rank, patched where it is to be.
    fn at_rank(&self, rank: usize, timesteps: &[f64], terminal: &Terminal) -> Result<ModelGraph, Failure> {
        let path = &self.original;
        let graph = self.split.at_rank(rank).map_err(Failure::of(path, Failure::shard))?;
        let Patched { mut model, mut plan } = match &self.patching {
            Patching::None => return Ok(graph.model),
            Patching::Rules(rules) => {
                // A ceiling for caches is kept by the first rank, which has the largest part, and the others give up the same.
                let given_up = match (rules.memory, rank) {
                    (None, _) | (_, 0) => None,
                    (Some(_), _) => {
                        let first = self.split.at_rank(0).map_err(Failure::of(path, Failure::shard))?;
                        Some(self.by_rules(first, rules, None, timesteps, terminal)?.plan.dropped)
                    }
                };
                self.by_rules(graph, rules, given_up, timesteps, terminal)?
            }
            Patching::Plan(plan) => self.planned(graph, plan, timesteps)?,
        };
        plan.original_sha256 = Some(self.whole.graph_sha256.clone());
        model.set_metadata(PLAN_KEY, plan.to_json()?);
        Ok(model)
    }

    fn by_rules(
        &self,
        graph: RankGraph,
        rules: &Rules,
        given_up: Option<Vec<DroppedSite>>,
        timesteps: &[f64],
        terminal: &Terminal,
    ) -> Result<Patched, Failure> {
        let caches = CacheSettings {
            options: &CacheOptions::default(),
            sizes: self.sizes.clone(),
            given_up,
        };
        let (graph, wide) = of_rank(graph, &self.whole);
        Ok(patched_beside(&self.original, graph, &wide, rules, &caches, Some(timesteps), terminal)?.0)
    }

    fn planned(&self, graph: RankGraph, plan: &Plan, timesteps: &[f64]) -> Result<Patched, Failure> {
        let path = &self.original;
        if plan.drive == Drive::Step {
            // The whole model holds one schedule, and its ranks keep to it.
            check_steps(plan.schedule.as_ref(), timesteps).map_err(Failure::of(path, Failure::generation))?;
        }
        let (choices, how) = match select_planned(&graph.sites, &graph.wide, plan) {
            Ok(found) => found,
            Err(error) => return Err(Failure::rewrite(path.clone(), error)),
        };
        let rules = planned_rules(plan);
        switch_wide(graph.model, &choices, &graph.wide, &rules, &how).map_err(Failure::of(path, Failure::rewrite))
    }
}

/// Why latents are not kept that were to be; none where they are.
fn why_gathered(split: &Split, latent: &str, needs_whole: Option<String>) -> Option<String> {
    if let Some(reason) = needs_whole {
        return Some(format!("of the scheduler, {reason}"));
    }
    match (&split.latents, &split.gathered) {
        (Some(kept), _) if kept.input == latent => None,
        (Some(kept), _) => Some(format!(
            "what ranks could keep is `{}`, and the latent is `{latent}`",
            kept.input
        )),
        (None, Some(reason)) => Some(reason.to_string()),
        (None, None) => Some("only ranks along the sequence have parts of them".to_owned()),
    }
}

/// Refuses a folder whose ranks do not keep the latents as they are to be kept.
fn check_kept(source: &Source, is_asked: bool, needs_whole: Option<String>) -> Result<(), Failure> {
    let model = source.model.display();
    let refuse = |text: String| Err(Failure::Usage(text));
    match (&source.kept, needs_whole) {
        (None, _) if is_asked => refuse(format!(
            "--keep-latents: {model} takes whole latents; split the original again with --keep-latents, or leave it out here"
        )),
        (None, _) => Ok(()),
        (Some(_), Some(reason)) => refuse(format!(
            "{model} takes a part of the latents, and the scheduler needs them whole ({reason}); use another with --scheduler, or \
             split the original again without --keep-latents"
        )),
        (Some(kept), None) if kept.latents.input != source.latent_input => refuse(format!(
            "{model} takes a part of `{}`, and the latent is `{}`; split the original again without --keep-latents",
            kept.latents.input, source.latent_input
        )),
        (Some(_), None) => Ok(()),
    }
}

/// The model that is split: the one that was given, or, of a patched one, its original.
fn original_of(model: &Path, rules: Option<Rules>, terminal: &Terminal) -> Result<(PathBuf, Patching), Failure> {
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
