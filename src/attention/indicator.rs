//! Indicators: cheap values that tell how much the work of a site changes from step to step.

use super::cut::{Cut, Part, tokens};
use super::site::{Addition, Site, Sites};
use super::spelling::{Step, branch_step, is_fused_attention, is_mixer};
use crate::axes::{Axes, Label, Size};
use crate::graph::{Graph, Node, ValueId};
use crate::onnx::messages::DataType;
use std::collections::HashMap;

/// Layout changes of the stream that are followed back.
const MOST_REGROUPINGS: usize = 12;

impl Sites {
    /// What site number `site` projects first of its residual stream: the normalized, modulated stream, which the timestep
    /// has entered already and nothing expensive stands before. Where the module normalizes nothing it is the stream.
    ///
    /// `None` where sizes or element type of that are not known, or it is no float.
    pub fn indicator(&self, graph: &Graph, axes: &Axes, site: usize) -> Option<Cut> {
        let site = self.sites.get(site)?;
        let value = first_projected(graph, axes, site)?;
        let shape = axes.sizes(value).filter(|sizes| !sizes.iter().any(Size::has_unknown))?;
        Some(Cut {
            value,
            element_type: axes.element_type(value).filter(|found| is_float(*found))?,
            shape,
            part: Part::Whole,
        })
    }
}

/// The value that the module's first projection reads, followed from the residual stream.
fn first_projected(graph: &Graph, axes: &Axes, site: &Site) -> Option<ValueId> {
    let float = |value: ValueId| axes.element_type(value).is_some_and(is_float);
    // What each value says of the stream: itself, or, of what was quantized, what it was made from.
    let mut reached: HashMap<ValueId, ValueId> = HashMap::new();
    let is_text = |addition: &&Addition| tokens(axes, addition.before).contains(Label::Text);
    let text_alone = site.additions.iter().all(|addition| is_text(&addition));
    // The latent is what is denoised: where text and latent are joint, the text tells less.
    let followed: Vec<&Addition> = site
        .additions
        .iter()
        .filter(|addition| text_alone || !is_text(addition))
        .collect();
    for addition in &followed {
        for layout in layouts(graph, addition.before) {
            reached.insert(layout, layout);
        }
    }
    for id in graph.exclusive_to(&site.output.values()) {
        let node = graph.node(id);
        let Some(source) = node.inputs().flatten().find_map(|input| reached.get(&input).copied()) else {
            continue;
        };
        if projects(node) {
            return Some(source);
        }
        for output in node.outputs().iter().flatten() {
            reached.insert(*output, if float(*output) { *output } else { source });
        }
    }
    followed.first().map(|addition| addition.before)
}

/// The stream as it is added to, and the layouts that it had before, the nearest first.
fn layouts(graph: &Graph, stream: ValueId) -> Vec<ValueId> {
    let mut found = vec![stream];
    let mut value = stream;
    while let Some((_, node)) = graph.producer(value)
        && found.len() <= MOST_REGROUPINGS
        && matches!(branch_step(node), Some(Step::Regroup | Step::Keep))
        && let Some(before) = node.input(0)
    {
        found.push(before);
        value = before;
    }
    found
}

fn projects(node: &Node) -> bool {
    branch_step(node) == Some(Step::Project) || is_fused_attention(node) || is_mixer(node)
}

fn is_float(element_type: DataType) -> bool {
    matches!(
        element_type,
        DataType::Float | DataType::Float16 | DataType::Bfloat16 | DataType::Double
    )
}
