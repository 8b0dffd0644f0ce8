//! The graphs of all ranks in one: what ranks would send each other is an edge, and every host can run it.
//!
//! It tells whether a split is right without any communicator: its outputs are those of rank 0, and must be those of the
//! graph that was split.

use super::sizes::stored;
use crate::onnx::messages::{GraphProto, ModelProto, NodeProto, ValueInfoProto};
use crate::rewrite::node::integer;
use crate::shard::{DOMAIN, Group, Mesh, ShardError};
use std::collections::HashSet;

/// Puts the models of all ranks, in their order, into one. Collectives may not stand in nested graphs.
///
/// `own` says of which inputs every rank has its own, `rank<r>/<name>`; the others are fed once for all. Every output is
/// there for every rank, as `rank<r>/<name>`.
///
/// # Errors
/// [`ShardError::Unroll`] where the ranks' graphs do not fit together.
pub fn unroll(models: Vec<ModelProto>, mesh: &Mesh, own: &dyn Fn(&str) -> bool) -> Result<ModelProto, ShardError> {
    let ranks = models.len();
    let mut models = models.into_iter().enumerate();
    let refuse = |reason: &str| ShardError::Unroll {
        reason: reason.to_owned(),
    };
    let Some((_, mut first)) = models.next().filter(|_| mesh.ranks() == Some(ranks)) else {
        return Err(refuse("there is not one graph for each rank"));
    };
    let mut graphs = vec![first.graph.take().ok_or_else(|| refuse("a rank has no graph"))?];
    for (_, model) in models {
        graphs.push(model.graph.ok_or_else(|| refuse("a rank has no graph"))?);
    }
    if graphs.iter().any(has_nested) {
        return Err(refuse(
            "a collective stands in a nested graph; put one branch in the place of each `If` first",
        ));
    }
    let inputs: Vec<String> = graphs[0].input.iter().filter_map(|input| input.name.clone()).collect();
    let shared: HashSet<String> = inputs.into_iter().filter(|name| !own(name)).collect();
    let mut whole = GraphProto {
        name: graphs[0].name.clone(),
        ..GraphProto::default()
    };
    // Ranks wait for each other at collectives: nodes are written in rounds, up to the next collective of each rank.
    let mut queues = Vec::with_capacity(ranks);
    for (rank, graph) in graphs.iter_mut().enumerate() {
        rename(graph, rank, &shared);
        queues.push(std::mem::take(&mut graph.node).into_iter().peekable());
        let is_first = rank == 0;
        let is_shared = |info: &ValueInfoProto| info.name.as_ref().is_some_and(|name| shared.contains(name));
        whole
            .input
            .extend(graph.input.iter().filter(|info| is_first || !is_shared(info)).cloned());
        whole.initializer.append(&mut graph.initializer);
        whole.sparse_initializer.append(&mut graph.sparse_initializer);
        whole.output.append(&mut graph.output);
    }
    let mut number = 0;
    loop {
        let mut waiting: Vec<NodeProto> = Vec::new();
        for queue in &mut queues {
            while let Some(node) = queue.next_if(|node| node.domain.as_deref() != Some(DOMAIN)) {
                whole.node.push(node);
            }
            waiting.extend(queue.next());
        }
        if waiting.is_empty() {
            break;
        }
        if waiting.len() != ranks || waiting.iter().any(|node| node.op_type != waiting[0].op_type) {
            return Err(refuse("the ranks meet at different collectives"));
        }
        let mut written = Written {
            graph: &mut whole,
            mesh,
            number: &mut number,
        };
        for rank in 0..ranks {
            written
                .collective(&waiting, rank)
                .ok_or_else(|| refuse("a collective has no axes or no group"))?;
        }
    }
    first.graph = Some(whole);
    first
        .opset_import
        .retain(|import| import.domain.as_deref() != Some(DOMAIN));
    Ok(first)
}

/// Whether a nested graph has a collective.
fn has_nested(graph: &GraphProto) -> bool {
    let is_collective = |node: &NodeProto| node.domain.as_deref() == Some(DOMAIN);
    let bodies = graph.node.iter().flat_map(|node| &node.attribute);
    let mut bodies = bodies.flat_map(|attribute| attribute.g.as_deref().into_iter().chain(&attribute.graphs));
    bodies.any(|body| body.node.iter().any(is_collective) || has_nested(body))
}

/// Prefixes every name of a rank's graph but those of shared inputs.
fn rename(graph: &mut GraphProto, rank: usize, shared: &HashSet<String>) {
    let new = |name: &str| match name.is_empty() || shared.contains(name) {
        true => name.to_owned(),
        false => format!("rank{rank}/{name}"),
    };
    rename_with(graph, &new);
}

