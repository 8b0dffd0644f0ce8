//! Quantiles of the symmetric Beta distribution, for spacing sigmas by them.

/// Below this, a denominator of the continued fraction counts as 0.
const TINY: f64 = 1e-300;

/// The value below which a share `probability` of the Beta distribution with both parameters `shape` lies.
///
/// Found by halving the interval, which takes 60 evaluations and needs no derivative where the density is infinite.
pub(super) fn quantile(probability: f64, shape: f64) -> f64 {
    if probability <= 0.0 {
        return 0.0;
    }
    if probability >= 1.0 {
        return 1.0;
    }
    // Symmetric: the upper half is the lower half's mirror image, and there small values keep their precision.
    if probability > 0.5 {
        return 1.0 - quantile(1.0 - probability, shape);
    }
    let (mut low, mut high) = (0.0, 0.5);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if cumulated(middle, shape) < probability {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// The regularised incomplete Beta function of two equal parameters at `value` in `0..=0.5`.
fn cumulated(value: f64, shape: f64) -> f64 {
    let logarithm =
        libm::lgamma(2.0 * shape) - 2.0 * libm::lgamma(shape) + shape * (libm::log(value) + libm::log1p(-value));
    libm::exp(logarithm) * fraction(value, shape) / shape
}

/// Its continued fraction (Abramowitz and Stegun, 26.5.8) by Lentz' method.
fn fraction(value: f64, shape: f64) -> f64 {
    let safe = |number: f64| if number.abs() < TINY { TINY } else { number };
    let mut c = 1.0;
    let mut d = 1.0 / safe(1.0 - 2.0 * shape * value / (shape + 1.0));
    let mut result = d;
    // It converges in about 20 terms for values up to a half.
    for index in 1..200 {
        let m = f64::from(index);
        let terms = [
            m * (shape - m) * value / ((shape + 2.0 * m - 1.0) * (shape + 2.0 * m)),
            -(shape + m) * (2.0 * shape + m) * value / ((shape + 2.0 * m) * (shape + 2.0 * m + 1.0)),
        ];
        let mut change = 1.0;
        for term in terms {
            d = 1.0 / safe(1.0 + term * d);
            c = safe(1.0 + term / c);
            change = c * d;
            result *= change;
        }
        if (change - 1.0).abs() < 1e-15 {
            break;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape_one_is_uniform_and_one_half_the_arc_sine() {
        for probability in [0.01, 0.2, 0.5, 0.77, 0.999] {
            assert!((quantile(probability, 1.0) - probability).abs() < 1e-12);
            let sine = (std::f64::consts::FRAC_PI_2 * probability).sin();
            assert!((quantile(probability, 0.5) - sine * sine).abs() < 1e-12);
        }
        assert_eq!((quantile(0.0, 0.6), quantile(1.0, 0.6)), (0.0, 1.0));
    }
}
