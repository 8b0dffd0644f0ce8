//! The operators in graphs that ONNX Runtime runs, a session for each rank.

use std::path::{Path, PathBuf};

use half::{bf16, f16};

use super::*;
use crate::axes::test_graph::{At, input, node};
use crate::collective::{RanksError, run_ranks};
use crate::graph::ModelGraph;
use crate::onnx::messages::{
    AttributeType, DataType, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto,
};
use crate::onnx::{Model, SaveOptions};
use crate::runtime::{Denoiser, ElementType, Optimization, Options, RuntimeError, Session, Tensor, ensure};

/// `node` with the types of its attributes.
fn typed(line: &str) -> NodeProto {
    let mut node = node(line);
    for attribute in &mut node.attribute {
        let kind = match (attribute.i, &attribute.s) {
            (Some(_), _) => AttributeType::Int,
            (_, Some(_)) => AttributeType::String,
            _ => AttributeType::Ints,
        };
        attribute.r#type = Some(kind as i32);
    }
    node.name = node.output.first().cloned();
    node
}

fn graph(inputs: Vec<ValueInfoProto>, outputs: Vec<ValueInfoProto>, node: Vec<NodeProto>) -> GraphProto {
    GraphProto {
        name: Some("graph".into()),
        input: inputs,
        output: outputs,
        node,
        ..Default::default()
    }
}

/// Writes a model as the rest of this library does, and gives its path.
fn save(folder: &Path, graph: GraphProto) -> PathBuf {
    let opset = |domain: &str, version| OperatorSetIdProto {
        domain: Some(domain.to_owned()),
        version: Some(version),
    };
    let proto = ModelProto {
        ir_version: Some(8),
        graph: Some(graph),
        opset_import: vec![opset("", 17), opset("ai.pab", 1)],
        ..Default::default()
    };
    let model = ModelGraph::new(Model::from_proto(proto)).unwrap().into_model().unwrap();
    let path = folder.join("model.onnx");
    model.save(&path, &SaveOptions::default()).unwrap();
    path
}

const OPTIONS: Options = Options {
    threads: Some(1),
    provider: crate::runtime::Provider::Cpu,
    device_index: 0,
    optimization: Optimization::All,
    cuda_graph: false,
};

fn open(path: &Path, rank: &Arc<Rank>) -> Result<Denoiser, RuntimeError> {
    let communicator: Arc<dyn Communicator> = rank.clone();
    Ok(Denoiser::plain(Session::open_rank(path, &OPTIONS, &communicator)?))
}

fn step(denoiser: &mut Denoiser, inputs: &[(&str, &Tensor)]) -> Result<Vec<Tensor>, RuntimeError> {
    let outputs = denoiser.step(inputs, &[])?;
    Ok(outputs.into_iter().map(|(_, tensor)| tensor).collect())
}

fn open_sizes(name: &str, element: DataType) -> ValueInfoProto {
    input(name, &[At::Name("rows"), At::Name("columns")], element)
}

