//! From a beta schedule to the cumulated products of alphas, in the precision in which PyTorch computes them.
//!
//! diffusers computes betas in `float32` and PyTorch's `cumprod` accumulates in `float64` on the CPU and rounds each
//! element to `float32`. Doing the same keeps long runs within rounding of the original.

/// How the betas grow over the training timesteps (`beta_schedule`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BetaSchedule {
    /// Evenly spaced.
    Linear,
    /// Square roots evenly spaced (latent diffusion).
    ScaledLinear,
    /// The cosine schedule of Glide, each beta at most 0.999.
    SquaredCosine,
    /// Evenly spaced through the logistic function (GeoDiff).
    Sigmoid,
    /// The noise schedule of a Laplace distribution.
    Laplace,
    /// A cumulated alpha that falls exponentially.
    Exponential,
}

impl BetaSchedule {
    /// diffusers' names.
    pub(super) const NAMES: &'static [(&'static str, BetaSchedule)] = &[
        ("linear", BetaSchedule::Linear),
        ("scaled_linear", BetaSchedule::ScaledLinear),
        ("squaredcos_cap_v2", BetaSchedule::SquaredCosine),
    ];

    /// diffusers' names for `DDPMScheduler`.
    pub(super) const NAMES_OF_DDPM: &'static [(&'static str, BetaSchedule)] = &[
        ("linear", BetaSchedule::Linear),
        ("scaled_linear", BetaSchedule::ScaledLinear),
        ("squaredcos_cap_v2", BetaSchedule::SquaredCosine),
        ("sigmoid", BetaSchedule::Sigmoid),
        ("laplace", BetaSchedule::Laplace),
    ];

    /// diffusers' names for `HeunDiscreteScheduler`.
    pub(super) const NAMES_OF_HEUN: &'static [(&'static str, BetaSchedule)] = &[
        ("linear", BetaSchedule::Linear),
        ("scaled_linear", BetaSchedule::ScaledLinear),
        ("squaredcos_cap_v2", BetaSchedule::SquaredCosine),
        ("exp", BetaSchedule::Exponential),
    ];

    /// The betas of this schedule, one a training timestep.
    pub(super) fn betas(self, start: f64, end: f64, count: usize) -> Vec<f32> {
        match self {
            BetaSchedule::Linear => linspace(start, end, count),
            BetaSchedule::ScaledLinear => linspace(start.sqrt(), end.sqrt(), count)
                .into_iter()
                .map(|root| root * root)
                .collect(),
            BetaSchedule::SquaredCosine => betas_of(cosine_alpha_bar, count),
            BetaSchedule::Laplace => betas_of(laplace_alpha_bar, count),
            BetaSchedule::Exponential => betas_of(|time| libm::exp(-12.0 * time), count),
            BetaSchedule::Sigmoid => linspace(-6.0, 6.0, count)
                .into_iter()
                .map(|at| {
                    let share = (1.0 / (1.0 + libm::exp(-f64::from(at)))) as f32;
                    share * (end - start) as f32 + start as f32
                })
                .collect(),
        }
    }
}

/// The betas, at most 0.999, of a cumulated alpha over the time from 0 to 1.
fn betas_of(alpha_bar: impl Fn(f64) -> f64, count: usize) -> Vec<f32> {
    let beta = |index: usize| {
        let before = alpha_bar(index as f64 / count as f64);
        let after = alpha_bar((index + 1) as f64 / count as f64);
        (1.0 - after / before).min(0.999) as f32
    };
    (0..count).map(beta).collect()
}

/// The Laplace schedule's cumulated alpha, as diffusers has it, at `time` in [0, 1].
fn laplace_alpha_bar(time: f64) -> f64 {
    let distance = 0.5 - time;
    let logarithm = -0.5 * 1.0_f64.copysign(distance) * libm::log(1.0 - 2.0 * distance.abs() + 1e-6);
    let ratio = libm::exp(logarithm);
    (ratio / (1.0 + ratio)).sqrt()
}

/// The cosine schedule's cumulated alpha at `time` in [0, 1].
fn cosine_alpha_bar(time: f64) -> f64 {
    let root = libm::cos((time + 0.008) / 1.008 * std::f64::consts::PI / 2.0);
    root * root
}

/// `count` evenly spaced numbers in `f32`, from both ends to the middle as PyTorch's `linspace` makes them.
fn linspace(start: f64, end: f64, count: usize) -> Vec<f32> {
    let (start, end) = (start as f32, end as f32);
    if count < 2 {
        return vec![start; count];
    }
    let step = (end - start) / (count - 1) as f32;
    (0..count)
        .map(|index| {
            if index < count / 2 {
                start + step * index as f32
            } else {
                end - step * (count - 1 - index) as f32
            }
        })
        .collect()
}

/// The cumulated products of `1 - beta`.
pub(super) fn cumulated_alphas(betas: &[f32]) -> Vec<f32> {
    let mut product = 1.0_f64;
    betas
        .iter()
        .map(|beta| {
            product *= f64::from(1.0 - beta);
            product as f32
        })
        .collect()
}

/// Rescales betas so that the last timestep has no signal left: Lin et al., "Common Diffusion Noise Schedules and
/// Sample Steps are Flawed" (2305.08891), Algorithm 1.
pub(super) fn rescale_to_zero_terminal_snr(betas: &[f32]) -> Vec<f32> {
    let roots: Vec<f32> = cumulated_alphas(betas).into_iter().map(f32::sqrt).collect();
    let (Some(first), Some(last)) = (roots.first().copied(), roots.last().copied()) else {
        return Vec::new();
    };
    let scale = first / (first - last);
    let mut before = 1.0_f32;
    roots
        .into_iter()
        .enumerate()
        .map(|(index, root)| {
            let root = (root - last) * scale;
            let squared = root * root;
            let alpha = if index == 0 { squared } else { squared / before };
            before = squared;
            1.0 - alpha
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linspace_meets_both_ends() {
        let numbers = linspace(0.5, 2.0, 4);
        assert_eq!(numbers, [0.5, 1.0, 1.5, 2.0]);
        assert_eq!(linspace(0.5, 2.0, 1), [0.5]);
    }

    #[test]
    fn cumulated_alphas_of_halves() {
        assert_eq!(cumulated_alphas(&[0.5, 0.5, 0.75]), [0.5, 0.25, 0.0625]);
    }

    #[test]
    fn the_last_timestep_has_no_signal_after_rescaling() {
        let betas = BetaSchedule::ScaledLinear.betas(0.00085, 0.012, 1000);
        let rescaled = cumulated_alphas(&rescale_to_zero_terminal_snr(&betas));
        assert_eq!(rescaled.last(), Some(&0.0));
        let first = cumulated_alphas(&betas)[0];
        assert!((rescaled[0] - first).abs() < 1e-6);
    }

    #[test]
    fn the_cosine_schedule_is_capped() {
        let betas = BetaSchedule::SquaredCosine.betas(0.0, 0.0, 50);
        assert_eq!(betas.last(), Some(&0.999));
        assert!(betas.windows(2).all(|pair| pair[0] < pair[1] || pair[1] == 0.999));
    }
}
