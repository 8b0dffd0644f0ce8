//! Noise for schedulers that draw some at each step.

use std::ops::Range;

use ndarray::{ArrayD, Axis, Slice};

use super::SamplerError;
use super::noise::noise_of_stream;

/// Where a scheduler gets the noise of a step from.
pub trait NoiseSource {
    /// Gaussian noise of mean 0, deviation 1 and this shape for step `index` of the run. The same step of the same run
    /// always has the same noise, so that a run can be taken up at any step.
    ///
    /// # Errors
    /// [`SamplerError::NoiseShape`] and [`SamplerError::GivenNoise`].
    fn draw(&mut self, index: usize, shape: &[usize]) -> Result<ArrayD<f32>, SamplerError>;
}

/// Noise from a seed: the recipe of [`super::noise`], where bytes 8 to 15 of the key are the step's number, from one, as
/// eight little-endian bytes. (They are zeros for the starting noise.)
#[derive(Clone, Copy, Debug)]
pub struct SeededNoise {
    seed: u64,
}

impl SeededNoise {
    /// Noise from this seed.
    pub fn new(seed: u64) -> SeededNoise {
        SeededNoise { seed }
    }
}

impl NoiseSource for SeededNoise {
    fn draw(&mut self, index: usize, shape: &[usize]) -> Result<ArrayD<f32>, SamplerError> {
        noise_of_stream(shape, self.seed, index as u64 + 1)
    }
}

/// Noise for clips that are made side by side: the first of this seed, and the following clips of the following seeds.
/// Each has the noise that [`SeededNoise`] would give it alone.
#[derive(Clone, Copy, Debug)]
pub struct SeededBatch {
    first: u64,
}

impl SeededBatch {
    /// Noise from this seed on.
    pub fn new(first: u64) -> SeededBatch {
        SeededBatch { first }
    }
}

impl NoiseSource for SeededBatch {
    fn draw(&mut self, index: usize, shape: &[usize]) -> Result<ArrayD<f32>, SamplerError> {
        let Some((clips, of_clip)) = shape.split_first().filter(|(clips, _)| **clips > 1) else {
            return SeededNoise::new(self.first).draw(index, shape);
        };
        let one: Vec<usize> = std::iter::once(1).chain(of_clip.iter().copied()).collect();
        let mut all = ArrayD::zeros(shape);
        for (place, mut clip) in (0..*clips as u64).zip(all.axis_chunks_iter_mut(Axis(0), 1)) {
            clip.assign(&SeededNoise::new(self.first.wrapping_add(place)).draw(index, &one)?);
        }
        Ok(all)
    }
}

/// Noise that another program drew: what reproduces one of its runs.
#[derive(Clone, Debug)]
pub struct GivenNoise {
    draws: ArrayD<f32>,
}

impl GivenNoise {
    /// Noise from an array `[steps, batch, channels, ...]`, one entry a step. The last steps of a run need none where
    /// [`super::Scheduler::noise_draws`] says so.
    pub fn new(draws: ArrayD<f32>) -> GivenNoise {
        GivenNoise { draws }
    }

    /// Refuses noise that is not enough for `draws` steps of samples of this shape.
    ///
    /// # Errors
    /// [`SamplerError::GivenNoise`].
    pub fn check(&self, draws: usize, shape: &[usize]) -> Result<(), SamplerError> {
        match self.draws.shape() {
            [steps, sample @ ..] if *steps >= draws && sample == shape => Ok(()),
            given => Err(SamplerError::GivenNoise {
                given: given.to_vec(),
                draws,
                shape: shape.to_vec(),
            }),
        }
    }
}

impl NoiseSource for GivenNoise {
    fn draw(&mut self, index: usize, shape: &[usize]) -> Result<ArrayD<f32>, SamplerError> {
        self.check(index + 1, shape)?;
        Ok(self.draws.index_axis(Axis(0), index).to_owned())
    }
}

