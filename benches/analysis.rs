//! How the time of the analyses grows with the graph: axes and sites of 1,300 to 100,000 nodes, and the exponent that
//! fits. Linear is 1.
//!
//! The graphs are chains of a real Latte export: the sample of one copy changes the latent of the next. All copies share
//! weights, timestep and text.

#![allow(missing_docs, clippy::unwrap_used)] // A bench that cannot go on should stop.

use pab_patch::attention::Sites;
use pab_patch::axes::{Axes, InputLabels};
use pab_patch::graph::ModelGraph;
use pab_patch::onnx::Model;
use pab_patch::onnx::messages::{DataType, ModelProto, NodeProto, TensorProto};
use std::path::Path;
use std::time::Instant;

const EXPORT: &str = "tests/data/corpus/latte.ts17.static.onnx";
const COPIES: [usize; 6] = [2, 5, 15, 50, 100, 154];
/// Sites of one copy: 2 spatial, 2 cross, 2 temporal attentions and 4 feed-forwards.
const SITES: usize = 10;
const ROUNDS: usize = 5;

/// `name` as a value of copy `copy`; weights and the inputs that all copies share keep their names.
fn renamed(name: &str, copy: usize, shared: &dyn Fn(&str) -> bool) -> String {
    match name {
        "" => String::new(),
        "hidden_states" if copy > 0 => format!("latent.{copy}"),
        name if shared(name) || name == "hidden_states" => name.to_owned(),
        name => format!("{name}.{copy}"),
    }
}

fn integers(name: &str, value: i64) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        data_type: Some(DataType::Int64 as i32),
        dims: vec![1],
        int64_data: vec![value],
        ..TensorProto::default()
    }
}

/// The latent of the next copy: the model's latent and the first four channels of a sample, which has eight.
fn latent(copy: usize) -> [NodeProto; 2] {
    let node = |operator: &str, inputs: &[&str], output: String| NodeProto {
        op_type: Some(operator.to_owned()),
        name: Some(output.clone()),
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output],
        ..NodeProto::default()
    };
    let (sample, change) = (format!("sample.{}", copy - 1), format!("change.{copy}"));
    [
        node("Slice", &[&sample, "first", "last", "axis"], change.clone()),
        node("Add", &["hidden_states", &change], format!("latent.{copy}")),
    ]
}

fn chain(export: &ModelProto, copies: usize) -> ModelProto {
    let mut model = export.clone();
    let graph = model.graph.as_mut().unwrap();
    let nodes = std::mem::take(&mut graph.node);
    let weights: Vec<&str> = graph
        .initializer
        .iter()
        .filter_map(|tensor| tensor.name.as_deref())
        .collect();
    let shared = |name: &str| weights.contains(&name) || name == "timestep" || name == "encoder_hidden_states";
    let mut chained = Vec::with_capacity(copies * (nodes.len() + 2));
    for copy in 0..copies {
        if copy > 0 {
            chained.extend(latent(copy));
        }
        for node in &nodes {
            let mut node = node.clone();
            node.name = node.name.map(|name| format!("{name}.{copy}"));
            for name in node.input.iter_mut().chain(&mut node.output) {
                *name = renamed(name, copy, &shared);
            }
            chained.push(node);
        }
    }
    graph.output[0].name = Some(format!("sample.{}", copies - 1));
    graph.value_info.clear();
    graph
        .initializer
        .extend([integers("first", 0), integers("last", 4), integers("axis", 1)]);
    graph.node = chained;
    model
}

/// Seconds of axes and of sites, the medians of some rounds.
fn time(graph: &ModelGraph, copies: usize) -> (f64, f64) {
    let (mut axes_seconds, mut sites_seconds) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let axes = Axes::analyse(graph, &InputLabels::default()).unwrap();
        axes_seconds.push(begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        let sites = Sites::find(graph, &axes).unwrap();
        sites_seconds.push(begun.elapsed().as_secs_f64());
        let (found, all) = (sites.sites.len(), SITES * copies);
        assert!(found >= all, "{found} of {all} attentions; {:?}", sites.notes.first());
    }
    let median = |mut seconds: Vec<f64>| {
        seconds.sort_by(f64::total_cmp);
        seconds[ROUNDS / 2]
    };
    (median(axes_seconds), median(sites_seconds))
}

/// The slope of the line through points of logarithms, by least squares.
fn exponent(points: &[(f64, f64)]) -> f64 {
    let logarithms: Vec<(f64, f64)> = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    let count = logarithms.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| logarithms.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let covariance: f64 = logarithms.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let variance: f64 = logarithms.iter().map(|point| (point.0 - x).powi(2)).sum();
    covariance / variance
}

fn main() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(EXPORT);
    let export = Model::load(&path).unwrap();
    let mut points = Vec::new();
    println!("{:>8}  {:>9}  {:>9}  {:>9}", "nodes", "axes", "sites", "together");
    for copies in COPIES {
        let graph = ModelGraph::new(Model::from_proto(chain(&export.proto, copies))).unwrap();
        let nodes = graph.graph.node_count();
        let (axes, sites) = time(&graph, copies);
        let milliseconds = |seconds: f64| format!("{:.1} ms", seconds * 1e3);
        let together = milliseconds(axes + sites);
        println!(
            "{nodes:>8}  {:>9}  {:>9}  {together:>9}",
            milliseconds(axes),
            milliseconds(sites)
        );
        points.push((nodes as f64, axes + sites));
    }
    println!("time grows as nodes to the power of {:.2}", exponent(&points));
}
