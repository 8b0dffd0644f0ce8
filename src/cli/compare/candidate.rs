//! A model, or the transformers of a pipeline, patched by one set of rules.

use super::task::Task;
use crate::cli::Failure;
use crate::cli::args::RulesOptions;
use crate::cli::caches::CacheSettings;
use crate::cli::course::Course;
use crate::cli::patch::{Order, Request, Written, patch};
use crate::cli::removed_work::{RemovedWork, allowed};
use crate::cli::source::Stage;
use crate::cli::terminal::Terminal;
use crate::report::MeasuredClip;
use crate::rules::DEFAULT_PRESET;
use ndarray::ArrayD;
use std::path::{Path, PathBuf};

/// What rules made, and its clips.
pub struct Candidate {
    /// Where its files go.
    pub folder: PathBuf,
    /// One entry a stage.
    pub transformers: Vec<Transformer>,
    pub clips: Vec<MeasuredClip>,
    pub pictures: Vec<Both>,
}

/// A patched transformer.
pub struct Transformer {
    /// Its steps.
    pub stage: Stage,
    pub written: Written,
    pub work: RemovedWork,
    /// What each of its steps of each clip broadcast: a flag for each rule.
    pub broadcast: Vec<Vec<bool>>,
}

/// A clip by both models, in 0 to 1.
pub struct Both {
    pub original: ArrayD<f32>,
    pub patched: ArrayD<f32>,
    pub caption: String,
}

impl Candidate {
    /// Patches the model of every stage, each for its own steps: into `folder`, or of several each into a folder below.
    pub fn patched(
        task: &Task<'_>,
        rules: &RulesOptions,
        folder: PathBuf,
        terminal: &Terminal,
    ) -> Result<Candidate, Failure> {
        let mut transformers = Vec::with_capacity(task.stages.len());
        for stage in &task.stages {
            let own = match stage.component {
                Some(component) => folder.join(component),
                None => folder.clone(),
            };
            let written = patched(task, rules, stage, &own, terminal)?;
            transformers.push(Transformer {
                stage: stage.by(written.model.clone()),
                written,
                work: RemovedWork::default(),
                broadcast: Vec::new(),
            });
        }
        Ok(Candidate {
            folder,
            transformers,
            clips: Vec::with_capacity(task.options.clips),
            pictures: Vec::with_capacity(task.options.clips),
        })
    }

    /// Times the work that the rules remove from a stage. ONNX Runtime must be loaded.
    pub fn measure_work(
        &mut self,
        task: &Task<'_>,
        place: usize,
        original: &Stage,
        terminal: &Terminal,
    ) -> Result<(), Failure> {
        let Some(transformer) = self.transformers.get_mut(place) else {
            return Ok(());
        };
        let written = &transformer.written;
        transformer.work = RemovedWork::measure(
            &original.model,
            written,
            &written.plan.schedule(original.own(&task.timesteps)),
            &task.options.session,
            &task.values(original)?,
            task.options.rounds.into(),
            terminal,
        )?;
        Ok(())
    }

    /// The speed-up that the work which was removed from all stages allows.
    pub fn allowed(&self) -> Option<f64> {
        let transformers = self.transformers.iter();
        allowed(transformers.map(|transformer| (&transformer.work, transformer.broadcast.as_slice())))
    }
}

/// The folder of each set of rules: the output folder for a single one, else one below it by the rules' name.
pub fn folders(output: &Path, several: &[RulesOptions]) -> Result<Vec<PathBuf>, Failure> {
    if several.len() == 1 {
        return Ok(vec![output.to_owned()]);
    }
    let mut folders: Vec<PathBuf> = Vec::with_capacity(several.len());
    for rules in several {
        let named = rules.rules.as_deref().unwrap_or(DEFAULT_PRESET);
        let folder = output.join(Path::new(named).file_stem().unwrap_or(named.as_ref()));
        if folders.contains(&folder) {
            return Err(Failure::Usage(format!(
                "--rules {named}: other rules have that name too, and each set gets a folder by its name; rename the file"
            )));
        }
        folders.push(folder);
    }
    Ok(folders)
}

/// Patches the model of a stage by one set of rules.
fn patched(
    task: &Task<'_>,
    rules: &RulesOptions,
    stage: &Stage,
    folder: &Path,
    terminal: &Terminal,
) -> Result<Written, Failure> {
    let mut sizes = crate::cli::values::sizes(&task.options.sampling.sizes);
    sizes.entry("batch".to_owned()).or_insert(stage.copies());
    let course = Course::Timesteps(stage.own(&task.timesteps).to_vec());
    let request = Request {
        model: &stage.model,
        rules,
        caches: CacheSettings {
            options: &task.options.caches,
            sizes: sizes.into_iter().collect(),
            given_up: None,
        },
        output: folder,
        order: Order::new(&course, task.options.drive.into()),
    };
    patch(&request, terminal)
}
