//! How much a value changes from one step to the next.

use crate::attention::Kind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::SiteDrift;

/// The change of a value between two steps that follow each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The mean squared difference.
    pub mse: f64,
    /// The sum of absolute differences over the sum of absolute values of the step before; 0 where both are 0.
    pub relative_l1: f64,
    /// The root of the sum of squared differences over that of squared values of the step before; 0 where both are 0.
    pub relative_l2: f64,
    /// The cosine of the angle between the two; 1 where one of them is 0 everywhere.
    pub cosine: f64,
}

impl Change {
    /// The change from `before` to `now`; `None` where they have different lengths or no elements.
    pub fn between(before: &[f32], now: &[f32]) -> Option<Change> {
        if before.len() != now.len() || now.is_empty() {
            return None;
        }
        let [mut squares, mut absolute, mut product] = [0.0_f64; 3];
        let [mut norm_before, mut norm_now, mut absolute_before] = [0.0_f64; 3];
        for (before, now) in before.iter().zip(now) {
            let (before, now) = (f64::from(*before), f64::from(*now));
            let difference = now - before;
            squares += difference * difference;
            absolute += difference.abs();
            absolute_before += before.abs();
            norm_before += before * before;
            norm_now += now * now;
            product += before * now;
        }
        let over = |above: f64, below: f64| if above == 0.0 { 0.0 } else { above / below };
        let lengths = (norm_before * norm_now).sqrt();
        Some(Change {
            mse: squares / now.len() as f64,
            relative_l1: over(absolute, absolute_before),
            relative_l2: over(squares.sqrt(), norm_before.sqrt()),
            cosine: if lengths == 0.0 { 1.0 } else { product / lengths },
        })
    }
}

/// Changes of every value of a model over the steps of clips, reduced as they come: of each value only that of the step
/// before is held.
#[derive(Debug, Default)]
pub struct Drift {
    before: BTreeMap<String, Vec<f32>>,
    /// By name, step by step from the second: the sum over clips, and how many there were.
    sums: BTreeMap<String, Vec<(Change, usize)>>,
}

impl Drift {
    /// Another clip begins: its first values are compared with nothing.
    pub fn begin(&mut self) {
        self.before.clear();
    }

    /// Takes what the value `name` is at step `step`.
    pub fn see(&mut self, step: usize, name: &str, now: Vec<f32>) {
        let change = self.before.get(name).and_then(|before| Change::between(before, &now));
        if let (Some(change), Some(place)) = (change, step.checked_sub(1)) {
            let sums = self.sums.entry(name.to_owned()).or_default();
            if sums.len() <= place {
                sums.resize(place + 1, (Change::default(), 0));
            }
            if let Some((sum, count)) = sums.get_mut(place) {
                sum.mse += change.mse;
                sum.relative_l1 += change.relative_l1;
                sum.relative_l2 += change.relative_l2;
                sum.cosine += change.cosine;
                *count += 1;
            }
        }
        self.before.insert(name.to_owned(), now);
    }

    /// The mean over clips of each value's changes, step by step from the second.
    pub fn means(&self) -> BTreeMap<String, Vec<Change>> {
        let mean = |(sum, count): &(Change, usize)| {
            let count = (*count).max(1) as f64;
            Change {
                mse: sum.mse / count,
                relative_l1: sum.relative_l1 / count,
                relative_l2: sum.relative_l2 / count,
                cosine: sum.cosine / count,
            }
        };
        let sums = self.sums.iter();
        sums.map(|(name, steps)| (name.clone(), steps.iter().map(mean).collect()))
            .collect()
    }
}

/// The changes of one kind, the mean over its sites.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KindCurve {
    /// The kind.
    pub kind: Kind,
    /// Relative L2 change, step by step from the second of the run.
    pub relative_l2: Vec<f64>,
    /// Mean squared difference over its greatest over the run, step by step from the second.
    pub mse_of_greatest: Vec<f64>,
    /// The share of these steps that are stable: see [`stable_share`].
    pub stable_share: f64,
}

