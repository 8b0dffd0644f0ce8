//! The decoder of a pipeline: from latents to pictures.

use super::latent::Factors;
use super::vae_weights::latent_statistics;
use super::{Folder, PipelineError, declared_inputs};
use crate::runtime::{Denoiser, ElementType, Options, Port, Session, Tensor};
use ndarray::{ArrayD, ArrayViewD, Axis, IxDyn, concatenate};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What diffusers' classes scale latents by where `config.json` does not say.
const SCALES: &[(&str, f32)] = &[
    ("AutoencoderKL", 0.18215),
    ("AutoencoderKLTemporalDecoder", 0.18215),
    ("AutoencoderKLCogVideoX", 1.152_584_3),
];

/// Classes that keep means and deviations of their latents among their weights.
const IN_WEIGHTS: &[&str] = &["AutoencoderKLLTXVideo"];

/// How many frames a decoder that mixes frames is given at a time, as diffusers does.
const FRAMES_AT_A_TIME: usize = 14;

/// What is known of a decoder before it is opened.
#[derive(Clone, Debug, PartialEq)]
pub struct Vae {
    path: PathBuf,
    scale: f32,
    shift: f32,
    /// For each channel deviation and mean.
    channels: Option<(Vec<f32>, Vec<f32>)>,
    factors: Factors,
    /// Whether it is a last step of denoising, and takes a timestep.
    is_timed: bool,
}

/// What a decoder that is a last step of denoising is given beside the latent.
#[derive(Clone, Debug, PartialEq)]
pub struct LastStep {
    /// Its timestep, 0 to 1.
    pub timestep: f32,
    /// The share of noise that is mixed into the latent, in the scale that the decoder was trained on.
    pub noise_scale: f32,
    /// That noise, of the latent's shape; not needed where the share is 0.
    pub noise: Option<ArrayD<f32>>,
}

/// Names of the input that takes the timestep.
const TIMESTEP: &[&str] = &["timestep", "temb", "decode_timestep"];

/// Whether an input takes the timestep.
fn is_timestep(port: &Port) -> bool {
    port.shape.len() <= 1 && TIMESTEP.contains(&port.name.as_str())
}

impl Vae {
    /// Reads `vae_decoder/config.json`, or `vae/config.json`.
    ///
    /// # Errors
    /// [`PipelineError::MissingModel`] without a decoder, [`PipelineError::File`] for a configuration that is missing or
    /// damaged.
    pub fn read(folder: &Folder) -> Result<Vae, PipelineError> {
        let path = folder.model("vae_decoder")?;
        let (mut vae, class) = Vae::configured(folder, path)?;
        if vae.channels.is_none() && IN_WEIGHTS.contains(&class.as_str()) {
            vae.channels = Some(latent_statistics(folder)?);
        }
        Ok(vae)
    }

    /// Refuses a decoder whose file declares a timestep where its configuration speaks of none, or the other way round.
    ///
    /// # Errors
    /// [`PipelineError::Ports`], and [`PipelineError::Onnx`] where the file is damaged.
    pub fn check_timestep(&self) -> Result<(), PipelineError> {
        let refuse = |reason: String| {
            Err(PipelineError::Ports {
                model: self.path.clone(),
                reason,
            })
        };
        let declared = declared_inputs(&self.path)?;
        match (self.is_timed, declared.iter().find(|port| is_timestep(port))) {
            (true, Some(_)) | (false, None) => Ok(()),
            (true, None) => refuse(
                "its config.json says `timestep_conditioning`, and it has no input `timestep` [batch]; export the decoder with it as \
                 the second argument of vae.decode"
                    .to_owned(),
            ),
            (false, Some(port)) => refuse(format!(
                "its input `{}` ({}) is a timestep, and its config.json has no `timestep_conditioning`: true; copy diffusers' \
                 config.json of the VAE",
                port.name, port.description
            )),
        }
    }

    /// How many pixels and frames a latent becomes, also where only the configuration is there.
    ///
    /// # Errors
    /// [`PipelineError::File`] for a configuration that is missing or damaged.
    pub fn factors_of(folder: &Folder) -> Result<Factors, PipelineError> {
        Vae::configured(folder, PathBuf::new()).map(|(vae, _)| vae.factors)
    }

