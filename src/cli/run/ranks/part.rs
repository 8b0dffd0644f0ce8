//! A rank's part of the latents, which it keeps from step to step.
//!
//! Schedulers work on every element by itself: a rank that has a part of the noise steps that part, and the whole is put
//! together once, when the clip is over.

use crate::cli::Failure;
use crate::collective::{Communicator, gather};
use crate::rewrite::split::RankLatents;
use crate::sampler::{NoisePart, NoiseSource};
use ndarray::{ArrayD, Axis, IxDyn, Slice, concatenate};
use std::sync::Arc;

/// What a rank has of the latents, and its way to the others.
pub struct Part {
    latents: RankLatents,
    communicator: Arc<dyn Communicator>,
}

impl Part {
    /// The part that a rank's model names.
    pub fn new(latents: RankLatents, communicator: Arc<dyn Communicator>) -> Part {
        Part { latents, communicator }
    }

    /// This rank's part of a whole latent.
    pub fn of(&self, mut whole: ArrayD<f32>) -> Result<ArrayD<f32>, Failure> {
        let latents = &self.latents;
        let (axis, range) = (latents.latents.axis, latents.start..latents.end);
        let fits = whole.shape().get(axis) == Some(&latents.latents.size);
        if !fits || range.is_empty() || range.end > latents.latents.size || range != self.range_of(self.rank()) {
            return Err(Failure::Usage(format!(
                "the model of rank {} takes entries {} to {} of the {} along axis {axis} of `{}`, which are no part of latents of \
                 shape {:?} over {}; split the original again with this version",
                self.rank(),
                range.start,
                range.end,
                latents.latents.size,
                latents.latents.input,
                whole.shape(),
                self.communicator.mesh().axes(),
            )));
        }
        whole.slice_axis_inplace(Axis(axis), Slice::from(range));
        Ok(whole.as_standard_layout().into_owned())
    }

    /// This rank's part of the noise of the steps.
    pub fn noise(&self, whole: Box<dyn NoiseSource>) -> Box<dyn NoiseSource> {
        let kept = &self.latents.latents;
        let range = self.latents.start..self.latents.end;
        Box::new(NoisePart::new(whole, kept.axis, kept.size, range))
    }

    /// The whole arrays, of the parts that all ranks have of them. All ranks come, with as many.
    pub fn whole(&self, parts: &[ArrayD<f32>]) -> Result<Vec<ArrayD<f32>>, Failure> {
        let own: Vec<u8> = parts.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
        let all = gather(&*self.communicator, &own)?;
        let axis = self.latents.latents.axis;
        let members = self
            .communicator
            .mesh()
            .members(self.latents.latents.group, self.rank());
        let whole = parts.iter().enumerate().map(|(place, part)| {
            let of_member = |rank: usize| {
                let mut shape = part.shape().to_vec();
                *shape.get_mut(axis)? = self.range_of(rank).len();
                let length = shape.iter().product::<usize>() * size_of::<f32>();
                let bytes = all.get(rank)?.get(place * length..(place + 1) * length)?;
                let (values, _) = bytes.as_chunks::<{ size_of::<f32>() }>();
                let values = values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
                ArrayD::from_shape_vec(IxDyn(&shape), values).ok()
            };
            let parts: Option<Vec<ArrayD<f32>>> = members.iter().map(|rank| of_member(*rank)).collect();
            let parts = parts?;
            let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
            concatenate(Axis(axis), &views).ok()
        });
        let whole: Option<Vec<ArrayD<f32>>> = whole.collect();
        whole.ok_or_else(|| {
            Failure::Usage(format!(
                "ranks have parts of latents that do not fit together along axis {axis}; split the original again with this version"
            ))
        })
    }

    fn rank(&self) -> usize {
        self.communicator.rank()
    }

    fn range_of(&self, rank: usize) -> std::ops::Range<usize> {
        self.latents.latents.range(&self.communicator.mesh().axes(), rank)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collective::{Mesh, World, run_ranks};
    use crate::rewrite::split::KeptLatents;
    use crate::sampler::SeededNoise;
    use crate::shard::Group;
    use std::time::Duration;

    /// Axis 2 of 10 entries in units of 2 over 3 ranks, each of them twice for guidance.
    #[test]
    fn parts_are_put_together_in_the_order_of_the_axis() {
        let mesh = Mesh::new(2, 3, 1).unwrap();
        let world = World::new(mesh, Duration::from_secs(60));
        let whole = SeededNoise::new(1).draw(0, &[2, 1, 10, 3]).unwrap();
        let latents = KeptLatents {
            input: "latent".to_owned(),
            output: "output".to_owned(),
            axis: 2,
            size: 10,
            unit: 2,
            group: Group::Sequence,
        };
        let shared = whole.clone();
        let results = run_ranks(&world, move |rank: Arc<crate::collective::Rank>| {
            let whole = &shared;
            let range = latents.range(&mesh.axes(), rank.rank());
            let part = |start: usize, end: usize| {
                let latents = latents.clone();
                Part::new(RankLatents { latents, start, end }, rank.clone())
            };
            let own = part(range.start, range.end);
            let sample = own.of(whole.clone())?;
            assert_eq!(sample.len_of(Axis(2)), range.len());
            assert_eq!(
                sample,
                own.noise(Box::new(SeededNoise::new(1))).draw(0, sample.shape())?
            );
            assert!(part(range.start, range.end + 1).of(whole.clone()).is_err());
            assert!(own.of(ArrayD::zeros(IxDyn(&[2, 1, 9, 3]))).is_err());
            own.whole(&[sample.clone(), sample.mapv(|value| -value)])
        });
        for found in results.unwrap() {
            assert_eq!(found, [whole.clone(), whole.mapv(|value| -value)]);
        }
    }
}
