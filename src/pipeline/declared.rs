//! The inputs that a model file declares, read without opening it in ONNX Runtime.

use super::PipelineError;
use crate::onnx::Model;
use crate::onnx::messages::{DataType, ValueInfoProto};
use crate::runtime::{ElementType, Port};
use std::collections::BTreeSet;
use std::path::Path;

/// The inputs that a model file declares, without those that it gives a value itself: so it is known what text and sizes a
/// model takes before it is opened.
///
/// # Errors
/// [`PipelineError::Onnx`] where the file is missing or damaged.
pub fn declared_inputs(path: &Path) -> Result<Vec<Port>, PipelineError> {
    let model = Model::load(path)?;
    let Some(graph) = &model.proto.graph else {
        return Ok(Vec::new());
    };
    let given: BTreeSet<&str> = graph
        .initializer
        .iter()
        .filter_map(|tensor| tensor.name.as_deref())
        .collect();
    let inputs = graph.input.iter();
    Ok(inputs
        .filter(|input| !given.contains(input.name.as_deref().unwrap_or_default()))
        .map(port)
        .collect())
}

fn port(input: &ValueInfoProto) -> Port {
    let tensor = input.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref());
    let element_type = tensor
        .and_then(|tensor| tensor.elem_type)
        .and_then(|number| DataType::try_from(number).ok())
        .and_then(ElementType::from_onnx);
    let shape = tensor.and_then(|tensor| tensor.shape.as_ref());
    let dimensions = shape.map_or(&[][..], |shape| shape.dim.as_slice());
    let sizes: Vec<Option<i64>> = dimensions
        .iter()
        .map(|size| size.dim_value.filter(|size| *size >= 0))
        .collect();
    let symbols: Vec<String> = dimensions
        .iter()
        .map(|size| size.dim_param.clone().unwrap_or_default())
        .collect();
    let words = sizes.iter().zip(&symbols).map(|(size, symbol)| match size {
        Some(size) => size.to_string(),
        None if symbol.is_empty() => "?".to_owned(),
        None => symbol.clone(),
    });
    let words = words.collect::<Vec<_>>().join(", ");
    Port {
        name: input.name.clone().unwrap_or_default(),
        element_type,
        description: match element_type {
            Some(element_type) => format!("{element_type} [{words}]"),
            None => "no tensor of numbers".to_owned(),
        },
        shape: sizes,
        symbols,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_those_that_onnx_runtime_sees() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpus/latte.ts17.dynamic.onnx");
        let declared = declared_inputs(&path).unwrap();
        crate::runtime::ensure().unwrap();
        let session = crate::runtime::Session::open(&path, &crate::runtime::Options::default()).unwrap();
        assert_eq!(declared.len(), session.inputs().len());
        for (ours, theirs) in declared.iter().zip(session.inputs()) {
            assert_eq!(
                (&ours.name, ours.element_type, &ours.shape, &ours.symbols),
                (&theirs.name, theirs.element_type, &theirs.shape, &theirs.symbols)
            );
        }
    }
}
