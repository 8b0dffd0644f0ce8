//! Noise levels as sigmas, `noise / signal`: the trained ones, and how a run spreads its own over them.

use super::beta_distribution;
use super::fields::Fields;
use super::{GivenLevels, SamplerError};

/// The shape of Karras' spacing.
const RHO: f64 = 7.0;

/// Both parameters of the Beta distribution whose quantiles space sigmas ("Beta Sampling is All You Need", 2407.12173).
const BETA_SHAPE: f64 = 0.6;

/// `count` evenly spaced numbers, rounded as NumPy's `linspace` rounds them.
pub(super) fn linspace(start: f64, stop: f64, count: usize) -> Vec<f64> {
    let last = count.saturating_sub(1);
    let step = (stop - start) / last.max(1) as f64;
    let at = |index: usize| {
        if index == last && count > 1 {
            stop
        } else {
            index as f64 * step + start
        }
    };
    (0..count).map(at).collect()
}

/// The sigmas of all training timesteps, rising.
#[derive(Clone, Debug)]
pub(super) struct SigmaTable {
    sigmas: Vec<f32>,
    logarithms: Vec<f32>,
}

impl SigmaTable {
    /// From the cumulated alphas.
    pub(super) fn new(cumulated_alphas: &[f32]) -> SigmaTable {
        let sigmas: Vec<f32> = cumulated_alphas
            .iter()
            .map(|alpha| ((1.0 - alpha) / alpha).sqrt())
            .collect();
        let logarithms = sigmas.iter().map(|&sigma| libm::log(f64::from(sigma)) as f32).collect();
        SigmaTable { sigmas, logarithms }
    }

    /// The smallest sigma, of timestep 0.
    pub(super) fn least(&self) -> f64 {
        self.sigmas.first().copied().map_or(0.0, f64::from)
    }

    /// The largest sigma, of the last timestep.
    pub(super) fn most(&self) -> f64 {
        self.sigmas.last().copied().map_or(0.0, f64::from)
    }

    /// The natural logarithms of the smallest and the largest sigma.
    pub(super) fn logarithm_ends(&self) -> (f64, f64) {
        let of = |value: Option<&f32>| value.copied().map_or(0.0, f64::from);
        (of(self.logarithms.first()), of(self.logarithms.last()))
    }

    /// The sigma of a timestep, linear between two; outside, that of the nearest.
    pub(super) fn at(&self, timestep: f64) -> f64 {
        let low = timestep.floor().max(0.0) as usize;
        let Some(below) = self.sigmas.get(low).copied().map(f64::from) else {
            return self.most();
        };
        match self.sigmas.get(low + 1).copied().map(f64::from) {
            Some(above) if timestep > low as f64 => (above - below) * (timestep - low as f64) + below,
            _ => below,
        }
    }

    /// The timestep of a sigma, linear between two in the logarithm of sigma.
    pub(super) fn timestep_of(&self, sigma: f64) -> f64 {
        let logarithm = libm::log(sigma.max(1e-10));
        let not_above = self.logarithms.partition_point(|&known| f64::from(known) <= logarithm);
        let low = not_above.saturating_sub(1).min(self.logarithms.len().saturating_sub(2));
        let known = |index: usize| self.logarithms.get(index).copied().unwrap_or(0.0);
        let (below, above) = (known(low), known(low + 1));
        let weight = (f64::from(below) - logarithm) / f64::from(below - above);
        let weight = weight.clamp(0.0, 1.0);
        (1.0 - weight) * low as f64 + weight * (low + 1) as f64
    }
}

/// How sigmas are spread between the largest and the smallest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Karras,
    Exponential,
    Beta,
}

/// `use_karras_sigmas`, `use_exponential_sigmas` or `use_beta_sigmas`, and the ends between which sigmas are spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SigmaSpacing {
    shape: Option<Shape>,
    least: Option<f64>,
    most: Option<f64>,
}

