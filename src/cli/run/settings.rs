//! What the clips of a batch depend on, for telling whether an earlier run was the same.

use super::Batch;
use super::checkpoint::Settings;
use crate::cli::Failure;
use crate::cli::session::scheduler_beside;
use crate::cli::source::{Pipeline, plan_of};
use crate::onnx::Model;
use crate::report::ReportError;
use crate::rewrite::PLAN_KEY;
use crate::rules::Rules;
use clap::ValueEnum;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// The setting that is the model's hash.
pub const MODEL: &str = "the model";
/// The setting that is the hash of its plan.
pub const PLAN: &str = "its plan";

/// The settings of a batch. Files count by their contents, the model by its graph and a sample of each weight.
pub fn of(batch: &Batch) -> Result<Settings, Failure> {
    let (options, sampling) = (&batch.options, &batch.options.sampling);
    let model = Model::load(&batch.source.model)?;
    let plan = model.proto.metadata(PLAN_KEY);
    let scheduler = scheduler_beside(&batch.source.model, sampling.scheduler.as_deref());
    let pipeline = batch.source.pipeline.as_ref();
    let embeds = sampling.prompt_embeds.is_some();
    let encoders = pipeline
        .map(|pipeline| pipeline.encoder_files(embeds))
        .unwrap_or_default();
    // Those that stand in a configuration, and those that stand among gigabytes of weights.
    let statistics = pipeline.and_then(|pipeline| pipeline.vae.as_ref()?.statistics());
    let decoder = pipeline.map(Pipeline::decoder_files).unwrap_or_default();
    let inputs = sampling.inputs.iter().map(|input| hash_of(&input.path));
    let animations: Vec<String> = options.animation.iter().map(word).collect();
    let settings = [
        (MODEL, json!(model.sampled_sha256()?)),
        (PLAN, json!(plan.map(|plan| sha256(plan.as_bytes())))),
        ("the text encoders", contents(&encoders)?),
        ("the VAE", contents(&decoder)?),
        ("the VAE's statistics", json!(statistics)),
        ("the scheduler", file(scheduler.as_deref())?),
        ("--steps", json!(batch.settings.steps)),
        ("--timesteps", json!(options.timesteps)),
        ("--sigmas", json!(options.sigmas)),
        ("--tokens", json!(batch.settings.tokens)),
        (
            "--video",
            json!(batch.settings.video.map(|size| [size.frames, size.height, size.width])),
        ),
        ("--guidance", json!(batch.source.asked_guidance())),
        ("--seed", json!(options.seed)),
        ("--batch", json!(options.batch)),
        ("--prompts", json!(batch.prompts)),
        ("--negative-prompt", json!(options.source.negative_prompt)),
        ("the size", json!(batch.source.latent.noise())),
        ("--noise", file(options.noise.as_deref())?),
        ("--step-noise", file(options.step_noise.as_deref())?),
        ("--input", json!(inputs.collect::<Result<Vec<String>, Failure>>()?)),
        ("--every-step", json!(options.every_step)),
        ("--arrays", json!(word(&options.arrays))),
        ("--animation", json!(animations)),
        ("--fps", json!(sampling.fps)),
        ("--scale", json!(sampling.scale)),
        ("--latents-only", json!(options.latents_only)),
        ("--decoded", json!(options.decoded)),
    ];
    let mut settings: Settings = settings
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect();
    if let Some(second) = &batch.source.second {
        let plan = plan_of(&second.model)?.map(|plan| plan.to_json()).transpose()?;
        settings.extend([
            (
                "the second model".to_owned(),
                json!(Model::load(&second.model)?.sampled_sha256()?),
            ),
            (
                "the second plan".to_owned(),
                json!(plan.map(|plan| sha256(plan.as_bytes()))),
            ),
            ("--guidance-2".to_owned(), json!(second.guidance)),
            ("boundary_ratio".to_owned(), json!(second.boundary.ratio())),
        ]);
    }
    if let Some(decoding) = &batch.source.decoding {
        settings.extend([
            ("--decode-timestep".to_owned(), json!(decoding.timestep)),
            ("--decode-noise-scale".to_owned(), json!(decoding.noise_scale)),
            (
                "--decode-noise".to_owned(),
                file(options.source.decode_noise.as_deref())?,
            ),
        ]);
    }
    if let Some(named) = &options.ranks.rules {
        let rules = serde_json::to_string(&Rules::find(named)?).unwrap_or_default();
        settings.insert("--rules".to_owned(), json!(sha256(rules.as_bytes())));
    }
    Ok(settings)
}

/// The word of an option's value.
fn word(choice: &impl ValueEnum) -> String {
    let value = choice.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

/// What a file holds, where there is one.
fn file(path: Option<&Path>) -> Result<Value, Failure> {
    path.map_or(Ok(Value::Null), |path| hash_of(path).map(Value::String))
}

/// What files hold, in one number: models by their graph and a sample of each weight.
fn contents(files: &[PathBuf]) -> Result<Value, Failure> {
    let mut all = Sha256::new();
    for path in files {
        let hash = match path.extension().is_some_and(|extension| extension == "onnx") {
            true => Model::load(path)?.sampled_sha256()?,
            false => hash_of(path)?,
        };
        all.update(hash);
    }
    Ok(match files {
        [] => Value::Null,
        _ => Value::String(hexadecimal(&all.finalize())),
    })
}

fn hash_of(path: &Path) -> Result<String, Failure> {
    let bytes = std::fs::read(path).map_err(|source| ReportError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(sha256(&bytes))
}

fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
