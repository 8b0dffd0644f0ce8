//! Peak memory of a run's variants, each a session: of one, of four, and of four that do not share their weights.
//!
//! Every figure is the peak (`VmHWM`) of a process of its own, which this program starts as itself; what is printed are
//! ratios to the peak of one variant that is opened alone, from the same files in one run. The first model is a stack of
//! feed-forwards whose weights are nearly all of its memory, the second the shipped one.
//!
//! What variants compute must not depend on how they were opened: the processes' outputs are compared to the bit.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)] // A bench that cannot go on should stop.

use pab_patch::attention::{Cut, Kind, Part, Site};
use pab_patch::axes::Size;
use pab_patch::graph::ModelGraph;
use pab_patch::onnx::messages::{
    DataType, Dimension, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TensorType, TypeProto, ValueInfoProto,
};
use pab_patch::onnx::{Model, SaveOptions};
use pab_patch::rewrite::{Choice, PLAN_KEY, Plan, SchedulePlan, SwitchOptions, switch, variants};
use pab_patch::rules::Rules;
use pab_patch::runtime::{
    self, Denoiser, ElementType, Elements, Options, Port, Provider, Session, SharedWeights, Tensor,
};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const BLOCKS: usize = 6;
const WIDTH: i64 = 1024;
const TOKENS: i64 = 64;
const STEPS: usize = 12;
const VARIANTS: usize = 4;
const RULES: &str = "{ version: 1, rules: [
  { name: spatial, match: { kind: spatial }, broadcast: { range: 2 } },
  { name: temporal, match: { kind: temporal }, broadcast: { range: 3 } } ] }";
/// The rules for the shipped model, by step numbers.
const SHIPPED_RULES: &str = "version: 1
rules:
  - { name: spatial, match: { kind: spatial }, broadcast: { range: 2 } }
  - { name: temporal, match: { kind: temporal }, broadcast: { range: 3 } }
";

fn info(name: &str) -> ValueInfoProto {
    let size = |value| Dimension {
        dim_value: Some(value),
        ..Dimension::default()
    };
    let tensor_type = TensorType {
        elem_type: Some(DataType::Float as i32),
        shape: Some(TensorShapeProto {
            dim: vec![size(TOKENS), size(WIDTH)],
        }),
    };
    ValueInfoProto {
        name: Some(name.into()),
        r#type: Some(TypeProto {
            tensor_type: Some(tensor_type),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}

fn node(operator: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: Some(operator.into()),
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.into()],
        name: Some(output.into()),
        ..NodeProto::default()
    }
}

/// Small numbers that differ from each other.
fn weight(name: &str, rows: i64, columns: i64) -> TensorProto {
    // Weights that are the same would be held once in any case.
    let mut state = name.bytes().fold(1_u32, |state, byte| {
        state.wrapping_mul(31).wrapping_add(u32::from(byte))
    });
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 8) as f32 / (1 << 24) as f32 - 0.5) * 0.05
    };
    let bytes: Vec<u8> = (0..rows * columns).flat_map(|_| next().to_le_bytes()).collect();
    TensorProto {
        name: Some(name.into()),
        dims: vec![rows, columns],
        data_type: Some(DataType::Float as i32),
        raw_data: Some(bytes.into()),
        ..TensorProto::default()
    }
}

/// A patched stack of feed-forwards with its weights in a data file.
fn stack(folder: &Path) -> PathBuf {
    let mut graph = GraphProto {
        name: Some("stack".into()),
        input: vec![info("latent")],
        ..GraphProto::default()
    };
    let mut stream = "latent".to_owned();
    for block in 0..BLOCKS {
        let named = |part: &str| format!("{part}.{block}");
        let (up, down) = (named("up"), named("down"));
        graph.initializer.push(weight(&up, WIDTH, 4 * WIDTH));
        graph.initializer.push(weight(&down, 4 * WIDTH, WIDTH));
        graph.node.push(node("MatMul", &[&stream, &up], &named("wide")));
        graph.node.push(node("Tanh", &[&named("wide")], &named("bent")));
        graph
            .node
            .push(node("MatMul", &[&named("bent"), &down], &named("branch")));
        graph
            .node
            .push(node("Add", &[&stream, &named("branch")], &named("stream")));
        stream = named("stream");
    }
    graph.output = vec![info(&stream)];
    let model = ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto {
            domain: Some(String::new()),
            version: Some(17),
        }],
        graph: Some(graph),
        ..ModelProto::default()
    };
    let original = folder.join("stack.onnx");
    let beside = SaveOptions {
        move_weights: true,
        ..SaveOptions::default()
    };
    Model::from_proto(model).save(&original, &beside).unwrap();
    let graph = ModelGraph::new(Model::load(&original).unwrap()).unwrap();
    let sites: Vec<Site> = (0..BLOCKS).map(|block| site(&graph, block)).collect();
    let choices = sites.iter().enumerate().map(|(block, site)| Choice {
        site,
        rule: block % 2,
        cuts: &site.output,
    });
    let choices: Vec<Choice<'_>> = choices.collect();
    let rules = Rules::parse("bench.yaml", RULES).unwrap();
    let mut patched = switch(graph, &choices, &rules, &SwitchOptions::default()).unwrap();
    let plan = patched.plan.to_json().unwrap();
    patched.model.set_metadata(PLAN_KEY, plan);
    let path = folder.join("patched.onnx");
    patched.model.into_model().unwrap().save(&path, &beside).unwrap();
    path
}

