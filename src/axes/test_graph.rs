//! Builds small graphs for tests, one line a node.

use crate::graph::ModelGraph;
use crate::onnx::Model;
use crate::onnx::messages::{
    AttributeProto, DataType, Dimension as ShapeDimension, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorProto, TensorShapeProto, TensorType, TypeProto, ValueInfoProto,
};

/// Attributes that hold one integer.
static SCALARS: &[&str] = &[
    "axis",
    "to",
    "transB",
    "num_heads",
    "keepdims",
    "start",
    "end",
    "group",
    "split_axis",
    "concat_axis",
    "N",
    "K",
];

/// The size of an axis of an input.
pub(crate) enum At {
    Number(i64),
    Name(&'static str),
}

/// A tensor input.
pub(crate) fn input(name: &str, dims: &[At], element: DataType) -> ValueInfoProto {
    let dim = dims.iter().map(|dim| match dim {
        At::Number(value) => ShapeDimension {
            dim_value: Some(*value),
            ..Default::default()
        },
        At::Name(name) => ShapeDimension {
            dim_param: Some((*name).into()),
            ..Default::default()
        },
    });
    let shape = TensorShapeProto { dim: dim.collect() };
    let tensor = TensorType {
        elem_type: Some(element as i32),
        shape: Some(shape),
    };
    ValueInfoProto {
        name: Some(name.into()),
        r#type: Some(TypeProto {
            tensor_type: Some(tensor),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A stored list of integers.
pub(crate) fn integers(name: &str, values: &[i64]) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        dims: vec![values.len() as i64],
        data_type: Some(DataType::Int64 as i32),
        int64_data: values.to_vec(),
        ..Default::default()
    }
}

/// A stored float tensor.
pub(crate) fn weight(name: &str, dims: &[i64]) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        dims: dims.to_vec(),
        data_type: Some(DataType::Float as i32),
        float_data: vec![0.5; dims.iter().product::<i64>() as usize],
        ..Default::default()
    }
}

/// `"Transpose x -> y perm=0,2,1"`; `_` for an input that is left out.
pub(crate) fn node(line: &str) -> NodeProto {
    let (left, right) = line.split_once(" -> ").unwrap();
    let mut left = left.split(' ');
    let operator = left.next().unwrap().to_owned();
    let (domain, operator) = operator
        .split_once(':')
        .map_or(("", operator.as_str()), |(domain, name)| (domain, name));
    let mut right = right.split(' ');
    let output = right
        .next()
        .unwrap()
        .split(',')
        .map(|name| name.replace('_', ""))
        .collect();
    let attribute = right.map(|part| {
        let (name, value) = part.split_once('=').unwrap();
        let numbers: Option<Vec<i64>> = value.split(',').map(|number| number.parse().ok()).collect();
        let mut attribute = AttributeProto {
            name: Some(name.into()),
            ..Default::default()
        };
        match numbers {
            Some(numbers) if SCALARS.contains(&name) => attribute.i = numbers.first().copied(),
            Some(numbers) => attribute.ints = numbers,
            None => attribute.s = Some(value.to_owned().into()),
        }
        attribute
    });
    NodeProto {
        op_type: Some(operator.to_owned()),
        domain: Some(domain.to_owned()),
        input: left.map(|name| name.replace('_', "")).collect(),
        output,
        attribute: attribute.collect(),
        ..Default::default()
    }
}

/// A model of operator set 17 whose nodes are written as `Transpose x -> y perm=0,2,1`; `_` stands for an input or output that is left out, `custom:Name` for an operator of another domain.
pub(crate) fn model(inputs: Vec<ValueInfoProto>, initializers: Vec<TensorProto>, nodes: &[&str]) -> ModelGraph {
    let graph = GraphProto {
        name: Some("test".into()),
        input: inputs,
        initializer: initializers,
        node: nodes.iter().map(|line| node(line)).collect(),
        ..Default::default()
    };
    let opset = OperatorSetIdProto {
        domain: None,
        version: Some(17),
    };
    let proto = ModelProto {
        ir_version: Some(8),
        graph: Some(graph),
        opset_import: vec![opset],
        ..Default::default()
    };
    ModelGraph::new(Model::from_proto(proto)).unwrap()
}
