//! What is found in every export of the corpus (`tests/data/corpus`, made by `export_latte.py`).

mod architectures;
mod exits;
mod feed_forward;
mod hostile;
mod linear;
mod nested;
mod parallel;
mod processed;
mod quantized;
mod span;
mod spellings;

use super::*;
use crate::axes::{Axes, Bindings, InputLabels, Size, display_shape};
use crate::graph::ModelGraph;
use crate::onnx::Model;
use crate::onnx::messages::DataType;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpus")
}

fn files() -> Vec<String> {
    let entries = std::fs::read_dir(corpus()).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".onnx"))
        .collect();
    names.sort();
    assert_eq!(names.len(), 11, "the corpus is incomplete: {names:?}");
    names
}

struct Found {
    model: ModelGraph,
    axes: Axes,
    sites: Sites,
}

fn find(file: &str) -> Found {
    let model = ModelGraph::new(Model::load(&corpus().join(file)).unwrap()).unwrap();
    let axes = Axes::analyse(&model, &InputLabels::default()).unwrap();
    let sites = Sites::find(&model, &axes).unwrap();
    Found { model, axes, sites }
}

/// The sizes of the models in a file, as `truth.json` has them: batch, frames, spatial tokens, text tokens.
fn sizes(file: &str) -> (i64, i64, i64, i64) {
    let truth = truth();
    let name = if file.starts_with("latte_equal") {
        "latte_equal"
    } else {
        "latte"
    };
    let size = |word: &str| truth["sizes"][name][word].as_i64().unwrap();
    (
        size("batch"),
        size("frames"),
        size("height") * size("width") / 4,
        size("text"),
    )
}

fn truth() -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(corpus().join("truth.json")).unwrap()).unwrap()
}

fn bindings(file: &str) -> Bindings {
    let (batch, _, _, text) = sizes(file);
    Bindings::of([("batch", batch), ("text", text)])
}

#[test]
fn every_module_that_pytorch_has_is_found_with_its_kind_and_block() {
    let truth = truth();
    for file in files() {
        let found = find(&file);
        let expected: BTreeSet<(String, String)> = truth["attention"]
            .as_array()
            .unwrap()
            .iter()
            .map(|module| {
                let name = format!("{}.{}", module["kind"].as_str().unwrap(), module["block"]);
                (name, module["module"].as_str().unwrap().to_owned())
            })
            .collect();
        let named = found
            .sites
            .sites
            .iter()
            .filter(|site| site.kind != Kind::Mlp)
            .map(|site| (site.name.clone(), site.module.clone()));
        if file.contains(".anon.") || file.contains(".ortext.") {
            let names: BTreeSet<String> = named.map(|(name, _)| name).collect();
            assert_eq!(names, expected.into_iter().map(|(name, _)| name).collect(), "{file}");
        } else {
            let named: BTreeSet<(String, String)> = named.map(|(name, module)| (name, module.unwrap())).collect();
            assert_eq!(named, expected, "{file}");
        }
        // A feed-forward in each of the two spatial and two temporal blocks.
        assert_eq!(found.sites.sites.len(), 6 + 4, "{file}");
        assert_eq!(found.sites.notes, [], "{file}");
        assert_eq!(found.axes.opaque(), [], "{file}");
    }
}

