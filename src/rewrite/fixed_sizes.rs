//! Open sizes of which a number is known for all runs of a model.

use crate::graph::Graph;
use crate::onnx::messages::Dimension;
use std::collections::{BTreeMap, BTreeSet};

/// Declares the sizes `known` wherever an input or output of the graph names them.
///
/// What is computed from them stays as it is: an analysis finds numbers then where it found symbols, and
/// [`write_known_sizes`](super::write_known_sizes) writes these. Returns the names that were found.
pub fn fix_sizes(graph: &mut Graph, known: &BTreeMap<String, i64>) -> BTreeSet<String> {
    let (mut fixed, mut names) = (Vec::new(), BTreeSet::new());
    for value in graph.inputs().chain(graph.outputs()) {
        let shape = graph.tensor_type(value).and_then(|tensor| tensor.shape.as_ref());
        let dims = shape.map_or(&[][..], |shape| shape.dim.as_slice());
        for (axis, dim) in dims.iter().enumerate() {
            if let Some((symbol, size)) = dim.dim_param.as_ref().and_then(|symbol| known.get_key_value(symbol)) {
                fixed.push((value, axis, *size));
                names.insert(symbol.clone());
            }
        }
    }
    for (value, axis, size) in &fixed {
        let size = Dimension {
            dim_value: Some(*size),
            ..Dimension::default()
        };
        graph.declare_dimension(*value, *axis, size);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::axes::{Axes, InputLabels, Size};
    use crate::graph::ModelGraph;
    use crate::onnx::Model;

    #[test]
    fn named_sizes_are_numbers_wherever_they_are_declared_and_others_stay_open() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/data/corpus/stdit3/stdit3.dyn18.dynamic.onnx"
        );
        let mut model = ModelGraph::new(Model::load(path.as_ref()).unwrap()).unwrap();
        let sizes = |model: &ModelGraph| -> Vec<Vec<Size>> {
            let axes = Axes::analyse(model, &InputLabels::default()).unwrap();
            assert!(!axes.is_contradicted());
            let ports = model.graph.inputs().chain(model.graph.outputs());
            ports.map(|port| axes.sizes(port).unwrap().to_vec()).collect()
        };
        let before = sizes(&model);
        let known =
            BTreeMap::from([("frames", 4), ("h", 8), ("elsewhere", 3)].map(|(name, size)| (name.to_owned(), size)));
        let found = fix_sizes(&mut model.graph, &known);
        assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), ["frames", "h"]);
        let number = |symbol: &str| known.get(symbol).map(|size| Size::number(*size));
        let expected: Vec<Vec<Size>> = before
            .iter()
            .map(|shape| shape.iter().map(|size| size.substitute(&number)).collect())
            .collect();
        let after = sizes(&model);
        assert_eq!(after, expected);
        assert!(after.iter().flatten().any(|size| *size == Size::symbol("w")));
    }
}
