//! What `pab-patch inspect --json` says of a model, as far as the page shows it; `docs/inspect.schema.json` has all of it.

use serde::Deserialize;

/// What was found in a model.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Inspection {
    /// The model's path.
    pub model: String,
    /// Operations of one step.
    pub flops: f64,
    /// What open dimensions without a given size were counted as.
    pub open_size: i64,
    /// The names of those dimensions.
    pub open_dimensions: Vec<String>,
    /// Where the rules came from.
    pub rules_from: String,
    /// The modules.
    pub sites: Vec<InspectedSite>,
    /// What was not understood.
    pub notes: Vec<InspectionNote>,
    /// Operators beyond which axes are not known.
    pub opaque: Vec<OpaqueOperator>,
}

/// A module.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct InspectedSite {
    /// Its kind.
    pub kind: String,
    /// The bytes of its caches.
    pub cache_bytes: Option<u64>,
    /// The share of a step that a broadcast saves, 0 to 1.
    pub share: f64,
    /// The rule that has it.
    pub rule: Option<String>,
}

/// Something that was not understood.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct InspectionNote {
    /// What it is about.
    pub subject: String,
    /// Why.
    pub reason: String,
    /// What to do.
    pub advice: String,
}

/// An operator beyond which axes are not known.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct OpaqueOperator {
    /// Empty for ONNX' own.
    pub domain: String,
    /// Its name.
    pub operator: String,
    /// How many nodes have it.
    pub nodes: usize,
}
