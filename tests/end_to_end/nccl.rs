//! Ranks with a GPU each: what NCCL moves and sums is what threads move and sum on the processor.
//!
//! `PAB_PATCH_TEST_DEVICE=cuda` asks for it, as `tests/gpu/run.sh` does; what cannot be tried is skipped, and says so. One GPU
//! has a rank that is alone; two ranks need two.

use pab_patch::collective::{Communicator, Mesh, Nccl, Operation, Rank, World, run_ranks};
use pab_patch::onnx::messages::{
    AttributeProto, AttributeType, DataType, Dimension, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorShapeProto, TensorType, TypeProto, ValueInfoProto,
};
use pab_patch::onnx::{Model, SaveOptions};
use pab_patch::runtime::{self, Denoiser, Options, Provider, Session, Tensor};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn value(name: &str, axes: usize) -> ValueInfoProto {
    let shape = TensorShapeProto {
        dim: vec![Dimension::default(); axes],
    };
    let tensor = TensorType {
        elem_type: Some(DataType::Float as i32),
        shape: Some(shape),
    };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto {
            tensor_type: Some(tensor),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn node(operation: Operation, input: &str, output: &str, axes: &[(&str, i64)]) -> NodeProto {
    let mut attribute: Vec<AttributeProto> = axes
        .iter()
        .map(|(name, axis)| AttributeProto {
            name: Some((*name).to_owned()),
            i: Some(*axis),
            r#type: Some(AttributeType::Int as i32),
            ..Default::default()
        })
        .collect();
    attribute.push(AttributeProto {
        name: Some("group".to_owned()),
        s: Some("sequence".to_owned().into()),
        r#type: Some(AttributeType::String as i32),
        ..Default::default()
    });
    NodeProto {
        op_type: Some(operation.name().to_owned()),
        domain: Some("ai.pab".to_owned()),
        name: Some(output.to_owned()),
        input: vec![input.to_owned()],
        output: vec![output.to_owned()],
        attribute,
        ..Default::default()
    }
}

/// Every operator, on axes that make boxes with and without gaps.
fn model(path: &Path) {
    let names = ["columns", "rows", "gathered", "sliced", "summed", "scattered"];
    let opset = |domain: &str, version| OperatorSetIdProto {
        domain: Some(domain.to_owned()),
        version: Some(version),
    };
    let graph = GraphProto {
        name: Some("graph".to_owned()),
        input: vec![value("x", 3)],
        output: names.map(|name| value(name, 3)).to_vec(),
        node: vec![
            node(
                Operation::AllToAll,
                "x",
                "columns",
                &[("split_axis", 2), ("concat_axis", 1)],
            ),
            node(
                Operation::AllToAll,
                "columns",
                "rows",
                &[("split_axis", 1), ("concat_axis", 2)],
            ),
            node(Operation::AllGather, "rows", "gathered", &[("axis", 1)]),
            node(Operation::ShardSlice, "gathered", "sliced", &[("axis", -1)]),
            node(Operation::AllReduce, "gathered", "summed", &[]),
            node(Operation::ReduceScatter, "summed", "scattered", &[("axis", 2)]),
        ],
        ..Default::default()
    };
    let proto = ModelProto {
        ir_version: Some(8),
        opset_import: vec![opset("", 17), opset("ai.pab", 1)],
        graph: Some(graph),
        ..Default::default()
    };
    Model::from_proto(proto).save(path, &SaveOptions::default()).unwrap();
}

/// Small whole numbers, whose sums are exact in any order; a row more on the first rank.
fn input(rank: usize) -> Tensor {
    let shape = [2, 3 - rank.min(1), 5];
    let count = shape.iter().product();
    Tensor::new(
        &shape,
        (0..count).map(|place| (place + 100 * rank) as f32).collect::<Vec<_>>(),
    )
    .unwrap()
}

type Outputs = Vec<(String, Tensor)>;

fn run(path: &Path, ranks: usize, provider: Provider) -> Result<Vec<Outputs>, String> {
    let world = World::new(Mesh::new(1, ranks, 1).unwrap(), Duration::from_secs(60));
    let path = path.to_owned();
    let work = move |rank: Arc<Rank>| -> Result<Outputs, String> {
        let number = rank.rank();
        let communicator: Arc<dyn Communicator> = match provider {
            Provider::Cpu => rank,
            _ => Nccl::over(rank, Duration::from_secs(60)).map_err(|error| error.to_string())?,
        };
        let options = Options {
            provider,
            device_index: if provider == Provider::Cpu { 0 } else { number as u32 },
            ..Options::default()
        };
        let session = Session::open_rank(&path, &options, &communicator).map_err(|error| error.to_string())?;
        let elsewhere = session.on_processor().unwrap_or_default().iter();
        let elsewhere: Vec<_> = elsewhere.map(|found| found.operator.clone()).collect();
        let ours = |name: &String| {
            Operation::OPERATORS
                .iter()
                .any(|operation| name.contains(operation.name()))
        };
        assert!(!elsewhere.iter().any(ours), "on the processor: {elsewhere:?}");
        let mut denoiser = Denoiser::plain(session);
        let input = input(number);
        let mut outputs = Vec::new();
        for _ in 0..3 {
            outputs = denoiser
                .step(&[("x", &input)], &[])
                .map_err(|error| error.to_string())?;
        }
        assert!(provider == Provider::Cpu || communicator.traffic().sent().total() > 0 || ranks == 1);
        Ok(outputs)
    };
    run_ranks(&world, work).map_err(|error| error.to_string())
}

#[test]
fn devices_exchange_what_threads_exchange() {
    if std::env::var("PAB_PATCH_TEST_DEVICE").as_deref() != Ok("cuda") {
        eprintln!("SKIPPED: PAB_PATCH_TEST_DEVICE is not cuda");
        return;
    }
    runtime::ensure().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    model(&path);
    for ranks in [1, 2] {
        let expected = run(&path, ranks, Provider::Cpu).unwrap();
        match run(&path, ranks, Provider::Cuda) {
            Ok(found) => {
                for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
                    assert_eq!(found.0, expected.0);
                    assert_eq!(found.1.shape(), expected.1.shape(), "{ranks} ranks: {}", found.0);
                    assert_eq!(
                        found.1.as_slice::<f32>(),
                        expected.1.as_slice(),
                        "{ranks} ranks: {}",
                        found.0
                    );
                }
                eprintln!("{ranks} ranks by NCCL: equal");
            }
            Err(reason) if reason.contains("cannot be loaded") => {
                eprintln!("SKIPPED: {reason}");
                return;
            }
            Err(reason) if ranks > 1 && !has_second_device() => {
                eprintln!("SKIPPED: two ranks need two GPUs ({reason})")
            }
            Err(reason) => panic!("{ranks} ranks: {reason}"),
        }
    }
}

fn has_second_device() -> bool {
    Path::new("/dev/nvidia1").exists()
}
