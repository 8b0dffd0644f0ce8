//! Sites: residual branches that can be cached, with their cut points.

use super::classify::classify;
use super::core::{Core, Search, label};
use super::cut::{Cut, Cuts};
use super::exit::{Exit, Start};
use super::feed_forward::FeedForward;
use super::kind::Kind;
use super::module;
use super::nested;
use super::residual::{Marks, Projections};
use super::variable::Variable;
use super::work::{IdMap, IdSet, Work};
use crate::axes::{Axes, Note};
use crate::graph::{GraphError, ModelGraph, NodeId, ValueId};
use std::cell::RefCell;
use std::collections::HashMap;

/// A residual branch that can be cached.
#[derive(Clone, Debug)]
pub struct Site {
    /// Kind and block, for example `spatial.3`. Unique.
    pub name: String,
    /// What the exporter calls the module, for example `transformer_blocks.3.attn1`. For people only.
    pub module: Option<String>,
    /// What the branch mixes.
    pub kind: Kind,
    /// Which one of its kind it is, in the order in which the model computes their outputs, from 0.
    ///
    /// For models that are stacks of equal blocks this is the index of the block: Latte's `transformer_blocks.i` has
    /// `spatial.i` and `cross.i`, its `temporal_transformer_blocks.i` has `temporal.i`.
    pub block: usize,
    /// The module's outputs, before gates and residual additions: what diffusers caches. Several where the streams part
    /// before their output projections (Flux, SD3, Hunyuan).
    pub output: Cuts,
    /// What is added to the residual streams, where the branch is gated: what VideoSys caches. Several where the streams
    /// part behind the output projection, too (CogVideoX).
    pub gated: Option<Cuts>,
    /// The nodes of the core: from the product of queries and keys to the weighted sum, or from the first projection of a
    /// feed-forward to its last.
    pub core: Vec<NodeId>,
    /// Number of heads, where it is known.
    pub heads: Option<i64>,
    /// The residual streams that the branch is added to, in the order of computing.
    pub streams: Vec<ValueId>,
    /// What becomes of each of them, in the same order.
    pub additions: Vec<Addition>,
}

/// A residual stream before and after a branch is added to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addition {
    /// The stream before.
    pub before: ValueId,
    /// The node that adds.
    pub node: NodeId,
    /// The stream after; none where the node adds and normalizes, and gives the normalized stream only.
    pub after: Option<ValueId>,
}

/// Everything that was found in a model.
#[derive(Clone, Debug, Default)]
pub struct Sites {
    /// The sites, in the order in which the model computes their outputs.
    pub sites: Vec<Site>,
    /// Every softmax and fused attention and every residual branch that is no site, and every input that was not
    /// understood: why, and what to do.
    pub notes: Vec<Note>,
}

impl Site {
    /// Everything that may be cached of it, to be changed.
    pub fn cuts_mut(&mut self) -> impl Iterator<Item = &mut Cut> {
        self.output
            .iter_mut()
            .chain(self.gated.iter_mut().flat_map(Cuts::iter_mut))
    }
}

impl Sites {
    /// Finds the sites of a model's top-level graph, by structure alone: no name is looked at.
    ///
    /// # Errors
    /// [`GraphError::Cycle`] where the nodes have no order.
    pub fn find(model: &ModelGraph, axes: &Axes) -> Result<Sites, GraphError> {
        Ok(Sites::find_counted(model, axes)?.0)
    }

    /// The same, and how many nodes and edges were looked at between streams, branches and cores.
    pub(super) fn find_counted(model: &ModelGraph, axes: &Axes) -> Result<(Sites, u64), GraphError> {
        let graph = &model.graph;
        let order = graph.topological_order()?;
        let variable = Variable::of(graph, &order, axes);
        let softmax_axis = if model.opset("").is_some_and(|version| version < 13) {
            1
        } else {
            -1
        };
        let search = Search {
            graph,
            weights: model.weights(),
            axes,
            variable: &variable,
            softmax_axis,
            marks: RefCell::new(Marks::of(graph)),
            projections: Projections::of(graph, &order),
            work: Work::default(),
            causes: Work::default(),
        };
        let mut found = Found::default();
        let mut notes = axes.notes().to_vec();
        notes.extend(nested::notes(model));
        for id in &order {
            match search.core(*id) {
                None => {}
                Some(Err(note)) => notes.push(note),
                Some(Ok(core)) => notes.extend(found.attention(&search, *id, core).err()),
            }
        }
        for (id, branch, stream) in std::mem::take(&mut found.beside) {
            match search.beside(branch, stream) {
                None => {}
                Some(Err(note)) => notes.push(note),
                Some(Ok(branch)) => notes.extend(found.feed_forward(&search, id, branch).err()),
            }
        }
        let mut refused = Vec::new();
        for id in order {
            if found.additions.contains(&id) {
                continue;
            }
            match search.feed_forward(id, &found.additions) {
                None => {}
                Some(Err(note)) => refused.push((id, note)),
                Some(Ok(branch)) => notes.extend(found.feed_forward(&search, id, branch).err()),
            }
        }
        // What a feed-forward adds within itself is a part of it.
        let cores = found.sites.iter().flat_map(|(site, _)| site.core.iter().copied());
        let within: IdSet<NodeId> = cores.collect();
        let refused = refused.into_iter().filter(|(id, _)| !within.contains(id));
        notes.extend(refused.map(|(_, note)| note));
        let mut found = found.sites;
        // By cuts, not by cores: where one site stands within another, its cut is computed first.
        let place = |site: &Site| {
            let producer = graph.producer(site.output.first().value);
            producer.map(|(id, _)| variable.place(id))
        };
        found.sort_by_key(|(site, _)| place(site));
        let (mut sites, nodes): (Vec<Site>, Vec<Vec<NodeId>>) = found.into_iter().unzip();
        let modules = nodes.iter().map(|nodes| module::common(graph, nodes)).collect();
        let mut blocks: HashMap<Kind, usize> = HashMap::new();
        for (site, module) in sites.iter_mut().zip(module::dotted(modules)) {
            let counter = blocks.entry(site.kind).or_default();
            site.block = *counter;
            site.name = format!("{}.{}", site.kind, site.block);
            site.module = module;
            *counter += 1;
        }
        Ok((Sites { sites, notes }, search.work.steps() + search.causes.steps()))
    }

