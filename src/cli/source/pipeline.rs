//! A pipeline's folder, of which every part is opened when it is its turn.

use super::Asked;
use crate::cli::Failure;
use crate::onnx::Model;
use crate::pipeline::{Factors, Family, Folder, Vae};
use std::path::{Path, PathBuf};

/// A pipeline's folder, and what its class does.
#[derive(Debug)]
pub struct Pipeline {
    pub(super) folder: Folder,
    pub(super) family: &'static Family,
    /// The decoder, where pictures are wanted.
    pub vae: Option<Vae>,
    pub(super) factors: Factors,
}

impl Pipeline {
    pub(super) fn read(asked: &Asked<'_>) -> Result<Pipeline, Failure> {
        let refuse = |error| Failure::pipeline(asked.model, error);
        let folder = Folder::open(asked.model).map_err(refuse)?;
        let family = folder.family().map_err(refuse)?;
        let vae = match asked.latents_only {
            true => None,
            false => Some(Vae::read(&folder).map_err(refuse)?),
        };
        let factors = match &vae {
            Some(vae) => vae.factors(),
            None => Vae::factors_of(&folder).map_err(refuse)?,
        };
        if let Some(vae) = &vae {
            // Our own reader says better than ONNX Runtime what is wrong with a file.
            Model::load(vae.path())?;
            vae.check_timestep().map_err(refuse)?;
        }
        for encoder in family.encoders {
            if asked.sampling.prompt_embeds.is_none() && !folder.is_without(encoder.model) {
                Model::load(&folder.model(encoder.model).map_err(refuse)?)?;
            }
        }
        Ok(Pipeline {
            folder,
            family,
            vae,
            factors,
        })
    }
}

impl Pipeline {
    /// The files that texts come from: encoders and tokenizers; none where embeddings are given.
    pub fn encoder_files(&self, embeds_given: bool) -> Vec<PathBuf> {
        let used = |model: &str| !embeds_given && !self.folder.is_without(model);
        let encoders = self.family.encoders.iter().filter(|encoder| used(encoder.model));
        let files = encoders.flat_map(|encoder| {
            let mut files = files_of(&self.folder.component(encoder.tokenizer));
            files.extend(self.folder.model(encoder.model));
            files
        });
        files.collect()
    }

    /// The files that pictures come from: the decoder and what its configuration says; none where latents alone are wanted.
    pub fn decoder_files(&self) -> Vec<PathBuf> {
        let Some(vae) = &self.vae else { return Vec::new() };
        let mut files = vec![vae.path().to_owned()];
        let configurations =
            ["vae_decoder", "vae"].map(|component| self.folder.component(component).join("config.json"));
        files.extend(configurations.into_iter().filter(|path| path.is_file()));
        files
    }
}

/// The files of a folder in the order of their names.
fn files_of(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    files
}
