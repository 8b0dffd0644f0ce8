//! What all models are to make: the same clips.

use super::options::CompareOptions;
use crate::cli::Failure;
use crate::cli::args::FormChoice;
use crate::cli::session::{Prompts, inputs_of, prompts, scheduler};
use crate::cli::source::{Opening, Source, Stage, refuse_one_of_two};
use crate::cli::terminal::Terminal;
use crate::cli::values::sizes;
use crate::cli::variants::Values;
use crate::generation::{Conditioning, Generator, sizes_of_run};
use crate::sampler::{RunSettings, Scheduler, SchedulerConfig, noise};
use ndarray::ArrayD;

/// The clips, before any model is open.
pub struct Task<'a> {
    pub options: &'a CompareOptions,
    pub source: Source,
    pub config: SchedulerConfig,
    settings: RunSettings,
    /// The stages of the original.
    pub stages: Vec<Stage>,
    /// The timesteps of the run.
    pub timesteps: Vec<f64>,
    /// What clips take in turn.
    prompts: Vec<Option<String>>,
    conditionings: Vec<Conditioning>,
}

impl<'a> Task<'a> {
    /// Reads what the options name; nothing is opened.
    pub fn read(options: &'a CompareOptions, terminal: &Terminal) -> Result<Task<'a>, Failure> {
        if options.model.is_file() {
            refuse_one_of_two(&options.model, "compare", |root| {
                format!("give the folder of the pipeline, {}", root.display())
            })?;
        }
        let asked = options.asked();
        let source = Source::read(&asked, None)?;
        if source.noise.is_some() {
            return Err(Failure::Usage(format!(
                "--input: `{}` is the latent, which compare draws from the seeds; leave it out",
                source.latent_input
            )));
        }
        let config = scheduler(&source.model, asked.sampling, terminal)?;
        let settings = source.settings(&asked);
        let made = config.scheduler_for(&settings)?;
        let stages = Stage::all(&source, &config, made.as_ref(), asked.batch)?;
        let timesteps = made.timesteps().to_vec();
        let given = options.prompt.iter().take(options.clips).cloned().map(Some).collect();
        let prompts = match (&source.pipeline, options.prompt.as_slice()) {
            (None, []) => match prompts(&source.model, asked.sampling)? {
                Prompts::Table(table) => (0..options.clips).map(|clip| Some(table.sample(clip))).collect(),
                Prompts::Given(..) | Prompts::None => vec![None],
            },
            (Some(_), []) => vec![None],
            _ => given,
        };
        Ok(Task {
            options,
            source,
            config,
            settings,
            stages,
            timesteps,
            prompts,
            conditionings: Vec::new(),
        })
    }

    /// Makes what clips are made from. Of a pipeline ONNX Runtime must be loaded.
    pub fn encode(&mut self, terminal: &Terminal) -> Result<(), Failure> {
        let asked = self.options.asked();
        self.conditionings = self.source.conditionings(&asked, &self.prompts, terminal)?;
        Ok(())
    }

    /// The seed of a clip.
    pub fn seed(&self, clip: usize) -> u64 {
        self.options.seed.wrapping_add(clip as u64)
    }

    /// The prompt of a clip.
    pub fn prompt(&self, clip: usize) -> Option<&String> {
        self.prompts.get(clip % self.prompts.len().max(1))?.as_ref()
    }

    /// What a stage makes a clip from.
    pub fn conditioning(&self, clip: usize, stage: &Stage) -> Conditioning {
        let made = self.conditionings.get(clip % self.conditionings.len().max(1));
        made.map(|made| stage.conditioning(made)).unwrap_or_default()
    }

    /// A scheduler at the beginning of a clip.
    pub fn scheduler(&self) -> Result<Box<dyn Scheduler>, Failure> {
        Ok(self.config.scheduler_for(&self.settings)?)
    }

    /// The noise that a clip begins with, as the transformer takes it.
    pub fn noise(&self, clip: usize) -> Result<ArrayD<f32>, Failure> {
        let drawn = noise(self.source.latent.noise(), self.seed(clip))?;
        Ok(self.source.latent.to_model(drawn))
    }

    /// Opens the model of a stage.
    pub fn open(&self, stage: &Stage, form: FormChoice, terminal: &Terminal) -> Result<Generator, Failure> {
        let how = Opening {
            source: &self.source,
            session: &self.options.session,
            form,
            cuda_graph: self.options.cuda_graph && form == FormChoice::Variants,
            batch: 1,
            timesteps: &self.timesteps,
        };
        stage.open(&how, &self.conditioning(0, stage), terminal)
    }

    /// What single steps of a stage are timed with.
    pub fn values(&self, stage: &Stage) -> Result<Values, Failure> {
        let conditioning = self.conditioning(0, stage);
        let mut sizes = sizes(&self.options.sampling.sizes);
        sizes.entry("batch".to_owned()).or_insert(conditioning.copies());
        let latent = self.noise(0)?;
        for (symbol, size) in sizes_of_run(&inputs_of(&stage.model)?, latent.shape(), &conditioning) {
            if let Ok(size) = usize::try_from(size) {
                sizes.entry(symbol).or_insert(size);
            }
        }
        Ok(Values {
            sizes,
            given: conditioning.inputs,
        })
    }
}
