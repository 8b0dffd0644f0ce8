//! diffusers' `scheduler_config.json`, read strictly.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::fields::Fields;
use super::{
    CogVideoXConfig, DdimConfig, DdpmConfig, DpmSolverConfig, EulerAncestralConfig, EulerConfig, FlowMatchConfig,
    HeunConfig, LcmConfig, PndmConfig, RectifiedFlowConfig, RunSettings, SamplerError, Scheduler, UniPcConfig,
};

/// The options of a scheduler class, from which schedulers are made.
pub(super) trait SchedulerOptions: Debug + Send + Sync {
    /// The scheduler for a run.
    fn scheduler(&self, run: &RunSettings) -> Result<Box<dyn Scheduler>, SamplerError>;
}

/// Options as they are read.
type Options = Arc<dyn SchedulerOptions>;

/// A class that can be read.
struct Class {
    name: &'static str,
    read: fn(&Fields<'_>) -> Result<Options, SamplerError>,
}

/// The entry of a class.
macro_rules! class {
    ($name:literal, $read:expr) => {
        Class {
            name: $name,
            read: |fields| Ok(Arc::new($read(fields)?)),
        }
    };
}

/// Every class that can be read, by diffusers' names (the last is our own).
const CLASSES: &[Class] = &[
    class!("DDIMScheduler", DdimConfig::read),
    class!("DDPMScheduler", DdpmConfig::read),
    class!("PNDMScheduler", PndmConfig::read),
    class!("EulerDiscreteScheduler", EulerConfig::read),
    class!("EulerAncestralDiscreteScheduler", EulerAncestralConfig::read),
    class!("HeunDiscreteScheduler", HeunConfig::read),
    class!("DPMSolverMultistepScheduler", DpmSolverConfig::read_multistep),
    class!("DPMSolverSinglestepScheduler", DpmSolverConfig::read_singlestep),
    class!("UniPCMultistepScheduler", UniPcConfig::read),
    class!("LCMScheduler", LcmConfig::read),
    class!("FlowMatchEulerDiscreteScheduler", FlowMatchConfig::read),
    class!("CogVideoXDDIMScheduler", CogVideoXConfig::read_ddim),
    class!("CogVideoXDPMScheduler", CogVideoXConfig::read_dpm),
    class!("OpenSoraRFlowScheduler", RectifiedFlowConfig::read),
];

/// A scheduler's configuration.
#[derive(Clone, Debug)]
pub struct SchedulerConfig {
    class: &'static str,
    options: Options,
    ignored: Vec<String>,
    train_timesteps: u32,
}

impl SchedulerConfig {
    /// Reads a `scheduler_config.json`.
    ///
    /// # Errors
    /// [`SamplerError::Read`] where the file cannot be read, and those of [`SchedulerConfig::parse`].
    pub fn load(path: &Path) -> Result<SchedulerConfig, SamplerError> {
        let read = |source| SamplerError::Read {
            path: path.to_owned(),
            source,
        };
        let text = std::fs::read_to_string(path).map_err(read)?;
        SchedulerConfig::parse(&path.display().to_string(), &text)
    }

    /// Reads the text of a `scheduler_config.json`; `file` names it in errors.
    ///
    /// # Errors
    /// [`SamplerError`] for text that is not a JSON object, a class or an option value that is not supported.
    pub fn parse(file: &str, text: &str) -> Result<SchedulerConfig, SamplerError> {
        let value = json(text).map_err(|error| SamplerError::Json {
            file: file.to_owned(),
            line: error.line(),
            column: error.column(),
            reason: error.to_string(),
        })?;
        let Value::Object(object) = &value else {
            return Err(SamplerError::NotAnObject {
                file: file.to_owned(),
                found: kind_of(&value),
            });
        };
        let fields = Fields::new(file, object);
        let Some(name) = object.get("_class_name") else {
            return Err(SamplerError::NoClass {
                file: file.to_owned(),
                supported: SchedulerConfig::supported(),
            });
        };
        let class = CLASSES
            .iter()
            .find(|class| name.as_str() == Some(class.name))
            .ok_or_else(|| fields.refuse("_class_name", SchedulerConfig::supported()))?;
        let options = (class.read)(&fields)?;
        Ok(SchedulerConfig {
            class: class.name,
            options,
            ignored: fields.never_read(),
            train_timesteps: train_timesteps(object),
        })
    }