    /// What the configuration says, and the class's name.
    fn configured(folder: &Folder, path: PathBuf) -> Result<(Vae, String), PipelineError> {
        let found = match folder.config("vae_decoder")? {
            Some(found) => Some(found),
            None => folder.config("vae")?,
        };
        let Some(fields) = found else {
            return Err(PipelineError::File {
                path: folder.component("vae_decoder").join("config.json"),
                reason: "it is missing, and says how latents are scaled; copy the config.json of diffusers' vae folder there"
                    .to_owned(),
            });
        };
        let class = fields.class();
        let usual = SCALES
            .iter()
            .find(|(name, _)| *name == class)
            .map_or(1.0, |(_, scale)| *scale);
        let scale = fields.number("scaling_factor")?.unwrap_or(usual);
        if scale == 0.0 {
            return Err(fields.refuse("scaling_factor", "a number other than 0"));
        }
        let channels = match (fields.numbers("latents_std")?, fields.numbers("latents_mean")?) {
            (Some(deviations), Some(means)) if deviations.len() == means.len() => Some((deviations, means)),
            (None, None) => None,
            _ => return Err(fields.refuse("latents_std", "as many numbers as `latents_mean` has")),
        };
        // Wan's classes have it misspelt.
        let halved = fields
            .list("temperal_downsample")
            .or(fields.list("temporal_downsample"));
        let blocks = fields
            .list("block_out_channels")
            .map(|blocks| blocks.len().saturating_sub(1));
        let doublings = blocks.or(halved.map(<[Value]>::len));
        // Patches of pixels, halved in space and time by some blocks.
        let halving = |steps: &[Value]| steps.iter().filter(|step| step.as_bool() == Some(true)).count();
        let both = fields.list("spatio_temporal_scaling").map(halving);
        let by_both = |patch: Option<usize>| both.map(|count| patch.unwrap_or(1).saturating_mul(1 << count.min(16)));
        let (patch, patch_frames) = (fields.size("patch_size")?, fields.size("patch_size_t")?);
        let pixels = fields
            .size("scale_factor_spatial")?
            .or(fields.size("spatial_compression_ratio")?)
            .or(by_both(patch))
            .or(doublings.and_then(|blocks| 1_usize.checked_shl(u32::try_from(blocks).ok()?)));
        let halvings = halved.map(halving);
        let frames = fields
            .size("scale_factor_temporal")?
            .or(fields.size("temporal_compression_ratio")?)
            .or(by_both(patch_frames))
            .or(halvings.map(|count| 1_usize << count.min(16)));
        let vae = Vae {
            path,
            scale,
            shift: fields.number("shift_factor")?.unwrap_or(0.0),
            is_timed: fields.flag("timestep_conditioning")?,
            channels,
            factors: Factors {
                pixels: pixels.unwrap_or(1).max(1),
                frames: frames.unwrap_or(1).max(1),
            },
        };
        Ok((vae, class.to_owned()))
    }

    /// The decoder's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Deviations and means of the latent's channels, where the decoder wants them scaled by such.
    #[must_use]
    pub fn statistics(&self) -> Option<&(Vec<f32>, Vec<f32>)> {
        self.channels.as_ref()
    }

    /// Whether the decoder is a last step of denoising, and takes a [`LastStep`].
    #[must_use]
    pub fn is_timed(&self) -> bool {
        self.is_timed
    }

    /// How many pixels and frames a latent becomes.
    #[must_use]
    pub fn factors(&self) -> Factors {
        self.factors
    }

    /// Opens the decoder; ONNX Runtime must be loaded.
    ///
    /// # Errors
    /// [`PipelineError::Ports`] where its inputs are not one latent, beside a timestep where its configuration says so.
    pub fn open(&self, options: &Options) -> Result<Decoder, PipelineError> {
        let session = Denoiser::plain(Session::open(&self.path, options)?);
        let refuse = |reason: String| PipelineError::Ports {
            model: self.path.clone(),
            reason,
        };
        let (mut latent, mut frames, mut timestep) = (None, None, None);
        for port in session.session().inputs() {
            match (port.shape.len(), port.name.as_str()) {
                (4 | 5, _) if latent.is_none() => latent = Some(port.clone()),
                (0 | 1, "num_frames") => frames = Some(port.clone()),
                _ if self.is_timed && is_timestep(port) => timestep = Some(port.clone()),
                _ => {
                    return Err(refuse(format!(
                        "its input `{}` ({}) is neither a latent nor num_frames; export the decoder with those alone",
                        port.name, port.description
                    )));
                }
            }
        }
        let latent = latent.ok_or_else(|| refuse("it has no input for a latent of 4 or 5 axes".to_owned()))?;
        Ok(Decoder {
            vae: self.clone(),
            session,
            latent,
            frames,
            timestep,
        })
    }

