//! Graph, sites and rules make a patched graph.
