//! Sites: residual branches that can be cached, with their cut points.

use super::classify::classify;
use super::core::{Core, Search, label};
use super::kind::Kind;
use super::module;
use super::nested;
use super::residual::Branch;
use super::variable::Variable;
use crate::axes::{Axes, Note, Size};
use crate::graph::{GraphError, ModelGraph, NodeId, ValueId};
use crate::onnx::messages::DataType;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// A value that can be cached instead of computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The value.
    pub value: ValueId,
    /// Its element type.
    pub element_type: DataType,
    /// Its sizes: numbers, or products such as `16*batch`.
    pub shape: Vec<Size>,
}

/// A residual branch that can be cached.
#[derive(Clone, Debug)]
pub struct Site {
    /// Kind and block, for example `spatial.3`. Unique.
    pub name: String,
    /// What the exporter calls the module, for example `transformer_blocks.3.attn1`. For people only.
    pub module: Option<String>,
    /// What the attention mixes.
    pub kind: Kind,
    /// Which one of its kind it is, in the order in which the model computes their outputs, from 0.
    ///
    /// For models that are stacks of equal blocks this is the index of the block: Latte's `transformer_blocks.i` has
    /// `spatial.i` and `cross.i`, its `temporal_transformer_blocks.i` has `temporal.i`.
    pub block: usize,
    /// The module's output, before gate and residual addition: what diffusers caches.
    pub output: Cut,
    /// What is added to the residual stream, where the branch is gated: what VideoSys caches.
    pub gated: Option<Cut>,
    /// The nodes of the core, from the product of queries and keys to the weighted sum.
    pub core: Vec<NodeId>,
    /// Number of heads, where it is known.
    pub heads: Option<i64>,
    /// The residual stream that the branch is added to.
    pub stream: ValueId,
}

/// Everything that was found in a model.
#[derive(Clone, Debug, Default)]
pub struct Sites {
    /// The sites, in the order in which the model computes their outputs.
    pub sites: Vec<Site>,
    /// Every softmax and fused attention that is no site, and every input that was not understood: why, and what to do.
    pub notes: Vec<Note>,
}

impl Sites {
    /// Finds the sites of a model's top-level graph, by structure alone: no name is looked at.
    ///
    /// # Errors
    /// [`GraphError::Cycle`] where the nodes have no order.
    pub fn find(model: &ModelGraph, axes: &Axes) -> Result<Sites, GraphError> {
        let graph = &model.graph;
        let order = graph.topological_order()?;
        let variable = Variable::of(graph, &order);
        let softmax_axis = if model.opset("").is_some_and(|version| version < 13) {
            1
        } else {
            -1
        };
        let search = Search {
            graph,
            axes,
            variable: &variable,
            softmax_axis,
        };
        let mut found: Vec<(Site, Vec<NodeId>)> = Vec::new();
        let mut notes = axes.notes().to_vec();
        notes.extend(nested::notes(model));
        let mut cuts: HashMap<ValueId, NodeId> = HashMap::new();
        for id in order {
            let site = match search.core(id) {
                None => continue,
                Some(core) => core.and_then(|core| site(&search, id, core)),
            };
            match site {
                Ok((site, nodes)) => match cuts.entry(site.output.value) {
                    Entry::Vacant(cut) => {
                        cut.insert(id);
                        found.push((site, nodes));
                    }
                    Entry::Occupied(cut) => notes.push(search.note(
                        id,
                        format!(
                            "it has the module's output in common with {}",
                            label(graph.node(*cut.get()))
                        ),
                        "nothing to do: both are broadcast as the site of the first one",
                    )),
                },
                Err(note) => notes.push(note),
            }
        }
        // By cuts, not by cores: where one site stands within another, its cut is computed first.
        let place = |site: &Site| graph.producer(site.output.value).map(|(id, _)| variable.place(id));
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
        Ok(Sites { sites, notes })
    }

    /// The site named `name`.
    pub fn get(&self, name: &str) -> Option<&Site> {
        self.sites.iter().find(|site| site.name == name)
    }
}

/// The site around a core, without a name, and the nodes that tell its module.
fn site(search: &Search<'_>, id: NodeId, core: Core) -> Result<(Site, Vec<NodeId>), Note> {
    let kind = classify(&core.query_axis, &core.key_axis).map_err(|reason| search.unknown(id, core.output, &reason))?;
    let branch = search.branch(&core)?;
    let output = cut(search, id, branch.output)?;
    let gated = branch.gated.map(|value| cut(search, id, value)).transpose()?;
    let Branch { stream, nodes, .. } = branch;
    let named: Vec<NodeId> = core.nodes.iter().copied().chain(nodes.first().copied()).collect();
    let site = Site {
        name: String::new(),
        module: None,
        kind,
        block: 0,
        output,
        gated,
        core: core.nodes,
        heads: core.heads,
        stream,
    };
    Ok((site, named))
}

fn cut(search: &Search<'_>, id: NodeId, value: ValueId) -> Result<Cut, Note> {
    let Some(shape) = search
        .axes
        .sizes(value)
        .filter(|shape| !shape.iter().any(Size::has_unknown))
    else {
        return Err(search.unknown(id, value, "the shape of its module's output is not known"));
    };
    let Some(element_type) = search.axes.element_type(value) else {
        return Err(search.unknown(id, value, "the element type of its module's output is not known"));
    };
    Ok(Cut {
        value,
        element_type,
        shape,
    })
}
