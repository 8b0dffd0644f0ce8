//! What can be wrong with a graph.

/// Why a message is no graph.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum GraphError {
    /// Two inputs, initializers or node outputs have one name.
    #[error("value `{name}` is defined twice, the second time by {by}; ONNX names are unique: export the model again")]
    DefinedTwice {
        /// The value's name.
        name: String,
        /// What defines it the second time.
        by: String,
    },
    /// A value that is added to a model has a name that the model uses already.
    #[error("the model already has a value named `{name}`; rename it or patch the original")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// A node or output reads a value that nothing defines.
    #[error("{by} reads `{name}`, which nothing defines; the file is damaged or was cut out of a larger model")]
    Undefined {
        /// The value's name.
        name: String,
        /// What reads it.
        by: String,
    },
    /// Nodes depend on each other in a circle.
    #[error("the nodes {} depend on each other in a circle; no runtime can run this model", nodes.join(", "))]
    Cycle {
        /// Some of the nodes of the circle, by name or operator.
        nodes: Vec<String>,
    },
    /// The model holds no graph.
    #[error("the model holds no graph")]
    NoGraph,
    /// A module cannot be moved into a nested graph.
    #[error("cannot take node {node} into a nested graph: its output `{value}` is used outside it")]
    UsedOutside {
        /// The node.
        node: String,
        /// The value.
        value: String,
    },
    /// Calls of functions have no end, or too many nodes come out of them.
    #[error(
        "the model's functions call each other without end, or come to more than {limit} nodes where they are called; \
         export the model without local functions"
    )]
    FunctionCalls {
        /// How many nodes may come out of them.
        limit: usize,
    },
}
