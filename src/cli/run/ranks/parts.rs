//! What each rank runs: its graph, made in memory or read from a folder.

use super::folder::{SplitFolder, record};
use super::patching::Patching;
use super::wanted::Wanted;
use crate::cli::Failure;
use crate::cli::analysis::{Analysis, Purpose, analyse, patched_beside};
use crate::cli::args::{CacheOptions, FormChoice};
use crate::cli::caches::CacheSettings;
use crate::cli::division::{of_rank, split_id};
use crate::cli::open_sizes::open_sizes;
use crate::cli::plan_beside;
use crate::cli::run::Batch;
use crate::cli::source::{Source, plan_of};
use crate::cli::static_graphs::StaticGraphs;
use crate::cli::terminal::Terminal;
use crate::collective::Communicator;
use crate::generation::{Conditioning, Generator, check_steps};
use crate::graph::ModelGraph;
use crate::onnx::{Model, SaveOptions};
use crate::rewrite::split::{self, RankGraph, Split, SplitOptions};
use crate::rewrite::{Drive, DroppedSite, PLAN_KEY, Patched, Plan, planned_rules, select_planned, switch_wide};
use crate::rules::Rules;
use crate::runtime::{Options, RankGraphs, Session, SharedWeights};
use crate::sampler::elementwise;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Where the graphs of the ranks come from.
#[derive(Debug)]
pub enum Parts {
    /// Files.
    Written(SplitFolder, Box<Weights>),
    /// The original, split in memory.
    Made(Box<Made>),
}

/// What ranks of one process share.
type Weights = Mutex<SharedWeights>;

/// An original that was split in memory.
#[derive(Debug)]
pub struct Made {
    original: PathBuf,
    whole: Analysis,
    split: Split,
    patching: Patching,
    id: String,
    weights: Weights,
}

/// How a rank opens its part, and what for.
pub struct Opening<'o> {
    /// Its way to the others.
    pub communicator: &'o Arc<dyn Communicator>,
    /// How sessions are opened.
    pub options: &'o Options,
    /// One graph, or one for each set of rules that steps broadcast together.
    pub form: FormChoice,
    /// The inputs that every clip is fed by name.
    pub given: &'o [&'o str],
    /// The run.
    pub timesteps: &'o [f64],
    /// The shape of the noise of all clips, as the model takes it.
    pub latent: &'o [usize],
    /// What clips are made from.
    pub conditionings: &'o [Conditioning],
    pub terminal: &'o Terminal,
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
            check_form(source, options.form)?;
            return Ok(Parts::Written(folder, Box::default()));
        }
        let (original, patching) = Patching::of(&source.model, wanted.rules, terminal)?;
        patching.check_form(&original, options.form)?;
        let rules = patching.rules();
        let keeps = options.ranks.keep_latents && needs_whole.is_none();
        let fixed = if keeps { source.latent_sizes() } else { BTreeMap::new() };
        let whole = analyse(
            &original,
            &options.ranks.rules_options(),
            &rules,
            Purpose::Run(&fixed),
            terminal,
        )?;
        let wide = patching.wide(&original, &whole)?;
        let mut how = options.ranks.mesh.split_options();
        let scheduler = batch.config.scheduler_for(&batch.settings)?;
        let known = batch.known_conditionings(terminal)?;
        let sizes = open_sizes(
            &original,
            &whole,
            &source.latent.in_model(usize::from(options.batch)),
            &known,
        )?;
        how.shares = patching.shares(&original, &whole, &wide, &sizes, scheduler.timesteps())?;
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
            weights: Weights::default(),
            original,
            whole,
            split,
            patching,
        })))
    }

    /// What tells the split that a rank has from others.
    pub fn id(&self, rank: usize) -> Result<String, Failure> {
        match self {
            Parts::Written(folder, _) => Ok(record(folder.file(rank)?)?.split),
            Parts::Made(made) => Ok(made.id.clone()),
        }
    }

    /// Opens the graph of a rank, or its graphs. ONNX Runtime must be loaded.
    pub fn open(&self, opening: &Opening<'_>) -> Result<Generator, Failure> {
        opening.terminal.stop().check()?;
        match self {
            Parts::Written(folder, weights) => {
                let file = folder.file(opening.communicator.rank())?;
                let model = Model::load(file)?;
                plan_beside::check(file, &model, opening.terminal)?;
                match opening.form {
                    FormChoice::Switch => {
                        drop(model);
                        opening.one(file, Session::open_rank(file, opening.options, opening.communicator)?)
                    }
                    FormChoice::Variants => opening.several(file, model, weights),
                }
            }
            Parts::Made(made) => made.open(opening),
        }
    }
}

