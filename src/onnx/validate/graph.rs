//! Graphs: names, scopes, order, types of values.

use std::collections::{HashMap, HashSet};

use super::attribute::check_tensor;
use super::{Checker, NESTING_LIMIT, Step, Violation, order};
use crate::onnx::messages::{
    DataType, GraphProto, NodeProto, SparseTensorProto, TensorProto, TrainingInfoProto, TypeProto, ValueInfoProto,
};
use crate::onnx::tensor::element_count;

/// Where a graph stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The model's graph. Its values stay visible for the training graphs.
    Model,
    /// A graph in an attribute of a node.
    Nested,
    /// A graph of the training information, which shares names with the model's graph.
    Training,
}

impl<'a> Checker<'a> {
    pub(super) fn training(&mut self, training: &'a TrainingInfoProto) -> Result<(), Violation> {
        if let Some(graph) = &training.algorithm {
            self.graph(graph, Role::Training)?;
        }
        if let Some(graph) = &training.initialization {
            let outer = std::mem::take(&mut self.values);
            self.graph(graph, Role::Training)?;
            self.values = outer;
        }
        Ok(())
    }

    pub(super) fn graph(&mut self, graph: &'a GraphProto, role: Role) -> Result<(), Violation> {
        let name = graph.name.as_deref().unwrap_or_default();
        self.within(Step::Graph(name), |checker| {
            if checker.levels.len() >= NESTING_LIMIT {
                return Err(Violation::TooDeep(NESTING_LIMIT));
            }
            checker.graphs += 1;
            let mut scope = Scope {
                number: checker.graphs,
                role,
                before: Vec::new(),
            };
            checker.graph_inputs(graph, &mut scope)?;
            for value in &graph.value_info {
                check_type(value, value.r#type.as_ref(), true)?;
            }
            checker.nodes(&graph.node, &mut scope)?;
            checker.graph_outputs(graph, &scope)?;
            if role != Role::Model {
                scope.leave(&mut checker.values);
            }
            Ok(())
        })
    }

    fn graph_inputs(&mut self, graph: &'a GraphProto, scope: &mut Scope<'a>) -> Result<(), Violation> {
        for input in &graph.input {
            let name = named(input.name.as_deref(), "an input")?;
            self.define(name, scope)?;
            require_type("input", input, scope.role)?;
        }
        let mut seen = HashSet::with_capacity(graph.initializer.len());
        for tensor in &graph.initializer {
            let name = self.initializer(tensor)?;
            if !seen.insert(name) {
                return Err(Violation::Duplicate(name.to_owned()));
            }
            // An initializer of an input is the input's default value.
            if self.values.get(name) != Some(&scope.number) {
                if self.ir_version < 4 && scope.role == Role::Model {
                    return Err(Violation::InitializerNotInput(name.to_owned()));
                }
                self.define(name, scope)?;
            }
        }
        for sparse in &graph.sparse_initializer {
            check_sparse(sparse)?;
            let name = sparse.values.as_ref().and_then(|values| values.name.as_deref());
            self.define(named(name, "a sparse initializer")?, scope)?;
        }
        Ok(())
    }

    fn initializer(&self, tensor: &'a TensorProto) -> Result<&'a str, Violation> {
        check_tensor(tensor)?;
        named(tensor.name.as_deref(), "an initializer")
    }

    /// Checks nodes in their order; their outputs become visible one after another.
    pub(super) fn nodes(&mut self, nodes: &'a [NodeProto], scope: &mut Scope<'a>) -> Result<(), Violation> {
        self.levels.push((nodes, 0));
        for (index, node) in nodes.iter().enumerate() {
            if let Some(level) = self.levels.last_mut() {
                level.1 = index;
            }
            self.within(Step::Node(index, node), |checker| checker.node(node, scope))?;
        }
        self.levels.pop();
        Ok(())
    }

    fn node(&mut self, node: &'a NodeProto, scope: &mut Scope<'a>) -> Result<(), Violation> {
        self.operator(node)?;
        for name in node.input.iter().filter(|name| !name.is_empty()) {
            if !self.values.contains_key(name.as_str()) {
                return Err(order::explain(name, &self.levels));
            }
        }
        // Nested graphs do not see the node's own outputs.
        self.attributes(&node.attribute)?;
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            self.define(name, scope)?;
        }
        Ok(())
    }

    /// Makes a value visible.
    pub(super) fn define(&mut self, name: &'a str, scope: &mut Scope<'a>) -> Result<(), Violation> {
        let before = self.values.insert(name, scope.number);
        scope.before.push((name, before));
        match before {
            Some(number) if number == scope.number => Err(Violation::Duplicate(name.to_owned())),
            Some(_) if scope.role == Role::Nested => Err(Violation::Shadows(name.to_owned())),
            _ => Ok(()),
        }
    }

    fn graph_outputs(&self, graph: &'a GraphProto, scope: &Scope<'a>) -> Result<(), Violation> {
        let mut seen = HashSet::with_capacity(graph.output.len());
        for output in &graph.output {
            let name = named(output.name.as_deref(), "an output")?;
            if !seen.insert(name) {
                return Err(Violation::OutputTwice(name.to_owned()));
            }
            let defined = self.values.get(name);
            // Training graphs may give values of the model's graph.
            if defined.is_none() || (scope.role != Role::Training && defined != Some(&scope.number)) {
                return Err(Violation::OutputUndefined(name.to_owned()));
            }
            require_type("output", output, scope.role)?;
        }
        Ok(())
    }
}

/// The values that one graph defines.
pub(super) struct Scope<'a> {
    number: usize,
    role: Role,
    /// Names, and which graph defined them before.
    before: Vec<(&'a str, Option<usize>)>,
}

impl<'a> Scope<'a> {
    /// The scope of a function's body, which sees nothing from outside.
    pub fn of_function(number: usize) -> Scope<'a> {
        Scope {
            number,
            role: Role::Nested,
            before: Vec::new(),
        }
    }

