//! Broadcasts that the model itself decides by how far a cheap value has drifted.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The most coefficients of a polynomial.
const MOST: usize = 8;

/// Broadcast where the timing allows it and the drift since the last computed step stays below a threshold.
///
/// The drift is a sum over steps of the relative change `mean |x - y| / mean |y|` of an indicator from one step (`y`) to the
/// next (`x`), the idea of TeaCache (arXiv 2411.19108). The indicator is what the first module of the rule projects first.
///
/// As JSON and YAML: `{"threshold": 0.1}` or `{"threshold": 0.1, "rescale": [2.0, 0.0]}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "AdaptiveForm", into = "AdaptiveForm")]
pub struct Adaptive {
    threshold: f64,
    rescale: Vec<f64>,
}

impl Adaptive {
    /// A checked decision. `rescale` are the coefficients of a polynomial, the highest power first, that each step's change
    /// is put through before it is added; none leave it as it is.
    ///
    /// # Errors
    /// [`AdaptiveError`] for a threshold that no drift can be compared with, and for no polynomial.
    pub fn new(threshold: f64, rescale: Vec<f64>) -> Result<Adaptive, AdaptiveError> {
        let single = |number: f64| (number as f32).is_finite();
        if !(threshold >= 0.0 && single(threshold)) {
            return Err(AdaptiveError::Threshold(threshold));
        }
        if rescale.len() > MOST {
            return Err(AdaptiveError::Length(rescale.len()));
        }
        if let Some(coefficient) = rescale.iter().find(|coefficient| !single(**coefficient)) {
            return Err(AdaptiveError::Coefficient(*coefficient));
        }
        Ok(Adaptive { threshold, rescale })
    }

    /// From this drift on the sites compute. 0 broadcasts nothing.
    pub fn threshold(&self) -> f64 {
        self.threshold
    }

    /// Coefficients of the polynomial, the highest power first; none where the change is added as it is.
    pub fn rescale(&self) -> &[f64] {
        &self.rescale
    }
}

impl fmt::Display for Adaptive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "drift below {}", self.threshold)?;
        match self.rescale.is_empty() {
            true => Ok(()),
            false => f.write_str(" (rescaled)"),
        }
    }
}

/// A decision that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum AdaptiveError {
    /// The threshold is below 0, or no number of single precision.
    #[error("{0} is no threshold: a drift is compared with a finite number from 0 on")]
    Threshold(f64),
    /// A coefficient is no number of single precision.
    #[error("{0} is no coefficient: it has to be finite in single precision")]
    Coefficient(f64),
    /// There are too many coefficients.
    #[error("{0} coefficients are too many: a polynomial has {MOST} at most")]
    Length(usize),
}

/// The written form of an [`Adaptive`].
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AdaptiveForm {
    threshold: f64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rescale: Vec<f64>,
}

impl From<Adaptive> for AdaptiveForm {
    fn from(adaptive: Adaptive) -> Self {
        AdaptiveForm {
            threshold: adaptive.threshold,
            rescale: adaptive.rescale,
        }
    }
}

impl TryFrom<AdaptiveForm> for Adaptive {
    type Error = AdaptiveError;

    fn try_from(form: AdaptiveForm) -> Result<Self, AdaptiveError> {
        Adaptive::new(form.threshold, form.rescale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_the_form_of_the_rules_and_is_checked() {
        let adaptive = Adaptive::new(0.1, vec![2.0, 0.5]).unwrap();
        let text = r#"{"threshold":0.1,"rescale":[2.0,0.5]}"#;
        assert_eq!(serde_json::to_string(&adaptive).unwrap(), text);
        assert_eq!(serde_json::from_str::<Adaptive>(text).unwrap(), adaptive);
        for text in [
            r#"{"threshold":-0.1}"#,
            r#"{"threshold":1e39}"#,
            r#"{"threshold":0.1,"rescale":[1e39]}"#,
            r#"{"threshold":0.1,"rescale":[1,2,3,4,5,6,7,8,9]}"#,
            r#"{"rescale":[1]}"#,
            r#"{"threshold":0.1,"limit":2}"#,
        ] {
            assert!(serde_json::from_str::<Adaptive>(text).is_err(), "{text}");
        }
        assert_eq!(adaptive.to_string(), "drift below 0.1 (rescaled)");
    }
}
