//! The folder of a pipeline: which components there are, and where their files stand.

use super::config::Config;
use super::{Family, PipelineError};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// The file that makes a folder a pipeline.
const INDEX: &str = "model_index.json";

/// The model's file in a component's folder.
const MODEL: &str = "model.onnx";

/// A pipeline's folder.
#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
    class: String,
    index: Map<String, Value>,
}

impl Folder {
    /// Reads `model_index.json`.
    ///
    /// # Errors
    /// [`PipelineError::NoIndex`] for a folder without one, [`PipelineError::File`] where it is damaged.
    pub fn open(root: &Path) -> Result<Folder, PipelineError> {
        let path = root.join(INDEX);
        if !path.is_file() {
            return Err(PipelineError::NoIndex {
                folder: root.to_owned(),
            });
        }
        let index = read_object(&path)?;
        let class = index.get("_class_name").and_then(Value::as_str).unwrap_or_default();
        if class.is_empty() {
            return Err(PipelineError::File {
                path,
                reason: "it has no `_class_name`; save the pipeline again with diffusers".to_owned(),
            });
        }
        Ok(Folder {
            root: root.to_owned(),
            class: class.to_owned(),
            index,
        })
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The pipeline's class in diffusers.
    pub fn class(&self) -> &str {
        &self.class
    }

    /// What this class of pipelines does.
    ///
    /// # Errors
    /// [`PipelineError::Class`] for classes that are not known.
    pub fn family(&self) -> Result<&'static Family, PipelineError> {
        Family::of(&self.class).ok_or_else(|| PipelineError::Class {
            path: self.root.join(INDEX),
            class: self.class.clone(),
            known: Family::known(),
        })
    }

    /// Whether the pipeline says that it has no such component (`[null, null]`), as some leave out a text encoder.
    pub fn is_without(&self, component: &str) -> bool {
        let entry = self.index.get(component).and_then(Value::as_array);
        entry.is_some_and(|entry| entry.iter().all(Value::is_null))
    }

    /// The index itself.
    pub(super) fn index_path(&self) -> PathBuf {
        self.root.join(INDEX)
    }

    /// What the index says under a name; `null` is nothing.
    pub(super) fn index_value(&self, key: &str) -> Option<&Value> {
        self.index.get(key).filter(|value| !value.is_null())
    }

    /// The folder of a component.
    pub fn component(&self, component: &str) -> PathBuf {
        self.root.join(component)
    }

    /// The model of a component: `model.onnx` in its folder.
    ///
    /// # Errors
    /// [`PipelineError::MissingModel`].
    pub fn model(&self, component: &str) -> Result<PathBuf, PipelineError> {
        let path = self.component(component).join(MODEL);
        if path.is_file() {
            return Ok(path);
        }
        let advice = match component {
            "transformer" => "export it with torch.onnx.export, or name another file with --transformer FILE.onnx",
            "transformer_2" => {
                "the index has a boundary_ratio, below which that transformer makes the steps: export it with torch.onnx.export, or \
                 name another file with --transformer-2 FILE.onnx"
            }
            "vae_decoder" => {
                "export the VAE's decoder with torch.onnx.export or Optimum and copy vae/config.json beside it, or write \
                 latents alone with --latents-only"
            }
            _ => "export it with Optimum or torch.onnx.export, or give embeddings with --prompt-embeds FILE.npy",
        };
        Err(PipelineError::MissingModel {
            path,
            component: component.to_owned(),
            advice,
        })
    }

    /// A component's `config.json`, where it has one.
    ///
    /// # Errors
    /// [`PipelineError::File`] where it is damaged.
    pub fn config(&self, component: &str) -> Result<Option<Config>, PipelineError> {
        let path = self.component(component).join("config.json");
        match path.is_file() {
            true => Config::read(path).map(Some),
            false => Ok(None),
        }
    }
}

/// Reads a JSON object.
pub(super) fn read_object(path: &Path) -> Result<Map<String, Value>, PipelineError> {
    let refuse = |reason: String| PipelineError::File {
        path: path.to_owned(),
        reason,
    };
    let text = std::fs::read_to_string(path).map_err(|error| refuse(format!("cannot be read: {error}")))?;
    match serde_json::from_str(&text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(refuse(
            "it is no JSON object; save the pipeline again with diffusers".to_owned(),
        )),
        Err(error) => Err(refuse(format!(
            "it is no JSON ({error}); save the pipeline again with diffusers"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(index: &str) -> (tempfile::TempDir, Result<Folder, PipelineError>) {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join(INDEX), index).unwrap();
        let folder = Folder::open(root.path());
        (root, folder)
    }

    #[test]
    fn the_index_names_class_and_components() {
        let (_root, folder) = folder(
            r#"{"_class_name": "StableDiffusion3Pipeline", "text_encoder_3": [null, null], "vae": ["diffusers", "X"]}"#,
        );
        let folder = folder.unwrap();
        assert_eq!(folder.family().unwrap().encoders.len(), 3);
        assert!(folder.is_without("text_encoder_3") && !folder.is_without("vae") && !folder.is_without("tokenizer"));
        let error = folder.model("vae_decoder").unwrap_err().to_string();
        assert!(
            error.contains("vae_decoder/model.onnx") && error.contains("vae/config.json"),
            "{error}"
        );
        assert!(folder.config("vae_decoder").unwrap().is_none());
    }

    #[test]
    fn damaged_and_unknown_indices_are_named() {
        for (index, part) in [
            ("[]", "no JSON object"),
            ("{", "no JSON ("),
            ("{}", "no `_class_name`"),
            (r#"{"_class_name": 3}"#, "no `_class_name`"),
        ] {
            let error = folder(index).1.unwrap_err().to_string();
            assert!(error.contains(INDEX) && error.contains(part), "{error}");
        }
        let (_root, mochi) = folder(r#"{"_class_name": "MochiPipeline"}"#);
        let error = mochi.unwrap().family().unwrap_err().to_string();
        assert!(
            error.contains("`MochiPipeline`") && error.contains("LattePipeline"),
            "{error}"
        );
        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(Folder::open(empty.path()), Err(PipelineError::NoIndex { .. })));
    }
}
