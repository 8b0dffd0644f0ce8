//! Reuse: the branch that broadcasts passes on what was computed last.

use super::build::{Build, of_cache, of_cut};
use super::module::Module;
use super::{CachePlan, Choice, RewriteError};
use crate::attention::Cut;
use crate::graph::{Graph, ValueId};
use std::iter::zip;

/// Puts the module of the site of `choice` into an `If` on `flag`. `caches` are the site's, one for each cut, `inputs` their inputs.
///
/// Where a cache has its value's type, the `If`'s output is both. A narrowed cache is an output of its own: what is
/// computed goes on as it is, and only what is broadcast was narrowed.
pub(super) fn wrap(
    graph: &mut Graph,
    mut module: Module,
    choice: &Choice<'_>,
    caches: &[CachePlan],
    inputs: &[ValueId],
    flag: ValueId,
) -> Result<(), RewriteError> {
    let mut broadcast = module.broadcast(graph);
    let cuts: Vec<(&Cut, &CachePlan)> = zip(choice.cuts.iter(), caches).collect();
    let mut outputs = Vec::with_capacity(2 * cuts.len());
    let mut cached = Vec::with_capacity(cuts.len());
    for ((cut, cache), input) in cuts.iter().zip(inputs) {
        let inner = broadcast.capture(*input, &cache.input);
        cached.push(inner);
        let mut build = Build::new(&mut broadcast);
        let (given, output) = if narrowed(cut, cache) {
            let widened = build.cast(inner, cut.element_type, &format!("{}.widened", cache.input))?;
            (widened, cache.input.replacen("pab.cache.", "pab.value.", 1))
        } else {
            (build.identity(inner, &reused(cache))?, cache.output.clone())
        };
        broadcast.add_output(given, of_cut("", cut));
        outputs.push(output);
    }
    let computed: Vec<ValueId> = module.compute.outputs().collect();
    for (((cut, cache), inner), value) in cuts.iter().zip(cached).zip(computed) {
        if !narrowed(cut, cache) {
            continue;
        }
        let info = of_cache("", cache);
        let name = format!("{}.narrowed", cache.input);
        let narrow = Build::new(&mut module.compute).cast(value, cache.element_type, &name)?;
        module.compute.add_output(narrow, info.clone());
        let kept = Build::new(&mut broadcast).identity(inner, &reused(cache))?;
        broadcast.add_output(kept, info);
        outputs.push(cache.output.clone());
    }
    module.put_back(graph, flag, broadcast, outputs)?;
    for (_, cache) in cuts {
        if let Some(next) = graph.find(&cache.output) {
            graph.add_output(next, of_cache("", cache));
        }
    }
    Ok(())
}

fn narrowed(cut: &Cut, cache: &CachePlan) -> bool {
    cut.element_type != cache.element_type
}

fn reused(cache: &CachePlan) -> String {
    format!("{}.reuse", cache.input)
}
