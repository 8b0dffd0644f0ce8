//! What is run: a single model, or a pipeline of which every part is opened when it is its turn.

use super::RunOptions;
use super::last_step::Decoding;
use crate::cli::Failure;
use crate::cli::division::rank_latents;
use crate::cli::session::{conditioning, inputs, prompts, runtime_options};
use crate::cli::terminal::Terminal;
use crate::generation::{Conditioning, GenerationError, Role, Roles, Text, known_sizes};
use crate::onnx::Model;
use crate::pipeline::{
    Boundary, Factors, Family, Folder, Guidance, LatentShape, Layout, Lengths, PipelineError, PixelSize, Telling, Vae,
    declared_inputs, encode, pair,
};
use crate::rewrite::split::RankLatents;
use crate::runtime::{Port, Tensor};
use ndarray::ArrayD;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Inputs of a patched model that are none of the original's.
const OF_PATCHING: &str = "pab.";

/// A pipeline's folder, and what its class does.
#[derive(Debug)]
pub struct Pipeline {
    folder: Folder,
    family: &'static Family,
    /// The decoder, where pictures are wanted.
    pub vae: Option<Vae>,
    factors: Factors,
}

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
    /// Reads what the options name, without opening a model: all that can be wrong is said before anything is computed. `part`
    /// is the file of this rank, where the options name the folder of a split.
    pub fn read(options: &RunOptions, part: Option<PathBuf>) -> Result<Source, Failure> {
        let is_rank = part.is_some();
        let is_pipeline = options.model.is_dir() && (part.is_none() || options.transformer.is_some());
        let pipeline = match is_pipeline {
            true => Some(Pipeline::read(options)?),
            false => None,
        };
        let model = match (&options.transformer, &pipeline) {
            (Some(model), Some(_)) => part.unwrap_or_else(|| model.clone()),
            (None, None) if part.is_some() => part.unwrap_or_default(),
            (None, Some(pipeline)) => pipeline.folder.model("transformer")?,
            (None, None) => options.model.clone(),
            (Some(_), None) => {
                return Err(Failure::Usage(format!(
                    "--transformer is a file of a pipeline, and {} is a single model; give the pipeline's folder",
                    options.model.display()
                )));
            }
        };
        let refuse = |error: GenerationError| Failure::generation(model.clone(), error);
        let mut inputs = inputs(&options.sampling.inputs)?;
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
        let named = crate::cli::values::sizes(&options.sampling.sizes);
        let mut open = vec![roles.latent.clone()];
        if let Some(batch) = open.first_mut().and_then(|latent| latent.shape.first_mut()) {
            *batch = Some(1);
        }
        known_sizes(&open, &named).map_err(refuse)?;
        let size = PixelSize {
            height: options.height.map(usize::from),
            width: options.width.map(usize::from),
            frames: options.frames.map(usize::from),
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
        let usual = options.sampling.guidance();
        let (guidance, embedded) = match &pipeline {
            None => (usual, None),
            Some(pipeline) => {
                let guidance = pipeline.family.guidance;
                let scale = options.sampling.guidance.unwrap_or(guidance.usual());
                match guidance {
                    Guidance::ClassifierFree(_) => (scale, None),
                    Guidance::Embedded(_) => (1.0, Some(scale)),
                }
            }
        };
        let second = Second::read(options, pipeline.as_ref(), guidance)?;
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
        source.decoding = Decoding::of(options, &source)?;
        Ok(source)
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
        let sizes = symbols.iter().zip(self.latent.in_model()).skip(1);
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

    /// What each prompt's clips are made from. A pipeline's text encoders are opened and closed here.
    pub fn conditionings(
        &self,
        options: &RunOptions,
        prompts_given: &[Option<String>],
        terminal: &Terminal,
    ) -> Result<Vec<Conditioning>, Failure> {
        let negative = options.negative_prompt.as_deref();
        if negative.is_some() && !self.is_guided() {
            terminal.warning(match self.embedded {
                None => "--negative-prompt does nothing with --guidance 1, which runs the model for the prompt alone",
                Some(_) => "--negative-prompt does nothing: this transformer has guidance as an input, and runs for the prompt \
                            alone",
            });
        }
        let by_encoders = self
            .pipeline
            .as_ref()
            .filter(|_| options.sampling.prompt_embeds.is_none());
        let mut made = match (by_encoders, &self.text) {
            (Some(pipeline), Some(text)) => self.encoded(pipeline, text, options, prompts_given, terminal)?,
            (Some(_), None) => {
                if prompts_given.iter().any(Option::is_some) || negative.is_some() {
                    return Err(Failure::Usage(format!(
                        "--prompt: {} has no text input that is not given with --input",
                        self.model.display()
                    )));
                }
                vec![Conditioning::default(); prompts_given.len()]
            }
            (None, _) => {
                let beside = prompts(&self.model, &options.sampling)?;
                let one = |prompt: &Option<String>| {
                    conditioning(&self.model, &beside, prompt.as_deref(), negative, &options.sampling)
                };
                prompts_given.iter().map(one).collect::<Result<_, _>>()?
            }
        };
        for conditioning in &mut made {
            conditioning.guidance = self.guidance;
            let told = self.pipeline.iter().flat_map(|pipeline| {
                let telling = Telling {
                    latent: &self.latent,
                    text: conditioning
                        .prompt
                        .as_ref()
                        .map_or(0, |prompt| prompt.embeddings.nrows()),
                    guidance: self.asked_guidance(),
                    clips: usize::from(options.batch),
                };
                telling.inputs(pipeline.family, &self.ports)
            });
            conditioning.inputs = told.collect();
            // What the user gives counts.
            conditioning.inputs.extend(self.inputs.clone());
        }
        Ok(made)
    }

    fn encoded(
        &self,
        pipeline: &Pipeline,
        text: &str,
        options: &RunOptions,
        prompts_given: &[Option<String>],
        terminal: &Terminal,
    ) -> Result<Vec<Conditioning>, Failure> {
        let missing = || {
            Failure::Usage(format!(
                "the pipeline makes clips of a text (input `{text}` of {}); give --prompt, --prompts FILE or --prompt-embeds \
                 FILE.npy",
                self.model.display()
            ))
        };
        let mut all: Vec<&str> = prompts_given
            .iter()
            .map(|prompt| prompt.as_deref().ok_or_else(missing))
            .collect::<Result<_, _>>()?;
        let guided = self.is_guided();
        if guided {
            all.push(options.negative_prompt.as_deref().unwrap_or_default());
        }
        let encoded = encode(
            &pipeline.folder,
            pipeline.family,
            &all,
            self.lengths,
            &runtime_options(&options.session),
        );
        let encoded = encoded.map_err(|error| Failure::pipeline(pipeline.folder.root(), error))?;
        for (prompt, encoded) in all.iter().zip(&encoded) {
            if let Some((encoder, whole, fit)) = encoded.cut {
                let begin: String = prompt.chars().take(40).collect();
                terminal.warning(format!(
                    "prompt `{begin}…` has {whole} tokens, and {encoder} takes {fit}: the rest is cut off"
                ));
            }
        }
        let texts: Vec<Text> = encoded.into_iter().map(|encoded| encoded.text).collect();
        let (prompts, negative) = match (guided, texts.split_last()) {
            (true, Some((negative, prompts))) => (prompts, Some(negative)),
            _ => (texts.as_slice(), None),
        };
        let one = |prompt: &Text| {
            let (prompt, negative) = match negative {
                Some(negative) => {
                    let (prompt, negative) = pair(pipeline.family, self.lengths, prompt, negative);
                    (prompt, Some(negative))
                }
                None => (pair(pipeline.family, self.lengths, prompt, prompt).0, None),
            };
            Conditioning {
                prompt: Some(prompt),
                empty: negative,
                ..Conditioning::default()
            }
        };
        Ok(prompts.iter().map(one).collect())
    }
}

impl Second {
    /// The second transformer, where the pipeline has a boundary; `guidance` is the scale of the first.
    fn read(options: &RunOptions, pipeline: Option<&Pipeline>, guidance: f32) -> Result<Option<Second>, Failure> {
        let refuse = |error| Failure::pipeline(&options.model, error);
        let boundary = pipeline.map(|pipeline| Boundary::of(&pipeline.folder)).transpose();
        let found = boundary.map_err(refuse)?.flatten();
        let Some((boundary, pipeline)) = found.zip(pipeline) else {
            let given = [
                ("--transformer-2", options.transformer_2.is_some()),
                ("--guidance-2", options.guidance_2.is_some()),
                ("--keep-transformers", options.keep_transformers),
            ];
            return match given.iter().find(|(_, is_given)| *is_given) {
                None => Ok(None),
                Some((option, _)) => Err(Failure::Usage(format!(
                    "{option} is for pipelines of two transformers, and {} has no boundary_ratio in a model_index.json of \
                     WanPipeline; leave it out",
                    options.model.display()
                ))),
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
    fn check_alike(&self, first: &Path, ports: &[Port]) -> Result<(), Failure> {
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

impl Pipeline {
    fn read(options: &RunOptions) -> Result<Pipeline, Failure> {
        let refuse = |error| Failure::pipeline(&options.model, error);
        let folder = Folder::open(&options.model).map_err(refuse)?;
        let family = folder.family().map_err(refuse)?;
        let vae = match options.latents_only {
            true => None,
            false => Some(Vae::read(&folder).map_err(refuse)?),
        };
        let factors = match &vae {
            Some(vae) => vae.factors(),
            None => Vae::factors_of(&folder).map_err(refuse)?,
        };
        if let Some(vae) = &vae {
            // Our own reader says better than ONNX Runtime what is wrong with a file.
            Model::load(vae.path())?;
            vae.check_timestep().map_err(refuse)?;
        }
        for encoder in family.encoders {
            if options.sampling.prompt_embeds.is_none() && !folder.is_without(encoder.model) {
                Model::load(&folder.model(encoder.model).map_err(refuse)?)?;
            }
        }
        Ok(Pipeline {
            folder,
            family,
            vae,
            factors,
        })
    }
}

impl Pipeline {
    /// The files that texts come from: encoders and tokenizers; none where embeddings are given.
    pub fn encoder_files(&self, embeds_given: bool) -> Vec<PathBuf> {
        let used = |model: &str| !embeds_given && !self.folder.is_without(model);
        let encoders = self.family.encoders.iter().filter(|encoder| used(encoder.model));
        let files = encoders.flat_map(|encoder| {
            let mut files = files_of(&self.folder.component(encoder.tokenizer));
            files.extend(self.folder.model(encoder.model));
            files
        });
        files.collect()
    }

    /// The files that pictures come from: the decoder and what its configuration says; none where latents alone are wanted.
    pub fn decoder_files(&self) -> Vec<PathBuf> {
        let Some(vae) = &self.vae else { return Vec::new() };
        let mut files = vec![vae.path().to_owned()];
        let configurations =
            ["vae_decoder", "vae"].map(|component| self.folder.component(component).join("config.json"));
        files.extend(configurations.into_iter().filter(|path| path.is_file()));
        files
    }
}

/// The files of a folder in the order of their names.
fn files_of(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    files
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

/// The prompts of a file: its lines that are not empty.
pub fn prompts_of(path: &Path) -> Result<Vec<Option<String>>, Failure> {
    let refuse = |reason: String| Failure::Usage(format!("--prompts {}: {reason}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let prompts: Vec<Option<String>> = lines.map(|line| Some(line.to_owned())).collect();
    match prompts.is_empty() {
        true => Err(refuse("it has no prompts; write one in each line".to_owned())),
        false => Ok(prompts),
    }
}
