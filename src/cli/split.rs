//! `pab-patch split`: the graphs that ranks run together, and what they send each other.

use super::Failure;
use super::along::{self, Along};
use super::analysis::{Analysis, Purpose, analyse, patched_beside, rules, wide};
use super::args::{FactorChoice, MeshOptions, OutputOptions, SplitOptions};
use super::caches::CacheSettings;
use super::course::Course;
use super::division::{SPLIT_KEY, SplitRecord, of_rank, shares, split_id};
use super::folder::OutputFolder;
use super::patch::{Order, relative, write};
use super::terminal::Terminal;
use crate::axes::Bindings;
use crate::onnx::{Model, SaveOptions};
use crate::report::{Alignment, FilePath, Table, number};
use crate::rewrite::split::{self, KeptLatents, Split, Traffic};
use crate::rewrite::{Drive, DroppedSite, PLAN_KEY, Patched, Plan, Wide};
use crate::rules::{DEFAULT_PRESET, Rule, Rules};
use crate::shard::{Alternative, Factor, Mesh, Preference, Shares};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    mesh: Mesh,
    /// What the residual streams are divided along, for each axis of the mesh that divides them.
    divided: BTreeMap<&'static str, Option<Factor>>,
    /// What tokens could be divided along, the best first.
    candidates: Vec<Along>,
    /// How many steps by the rules were weighed for that; none without rules.
    weighed_over: Option<usize>,
    /// How many collectives of each kind a rank takes part in where everything is computed.
    collectives: BTreeMap<&'static str, usize>,
    /// The latent of which each rank keeps a part from step to step.
    latents: Option<KeptLatents>,
    /// Why the latent is gathered in every step, where it was to be kept.
    gathered: Option<String>,
    /// Bytes that the rank with most to send sends in a step; none where sizes are open.
    bytes: Option<Bytes>,
    /// What was written.
    files: Vec<FilePath>,
}

/// Bytes that a rank sends.
#[derive(Serialize)]
struct Bytes {
    /// In a step that computes everything, with the exchanges chosen here.
    computing: u64,
    /// The same where every attention that mixes what is divided exchanges it for heads (Ulysses).
    ulysses: Option<u64>,
    /// In a step that broadcasts every rule, where there are rules.
    broadcasting: Option<u64>,
    /// In each step of the run, where its schedule is known.
    steps: Vec<u64>,
}

impl MeshOptions {
    /// The mesh: that of the rules, as far as the options do not say another.
    pub fn mesh(&self, rules: &Rules) -> Mesh {
        let given = rules.parallel.unwrap_or(Mesh::ONE);
        Mesh {
            guidance: self.guidance.unwrap_or(given.guidance),
            sequence: self.sequence.unwrap_or(given.sequence),
            tensor: self.tensor.unwrap_or(given.tensor),
        }
    }

    /// How a graph is split.
    pub fn split_options(&self) -> split::SplitOptions {
        let factor = self.along.map(|along| match along {
            FactorChoice::Frames => Factor::Frames,
            FactorChoice::Space => Factor::Space,
            FactorChoice::Tokens => Factor::Tokens,
        });
        split::SplitOptions {
            sequence: Preference {
                factor,
                ..Preference::default()
            },
            ..split::SplitOptions::default()
        }
    }
}

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

struct Work<'w> {
    options: &'w SplitOptions,
    rules: &'w Rules,
    /// Sizes of what is still open.
    open: Vec<(String, usize)>,
    split: &'w Split,
    course: Course,
    terminal: &'w Terminal,
}

