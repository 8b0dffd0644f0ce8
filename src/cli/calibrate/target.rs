//! What rules are chosen by.

use super::options::TargetOptions;
use crate::calibrate::Point;
use crate::cli::Failure;

/// What rules are chosen by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// The fastest with at most this mean squared error.
    Error(f64),
    /// The fastest with at most this much less than an SSIM of 1.
    Dissimilarity(f64),
    /// The best that takes at most this share of the original's time.
    Time(f64),
    /// None is chosen.
    Frontier,
}

impl Target {
    /// What the options ask for; an SSIM of 0.95 where they do not say.
    pub fn of(options: &TargetOptions) -> Result<Target, Failure> {
        let share = |name: &str, value: f64| match value > 0.0 && value < 1.0 {
            true => Ok(value),
            false => Err(Failure::Usage(format!(
                "{name} is above 0 and below 1, and not {value}"
            ))),
        };
        Ok(match (options.min_psnr, options.min_ssim, options.max_time) {
            (Some(decibels), ..) if decibels.is_finite() => Target::Error(10_f64.powf(-decibels / 10.0)),
            (Some(decibels), ..) => {
                return Err(Failure::Usage(format!(
                    "--min-psnr is a number of dB, and not {decibels}"
                )));
            }
            (_, Some(ssim), _) => Target::Dissimilarity(1.0 - share("--min-ssim", ssim)?),
            (.., Some(time)) => Target::Time(share("--max-time", time)?),
            _ if options.frontier => Target::Frontier,
            _ => Target::Dissimilarity(0.05),
        })
    }

    /// Whether a point that was run keeps it. Without SSIM, since clips are latents, no point keeps one.
    pub fn kept_by(self, point: &Point) -> bool {
        match self {
            Target::Error(most) => point.mse.is_some_and(|mse| mse <= most),
            Target::Dissimilarity(most) => point.dissimilarity.is_some_and(|found| found <= most),
            Target::Time(most) => point.time.is_some_and(|time| time <= most),
            Target::Frontier => false,
        }
    }

    /// The best of the points that keep it.
    pub fn choose(self, points: &[Point]) -> Option<usize> {
        let kept = points.iter().enumerate().filter(|(_, point)| self.kept_by(point));
        let by = |point: &Point| match self {
            Target::Time(_) => point.error(),
            _ => point.time.unwrap_or(point.predicted_time),
        };
        let best = kept.min_by(|(_, one), (_, other)| by(one).total_cmp(&by(other)));
        best.map(|(place, _)| place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(time: f64, dissimilarity: f64) -> Point {
        Point {
            form: "span".to_owned(),
            ranges: Vec::new(),
            rules: String::new(),
            predicted_time: time,
            predicted_mse: 0.0,
            predicted_dissimilarity: None,
            mse: Some(dissimilarity),
            dissimilarity: Some(dissimilarity),
            time: Some(time),
        }
    }

    #[test]
    fn the_best_point_that_keeps_the_target_is_chosen() {
        let points = [point(0.9, 0.01), point(0.6, 0.04), point(0.4, 0.2)];
        assert_eq!(Target::Dissimilarity(0.05).choose(&points), Some(1));
        assert_eq!(Target::Time(0.7).choose(&points), Some(1));
        assert_eq!(Target::Error(0.02).choose(&points), Some(0));
        assert_eq!(Target::Error(0.001).choose(&points), None);
        assert_eq!(Target::Frontier.choose(&points), None);
    }
}