#[test]
fn every_operator_and_type_runs_in_sessions() {
    ensure().unwrap();
    let types = [
        (DataType::Float, ElementType::Float32),
        (DataType::Float16, ElementType::Float16),
        (DataType::Bfloat16, ElementType::Bfloat16),
        (DataType::Double, ElementType::Float64),
        (DataType::Int32, ElementType::Int32),
        (DataType::Int64, ElementType::Int64),
        (DataType::Bool, ElementType::Bool),
    ];
    for (onnx, element) in types {
        let floating = [DataType::Float, DataType::Float16, DataType::Bfloat16, DataType::Double].contains(&onnx);
        let folder = tempfile::tempdir().unwrap();
        let mut lines = vec![
            "ai.pab:AllGather x -> gathered axis=0 group=sequence",
            "ai.pab:ShardSlice gathered -> sliced axis=-2 group=sequence",
            "ai.pab:AllToAll x -> exchanged split_axis=1 concat_axis=0 group=sequence",
            "ai.pab:AllToAll exchanged -> back split_axis=0 concat_axis=1 group=sequence",
        ];
        if floating {
            lines.push("ai.pab:AllReduce gathered -> reduced group=sequence");
            lines.push("ai.pab:ReduceScatter gathered -> scattered axis=1 group=sequence");
        }
        let outputs = lines.iter().map(|line| {
            let name = line.split(' ').nth(3).unwrap();
            input(name, &[At::Name("_"), At::Name("_")], onnx)
        });
        // No names for sizes that are different.
        let outputs = outputs.map(|mut output| {
            let tensor = output.r#type.as_mut().unwrap().tensor_type.as_mut().unwrap();
            tensor
                .shape
                .as_mut()
                .unwrap()
                .dim
                .iter_mut()
                .for_each(|dim| dim.dim_param = None);
            output
        });
        let nodes = lines.iter().map(|line| typed(line)).collect();
        let path = save(
            folder.path(),
            graph(vec![open_sizes("x", onnx)], outputs.collect(), nodes),
        );

        // Rank 0 has 2 rows of 3 columns, rank 1 none, rank 2 one.
        let rows = [2, 0, 1];
        let world = sequence(3, PATIENT);
        let results = run_ranks(&world, move |rank| {
            let mut denoiser = open(&path, &rank)?;
            let first: usize = rows[..rank.rank()].iter().sum();
            let numbers = (0..rows[rank.rank()] * 3)
                .map(|place| ((first * 3 + place) % 5) as f32)
                .collect();
            let x = Tensor::new(&[rows[rank.rank()], 3], numbers)?.cast(element);
            step(&mut denoiser, &[("x", &x)])
        })
        .unwrap_or_else(|error| panic!("{element}: {error}"));

        let tensor = |shape: &[usize], numbers: &[f32]| Tensor::new(shape, numbers.to_vec()).unwrap().cast(element);
        let whole = [0.0, 1.0, 2.0, 3.0, 4.0, 0.0, 1.0, 2.0, 3.0_f32];
        for (rank, outputs) in results.iter().enumerate() {
            assert_eq!(outputs[0], tensor(&[3, 3], &whole), "{element}");
            assert_eq!(outputs[1], tensor(&[1, 3], &whole[rank * 3..rank * 3 + 3]), "{element}");
            let column: Vec<f32> = (0..3).map(|row| whole[row * 3 + rank]).collect();
            assert_eq!(outputs[2], tensor(&[3, 1], &column), "{element}");
            assert_eq!(outputs[3], tensor(&[1, 3], &whole[rank * 3..rank * 3 + 3]), "{element}");
            if floating {
                let triple: Vec<f32> = whole.iter().map(|number| number * 3.0).collect();
                assert_eq!(outputs[4], tensor(&[3, 3], &triple), "{element}");
                let column: Vec<f32> = column.iter().map(|number| number * 3.0).collect();
                assert_eq!(outputs[5], tensor(&[3, 1], &column), "{element}");
            }
        }
    }
    // The types that the arithmetic above relied on.
    assert_eq!(
        (f16::from_f32(12.0).to_f32(), bf16::from_f32(12.0).to_f32()),
        (12.0, 12.0)
    );
}

/// `y = flag ? cache : AllToAll(x)`, as a patched module has it.
fn switch(folder: &Path) -> PathBuf {
    let value = |name: &str| input(name, &[At::Number(4), At::Number(2)], DataType::Float);
    let compute = vec![
        typed("ai.pab:AllToAll x -> columns split_axis=1 concat_axis=0 group=sequence"),
        typed("Identity columns -> computed"),
    ];
    let mut switch = typed("If flag -> y");
    for (name, branch) in [
        (
            "then_branch",
            graph(vec![], vec![value("kept")], vec![typed("Identity cache -> kept")]),
        ),
        ("else_branch", graph(vec![], vec![value("computed")], compute)),
    ] {
        switch.attribute.push(crate::onnx::messages::AttributeProto {
            name: Some(name.into()),
            r#type: Some(AttributeType::Graph as i32),
            g: Some(Box::new(branch)),
            ..Default::default()
        });
    }
    let inputs = vec![
        input("x", &[At::Number(2), At::Number(4)], DataType::Float),
        value("cache"),
        input("flag", &[], DataType::Bool),
    ];
    save(folder, graph(inputs, vec![value("y")], vec![switch]))
}

