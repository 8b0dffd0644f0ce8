//! diffusers' `scheduler_config.json`, read strictly.

use std::path::Path;

use serde_json::Value;

use super::betas::{cumulated_alphas, rescale_to_zero_terminal_snr};
use super::fields::Fields;
use super::{BetaSchedule, Ddim, PredictionType, SamplerError, Scheduler, TimestepSpacing};

/// The classes that can be read, for error messages.
const SUPPORTED_CLASSES: &str = "\"DDIMScheduler\"";

/// More training timesteps than any model has; keeps a hostile file from asking for all memory.
const MOST_TRAINING_TIMESTEPS: i64 = 1_000_000;

/// A scheduler's configuration, one variant a class.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum SchedulerConfig {
    /// `DDIMScheduler`.
    Ddim(DdimConfig),
}

/// How the predicted clean sample is kept in range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// Left as it is.
    None,
    /// Clamped to plus and minus this number (`clip_sample`, `clip_sample_range`).
    Clip(f32),
    /// Dynamic thresholding (`thresholding`; Imagen, 2205.11487, section 2.3): clamped per batch element to its own
    /// quantile of absolute values, which is held between 1 and `most`, and divided by it.
    Threshold {
        /// The quantile (`dynamic_thresholding_ratio`).
        ratio: f32,
        /// The largest threshold (`sample_max_value`).
        most: f32,
    },
}

/// The options of diffusers' `DDIMScheduler`; missing keys have diffusers' defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct DdimConfig {
    /// The number of training timesteps.
    pub trained: usize,
    /// The cumulated products of `1 - beta`, one a training timestep: what `beta_schedule`, `beta_start`, `beta_end`,
    /// `trained_betas` and `rescale_betas_zero_snr` come to.
    pub cumulated_alphas: Vec<f32>,
    /// What the model predicts.
    pub prediction: PredictionType,
    /// How the predicted clean sample is kept in range.
    pub limit: Limit,
    /// Whether the step after the last has a cumulated alpha of 1, or that of timestep 0.
    pub set_alpha_to_one: bool,
    /// Added to the timesteps of `leading` spacing.
    pub steps_offset: i64,
    /// Which timesteps are visited.
    pub spacing: TimestepSpacing,
    /// Keys of the file that this class does not have, and that were ignored as diffusers ignores them (configurations
    /// converted from another scheduler carry such keys). Worth a warning: one may be a misspelt option.
    pub ignored: Vec<String>,
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
        let value: Value = serde_json::from_str(text).map_err(|error| SamplerError::Json {
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
        match object.get("_class_name") {
            None => Err(SamplerError::NoClass {
                file: file.to_owned(),
                supported: SUPPORTED_CLASSES.to_owned(),
            }),
            Some(Value::String(class)) if class == "DDIMScheduler" => {
                DdimConfig::read(&fields).map(SchedulerConfig::Ddim)
            }
            Some(_) => Err(fields.refuse("_class_name", SUPPORTED_CLASSES)),
        }
    }

    /// The scheduler for a run of `steps` steps.
    ///
    /// # Errors
    /// Those of the class, see [`Ddim::new`].
    pub fn scheduler(&self, steps: usize) -> Result<Box<dyn Scheduler>, SamplerError> {
        match self {
            SchedulerConfig::Ddim(config) => Ok(Box::new(Ddim::new(config, steps)?)),
        }
    }

    /// The class's name in diffusers.
    pub fn class(&self) -> &'static str {
        match self {
            SchedulerConfig::Ddim(_) => "DDIMScheduler",
        }
    }

    /// Keys that were ignored; see [`DdimConfig::ignored`].
    pub fn ignored(&self) -> &[String] {
        match self {
            SchedulerConfig::Ddim(config) => &config.ignored,
        }
    }
}

