//! Load, patch and save a graph of 100,000 nodes: the format and graph layers have to be linear.
//!
//! The graph is a chain of residual blocks without weights to speak of; "patch" moves the branch of every tenth block
//! into an `If`, as the switch form does.

#![allow(missing_docs, clippy::unwrap_used)] // A bench that cannot go on should stop.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use pab_patch::graph::{ModelGraph, NewNode};
use pab_patch::onnx::messages::{
    DataType, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorType, TypeProto, ValueInfoProto,
};
use pab_patch::onnx::{Model, SaveOptions};
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

/// Puts the branch of every tenth block into an `If`.
fn patch(model: &mut ModelGraph) {
    let graph = &mut model.graph;
    let flag = graph.add_input(info("flag", DataType::Bool)).unwrap();
    for block in (0..BLOCKS).step_by(10) {
        let value = graph.find(&format!("branch.{block}.{}", NODES_A_BLOCK - 2)).unwrap();
        let cache = graph
            .add_input(info(&format!("cache.{block}"), DataType::Float))
            .unwrap();
        let nodes = graph.exclusive_to(&[value]);
        assert_eq!(nodes.len(), NODES_A_BLOCK - 1);
        let after = nodes.last().map(|node| graph.position(*node));
        let compute = graph
            .extract(&nodes, &[(value, info("", DataType::Float))], "compute")
            .unwrap();
        let mut reuse = graph.nested("reuse");
        let read = reuse.capture(cache, &format!("cache.{block}"));
        let same = reuse.add_node(NewNode {
            operator: "Identity".into(),
            inputs: vec![Some(read)],
            outputs: vec![format!("reuse.{block}")],
            ..NewNode::default()
        });
        let kept = reuse.node(same.unwrap()).output(0).unwrap();
        reuse.add_output(kept, info("", DataType::Float));
        let choice = graph.add_node(NewNode {
            operator: "If".into(),
            inputs: vec![Some(flag)],
            outputs: vec![format!("next.{block}")],
            bodies: vec![("then_branch".into(), reuse), ("else_branch".into(), compute)],
            after,
            ..NewNode::default()
        });
        let next = graph.node(choice.unwrap()).output(0).unwrap();
        graph.replace_uses(value, next);
    }
    graph.eliminate_dead_code();
}

fn load(path: &Path) -> ModelGraph {
    ModelGraph::new(Model::load(path).unwrap()).unwrap()
}

fn large_graph(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chain.onnx");
    let output = folder.path().join("patched.onnx");
    Model::from_proto(model()).save(&path, &SaveOptions::default()).unwrap();
    let mut group = criterion.benchmark_group("100,000 nodes");
    group.sample_size(10);
    group.bench_function("load", |bencher| bencher.iter(|| load(&path)));
    group.bench_function("patch", |bencher| {
        bencher.iter_batched_ref(|| load(&path), patch, BatchSize::LargeInput);
    });
    group.bench_function("load, patch, save", |bencher| {
        bencher.iter(|| {
            let mut model = load(&path);
            patch(&mut model);
            model
                .into_model()
                .unwrap()
                .save(&output, &SaveOptions::default())
                .unwrap()
        });
    });
    group.finish();
}

criterion_group!(benches, large_graph);
criterion_main!(benches);