    /// The site named `name`.
    pub fn get(&self, name: &str) -> Option<&Site> {
        self.sites.iter().find(|site| site.name == name)
    }
}

/// The sites so far, without names, each with the nodes that tell its module.
#[derive(Default)]
struct Found {
    sites: Vec<(Site, Vec<NodeId>)>,
    /// Which node the site of each cut was found from.
    cuts: IdMap<ValueId, NodeId>,
    /// The residual additions of the sites.
    additions: IdSet<NodeId>,
    /// What was added to an attention's result before the residual addition: from which node, the branch, the stream.
    beside: Vec<(NodeId, ValueId, ValueId)>,
    /// The branches among them, each once.
    seen: IdSet<ValueId>,
}

impl Found {
    /// Adds the attention around a core that was found at `id`.
    fn attention(&mut self, search: &Search<'_>, id: NodeId, core: Core) -> Result<(), Note> {
        let kind =
            classify(&core.query_axis, &core.key_axis).map_err(|reason| search.unknown(id, core.output, &reason))?;
        let exits = search.exits(&Start {
            node: core.nodes.last().copied().unwrap_or(id),
            value: core.output,
            is_output: false,
            source: core.query,
        })?;
        for exit in &exits {
            let new = exit.beside.iter().filter(|branch| self.seen.insert(**branch));
            self.beside.extend(new.map(|branch| (id, *branch, exit.stream)));
        }
        let projections = exits.iter().filter_map(|exit| exit.projection);
        let named = core.nodes.iter().copied().chain(projections).collect();
        self.add(search, id, kind, exits, core.nodes, named, core.heads)
    }

    /// Adds the feed-forward that node `id` adds to the stream.
    fn feed_forward(&mut self, search: &Search<'_>, id: NodeId, branch: FeedForward) -> Result<(), Note> {
        let exits = search.exits(&Start {
            node: id,
            value: branch.output,
            is_output: true,
            source: branch.output,
        })?;
        let named = branch.nodes.clone();
        self.add(search, id, Kind::Mlp, exits, branch.nodes, named, None)
    }

    #[allow(clippy::too_many_arguments)]
    fn add(
        &mut self,
        search: &Search<'_>,
        id: NodeId,
        kind: Kind,
        exits: Vec<Exit>,
        core: Vec<NodeId>,
        named: Vec<NodeId>,
        heads: Option<i64>,
    ) -> Result<(), Note> {
        self.additions.extend(exits.iter().map(|exit| exit.addition));
        let output = search.cuts(id, exits.iter().map(|exit| exit.output))?;
        // Where one exit is gated, what is added at the others is cut there, too, so that both cuts stand for all exits.
        let gated = exits.iter().any(|exit| exit.gated);
        let gated = gated
            .then(|| search.cuts(id, exits.iter().map(|exit| exit.added)))
            .transpose()?;
        if let Some(other) = output.iter().find_map(|cut| self.cuts.get(&cut.value)) {
            return Err(search.note(
                id,
                format!(
                    "it has the module's output in common with {}",
                    label(search.graph.node(*other))
                ),
                "nothing to do: both are broadcast as the site of the first one",
            ));
        }
        self.cuts.extend(output.iter().map(|cut| (cut.value, id)));
        let mut additions: Vec<Addition> = exits.iter().map(|exit| search.addition(exit)).collect();
        let place = |stream: ValueId| search.graph.producer(stream).map(|(id, _)| search.variable.place(id));
        additions.sort_by_key(|addition| place(addition.before));
        let streams = additions.iter().map(|addition| addition.before).collect();
        let site = Site {
            name: String::new(),
            module: None,
            kind,
            block: 0,
            output,
            gated,
            core,
            heads,
            streams,
            additions,
        };
        self.sites.push((site, named));
        Ok(())
    }
}
