//! Visits every tensor of a model: initializers, attributes, sparse tensors, nested graphs, functions, training.

use super::messages::{AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto};

/// Writes the visitor twice: once for shared, once for exclusive references.
macro_rules! visitor {
    ($try_each:ident, $graph:ident, $nodes:ident, $attributes:ident, $sparse:ident, $iter:ident, $option:ident,
     [$($exclusive:tt)?], $says:literal) => {
        #[doc = $says]
        ///
        /// Stops at the first error. Recurses as deep as graphs are nested.
        ///
        /// # Errors
        /// Whatever `visit` gives.
        pub fn $try_each<E>(
            proto: &$($exclusive)? ModelProto,
            visit: &mut impl FnMut(&$($exclusive)? TensorProto) -> Result<(), E>,
        ) -> Result<(), E> {
            if let Some(graph) = proto.graph.$option() {
                $graph(graph, visit)?;
            }
            for training in proto.training_info.$iter() {
                for graph in training.initialization.$iter().chain(training.algorithm.$iter()) {
                    $graph(graph, visit)?;
                }
            }
            for function in proto.functions.$iter() {
                $nodes(function.node.$iter(), visit)?;
                $attributes(function.attribute_proto.$iter(), visit)?;
            }
            Ok(())
        }

        fn $graph<E>(
            graph: &$($exclusive)? GraphProto,
            visit: &mut impl FnMut(&$($exclusive)? TensorProto) -> Result<(), E>,
        ) -> Result<(), E> {
            $nodes(graph.node.$iter(), visit)?;
            graph.initializer.$iter().try_for_each(&mut *visit)?;
            graph.sparse_initializer.$iter().try_for_each(|sparse| $sparse(sparse, visit))
        }

        fn $nodes<'a, E>(
            nodes: impl Iterator<Item = &'a $($exclusive)? NodeProto>,
            visit: &mut impl FnMut(&$($exclusive)? TensorProto) -> Result<(), E>,
        ) -> Result<(), E> {
            for node in nodes {
                $attributes(node.attribute.$iter(), visit)?;
            }
            Ok(())
        }

        fn $attributes<'a, E>(
            attributes: impl Iterator<Item = &'a $($exclusive)? AttributeProto>,
            visit: &mut impl FnMut(&$($exclusive)? TensorProto) -> Result<(), E>,
        ) -> Result<(), E> {
            for attribute in attributes {
                attribute.t.$iter().chain(attribute.tensors.$iter()).try_for_each(&mut *visit)?;
                for sparse in attribute.sparse_tensor.$iter().chain(attribute.sparse_tensors.$iter()) {
                    $sparse(sparse, visit)?;
                }
                if let Some(graph) = attribute.g.$option() {
                    $graph(graph, visit)?;
                }
                for graph in attribute.graphs.$iter() {
                    $graph(graph, visit)?;
                }
            }
            Ok(())
        }

        fn $sparse<E>(
            sparse: &$($exclusive)? SparseTensorProto,
            visit: &mut impl FnMut(&$($exclusive)? TensorProto) -> Result<(), E>,
        ) -> Result<(), E> {
            sparse.values.$iter().chain(sparse.indices.$iter()).try_for_each(visit)
        }
    };
}

visitor!(
    try_each_tensor,
    graph,
    nodes,
    attributes,
    sparse,
    iter,
    as_ref,
    [],
    "Shows every tensor of a model to `visit`."
);
visitor!(
    try_each_tensor_mut, graph_mut, nodes_mut, attributes_mut, sparse_mut, iter_mut, as_mut, [mut],
    "Lets `visit` change every tensor of a model."
);

/// Lets `visit` change every dense initializer of the model's graph and of the graphs within it.
pub(super) fn try_each_initializer_mut<E>(
    graph: &mut GraphProto,
    visit: &mut impl FnMut(&mut TensorProto) -> Result<(), E>,
) -> Result<(), E> {
    graph.initializer.iter_mut().try_for_each(&mut *visit)?;
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        for inner in attribute.g.as_deref_mut().into_iter().chain(&mut attribute.graphs) {
            try_each_initializer_mut(inner, visit)?;
        }
    }
    Ok(())
}