impl DdimConfig {
    /// The keys that the class has.
    const KEYS: &'static [&'static str] = &[
        "beta_end",
        "beta_schedule",
        "beta_start",
        "clip_sample",
        "clip_sample_range",
        "dynamic_thresholding_ratio",
        "num_train_timesteps",
        "prediction_type",
        "rescale_betas_zero_snr",
        "sample_max_value",
        "set_alpha_to_one",
        "steps_offset",
        "thresholding",
        "timestep_spacing",
        "trained_betas",
    ];

    fn read(fields: &Fields<'_>) -> Result<DdimConfig, SamplerError> {
        let trained = fields.integer("num_train_timesteps", 1000, 1, MOST_TRAINING_TIMESTEPS)? as usize;
        let start = fields.number("beta_start", 0.0001, 0.0, 1.0)?;
        let end = fields.number("beta_end", 0.02, 0.0, 1.0)?;
        let schedule = fields.choice("beta_schedule", BetaSchedule::Linear, BetaSchedule::NAMES)?;
        let betas = match fields.numbers("trained_betas", 0.0, 1.0)? {
            None => schedule.betas(start, end, trained),
            Some(betas) if betas.len() == trained => betas.into_iter().map(|beta| beta as f32).collect(),
            Some(_) => {
                let needed = format!("null, or as many numbers as `num_train_timesteps`, {trained}");
                return Err(fields.refuse("trained_betas", needed));
            }
        };
        let rescale = fields.boolean("rescale_betas_zero_snr", false)?;
        let betas = if rescale {
            rescale_to_zero_terminal_snr(&betas)
        } else {
            betas
        };
        let most = fields.number("sample_max_value", 1.0, 0.0, f64::from(f32::MAX))? as f32;
        let ratio = fields.number("dynamic_thresholding_ratio", 0.995, 0.0, 1.0)? as f32;
        let range = fields.number("clip_sample_range", 1.0, 0.0, f64::from(f32::MAX))? as f32;
        let clip = fields.boolean("clip_sample", true)?;
        let limit = match (fields.boolean("thresholding", false)?, clip) {
            (true, _) if most > 0.0 => Limit::Threshold { ratio, most },
            (true, _) => return Err(fields.refuse("sample_max_value", "a number above 0 with `thresholding`")),
            (false, true) => Limit::Clip(range),
            (false, false) => Limit::None,
        };
        Ok(DdimConfig {
            trained,
            cumulated_alphas: cumulated_alphas(&betas),
            prediction: fields.choice("prediction_type", PredictionType::Epsilon, PredictionType::NAMES)?,
            limit,
            set_alpha_to_one: fields.boolean("set_alpha_to_one", true)?,
            steps_offset: fields.integer("steps_offset", 0, -MOST_TRAINING_TIMESTEPS, MOST_TRAINING_TIMESTEPS)?,
            spacing: fields.choice("timestep_spacing", TimestepSpacing::Leading, TimestepSpacing::NAMES)?,
            ignored: fields.others(Self::KEYS),
        })
    }
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

    fn parsed(options: &str) -> Result<DdimConfig, SamplerError> {
        let text = format!(r#"{{"_class_name": "DDIMScheduler"{options}}}"#);
        SchedulerConfig::parse("scheduler_config.json", &text).map(|SchedulerConfig::Ddim(config)| config)
    }

    #[test]
    fn missing_keys_have_the_defaults_of_diffusers() {
        let config = parsed("").unwrap();
        assert_eq!(config.trained, 1000);
        assert_eq!(config.limit, Limit::Clip(1.0));
        assert_eq!(config.prediction, PredictionType::Epsilon);
        assert_eq!((config.steps_offset, config.set_alpha_to_one), (0, true));
        assert_eq!(config.spacing, TimestepSpacing::Leading);
        assert_eq!(config.cumulated_alphas.len(), 1000);
        assert_eq!(config.cumulated_alphas[0], 1.0 - 0.0001);
    }

    #[test]
    fn keys_of_other_schedulers_are_reported_and_ignored() {
        let config = parsed(r#", "_diffusers_version": "0.42.1", "skip_prk_steps": true, "clip_samples": false"#);
        assert_eq!(config.unwrap().ignored, ["clip_samples", "skip_prk_steps"]);
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
            let message = parsed(options).unwrap_err().to_string();
            assert!(message.starts_with("scheduler_config.json: "), "{message}");
            for part in expected {
                assert!(message.contains(part), "{message:?} does not contain {part:?}");
            }
        }
    }

    #[test]
    fn a_list_of_a_thousand_numbers_does_not_bury_the_message() {
        let options = format!(r#", "trained_betas": [{}2]"#, "0.5, ".repeat(5000));
        assert!(parsed(&options).unwrap_err().to_string().len() < 300);
    }

    #[test]
    fn the_class_is_checked() {
        let parse = |text: &str| SchedulerConfig::parse("s.json", text).unwrap_err().to_string();
        assert!(parse(r#"{"_class_name": "PNDMScheduler"}"#).contains("\"PNDMScheduler\", which is not supported"));
        assert!(parse("{}").contains("`_class_name` is missing"));
        assert!(parse("[1]").contains("a list"));
        assert!(parse("{\n \"a\": }").contains("line 2, column 7"));
        assert!(parse("").contains("not valid JSON"));
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
