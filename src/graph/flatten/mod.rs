//! Puts local functions, and the branch of an `If` whose condition is a constant, in the place of their calls.
//!
//! Analyses look at the nodes of the top-level graph, and exporters hide blocks in functions (one a module, called once a
//! block) and behind conditions that they could not fold. What a call means is in the
//! [ONNX IR](https://github.com/onnx/onnx/blob/main/docs/IR.md), "Functions": parameters by place, attributes by
//! `ref_attr_name`, names of its own. Works on messages, before a [`super::ModelGraph`] is made of them.

mod scope;

use super::GraphError;
use crate::onnx::messages::{
    AttributeProto, DataType, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
};
use scope::{Names, Scope};
use std::collections::{HashMap, HashSet};
use std::mem::take;

/// A graph does not get larger than this by its functions: small files can describe endless ones.
const MOST_NODES: usize = 1 << 19;

/// Graphs nested deeper than this come from damaged or hostile files only.
const DEEPEST: usize = 64;

/// What was put in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flattened {
    /// Calls of functions.
    pub calls: usize,
    /// `If` nodes with a constant condition.
    pub branches: usize,
}

/// Domain, name and overload.
type Key = (String, String, String);

/// Puts every local function in the place of its calls, in nested graphs too, and in the top-level graph the branch that
/// a constant condition chooses. A model with neither stays as it is.
///
/// A function stays where it needs another version of an operator set than the model or another function: its nodes
/// would mean something else.
///
/// # Errors
/// [`GraphError::FunctionCalls`] where the calls have no end, or come to more than half a million nodes.
pub fn flatten(model: &mut ModelProto) -> Result<Flattened, GraphError> {
    let Some(graph) = model.graph.as_mut() else {
        return Ok(Flattened::default());
    };
    let has_branch = graph.node.iter().any(|node| operator(node) == ("", "If"));
    if model.functions.is_empty() && !has_branch {
        return Ok(Flattened::default());
    }
    let functions = take(&mut model.functions);
    let fitting = fitting(&functions, &mut model.opset_import);
    let mut flattener = Flattener {
        functions: fitting
            .iter()
            .map(|place| (key_of(&functions[*place]), &functions[*place]))
            .collect(),
        names: Names::of(graph),
        constants: constants(graph),
        hoisted: Vec::new(),
        made: 0,
        done: Flattened::default(),
    };
    let nodes = take(&mut graph.node);
    graph.node = flattener.nodes(nodes, 0)?;
    let (done, hoisted) = (flattener.done, take(&mut flattener.hoisted));
    graph.initializer.extend(hoisted);
    drop(flattener);
    // Graphs for training may call them too, and are not looked at.
    let stays = |place: usize| !fitting.contains(&place) || !model.training_info.is_empty();
    let gone: HashSet<String> = functions
        .iter()
        .map(|function| domain(function.domain.as_deref()).to_owned())
        .collect();
    model.functions = functions
        .into_iter()
        .enumerate()
        .filter_map(|(place, function)| stays(place).then_some(function))
        .collect();
    if model.functions.is_empty() {
        let used = domains(graph);
        model.opset_import.retain(|import| {
            let domain = domain(import.domain.as_deref());
            domain.is_empty() || !gone.contains(domain) || used.contains(domain)
        });
    }
    Ok(done)
}

/// The functions whose operator sets agree with the model's and each other's, by place. What the model lacks is added.
fn fitting(functions: &[FunctionProto], imports: &mut Vec<OperatorSetIdProto>) -> Vec<usize> {
    let version = |import: &OperatorSetIdProto| import.version.unwrap_or(0);
    let mut known: HashMap<String, i64> = imports
        .iter()
        .map(|import| (domain(import.domain.as_deref()).to_owned(), version(import)))
        .collect();
    let mut fitting = Vec::new();
    for (place, function) in functions.iter().enumerate() {
        let agrees = |import: &OperatorSetIdProto| {
            let known = known.get(domain(import.domain.as_deref()));
            known.is_none_or(|known| *known == version(import))
        };
        if !function.opset_import.iter().all(agrees) {
            continue;
        }
        for import in &function.opset_import {
            let name = domain(import.domain.as_deref());
            if known.insert(name.to_owned(), version(import)).is_none() {
                imports.push(import.clone());
            }
        }
        fitting.push(place);
    }
    fitting
}