fn rename_with(graph: &mut GraphProto, new: &dyn Fn(&str) -> String) {
    let info = |info: &mut ValueInfoProto| info.name = info.name.as_deref().map(new);
    graph.input.iter_mut().for_each(info);
    graph.output.iter_mut().for_each(info);
    graph.value_info.clear();
    for tensor in &mut graph.initializer {
        tensor.name = tensor.name.as_deref().map(new);
    }
    for tensor in &mut graph.sparse_initializer {
        if let Some(values) = &mut tensor.values {
            values.name = values.name.as_deref().map(new);
        }
    }
    for node in &mut graph.node {
        node.name = node.name.as_deref().map(new);
        node.input.iter_mut().for_each(|name| *name = new(name));
        node.output.iter_mut().for_each(|name| *name = new(name));
        for attribute in &mut node.attribute {
            if let Some(body) = &mut attribute.g {
                rename_with(body, new);
            }
            attribute.graphs.iter_mut().for_each(|body| rename_with(body, new));
        }
    }
}

struct Written<'w> {
    graph: &'w mut GraphProto,
    mesh: &'w Mesh,
    number: &'w mut usize,
}

impl Written<'_> {
    /// What `rank` has after a collective in which rank number `r` takes part with `nodes[r]`.
    fn collective(&mut self, nodes: &[NodeProto], rank: usize) -> Option<()> {
        let node = nodes.get(rank)?;
        let attribute = |name: &str| {
            let mut attributes = node.attribute.iter();
            attributes.find(|attribute| attribute.name.as_deref() == Some(name))
        };
        let axis = |name: &str| attribute(name)?.i;
        let word = attribute("group")?.s.clone()?;
        let group = Group::ALL.into_iter().find(|group| group.name().as_bytes() == word)?;
        let place = self.mesh.place(group, rank);
        let peers = self.mesh.peers(group, rank);
        let sent = |peer: &usize| nodes.get(*peer)?.input.first().cloned();
        let all: Vec<String> = peers.iter().map(sent).collect::<Option<_>>()?;
        let output = node.output.first()?.clone();
        match node.op_type.as_deref()? {
            "ShardSlice" => self.part(node.input.first()?, axis("axis")?, group, place, output),
            "AllGather" => self.node("Concat", all, vec![integer("axis", axis("axis")?)], output),
            "AllToAll" => {
                let mut parts = Vec::new();
                for value in &all {
                    let name = self.name();
                    self.part(value, axis("split_axis")?, group, place, name.clone());
                    parts.push(name);
                }
                self.node("Concat", parts, vec![integer("axis", axis("concat_axis")?)], output);
            }
            "AllReduce" => self.node("Sum", all, Vec::new(), output),
            "ReduceScatter" => {
                let sum = self.name();
                self.node("Sum", all, Vec::new(), sum.clone());
                self.part(&sum, axis("axis")?, group, place, output);
            }
            _ => return None,
        }
        Some(())
    }

    fn name(&mut self) -> String {
        *self.number += 1;
        format!("unrolled/{}", self.number)
    }

    fn node(
        &mut self,
        operator: &str,
        input: Vec<String>,
        attribute: Vec<crate::onnx::messages::AttributeProto>,
        output: String,
    ) {
        self.graph.node.push(NodeProto {
            op_type: Some(operator.to_owned()),
            name: Some(output.clone()),
            input,
            output: vec![output],
            attribute,
            ..NodeProto::default()
        });
    }

    fn computed(&mut self, operator: &str, input: &[&String]) -> String {
        let name = self.name();
        let input = input.iter().map(|name| (*name).clone()).collect();
        self.node(operator, input, Vec::new(), name.clone());
        name
    }

    fn number(&mut self, number: i64) -> String {
        let name = self.name();
        self.graph.initializer.push(stored(&name, &[number]));
        name
    }

    /// Part number `place` of `value` along `axis`: from `place · (n / ranks) + min(place, n mod ranks)` on.
    fn part(&mut self, value: &str, axis: i64, group: Group, place: usize, output: String) {
        let shape = self.computed("Shape", &[&value.to_owned()]);
        let at = self.number(axis);
        let gathered = self.name();
        self.node(
            "Gather",
            vec![shape, at.clone()],
            vec![integer("axis", 0)],
            gathered.clone(),
        );
        let ranks = self.number(self.mesh.along(group) as i64);
        let each = self.computed("Div", &[&gathered, &ranks]);
        let more = self.computed("Mod", &[&gathered, &ranks]);
        let bounds: Vec<String> = [place, place + 1]
            .into_iter()
            .map(|place| {
                let place = self.number(place as i64);
                let equal = self.computed("Mul", &[&each, &place]);
                let extra = self.computed("Min", &[&more, &place]);
                self.computed("Add", &[&equal, &extra])
            })
            .collect();
        let mut input = vec![value.to_owned()];
        input.extend(bounds);
        input.push(at);
        self.node("Slice", input, Vec::new(), output);
    }
}
