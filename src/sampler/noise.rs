//! Starting noise: seeded, and the same bits on every platform.

use ndarray::{ArrayD, IxDyn};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::SamplerError;

/// Gaussian noise of mean 0 and deviation 1, the same for the same seed on every platform and in every build.
///
/// The recipe, so that any language can repeat it: the ChaCha20 key stream (RFC 8439's block function with a 64-bit
/// block counter from 0 and a zero nonce) under the key that is `seed` as eight little-endian bytes followed by 24
/// zeros, read as little-endian 64-bit words. Each pair of words `(a, b)` gives
/// `u = ((a >> 11) + 1) / 2^53` in (0, 1] and `v = (b >> 11) / 2^53` in [0, 1), and by Box and Muller the two numbers
/// `sqrt(-2 ln u) cos(2 pi v)` and `sqrt(-2 ln u) sin(2 pi v)`, computed in `f64` and rounded to `f32`, which fill the
/// array in row-major order. Logarithm, sine and cosine are the `libm` crate's, because those of the operating system
/// differ between platforms (and the ones behind `rand_distr` are the system's as soon as any other crate turns on
/// `num-traits/std`).
///
/// # Errors
/// [`SamplerError::NoiseShape`] for a shape that no array can have.
pub fn noise(shape: &[usize], seed: u64) -> Result<ArrayD<f32>, SamplerError> {
    noise_of_stream(shape, seed, 0)
}

/// As [`noise`], where bytes 8 to 15 of the key are `stream`: each has numbers of its own.
pub(super) fn noise_of_stream(shape: &[usize], seed: u64, stream: u64) -> Result<ArrayD<f32>, SamplerError> {
    let refuse = || SamplerError::NoiseShape { shape: shape.to_vec() };
    let count = shape
        .iter()
        .try_fold(1_usize, |product, &size| product.checked_mul(size))
        .ok_or_else(refuse)?;
    let mut values: Vec<f32> = Vec::new();
    values.try_reserve_exact(count).map_err(|_| refuse())?;
    let mut words = key_stream(seed, stream);
    while values.len() < count {
        let (first, second) = pair(words.next_u64(), words.next_u64());
        values.push(first as f32);
        if values.len() < count {
            values.push(second as f32);
        }
    }
    ArrayD::from_shape_vec(IxDyn(shape), values).map_err(|_| refuse())
}

/// The generator whose key is seed and stream themselves, so that the stream does not hang on a crate's way of stretching seeds.
fn key_stream(seed: u64, stream: u64) -> ChaCha20Rng {
    let mut key = [0_u8; 32];
    let bytes = seed.to_le_bytes().into_iter().chain(stream.to_le_bytes());
    for (place, byte) in key.iter_mut().zip(bytes) {
        *place = byte;
    }
    ChaCha20Rng::from_seed(key)
}

/// Two independent Gaussian numbers from two uniform words (Box and Muller, 1958).
fn pair(first: u64, second: u64) -> (f64, f64) {
    const UNIT: f64 = 1.0 / (1_u64 << 53) as f64;
    let u = ((first >> 11) + 1) as f64 * UNIT;
    let v = (second >> 11) as f64 * UNIT;
    let radius = libm::sqrt(-2.0 * libm::log(u));
    let angle = std::f64::consts::TAU * v;
    (radius * libm::cos(angle), radius * libm::sin(angle))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `tests/data/sampler/make_noise.py`: its own ChaCha20 and Python's mathematics.
    #[test]
    fn the_recipe_gives_these_numbers() {
        let text = include_str!("../../tests/data/sampler/noise.json");
        let known: std::collections::BTreeMap<u64, Vec<f64>> = serde_json::from_str(text).unwrap();
        assert!(known.len() >= 3);
        for (seed, values) in known {
            let drawn = noise(&[values.len()], seed).unwrap();
            for (index, (&drawn, value)) in drawn.iter().zip(values).enumerate() {
                assert!(
                    (f64::from(drawn) - value).abs() < 1e-6,
                    "seed {seed}, number {index}: {drawn}, not {value}"
                );
            }
        }
    }

    /// To the bit: the same numbers on every platform that runs the tests. (What they are worth is the test above's.)
    #[test]
    fn the_bits_are_fixed() {
        let drawn = noise(&[3, 3], 42).unwrap();
        let bits: Vec<u32> = drawn.iter().map(|value| value.to_bits()).collect();
        insta::assert_snapshot!(format!("{bits:08x?}"), @"[beb5c3cf, bfa2f4e8, 3efd7f93, 3f2e76e1, bed0e253, 3ed07b8d, 3d94912f, bff54905, be0cdc6d]");
    }

    #[test]
    fn the_moments_are_gaussian() {
        let drawn = noise(&[2, 50_000], 7).unwrap();
        let count = drawn.len() as f64;
        let moment = |power: i32| drawn.iter().map(|&value| f64::from(value).powi(power)).sum::<f64>() / count;
        assert!(moment(1).abs() < 0.015, "mean {}", moment(1));
        assert!((moment(2) - 1.0).abs() < 0.02, "variance {}", moment(2));
        assert!(moment(3).abs() < 0.05, "skewness {}", moment(3));
        assert!((moment(4) - 3.0).abs() < 0.12, "kurtosis {}", moment(4));
        assert!(drawn.iter().all(|value| value.is_finite()));
    }

    #[test]
    fn seeds_differ_and_shapes_share_the_stream() {
        assert_ne!(noise(&[8], 0).unwrap(), noise(&[8], 1).unwrap());
        let flat = noise(&[6], 3).unwrap();
        let folded = noise(&[2, 3], 3).unwrap();
        assert_eq!(flat.as_slice().unwrap(), folded.as_slice().unwrap());
        assert_eq!(
            noise(&[5], 3).unwrap().as_slice().unwrap(),
            &flat.as_slice().unwrap()[..5]
        );
    }

    #[test]
    fn an_impossible_shape_is_an_error() {
        let error = noise(&[usize::MAX, 2], 0).unwrap_err();
        assert!(error.to_string().contains("more elements"), "{error}");
        assert!(noise(&[usize::MAX / 2], 0).is_err());
        assert_eq!(noise(&[0, 3], 0).unwrap().shape(), [0, 3]);
    }
}
