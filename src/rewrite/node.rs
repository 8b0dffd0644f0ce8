//! New nodes with one output, and `If`s.

use super::RewriteError;
use crate::graph::{Graph, GraphError, NewNode, ValueId};
use crate::onnx::messages::{AttributeProto, AttributeType, DataType, TensorProto};

/// Adds a node of the standard's operator `operator`, named like its output. Gives its output.
pub(super) fn add(
    graph: &mut Graph,
    operator: &str,
    inputs: &[ValueId],
    attributes: Vec<AttributeProto>,
    output: &str,
) -> Result<ValueId, RewriteError> {
    let node = graph.add_node(NewNode {
        operator: operator.to_owned(),
        name: output.to_owned(),
        inputs: inputs.iter().copied().map(Some).collect(),
        outputs: vec![output.to_owned()],
        attributes,
        ..NewNode::default()
    })?;
    // It was given one output.
    let made = graph.node(node).output(0);
    made.ok_or_else(|| {
        GraphError::NameTaken {
            name: output.to_owned(),
        }
        .into()
    })
}

/// An integer attribute.
pub(super) fn integer(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Int as i32),
        i: Some(value),
        ..AttributeProto::default()
    }
}

/// A stored list of one int64 number.
pub(super) fn stored(graph: &mut Graph, name: &str, value: i64) -> Result<ValueId, RewriteError> {
    Ok(graph.add_initializer(TensorProto {
        name: Some(name.to_owned()),
        dims: vec![1],
        data_type: Some(DataType::Int64 as i32),
        int64_data: vec![value],
        ..TensorProto::default()
    })?)
}

/// An `If` on `flag` with outputs named `outputs`, at the end of `graph`. Gives the outputs.
pub(super) fn add_if(
    graph: &mut Graph,
    flag: ValueId,
    name: &str,
    outputs: Vec<String>,
    broadcast: Graph,
    compute: Graph,
) -> Result<Vec<ValueId>, GraphError> {
    let node = graph.add_node(NewNode {
        operator: "If".to_owned(),
        name: name.to_owned(),
        inputs: vec![Some(flag)],
        outputs,
        bodies: vec![
            ("then_branch".to_owned(), broadcast),
            ("else_branch".to_owned(), compute),
        ],
        ..NewNode::default()
    })?;
    Ok(graph.node(node).outputs().iter().flatten().copied().collect())
}