    /// Makes everything visible again as it was before the graph.
    fn leave(self, values: &mut HashMap<&'a str, usize>) {
        for (name, before) in self.before.into_iter().rev() {
            match before {
                Some(number) => values.insert(name, number),
                None => values.remove(name),
            };
        }
    }
}

pub(super) fn named<'a>(name: Option<&'a str>, what: &'static str) -> Result<&'a str, Violation> {
    name.filter(|name| !name.is_empty()).ok_or(Violation::NoName(what))
}

/// Inputs and outputs of the model have types; those of nested graphs may leave them to inference.
fn require_type(what: &'static str, value: &ValueInfoProto, role: Role) -> Result<(), Violation> {
    match &value.r#type {
        Some(kind) => check_type(value, Some(kind), role != Role::Model),
        None if role == Role::Model => Err(Violation::NoType {
            what,
            name: value.name.clone().unwrap_or_default(),
        }),
        None => Ok(()),
    }
}

/// Checks a type down to its elements. Where `lenient`, it may leave things open.
pub(super) fn check_type(value: &ValueInfoProto, kind: Option<&TypeProto>, lenient: bool) -> Result<(), Violation> {
    let name = || value.name.clone().unwrap_or_default();
    let element = |number: Option<i32>| match number.unwrap_or(0) {
        0 if lenient => Ok(()),
        number => match DataType::try_from(number) {
            Ok(DataType::Undefined) | Err(_) => Err(Violation::ElementType { name: name(), number }),
            Ok(_) => Ok(()),
        },
    };
    let mut inner = kind;
    for _ in 0..NESTING_LIMIT {
        let Some(kind) = inner else { return Ok(()) };
        let kinds = [
            kind.tensor_type.is_some(),
            kind.sequence_type.is_some(),
            kind.map_type.is_some(),
            kind.opaque_type.is_some(),
            kind.sparse_tensor_type.is_some(),
            kind.optional_type.is_some(),
        ];
        match kinds.iter().filter(|set| **set).count() {
            0 if lenient => return Ok(()),
            0 => {
                return Err(Violation::NoType {
                    what: "value",
                    name: name(),
                });
            }
            1 => {}
            _ => return Err(Violation::ManyTypes(name())),
        }
        inner = None;
        if let Some(tensor) = &kind.tensor_type {
            element(tensor.elem_type)?;
        } else if let Some(sparse) = &kind.sparse_tensor_type {
            element(sparse.elem_type)?;
        } else if let Some(sequence) = &kind.sequence_type {
            inner = sequence.elem_type.as_deref();
        } else if let Some(optional) = &kind.optional_type {
            inner = optional.elem_type.as_deref();
        } else if let Some(map) = &kind.map_type {
            element(map.key_type)?;
            inner = map.value_type.as_deref();
        }
    }
    Err(Violation::TooDeep(NESTING_LIMIT))
}

/// Checks the parts of a sparse tensor against each other: `values` [n], `indices` [n] or [n, rank].
pub(super) fn check_sparse(sparse: &SparseTensorProto) -> Result<(), Violation> {
    let name = sparse
        .values
        .as_ref()
        .and_then(|values| values.name.clone())
        .unwrap_or_default();
    let broken = |reason| Violation::Sparse {
        name: name.clone(),
        reason,
    };
    let values = sparse.values.as_ref().ok_or_else(|| broken("has no values"))?;
    check_tensor(values)?;
    let [count] = values.dims.as_slice() else {
        return Err(broken("has values that are no vector"));
    };
    if sparse.dims.is_empty() || sparse.dims.iter().any(|size| *size < 0) {
        return Err(broken("has no dimensions, or some below zero"));
    }
    let Some(indices) = &sparse.indices else {
        let empty = element_count(values).is_ok_and(|count| count == 0);
        return if empty {
            Ok(())
        } else {
            Err(broken("has values and no indices"))
        };
    };
    check_tensor(indices)?;
    if indices.data_type != Some(DataType::Int64 as i32) {
        return Err(broken("has indices that are not INT64"));
    }
    let rank = sparse.dims.len() as i64;
    match indices.dims.as_slice() {
        [length] if length == count => Ok(()),
        [length, axes] if length == count && *axes == rank => Ok(()),
        _ => Err(broken("has indices that fit neither its values nor its dimensions")),
    }
}
