//! What of a calibration is done: `calibration.json`, which `--resume` goes on from.

use super::CalibrateOptions;
use super::studio::Run;
use crate::calibrate::{CALIBRATION_FORMAT, Calibration};
use crate::cli::Failure;
use crate::onnx::Model;
use crate::report::write_json;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The file.
pub const FILE: &str = "calibration.json";

/// What is done, and where it is written.
pub struct State {
    /// All that was found.
    pub calibration: Calibration,
    path: PathBuf,
}

impl State {
    /// A new calibration, or, with `--resume`, what an earlier one left.
    pub fn of(options: &CalibrateOptions, runs: &[Run]) -> Result<State, Failure> {
        std::fs::create_dir_all(&options.output).map_err(|source| crate::report::ReportError::Write {
            path: options.output.clone(),
            source,
        })?;
        let path = options.output.join(FILE);
        let settings = settings(options, runs)?;
        if options.resume && path.exists() {
            let mut calibration = read(&path, &settings)?;
            // The target may be another: of the points and clips, those that are still wanted are taken over.
            calibration.chosen = None;
            calibration.command = std::env::args().collect();
            return Ok(State { calibration, path });
        }
        let Some((run, also)) = runs.split_first() else {
            return Err(Failure::Usage("there is no run to fit to; give --steps".to_owned()));
        };
        let calibration = Calibration {
            format: CALIBRATION_FORMAT,
            generator: concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")).to_owned(),
            command: std::env::args().collect(),
            settings,
            run: run.record.clone(),
            also: also.iter().map(|run| run.record.clone()).collect(),
            drift: Vec::new(),
            stable_below: options.stable_below,
            kinds: Vec::new(),
            measured: Vec::new(),
            frontier: Vec::new(),
            chosen: None,
            judged: Vec::new(),
        };
        Ok(State { calibration, path })
    }

    /// Writes the file, whole or not at all.
    pub fn save(&self) -> Result<(), Failure> {
        Ok(write_json(&self.path, &self.calibration)?)
    }
}

/// What measurements depend on. Numbers with a fraction are text, which reads back as it was written.
fn settings(options: &CalibrateOptions, runs: &[Run]) -> Result<BTreeMap<String, Value>, Failure> {
    let schedulers: Vec<&str> = runs.iter().map(|run| run.record.scheduler.as_str()).collect();
    let timesteps: Vec<String> = runs.iter().map(|run| format!("{:?}", run.record.timesteps)).collect();
    let settings = [
        ("the model", json!(Model::load(&options.model)?.graph_sha256())),
        ("the schedulers", json!(schedulers)),
        ("their timesteps", json!(timesteps)),
        ("--guidance", json!(options.sampling.guidance().to_string())),
        ("--clips", json!(options.clips)),
        ("--seed", json!(options.seed)),
        ("--prompt", json!(options.prompt)),
        ("--prompt-embeds", json!(options.sampling.prompt_embeds)),
        ("--size", json!(options.sampling.sizes)),
        ("--windows", json!(options.windows)),
        ("--stable-below", json!(options.stable_below.to_string())),
    ];
    Ok(settings.map(|(name, value)| (name.to_owned(), value)).into())
}

fn read(path: &PathBuf, settings: &BTreeMap<String, Value>) -> Result<Calibration, Failure> {
    let refuse = |reason: String| {
        Failure::Usage(format!(
            "--resume: {} {reason}, or leave --resume out to measure all anew",
            path.display()
        ))
    };
    let text =
        std::fs::read_to_string(path).map_err(|error| refuse(format!("cannot be read ({error}); make it readable")))?;
    let found: Calibration = serde_json::from_str(&text)
        .map_err(|error| refuse(format!("is no calibration ({error}); restore the file")))?;
    if found.format != CALIBRATION_FORMAT {
        let format = found.format;
        return Err(refuse(format!(
            "has format {format}, and only {CALIBRATION_FORMAT} is known; use the version that wrote it"
        )));
    }
    let differing = |name: &&String| found.settings.get(*name) != settings.get(*name);
    let names: Vec<&str> = settings.keys().filter(differing).map(String::as_str).collect();
    match names.is_empty() {
        true => Ok(found),
        false => Err(refuse(format!(
            "was measured with another value of {}; give the settings of then",
            names.join(", ")
        ))),
    }
}