    /// The classes that can be read, for messages.
    fn supported() -> String {
        let names: Vec<String> = CLASSES.iter().map(|class| format!("\"{}\"", class.name)).collect();
        names.join(", ")
    }

    /// The scheduler for a run of `steps` steps of which nothing else is known.
    ///
    /// # Errors
    /// As [`SchedulerConfig::scheduler_for`].
    pub fn scheduler(&self, steps: usize) -> Result<Box<dyn Scheduler>, SamplerError> {
        self.scheduler_for(&RunSettings::of_steps(steps))
    }

    /// The scheduler for a run.
    ///
    /// # Errors
    /// [`SamplerError::Steps`] for a number of steps that the class cannot make, [`SamplerError::Unknown`] where the
    /// class must know more of the run, [`SamplerError::Given`] for levels that it cannot be given, [`SamplerError::Singular`], [`SamplerError::Offset`] and
    /// [`SamplerError::Coefficients`] where a step has no numbers.
    pub fn scheduler_for(&self, run: &RunSettings) -> Result<Box<dyn Scheduler>, SamplerError> {
        if let Some(levels) = &run.levels {
            levels.check(self.class)?;
        }
        self.options.scheduler(run)
    }

    /// The class's name in diffusers.
    pub fn class(&self) -> &'static str {
        self.class
    }

    /// The number of timesteps that models are trained with: `num_train_timesteps`.
    pub fn train_timesteps(&self) -> u32 {
        self.train_timesteps
    }

    /// Keys of the file that this class does not have, and that were ignored as diffusers ignores them (configurations
    /// converted from another scheduler carry such keys). Worth a warning: one may be a misspelt option.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }
}

/// As diffusers' classes have it where nothing is said; the class has checked the number.
fn train_timesteps(object: &serde_json::Map<String, Value>) -> u32 {
    let given = object.get("num_train_timesteps").and_then(Value::as_u64);
    given.and_then(|given| u32::try_from(given).ok()).unwrap_or(1000)
}

/// JSON as Python writes it: infinities and NaN, which JSON has no words for, are read as the strings of their names.
fn json(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text).or_else(|error| {
        let quoted = quote_infinities(text);
        serde_json::from_str(&quoted).map_err(|_| error)
    })
}

/// The text with quotes around `-Infinity`, `Infinity` and `NaN`, where they do not stand in a string.
fn quote_infinities(text: &str) -> String {
    const NAMES: [&str; 3] = ["-Infinity", "Infinity", "NaN"];
    let mut quoted = String::with_capacity(text.len() + 16);
    let (mut rest, mut in_string) = (text, false);
    while let Some(character) = rest.chars().next() {
        let name = NAMES.iter().find(|name| !in_string && rest.starts_with(**name));
        let taken = match name {
            Some(name) => {
                quoted.extend(["\"", name, "\""]);
                name.len()
            }
            None if in_string && character == '\\' => {
                // An escaped quote does not end the string.
                let escaped: String = rest.chars().take(2).collect();
                quoted.push_str(&escaped);
                escaped.len()
            }
            None => {
                in_string ^= character == '"';
                quoted.push(character);
                character.len_utf8()
            }
        };
        rest = rest.get(taken..).unwrap_or("");
    }
    quoted
}

