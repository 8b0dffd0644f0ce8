//! The loop over prompts: every clip is written as soon as it is made.

use super::batch::{Batch, Clips};
use super::checkpoint::Checkpoint;
use super::noise::{start, step_noise};
use super::pictures::{Made, finish};
use super::ranks::{Part, RanksReport, Team};
use super::report::{ClipRecord, Head};
use super::stages::{Transformers, shares};
use super::watch::Watch;
use super::write::{Arrays, remove_earlier};
use crate::cli::Failure;
use crate::cli::session::report_latents;
use crate::cli::source::{Opening, Stage};
use crate::cli::terminal::Terminal;
use crate::generation::{Conditioning, Generator};
use crate::report::ReportError;
use crate::rewrite::Plan;
use ndarray::{ArrayD, Axis, concatenate};
use std::time::Instant;

impl Batch {
    /// Runs the loop for these prompts. What is finished is written at once, and stays whatever happens to the next.
    pub(super) fn denoise(
        &self,
        prompts: &[usize],
        clips: &mut Clips,
        checkpoint: &mut Option<Checkpoint>,
        team: Option<&Team>,
        watch: &mut Watch,
        terminal: &Terminal,
    ) -> Result<(Head, Option<RanksReport>), Failure> {
        let (options, source) = (&self.options, &self.source);
        let conditionings = self.conditionings(prompts, watch, terminal)?;
        let scheduler = self.config.scheduler_for(&self.settings)?;
        let begun = Instant::now();
        let (mut transformers, part) = match team {
            Some(team) => {
                let (mut generator, part) = team.open(self, prompts, &conditionings, terminal)?;
                generator.show_samples(options.every_step);
                watch.part("opening the model", begun);
                (Transformers::only(generator), part)
            }
            None => (Transformers::of(self), None),
        };
        let first = conditionings.first().cloned().unwrap_or_default();
        let generator = transformers.at(self, 0, &self.conditioned(0, &first), watch, terminal)?;
        watch.count(team.map(|team| team.carrier.clone()));
        let mut ranks = None;
        let provider = generator.session().provider();
        let mut plans = vec![generator.plan().cloned()];
        for stage in self.stages.iter().skip(1) {
            let plan = stage.plan()?;
            stage.check(plan.as_ref(), options.form, scheduler.timesteps())?;
            plans.push(plan);
        }
        self.note_unpatched(&plans, terminal);
        let mut head = Head {
            patched: plans.iter().any(Option::is_some),
            provider,
            broadcast: shares(&plans, &self.stages, scheduler.timesteps()),
            latents: None,
        };
        if let Some(checkpoint) = checkpoint {
            checkpoint.head = Some(head.clone());
        }
        watch.begin(prompts.len() * scheduler.timesteps().len(), terminal);
        let decodes = source.pipeline.as_ref().is_some_and(|pipeline| pipeline.vae.is_some());
        for (prompt, conditioning) in prompts.iter().zip(&conditionings) {
            watch.clip(*prompt, self.prompts.len());
            team.inspect(|team| team.begin_clip());
            let all = self.clip(*prompt, conditioning, &mut transformers, part.as_ref(), watch, terminal)?;
            if let Some(team) = team.filter(|_| prompts.last() == Some(prompt)) {
                // No rank waits while this one writes and decodes.
                ranks = Some(team.end(watch)?);
            }
            if let (None, Some(generator)) = (&head.latents, transformers.latest()) {
                head.latents = generator.latents().cloned();
                report_latents(generator, terminal);
                if let Some(checkpoint) = checkpoint {
                    checkpoint.head = Some(head.clone());
                }
            }
            for made in all {
                let folder = &made.place.folder;
                std::fs::create_dir_all(folder).map_err(|source| ReportError::Write {
                    path: folder.clone(),
                    source,
                })?;
                if let Some(checkpoint) = checkpoint {
                    // Before anything of an older clip is touched: no record may speak of what is half replaced.
                    checkpoint.clips.remove(&made.place.number);
                    checkpoint.save()?;
                }
                remove_earlier(folder);
                made.arrays.write(folder, options.arrays)?;
                let (number, mut record) = (made.place.number, made.record.clone());
                match decodes {
                    true => clips.made.push(made),
                    false => {
                        let complete = finish(options, source, made, None, watch, terminal)?;
                        record = complete.1.clone();
                        clips.complete.push(complete);
                    }
                }
                if let Some(checkpoint) = checkpoint {
                    checkpoint.clips.insert(number, record);
                    checkpoint.save()?;
                }
            }
        }
        watch.end();
        // The transformers end here: the decoder's memory is theirs.
        Ok((head, ranks))
    }

