//! The quality of many clips in a few numbers.

use serde::{Deserialize, Serialize};

use super::ClipQuality;

/// Mean, least and median of one measure over clips; `None` (JSON `null`) stands for infinite.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The arithmetic mean; for PSNR the mean of the clips' dB.
    pub mean: Option<f64>,
    /// The least: the worst clip.
    pub min: Option<f64>,
    /// The median.
    pub median: Option<f64>,
}

/// Mean, greatest and median of a measure that is 0 for equal clips.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DistanceSpread {
    /// The arithmetic mean.
    pub mean: f64,
    /// The greatest: the worst clip.
    pub max: f64,
    /// The median.
    pub median: f64,
}

/// The quality of many clips.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QualitySummary {
    /// How many clips were compared.
    pub clips: usize,
    /// How many of them are equal to their reference in every pixel; their PSNR is infinite, which makes the mean of
    /// PSNR infinite too.
    pub equal: usize,
    /// PSNR in dB.
    pub psnr: Spread,
    /// SSIM.
    pub ssim: Spread,
    /// MS-SSIM; `None` where a clip has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ms_ssim: Option<Spread>,
    /// LPIPS; `None` where a clip has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lpips: Option<DistanceSpread>,
    /// [`Flicker::excess`](super::Flicker::excess); `None` where a clip has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flicker_excess: Option<DistanceSpread>,
}

impl QualitySummary {
    /// Sums up clips; `None` where there are none.
    pub fn of(clips: &[ClipQuality]) -> Option<QualitySummary> {
        let psnr: Vec<f64> = clips.iter().map(|clip| clip.psnr.unwrap_or(f64::INFINITY)).collect();
        let ssim: Vec<f64> = clips.iter().map(|clip| clip.ssim).collect();
        let all = |measure: fn(&ClipQuality) -> Option<f64>| clips.iter().map(measure).collect::<Option<Vec<f64>>>();
        Some(QualitySummary {
            clips: clips.len(),
            equal: clips.iter().filter(|clip| clip.psnr.is_none()).count(),
            psnr: spread(psnr)?,
            ssim: spread(ssim)?,
            ms_ssim: all(|clip| clip.ms_ssim).and_then(spread),
            lpips: all(|clip| clip.lpips).and_then(distances),
            flicker_excess: all(|clip| clip.flicker?.excess).and_then(distances),
        })
    }
}

/// The spread of some values; `None` where there are none.
fn spread(mut values: Vec<f64>) -> Option<Spread> {
    values.sort_unstable_by(f64::total_cmp);
    let finite = |value: f64| value.is_finite().then_some(value);
    Some(Spread {
        mean: finite(values.iter().sum::<f64>() / values.len() as f64),
        min: finite(*values.first()?),
        median: finite(median(&values)?),
    })
}

/// The spread of some distances; `None` where there are none.
fn distances(mut values: Vec<f64>) -> Option<DistanceSpread> {
    values.sort_unstable_by(f64::total_cmp);
    Some(DistanceSpread {
        mean: values.iter().sum::<f64>() / values.len() as f64,
        max: *values.last()?,
        median: median(&values)?,
    })
}

/// The median of values in order.
fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some((*sorted.get(middle.checked_sub(1)?)? + upper) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip(psnr: Option<f64>, ssim: f64) -> ClipQuality {
        ClipQuality {
            psnr,
            ssim,
            ..ClipQuality::default()
        }
    }

    #[test]
    fn no_clips_have_no_summary() {
        assert_eq!(QualitySummary::of(&[]), None);
    }

    #[test]
    fn spreads_of_finite_clips() {
        let summary =
            QualitySummary::of(&[clip(Some(30.0), 0.9), clip(Some(20.0), 0.7), clip(Some(25.0), 0.95)]).unwrap();
        assert_eq!(
            summary.psnr,
            Spread {
                mean: Some(25.0),
                min: Some(20.0),
                median: Some(25.0)
            }
        );
        assert_eq!((summary.ssim.min, summary.ssim.median), (Some(0.7), Some(0.9)));
        assert_eq!((summary.clips, summary.equal), (3, 0));
    }

    #[test]
    fn measures_that_a_clip_lacks_have_no_spread() {
        let measured = |lpips| ClipQuality {
            lpips: Some(lpips),
            ms_ssim: Some(0.9),
            ..clip(Some(30.0), 0.9)
        };
        let summary = QualitySummary::of(&[measured(0.1), measured(0.4), measured(0.1)]).unwrap();
        let lpips = summary.lpips.unwrap();
        assert!((lpips.mean - 0.2).abs() < 1e-12 && lpips.max == 0.4 && lpips.median == 0.1);
        assert_eq!(summary.ms_ssim.unwrap().min, Some(0.9));
        assert_eq!(summary.flicker_excess, None);
        let summary = QualitySummary::of(&[measured(0.1), clip(Some(30.0), 0.9)]).unwrap();
        assert_eq!((summary.lpips, summary.ms_ssim), (None, None));
    }

    #[test]
    fn an_equal_clip_makes_the_mean_infinite_and_is_counted() {
        let summary = QualitySummary::of(&[clip(None, 1.0), clip(Some(20.0), 0.5)]).unwrap();
        assert_eq!(
            summary.psnr,
            Spread {
                mean: None,
                min: Some(20.0),
                median: None
            }
        );
        assert_eq!(summary.equal, 1);
        let all = QualitySummary::of(&[clip(None, 1.0)]).unwrap();
        assert_eq!(
            all.psnr,
            Spread {
                mean: None,
                min: None,
                median: None
            }
        );
    }
}