#[test]
fn cuts_have_the_shape_and_type_of_the_modules_output() {
    for file in files() {
        let (batch, frames, tokens, _) = sizes(&file);
        let found = find(&file);
        for site in &found.sites.sites {
            // The feed-forwards of temporal blocks, which stand behind those of spatial ones, have their layout.
            let is_temporal = site.kind == Kind::Temporal || site.kind == Kind::Mlp && site.block % 2 == 1;
            let expected = match is_temporal {
                true => [batch * tokens, frames, 16],
                false => [batch * frames, tokens, 16],
            };
            let element = if file.starts_with("latte_fp16") {
                DataType::Float16
            } else {
                DataType::Float
            };
            for cut in site.output.iter().chain(site.gated.iter().flat_map(Cuts::iter)) {
                let shape: Vec<i64> = cut
                    .shape
                    .iter()
                    .map(|size| size.evaluate(&bindings(&file)).unwrap())
                    .collect();
                assert_eq!(shape, expected, "{file} {}", site.name);
                assert_eq!(cut.element_type, element, "{file} {}", site.name);
            }
            let labels = display_shape(found.axes.dimensions(site.output.first().value).unwrap());
            let expected = match is_temporal {
                true => "[batch·height·width, frames, channels]",
                false => "[batch·frames, height·width, channels]",
            };
            assert_eq!(labels, expected, "{file} {}", site.name);
            // Latte's cross attention is not gated.
            assert_eq!(site.gated.is_some(), site.kind != Kind::Cross, "{file} {}", site.name);
            let heads = (site.kind != Kind::Mlp).then_some(2);
            assert_eq!(site.heads, heads, "{file} {}", site.name);
        }
    }
}

