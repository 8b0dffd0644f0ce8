//! The graphs of all ranks: made, patched and written.

use super::options::SplitOptions;
use super::report::Bytes;
use crate::axes::Bindings;
use crate::cli::Failure;
use crate::cli::analysis::{Analysis, patched_beside};
use crate::cli::args::OutputOptions;
use crate::cli::caches::CacheSettings;
use crate::cli::course::Course;
use crate::cli::division::{SPLIT_KEY, SplitRecord, of_rank, split_id};
use crate::cli::patch::{Order, relative, write};
use crate::cli::terminal::Terminal;
use crate::onnx::{Model, SaveOptions};
use crate::rewrite::split::{self, Split, Traffic};
use crate::rewrite::{Drive, DroppedSite, PLAN_KEY, Patched, Plan, Wide};
use crate::rules::Rules;
use std::path::{Path, PathBuf};

/// What the graphs of ranks are made from.
pub struct Work<'w> {
    pub options: &'w SplitOptions,
    pub rules: &'w Rules,
    /// Sizes of what is still open.
    pub open: Vec<(String, usize)>,
    pub split: &'w Split,
    pub course: Course,
    pub terminal: &'w Terminal,
}

impl Work<'_> {
    /// The sizes of open dimensions.
    pub fn sizes(&self) -> Bindings {
        let mut sizes = Bindings::of([("batch", 2)]);
        for (name, size) in &self.options.sizes {
            sizes.values.insert(name.clone(), *size as i64);
        }
        sizes
    }

    /// The graphs of all ranks, patched unless they are to be plain: what they send, and the files, where they are written.
    pub fn ranks(&self, analysis: &Analysis) -> Result<(Option<Bytes>, Vec<PathBuf>), Failure> {
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
