//! The second transformer of a pipeline of two, and files that are one of two.

use super::pipeline::Pipeline;
use super::{Asked, OF_PATCHING};
use crate::cli::Failure;
use crate::cli::terminal::Terminal;
use crate::pipeline::{Boundary, OneOfTwo, PipelineError, TRANSFORMERS, declared_inputs};
use crate::runtime::Port;
use std::path::{Path, PathBuf};

/// The transformer for the steps with little noise.
#[derive(Debug)]
pub struct Second {
    /// Its file.
    pub model: PathBuf,
    /// The scale of classifier-free guidance in its steps.
    pub guidance: f32,
    /// Where its steps begin.
    pub boundary: Boundary,
}

impl Second {
    /// The second transformer, where the pipeline has a boundary; `guidance` is the scale of the first.
    pub(super) fn read(
        asked: &Asked<'_>,
        pipeline: Option<&Pipeline>,
        guidance: f32,
    ) -> Result<Option<Second>, Failure> {
        let refuse = |error| Failure::pipeline(asked.model, error);
        let boundary = pipeline.map(|pipeline| Boundary::of(&pipeline.folder)).transpose();
        let found = boundary.map_err(refuse)?.flatten();
        let options = asked.source;
        let Some((boundary, pipeline)) = found.zip(pipeline) else {
            let given = [
                ("--transformer-2", options.transformer_2.is_some()),
                ("--guidance-2", options.guidance_2.is_some()),
            ];
            return match given.iter().find(|(_, is_given)| *is_given) {
                None => Ok(None),
                Some((option, _)) => Err(for_two(option, asked.model)),
            };
        };
        let model = match &options.transformer_2 {
            Some(model) => model.clone(),
            None => pipeline.folder.model("transformer_2").map_err(refuse)?,
        };
        Ok(Some(Second {
            model,
            guidance: options.guidance_2.unwrap_or(guidance),
            boundary,
        }))
    }

    /// Refuses a second transformer that does not take what the first takes, whose own inputs are `ports`.
    pub(super) fn check_alike(&self, first: &Path, ports: &[Port]) -> Result<(), Failure> {
        let mut own = declared_inputs(&self.model)?;
        own.retain(|port| !port.name.starts_with(OF_PATCHING));
        let refuse = |reason: String| {
            let error = PipelineError::Unlike {
                model: self.model.clone(),
                first: first.to_owned(),
                reason,
            };
            Err(Failure::pipeline(first, error))
        };
        let missing = |these: &[Port], those: &[Port]| {
            let is_there = |port: &&Port| those.iter().any(|other| other.name == port.name);
            these.iter().find(|port| !is_there(port)).map(|port| port.name.clone())
        };
        if let Some(name) = missing(ports, &own) {
            return refuse(format!("it has no input `{name}`"));
        }
        if let Some(name) = missing(&own, ports) {
            return refuse(format!("it has an input `{name}`"));
        }
        for (port, other) in ports.iter().flat_map(|port| {
            own.iter()
                .filter(|own| own.name == port.name)
                .map(move |own| (port, own))
        }) {
            let differ = |(one, other): (&Option<i64>, &Option<i64>)| matches!((one, other), (Some(one), Some(other)) if one != other);
            let sizes = port.shape.iter().zip(&other.shape);
            if port.shape.len() != other.shape.len() || sizes.into_iter().any(differ) {
                return refuse(format!(
                    "its input `{}` is {} and not {}",
                    port.name, other.description, port.description
                ));
            }
        }
        Ok(())
    }
}

/// That an option is for pipelines of two transformers alone.
pub fn for_two(option: &str, model: &Path) -> Failure {
    Failure::Usage(format!(
        "{option} is for pipelines of two transformers, and {} has no boundary_ratio in a model_index.json of WanPipeline; leave \
         it out",
        model.display()
    ))
}

/// Refuses a file that makes some steps of a pipeline's clips, where whole clips are made by one model; `advice` gets the
/// pipeline's folder.
pub fn refuse_one_of_two(model: &Path, command: &str, advice: impl FnOnce(&Path) -> String) -> Result<(), Failure> {
    let Some(one) = OneOfTwo::of_file(model) else {
        return Ok(());
    };
    Err(Failure::Usage(format!(
        "{command}: {} is `{}` of a {}, and makes only the steps on its side of boundary_ratio {}, not whole clips; {}",
        model.display(),
        TRANSFORMERS.get(one.place).copied().unwrap_or_default(),
        one.class,
        one.boundary.ratio(),
        advice(one.boundary.root())
    )))
}

/// Says that a file which makes some steps of a pipeline's clips is run for all of them.
pub fn warn_of_one_of_two(model: &Path, terminal: &Terminal) {
    if let Some(one) = OneOfTwo::of_file(model) {
        terminal.warning(format!(
            "{} makes all steps here, and in its {} only those on its side of boundary_ratio {}; give the folder {} to run both \
             transformers",
            model.display(),
            one.class,
            one.boundary.ratio(),
            one.boundary.root().display()
        ));
    }
}

/// Refuses a folder where a command takes the file of one transformer.
pub fn refuse_folder(model: &Path, command: &str, advice: &str) -> Result<(), Failure> {
    match model.is_dir() {
        false => Ok(()),
        true => Err(Failure::Usage(format!(
            "{command} takes one transformer, and {0} is a folder; give its file, such as {1}{advice}",
            model.display(),
            model.join("transformer/model.onnx").display()
        ))),
    }
}
