//! New nodes with one output, as rewrites need them.

use super::{CachePlan, PlanSize};
use crate::attention::Cut;
use crate::graph::{Graph, GraphError, NewNode, Position, ValueId};
use crate::onnx::messages::{
    AttributeProto, AttributeType, DataType, Dimension, TensorProto, TensorShapeProto, TensorType, TypeProto,
    ValueInfoProto,
};

/// Adds nodes to a graph, named by their outputs.
pub(super) struct Build<'g> {
    /// The graph.
    pub graph: &'g mut Graph,
    /// Where they stand in the file, as far as the order leaves a choice.
    pub after: Option<Position>,
}

impl<'g> Build<'g> {
    /// Adds nodes to the end of `graph`.
    pub fn new(graph: &'g mut Graph) -> Build<'g> {
        Build { graph, after: None }
    }

    /// `value` under another name.
    pub fn identity(&mut self, value: ValueId, output: &str) -> Result<ValueId, GraphError> {
        self.node("Identity", &[value], Vec::new(), output)
    }

    /// A node of the standard's operator `operator`; gives its output, which is named `output`.
    pub fn node(
        &mut self,
        operator: &str,
        inputs: &[ValueId],
        attributes: Vec<AttributeProto>,
        output: &str,
    ) -> Result<ValueId, GraphError> {
        let node = self.graph.add_node(NewNode {
            operator: operator.to_owned(),
            name: output.to_owned(),
            inputs: inputs.iter().copied().map(Some).collect(),
            outputs: vec![output.to_owned()],
            attributes,
            after: self.after,
            ..NewNode::default()
        })?;
        // It was given one output.
        self.graph.node(node).output(0).ok_or_else(|| GraphError::NameTaken {
            name: output.to_owned(),
        })
    }

    /// `value` as elements of type `to`.
    pub fn cast(&mut self, value: ValueId, to: DataType, output: &str) -> Result<ValueId, GraphError> {
        let to = AttributeProto {
            name: Some("to".to_owned()),
            r#type: Some(AttributeType::Int as i32),
            i: Some(i64::from(to as i32)),
            ..AttributeProto::default()
        };
        self.node("Cast", &[value], vec![to], output)
    }

    /// A stored tensor of float32 numbers; a scalar where `shape` is empty.
    pub fn floats(&mut self, name: &str, shape: &[i64], numbers: &[f32]) -> Result<ValueId, GraphError> {
        self.graph.add_initializer(TensorProto {
            name: Some(name.to_owned()),
            dims: shape.to_vec(),
            data_type: Some(DataType::Float as i32),
            float_data: numbers.to_vec(),
            ..TensorProto::default()
        })
    }

    /// A stored tensor of int64 numbers; a scalar where `shape` is empty.
    pub fn integers(&mut self, name: &str, shape: &[i64], numbers: &[i64]) -> Result<ValueId, GraphError> {
        self.graph.add_initializer(TensorProto {
            name: Some(name.to_owned()),
            dims: shape.to_vec(),
            data_type: Some(DataType::Int64 as i32),
            int64_data: numbers.to_vec(),
            ..TensorProto::default()
        })
    }
}

/// Name and type of a cut's value.
pub(super) fn of_cut(name: &str, cut: &Cut) -> ValueInfoProto {
    let shape: Vec<PlanSize> = cut.shape.iter().map(PlanSize::from).collect();
    described(name, cut.element_type, &shape)
}

/// Name and type of a cache.
pub(super) fn of_cache(name: &str, cache: &CachePlan) -> ValueInfoProto {
    described(name, cache.element_type, &cache.shape)
}

/// Name and type of a tensor with the sizes of a plan.
pub(super) fn described(name: &str, element_type: DataType, shape: &[PlanSize]) -> ValueInfoProto {
    let dim = shape.iter().map(|size| match size {
        PlanSize::Number(number) => Dimension {
            dim_value: Some(*number),
            ..Dimension::default()
        },
        PlanSize::Symbol(symbol) => Dimension {
            dim_param: Some(symbol.clone()),
            ..Dimension::default()
        },
    });
    let tensor_type = Some(TensorType {
        elem_type: Some(element_type as i32),
        shape: Some(TensorShapeProto { dim: dim.collect() }),
    });
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto {
            tensor_type,
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}