impl SigmaSpacing {
    /// Reads the keys; one of them at most may be true.
    pub(super) fn read(fields: &Fields<'_>) -> Result<SigmaSpacing, SamplerError> {
        const KEYS: [(&str, Shape); 3] = [
            ("use_karras_sigmas", Shape::Karras),
            ("use_exponential_sigmas", Shape::Exponential),
            ("use_beta_sigmas", Shape::Beta),
        ];
        let mut shape = None;
        for (key, known) in KEYS {
            if fields.flag(key)? && shape.replace(known).is_some() {
                return Err(fields.refuse(key, "true for one kind of sigmas at most"));
            }
        }
        let end = |key: &str| fields.optional_number(key, 0.0, f64::from(f32::MAX));
        Ok(SigmaSpacing {
            shape,
            least: end("sigma_min")?,
            most: end("sigma_max")?,
        })
    }

    /// Refuses levels that are given where the configuration spreads sigmas by a formula.
    pub(super) fn check_unspread(&self, levels: &GivenLevels) -> Result<(), SamplerError> {
        match self.shape {
            None => Ok(()),
            Some(_) => Err(levels.refuse(
                "the scheduler's configuration spreads sigmas by a formula (`use_karras_sigmas` or another); give a copy \
                 without it with --scheduler"
                    .to_owned(),
            )),
        }
    }

    /// Whether these are Karras' sigmas.
    pub(super) fn is_karras(&self) -> bool {
        self.shape == Some(Shape::Karras)
    }

    /// `steps` sigmas, falling, between the ends that the configuration has or else between these; `None` where the
    /// configuration leaves them at the timesteps.
    pub(super) fn spread(&self, most: f64, least: f64, steps: usize) -> Option<Vec<f64>> {
        let (most, least) = (self.most.unwrap_or(most), self.least.unwrap_or(least));
        let ramp = linspace(0.0, 1.0, steps).into_iter();
        let spread = match self.shape? {
            Shape::Karras => {
                // Karras et al., 2206.00364, equation 5.
                let (from, to) = (libm::pow(most, 1.0 / RHO), libm::pow(least, 1.0 / RHO));
                ramp.map(|share| libm::pow(from + share * (to - from), RHO)).collect()
            }
            Shape::Exponential => linspace(libm::log(most), libm::log(least), steps)
                .into_iter()
                .map(libm::exp)
                .collect(),
            Shape::Beta => ramp
                .map(|share| least + beta_distribution::quantile(1.0 - share, BETA_SHAPE) * (most - least))
                .collect(),
        };
        Some(spread)
    }
}

/// The noise level after the last step (`final_sigmas_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FinalSigma {
    /// No noise.
    Zero,
    /// The smallest trained sigma.
    Least,
}

impl FinalSigma {
    /// diffusers' names.
    pub(super) const NAMES: &'static [(&'static str, FinalSigma)] =
        &[("zero", FinalSigma::Zero), ("sigma_min", FinalSigma::Least)];
}

/// Sigmas in the precision of the steps.
pub(super) fn rounded(sigmas: &[f64]) -> Vec<f32> {
    sigmas.iter().map(|&sigma| sigma as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timesteps_and_sigmas_are_inverse_on_the_table() {
        let alphas: Vec<f32> = (0..50).map(|index| 0.99 - 0.019 * index as f32).collect();
        let table = SigmaTable::new(&alphas);
        for timestep in [0.0, 1.0, 17.0, 49.0] {
            assert!((table.timestep_of(table.at(timestep)) - timestep).abs() < 1e-4);
        }
        assert!(table.at(16.5) > table.at(16.0) && table.at(16.5) < table.at(17.0));
        assert_eq!(table.at(-3.0), table.least());
        assert_eq!(table.at(99.0), table.most());
        assert_eq!((table.timestep_of(0.0), table.timestep_of(1e9)), (0.0, 49.0));
    }

    #[test]
    fn every_shape_runs_from_end_to_end() {
        for shape in [Shape::Karras, Shape::Exponential, Shape::Beta] {
            let spacing = SigmaSpacing {
                shape: Some(shape),
                least: None,
                most: Some(10.0),
            };
            let sigmas = spacing.spread(99.0, 0.1, 7).unwrap();
            assert!(
                (sigmas[0] - 10.0).abs() < 1e-9 && (sigmas[6] - 0.1).abs() < 1e-9,
                "{sigmas:?}"
            );
            assert!(sigmas.windows(2).all(|pair| pair[0] > pair[1]), "{sigmas:?}");
        }
    }
}