impl Opening<'_> {
    /// A generator on one graph; errors name `path`.
    fn one(&self, path: &Path, session: Session) -> Result<Generator, Failure> {
        Generator::new(session, self.given).map_err(Failure::of(path, Failure::generation))
    }

    /// A generator on the static graphs of a patched model that stands in the file `path` or was made from it.
    fn several(&self, path: &Path, model: Model, weights: &Weights) -> Result<Generator, Failure> {
        let model = ModelGraph::new(model).map_err(Failure::of(path, Failure::graph))?;
        let graphs = StaticGraphs::of(path, model, self.timesteps)?;
        // Until the last is open: ranks on other devices have arenas and weights there.
        let mut weights = weights.lock().unwrap_or_else(PoisonError::into_inner);
        graphs.generator(self.given, self.terminal, |model| {
            Ok(weights.open_rank(path, model, self.options, self.communicator, RankGraphs::Several)?)
        })
    }
}

impl Made {
    fn open(&self, opening: &Opening<'_>) -> Result<Generator, Failure> {
        let path = &self.original;
        let model = self.at_rank(opening)?;
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
            return self.open_from_file(&model, opening);
        }
        if opening.form == FormChoice::Variants {
            return opening.several(path, model, &self.weights);
        }
        let mut weights = self.weights.lock().unwrap_or_else(PoisonError::into_inner);
        let session = weights.open_rank(path, model, opening.options, opening.communicator, RankGraphs::One)?;
        drop(weights);
        opening.one(path, session)
    }

    /// The same by way of a temporary folder.
    fn open_from_file(&self, model: &Model, opening: &Opening<'_>) -> Result<Generator, Failure> {
        let refuse = |source| crate::report::ReportError::Write {
            path: std::env::temp_dir(),
            source,
        };
        let folder = tempfile::Builder::new().prefix(".pab-").tempdir().map_err(refuse)?;
        let file = folder.path().join("model.onnx");
        let how = SaveOptions {
            move_weights: true,
            stop: opening.terminal.stop().clone(),
            ..SaveOptions::default()
        };
        model.save(&file, &how)?;
        match opening.form {
            FormChoice::Switch => opening.one(
                &self.original,
                Session::open_rank(&file, opening.options, opening.communicator)?,
            ),
            // Their weights are the file's, which no other rank has.
            FormChoice::Variants => opening.several(&file, Model::load(&file)?, &Weights::default()),
        }
    }

    /// The graph of a rank, patched where it is to be.
    fn at_rank(&self, opening: &Opening<'_>) -> Result<ModelGraph, Failure> {
        let (path, rank) = (&self.original, opening.communicator.rank());
        let graph = self.split.at_rank(rank).map_err(Failure::of(path, Failure::shard))?;
        let Patched { mut model, mut plan } = match &self.patching {
            Patching::None => return Ok(graph.model),
            Patching::Rules(rules) => {
                // A ceiling for caches is kept by the first rank, which has the largest part, and the others give up the same.
                let given_up = match (rules.memory, rank) {
                    (None, _) | (_, 0) => None,
                    (Some(_), _) => {
                        let first = self.split.at_rank(0).map_err(Failure::of(path, Failure::shard))?;
                        Some(self.by_rules(first, rules, None, opening)?.plan.dropped)
                    }
                };
                self.by_rules(graph, rules, given_up, opening)?
            }
            Patching::Plan(plan) => self.planned(graph, plan, opening.timesteps)?,
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
        opening: &Opening<'_>,
    ) -> Result<Patched, Failure> {
        let path = &self.original;
        let caches = CacheSettings {
            options: &CacheOptions::default(),
            sizes: open_sizes(path, &self.whole, opening.latent, opening.conditionings)?,
            given_up,
        };
        let (graph, wide) = of_rank(graph, &self.whole);
        let timesteps = Some(opening.timesteps);
        Ok(patched_beside(path, graph, &wide, rules, &caches, timesteps, opening.terminal)?.0)
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

/// Refuses the variant form of a folder whose ranks broadcast nothing, or decide in the run.
fn check_form(source: &Source, form: FormChoice) -> Result<(), Failure> {
    if form == FormChoice::Switch {
        return Ok(());
    }
    match plan_of(&source.model)? {
        Some(plan) => Patching::Plan(Box::new(plan)).check_form(&source.model, form),
        None => Err(Failure::Usage(format!(
            "--form variants needs patched models, and {} is none; split the original again with --rules, or leave it out",
            source.model.display()
        ))),
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
