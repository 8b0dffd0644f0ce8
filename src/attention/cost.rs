//! What a site costs and what caching it takes.

use super::cut::{Cut, Cuts};
use super::site::Sites;
use crate::axes::{Axes, Bindings, Size};
use crate::graph::{ModelGraph, NodeId};
use crate::onnx::messages::DataType;

/// What computing one step costs, and what each site has of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Costs {
    /// Floating-point operations of the whole graph.
    pub flops: f64,
    /// Nodes whose operations could not be counted because a size is not known.
    pub uncounted: usize,
    /// By site, in the order of [`Sites::sites`].
    pub sites: Vec<SiteCost>,
}

/// What one site costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SiteCost {
    /// Floating-point operations that a broadcast at the module's outputs saves: those of the nodes that serve it alone.
    pub flops: f64,
    /// The same as a share of the whole graph, between 0 and 1.
    pub share: f64,
    /// Bytes of the cached values; none where a size has no number.
    pub cache_bytes: Option<u64>,
    /// The same where the values are cached behind the gate; none where there is no gate.
    pub gated_cache_bytes: Option<u64>,
}

impl Cut {
    /// Bytes of the value where symbols have the values in `bindings`.
    pub fn bytes(&self, bindings: &Bindings) -> Option<u64> {
        let elements = u64::try_from(Size::product(&self.shape).evaluate(bindings)?).ok()?;
        elements
            .checked_mul(bits(self.element_type)?)
            .map(|bits| bits.div_ceil(8))
    }
}

impl Cuts {
    /// Bytes of all values where symbols have the values in `bindings`.
    pub fn bytes(&self, bindings: &Bindings) -> Option<u64> {
        self.iter()
            .try_fold(0u64, |sum, cut| sum.checked_add(cut.bytes(bindings)?))
    }

    /// The nodes that serve the values alone, so that broadcasting them saves them; in topological order.
    pub fn serving(&self, model: &ModelGraph) -> Vec<NodeId> {
        model.graph.exclusive_to(&self.values())
    }
}

fn bits(element: DataType) -> Option<u64> {
    Some(match element {
        DataType::Float | DataType::Int32 | DataType::Uint32 => 32,
        DataType::Double | DataType::Int64 | DataType::Uint64 | DataType::Complex64 => 64,
        DataType::Float16 | DataType::Bfloat16 | DataType::Int16 | DataType::Uint16 => 16,
        DataType::Complex128 => 128,
        DataType::Undefined | DataType::String => return None,
        DataType::Uint4 | DataType::Int4 | DataType::Float4e2m1 => 4,
        DataType::Uint2 | DataType::Int2 => 2,
        DataType::Float6e2m3 | DataType::Float6e3m2 => 6,
        _ => 8,
    })
}

impl Sites {
    /// Counts the operations of the graph and of each site, where symbols have the values in `bindings`.
    pub fn costs(&self, model: &ModelGraph, axes: &Axes, bindings: &Bindings) -> Costs {
        let mut uncounted = 0;
        let mut flops = 0.0;
        for (id, _) in model.graph.nodes() {
            match axes.flops(model, id, bindings) {
                Some(count) => flops += count,
                None => uncounted += 1,
            }
        }
        let sites = self.sites.iter().map(|site| {
            let saved: f64 = site
                .output
                .serving(model)
                .into_iter()
                .filter_map(|id| axes.flops(model, id, bindings))
                .sum();
            let share = if flops > 0.0 { saved / flops } else { 0.0 };
            SiteCost {
                flops: saved,
                share,
                cache_bytes: site.output.bytes(bindings),
                gated_cache_bytes: site.gated.as_ref().and_then(|cuts| cuts.bytes(bindings)),
            }
        });
        Costs {
            flops,
            uncounted,
            sites: sites.collect(),
        }
    }
}