fn site(model: &ModelGraph, block: usize) -> Site {
    let value = model.graph.find(&format!("branch.{block}")).unwrap();
    let kind = [Kind::Spatial, Kind::Temporal][block % 2];
    Site {
        name: format!("{}.{}", kind.word(), block / 2),
        module: None,
        kind,
        block: block / 2,
        output: Cut {
            value,
            element_type: DataType::Float,
            shape: vec![Size::number(TOKENS), Size::number(WIDTH)],
            part: Part::Whole,
        }
        .into(),
        gated: None,
        core: Vec::new(),
        heads: None,
        streams: vec![model.graph.find(&format!("stream.{block}")).unwrap()],
        additions: Vec::new(),
    }
}

/// What a child prints.
struct Found {
    peak: f64,
    milliseconds: f64,
    digest: String,
}

fn child(path: &Path, mode: &str, count: usize) {
    runtime::ensure().unwrap();
    let options = Options {
        provider: Provider::Cpu,
        threads: Some(1),
        ..Options::default()
    };
    let graph = ModelGraph::new(Model::load(path).unwrap()).unwrap();
    let plan = Plan::parse(graph.metadata(PLAN_KEY).unwrap()).unwrap();
    let timesteps: Vec<f64> = (0..STEPS).map(|step| 900.0 - 50.0 * step as f64).collect();
    let schedule = SchedulePlan::new(&plan, &timesteps);
    let made = variants(&graph, &plan, &schedule).unwrap();
    drop(graph);
    assert!(made.len() >= VARIANTS, "{} variants", made.len());
    let mut weights = SharedWeights::default();
    let sessions = made.into_iter().take(count).map(|variant| {
        let model = variant.model.into_model().unwrap();
        match mode {
            "shared" => weights.open(path, model, &options).unwrap(),
            _ => Session::open_bytes(path, &model.to_bytes(), &options).unwrap(),
        }
    });
    let mut sessions: Vec<Denoiser> = sessions.map(Denoiser::plain).collect();
    let mut digest = Sha256::new();
    let mut best = f64::INFINITY;
    for (index, session) in sessions.iter_mut().enumerate() {
        let inputs: Vec<(String, Tensor)> = session.session().inputs().iter().map(input).collect();
        let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, value)| (name.as_str(), value)).collect();
        for _ in 0..3 {
            let begun = Instant::now();
            let outputs = session.step(&inputs, &[]).unwrap();
            if index == 0 {
                best = best.min(begun.elapsed().as_secs_f64() * 1e3);
                for (_, tensor) in outputs {
                    if let Elements::Float32(elements) = tensor.elements() {
                        elements.iter().for_each(|element| digest.update(element.to_le_bytes()));
                    }
                }
            }
        }
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak = peak.trim().trim_end_matches(" kB");
    let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    println!("{peak} {best} {digest}");
}

/// The same number everywhere for an input. Open sizes are those of a batch of 2; caches have products of it.
fn input(port: &Port) -> (String, Tensor) {
    let size = |(size, symbol): (&Option<i64>, &String)| match size {
        Some(size) => *size as usize,
        None => symbol.split('*').map(|factor| factor.parse().unwrap_or(2)).product(),
    };
    let shape: Vec<usize> = port.shape.iter().zip(&port.symbols).map(size).collect();
    let ones = Tensor::new(&shape, vec![0.5_f32; shape.iter().product()]).unwrap();
    let tensor = ones.cast(port.element_type.unwrap_or(ElementType::Float32));
    (port.name.clone(), tensor)
}

fn measure(path: &Path, mode: &str, count: usize) -> Found {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--child".as_ref(),
            path.as_os_str(),
            mode.as_ref(),
            count.to_string().as_ref(),
        ])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let words: Vec<&str> = text.split_whitespace().collect();
    Found {
        peak: words[0].parse::<f64>().unwrap() / 1024.0,
        milliseconds: words[1].parse().unwrap(),
        digest: words[2].to_owned(),
    }
}

fn compare(name: &str, path: &Path) {
    let alone = measure(path, "own", 1);
    println!(
        "{name}: one variant, opened alone: {:.0} MiB, {:.1} ms a step",
        alone.peak, alone.milliseconds
    );
    for (what, mode, count) in [
        ("one, by way of shared weights", "shared", 1),
        ("four with shared weights", "shared", VARIANTS),
        ("four with weights of their own", "own", VARIANTS),
    ] {
        let found = measure(path, mode, count);
        assert_eq!(found.digest, alone.digest, "{name}: {what} compute something else");
        println!(
            "{name}: {what}: {:.0} MiB, {:.2} of one alone; step {:.2}",
            found.peak,
            found.peak / alone.peak,
            found.milliseconds / alone.milliseconds
        );
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, path, mode, count] = arguments.as_slice()
        && flag == "--child"
    {
        return child(Path::new(path), mode, count.parse().unwrap());
    }
    let folder = tempfile::tempdir().unwrap();
    compare("weights dominate", &stack(folder.path()));
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/latte-shapes/model.onnx");
    let rules = folder.path().join("rules.yaml");
    std::fs::write(&rules, SHIPPED_RULES).unwrap();
    let output = folder.path().join("shipped");
    let status = Command::new(env!("CARGO_BIN_EXE_pab-patch"))
        .arg(shipped)
        .args(["--rules".as_ref(), rules.as_os_str(), "-o".as_ref(), output.as_os_str()])
        .output()
        .unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    compare("shipped model", &output.join("model.onnx"));
}
