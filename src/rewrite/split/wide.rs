//! What rules leave out beside sites, in a graph that is split: the streams of spans, the halves of the batch, and what
//! adaptive rules decide by.
//!
//! All of it was found in the whole. What a span adds is a difference of two streams, so the stream before the span is
//! taken as the one behind it lies: both are residual streams, which are pinned alike, and nothing has to be exchanged.

use super::behind::Behind;
use super::rank::Numbers;
use crate::attention::SpanEntry;
use crate::axes::Size;
use crate::graph::{Graph, ValueId};
use crate::rewrite::{SpanChoice, Wide};
use crate::shard::{Division, Facts, Mesh, Placement, ShardError};

/// Refuses to leave out half of a batch that is divided itself.
pub(super) fn refuse_halves(wide: &Wide, mesh: &Mesh) -> Result<(), ShardError> {
    match &wide.guidance {
        Some(choice) if mesh.guidance > 1 => Err(ShardError::Halves {
            rule: choice.name.clone(),
            ranks: mesh.guidance,
        }),
        _ => Ok(()),
    }
}

/// The streams before spans, and where each has to lie, in the order of [`behind`].
pub(super) fn entries(
    graph: &Graph,
    wide: &Wide,
    division: &Division,
) -> Result<Vec<(ValueId, Placement)>, ShardError> {
    let mut entries = Vec::new();
    for choice in &wide.spans {
        for stream in &choice.span.streams {
            let exit = stream.exit.value;
            let held = division.held(exit);
            match &stream.entry {
                SpanEntry::Value(value) => entries.push((*value, held)),
                SpanEntry::Joined { concat, parts } => {
                    let step = division.step(*concat);
                    let step = step.filter(|step| step.gives.first() == Some(&held));
                    let step = step.ok_or_else(|| ShardError::Span {
                        span: choice.name.clone(),
                        value: graph.value(exit).name().to_owned(),
                    })?;
                    let needs = parts.iter().zip(&step.needs);
                    entries.extend(needs.map(|(part, need)| (*part, need.clone())));
                }
            }
        }
    }
    Ok(entries)
}

/// The same behind a pass of the split: `entries` are the values that those of [`entries`] became.
pub(super) fn behind(wide: &mut Wide, behind: &Behind<'_>, entries: Vec<ValueId>) {
    let mut entries = entries.into_iter();
    for choice in &mut wide.spans {
        let mut count = 0;
        let mut starts = Vec::with_capacity(choice.span.starts.len());
        for stream in &mut choice.span.streams {
            behind.cut(&mut stream.exit);
            for value in stream.entry.values_mut() {
                count += 1;
                *value = entries.next().unwrap_or(*value);
                starts.push(*value);
            }
        }
        starts.extend(choice.span.starts.iter().skip(count).map(|start| behind.value(*start)));
        choice.span.starts = starts;
        choice.indicator.iter_mut().for_each(|cut| behind.cut(cut));
    }
    wide.indicators.values_mut().for_each(|cut| behind.cut(cut));
    if let Some(choice) = &mut wide.guidance {
        choice.batch_axes.move_to(|value| behind.value(value));
    }
}

/// The sizes of what guidance saves, from those of the outputs as ranks have them.
pub(super) fn halve_outputs(wide: &mut Wide, graph: &Graph, facts: &Facts<'_>) {
    let Some(choice) = &mut wide.guidance else { return };
    for output in &mut choice.halves.outputs {
        let Some(value) = graph.find(&output.name) else {
            continue;
        };
        output.value = value;
        if let Some(sizes) = facts.sizes(value) {
            output.half = sizes.to_vec();
            if let Some(size) = output.half.get_mut(output.axis) {
                *size = size.divide_down(&Size::number(2));
            }
        }
    }
}

/// The same in the graph of one rank, with its `numbers`.
pub(super) fn at_rank(wide: &Wide, graph: &Graph, numbers: &Numbers) -> Wide {
    let mut wide = wide.clone();
    for choice in &mut wide.spans {
        let SpanChoice { span, indicator, .. } = &mut *choice;
        for stream in &mut span.streams {
            numbers.write(&mut stream.exit.shape);
        }
        if let Some(indicator) = indicator {
            numbers.write(&mut indicator.shape);
        }
        let exits: Vec<ValueId> = span.streams.iter().map(|stream| stream.exit.value).collect();
        span.nodes = graph.exclusive_between(&span.starts, &exits);
        choice.leave_indicator(graph);
    }
    for indicator in wide.indicators.values_mut() {
        numbers.write(&mut indicator.shape);
    }
    if let Some(choice) = &mut wide.guidance {
        for output in &mut choice.halves.outputs {
            numbers.write(&mut output.half);
        }
    }
    wide
}