    /// What stage `place` makes clips from.
    pub(super) fn conditioned(&self, place: usize, conditioning: &Conditioning) -> Conditioning {
        let stage = self.stages.get(place);
        stage.map_or_else(|| conditioning.clone(), |stage| stage.conditioning(conditioning))
    }

    /// Says which transformers compute everything while others broadcast.
    pub(super) fn note_unpatched(&self, plans: &[Option<Plan>], terminal: &Terminal) {
        if plans.iter().all(Option::is_none) {
            return;
        }
        for (stage, _) in self.stages.iter().zip(plans).filter(|(_, plan)| plan.is_none()) {
            terminal.note(format!(
                "{} is not patched: its {} steps compute everything",
                stage.model.display(),
                stage.steps.len()
            ));
        }
    }

    /// Opens the transformer of a stage in the form that is wanted; `conditioning` is the stage's.
    pub(super) fn opened(
        &self,
        stage: &Stage,
        conditioning: &Conditioning,
        terminal: &Terminal,
    ) -> Result<Generator, Failure> {
        let options = &self.options;
        let scheduler = self.config.scheduler_for(&self.settings)?;
        let how = Opening {
            source: &self.source,
            session: &options.session,
            form: options.form,
            cuda_graph: options.cuda_graph,
            batch: usize::from(options.batch),
            timesteps: scheduler.timesteps(),
        };
        stage.open(&how, conditioning, terminal)
    }

    /// Makes the clips of a prompt side by side; where this is a rank that keeps a part of the latents, as that part.
    pub(super) fn clip(
        &self,
        prompt: usize,
        conditioning: &Conditioning,
        transformers: &mut Transformers,
        part: Option<&Part>,
        watch: &mut Watch,
        terminal: &Terminal,
    ) -> Result<Vec<Made>, Failure> {
        let (options, source) = (&self.options, &self.source);
        let batch = usize::from(options.batch);
        let seed = options.seed.wrapping_add((prompt * batch) as u64);
        let start = start(options, source, self.noise.as_ref(), seed)?;
        let mut samples = Vec::new();
        let mut scheduler = self.config.scheduler_for(&self.settings)?;
        let mut step_noise = step_noise(options, scheduler.as_ref(), &start, seed, terminal)?;
        let mut noise = source.latent.to_model(start.clone());
        if let Some(part) = part {
            noise = part.of(noise)?;
            step_noise = part.noise(step_noise);
        }
        let (mut sample, mut step_milliseconds, mut is_patched) = (noise, Vec::new(), false);
        for (place, stage) in self.stages.iter().enumerate() {
            let conditioning = stage.conditioning(conditioning);
            let generator = transformers.at(self, place, &conditioning, watch, terminal)?;
            watch.model(generator.plan(), stage.component);
            is_patched |= generator.plan().is_some();
            let made = generator.generate_part(
                scheduler.as_mut(),
                stage.steps.clone(),
                sample,
                step_noise.as_mut(),
                &conditioning,
                &mut |step| {
                    watch.step(step);
                    if options.every_step {
                        samples.extend(step.sample.as_ref().map(|sample| sample.to_owned()));
                    }
                },
            );
            let made = made.map_err(|error| stage.failure(error))?;
            transformers.report(place, stage, terminal);
            sample = made.sample;
            step_milliseconds.extend(made.step_milliseconds);
        }
        if let Some(part) = part {
            samples.push(sample);
            samples = part.whole(&samples)?;
            sample = samples.pop().unwrap_or_default();
            watch.gather();
        }
        let made = (0..batch).map(|place| {
            let one = |array: &ArrayD<f32>| array.select(Axis(0), &[place]);
            let samples: Vec<ArrayD<f32>> = samples.iter().map(|sample| one(sample).insert_axis(Axis(0))).collect();
            let views: Vec<_> = samples.iter().map(|sample| sample.view()).collect();
            Made {
                place: self.place(prompt * batch + place),
                arrays: Arrays {
                    noise: one(&start),
                    sample: one(&sample),
                    timesteps: scheduler.timesteps().to_vec(),
                    samples: concatenate(Axis(0), &views).ok(),
                    decoded: None,
                },
                record: ClipRecord {
                    step_milliseconds: step_milliseconds.clone(),
                    speed_up: watch.speed_up().filter(|_| is_patched),
                    pictures: None,
                },
            }
        });
        Ok(made.collect())
    }
}
