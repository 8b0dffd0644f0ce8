//! Reuse: the branch that broadcasts passes on what was computed last.

use super::build::{Build, of_cache};
use super::halved::{Halved, of_value};
use super::module::Module;
use super::{CachePlan, Choice, RewriteError};
use crate::attention::Cut;
use crate::graph::{Graph, ValueId};
use std::iter::zip;

/// Puts the module of the site of `choice` into an `If` on `flag`. `caches` are the site's, one for each cut, `inputs` their inputs.
///
/// Where a cache has its value's type, the `If`'s output is both. A narrowed cache is an output of its own: what is
/// computed goes on as it is, and only what is broadcast was narrowed. So is one beside guidance, which has both halves of
/// the batch where the value has one. `halved` has an entry for each cut.
pub(super) fn wrap(
    graph: &mut Graph,
    mut module: Module,
    choice: &Choice<'_>,
    caches: &[CachePlan],
    inputs: &[ValueId],
    flag: ValueId,
    halved: &[Option<Halved<'_>>],
) -> Result<(), RewriteError> {
    let mut broadcast = module.broadcast(graph);
    let cuts: Vec<Cached<'_>> = zip(zip(choice.cuts.iter(), caches), zip(inputs, halved))
        .map(|((cut, cache), (input, halved))| Cached {
            cut,
            cache,
            input: *input,
            halved: *halved,
        })
        .collect();
    let mut outputs = Vec::with_capacity(2 * cuts.len());
    let mut cached = Vec::with_capacity(cuts.len());
    for of_cut in &cuts {
        let Cached { cut, cache, halved, .. } = of_cut;
        let inner = broadcast.capture(of_cut.input, &cache.input);
        cached.push(inner);
        let (given, output) = if of_cut.is_apart() {
            let part = match halved {
                Some(halved) => halved.broadcast(graph, &mut broadcast, inner, cache)?,
                None => inner,
            };
            let widened = match of_cut.is_narrowed() {
                true => {
                    let name = format!("{}.widened", cache.input);
                    Build::new(&mut broadcast).cast(part, cut.element_type, &name)?
                }
                false => part,
            };
            (widened, cache.input.replacen("pab.cache.", "pab.value.", 1))
        } else {
            let same = Build::new(&mut broadcast).identity(inner, &reused(cache))?;
            (same, cache.output.clone())
        };
        broadcast.add_output(given, of_value(cut, *halved));
        outputs.push(output);
    }
    let computed: Vec<ValueId> = module.compute.outputs().collect();
    for ((of_cut, inner), value) in cuts.iter().zip(cached).zip(computed) {
        if !of_cut.is_apart() {
            continue;
        }
        let cache = of_cut.cache;
        let info = of_cache("", cache);
        let narrow = match of_cut.is_narrowed() {
            true => {
                let name = format!("{}.narrowed", cache.input);
                Build::new(&mut module.compute).cast(value, cache.element_type, &name)?
            }
            false => value,
        };
        let fresh = match of_cut.halved {
            Some(halved) => halved.kept(graph, &mut module.compute, narrow, of_cut.input, cache)?,
            None => narrow,
        };
        module.compute.add_output(fresh, info.clone());
        let kept = Build::new(&mut broadcast).identity(inner, &reused(cache))?;
        broadcast.add_output(kept, info);
        outputs.push(cache.output.clone());
    }
    module.put_back(graph, flag, broadcast, outputs)?;
    for of_cut in cuts {
        if let Some(next) = graph.find(&of_cut.cache.output) {
            graph.add_output(next, of_cache("", of_cut.cache));
        }
    }
    Ok(())
}

/// A cut with its cache.
struct Cached<'s> {
    cut: &'s Cut,
    cache: &'s CachePlan,
    /// Takes the cache.
    input: ValueId,
    /// Where guidance halves it.
    halved: Option<Halved<'s>>,
}

impl Cached<'_> {
    fn is_narrowed(&self) -> bool {
        self.cut.element_type != self.cache.element_type
    }

    /// Whether value and cache are two outputs.
    fn is_apart(&self) -> bool {
        self.is_narrowed() || self.halved.is_some()
    }
}

fn reused(cache: &CachePlan) -> String {
    format!("{}.reuse", cache.input)
}
