//! What was found in a model as a stack of blocks, for people.

use super::super::analysis::Analysis;
use super::Report;
use super::layers::common_module;
use crate::attention::{Cut, Cuts, Part, Site};
use crate::axes::{Bindings, display_shape};
use crate::graph::{ModelGraph, Node, NodeId};
use crate::report::{Branch, BranchCut, BranchNode, Stack, StackBlock, StackNote, number};
use crate::rewrite::PlanSize;
use crate::rules::CutPoint;
use std::collections::HashSet;

/// Where a site can be cut, the first in the graph first.
pub fn cuts(site: &Site) -> Vec<(CutPoint, &Cuts)> {
    let gated = site.gated.iter().map(|cuts| (CutPoint::Gated, cuts));
    std::iter::once((CutPoint::Output, &site.output)).chain(gated).collect()
}

/// The shape of a cut with symbolic sizes.
pub fn shape(cut: &Cut) -> Vec<PlanSize> {
    cut.shape.iter().map(PlanSize::from).collect()
}

/// A shape in words.
pub fn shape_text(shape: &[PlanSize]) -> String {
    let sizes: Vec<String> = shape.iter().map(PlanSize::to_string).collect();
    format!("[{}]", sizes.join(", "))
}

/// What the dimensions of a site's output count; `None` where that is not known.
pub fn axes_text(site: &Site, analysis: &Analysis) -> Option<String> {
    analysis.axes.dimensions(site.output.first().value).map(display_shape)
}

/// The stack of a model of which `report` was made.
pub fn stack(analysis: &Analysis, report: &Report, bindings: &Bindings) -> Stack {
    let mut blocks: Vec<StackBlock> = Vec::new();
    for (site, row) in analysis.sites.sites.iter().zip(&report.sites) {
        if blocks.len() <= row.layer {
            blocks.resize_with(row.layer + 1, StackBlock::default);
        }
        let branch = Branch {
            name: row.name.clone(),
            kind: row.kind.word(),
            module: row.module.clone(),
            axes: row.axes.clone(),
            heads: row.heads,
            flops: row.flops,
            share: row.share,
            cache_bytes: row.cache_bytes,
            rule: row.rule.clone(),
            cuts: cuts(site)
                .into_iter()
                .flat_map(|(point, cuts)| cuts.iter().map(move |cut| (point, cut)))
                .map(|(point, cut)| branch_cut(&analysis.model, point, cut, bindings))
                .collect(),
            nodes: nodes(&analysis.model, site),
        };
        if let Some(block) = blocks.get_mut(row.layer) {
            block.branches.push(branch);
        }
    }
    for block in &mut blocks {
        block.module = common_module(block.branches.iter().filter_map(|branch| branch.module.as_deref()));
    }
    Stack {
        title: report.model.file_name().map_or_else(
            || report.model.display().to_string(),
            |name| name.to_string_lossy().into_owned(),
        ),
        facts: facts(report),
        blocks,
        notes: report
            .notes
            .iter()
            .map(|note| StackNote {
                subject: note.subject.clone(),
                reason: note.reason.clone(),
                advice: note.advice.clone(),
            })
            .collect(),
        opaque: report
            .opaque
            .iter()
            .map(|operator| (super::qualified(&operator.domain, &operator.operator), operator.nodes))
            .collect(),
    }
}

fn facts(report: &Report) -> Vec<(String, String)> {
    let share: f64 = report.sites.iter().map(|row| row.share).sum();
    let mut facts = vec![
        ("file", report.model.display().to_string()),
        ("one step", number::flops(report.flops as u64)),
        (
            "sites",
            format!("{}, {} of a step", report.sites.len(), number::percent(share)),
        ),
        ("rules", report.rules_from.clone()),
    ];
    if let Some(preset) = &report.preset {
        facts.push(("preset that fits", preset.to_string()));
    }
    if !report.open_dimensions.is_empty() {
        let open = report.open_dimensions.join(", ");
        facts.push(("open dimensions", format!("{open}, counted as {}", report.open_size)));
    }
    facts
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn branch_cut(model: &ModelGraph, point: CutPoint, cut: &Cut, bindings: &Bindings) -> BranchCut {
    BranchCut {
        point: point.word(),
        part: (cut.part != Part::Whole).then(|| cut.part.to_string()),
        value: model.graph.value(cut.value).name().to_owned(),
        element_type: format!("{:?}", cut.element_type).to_lowercase(),
        shape: shape_text(&shape(cut)),
        bytes: cut.bytes(bindings),
    }
}

/// The nodes that a broadcast at the site's last cut saves.
fn nodes(model: &ModelGraph, site: &Site) -> Vec<BranchNode> {
    let core: HashSet<NodeId> = site.core.iter().copied().collect();
    let serving = cuts(site).last().map_or_else(Vec::new, |(_, cuts)| cuts.serving(model));
    let named = serving.into_iter().map(|id| {
        let node = model.graph.node(id);
        BranchNode {
            name: name(model, node),
            operator: super::qualified(node.domain(), node.operator()),
            core: core.contains(&id),
        }
    });
    named.collect()
}

/// A node's name as viewers show it: its own, or else that of its first output.
fn name(model: &ModelGraph, node: &Node) -> String {
    match (node.name(), node.outputs().iter().flatten().next()) {
        ("", Some(output)) => model.graph.value(*output).name().to_owned(),
        (name, _) => name.to_owned(),
    }
}
