//! What the model predicts, and what that says of the clean sample.

use ndarray::{ArrayD, ArrayViewD, Zip};

use super::Limit;

/// What the model predicts (`prediction_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PredictionType {
    /// The noise.
    Epsilon,
    /// The clean sample.
    Sample,
    /// The velocity, `sqrt(alpha)·noise - sqrt(1 - alpha)·clean` (Salimans and Ho, 2202.00512, section 4).
    Velocity,
    /// The flow, `noise - clean` (Lipman et al., 2210.02747; Liu et al., 2209.03003), of samples
    /// `(1 - sigma)·clean + sigma·noise`.
    Flow,
}

impl PredictionType {
    /// diffusers' names, for schedulers that preserve the variance.
    pub(super) const NAMES: &'static [(&'static str, PredictionType)] = &[
        ("epsilon", PredictionType::Epsilon),
        ("sample", PredictionType::Sample),
        ("v_prediction", PredictionType::Velocity),
    ];

    /// diffusers' names, for solvers of flows too.
    pub(super) const NAMES_WITH_FLOW: &'static [(&'static str, PredictionType)] = &[
        ("epsilon", PredictionType::Epsilon),
        ("sample", PredictionType::Sample),
        ("v_prediction", PredictionType::Velocity),
        ("flow_prediction", PredictionType::Flow),
    ];

    /// diffusers' name.
    pub(super) fn name(self) -> &'static str {
        Self::NAMES_WITH_FLOW
            .iter()
            .find(|(_, prediction)| *prediction == self)
            .map_or("", |(name, _)| name)
    }

    /// The predicted clean sample and noise of a sample `signal·clean + noise·noise`, from the model's output and the
    /// sample.
    pub(super) fn split(self, output: f32, sample: f32, signal: f32, noise: f32) -> (f32, f32) {
        match self {
            PredictionType::Epsilon => ((sample - noise * output) / signal, output),
            PredictionType::Sample => (output, (sample - signal * output) / noise),
            PredictionType::Velocity => (signal * sample - noise * output, signal * output + noise * sample),
            PredictionType::Flow => (sample - noise * output, sample + signal * output),
        }
    }

    /// The predicted clean samples, kept in range.
    pub(super) fn clean(
        self,
        limit: Limit,
        output: &ArrayViewD<'_, f32>,
        sample: &ArrayViewD<'_, f32>,
        signal: f32,
        noise: f32,
    ) -> ArrayD<f32> {
        let mut clean = Zip::from(output)
            .and(sample)
            .map_collect(|&output, &sample| self.split(output, sample, signal, noise).0);
        limit.apply(&mut clean);
        clean
    }

    /// The weights of output and sample in the predicted clean sample.
    pub(super) fn clean_weights(self, signal: f32, noise: f32) -> (f32, f32) {
        (
            self.split(1.0, 0.0, signal, noise).0,
            self.split(0.0, 1.0, signal, noise).0,
        )
    }

    /// The predicted noise.
    pub(super) fn noise(
        self,
        output: &ArrayViewD<'_, f32>,
        sample: &ArrayViewD<'_, f32>,
        signal: f32,
        noise: f32,
    ) -> ArrayD<f32> {
        Zip::from(output)
            .and(sample)
            .map_collect(|&output, &sample| self.split(output, sample, signal, noise).1)
    }

    /// The weights of output and sample in the predicted clean sample where samples are `clean + sigma·noise` and the
    /// model is given `sample / sqrt(sigma² + 1)` (Karras et al., 2206.00364).
    pub(super) fn exploding_weights(self, sigma: f32) -> (f32, f32) {
        let variance = sigma * sigma + 1.0;
        match self {
            PredictionType::Epsilon | PredictionType::Flow => (-sigma, 1.0),
            PredictionType::Sample => (1.0, 0.0),
            PredictionType::Velocity => (-sigma / variance.sqrt(), 1.0 / variance),
        }
    }
}
