//! What the sizes that a model leaves open are in a run.

use super::Failure;
use super::analysis::Analysis;
use crate::generation::{Conditioning, sizes_in_run};
use crate::pipeline::declared_inputs;
use std::collections::BTreeMap;
use std::path::Path;

/// The sizes that the model of this analysis leaves open, by the names that its axes give them: with `latent` as the shape of the
/// noise of all clips, and of several conditionings the largest. What follows from neither is not among them.
pub fn open_sizes(
    path: &Path,
    analysis: &Analysis,
    latent: &[usize],
    conditionings: &[Conditioning],
) -> Result<Vec<(String, usize)>, Failure> {
    let ports = declared_inputs(path).map_err(|error| Failure::pipeline(path, error))?;
    let mut open: BTreeMap<String, usize> = BTreeMap::new();
    for port in &ports {
        let value = analysis.model.graph.find(&port.name);
        let Some(sizes) = value.and_then(|value| analysis.axes.sizes(value)) else {
            continue;
        };
        for conditioning in conditionings {
            for (size, number) in sizes.iter().zip(sizes_in_run(port, latent, conditioning)) {
                let Some((symbol, number)) = size.as_symbol().zip(number) else {
                    continue;
                };
                let largest = open.entry(symbol).or_default();
                *largest = number.max(*largest);
            }
        }
    }
    Ok(open.into_iter().collect())
}
