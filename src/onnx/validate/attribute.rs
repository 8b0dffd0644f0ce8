//! Attributes: a value of the type that they say, tensors and graphs within them.

use std::collections::HashSet;

use super::graph::{Role, check_sparse, check_type, named};
use super::{Checker, Step, Violation};
use crate::onnx::external::Reference;
use crate::onnx::messages::{AttributeProto, AttributeType, TensorProto, ValueInfoProto};
use crate::onnx::tensor;

impl<'a> Checker<'a> {
    pub(super) fn attributes(&mut self, attributes: &'a [AttributeProto]) -> Result<(), Violation> {
        // Most nodes have few attributes: looking back is cheaper than a set, yet not for hostile files.
        let mut seen = HashSet::new();
        for attribute in attributes {
            let name = named(attribute.name.as_deref(), "an attribute")?;
            if attributes.len() > 1 && !seen.insert(name) {
                return Err(Violation::AttributeTwice(name.to_owned()));
            }
            self.attribute(name, attribute)?;
        }
        Ok(())
    }

    fn attribute(&mut self, name: &'a str, attribute: &'a AttributeProto) -> Result<(), Violation> {
        check_value(name, attribute, self.ir_version)?;
        if let Some(reference) = attribute
            .ref_attr_name
            .as_deref()
            .filter(|reference| !reference.is_empty())
        {
            let known = self
                .parameters
                .as_ref()
                .is_some_and(|parameters| parameters.contains(&reference));
            if !known {
                let (name, reference) = (name.to_owned(), reference.to_owned());
                return Err(Violation::AttributeReference { name, reference });
            }
        }
        attribute
            .t
            .iter()
            .chain(&attribute.tensors)
            .try_for_each(check_tensor)?;
        attribute
            .sparse_tensor
            .iter()
            .chain(&attribute.sparse_tensors)
            .try_for_each(check_sparse)?;
        for kind in attribute.tp.iter().chain(&attribute.type_protos) {
            let value = ValueInfoProto {
                name: Some(name.to_owned()),
                ..ValueInfoProto::default()
            };
            check_type(&value, Some(kind), true)?;
        }
        for graph in attribute.g.as_deref().into_iter().chain(&attribute.graphs) {
            self.within(Step::Attribute(name), |checker| checker.graph(graph, Role::Nested))?;
        }
        Ok(())
    }
}

/// Sees that only the field of the attribute's type holds a value.
fn check_value(name: &str, attribute: &AttributeProto, ir_version: i64) -> Result<(), Violation> {
    use AttributeType as A;
    let held = [
        (A::Float, attribute.f.is_some()),
        (A::Int, attribute.i.is_some()),
        (A::String, attribute.s.is_some()),
        (A::Tensor, attribute.t.is_some()),
        (A::Graph, attribute.g.is_some()),
        (A::SparseTensor, attribute.sparse_tensor.is_some()),
        (A::TypeProto, attribute.tp.is_some()),
        (A::Floats, !attribute.floats.is_empty()),
        (A::Ints, !attribute.ints.is_empty()),
        (A::Strings, !attribute.strings.is_empty()),
        (A::Tensors, !attribute.tensors.is_empty()),
        (A::Graphs, !attribute.graphs.is_empty()),
        (A::SparseTensors, !attribute.sparse_tensors.is_empty()),
        (A::TypeProtos, !attribute.type_protos.is_empty()),
    ];
    let number = attribute.r#type.unwrap_or(0);
    let refers = attribute
        .ref_attr_name
        .as_deref()
        .is_some_and(|reference| !reference.is_empty());
    let holds = held.iter().filter(|(_, set)| *set).count();
    let fits = match A::try_from(number) {
        // Types came with IR version 2; before, the field that is set was the type.
        Ok(A::Undefined) if ir_version < 2 => holds <= 1,
        Ok(A::Undefined) | Err(_) => {
            return Err(Violation::AttributeType {
                name: name.to_owned(),
                number,
            });
        }
        Ok(_) if refers => holds == 0,
        // A message cannot be left out, numbers and text that are left out are zero and empty.
        Ok(kind @ (A::Tensor | A::Graph | A::SparseTensor | A::TypeProto)) => {
            holds == 1 && held.iter().any(|(held, set)| *held == kind && *set)
        }
        Ok(kind) => held.iter().all(|(held, set)| *held == kind || !*set),
    };
    if fits {
        Ok(())
    } else {
        Err(Violation::AttributeValue(name.to_owned()))
    }
}

/// Checks a tensor's description, its inline values, and the form of its reference to another file.
pub(super) fn check_tensor(tensor: &TensorProto) -> Result<(), Violation> {
    let faulty = |fault| Violation::Tensor {
        name: tensor::label(tensor),
        fault,
    };
    tensor::check(tensor).map_err(faulty)?;
    if !tensor::is_external(tensor).map_err(faulty)? {
        return Ok(());
    }
    let outside = |fault| Violation::External {
        name: tensor::label(tensor),
        fault: Box::new(fault),
    };
    let reference = Reference::of(tensor).map_err(outside)?;
    let needed = tensor::byte_length(tensor).map_err(faulty)?;
    reference.check_length(needed).map_err(outside).map(|_| ())
}