#[test]
fn dynamic_exports_have_symbolic_cut_shapes() {
    for file in [
        "latte.dyn18.dynamic.onnx",
        "latte.ts17.dynamic.onnx",
        "latte.ts17.dynamic.anon.onnx",
    ] {
        let found = find(file);
        let shape = |name: &str| {
            found
                .sites
                .get(name)
                .unwrap()
                .output
                .first()
                .shape
                .iter()
                .map(Size::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(shape("spatial.1"), ["3*batch", "4", "16"], "{file}");
        assert_eq!(shape("temporal.0"), ["4*batch", "3", "16"], "{file}");
        assert_eq!(found.axes.symbols().collect::<Vec<_>>(), ["batch", "text"], "{file}");
    }
}

#[test]
fn names_play_no_part() {
    for (named, anonymous) in [
        ("latte.ts17.dynamic.onnx", "latte.ts17.dynamic.anon.onnx"),
        ("latte.dyn23.static.onnx", "latte.dyn23.static.anon.onnx"),
    ] {
        let (named, anonymous) = (find(named), find(anonymous));
        let facts = |found: &Found| -> Vec<(String, Vec<Size>, Vec<usize>)> {
            let nodes = |site: &Site| site.core.iter().map(|id| id.index()).collect();
            found
                .sites
                .sites
                .iter()
                .map(|site| (site.name.clone(), site.output.first().shape.clone(), nodes(site)))
                .collect()
        };
        assert_eq!(facts(&named), facts(&anonymous));
        assert!(anonymous.sites.sites.iter().all(|site| site.module.is_none()));
    }
}

#[test]
fn the_nodes_that_a_broadcast_saves_are_counted() {
    // With the fused operator the module is: three projections, their biases, the core, the output projection, its bias.
    let found = find("latte.dyn23.static.onnx");
    let costs = found.sites.costs(&found.model, &found.axes, &Bindings::default());
    let (batch, frames, tokens, text) = sizes("latte.dyn23.static.onnx");
    let rows = (batch * frames * tokens) as f64;
    let projection = 2.0 * 16.0 * 16.0 + 16.0;
    let place = |name: &str| found.sites.sites.iter().position(|site| site.name == name).unwrap();
    let cross = costs.sites[place("cross.0")];
    let text_rows = (batch * frames * text) as f64;
    assert_eq!(
        cross.flops,
        2.0 * rows * projection + 2.0 * text_rows * projection + 4.0 * rows * text as f64 * 16.0
    );
    assert_eq!(cross.cache_bytes, Some(4 * 16 * (batch * frames * tokens) as u64));
    // The modulation of the norm before spatial attention serves it alone, too: norm, scale, shift and `1 + scale`.
    let spatial = costs.sites[place("spatial.0")];
    let core = 4.0 * rows * projection + 4.0 * rows * tokens as f64 * 16.0;
    assert_eq!(spatial.flops, core + 3.0 * rows * 16.0 + (batch * frames * 16) as f64);
    assert_eq!(costs.uncounted, 0);
    let saved: f64 = costs.sites.iter().map(|site| site.share).sum();
    assert!(saved > 0.8 && saved < 1.0, "{saved}");
    // Two projections to and from four times the width, two biases, GELU; and the modulation of the norm before it.
    let feed_forward = costs.sites[place("mlp.0")];
    assert!(feed_forward.flops > rows * 2.0 * 2.0 * 16.0 * 64.0 && feed_forward.flops < rows * 3.0 * 2.0 * 16.0 * 64.0);
}

#[test]
fn sizes_without_a_value_give_no_bytes() {
    let found = find("latte.dyn18.dynamic.onnx");
    let site = found.sites.get("spatial.0").unwrap();
    assert_eq!(site.output.bytes(&Bindings::default()), None);
    assert_eq!(
        site.output.bytes(&Bindings::of([("batch", 2)])),
        Some(2 * 3 * 4 * 16 * 4)
    );
    let costs = found.sites.costs(&found.model, &found.axes, &Bindings::default());
    assert!(costs.uncounted > 0);
}

#[test]
fn what_is_found_in_a_dynamic_torchscript_export() {
    let found = find("latte.ts17.dynamic.onnx");
    let costs = found
        .sites
        .costs(&found.model, &found.axes, &Bindings::of([("batch", 2), ("text", 5)]));
    let name = |cut: &Cut| found.model.graph.value(cut.value).name().to_owned();
    let lines = found.sites.sites.iter().zip(&costs.sites).map(|(site, cost)| {
        let gated = site
            .gated
            .as_ref()
            .map_or_else(|| "-".to_owned(), |gated| name(gated.first()));
        let core: Vec<&str> = site
            .core
            .iter()
            .map(|id| found.model.graph.node(*id).operator())
            .collect();
        format!(
            "{} {} {:?} {:?} {} gated {gated} core {} nodes {} flops {} bytes {:?}",
            site.name,
            site.module.as_deref().unwrap_or("-"),
            site.output.first().shape,
            site.output.first().element_type,
            name(site.output.first()),
            core.join(">"),
            site.output.serving(&found.model).len(),
            cost.flops,
            cost.cache_bytes,
        )
    });
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"));
}

#[test]
fn wrong_labels_give_notes_instead_of_wrong_kinds() {
    use crate::axes::Label::{Batch, Channels, Frames, Height, Other, Width};
    let model = ModelGraph::new(Model::load(&corpus().join("latte.ts17.static.onnx")).unwrap()).unwrap();
    let mut labels = InputLabels::default();
    labels
        .inputs
        .insert("hidden_states".into(), vec![Batch, Frames, Channels, Height, Width]);
    let axes = Axes::analyse(&model, &labels).unwrap();
    assert!(
        axes.notes().iter().any(|note| note.reason.contains("sums over frames")),
        "{:?}",
        axes.notes()
    );
    labels
        .inputs
        .insert("hidden_states".into(), vec![Batch, Channels, Other, Height, Width]);
    let axes = Axes::analyse(&model, &labels).unwrap();
    let sites = Sites::find(&model, &axes).unwrap();
    assert!(sites.sites.iter().all(|site| site.kind != Kind::Temporal));
    assert_eq!(
        sites
            .notes
            .iter()
            .filter(|note| note.reason.contains("not followed back"))
            .count(),
        2
    );
}

#[test]
fn a_softmax_that_is_no_attention_is_noted_with_the_reason() {
    let mut model = ModelGraph::new(Model::load(&corpus().join("latte.dyn18.dynamic.onnx")).unwrap()).unwrap();
    let axes = Axes::analyse(&model, &InputLabels::default()).unwrap();
    let sites = Sites::find(&model, &axes).unwrap();
    // The second product of the first core weighs a constant now.
    let product = *sites.get("spatial.0").unwrap().core.last().unwrap();
    let weight = model.graph.initializers().next().unwrap();
    model.graph.set_input(product, 1, weight);
    let sites = Sites::find(&model, &axes).unwrap();
    assert_eq!(sites.sites.len(), 5 + 4);
    assert_eq!(sites.notes.len(), 1);
    assert!(sites.notes[0].subject.starts_with("Softmax"), "{}", sites.notes[0]);
    assert!(
        sites.notes[0].reason.contains("does not weigh values"),
        "{}",
        sites.notes[0]
    );
}