/// The curves of each kind that has sites, in the order of [`Kind::ALL`].
pub fn kind_curves(sites: &[SiteDrift], stable_below: f64) -> Vec<KindCurve> {
    let curve = |kind: Kind| {
        let of_kind: Vec<&SiteDrift> = sites.iter().filter(|site| site.kind == kind).collect();
        let steps = of_kind
            .iter()
            .map(|site| site.steps.len())
            .min()
            .filter(|steps| *steps > 0)?;
        let mean = |step: usize, of: fn(&Change) -> f64| {
            let values = of_kind.iter().filter_map(|site| site.steps.get(step)).map(of);
            values.sum::<f64>() / of_kind.len() as f64
        };
        let relative_l2: Vec<f64> = (0..steps).map(|step| mean(step, |change| change.relative_l2)).collect();
        let mse: Vec<f64> = (0..steps).map(|step| mean(step, |change| change.mse)).collect();
        let greatest = mse.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        Some(KindCurve {
            kind,
            stable_share: stable_share(&relative_l2, stable_below),
            relative_l2,
            mse_of_greatest: mse.iter().map(|value| value / greatest).collect(),
        })
    };
    Kind::ALL.into_iter().filter_map(curve).collect()
}

/// The share of changes that are at most `below`, 0 to 1.
pub fn stable_share(changes: &[f64], below: f64) -> f64 {
    let stable = changes.iter().filter(|change| **change <= below).count();
    stable as f64 / changes.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_what_their_names_say() {
        let change = Change::between(&[3.0, 0.0], &[3.0, 4.0]).unwrap();
        assert_eq!(change.mse, 8.0);
        assert!((change.relative_l1 - 4.0 / 3.0).abs() < 1e-12 && (change.relative_l2 - 4.0 / 3.0).abs() < 1e-12);
        assert!((change.cosine - 0.6).abs() < 1e-12);
        let nothing = Change::between(&[0.0; 2], &[0.0; 2]).unwrap();
        assert_eq!(
            (nothing.relative_l1, nothing.relative_l2, nothing.cosine),
            (0.0, 0.0, 1.0)
        );
        assert_eq!(Change::between(&[1.0], &[1.0, 2.0]), None);
    }

    #[test]
    fn clips_are_apart_and_averaged() {
        let mut drift = Drift::default();
        for end in [1.0, 3.0] {
            drift.begin();
            drift.see(0, "a", vec![1.0]);
            drift.see(1, "a", vec![1.0 + end]);
            drift.see(2, "a", vec![1.0 + end]);
        }
        let means = drift.means();
        let mse: Vec<f64> = means["a"].iter().map(|change| change.mse).collect();
        assert_eq!(mse, [5.0, 0.0]);
    }

    #[test]
    fn curves_are_means_over_sites() {
        let site = |block, kind, l2: [f64; 2]| SiteDrift {
            site: format!("s{block}"),
            kind,
            block,
            steps: l2
                .map(|relative_l2| Change {
                    relative_l2,
                    mse: 2.0 * relative_l2,
                    ..Change::default()
                })
                .to_vec(),
        };
        let sites = [
            site(0, Kind::Spatial, [0.5, 0.1]),
            site(1, Kind::Spatial, [0.3, 0.1]),
            site(0, Kind::Mlp, [0.0; 2]),
        ];
        let curves = kind_curves(&sites, 0.1);
        assert_eq!(
            curves.iter().map(|curve| curve.kind).collect::<Vec<_>>(),
            [Kind::Spatial, Kind::Mlp]
        );
        assert_eq!(curves[0].relative_l2, [0.4, 0.1]);
        assert_eq!(curves[0].mse_of_greatest, [1.0, 0.25]);
        assert_eq!((curves[0].stable_share, curves[1].stable_share), (0.5, 1.0));
    }
}