impl Work<'_> {
    /// The sizes of open dimensions.
    fn sizes(&self) -> Bindings {
        let mut sizes = Bindings::of([("batch", 2)]);
        for (name, size) in &self.options.sizes {
            sizes.values.insert(name.clone(), *size as i64);
        }
        sizes
    }

    /// The graphs of all ranks, patched unless they are to be plain: what they send, and the files, where they are written.
    fn ranks(&self, analysis: &Analysis) -> Result<(Option<Bytes>, Vec<PathBuf>), Failure> {
        let path = &self.options.model;
        let sizes = self.sizes();
        let (mut files, mut models) = (Vec::new(), Vec::new());
        let mut most: Option<Bytes> = None;
        let mut known = true;
        // A ceiling for caches is kept by the first rank, which has the largest part, and the others give up the same.
        let mut given_up = None;
        let silent = Terminal::new(&OutputOptions {
            json: false,
            quiet: true,
            verbose: 0,
        });
        for rank in 0..self.split.mesh.ranks().unwrap_or(0) {
            self.terminal.stop().check()?;
            let graph = self.split.at_rank(rank).map_err(Failure::of(path, Failure::shard))?;
            let traffic = |model, plan| self.split.traffic(model, plan, rank, &sizes);
            let sent = if self.options.plain {
                let traffic = traffic(&graph.model, None);
                models.push(graph.model);
                traffic.map(|traffic| self.bytes(&traffic, None))
            } else {
                let (of_rank, wide) = of_rank(graph, analysis);
                // What is to say of the rules is the same for all ranks.
                let terminal = if rank == 0 { self.terminal } else { &silent };
                let mut patched = self.patched(of_rank, &wide, given_up.clone(), terminal)?;
                given_up.get_or_insert_with(|| patched.plan.dropped.clone());
                patched.plan.schedule = self.course.schedule(&patched.plan);
                let traffic = traffic(&patched.model, Some(&patched.plan));
                let sent = traffic.map(|traffic| self.bytes(&traffic, Some(&patched.plan)));
                files.extend(self.write_patched(patched, rank)?);
                sent
            };
            known &= sent.is_some();
            if let Some(sent) = sent
                && most.as_ref().is_none_or(|most| most.computing < sent.computing)
            {
                most = Some(sent);
            }
        }
        if let Some(folder) = &self.options.output {
            files.extend(self.write_plain(models, folder)?);
        }
        Ok((most.filter(|_| known), files))
    }

    fn patched(
        &self,
        analysis: Analysis,
        wide: &Wide,
        given_up: Option<Vec<DroppedSite>>,
        terminal: &Terminal,
    ) -> Result<Patched, Failure> {
        let caches = CacheSettings {
            options: &self.options.caches,
            sizes: self.open.clone(),
            given_up,
        };
        let timesteps = self.course.timesteps();
        let path = &self.options.model;
        Ok(patched_beside(path, analysis, wide, self.rules, &caches, timesteps, terminal)?.0)
    }

    fn bytes(&self, traffic: &Traffic, plan: Option<&Plan>) -> Bytes {
        let rules = plan.map_or(0, |plan| plan.rules.len());
        let schedule = plan.and_then(|plan| plan.schedule.as_ref());
        let steps = schedule.map(|schedule| {
            let steps = 0..schedule.steps();
            steps.map(|step| traffic.step(&schedule.flags(step))).collect()
        });
        Bytes {
            computing: traffic.step(&vec![false; rules]),
            ulysses: None,
            broadcasting: plan.map(|_| traffic.step(&vec![true; rules])),
            steps: steps.unwrap_or_default(),
        }
    }

    /// The name of a file in the output folder.
    fn name(&self, suffix: &str) -> PathBuf {
        let stem = self.options.model.file_stem().unwrap_or_default();
        PathBuf::from(format!("{}.{suffix}.onnx", stem.to_string_lossy()))
    }

    /// What the model of `rank` says of the split.
    fn record(&self, rank: usize, folder: &Path) -> Result<String, Failure> {
        let rules = match self.options.plain {
            true => None,
            false => Some(self.rules),
        };
        let (options, caches) = (&self.options, &self.options.caches);
        let asked = [
            format!("{:?} {}", options.mesh.along, options.keep_latents),
            format!("{:?} {:?} {:?}", caches.cache_dtype, caches.memory, options.sizes),
            serde_json::to_string(&rules).unwrap_or_default(),
            // The steps of the run decide what is divided, too.
            format!("{:?}", self.split.exchanges),
        ];
        let record = SplitRecord {
            mesh: self.split.mesh,
            rank,
            split: split_id(&options.model, &self.split.mesh, &asked)?,
            original: relative(&options.model, folder),
        };
        Ok(record.to_json())
    }

    fn write_patched(&self, mut patched: Patched, rank: usize) -> Result<Vec<PathBuf>, Failure> {
        let Some(folder) = &self.options.output else {
            return Ok(Vec::new());
        };
        let model = &self.options.model;
        patched.plan.original = relative(model, folder);
        patched.model.set_metadata(PLAN_KEY, patched.plan.to_json()?);
        patched.model.set_metadata(SPLIT_KEY, self.record(rank, folder)?);
        let order = Order::new(&self.course, Drive::Flags);
        let named = model.with_file_name(self.name(&format!("rank{rank}")));
        let written = write(&named, patched, folder, &order, self.terminal)?;
        Ok(vec![written.model, written.plan_file])
    }

    fn write_plain(&self, models: Vec<crate::graph::ModelGraph>, folder: &Path) -> Result<Vec<PathBuf>, Failure> {
        let path = &self.options.model;
        let mut files = Vec::new();
        let mut ranks = Vec::new();
        for (rank, mut model) in models.into_iter().enumerate() {
            if !self.options.unrolled {
                model.set_metadata(SPLIT_KEY, self.record(rank, folder)?);
            }
            let model = model.into_model().map_err(Failure::of(path, Failure::graph))?;
            match self.options.unrolled {
                true => ranks.push(model),
                false => files.push(self.save(&model, &folder.join(self.name(&format!("rank{rank}"))))?),
            }
        }
        if let Some(weights) = ranks.first().map(|model| model.weights().clone()) {
            let protos = ranks.into_iter().map(|model| model.proto).collect();
            let kept = self.split.latents.as_ref().map(|latents| latents.input.as_str());
            let unrolled = split::unroll(protos, &self.split.mesh, &|name| Some(name) == kept);
            let unrolled = unrolled.map_err(Failure::of(path, Failure::shard))?;
            let model = Model::with_weights(unrolled, weights);
            files.push(self.save(&model, &folder.join(self.name("unrolled")))?);
        }
        Ok(files)
    }

    fn save(&self, model: &Model, file: &Path) -> Result<PathBuf, Failure> {
        let options = SaveOptions {
            stop: self.terminal.stop().clone(),
            ..SaveOptions::default()
        };
        model.save(file, &options)?;
        Ok(file.to_owned())
    }
}