struct Flattener<'m> {
    functions: HashMap<Key, &'m FunctionProto>,
    names: Names,
    /// Values of the top-level graph that are one constant truth value.
    constants: HashMap<String, bool>,
    /// Initializers of branches.
    hoisted: Vec<TensorProto>,
    /// Nodes that came out of functions and branches.
    made: usize,
    done: Flattened,
}

impl Flattener<'_> {
    /// These nodes with the bodies of what they call in their places.
    fn nodes(&mut self, nodes: Vec<NodeProto>, depth: usize) -> Result<Vec<NodeProto>, GraphError> {
        if depth > DEEPEST {
            return Err(GraphError::FunctionCalls { limit: MOST_NODES });
        }
        let mut pending: Vec<NodeProto> = nodes.into_iter().rev().collect();
        let mut flat = Vec::with_capacity(pending.len());
        while let Some(mut node) = pending.pop() {
            let body = match self.functions.get(&key(&node)) {
                Some(function) => {
                    self.done.calls += 1;
                    Some(call(function, &node, &mut self.names))
                }
                None if depth == 0 => self.branch(&mut node),
                None => None,
            };
            if let Some(body) = body {
                // A call counts too, so that functions of nothing but calls have an end.
                self.made += body.len() + 1;
                if self.made > MOST_NODES {
                    return Err(GraphError::FunctionCalls { limit: MOST_NODES });
                }
                pending.extend(body.into_iter().rev());
                continue;
            }
            for attribute in &mut node.attribute {
                for graph in attribute.g.as_deref_mut().into_iter().chain(&mut attribute.graphs) {
                    graph.node = self.nodes(take(&mut graph.node), depth + 1)?;
                }
            }
            if depth == 0 && operator(&node) == ("", "Constant") {
                let value = node.attribute.iter().find_map(|attribute| truth(attribute.t.as_ref()?));
                if let (Some(value), Some(output)) = (value, node.output.first()) {
                    self.constants.insert(output.clone(), value);
                }
            }
            flat.push(node);
        }
        Ok(flat)
    }

    /// The nodes of the branch that a constant condition chooses; its initializers are kept for the graph.
    fn branch(&mut self, node: &mut NodeProto) -> Option<Vec<NodeProto>> {
        if operator(node) != ("", "If") {
            return None;
        }
        let chosen = match self.constants.get(node.input.first()?)? {
            true => "then_branch",
            false => "else_branch",
        };
        let attribute = node
            .attribute
            .iter_mut()
            .find(|attribute| attribute.name.as_deref() == Some(chosen))?;
        let sparse = |graph: &GraphProto| graph.sparse_initializer.is_empty();
        attribute
            .g
            .as_deref()
            .filter(|graph| sparse(graph) && graph.input.is_empty())?;
        let mut graph = *attribute.g.take()?;
        self.done.branches += 1;
        let defined = graph.node.iter().flat_map(|node| &node.output);
        let stored = graph.initializer.iter().filter_map(|tensor| tensor.name.as_ref());
        let own: HashSet<String> = defined.chain(stored).cloned().collect();
        let outputs: Vec<String> = graph.output.iter().filter_map(|info| info.name.clone()).collect();
        let mut scope = Scope::new(prefix(node, "If"), &mut self.names, Some(own));
        let made: HashSet<&String> = graph.node.iter().flat_map(|node| &node.output).collect();
        let last = scope.outputs(&outputs, &node.output, |name| made.contains(name));
        drop(made);
        for tensor in &mut graph.initializer {
            tensor.name = tensor.name.as_deref().map(|name| scope.name(name));
        }
        let mut nodes = take(&mut graph.node);
        nodes.iter_mut().for_each(|node| scope.node(node));
        nodes.extend(scope.passed(last));
        self.hoisted.append(&mut graph.initializer);
        Some(nodes)
    }
}

/// The body of a function as this call means it.
fn call(function: &FunctionProto, call: &NodeProto, names: &mut Names) -> Vec<NodeProto> {
    let name = function.name.as_deref().unwrap_or("function");
    let mut scope = Scope::new(prefix(call, name), names, None);
    scope.inputs(&function.input, &call.input);
    let inputs: HashSet<&String> = function.input.iter().collect();
    let last = scope.outputs(&function.output, &call.output, |name| !inputs.contains(name));
    let mut nodes = function.node.clone();
    for node in &mut nodes {
        let attributes = take(&mut node.attribute);
        // Graphs that the caller gives have the caller's names.
        let (given, own): (Vec<_>, Vec<_>) = attributes
            .into_iter()
            .partition(|attribute| reference(attribute).is_some());
        node.attribute = own;
        node.attribute
            .iter_mut()
            .for_each(|attribute| within_graphs(attribute, function, call));
        scope.node(node);
        node.attribute
            .extend(given.iter().filter_map(|attribute| given_by(attribute, function, call)));
    }
    nodes.extend(scope.passed(last));
    nodes
}