/// What a JSON value is, for error messages.
fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(options: &str) -> String {
        let text = format!(r#"{{"_class_name": "DDIMScheduler"{options}}}"#);
        let refused = SchedulerConfig::parse("scheduler_config.json", &text);
        refused.unwrap_err().to_string()
    }

    #[test]
    fn keys_of_other_schedulers_are_reported_and_ignored() {
        let text = r#"{"_class_name": "DDIMScheduler", "_diffusers_version": "0.42.1", "skip_prk_steps": true,
            "clip_samples": false}"#;
        let config = SchedulerConfig::parse("s.json", text).unwrap();
        assert_eq!(config.ignored(), ["clip_samples", "skip_prk_steps"]);
    }

    #[test]
    fn every_refusal_names_file_key_value_and_what_is_supported() {
        let cases = [
            (
                r#", "beta_schedule": "sigmoid""#,
                vec!["`beta_schedule`", "\"sigmoid\"", "\"squaredcos_cap_v2\""],
            ),
            (
                r#", "prediction_type": "flow""#,
                vec!["`prediction_type`", "\"flow\"", "\"v_prediction\""],
            ),
            (
                r#", "timestep_spacing": 3"#,
                vec!["`timestep_spacing`", "is 3", "\"trailing\""],
            ),
            (
                r#", "clip_sample": "yes""#,
                vec!["`clip_sample`", "\"yes\"", "true, false"],
            ),
            (
                r#", "num_train_timesteps": 0"#,
                vec!["`num_train_timesteps`", "is 0", "1 to 1000000"],
            ),
            (
                r#", "num_train_timesteps": 1e18"#,
                vec!["`num_train_timesteps`", "1 to 1000000"],
            ),
            (
                r#", "steps_offset": 0.5"#,
                vec!["`steps_offset`", "0.5", "whole number"],
            ),
            (r#", "beta_start": -1"#, vec!["`beta_start`", "-1", "0 to 1"]),
            (
                r#", "trained_betas": [0.1, 0.2]"#,
                vec!["`trained_betas`", "[0.1,0.2]", "1000"],
            ),
            (r#", "trained_betas": []"#, vec!["`trained_betas`", "at least one"]),
            (
                r#", "thresholding": true, "sample_max_value": 0"#,
                vec!["`sample_max_value`", "above 0"],
            ),
        ];
        for (options, expected) in cases {
            let message = refusal(options);
            assert!(message.starts_with("scheduler_config.json: "), "{message}");
            for part in expected {
                assert!(message.contains(part), "{message:?} does not contain {part:?}");
            }
        }
    }

    #[test]
    fn a_list_of_a_thousand_numbers_does_not_bury_the_message() {
        let options = format!(r#", "trained_betas": [{}2]"#, "0.5, ".repeat(5000));
        assert!(refusal(&options).len() < 300);
    }

    #[test]
    fn the_class_is_checked() {
        let parse = |text: &str| SchedulerConfig::parse("s.json", text).unwrap_err().to_string();
        let unknown = parse(r#"{"_class_name": "KarrasVeScheduler"}"#);
        assert!(
            unknown.contains("\"KarrasVeScheduler\", which is not supported") && unknown.contains("\"PNDMScheduler\""),
            "{unknown}"
        );
        assert!(parse("{}").contains("`_class_name` is missing"));
        assert!(parse("[1]").contains("a list"));
        assert!(parse("{\n \"a\": }").contains("line 2, column 7"));
        assert!(parse("").contains("not valid JSON"));
    }

    #[test]
    fn infinities_as_python_writes_them_are_read() {
        let text =
            r#"{"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -Infinity, "n\"aNaN": "NaN"}"#;
        let config = SchedulerConfig::parse("s.json", text).unwrap();
        assert_eq!(config.ignored(), ["n\"aNaN"]);
        let text = r#"{"_class_name": "DDIMScheduler", "beta_start": NaN}"#;
        let message = SchedulerConfig::parse("s.json", text).unwrap_err().to_string();
        assert!(message.contains("`beta_start` is \"NaN\""), "{message}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = SchedulerConfig::load(Path::new("no/such/scheduler_config.json")).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("no/such/scheduler_config.json: cannot read"),
            "{error}"
        );
    }

    #[test]
    fn a_configuration_that_diffusers_wrote_is_read() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sampler/scheduler_config.json");
        let config = SchedulerConfig::load(&path).unwrap();
        assert_eq!(config.class(), "DDIMScheduler");
        assert!(config.ignored().is_empty());
        let scheduler = config.scheduler(50).unwrap();
        assert_eq!(scheduler.timesteps().len(), 50);
        assert_eq!((scheduler.timesteps()[0], scheduler.timesteps()[49]), (981.0, 1.0));
    }
}
