//! What decoders that are a last step of denoising are given: a timestep, and noise in their latents.

use super::{Asked, Source};
use crate::cli::Failure;
use crate::pipeline::LastStep;
use crate::report::read_array_named;
use crate::sampler::{NoiseSource, SeededNoise};
use ndarray::{ArrayD, Axis};

/// The number of the step whose noise it has: behind all that a run can have, and the same on every platform.
const STEP: usize = u32::MAX as usize - 1;

/// What the options say of it.
#[derive(Debug)]
pub struct Decoding {
    pub timestep: f32,
    pub noise_scale: f32,
    /// The noise that a file gives, `[batch, ...]`.
    noise: Option<ArrayD<f32>>,
    batch: usize,
    seed: u64,
}

impl Decoding {
    /// What the options say; none where the decoder takes nothing of it.
    pub fn of(asked: &Asked<'_>, source: &Source) -> Result<Option<Decoding>, Failure> {
        let options = asked.source;
        let vae = source.pipeline.as_ref().and_then(|pipeline| pipeline.vae.as_ref());
        let Some(vae) = vae.filter(|vae| vae.is_timed()) else {
            let given = [
                ("--decode-timestep", options.decode_timestep.is_some()),
                ("--decode-noise-scale", options.decode_noise_scale.is_some()),
                ("--decode-noise", options.decode_noise.is_some()),
            ];
            return match given.iter().find(|(_, is_given)| *is_given) {
                None => Ok(None),
                Some((option, _)) => Err(Failure::Usage(format!(
                    "{option} is for decoders that take a timestep, and {} has none: the config.json of its VAE does not say \
                     `timestep_conditioning`: true; leave it out",
                    asked.model.display()
                ))),
            };
        };
        let timestep = share("--decode-timestep", options.decode_timestep.unwrap_or(0.0))?;
        let noise_scale = share("--decode-noise-scale", options.decode_noise_scale.unwrap_or(timestep))?;
        let batch = asked.batch;
        let noise = match &options.decode_noise {
            None => None,
            Some(path) => {
                let noise = read_array_named(path, "decode_noise")?.mapv(|value| value as f32);
                // The latent as it is decoded: of one clip a batch of 1.
                let latent = source.latent.noise().get(1..).unwrap_or_default();
                let is_of_clips = noise.shape().split_first() == Some((&batch, latent));
                if !is_of_clips || noise.iter().any(|value| !value.is_finite()) {
                    return Err(Failure::Usage(format!(
                        "--decode-noise {}: finite numbers of the shape {:?} are needed, and its shape is {:?}; decoder {} takes \
                         these latents",
                        path.display(),
                        std::iter::once(&batch).chain(latent).collect::<Vec<_>>(),
                        noise.shape(),
                        vae.path().display()
                    )));
                }
                Some(noise)
            }
        };
        Ok(Some(Decoding {
            timestep,
            noise_scale,
            noise,
            batch,
            seed: asked.seed,
        }))
    }

    /// What the decoder of clip `number` is given, whose latent has this shape.
    pub fn of_clip(&self, number: usize, latent: &[usize]) -> Result<LastStep, Failure> {
        let noise = match (&self.noise, self.noise_scale) {
            (_, 0.0) => None,
            (Some(noise), _) => Some(noise.select(Axis(0), &[number % self.batch.max(1)])),
            (None, _) => {
                let seed = self.seed.wrapping_add(number as u64);
                Some(SeededNoise::new(seed).draw(STEP, latent)?)
            }
        };
        Ok(LastStep {
            timestep: self.timestep,
            noise_scale: self.noise_scale,
            noise,
        })
    }
}

/// A number from 0 to 1.
fn share(option: &str, value: f32) -> Result<f32, Failure> {
    match (0.0..=1.0).contains(&value) {
        true => Ok(value),
        false => Err(Failure::Usage(format!("{option} {value}: give a number from 0 to 1"))),
    }
}
