//! `pab-patch split`: a graph that ranks run together, and what they send each other.

use super::Failure;
use super::analysis::{Purpose, analyse};
use super::args::{FactorChoice, MeshOptions, SplitOptions};
use super::folder::OutputFolder;
use super::terminal::Terminal;
use crate::graph::ModelGraph;
use crate::onnx::{Model, SaveOptions};
use crate::report::FilePath;
use crate::rewrite::split::{self, Split};
use crate::rules::{DEFAULT_PRESET, Rules};
use crate::shard::{Factor, Mesh};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    mesh: Mesh,
    /// What is divided along each axis of the mesh.
    divided: BTreeMap<&'static str, Option<Factor>>,
    /// How many collectives of each kind.
    collectives: BTreeMap<&'static str, usize>,
    /// What was written.
    files: Vec<FilePath>,
}

impl MeshOptions {
    /// The mesh.
    pub fn mesh(&self) -> Mesh {
        Mesh {
            guidance: self.guidance,
            sequence: self.sequence,
            tensor: self.tensor,
        }
    }

    /// How a graph is split.
    pub fn split_options(&self) -> split::SplitOptions {
        split::SplitOptions {
            sequence: self.along.map(|along| match along {
                FactorChoice::Frames => Factor::Frames,
                FactorChoice::Space => Factor::Space,
                FactorChoice::Tokens => Factor::Tokens,
            }),
        }
    }
}

/// Splits, reports and writes.
pub fn run(options: &SplitOptions, terminal: &Terminal) -> Result<(), Failure> {
    let path = &options.model;
    let rules = match &options.rules.rules {
        Some(named) => Rules::find(named)?,
        None => Rules::preset(DEFAULT_PRESET)?,
    };
    let analysis = analyse(path, &options.rules, &rules, Purpose::Patch, terminal)?;
    let mesh = options.mesh.mesh();
    let split = split::split(
        analysis.model,
        &analysis.axes,
        &analysis.sites,
        &mesh,
        &options.mesh.split_options(),
    )
    .map_err(Failure::of(path, Failure::shard))?;
    let files = match &options.output {
        Some(folder) => write(options, &split, folder, terminal)?,
        None => Vec::new(),
    };
    let mut collectives = BTreeMap::new();
    for exchange in &split.exchanges {
        *collectives.entry(exchange.collective.operator()).or_default() += 1;
    }
    let report = Report {
        mesh,
        divided: split.axes.iter().map(|axis| (axis.group.word(), axis.factor)).collect(),
        collectives,
        files: files.iter().map(|file| file.as_path().into()).collect(),
    };
    terminal.result(&report, || format!("{:?}", report.collectives))
}

fn write(options: &SplitOptions, split: &Split, output: &Path, terminal: &Terminal) -> Result<Vec<PathBuf>, Failure> {
    let path = &options.model;
    let folder = OutputFolder::make(output)?;
    let name = |suffix: &str| {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        output.join(format!("{stem}{suffix}.onnx"))
    };
    let mut files = Vec::new();
    let mut ranks = Vec::new();
    for rank in 0..split.mesh.ranks().unwrap_or(0) {
        let model = split.at_rank(rank).map_err(Failure::of(path, Failure::shard))?.model;
        if options.unrolled {
            ranks.push(model);
        } else {
            files.push(save(path, model, name(&format!(".rank{rank}")), terminal)?);
        }
    }
    if options.unrolled {
        let model = unrolled(path, ranks, &split.mesh)?;
        let file = name(".unrolled");
        model.save(&file, &save_options(terminal))?;
        files.push(file);
    }
    folder.keep();
    Ok(files)
}

fn unrolled(path: &Path, ranks: Vec<ModelGraph>, mesh: &Mesh) -> Result<Model, Failure> {
    let mut weights = None;
    let mut protos = Vec::new();
    for model in ranks {
        let model = model.into_model().map_err(Failure::of(path, Failure::graph))?;
        weights = Some(model.weights().clone());
        protos.push(model.proto);
    }
    let proto = split::unroll(protos, mesh, &|_| false).map_err(Failure::of(path, Failure::shard))?;
    Ok(match weights {
        Some(weights) => Model::with_weights(proto, weights),
        None => Model::from_proto(proto),
    })
}

fn save_options(terminal: &Terminal) -> SaveOptions {
    SaveOptions {
        stop: terminal.stop().clone(),
        ..SaveOptions::default()
    }
}

fn save(path: &Path, model: ModelGraph, file: PathBuf, terminal: &Terminal) -> Result<PathBuf, Failure> {
    let model = model.into_model().map_err(Failure::of(path, Failure::graph))?;
    model.save(&file, &save_options(terminal))?;
    Ok(file)
}
