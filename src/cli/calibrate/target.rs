//! What rules are chosen by.

use super::options::TargetOptions;
use crate::calibrate::Point;
use crate::cli::Failure;

/// What rules are chosen by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// What they keep.
    pub aim: Aim,
    /// Whether every clip keeps it, and not the mean of the worst run alone.
    pub each_clip: bool,
}

/// What rules keep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Aim {
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
        let aim = match (options.min_psnr, options.min_ssim, options.max_time) {
            (Some(decibels), ..) if decibels.is_finite() => Aim::Error(10_f64.powf(-decibels / 10.0)),
            (Some(decibels), ..) => {
                return Err(Failure::Usage(format!(
                    "--min-psnr is a number of dB, and not {decibels}"
                )));
            }
            (_, Some(ssim), _) => Aim::Dissimilarity(1.0 - share("--min-ssim", ssim)?),
            (.., Some(time)) => Aim::Time(share("--max-time", time)?),
            _ if options.frontier => Aim::Frontier,
            _ => Aim::Dissimilarity(0.05),
        };
        Ok(Target {
            aim,
            each_clip: options.each_clip,
        })
    }

    fn error(self, point: &Point) -> Option<f64> {
        if self.each_clip { point.worst_mse } else { point.mse }
    }

    fn dissimilarity(self, point: &Point) -> Option<f64> {
        match self.each_clip {
            true => point.worst_dissimilarity,
            false => point.dissimilarity,
        }
    }

    /// Whether a point that was run keeps it. Without SSIM, since clips are latents, no point keeps one.
    pub fn kept_by(self, point: &Point) -> bool {
        match self.aim {
            Aim::Error(most) => self.error(point).is_some_and(|mse| mse <= most),
            Aim::Dissimilarity(most) => self.dissimilarity(point).is_some_and(|found| found <= most),
            Aim::Time(most) => point.time.is_some_and(|time| time <= most),
            Aim::Frontier => false,
        }
    }

    /// The best of the points that keep it.
    pub fn choose(self, points: &[Point]) -> Option<usize> {
        let kept = points.iter().enumerate().filter(|(_, point)| self.kept_by(point));
        let by = |point: &Point| match self.aim {
            Aim::Time(_) => {
                let measured = self.dissimilarity(point).or(self.error(point));
                measured.unwrap_or_else(|| point.error())
            }
            _ => point.time.unwrap_or(point.predicted_time),
        };
        let best = kept.min_by(|(_, one), (_, other)| by(one).total_cmp(&by(other)));
        best.map(|(place, _)| place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(time: f64, dissimilarity: f64, worst: f64) -> Point {
        Point {
            form: "span".to_owned(),
            ranges: Vec::new(),
            rules: String::new(),
            predicted_time: time,
            predicted_mse: 0.0,
            predicted_dissimilarity: None,
            mse: Some(dissimilarity),
            dissimilarity: Some(dissimilarity),
            worst_mse: Some(worst),
            worst_dissimilarity: Some(worst),
            time: Some(time),
            runs: Vec::new(),
        }
    }

    #[test]
    fn the_best_point_that_keeps_the_target_is_chosen() {
        let points = [
            point(0.9, 0.01, 0.02),
            point(0.65, 0.03, 0.3),
            point(0.6, 0.04, 0.05),
            point(0.4, 0.2, 0.4),
        ];
        let chosen = |aim, each_clip| Target { aim, each_clip }.choose(&points);
        assert_eq!(chosen(Aim::Dissimilarity(0.05), false), Some(2));
        assert_eq!(chosen(Aim::Dissimilarity(0.03), false), Some(1));
        assert_eq!(chosen(Aim::Dissimilarity(0.03), true), Some(0));
        assert_eq!(chosen(Aim::Time(0.7), false), Some(1));
        assert_eq!(chosen(Aim::Time(0.7), true), Some(2));
        assert_eq!(chosen(Aim::Error(0.02), false), Some(0));
        assert_eq!(chosen(Aim::Error(0.001), false), None);
        assert_eq!(chosen(Aim::Frontier, false), None);
    }
}
