//! The processor here as a device: its rates, measured with four small models that are made for it.

use crate::cli::Failure;
use crate::cli::args::SessionOptions;
use crate::cli::session::{library, open};
use crate::cli::terminal::Terminal;
use crate::onnx::messages::{
    DataType, Dimension, GraphProto, ModelProto, NodeProto, TensorProto, TensorShapeProto, TensorType, TypeProto,
    ValueInfoProto,
};
use crate::onnx::{Model, SaveOptions};
use crate::predict::{Device, Rates};
use crate::report::{ReportError, median};
use crate::runtime::{Denoiser, Provider, Tensor};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Times that a model is run, the first of them not counted.
const RUNS: usize = 16;
/// Kernels of each kind in a row, so that one run takes long enough to be timed.
const KERNELS: usize = 8;
/// The products: tokens, and the widths of a small feed-forward.
const TOKENS: usize = 2048;
const WIDTH: usize = 384;
/// Elements of what arithmetic and functions go over: as many as the tokens of that feed-forward have.
const ELEMENTS: usize = TOKENS * WIDTH;
/// Kernels that do next to nothing.
const SMALL_KERNELS: usize = 500;

/// Measures the rates of ONNX Runtime's CPU execution provider.
pub fn processor(ort_lib: Option<PathBuf>, threads: Option<usize>, terminal: &Terminal) -> Result<Device, Failure> {
    let options = SessionOptions {
        ort_lib,
        device: (Provider::Cpu, 0),
        threads,
    };
    let library = library(&options, terminal)?;
    let folder = tempfile::Builder::new()
        .prefix("pab-patch-measure-")
        .tempdir()
        .map_err(|source| ReportError::Write {
            path: std::env::temp_dir(),
            source,
        })?;
    let bar = terminal.steps("measuring the processor", 4);
    let seconds = |graph: GraphProto, shape: &[usize]| {
        bar.inc(1);
        seconds_of(graph, shape, &folder.path().join("measured.onnx"), &options, terminal)
    };
    let kernel = seconds(chain(&["Add"], SMALL_KERNELS, &[4]), &[4])? / SMALL_KERNELS as f64;
    let work = |seconds: f64, kernels: usize| (seconds - kernel * kernels as f64).max(seconds / 2.0);
    let products = work(seconds(products(), &[TOKENS, WIDTH])?, 2 * KERNELS);
    let arithmetic = work(
        seconds(chain(&["Add", "Mul"], KERNELS, &[TOKENS, WIDTH]), &[TOKENS, WIDTH])?,
        KERNELS,
    );
    let functions = work(
        seconds(chain(&["Tanh", "Softmax"], KERNELS, &[TOKENS, WIDTH]), &[TOKENS, WIDTH])?,
        KERNELS,
    );
    bar.finish_and_clear();
    let flops = 2.0 * (2 * KERNELS) as f64 * (TOKENS * WIDTH * 4 * WIDTH) as f64;
    let rate = flops / products;
    let bytes = 3.0 * (KERNELS * ELEMENTS * size_of::<f32>()) as f64;
    Ok(Device {
        name: "the processor here".to_owned(),
        source: format!(
            "measured: ONNX Runtime {} on the CPU, {}",
            library.version,
            match threads {
                Some(threads) => format!("{threads} threads"),
                None => "a thread a core".to_owned(),
            }
        ),
        products: Rates { f32: rate, f16: rate },
        product_efficiency: 1.0,
        bandwidth: bytes / arithmetic,
        bandwidth_efficiency: 1.0,
        functions: Some((KERNELS * ELEMENTS) as f64 / functions),
        attention: None,
        kernel,
        memory: memory(),
    })
}

/// The median time of a run of a model whose one input `x` has this shape.
fn seconds_of(
    graph: GraphProto,
    shape: &[usize],
    path: &Path,
    options: &SessionOptions,
    terminal: &Terminal,
) -> Result<f64, Failure> {
    let proto = ModelProto::of_standard_operators(graph, 17);
    Model::from_proto(proto).save(path, &SaveOptions::default())?;
    let mut denoiser = Denoiser::plain(open(path, options, terminal)?);
    let count = shape.iter().product();
    let input = Tensor::new(shape, vec![0.5_f32; count])?;
    let mut times = Vec::with_capacity(RUNS);
    for run in 0..RUNS {
        terminal.stop().check()?;
        let begun = Instant::now();
        denoiser.step(&[("x", &input)], &[])?;
        if run > 0 {
            times.push(begun.elapsed().as_secs_f64());
        }
    }
    Ok(median(&times).unwrap_or(f64::MIN_POSITIVE).max(f64::MIN_POSITIVE))
}

/// `count` kernels one after the other, the operators in turn; those with two operands have `x` as the second.
fn chain(operators: &[&str], count: usize, shape: &[usize]) -> GraphProto {
    let mut nodes = Vec::with_capacity(count);
    let mut before = "x".to_owned();
    for (index, operator) in operators.iter().cycle().take(count).enumerate() {
        let after = format!("v{index}");
        let mut inputs = vec![before];
        if matches!(*operator, "Add" | "Mul") {
            inputs.push("x".to_owned());
        }
        nodes.push(node(operator, inputs, &after));
        before = after;
    }
    graph(nodes, Vec::new(), shape, &before)
}

/// A feed-forward without its function, some times over.
fn products() -> GraphProto {
    let mut nodes = Vec::new();
    let mut weights = Vec::new();
    let mut before = "x".to_owned();
    for index in 0..2 * KERNELS {
        let (after, weight) = (format!("v{index}"), format!("w{index}"));
        let sides = if index % 2 == 0 {
            [WIDTH, 4 * WIDTH]
        } else {
            [4 * WIDTH, WIDTH]
        };
        weights.push(TensorProto {
            name: Some(weight.clone()),
            dims: sides.iter().map(|side| *side as i64).collect(),
            data_type: Some(DataType::Float as i32),
            float_data: vec![1e-3; sides.iter().product()],
            ..TensorProto::default()
        });
        nodes.push(node("MatMul", vec![before, weight], &after));
        before = after;
    }
    graph(nodes, weights, &[TOKENS, WIDTH], &before)
}

fn node(operator: &str, inputs: Vec<String>, output: &str) -> NodeProto {
    NodeProto {
        op_type: Some(operator.to_owned()),
        input: inputs,
        output: vec![output.to_owned()],
        ..NodeProto::default()
    }
}

fn graph(node: Vec<NodeProto>, initializer: Vec<TensorProto>, shape: &[usize], output: &str) -> GraphProto {
    let value = |name: &str| ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto {
            tensor_type: Some(TensorType {
                elem_type: Some(DataType::Float as i32),
                shape: Some(TensorShapeProto {
                    dim: shape
                        .iter()
                        .map(|size| Dimension {
                            dim_value: i64::try_from(*size).ok(),
                            ..Dimension::default()
                        })
                        .collect(),
                }),
            }),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    };
    GraphProto {
        name: Some("measured".to_owned()),
        input: vec![value("x")],
        output: vec![value(output)],
        initializer,
        node,
        ..GraphProto::default()
    }
}

/// Bytes of the machine's memory, where the system says; else 16 GiB.
fn memory() -> f64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<f64>().ok());
    kilobytes.map_or(16.0 * f64::from(1 << 30), |kilobytes| kilobytes * 1024.0)
}