/// A part of another source's noise, for whoever has the same part of the sample: the whole is drawn, and cut.
pub struct NoisePart {
    whole: Box<dyn NoiseSource>,
    axis: usize,
    size: usize,
    range: Range<usize>,
}

impl NoisePart {
    /// The entries `range` of the `size` that `axis` of the noise of `whole` has.
    #[must_use]
    pub fn new(whole: Box<dyn NoiseSource>, axis: usize, size: usize, range: Range<usize>) -> NoisePart {
        NoisePart {
            whole,
            axis,
            size,
            range,
        }
    }
}

impl NoiseSource for NoisePart {
    /// `shape` is that of the part.
    fn draw(&mut self, index: usize, shape: &[usize]) -> Result<ArrayD<f32>, SamplerError> {
        let mut of_whole = shape.to_vec();
        match of_whole.get_mut(self.axis) {
            Some(size) if *size == self.range.len() && self.range.end <= self.size => *size = self.size,
            _ => return Err(SamplerError::NoiseShape { shape: of_whole }),
        }
        let mut noise = self.whole.draw(index, &of_whole)?;
        noise.slice_axis_inplace(Axis(self.axis), Slice::from(self.range.clone()));
        Ok(noise)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::IxDyn;

    use super::*;
    use crate::sampler::noise;

    #[test]
    fn every_step_has_noise_of_its_own() {
        let mut source = SeededNoise::new(5);
        let first = source.draw(0, &[4]).unwrap();
        let second = source.draw(1, &[4]).unwrap();
        assert_ne!(first, second);
        assert_ne!(first, noise(&[4], 5).unwrap());
        assert_ne!(first, SeededNoise::new(6).draw(0, &[4]).unwrap());
        assert_eq!(first, source.draw(0, &[4]).unwrap());
    }

    #[test]
    fn clips_side_by_side_have_the_noise_that_each_has_alone() {
        let both = SeededBatch::new(7).draw(3, &[2, 5]).unwrap();
        for (place, seed) in [7, 8].into_iter().enumerate() {
            let alone = SeededNoise::new(seed).draw(3, &[1, 5]).unwrap();
            assert_eq!(both.index_axis(Axis(0), place), alone.index_axis(Axis(0), 0));
        }
        let one = SeededBatch::new(7).draw(3, &[1, 5]).unwrap();
        assert_eq!(one, SeededNoise::new(7).draw(3, &[1, 5]).unwrap());
    }

    #[test]
    fn parts_put_together_are_the_whole() {
        let whole = SeededBatch::new(3).draw(1, &[2, 3, 5]).unwrap();
        let part = |range: Range<usize>| {
            let shape = [2, 3, range.len()];
            let mut source = NoisePart::new(Box::new(SeededBatch::new(3)), 2, 5, range);
            assert!(source.draw(1, &[2, 3, 4]).is_err());
            assert!(source.draw(1, &[2, 3]).is_err());
            source.draw(1, &shape).unwrap()
        };
        let parts = [part(0..3), part(3..5)];
        let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
        assert_eq!(ndarray::concatenate(Axis(2), &views).unwrap(), whole);
    }

    #[test]
    fn given_noise_is_given_back_and_checked() {
        let draws = ArrayD::from_shape_vec(IxDyn(&[2, 1, 2]), vec![1.0, 2.0, 3.0, 4.0]).unwrap();
        let mut source = GivenNoise::new(draws);
        assert_eq!(source.draw(1, &[1, 2]).unwrap().as_slice().unwrap(), [3.0, 4.0]);
        let message = source.draw(2, &[1, 2]).unwrap_err().to_string();
        assert!(
            message.contains("[2, 1, 2]") && message.contains("3 steps"),
            "{message}"
        );
        assert!(source.draw(0, &[2, 1]).is_err());
        assert!(GivenNoise::new(ArrayD::zeros(IxDyn(&[]))).draw(0, &[]).is_err());
    }
}
