//! What is found in exports of other architectures (`tests/data/corpus/*/`, made by `export_models.py` and
//! `quantize.py`).

use super::super::*;
use super::corpus;
use crate::axes::{Axes, InputLabels, display_shape};
use crate::graph::ModelGraph;
use crate::onnx::Model;
use std::path::{Path, PathBuf};

fn find(path: &Path) -> (ModelGraph, Axes, Sites) {
    let model = ModelGraph::new(Model::load(path).unwrap()).unwrap();
    let axes = Axes::analyse(&model, &InputLabels::default()).unwrap();
    let sites = Sites::find(&model, &axes).unwrap();
    (model, axes, sites)
}

fn models(architecture: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(corpus().join(architecture)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut models: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "onnx"))
        .collect();
    models.sort();
    assert!(!models.is_empty(), "{architecture}");
    models
}

/// Kind and module of each site, in an order of their own.
fn sorted(mut modules: Vec<(String, Option<String>)>) -> Vec<(String, Option<String>)> {
    modules.sort();
    modules
}

#[test]
fn every_module_that_pytorch_has_is_found_with_its_kind() {
    let architectures = [
        "cogvideox",
        "flux",
        "sd3",
        "dit",
        "pixart",
        "pixart_quantized",
        "sana",
        "hunyuandit",
        "kandinsky5",
        "mochi",
        "hunyuanvideo_i2v",
        "sanavideo",
        "hunyuanimage",
    ];
    for architecture in architectures {
        let truth = std::fs::read_to_string(corpus().join(architecture).join("truth.json")).unwrap();
        let truth: serde_json::Value = serde_json::from_str(&truth).unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let attention = truth["attention"].as_array().unwrap().iter();
        let attention = attention.map(|module| (text(&module["kind"]), Some(text(&module["module"]))));
        let feed_forward = truth["mlp"].as_array().unwrap().iter();
        let feed_forward = feed_forward.map(|module| ("mlp".to_owned(), Some(text(module))));
        let expected: Vec<(String, Option<String>)> = attention.chain(feed_forward).collect();
        for path in models(architecture) {
            let (_, axes, sites) = find(&path);
            let notes = truth["notes"].as_u64().unwrap_or(0);
            assert_eq!(sites.notes.len() as u64, notes, "{}: {:?}", path.display(), sites.notes);
            assert_eq!(axes.opaque(), [], "{}", path.display());
            let found = sites
                .sites
                .iter()
                .map(|site| (site.kind.to_string(), site.module.clone()));
            let expected = expected.iter().cloned();
            if path.to_string_lossy().contains(".anon.") {
                let expected = expected.map(|(kind, _)| (kind, None)).collect();
                assert_eq!(sorted(found.collect()), sorted(expected), "{}", path.display());
            } else {
                assert_eq!(
                    sorted(found.collect()),
                    sorted(expected.collect()),
                    "{}",
                    path.display()
                );
            }
        }
    }
}

/// The parts of each cut of `site` with their axes.
fn parts(axes: &Axes, cuts: &Cuts) -> Vec<String> {
    cuts.iter()
        .map(|cut| format!("{} {}", cut.part, display_shape(axes.dimensions(cut.value).unwrap())))
        .collect()
}

#[test]
fn streams_that_part_behind_the_core_have_a_cut_each() {
    for architecture in ["flux", "sd3"] {
        for path in models(architecture) {
            let (_, axes, sites) = find(&path);
            let latent = match architecture {
                "flux" => "latent [batch, tokens, channels]",
                _ => "latent [batch, height·width, channels]",
            };
            let both = [latent, "text [batch, text, channels]"];
            let site = sites.get("joint.0").unwrap();
            assert_eq!(parts(&axes, &site.output), both, "{}", path.display());
            assert_eq!(parts(&axes, site.gated.as_ref().unwrap()), both, "{}", path.display());
            assert_eq!(site.streams.len(), 2);
        }
    }
    // The last block of SD3 has no use for text.
    let (_, axes, sites) = find(&models("sd3")[0]);
    let last = sites.get("joint.2").unwrap();
    assert_eq!(parts(&axes, &last.output), ["whole [batch, height·width, channels]"]);
}

#[test]
fn streams_that_part_behind_the_projection_have_one_output_and_two_gates() {
    for path in models("cogvideox") {
        let (_, axes, sites) = find(&path);
        // The last block has no use for text behind its feed-forward.
        for name in ["joint.0", "mlp.0", "joint.1"] {
            let site = sites.get(name).unwrap();
            let whole = "whole [batch, (text+frames·height·width), channels]";
            assert_eq!(parts(&axes, &site.output), [whole], "{name} of {}", path.display());
            let gated = [
                "latent [batch, frames·height·width, channels]",
                "text [batch, text, channels]",
            ];
            assert_eq!(
                parts(&axes, site.gated.as_ref().unwrap()),
                gated,
                "{name} of {}",
                path.display()
            );
        }
    }
}

#[test]
fn an_attention_beside_a_feed_forward_is_cut_before_both_are_projected() {
    for path in models("flux") {
        let (model, axes, sites) = find(&path);
        let site = sites.get("joint.3").unwrap();
        assert_eq!(parts(&axes, &site.output), ["whole [batch, (text+tokens), channels]"]);
        assert_eq!(site.gated, None);
        let users = model.graph.value(site.output.first().value).uses();
        assert!(users.iter().all(|usage| model.graph.node(usage.node).is("Concat")));
    }
}
