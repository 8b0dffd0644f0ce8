//! Names of nodes that move from a graph or function of their own into another graph.

use crate::onnx::messages::{GraphProto, NodeProto};
use std::collections::{HashMap, HashSet};

/// Longer names than this are not made longer: calls in calls would add up.
const LONGEST: usize = 256;

/// Every name of a graph and of those nested in it.
pub(super) struct Names {
    taken: HashSet<String>,
    next: usize,
}

impl Names {
    pub fn of(graph: &GraphProto) -> Names {
        let mut taken = HashSet::new();
        let mut pending = vec![graph];
        while let Some(graph) = pending.pop() {
            let ports = graph
                .input
                .iter()
                .chain(&graph.output)
                .filter_map(|info| info.name.as_ref());
            let stored = graph.initializer.iter().filter_map(|tensor| tensor.name.as_ref());
            let sparse = graph.sparse_initializer.iter();
            let sparse = sparse.filter_map(|tensor| tensor.values.as_ref()?.name.as_ref());
            let made = graph.node.iter().flat_map(|node| &node.output);
            taken.extend(ports.chain(stored).chain(sparse).chain(made).cloned());
            let attributes = graph.node.iter().flat_map(|node| &node.attribute);
            pending
                .extend(attributes.flat_map(|attribute| attribute.g.as_deref().into_iter().chain(&attribute.graphs)));
        }
        Names { taken, next: 0 }
    }

    /// A free name that tells where it comes from; it is taken then.
    fn fresh(&mut self, prefix: &str, name: &str) -> String {
        let mut wanted = match prefix.len() + name.len() {
            0..LONGEST => format!("{prefix}/{name}"),
            _ => "value".to_owned(),
        };
        if self.taken.contains(&wanted) {
            let stem = wanted.clone();
            while self.taken.contains(&wanted) {
                self.next += 1;
                wanted = format!("{stem}.{}", self.next);
            }
        }
        self.taken.insert(wanted.clone());
        wanted
    }
}

/// What names mean in one call.
pub(super) struct Scope<'n> {
    prefix: String,
    names: &'n mut Names,
    /// By the name in the body. Inputs that a call leaves out are empty.
    meaning: HashMap<String, String>,
    /// The names that are the body's own, where it sees those around it too.
    own: Option<HashSet<String>>,
}

impl<'n> Scope<'n> {
    /// A body of which nothing has moved yet. `own` are the names that it defines, where it can also read others.
    pub fn new(prefix: String, names: &'n mut Names, own: Option<HashSet<String>>) -> Scope<'n> {
        Scope {
            prefix,
            names,
            meaning: HashMap::new(),
            own,
        }
    }

    /// Parameters by place.
    pub fn inputs(&mut self, formal: &[String], given: &[String]) {
        for (place, name) in formal.iter().enumerate() {
            let given = given.get(place).cloned().unwrap_or_default();
            self.meaning.insert(name.clone(), given);
        }
    }

    /// Results by place: what the body makes gets the name of what the call makes. Returned are pairs of a name of the
    /// body and a name of the call for what the body only passes on, or gives twice.
    pub fn outputs(
        &mut self,
        formal: &[String],
        wanted: &[String],
        makes: impl Fn(&String) -> bool,
    ) -> Vec<(String, String)> {
        let mut passed = Vec::new();
        for (name, wanted) in formal.iter().zip(wanted).filter(|(_, wanted)| !wanted.is_empty()) {
            if makes(name) && !self.meaning.contains_key(name) {
                self.meaning.insert(name.clone(), wanted.clone());
            } else {
                passed.push((name.clone(), wanted.clone()));
            }
        }
        passed
    }

    /// `Identity` nodes for what [`Scope::outputs`] returned.
    pub fn passed(&mut self, pairs: Vec<(String, String)>) -> Vec<NodeProto> {
        let identity = |(name, wanted): (String, String)| NodeProto {
            op_type: Some("Identity".to_owned()),
            input: vec![self.name(&name)],
            output: vec![wanted],
            ..NodeProto::default()
        };
        pairs.into_iter().map(identity).collect()
    }

    /// What a name of the body is called where it comes to stand.
    pub fn name(&mut self, name: &str) -> String {
        if name.is_empty() {
            return String::new();
        }
        if let Some(meaning) = self.meaning.get(name) {
            return meaning.clone();
        }
        if self.own.as_ref().is_some_and(|own| !own.contains(name)) {
            return name.to_owned();
        }
        let fresh = self.names.fresh(&self.prefix, name);
        self.meaning.insert(name.to_owned(), fresh.clone());
        fresh
    }

    /// Renames all of a node, in its nested graphs too.
    pub fn node(&mut self, node: &mut NodeProto) {
        for name in node.input.iter_mut().chain(&mut node.output) {
            *name = self.name(name);
        }
        if let Some(name) = node
            .name
            .as_mut()
            .filter(|name| !name.is_empty() && name.len() + self.prefix.len() < LONGEST)
        {
            *name = format!("{}/{name}", self.prefix);
        }
        for attribute in &mut node.attribute {
            for graph in attribute.g.as_deref_mut().into_iter().chain(&mut attribute.graphs) {
                self.graph(graph);
            }
        }
    }

    fn graph(&mut self, graph: &mut GraphProto) {
        let infos = graph
            .input
            .iter_mut()
            .chain(&mut graph.output)
            .chain(&mut graph.value_info);
        let infos = infos.map(|info| &mut info.name);
        let sparse = graph.sparse_initializer.iter_mut();
        let sparse = sparse.filter_map(|tensor| Some(&mut tensor.values.as_mut()?.name));
        let named = infos
            .chain(graph.initializer.iter_mut().map(|tensor| &mut tensor.name))
            .chain(sparse);
        for name in named.chain(
            graph
                .quantization_annotation
                .iter_mut()
                .map(|note| &mut note.tensor_name),
        ) {
            *name = name.as_deref().map(|name| self.name(name));
        }
        graph.node.iter_mut().for_each(|node| self.node(node));
    }
}
