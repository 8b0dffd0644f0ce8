//! The editable graph: values, nodes, nested graphs, users, topological order, dead-code elimination, extraction.