/// What a node is called in the names of what comes out of it.
fn prefix(node: &NodeProto, otherwise: &str) -> String {
    match node.name.as_deref() {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => otherwise.to_owned(),
    }
}

fn reference(attribute: &AttributeProto) -> Option<&str> {
    attribute.ref_attr_name.as_deref().filter(|name| !name.is_empty())
}

/// An attribute that takes its value from the function's attribute: what the call gives, or the function's default. Left
/// out where there is neither.
fn given_by(attribute: &AttributeProto, function: &FunctionProto, call: &NodeProto) -> Option<AttributeProto> {
    let wanted = reference(attribute);
    let found = |given: &&AttributeProto| given.name.as_deref() == wanted;
    let given = call.attribute.iter().find(found);
    let given = given.or_else(|| function.attribute_proto.iter().find(found))?;
    Some(AttributeProto {
        name: attribute.name.clone(),
        ..given.clone()
    })
}

/// The same for nodes in nested graphs of the function.
fn within_graphs(attribute: &mut AttributeProto, function: &FunctionProto, call: &NodeProto) {
    for graph in attribute.g.as_deref_mut().into_iter().chain(&mut attribute.graphs) {
        for node in &mut graph.node {
            let attributes = take(&mut node.attribute);
            let resolved = attributes
                .into_iter()
                .filter_map(|mut attribute| match reference(&attribute) {
                    Some(_) => given_by(&attribute, function, call),
                    None => {
                        within_graphs(&mut attribute, function, call);
                        Some(attribute)
                    }
                });
            node.attribute = resolved.collect();
        }
    }
}

/// Truth values that are stored with a graph, and that no input replaces.
fn constants(graph: &GraphProto) -> HashMap<String, bool> {
    let inputs: HashSet<&str> = graph.input.iter().filter_map(|info| info.name.as_deref()).collect();
    let stored = graph.initializer.iter().filter_map(|tensor| {
        let name = tensor.name.as_deref().filter(|name| !inputs.contains(name))?;
        Some((name.to_owned(), truth(tensor)?))
    });
    stored.collect()
}

/// The one truth value that a tensor is.
fn truth(tensor: &TensorProto) -> Option<bool> {
    let one = tensor.dims.iter().all(|size| *size == 1);
    if tensor.data_type != Some(DataType::Bool as i32) || !one {
        return None;
    }
    match (tensor.raw_data.as_deref(), tensor.int32_data.as_slice()) {
        (Some([byte]), []) => Some(*byte != 0),
        (None | Some([]), [value]) => Some(*value != 0),
        _ => None,
    }
}

fn domain(domain: Option<&str>) -> &str {
    match domain.unwrap_or_default() {
        "ai.onnx" => "",
        domain => domain,
    }
}

fn operator(node: &NodeProto) -> (&str, &str) {
    (
        domain(node.domain.as_deref()),
        node.op_type.as_deref().unwrap_or_default(),
    )
}

fn key(node: &NodeProto) -> Key {
    let (domain, name) = operator(node);
    let overload = node.overload.as_deref().unwrap_or_default();
    (domain.to_owned(), name.to_owned(), overload.to_owned())
}

fn key_of(function: &FunctionProto) -> Key {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let domain = domain(function.domain.as_deref()).to_owned();
    (domain, text(&function.name), text(&function.overload))
}

/// The domains of all operators of a graph.
fn domains(graph: &GraphProto) -> HashSet<String> {
    let mut found = HashSet::new();
    let mut pending = vec![graph];
    while let Some(graph) = pending.pop() {
        for node in &graph.node {
            let domain = operator(node).0;
            if !found.contains(domain) {
                found.insert(domain.to_owned());
            }
            let bodies = node.attribute.iter();
            pending.extend(bodies.flat_map(|attribute| attribute.g.as_deref().into_iter().chain(&attribute.graphs)));
        }
    }
    found
}

#[cfg(test)]
mod tests;