    /// Latents `[batch, channels, ...]` in the scale that the decoder was trained on.
    fn scaled(&self, mut latents: ArrayD<f32>) -> Result<ArrayD<f32>, PipelineError> {
        let count = latents.shape().get(1).copied().unwrap_or(0);
        match &self.channels {
            None => latents.mapv_inplace(|value| value / self.scale + self.shift),
            Some((deviations, means)) if means.len() == count => {
                for (mut channel, (deviation, mean)) in latents.axis_iter_mut(Axis(1)).zip(deviations.iter().zip(means))
                {
                    channel.mapv_inplace(|value| value * deviation / self.scale + mean);
                }
            }
            Some((_, means)) => {
                return Err(self.latents(format!(
                    "its config.json has means of {} channels, and latents have {count}; it belongs to another transformer",
                    means.len()
                )));
            }
        }
        Ok(latents)
    }

    fn latents(&self, reason: String) -> PipelineError {
        PipelineError::Latents {
            model: self.path.clone(),
            reason,
        }
    }
}

/// An open decoder.
#[derive(Debug)]
pub struct Decoder {
    vae: Vae,
    session: Denoiser,
    latent: Port,
    frames: Option<Port>,
    timestep: Option<Port>,
}

impl Decoder {
    /// Pictures `[1, 3, frames, height, width]`, about -1 to 1, of a clip's latent `[1, channels, frames, height, width]`;
    /// of an image `[1, channels, height, width]` a clip of one frame. `last` counts where [`Vae::is_timed`].
    ///
    /// # Errors
    /// [`PipelineError::Latents`] for latents that the decoder does not take, noise of another shape, or pictures that are none.
    pub fn decode(&mut self, latent: ArrayD<f32>, last: Option<&LastStep>) -> Result<ArrayD<f32>, PipelineError> {
        let latent = match latent.ndim() {
            4 => latent.insert_axis(Axis(2)),
            _ => latent,
        };
        if latent.ndim() != 5 || latent.len_of(Axis(0)) != 1 {
            return Err(self
                .vae
                .latents(format!("a latent of shape {:?} is no clip", latent.shape())));
        }
        let mut latent = self.vae.scaled(latent)?;
        if let Some(last) = last.filter(|last| last.noise_scale != 0.0) {
            latent = self.noisy(latent, last)?;
        }
        let timestep = last.map_or(0.0, |last| last.timestep);
        let pictures = match self.latent.shape.len() {
            5 => self.run(latent.view(), timestep)?,
            _ => {
                // The frames are the batch: [1, channels, frames, ...] to [frames, channels, ...].
                let frames = latent.index_axis_move(Axis(0), 0).permuted_axes(IxDyn(&[1, 0, 2, 3]));
                let at_a_time = if self.frames.is_some() { FRAMES_AT_A_TIME } else { 1 };
                let mut parts = Vec::new();
                for chunk in frames.axis_chunks_iter(Axis(0), at_a_time) {
                    parts.push(self.run(chunk, timestep)?);
                }
                let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
                let pictures = concatenate(Axis(0), &views).map_err(|error| self.vae.latents(error.to_string()))?;
                match pictures.ndim() {
                    4 => pictures.permuted_axes(IxDyn(&[1, 0, 2, 3])).insert_axis(Axis(0)),
                    _ => pictures,
                }
            }
        };
        match pictures.shape() {
            [1, 1 | 3, _, _, _] => Ok(pictures),
            shape => Err(self.vae.latents(format!(
                "it puts out {shape:?}, and pictures of 1 or 3 channels are expected; export the VAE's decoder"
            ))),
        }
    }

    /// The latent with noise mixed into it, as diffusers' `LTXPipeline` does.
    fn noisy(&self, latent: ArrayD<f32>, last: &LastStep) -> Result<ArrayD<f32>, PipelineError> {
        match &last.noise {
            Some(noise) if noise.shape() == latent.shape() => {
                Ok(latent * (1.0 - last.noise_scale) + noise * last.noise_scale)
            }
            noise => Err(self.vae.latents(format!(
                "noise of shape {:?} was to be mixed into a latent of shape {:?}",
                noise.as_ref().map_or(&[][..], |noise| noise.shape()),
                latent.shape()
            ))),
        }
    }

