//! One small model in every form that a file can have: opsets, precisions, local functions, control flow, shared weights,
//! open sizes. `tests/data/variants/make_variants.py` makes the files and says what is in each.
//!
//! What a patched one computes is compared in `equality.rs`, with all other models.

use crate::program::{json, variants};
use onnx_protobuf::{GraphProto, ModelProto};
use protobuf::Message;
use std::collections::BTreeMap;

fn patch(model: &std::path::Path, folder: &std::path::Path) -> serde_json::Value {
    let rules = folder.join("rules.yaml");
    let by_kind = ["spatial", "temporal", "cross", "joint", "mlp"]
        .map(|kind| format!("  - {{ name: {kind}, match: {{ kind: {kind} }}, broadcast: {{ range: 2 }} }}\n"));
    std::fs::write(&rules, format!("version: 1\nrules:\n{}", by_kind.concat())).unwrap();
    let arguments = [
        model.as_os_str(),
        "--rules".as_ref(),
        rules.as_os_str(),
        "-o".as_ref(),
        folder.as_os_str(),
    ];
    json(arguments)
}

#[test]
fn every_form_of_a_model_has_all_its_sites() {
    for variant in variants() {
        let name = variant.path.display();
        let folder = tempfile::tempdir().unwrap();
        let plan = &patch(&variant.path, folder.path())["plan"];
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        for site in plan["sites"].as_array().unwrap() {
            *found.entry(site["kind"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        assert_eq!(found, variant.sites, "{name}");
    }
}

/// What stays out of reach is said: an attention that runs in some steps alone, or several times in one.
#[test]
fn attention_in_branches_and_loops_is_left_alone_and_noted() {
    let mut noted = 0;
    for variant in variants() {
        let found = json(["inspect".as_ref(), variant.path.as_os_str()]);
        let notes = found["notes"].to_string();
        for part in &variant.notes {
            assert!(notes.contains(part), "{}: {notes}", variant.path.display());
            noted += 1;
        }
        if variant.notes.is_empty() {
            assert!(
                !notes.contains("no site is looked for"),
                "{}: {notes}",
                variant.path.display()
            );
        }
    }
    assert_eq!(noted, 2);
}

fn read(path: &str) -> ModelProto {
    ModelProto::parse_from_bytes(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn precision_of_caches_is_that_of_the_modules() {
    let types = |name: &str| -> Vec<i32> {
        let variant = variants()
            .into_iter()
            .find(|variant| variant.path.ends_with(name))
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let written = patch(&variant.path, folder.path());
        let model = read(written["model"].as_str().unwrap());
        let caches = model
            .graph
            .input
            .iter()
            .filter(|input| input.name.starts_with("pab.cache."));
        caches.map(|input| input.type_.tensor_type().elem_type).collect()
    };
    for (name, element) in [
        ("opset23.onnx", 1),
        ("float16.onnx", 10),
        ("mixed.onnx", 10),
        ("bfloat16.onnx", 16),
    ] {
        let types = types(name);
        assert_eq!(types.len(), 10, "{name}");
        assert!(types.iter().all(|found| *found == element), "{name}: {types:?}");
    }
}

#[test]
fn the_opset_stays_what_it_was() {
    for variant in variants() {
        let folder = tempfile::tempdir().unwrap();
        let written = patch(&variant.path, folder.path());
        let opset = |path: &str| {
            let model = read(path);
            let standard = model.opset_import.iter().find(|import| import.domain.is_empty());
            standard.unwrap().version
        };
        let original = opset(variant.path.to_str().unwrap());
        assert_eq!(
            opset(written["model"].as_str().unwrap()),
            original,
            "{}",
            variant.path.display()
        );
    }
}

#[test]
fn functions_and_constant_branches_are_put_in_place() {
    let count = |graph: &GraphProto, operator: &str| graph.node.iter().filter(|node| node.op_type == operator).count();
    for (name, softmaxes) in [("functions.onnx", 6), ("branch_constant.onnx", 6)] {
        let variant = variants()
            .into_iter()
            .find(|variant| variant.path.ends_with(name))
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let written = patch(&variant.path, folder.path());
        let model = read(written["model"].as_str().unwrap());
        assert!(model.functions.is_empty(), "{name}");
        assert_eq!(model.opset_import.len(), 1, "{name}");
        // All of them stand in an `If` on a rule's flag.
        let nested = model
            .graph
            .node
            .iter()
            .flat_map(|node| &node.attribute)
            .map(|attribute| &attribute.g);
        let nested: usize = nested
            .filter_map(|graph| graph.as_ref())
            .map(|graph| count(graph, "Softmax"))
            .sum();
        assert_eq!((nested, count(&model.graph, "Softmax")), (softmaxes, 0), "{name}");
    }
}

/// Blocks that share an attention are sites of their own: each has its own cache, and the weights are held once.
#[test]
fn tied_blocks_are_cached_apart() {
    let variant = variants()
        .into_iter()
        .find(|variant| variant.path.ends_with("tied.onnx"))
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let written = patch(&variant.path, folder.path());
    let (before, after) = (
        read(variant.path.to_str().unwrap()),
        read(written["model"].as_str().unwrap()),
    );
    let weights = |model: &ModelProto| {
        model
            .graph
            .initializer
            .iter()
            .filter(|tensor| tensor.data_type == 1)
            .count()
    };
    assert_eq!(weights(&before), weights(&after));
    let names: std::collections::BTreeSet<_> = written["plan"]["sites"]
        .as_array()
        .unwrap()
        .iter()
        .map(|site| site["caches"][0]["input"].to_string())
        .collect();
    assert_eq!(names.len(), 10);
}
