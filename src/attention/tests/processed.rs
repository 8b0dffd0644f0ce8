//! What is found in every file below `tests/data/corpus` that has a `truth.json`, whatever was done to it: the files of
//! both exporters, and what optimizers and converters made of them (`process.py`). With PAB_CORPUS=FOLDER also in every
//! file below that folder.

use super::super::*;
use super::corpus;
use crate::axes::{Axes, AxesError, InputLabels, Label};
use crate::graph::ModelGraph;
use crate::onnx::Model;
use crate::onnx::messages::GraphProto;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

/// How many sites there are of each kind.
type Counts = BTreeMap<String, usize>;

fn models_below(folder: &Path, models: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            models_below(&path, models);
        } else if path.extension().is_some_and(|extension| extension == "onnx") {
            models.push(path);
        }
    }
}

fn models() -> Vec<PathBuf> {
    let mut models = Vec::new();
    models_below(&corpus(), &mut models);
    assert!(models.len() > 100, "the corpus is incomplete: {} files", models.len());
    if let Some(folder) = std::env::var_os("PAB_CORPUS") {
        models_below(Path::new(&folder), &mut models);
    }
    models.sort();
    models
}

/// The architecture's truth, which lies beside the model or in the folder of that name.
fn truth(model: &Path) -> Counts {
    let folder = model.parent().unwrap();
    let stem = model.file_name().unwrap().to_str().unwrap().split('.').next().unwrap();
    let places = [folder.to_owned(), corpus().join(stem), corpus()];
    let file = places.map(|place| place.join("truth.json"));
    let file = file.into_iter().find(|file| file.is_file()).unwrap();
    let truth: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let mut counts = Counts::new();
    for module in truth["attention"].as_array().unwrap() {
        *counts.entry(module["kind"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    // Those of Latte are in its blocks.
    let feed_forward = truth["mlp"].as_array().map_or(4, Vec::len);
    counts.insert("mlp".to_owned(), feed_forward);
    counts
}

struct Found {
    counts: Counts,
    names: Vec<String>,
    labels: InputLabels,
    notes: usize,
}

fn find(model: Model, labels: &InputLabels) -> Result<Found, AxesError> {
    let model = ModelGraph::new(model).unwrap();
    let axes = Axes::analyse(&model, labels)?;
    let sites = Sites::find(&model, &axes).unwrap();
    let mut counts = Counts::new();
    for site in &sites.sites {
        *counts.entry(site.kind.to_string()).or_default() += 1;
    }
    let labels = model.graph.inputs().filter_map(|value| {
        let labels = axes
            .dimensions(value)?
            .iter()
            .map(|dim| dim.labels().single().unwrap_or(Label::Other));
        Some((model.graph.value(value).name().to_owned(), labels.collect()))
    });
    Ok(Found {
        counts,
        names: sites.sites.iter().map(|site| site.name.clone()).collect(),
        labels: InputLabels {
            inputs: labels.collect(),
        },
        notes: sites.notes.len(),
    })
}

#[test]
fn every_module_is_found_whatever_was_done_to_the_file() {
    for path in models() {
        let found = find(Model::load(&path).unwrap(), &InputLabels::default()).unwrap();
        assert_eq!(found.counts, truth(&path), "{}", path.display());
    }
}

/// Gives every value and node a random name.
struct Renaming {
    seed: usize,
    given: usize,
    names: HashMap<String, String>,
}

impl Renaming {
    fn fresh(&mut self) -> String {
        let mut hasher = DefaultHasher::new();
        (self.seed, self.given).hash(&mut hasher);
        self.given += 1;
        format!("{:016x}", hasher.finish())
    }

    fn rename(&mut self, name: &mut Option<String>) {
        if let Some(name) = name.as_mut().filter(|name| !name.is_empty()) {
            if !self.names.contains_key(name) {
                let fresh = self.fresh();
                self.names.insert(name.clone(), fresh);
            }
            *name = self.names[name].clone();
        }
    }

    fn graph(&mut self, graph: &mut GraphProto) {
        graph.name = Some(self.fresh());
        for info in graph
            .input
            .iter_mut()
            .chain(&mut graph.output)
            .chain(&mut graph.value_info)
        {
            self.rename(&mut info.name);
        }
        for tensor in &mut graph.initializer {
            self.rename(&mut tensor.name);
        }
        for node in &mut graph.node {
            node.name = Some(self.fresh());
            node.metadata_props.clear();
            for name in node.input.iter_mut().chain(&mut node.output) {
                let mut renamed = Some(std::mem::take(name));
                self.rename(&mut renamed);
                *name = renamed.unwrap();
            }
            for attribute in &mut node.attribute {
                if let Some(inner) = &mut attribute.g {
                    self.graph(inner);
                }
            }
        }
    }
}

/// With labels where the names of inputs tell what no structure does: a latent whose tokens were put together is no
/// different from a text.
#[test]
fn no_name_is_looked_at() {
    for (seed, path) in models().into_iter().enumerate() {
        let original = find(Model::load(&path).unwrap(), &InputLabels::default()).unwrap();
        let mut renaming = Renaming {
            seed,
            given: 0,
            names: HashMap::new(),
        };
        let mut renamed = || {
            let mut model = Model::load(&path).unwrap();
            renaming.graph(model.proto.graph.as_mut().unwrap());
            model
        };
        let found = find(renamed(), &InputLabels::default());
        let model = renamed();
        let given = original
            .labels
            .inputs
            .iter()
            .map(|(name, labels)| (renaming.names[name].clone(), labels.clone()));
        let labelled = find(
            model,
            &InputLabels {
                inputs: given.collect(),
            },
        )
        .unwrap();
        assert_eq!(
            (&labelled.names, labelled.notes),
            (&original.names, original.notes),
            "{}",
            path.display()
        );
        // Without labels a doubt is said, and what is found is the same all the same.
        let name = path.file_name().unwrap().to_str().unwrap();
        match found {
            Ok(found) => {
                let doubts = usize::from(name == "latte_equal.ts17.static.onnx");
                assert_eq!(
                    (found.names, found.notes),
                    (original.names, original.notes + doubts),
                    "{name}"
                );
            }
            Err(error) => {
                assert!(
                    matches!(error, AxesError::NoLatent { .. }) && name.starts_with("flux."),
                    "{name}: {error}"
                );
            }
        }
    }
}