/// The report for people.
fn text(report: &Report, terminal: &Terminal) -> String {
    let mut text = format!("ranks: {}\n", report.mesh);
    for (group, factor) in &report.divided {
        let what = factor.map_or("heads and hidden channels", Factor::word);
        text.push_str(&format!("{group}: divides {what}\n"));
    }
    text.push_str(&along::text(&report.candidates, report.weighed_over));
    let collectives = report.collectives.iter();
    let collectives: Vec<String> = collectives.map(|(kind, count)| format!("{count} {kind}")).collect();
    text.push_str(&format!(
        "collectives of a computing step: {}\n",
        collectives.join(", ")
    ));
    if let Some(latents) = &report.latents {
        text.push_str(&format!(
            "latents: each rank keeps its part of axis {} of `{}`; `{}` is to be gathered when the run is over\n",
            latents.axis, latents.input, latents.output
        ));
    }
    if let Some(reason) = &report.gathered {
        text.push_str(&format!("latents: gathered in every step, since {reason}\n"));
    }
    let Some(bytes) = &report.bytes else {
        text.push_str("what is sent depends on open sizes: give them with --size NAME=N\n");
        return text;
    };
    let mut table = Table::new([
        ("a rank sends", Alignment::Left),
        ("steps", Alignment::Right),
        ("bytes each", Alignment::Right),
    ]);
    let mut row = |what: &str, steps: String, sent: u64| {
        table.row([what.to_owned(), steps, number::bytes(sent)]);
    };
    row("computing everything", String::new(), bytes.computing);
    if let Some(ulysses) = bytes.ulysses {
        row("the same with heads for tokens (Ulysses)", String::new(), ulysses);
    }
    if let Some(broadcasting) = bytes.broadcasting {
        row("broadcasting every rule", String::new(), broadcasting);
    }
    // Steps that send the same and follow each other are one row.
    let mut first = 0;
    for run in bytes.steps.chunk_by(|one, other| one == other) {
        let last = first + run.len() - 1;
        let steps = if first == last {
            first.to_string()
        } else {
            format!("{first}–{last}")
        };
        row("step", steps, run.first().copied().unwrap_or(0));
        first = last + 1;
    }
    text.push_str(&table.render(terminal.table_style()));
    if !bytes.steps.is_empty() {
        let (sum, steps) = (bytes.steps.iter().sum::<u64>(), bytes.steps.len() as u64);
        let without = bytes.computing * steps;
        text.push_str(&format!(
            "all {steps} steps: {}, {} of {} without broadcast\n",
            number::bytes(sum),
            number::percent(sum as f64 / without.max(1) as f64),
            number::bytes(without)
        ));
        if let Some(ulysses) = bytes.ulysses {
            text.push_str(&format!(
                "Ulysses without broadcast: {}\n",
                number::bytes(ulysses * steps)
            ));
        }
    }
    text
}
