//! What clips are made with: a single model, or a pipeline of which every part is opened when it is its turn.

mod last_step;
mod options;
mod pictures;
mod pipeline;
mod second;
mod stage;
mod texts;

pub use options::{Asked, SourceOptions};
pub use pictures::picture;
pub use pipeline::Pipeline;
pub use second::{for_two, refuse_folder, refuse_one_of_two, warn_of_one_of_two};
pub use stage::{Opening, Stage, plan_of};

use super::Failure;
use super::division::rank_latents;
use super::session::{inputs, run_settings};
use crate::generation::{GenerationError, Role, Roles, known_sizes};
use crate::onnx::Model;
use crate::pipeline::{Factors, Guidance, LatentShape, Layout, Lengths, PixelSize, declared_inputs};
use crate::rewrite::split::RankLatents;
use crate::runtime::{Port, Tensor};
use crate::sampler::RunSettings;
use last_step::Decoding;
use ndarray::ArrayD;
use second::Second;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Inputs of a patched model that are none of the original's.
const OF_PATCHING: &str = "pab.";

/// What is run.
#[derive(Debug)]
pub struct Source {
    /// The transformer's file.
    pub model: PathBuf,
    /// The second transformer of a pipeline of two.
    pub second: Option<Second>,
    /// The rest of a pipeline.
    pub pipeline: Option<Pipeline>,
    /// Its latent.
    pub latent: LatentShape,
    /// The latent's own noise, where a file of inputs has it.
    pub noise: Option<ArrayD<f32>>,
    /// What the decoder is given beside latents, where it takes a timestep.
    pub decoding: Option<Decoding>,
    /// Further inputs.
    pub inputs: BTreeMap<String, Tensor>,
    /// The scale of classifier-free guidance.
    pub guidance: f32,
    /// The scale that the transformer is told, where it was trained with that.
    embedded: Option<f32>,
    /// The name of the latent among the inputs.
    pub latent_input: String,
    /// What of the latents this rank keeps, where a split says so; `latent` is the whole all the same.
    pub kept: Option<RankLatents>,
    /// The transformer's own inputs, as its file declares them.
    ports: Vec<Port>,
    lengths: Lengths,
    text: Option<String>,
}

impl Source {
    /// Reads what was asked for, without opening a model: all that can be wrong is said before anything is computed. `part`
    /// is the file of this rank, where that is the folder of a split.
    pub fn read(asked: &Asked<'_>, part: Option<PathBuf>) -> Result<Source, Failure> {
        let is_rank = part.is_some();
        let is_pipeline = asked.model.is_dir() && (part.is_none() || asked.source.transformer.is_some());
        let pipeline = match is_pipeline {
            true => Some(Pipeline::read(asked)?),
            false => None,
        };
        let model = match (&asked.source.transformer, &pipeline) {
            (Some(model), Some(_)) => part.unwrap_or_else(|| model.clone()),
            (None, None) if part.is_some() => part.unwrap_or_default(),
            (None, Some(pipeline)) => pipeline.folder.model("transformer")?,
            (None, None) => asked.model.to_owned(),
            (Some(_), None) => {
                return Err(Failure::Usage(format!(
                    "--transformer is a file of a pipeline, and {} is a single model; give the pipeline's folder",
                    asked.model.display()
                )));
            }
        };
        let refuse = |error: GenerationError| Failure::generation(model.clone(), error);
        let mut inputs = inputs(&asked.sampling.inputs)?;
        let mut ports = declared_inputs(&model)?;
        ports.retain(|port| !port.name.starts_with(OF_PATCHING));
        let kept = match is_rank {
            true => rank_latents(&Model::load(&model)?),
            false => None,
        };
        if let Some(RankLatents { latents, .. }) = &kept {
            // The file declares a part; what is made is the whole.
            let port = ports.iter_mut().find(|port| port.name == latents.input);
            if let Some(size) = port.and_then(|port| port.shape.get_mut(latents.axis)) {
                *size = i64::try_from(latents.size).ok();
            }
        }
        let noise = own_noise(&ports, &mut inputs);
        let mut given: Vec<String> = inputs.keys().cloned().collect();
        if let Some(pipeline) = &pipeline {
            given.extend(pipeline.family.told.iter().map(|(name, _)| (*name).to_owned()));
        }
        let given: Vec<&str> = given.iter().map(String::as_str).collect();
        let roles = Roles::of(&ports, &given).map_err(refuse)?;
        if let Some(name) = inputs.keys().find(|name| !ports.iter().any(|port| port.name == **name)) {
            let names: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
            return Err(Failure::Usage(format!(
                "--input {name}: {} has no such input, only {}",
                model.display(),
                names.join(", ")
            )));
        }
        let named = crate::cli::values::sizes(&asked.sampling.sizes);
        let mut open = vec![roles.latent.clone()];
        if let Some(batch) = open.first_mut().and_then(|latent| latent.shape.first_mut()) {
            *batch = Some(1);
        }
        known_sizes(&open, &named).map_err(refuse)?;
        let size = PixelSize {
            height: asked.source.height.map(usize::from),
            width: asked.source.width.map(usize::from),
            frames: asked.source.frames.map(usize::from),
        };
        let factors = pipeline
            .as_ref()
            .map_or_else(Factors::default, |pipeline| pipeline.factors);
        let layout = pipeline
            .as_ref()
            .map_or(Layout::ChannelsFirst, |pipeline| pipeline.family.layout);
        let latent = LatentShape::new(&roles.latent, layout, size, factors, &named)
            .map_err(|error| Failure::pipeline(&model, error))?;
        let fixed = |axis: usize| {
            let size = roles
                .text
                .as_ref()
                .and_then(|text| text.shape.get(axis).copied().flatten());
            size.and_then(|size| usize::try_from(size).ok())
        };
        let usual = asked.sampling.guidance();
        let (guidance, embedded) = match &pipeline {
            None => (usual, None),
            Some(pipeline) => {
                let guidance = pipeline.family.guidance;
                let scale = asked.sampling.guidance.unwrap_or(guidance.usual());
                match guidance {
                    Guidance::ClassifierFree(_) => (scale, None),
                    Guidance::Embedded(_) => (1.0, Some(scale)),
                }
            }
        };
        let second = Second::read(asked, pipeline.as_ref(), guidance)?;
        if let Some(second) = &second {
            second.check_alike(&model, &ports)?;
        }
        let mut source = Source {
            second,
            decoding: None,
            latent,
            noise,
            inputs,
            guidance,
            embedded,
            latent_input: roles.latent.name,
            kept,
            ports,
            lengths: Lengths {
                fixed: fixed(1),
                width: fixed(2),
            },
            text: roles.text.map(|text| text.name),
            model,
            pipeline,
        };
        source.decoding = Decoding::of(asked, &source)?;
        Ok(source)
    }

