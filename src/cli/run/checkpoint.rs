//! What of a batch of prompts is finished: `run.json` beside its clips, for `--resume`.

use super::RunOptions;
use super::report::{ClipRecord, Head};
use crate::cli::Failure;
use crate::report::write_json;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The file.
const FILE: &str = "run.json";
/// The version of its format.
const FORMAT: u32 = 1;

/// What clips depend on, by the words that a person knows it by.
pub type Settings = BTreeMap<String, Value>;

/// The state of a batch.
#[derive(Debug, Serialize, Deserialize)]
pub struct Checkpoint {
    format: u32,
    generator: String,
    settings: Settings,
    /// What is said of the model once it was open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Head>,
    /// The clips whose arrays are written, by number.
    pub clips: BTreeMap<usize, ClipRecord>,
    #[serde(skip)]
    path: PathBuf,
}

impl Checkpoint {
    /// The batch with these settings: anew, or as an earlier run left it where `--resume` asks for that and there is one.
    pub fn of(options: &RunOptions, settings: Settings) -> Result<Checkpoint, Failure> {
        let path = options.output.join(FILE);
        if options.resume && path.exists() {
            return Checkpoint::read(path, &settings);
        }
        Ok(Checkpoint {
            format: FORMAT,
            generator: concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")).to_owned(),
            settings,
            head: None,
            clips: BTreeMap::new(),
            path,
        })
    }

    fn read(path: PathBuf, settings: &Settings) -> Result<Checkpoint, Failure> {
        let refuse = |reason: String| {
            Failure::Usage(format!(
                "--resume: {} {reason}, or leave --resume out to make all clips anew",
                path.display()
            ))
        };
        let text = std::fs::read_to_string(&path)
            .map_err(|error| refuse(format!("cannot be read ({error}); make it readable")))?;
        let mut found: Checkpoint = serde_json::from_str(&text)
            .map_err(|error| refuse(format!("is no record of clips ({error}); restore the file")))?;
        if found.format != FORMAT {
            let format = found.format;
            return Err(refuse(format!(
                "has format {format}, and only {FORMAT} is known; use the version that wrote it"
            )));
        }
        let differing = differences(&found.settings, settings);
        if !differing.is_empty() {
            let list = differing.join("; ");
            return Err(refuse(format!(
                "is of clips with other settings: {list}; give the settings of then"
            )));
        }
        found.path.clone_from(&path);
        Ok(found)
    }

    /// Writes the file, whole or not at all.
    pub fn save(&self) -> Result<(), Failure> {
        Ok(write_json(&self.path, self)?)
    }

    /// Where it is written.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What differs between the settings of then and now, in words.
fn differences(then: &Settings, now: &Settings) -> Vec<String> {
    let names: BTreeSet<&String> = then.keys().chain(now.keys()).collect();
    let differing = names.into_iter().filter(|name| then.get(*name) != now.get(*name));
    differing
        .map(|name| {
            let (then, now) = (shown(then.get(name)), shown(now.get(name)));
            match (then, now) {
                (Some(then), Some(now)) => format!("{name} was {then} and is {now}"),
                _ => format!("{name} is another"),
            }
        })
        .collect()
}

/// A setting in a few words; nothing where it is long, as hashes are.
fn shown(value: Option<&Value>) -> Option<String> {
    const LONGEST: usize = 40;
    let text = match value {
        None | Some(Value::Null) => "not given".to_owned(),
        Some(value) => value.to_string(),
    };
    (text.chars().count() <= LONGEST).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_differs_is_named_and_hashes_are_not_shown() {
        let settings = |value: Value| -> Settings { serde_json::from_value(value).unwrap() };
        let then = settings(json!({"--steps": 4, "the model": "0".repeat(64), "--guidance": 2.0, "--old": 1}));
        let now = settings(json!({"--steps": 5, "the model": "1".repeat(64), "--guidance": 2.0}));
        assert_eq!(
            differences(&then, &now),
            [
                "--old was 1 and is not given",
                "--steps was 4 and is 5",
                "the model is another"
            ]
        );
        assert!(differences(&now, &now).is_empty());
    }
}