    fn run(&mut self, latent: ArrayViewD<'_, f32>, timestep: f32) -> Result<ArrayD<f32>, PipelineError> {
        let fits = self.latent.shape.iter().zip(latent.shape());
        if fits
            .clone()
            .any(|(fixed, size)| fixed.is_some_and(|fixed| usize::try_from(fixed) != Ok(*size)))
        {
            return Err(self.vae.latents(format!(
                "it takes {}, and the latent is {:?}; export the decoder with open sizes",
                self.latent.description,
                latent.shape()
            )));
        }
        let cast = |tensor: Tensor, port: &Port| tensor.cast(port.element_type.unwrap_or(ElementType::Float32));
        let tensor = cast(Tensor::from_array(latent.to_owned()), &self.latent);
        let count = self.frames.as_ref().map(|port| {
            let count = latent.len_of(Axis(0)) as i64;
            cast(
                Tensor::from_array(ArrayD::from_elem(IxDyn(&vec![1; port.shape.len()]), count)),
                port,
            )
        });
        let timestep = self.timestep.as_ref().map(|port| {
            let sizes: Vec<usize> = port.shape.iter().map(|_| latent.len_of(Axis(0))).collect();
            cast(Tensor::from_array(ArrayD::from_elem(IxDyn(&sizes), timestep)), port)
        });
        let mut inputs = vec![(self.latent.name.as_str(), &tensor)];
        if let (Some(port), Some(timestep)) = (&self.timestep, &timestep) {
            inputs.push((port.name.as_str(), timestep));
        }
        if let (Some(port), Some(count)) = (&self.frames, &count) {
            inputs.push((port.name.as_str(), count));
        }
        let outputs = self.session.step(&inputs, &[])?;
        let first = outputs.into_iter().next().map(|(_, tensor)| tensor.into_f32());
        first.ok_or_else(|| self.vae.latents("it puts out nothing".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vae(config: &str) -> Result<Vae, PipelineError> {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(
            root.path().join("model_index.json"),
            r#"{"_class_name": "LattePipeline"}"#,
        )
        .unwrap();
        std::fs::create_dir(root.path().join("vae_decoder")).unwrap();
        std::fs::write(root.path().join("vae_decoder/model.onnx"), "").unwrap();
        if !config.is_empty() {
            std::fs::write(root.path().join("vae_decoder/config.json"), config).unwrap();
        }
        Vae::read(&Folder::open(root.path())?)
    }

    #[test]
    fn factors_are_told_from_every_kind_of_configuration() {
        for (config, pixels, frames, scale) in [
            (
                r#"{"_class_name": "AutoencoderKL", "block_out_channels": [1, 2, 3, 4]}"#,
                8,
                1,
                0.18215,
            ),
            (r#"{"scaling_factor": 0.5, "block_out_channels": [1, 2]}"#, 2, 1, 0.5),
            (
                r#"{"_class_name": "AutoencoderKLCogVideoX", "block_out_channels": [1, 2, 3, 4], "temporal_compression_ratio": 4}"#,
                8,
                4,
                1.152_584_3,
            ),
            (
                r#"{"_class_name": "AutoencoderKLWan", "temperal_downsample": [false, true, true], "latents_mean": [1], "latents_std": [2]}"#,
                8,
                4,
                1.0,
            ),
            (
                r#"{"block_out_channels": [1, 2], "spatio_temporal_scaling": [true, true, true, false], "patch_size": 4, "patch_size_t": 1}"#,
                32,
                8,
                1.0,
            ),
            (
                r#"{"spatial_compression_ratio": 32, "temporal_compression_ratio": 8}"#,
                32,
                8,
                1.0,
            ),
        ] {
            let vae = vae(config).unwrap();
            assert_eq!(
                (vae.factors, vae.scale),
                (Factors { pixels, frames }, scale),
                "{config}"
            );
        }
    }

    #[test]
    fn latents_are_scaled_back() {
        let latents = || ArrayD::from_elem(IxDyn(&[1, 2, 1, 1, 1]), 3.0_f32);
        let scaled = |config: &str| vae(config).unwrap().scaled(latents());
        assert_eq!(
            scaled(r#"{"scaling_factor": 1.5, "shift_factor": 0.25}"#).unwrap()[[0, 0, 0, 0, 0]],
            2.25
        );
        let channels = scaled(r#"{"latents_mean": [1, 2], "latents_std": [10, 20]}"#).unwrap();
        assert_eq!(channels.iter().copied().collect::<Vec<_>>(), [31.0, 62.0]);
        let error = scaled(r#"{"latents_mean": [1], "latents_std": [1]}"#)
            .unwrap_err()
            .to_string();
        assert!(error.contains("1 channels") && error.contains("have 2"), "{error}");
    }

    #[test]
    fn configurations_that_cannot_be_are_refused() {
        for (config, part) in [
            ("", "how latents are scaled"),
            (r#"{"scaling_factor": 0}"#, "`scaling_factor`"),
            (r#"{"scaling_factor": "x"}"#, "`scaling_factor`"),
            (r#"{"timestep_conditioning": 1}"#, "`timestep_conditioning`"),
            (r#"{"latents_mean": [1], "latents_std": null}"#, "`latents_std`"),
            (r#"{"latents_mean": [1], "latents_std": ["x"]}"#, "`latents_std`"),
            (r#"{"spatial_compression_ratio": 0.5}"#, "`spatial_compression_ratio`"),
        ] {
            let error = vae(config).unwrap_err().to_string();
            assert!(
                error.contains("vae_decoder/config.json") && error.contains(part),
                "{error}"
            );
        }
    }
}
