//! Nodes of the operators that ranks exchange by.

use super::node::integer;
use crate::graph::{Graph, GraphError, NewNode, Position, ValueId};
use crate::onnx::messages::{AttributeProto, AttributeType};
use crate::shard::{DOMAIN, Group};

/// The version of operator set `ai.pab`.
pub(super) const VERSION: i64 = 1;

/// A node of a collective; gives its output, which is named `output`.
pub(super) fn collective(
    graph: &mut Graph,
    operator: &str,
    value: ValueId,
    group: Group,
    axes: &[(&str, usize)],
    output: &str,
    after: Option<Position>,
) -> Result<ValueId, GraphError> {
    let mut attributes: Vec<AttributeProto> = axes.iter().map(|(name, axis)| integer(name, *axis as i64)).collect();
    attributes.push(AttributeProto {
        name: Some("group".to_owned()),
        r#type: Some(AttributeType::String as i32),
        s: Some(group.name().as_bytes().to_vec().into()),
        ..AttributeProto::default()
    });
    let node = graph.add_node(NewNode {
        operator: operator.to_owned(),
        domain: DOMAIN.to_owned(),
        name: output.to_owned(),
        inputs: vec![Some(value)],
        outputs: vec![output.to_owned()],
        attributes,
        after,
        ..NewNode::default()
    })?;
    graph.node(node).output(0).ok_or_else(|| GraphError::NameTaken {
        name: output.to_owned(),
    })
}