    /// What the scheduler is made for.
    pub fn settings(&self, asked: &Asked<'_>) -> RunSettings {
        let sampling = asked.sampling;
        let mut settings = run_settings(
            &self.model,
            sampling.scheduler.as_deref(),
            sampling.steps,
            &sampling.clip,
        );
        settings.tokens = settings.tokens.or_else(|| self.latent.tokens());
        settings
    }

    /// Whether some steps are made for the negative prompt, too.
    fn is_guided(&self) -> bool {
        let second = self.second.as_ref();
        self.guidance != 1.0 || second.is_some_and(|second| second.guidance != 1.0)
    }

    /// The scale of guidance as it was asked for.
    pub fn asked_guidance(&self) -> f32 {
        self.embedded.unwrap_or(self.guidance)
    }

    /// What the open dimensions of the latent are in this run, apart from the batch.
    pub fn latent_sizes(&self) -> BTreeMap<String, i64> {
        let latent = self.ports.iter().find(|port| port.name == self.latent_input);
        let symbols = latent.map_or(&[][..], |port| port.symbols.as_slice());
        let sizes = symbols.iter().zip(self.latent.in_model(1)).skip(1);
        let known = sizes.filter_map(|(symbol, size)| Some((symbol.clone(), i64::try_from(size).ok()?)));
        known.filter(|(symbol, _)| !symbol.is_empty()).collect()
    }

    /// What the transformer's timesteps are a part of.
    pub fn timestep_unit(&self) -> f64 {
        self.pipeline
            .as_ref()
            .map_or(1.0, |pipeline| pipeline.family.timestep_unit)
    }

    /// The inputs that every clip is fed by name.
    pub fn given(&self) -> Vec<&str> {
        let told = self.pipeline.iter().flat_map(|pipeline| pipeline.family.told);
        let told = told.map(|(name, _)| *name);
        let told = told.filter(|name| self.ports.iter().any(|port| port.name == *name));
        told.chain(self.inputs.keys().map(String::as_str)).collect()
    }
}

/// Takes the latent out of the inputs that were given: it is what the loop begins with.
fn own_noise(ports: &[Port], inputs: &mut BTreeMap<String, Tensor>) -> Option<ArrayD<f32>> {
    let latents = || ports.iter().filter(|port| Role::of(port) == Some(Role::Latent));
    if latents().any(|port| !inputs.contains_key(&port.name)) {
        return None;
    }
    let port = latents().next()?;
    inputs.remove(&port.name).map(Tensor::into_f32)
}