#[test]
fn a_branch_that_is_not_taken_sends_nothing() {
    ensure().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = switch(folder.path());
    let world = sequence(2, PATIENT);
    run_ranks(&world, move |rank| {
        let mut denoiser = open(&path, &rank)?;
        let number = rank.rank();
        let x = Tensor::new(&[2, 4], (0..8).map(|place| (number * 8 + place) as f32).collect())?;
        let mut cache = Tensor::zeros(ElementType::Float32, &[4, 2]);
        for flag in [false, true, true, false] {
            let inputs = [("x", &x), ("cache", &cache), ("flag", &Tensor::scalar(flag))];
            cache = step(&mut denoiser, &inputs)?.swap_remove(0);
            let expected = [
                [0.0, 1.0, 4.0, 5.0, 8.0, 9.0, 12.0, 13.0_f32],
                [2.0, 3.0, 6.0, 7.0, 10.0, 11.0, 14.0, 15.0],
            ];
            assert_eq!(cache.as_slice::<f32>(), Some(&expected[number][..]));
            rank.traffic().end_step();
        }
        let sent: Vec<u64> = rank.traffic().steps().iter().map(|step| step.total()).collect();
        assert_eq!(sent, [16, 0, 0, 16]);
        Ok::<_, RuntimeError>(())
    })
    .unwrap();
}

#[test]
fn flags_that_differ_end_all_in_time() {
    ensure().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = switch(folder.path());
    let world = sequence(2, Duration::from_millis(500));
    let start = std::time::Instant::now();
    let error = run_ranks(&world, move |rank| {
        let mut denoiser = open(&path, &rank)?;
        let x = Tensor::zeros(ElementType::Float32, &[2, 4]);
        let cache = Tensor::zeros(ElementType::Float32, &[4, 2]);
        let inputs = [
            ("x", &x),
            ("cache", &cache),
            ("flag", &Tensor::scalar(rank.rank() == 1)),
        ];
        step(&mut denoiser, &inputs)?;
        std::thread::sleep(Duration::from_secs(2));
        Ok::<_, RuntimeError>(())
    })
    .unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(20));
    // Through ONNX Runtime the error comes as text; the world has it typed.
    assert!(error.to_string().contains("which did not come"), "{error}");
    assert!(matches!(
        world.failure(),
        Some(CollectiveError::TimedOut { rank: 0, .. })
    ));
}

#[test]
fn a_rank_without_a_model_ends_all_at_once() {
    ensure().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = switch(folder.path());
    let world = sequence(2, PATIENT);
    let error = run_ranks(&world, move |rank| {
        let path = if rank.rank() == 1 {
            path.with_file_name("missing.onnx")
        } else {
            path.clone()
        };
        let mut denoiser = open(&path, &rank)?;
        let x = Tensor::zeros(ElementType::Float32, &[2, 4]);
        let cache = Tensor::zeros(ElementType::Float32, &[4, 2]);
        step(
            &mut denoiser,
            &[("x", &x), ("cache", &cache), ("flag", &Tensor::scalar(false))],
        )
    })
    .unwrap_err();
    assert!(
        matches!(
            &error,
            RanksError::Rank {
                rank: 1,
                error: RuntimeError::Open { .. }
            }
        ),
        "{error}"
    );
}

#[test]
fn nodes_without_their_attributes_do_not_open() {
    ensure().unwrap();
    let value = |name: &str| open_sizes(name, DataType::Float);
    for (line, part) in [
        ("ai.pab:AllGather x -> y group=sequence", "`axis`"),
        ("ai.pab:AllGather x -> y axis=0", "`group`"),
        ("ai.pab:AllGather x -> y axis=0 group=others", "`others`"),
        ("ai.pab:AllToAll x -> y split_axis=0 group=sequence", "`concat_axis`"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = save(
            folder.path(),
            graph(vec![value("x")], vec![value("y")], vec![typed(line)]),
        );
        let world = sequence(1, PATIENT);
        let error = open(&path, &world.join(0).unwrap()).unwrap_err();
        assert!(error.to_string().contains(part), "{line}: {error}");
    }
}
