//! A graph with the operators, and a session of ONNX Runtime in each process.

use super::*;
use pab_patch::onnx::Model;
use pab_patch::onnx::SaveOptions;
use pab_patch::onnx::messages::{
    AttributeProto, AttributeType, DataType, Dimension, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorShapeProto, TensorType, TypeProto, ValueInfoProto,
};
use pab_patch::runtime::{Denoiser, Options, Provider, Session, Tensor, ensure};

fn value(name: &str) -> ValueInfoProto {
    let tensor = TensorType {
        elem_type: Some(DataType::Float as i32),
        shape: Some(TensorShapeProto {
            dim: vec![Dimension::default(); 2],
        }),
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

/// `y = AllToAll(AllToAll(x) + AllToAll(x))`, columns for rows and back.
fn model(path: &Path) {
    let node = |operator: &str, domain: &str, inputs: &[&str], output: &str, axes: Option<[i64; 2]>| NodeProto {
        op_type: Some(operator.to_owned()),
        domain: Some(domain.to_owned()),
        name: Some(output.to_owned()),
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.to_owned()],
        attribute: axes.map_or(Vec::new(), |axes| {
            let integer = |(name, value): (&str, i64)| AttributeProto {
                name: Some(name.to_owned()),
                i: Some(value),
                r#type: Some(AttributeType::Int as i32),
                ..Default::default()
            };
            let mut attributes: Vec<_> = ["split_axis", "concat_axis"]
                .into_iter()
                .zip(axes)
                .map(integer)
                .collect();
            attributes.push(AttributeProto {
                name: Some("group".to_owned()),
                s: Some("sequence".to_owned().into()),
                r#type: Some(AttributeType::String as i32),
                ..Default::default()
            });
            attributes
        }),
        ..Default::default()
    };
    let opset = |domain: &str, version| OperatorSetIdProto {
        domain: Some(domain.to_owned()),
        version: Some(version),
    };
    let proto = ModelProto {
        ir_version: Some(8),
        opset_import: vec![opset("", 17), opset("ai.pab", 1)],
        graph: Some(GraphProto {
            name: Some("graph".to_owned()),
            input: vec![value("x")],
            output: vec![value("y")],
            node: vec![
                node("AllToAll", "ai.pab", &["x"], "columns", Some([1, 0])),
                node("Add", "", &["columns", "columns"], "twice", None),
                node("AllToAll", "ai.pab", &["twice"], "y", Some([0, 1])),
            ],
            ..Default::default()
        }),
        ..Default::default()
    };
    Model::from_proto(proto).save(path, &SaveOptions::default()).unwrap();
}

pub fn check(processes: &Arc<Processes>) {
    ensure().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    model(&path);
    handshake(&**processes, &Identity::new("model", "plan")).unwrap();
    let options = Options {
        threads: Some(1),
        provider: Provider::Cpu,
        ..Options::default()
    };
    let communicator: Arc<dyn Communicator> = processes.clone();
    let mut denoiser = Denoiser::plain(Session::open_rank(&path, &options, &communicator).unwrap());
    // Two rows, and one more on rank 0.
    let rows = 2 + usize::from(processes.rank() == 0);
    let numbers: Vec<f32> = (0..rows * 5)
        .map(|place| (processes.rank() * 100 + place) as f32)
        .collect();
    let x = Tensor::new(&[rows, 5], numbers.clone()).unwrap();
    for _ in 0..10 {
        let outputs = denoiser.step(&[("x", &x)], &[]).unwrap();
        let twice: Vec<f32> = numbers.iter().map(|number| number * 2.0).collect();
        // Rows come back by the balanced partition, which these are.
        assert_eq!(outputs[0].1.shape(), [rows, 5]);
        assert_eq!(outputs[0].1.as_slice::<f32>(), Some(twice.as_slice()));
    }
    println!("all is well");
}
