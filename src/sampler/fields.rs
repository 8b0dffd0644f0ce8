//! Typed access to the keys of a configuration object, with errors that name file, key, value and what is supported.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::SamplerError;

/// The keys of one configuration object.
pub(super) struct Fields<'a> {
    file: &'a str,
    object: &'a Map<String, Value>,
    /// The keys that were asked for.
    read: RefCell<BTreeSet<String>>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(file: &'a str, object: &'a Map<String, Value>) -> Fields<'a> {
        Fields {
            file,
            object,
            read: RefCell::default(),
        }
    }

    /// The value of a key.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.read.borrow_mut().insert(key.to_owned());
        self.object.get(key)
    }

    /// The error for a value that is not supported.
    pub(super) fn refuse(&self, key: &str, supported: impl Into<String>) -> SamplerError {
        SamplerError::Unsupported {
            file: self.file.to_owned(),
            key: key.to_owned(),
            value: shortened(self.object.get(key).unwrap_or(&Value::Null).to_string()),
            supported: supported.into(),
        }
    }

    /// A boolean, or the default where the key is missing.
    pub(super) fn boolean(&self, key: &str, default: bool) -> Result<bool, SamplerError> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.refuse(key, "true, false")),
        }
    }

    /// A number within `low..=high`, or the default where the key is missing.
    pub(super) fn number(&self, key: &str, default: f64, low: f64, high: f64) -> Result<f64, SamplerError> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value
                .as_f64()
                .filter(|number| (low..=high).contains(number))
                .ok_or_else(|| self.refuse(key, format!("a number from {low} to {high}"))),
        }
    }

    /// A whole number within `low..=high`, or the default where the key is missing. `1.0` counts as whole.
    pub(super) fn integer(&self, key: &str, default: i64, low: i64, high: i64) -> Result<i64, SamplerError> {
        let whole = |value: &Value| {
            value.as_i64().or_else(|| {
                value
                    .as_f64()
                    .filter(|number| number.fract() == 0.0)
                    .map(|number| number as i64)
            })
        };
        match self.get(key) {
            None => Ok(default),
            Some(value) => whole(value)
                .filter(|number| (low..=high).contains(number))
                .ok_or_else(|| self.refuse(key, format!("a whole number from {low} to {high}"))),
        }
    }

    /// One of a table of names, or the default where the key is missing.
    pub(super) fn choice<T: Copy>(
        &self,
        key: &str,
        default: T,
        names: &[(&'static str, T)],
    ) -> Result<T, SamplerError> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        names
            .iter()
            .find(|(name, _)| value.as_str() == Some(name))
            .map(|&(_, choice)| choice)
            .ok_or_else(|| {
                let listed: Vec<String> = names.iter().map(|(name, _)| format!("\"{name}\"")).collect();
                self.refuse(key, listed.join(", "))
            })
    }

    /// A list of numbers within `low..=high`, or `None` where the key is missing or null.
    pub(super) fn numbers(&self, key: &str, low: f64, high: f64) -> Result<Option<Vec<f64>>, SamplerError> {
        let refuse = || {
            self.refuse(
                key,
                format!("null, or a list of numbers from {low} to {high}, at least one"),
            )
        };
        match self.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(items)) if !items.is_empty() => items
                .iter()
                .map(|item| {
                    item.as_f64()
                        .filter(|number| (low..=high).contains(number))
                        .ok_or_else(refuse)
                })
                .collect::<Result<Vec<f64>, _>>()
                .map(Some),
            Some(_) => Err(refuse()),
        }
    }

    /// A boolean that is false where the key is missing or null.
    pub(super) fn flag(&self, key: &str) -> Result<bool, SamplerError> {
        match self.get(key) {
            Some(Value::Null) => Ok(false),
            _ => self.boolean(key, false),
        }
    }

    /// A number within `low..=high`, or `None` where the key is missing or null.
    pub(super) fn optional_number(&self, key: &str, low: f64, high: f64) -> Result<Option<f64>, SamplerError> {
        match self.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(_) => self.number(key, 0.0, low, high).map(Some),
        }
    }

    /// A list of indices; empty where the key is missing.
    pub(super) fn indices(&self, key: &str) -> Result<Vec<usize>, SamplerError> {
        let refuse = || self.refuse(key, "a list of whole numbers from 0");
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => items
                .iter()
                .map(|item| {
                    let index = item.as_u64().and_then(|index| usize::try_from(index).ok());
                    index.ok_or_else(refuse)
                })
                .collect(),
            Some(_) => Err(refuse()),
        }
    }

    /// Whether a key has this text; a key that is missing has none.
    pub(super) fn is_text(&self, key: &str, text: &str) -> bool {
        self.get(key).and_then(Value::as_str) == Some(text)
    }

    /// Whether a key is there and not null; for keys that only concern training, or that say what the default says.
    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| !value.is_null())
    }

    /// The keys that stand in the object and that nobody asked for, sorted; keys that begin with `_` are bookkeeping.
    pub(super) fn never_read(&self) -> Vec<String> {
        let read = self.read.borrow();
        let mut others: Vec<String> = self
            .object
            .keys()
            .filter(|key| !key.starts_with('_') && !read.contains(key.as_str()))
            .cloned()
            .collect();
        others.sort();
        others
    }
}

/// A value for an error message: a list of a thousand betas would bury the message.
fn shortened(text: String) -> String {
    const LIMIT: usize = 80;
    if text.chars().count() <= LIMIT {
        return text;
    }
    text.chars().take(LIMIT).chain(" ...".chars()).collect()
}
