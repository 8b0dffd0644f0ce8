//! Load, patch and save a graph of 100,000 nodes: the format and graph layers have to be linear.
//!
//! The graph is a chain of residual blocks without weights to speak of; "patch" is the switch form
//! ([`pab_patch::rewrite::switch`]) for the branch of every tenth block.

#![allow(missing_docs, clippy::unwrap_used)] // A bench that cannot go on should stop.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use pab_patch::attention::{Cut, Kind, Part, Site};
use pab_patch::graph::ModelGraph;
use pab_patch::onnx::messages::{
    DataType, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorType, TypeProto, ValueInfoProto,
};
use pab_patch::onnx::{Model, SaveOptions};
use pab_patch::rewrite::{Choice, SwitchOptions, switch};
use pab_patch::rules::Rules;
use std::path::Path;

const BLOCKS: usize = 10_000;
const NODES_A_BLOCK: usize = 10;

fn info(name: &str, element_type: DataType) -> ValueInfoProto {
    let tensor_type = Some(TensorType {
        elem_type: Some(element_type as i32),
        shape: Some(Default::default()),
    });
    ValueInfoProto {
        name: Some(name.into()),
        r#type: Some(TypeProto {
            tensor_type,
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn node(operator: &str, inputs: [&str; 2], output: &str) -> NodeProto {
    NodeProto {
        op_type: Some(operator.into()),
        input: inputs
            .iter()
            .filter(|name| !name.is_empty())
            .map(|name| name.to_string())
            .collect(),
        output: vec![output.into()],
        name: Some(format!("/blocks/{output}")),
        ..Default::default()
    }
}

fn model() -> ModelProto {
    let mut graph = GraphProto {
        name: Some("chain".into()),
        input: vec![info("x", DataType::Float)],
        ..GraphProto::default()
    };
    let mut stream = "x".to_owned();
    for block in 0..BLOCKS {
        let mut last = stream.clone();
        for place in 0..NODES_A_BLOCK - 1 {
            let output = format!("branch.{block}.{place}");
            graph.node.push(node("Relu", [&last, ""], &output));
            last = output;
        }
        let sum = format!("stream.{block}");
        graph.node.push(node("Add", [&stream, &last], &sum));
        stream = sum;
    }
    graph.output = vec![info(&stream, DataType::Float)];
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto {
            domain: Some(String::new()),
            version: Some(17),
        }],
        graph: Some(graph),
        ..ModelProto::default()
    }
}

/// The branch of every tenth block, as the analyses would find it. Made here, so that they are not timed.
fn sites(model: &ModelGraph) -> Vec<Site> {
    let blocks = (0..BLOCKS).step_by(10).enumerate();
    let found = blocks.map(|(block, at)| {
        let value = model.graph.find(&format!("branch.{at}.{}", NODES_A_BLOCK - 2)).unwrap();
        let stream = model.graph.find(&format!("stream.{at}")).unwrap();
        Site {
            name: format!("spatial.{block}"),
            module: None,
            kind: Kind::Spatial,
            block,
            output: Cut {
                value,
                element_type: DataType::Float,
                shape: Vec::new(),
                part: Part::Whole,
            }
            .into(),
            gated: None,
            core: Vec::new(),
            heads: None,
            streams: vec![stream],
            additions: Vec::new(),
        }
    });
    found.collect()
}

fn patch(model: ModelGraph, sites: &[Site], rules: &Rules) -> ModelGraph {
    let choices: Vec<_> = sites
        .iter()
        .map(|site| Choice {
            site,
            rule: 0,
            cuts: &site.output,
        })
        .collect();
    switch(model, &choices, rules, &SwitchOptions::default()).unwrap().model
}

fn load(path: &Path) -> ModelGraph {
    ModelGraph::new(Model::load(path).unwrap()).unwrap()
}

fn large_graph(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chain.onnx");
    let output = folder.path().join("patched.onnx");
    Model::from_proto(model()).save(&path, &SaveOptions::default()).unwrap();
    let rules = "{ version: 1, rules: [{ name: all, match: { kind: spatial }, broadcast: { range: 2 } }] }";
    let rules = Rules::parse("bench.yaml", rules).unwrap();
    // Numbers of values are those of the file, so the sites are right for every load of it.
    let sites = sites(&load(&path));
    let patched = patch(load(&path), &sites, &rules).graph;
    let left = BLOCKS * NODES_A_BLOCK - sites.len() * (NODES_A_BLOCK - 2);
    assert_eq!(patched.node_count(), left, "an `If` for nine nodes");
    let mut group = criterion.benchmark_group("100,000 nodes");
    group.sample_size(10);
    group.bench_function("load", |bencher| bencher.iter(|| load(&path)));
    group.bench_function("patch", |bencher| {
        bencher.iter_batched(
            || load(&path),
            |model| patch(model, &sites, &rules),
            BatchSize::LargeInput,
        );
    });
    group.bench_function("load, patch, save", |bencher| {
        bencher.iter(|| {
            let model = patch(load(&path), &sites, &rules).into_model().unwrap();
            model.save(&output, &SaveOptions::default()).unwrap()
        });
    });
    group.finish();
}

criterion_group!(benches, large_graph);
criterion_main!(benches);
