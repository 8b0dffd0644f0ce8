//! Numbers that a VAE keeps among its weights and not in its configuration.

use super::{Folder, PipelineError};
use safetensors::{Dtype, SafeTensors};
use std::path::Path;

/// The file of the weights in the folder of a component, as diffusers names it.
const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

/// The components that may hold it.
const COMPONENTS: [&str; 2] = ["vae_decoder", "vae"];

/// Deviations and means of a latent's channels.
///
/// # Errors
/// [`PipelineError::File`] where there are no such weights, or they are damaged.
pub fn latent_statistics(folder: &Folder) -> Result<(Vec<f32>, Vec<f32>), PipelineError> {
    let places = COMPONENTS.map(|component| folder.component(component).join(WEIGHTS));
    let Some(path) = places.iter().find(|path| path.is_file()) else {
        return Err(PipelineError::File {
            path: folder.component("vae_decoder").join("config.json"),
            reason: format!(
                "it lacks `latents_mean` and `latents_std`, which this class keeps among its weights; copy diffusers' \
                 vae/{WEIGHTS} into the pipeline's folder vae, or write both lists into config.json"
            ),
        });
    };
    let refuse = |reason: String| PipelineError::File {
        path: path.clone(),
        reason: format!("{reason}; copy diffusers' file again"),
    };
    let read = |map: &[u8]| {
        let tensors = SafeTensors::deserialize(map).map_err(|error| refuse(format!("no weights ({error})")))?;
        let numbers = |name: &str| {
            let tensor = tensors.tensor(name).ok();
            let numbers = tensor.and_then(|tensor| single(tensor.dtype(), tensor.data()));
            let numbers =
                numbers.filter(|numbers| !numbers.is_empty() && numbers.iter().all(|number| number.is_finite()));
            numbers.ok_or_else(|| refuse(format!("it has no numbers `{name}`")))
        };
        let (deviations, means) = (numbers("latents_std")?, numbers("latents_mean")?);
        match deviations.len() == means.len() {
            true => Ok((deviations, means)),
            false => Err(refuse(
                "`latents_std` and `latents_mean` have different lengths".to_owned(),
            )),
        }
    };
    read(&map_of(path).map_err(|error| refuse(format!("cannot be read: {error}")))?)
}

/// The file as a memory map: weights are gigabytes, and few bytes of them are read.
fn map_of(path: &Path) -> std::io::Result<memmap2::Mmap> {
    let file = std::fs::File::open(path)?;
    // SAFETY: the map is read at once and dropped. A file that another program cuts meanwhile ends this one, as it would
    // for the models, which are mapped too.
    unsafe { memmap2::Mmap::map(&file) }
}

/// Numbers of a floating-point type.
fn single(dtype: Dtype, data: &[u8]) -> Option<Vec<f32>> {
    let pairs = || data.chunks_exact(2).map(|bytes| [bytes[0], bytes[1]]);
    Some(match dtype {
        Dtype::F32 => data
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            .collect(),
        Dtype::F16 => pairs().map(|bytes| half::f16::from_le_bytes(bytes).to_f32()).collect(),
        Dtype::BF16 => pairs().map(|bytes| half::bf16::from_le_bytes(bytes).to_f32()).collect(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::TensorView;

    fn statistics(tensors: &[(&str, Dtype, Vec<u8>, usize)]) -> Result<(Vec<f32>, Vec<f32>), PipelineError> {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(
            root.path().join("model_index.json"),
            r#"{"_class_name": "LTXPipeline"}"#,
        )
        .unwrap();
        std::fs::create_dir(root.path().join("vae")).unwrap();
        let views = tensors
            .iter()
            .map(|(name, dtype, data, count)| (*name, TensorView::new(*dtype, vec![*count], data).unwrap()));
        let bytes = safetensors::serialize(views, None).unwrap();
        std::fs::write(root.path().join("vae").join(WEIGHTS), bytes).unwrap();
        latent_statistics(&Folder::open(root.path()).unwrap())
    }

    fn single_bytes(numbers: &[f32]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    #[test]
    fn numbers_of_every_width_are_read() {
        let half: Vec<u8> = [1.5, 0.25]
            .iter()
            .flat_map(|number| half::bf16::from_f32(*number).to_le_bytes())
            .collect();
        let found = statistics(&[
            ("latents_std", Dtype::BF16, half, 2),
            ("latents_mean", Dtype::F32, single_bytes(&[0.5, -1.0]), 2),
        ]);
        assert_eq!(found.unwrap(), (vec![1.5, 0.25], vec![0.5, -1.0]));
    }

    #[test]
    fn what_is_missing_is_named() {
        let std = || ("latents_std", Dtype::F32, single_bytes(&[1.0, 1.0]), 2);
        for (tensors, part) in [
            (vec![std()], "`latents_mean`"),
            (
                vec![std(), ("latents_mean", Dtype::F32, single_bytes(&[1.0]), 1)],
                "different lengths",
            ),
            (
                vec![std(), ("latents_mean", Dtype::I32, single_bytes(&[1.0, 1.0]), 2)],
                "`latents_mean`",
            ),
            (
                vec![std(), ("latents_mean", Dtype::F32, single_bytes(&[f32::NAN, 1.0]), 2)],
                "`latents_mean`",
            ),
        ] {
            let error = statistics(&tensors).unwrap_err().to_string();
            assert!(error.contains(WEIGHTS) && error.contains(part), "{error}");
        }
        let root = tempfile::tempdir().unwrap();
        std::fs::write(
            root.path().join("model_index.json"),
            r#"{"_class_name": "LTXPipeline"}"#,
        )
        .unwrap();
        let folder = Folder::open(root.path()).unwrap();
        let error = latent_statistics(&folder).unwrap_err().to_string();
        assert!(error.contains("config.json") && error.contains(WEIGHTS), "{error}");
        std::fs::create_dir(root.path().join("vae")).unwrap();
        std::fs::write(root.path().join("vae").join(WEIGHTS), "nothing").unwrap();
        let error = latent_statistics(&folder).unwrap_err().to_string();
        assert!(error.contains("no weights"), "{error}");
    }
}
