//! The times of single steps: the JSON of `pab-patch bench`.

use serde::{Deserialize, Serialize};

use super::provenance::Provenance;
use super::statistics::Distribution;

/// Single steps of original and patched model, timed in turn. Times are in milliseconds, ratios are of medians.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepTimes {
    /// The original model's path.
    pub model: String,
    /// How it was made; older files do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
    /// ONNX Runtime with its version.
    pub runtime: String,
    /// How often each was timed.
    pub rounds: usize,
    /// How often the models were opened anew for that.
    pub openings: usize,
    /// The original model.
    pub original: Distribution,
    /// The patched model in a run that broadcasts nothing, and so keeps no cache.
    pub computing: Distribution,
    /// The patched model in a step that computes everything and keeps it for later broadcasts.
    pub keeping: Distribution,
    /// The patched model with everything broadcast.
    pub broadcasting: Distribution,
    /// A static graph from which everything that is broadcast was taken out.
    pub removed: Distribution,
    /// What follows from them.
    pub ratios: StepRatios,
}

/// Ratios of medians of [`StepTimes`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRatios {
    /// Patched with nothing broadcast over original: what the switches cost.
    pub computing_over_original: f64,
    /// A step that also keeps every cache over original.
    pub keeping_over_original: f64,
    /// Patched with everything broadcast over the static graph without the modules.
    pub broadcasting_over_removed: f64,
    /// Original over patched with everything broadcast: how much faster the fastest step is.
    pub original_over_broadcasting: f64,
}

impl StepTimes {
    /// What was timed, in words, with its times.
    pub fn rows(&self) -> [(&'static str, &Distribution); 5] {
        [
            ("original", &self.original),
            ("patched, nothing broadcast", &self.computing),
            ("patched, everything computed and kept", &self.keeping),
            ("patched, everything broadcast", &self.broadcasting),
            ("static graph without the modules", &self.removed),
        ]
    }
}
