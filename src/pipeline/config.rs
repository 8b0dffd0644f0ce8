//! The `config.json` of a component.

use super::PipelineError;
use super::folder::read_object;
use serde_json::{Map, Value};
use std::path::PathBuf;

/// The fields of a `config.json`.
#[derive(Clone, Debug)]
pub struct Config {
    path: PathBuf,
    map: Map<String, Value>,
}

impl Config {
    /// Reads the file.
    pub fn read(path: PathBuf) -> Result<Config, PipelineError> {
        let map = read_object(&path)?;
        Ok(Config { path, map })
    }

    /// The name of diffusers' class, or nothing.
    pub fn class(&self) -> &str {
        self.map.get("_class_name").and_then(Value::as_str).unwrap_or_default()
    }

    /// A list.
    pub fn list(&self, key: &str) -> Option<&[Value]> {
        self.map.get(key).and_then(Value::as_array).map(Vec::as_slice)
    }

    /// That the value of `key` is another than is needed.
    pub fn refuse(&self, key: &str, needed: &str) -> PipelineError {
        PipelineError::File {
            path: self.path.clone(),
            reason: format!("`{key}` has to be {needed}; copy diffusers' config.json of the VAE"),
        }
    }

    /// Yes or no; `null` and nothing are no.
    pub fn flag(&self, key: &str) -> Result<bool, PipelineError> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| self.refuse(key, "true or false")),
        }
    }

    /// A number; `null` is none.
    pub fn number(&self, key: &str) -> Result<Option<f32>, PipelineError> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_f64().map(|number| number as f32) {
                Some(number) if number.is_finite() => Ok(Some(number)),
                _ => Err(self.refuse(key, "a number")),
            },
        }
    }

    /// A whole number from 1 to 1024; `null` is none.
    pub fn size(&self, key: &str) -> Result<Option<usize>, PipelineError> {
        match self.number(key)? {
            None => Ok(None),
            Some(size) if (1.0..=1024.0).contains(&size) && size.fract() == 0.0 => Ok(Some(size as usize)),
            Some(_) => Err(self.refuse(key, "a whole number from 1 to 1024")),
        }
    }

    /// A list of numbers; `null` is none.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f32>>, PipelineError> {
        let number = |value: &Value| {
            value
                .as_f64()
                .map(|number| number as f32)
                .filter(|number| number.is_finite())
        };
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(values)) => {
                let numbers: Option<Vec<f32>> = values.iter().map(number).collect();
                numbers.map(Some).ok_or_else(|| self.refuse(key, "a list of numbers"))
            }
            Some(_) => Err(self.refuse(key, "a list of numbers")),
        }
    }
}
