//! The shift of a flow's noise levels towards noise, for larger pictures and videos: Esser et al. (2403.03206), section
//! 5.3.2.

use super::fields::Fields;
use super::{RunSettings, SamplerError};

/// How the dynamic shift goes by the number of tokens: linear from `base` at `base_tokens` to `most` at `most_tokens`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Dynamic {
    class: &'static str,
    base: f64,
    most: f64,
    base_tokens: f64,
    most_tokens: f64,
    kind: ShiftKind,
}

/// Whether the dynamic shift is a factor or its logarithm (`time_shift_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ShiftKind {
    Exponential,
    Linear,
}

/// How the result of each operation is rounded, which depends on the precision that diffusers holds levels in.
pub(super) type Rounding = fn(f64) -> f64;

/// A shift of noise levels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shift {
    /// The factor of the shift, where it does not depend on the clip.
    pub(super) factor: f64,
    /// `use_dynamic_shifting`.
    dynamic: Option<Dynamic>,
    /// The level at which the last step begins (`shift_terminal`).
    terminal: Option<f64>,
}

impl Dynamic {
    /// The shift for this many tokens, as diffusers' pipelines reckon it (`mu`).
    fn mu(&self, run: &RunSettings) -> Result<f64, SamplerError> {
        let tokens = run.tokens.ok_or(SamplerError::Unknown {
            class: self.class,
            key: "use_dynamic_shifting",
            what: "the number of latent tokens that the transformer sees",
            advice: "give it with --tokens N (frames × height × width of the latent, divided by the patch size)",
        })?;
        let slope = (self.most - self.base) / (self.most_tokens - self.base_tokens);
        Ok(tokens as f64 * slope + (self.base - slope * self.base_tokens))
    }

    /// The factor that comes of it.
    fn factor(&self, run: &RunSettings) -> Result<f64, SamplerError> {
        let mu = self.mu(run)?;
        Ok(match self.kind {
            ShiftKind::Exponential => libm::exp(mu),
            ShiftKind::Linear => mu,
        })
    }
}

impl Shift {
    /// Reads the shift: `factor` is its key.
    pub(super) fn read(fields: &Fields<'_>, factor: &str, class: &'static str) -> Result<Shift, SamplerError> {
        const KINDS: &[(&str, ShiftKind)] = &[("exponential", ShiftKind::Exponential), ("linear", ShiftKind::Linear)];
        let most = f64::from(f32::MAX);
        let or = |key: &str, default: f64, low: f64| {
            let number = fields.optional_number(key, low, most)?;
            Ok::<f64, SamplerError>(number.unwrap_or(default))
        };
        let dynamic = Dynamic {
            class,
            base: or("base_shift", 0.5, -most)?,
            most: or("max_shift", 1.15, -most)?,
            base_tokens: or("base_image_seq_len", 256.0, 0.0)?,
            most_tokens: or("max_image_seq_len", 4096.0, 0.0)?,
            kind: fields.choice("time_shift_type", ShiftKind::Exponential, KINDS)?,
        };
        let is_dynamic = fields.flag("use_dynamic_shifting")?;
        if is_dynamic && dynamic.base_tokens == dynamic.most_tokens {
            return Err(fields.refuse("max_image_seq_len", "another number than `base_image_seq_len`"));
        }
        let terminal = fields.optional_number("shift_terminal", 0.0, 0.999_999)?;
        Ok(Shift {
            factor: fields.number(factor, 1.0, 1e-6, most)?,
            dynamic: is_dynamic.then_some(dynamic),
            terminal: terminal.filter(|terminal| *terminal > 0.0),
        })
    }

    /// Whether the shift depends on the clip.
    pub(super) fn is_dynamic(&self) -> bool {
        self.dynamic.is_some()
    }

    /// Levels in `0..=1` shifted by a factor, be it fixed or dynamic, in the way of a fixed one.
    pub(super) fn by_factor(&self, levels: &[f64], run: &RunSettings) -> Result<Vec<f64>, SamplerError> {
        let factor = match &self.dynamic {
            Some(dynamic) => dynamic.factor(run)?,
            None => self.factor,
        };
        let shifted = |level: &f64| factor * level / (1.0 + (factor - 1.0) * level);
        Ok(levels.iter().map(shifted).collect())
    }

    /// Levels in `0..=1` shifted, and stretched so that the last is `shift_terminal`; each operation is rounded by
    /// `round`.
    pub(super) fn apply(&self, levels: &[f64], run: &RunSettings, round: Rounding) -> Result<Vec<f64>, SamplerError> {
        let mut shifted: Vec<f64> = match &self.dynamic {
            None => {
                let factor = self.factor;
                let by = |&level: &f64| round(round(factor * level) / round(1.0 + round((factor - 1.0) * level)));
                levels.iter().map(by).collect()
            }
            Some(dynamic) => {
                let factor = dynamic.factor(run)?;
                let by = |&level: &f64| round(factor / round(factor + round(round(1.0 / level) - 1.0)));
                levels.iter().map(by).collect()
            }
        };
        if let (Some(terminal), Some(&last)) = (self.terminal, shifted.last()) {
            let scale = round(round(1.0 - last) / round(1.0 - terminal));
            for level in &mut shifted {
                *level = round(1.0 - round(round(1.0 - *level) / scale));
            }
        }
        Ok(shifted)
    }
}
