//! The denoising loop over an open model.

use super::conditioning::{Conditioning, Part, check_batch, part_embeddings, part_mask, part_pooled, stacked};
use super::form::Form;
use super::resident::{LatentPlace, Resident};
use super::roles::{known_sizes, sizes_of, tokens_of};
use super::{GenerationError, Roles};
use crate::rewrite::{Drive, PLAN_KEY, Plan, STEP_INPUT, SchedulePlan};
use crate::rules::Strategy;
use crate::runtime::{Denoiser, ElementType, Feedback, Port, Session, Tensor, VariantDenoiser};
use crate::sampler::{CHANNEL_AXIS, NoiseSource, Scheduler, SeededNoise, first_channels, guide, repeat_batch};
use crate::schedule::Schedule;
use crate::stop::Stop;
use ndarray::{ArrayD, ArrayViewD};
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

mod on_device;

use on_device::Course;

/// A step that was done, as it is told to who watches.
#[derive(Clone, Debug)]
pub struct StepDone<'a> {
    /// Which step, from 0.
    pub index: usize,
    /// Its timestep.
    pub timestep: f64,
    /// When it began.
    pub begun: Instant,
    /// How long it took: the model, guidance and the scheduler's step.
    pub milliseconds: f64,
    /// For each rule of the plan whether it broadcast; of adaptive ones what the model decided.
    pub flags: &'a [bool],
    /// The sample after it; none where it stays on a device and [`Generator::show_samples`] was not asked for.
    pub sample: Option<ArrayViewD<'a, f32>>,
}

/// A clip as it was made.
#[derive(Clone, Debug)]
pub struct Clip {
    /// The denoised sample, `[batch, channels, frames, height, width]`.
    pub sample: ArrayD<f32>,
    /// The time of each step in milliseconds: the model, guidance and the scheduler's step.
    pub step_milliseconds: Vec<f64>,
}

impl Clip {
    /// The time of the whole clip in milliseconds.
    pub fn milliseconds(&self) -> f64 {
        self.step_milliseconds.iter().sum()
    }
}

/// Which steps of a run the model makes.
#[derive(Clone, Debug)]
struct Steps {
    /// Those that are its own; the others are another model's.
    own: Range<usize>,
    /// How many of them are made at most.
    limit: usize,
}

impl Steps {
    /// All of them.
    const WHOLE: Steps = Steps {
        own: 0..usize::MAX,
        limit: usize::MAX,
    };
}

/// Is told of each step, from 0, and what every cache would hold behind it.
pub type See<'a> = dyn FnMut(usize, Vec<(String, Tensor)>) + 'a;

/// An open model that makes clips.
#[derive(Debug)]
pub struct Generator {
    /// It goes before the model, to whose device its tensors belong.
    resident: Option<Resident>,
    form: Form,
    roles: Roles,
    plan: Option<Plan>,
    /// What is followed in the place of the plan's timings.
    followed: Option<Schedule>,
    /// What the model's timestep is a part of.
    timestep_unit: f64,
    stop: Stop,
    /// Whether the sample of every step is brought to the host for who watches.
    show_samples: bool,
    /// Whether latents stay on a device that has memory of its own.
    keep_latents: bool,
    latents: Option<LatentPlace>,
    /// Bytes of latents and model outputs that steps moved between the device and the host.
    copied: u64,
}

impl Generator {
    /// A generator on an open model; a patched model is known by the plan in its metadata.
    ///
    /// # Errors
    /// [`GenerationError`] where inputs have no role or the plan does not fit. `given` names inputs without a role that
    /// every [`Conditioning`] feeds.
    pub fn new(session: Session, given: &[&str]) -> Result<Generator, GenerationError> {
        let plan = session.metadata(PLAN_KEY).map(|json| Plan::parse(&json)).transpose()?;
        if plan.is_none() && session.inputs().iter().any(|port| port.name.starts_with("pab.")) {
            return Err(GenerationError::NoPlan);
        }
        let roles = roles(&session, plan.as_ref(), given)?;
        let denoiser = match &plan {
            Some(plan) => Denoiser::patched(session, Feedback::try_from(plan)?)?,
            None => Denoiser::plain(session),
        };
        Ok(Generator {
            resident: None,
            form: Form::Switch(Box::new(denoiser)),
            roles,
            plan,
            followed: None,
            timestep_unit: 1.0,
            stop: Stop::default(),
            show_samples: false,
            keep_latents: true,
            latents: None,
            copied: 0,
        })
    }

    /// A generator on the variants of a patched model, each open, with its flags.
    ///
    /// # Errors
    /// As [`Generator::new`].
    pub fn of_variants(
        sessions: Vec<(Vec<bool>, Session)>,
        plan: Plan,
        given: &[&str],
    ) -> Result<Generator, GenerationError> {
        let first = sessions.first().ok_or(GenerationError::NoPlan)?;
        let roles = roles(&first.1, Some(&plan), given)?;
        let fed_back = plan.fed_back();
        let fed_back = fed_back.map(|(input, output)| (input.to_owned(), output.to_owned()));
        let denoiser = VariantDenoiser::new(sessions, fed_back)?;
        Ok(Generator {
            resident: None,
            form: Form::Variants(Box::new(denoiser)),
            roles,
            plan: Some(plan),
            followed: None,
            timestep_unit: 1.0,
            stop: Stop::default(),
            show_samples: false,
            keep_latents: true,
            latents: None,
            copied: 0,
        })
    }

    /// From now on clips are given up between two steps where `stop` is asked: [`GenerationError::Stopped`].
    pub fn stop_on(&mut self, stop: Stop) {
        self.stop = stop;
    }

    /// From now on who watches sees the sample of every step, also where it has to be brought from a device for that.
    pub fn show_samples(&mut self, show: bool) {
        self.show_samples = show;
    }

    /// From now on latents stay on a device with memory of its own, as they do where nothing is said, or go through the host
    /// in every step.
    pub fn keep_latents(&mut self, keep: bool) {
        self.keep_latents = keep;
    }

    /// Of variants: every value lies at an address of its own from now on, see [`VariantDenoiser::fix_addresses`].
    pub fn fix_addresses(&mut self) {
        if let Form::Variants(denoiser) = &mut self.form {
            denoiser.fix_addresses();
        }
    }

    /// How many steps the device has recorded: see [`VariantDenoiser::recordings`].
    pub fn recordings(&self) -> usize {
        match &self.form {
            Form::Variants(denoiser) => denoiser.recordings(),
            Form::Switch(_) => 0,
        }
    }

    /// Where the latents of the last clip lay between its steps; none before the first.
    pub fn latents(&self) -> Option<&LatentPlace> {
        self.latents.as_ref()
    }

    /// From now on steps broadcast by these flags in the place of the plan's timings; `None` goes by the plan again. A model
    /// that is driven by its step holds its own schedule, and cannot follow another.
    pub fn follow(&mut self, schedule: Option<Schedule>) {
        self.followed = schedule;
    }

    /// From now on the model is given the scheduler's timesteps divided by `unit`, as some are trained. Rules go by the
    /// scheduler's.
    pub fn count_timesteps_in(&mut self, unit: f64) {
        self.timestep_unit = unit;
    }

    /// The plan, where the model is patched.
    pub fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref()
    }

    /// The model's inputs by role.
    pub fn roles(&self) -> &Roles {
        &self.roles
    }

    /// The open model; of variants that of the first step.
    pub fn session(&self) -> &Session {
        self.form.session()
    }

    /// Bytes of the caches that are held now: see [`Denoiser::held_bytes`]; variants hold each from the first step that computes it.
    pub fn held_bytes(&self) -> usize {
        self.form.held_bytes()
    }

    /// Bytes that the model's sessions have taken of the device's memory: see [`Session::arena_bytes`] and
    /// [`VariantDenoiser::arena_bytes`].
    pub fn arena_bytes(&self) -> Option<u64> {
        self.form.arena_bytes()
    }

    /// Bytes of caches that were copied in the host's memory (see [`Denoiser::host_copies`] and
    /// [`VariantDenoiser::host_copies`]), and of latents and model outputs that steps moved between the host and a device with
    /// memory of its own.
    pub fn host_copies(&self) -> u64 {
        self.form.host_copies() + self.resident.as_ref().map_or(0, Resident::host_copies) + self.copied
    }

    /// The shape of one clip, `[1, channels, frames, height, width]`; open sizes by the name of their dimension.
    ///
    /// # Errors
    /// [`GenerationError::OpenSize`] where a size is not known.
    pub fn clip_shape(&self, sizes: &BTreeMap<String, usize>) -> Result<Vec<usize>, GenerationError> {
        let mut latent = self.roles.latent.clone();
        if let Some(batch) = latent.shape.first_mut() {
            *batch = Some(1);
        }
        known_sizes([&latent], sizes)?;
        sizes_of(&latent, sizes)
    }

    /// Refuses a run that is not the one that the model's schedule was made for, where the model is driven by its step.
    fn check_run(&self, timesteps: &[f64]) -> Result<(), GenerationError> {
        match self.plan.as_ref().filter(|plan| plan.drive == Drive::Step) {
            Some(plan) => check_steps(plan.schedule.as_ref(), timesteps),
            None => Ok(()),
        }
    }

    /// Refuses timesteps that the model's input would cut off.
    fn check_timesteps(&self, timesteps: &[f64]) -> Result<(), GenerationError> {
        let port = &self.roles.timestep;
        if !matches!(port.element_type, Some(ElementType::Int32 | ElementType::Int64)) {
            return Ok(());
        }
        let cut = timesteps
            .iter()
            .enumerate()
            .find(|(_, timestep)| (*timestep / self.timestep_unit).fract() != 0.0);
        match cut {
            None => Ok(()),
            Some((step, timestep)) => Err(GenerationError::WholeTimesteps {
                input: port.name.clone(),
                description: port.description.clone(),
                step,
                timestep: *timestep,
            }),
        }
    }

    /// What the step that was just done broadcast, where the schedule allowed `flags`.
    fn broadcast(&self, flags: &[bool]) -> Vec<bool> {
        let broadcast = self.form.broadcast().filter(|broadcast| broadcast.len() == flags.len());
        broadcast.unwrap_or(flags).to_vec()
    }

    /// The names of the rules whose flags are set.
    fn names(&self, flags: &[bool]) -> Vec<String> {
        let rules = self.plan.iter().flat_map(|plan| &plan.rules);
        let set = rules.zip(flags).filter(|(_, flag)| **flag);
        set.map(|(rule, _)| rule.name.clone()).collect()
    }

    /// Which rules broadcast at which step of a run through `timesteps`; nothing is broadcast by a plain model.
    pub fn schedule(&self, timesteps: &[f64]) -> Schedule {
        let of_plan = || match &self.plan {
            Some(plan) => plan.schedule(timesteps),
            None => Schedule::new(&[], timesteps),
        };
        self.followed.clone().unwrap_or_else(of_plan)
    }

    /// The rules that leave out half of the batch, as indices.
    fn guidance_rules(&self) -> Vec<usize> {
        let rules = self.plan.iter().flat_map(|plan| plan.rules.iter().enumerate());
        rules
            .filter(|(_, rule)| rule.strategy == Strategy::Guidance)
            .map(|(index, _)| index)
            .collect()
    }

    /// Makes a clip from `noise` (`[batch, channels, frames, height, width]`, standard deviation 1), or several of one
    /// prompt side by side. `step_noise` is asked by schedulers that draw noise at each step. `watch` is told of each step,
    /// that is call of the model, when it is done.
    ///
    /// # Errors
    /// [`GenerationError`] where the model does not take such a batch or text, or a step fails.
    pub fn generate(
        &mut self,
        scheduler: &mut dyn Scheduler,
        noise: ArrayD<f32>,
        step_noise: &mut dyn NoiseSource,
        conditioning: &Conditioning,
        watch: &mut dyn FnMut(&StepDone<'_>),
    ) -> Result<Clip, GenerationError> {
        let steps = Steps::WHOLE;
        self.denoise(scheduler, noise, step_noise, conditioning, watch, steps, None)
    }

    /// Makes the steps `part` of a run whose other steps another model makes: the scheduler is the same for both, and so is
    /// `sample`: the noise before the first step, else what the step before left. What the model broadcasts goes by its own steps
    /// alone: the first of them computes everything, and rules count from there.
    ///
    /// # Errors
    /// As [`Generator::generate`].
    pub fn generate_part(
        &mut self,
        scheduler: &mut dyn Scheduler,
        part: Range<usize>,
        sample: ArrayD<f32>,
        step_noise: &mut dyn NoiseSource,
        conditioning: &Conditioning,
        watch: &mut dyn FnMut(&StepDone<'_>),
    ) -> Result<Clip, GenerationError> {
        let steps = Steps {
            own: part,
            ..Steps::WHOLE
        };
        self.denoise(scheduler, sample, step_noise, conditioning, watch, steps, None)
    }

    /// Makes a clip with nothing broadcast, and tells `see` what every cache would hold behind each step: the index of the
    /// step, and the values by the names of the caches' inputs. One step's values are there at a time.
    ///
    /// # Errors
    /// As [`Generator::generate`].
    pub fn record(
        &mut self,
        scheduler: &mut dyn Scheduler,
        noise: ArrayD<f32>,
        step_noise: &mut dyn NoiseSource,
        conditioning: &Conditioning,
        see: &mut See<'_>,
    ) -> Result<Clip, GenerationError> {
        let steps = Steps::WHOLE;
        self.denoise(
            scheduler,
            noise,
            step_noise,
            conditioning,
            &mut |_| {},
            steps,
            Some(see),
        )
    }

    /// Runs the first two steps of a clip, of variants all steps until each was run: the first runs of a session are
    /// slower, since memory is allocated and weights are read from the disk.
    ///
    /// # Errors
    /// As [`Generator::generate`].
    pub fn warm_up(
        &mut self,
        scheduler: &mut dyn Scheduler,
        noise: ArrayD<f32>,
        conditioning: &Conditioning,
    ) -> Result<(), GenerationError> {
        let sets = match &self.form {
            Form::Switch(_) => Vec::new(),
            Form::Variants(_) => self.schedule(scheduler.timesteps()).distinct_sets(),
        };
        let steps = Steps {
            limit: sets.iter().map(|set| set.first + 1).max().unwrap_or(0).max(2),
            ..Steps::WHOLE
        };
        let step_noise = &mut SeededNoise::new(0);
        self.denoise(scheduler, noise, step_noise, conditioning, &mut |_| {}, steps, None)
            .map(drop)
    }

    /// Steps of a clip; with `see`, nothing is broadcast and it is told of the caches.
    #[allow(clippy::too_many_arguments)]
    fn denoise(
        &mut self,
        scheduler: &mut dyn Scheduler,
        noise: ArrayD<f32>,
        step_noise: &mut dyn NoiseSource,
        conditioning: &Conditioning,
        watch: &mut dyn FnMut(&StepDone<'_>),
        steps: Steps,
        mut see: Option<&mut See<'_>>,
    ) -> Result<Clip, GenerationError> {
        let all = scheduler.timesteps();
        let first = steps.own.start.min(all.len());
        let timesteps = all
            .get(first..steps.own.end.min(all.len()))
            .unwrap_or_default()
            .to_vec();
        let is_whole = timesteps.len() == all.len();
        self.check_run(&timesteps)?;
        self.check_timesteps(&timesteps)?;
        let mut schedule = self.schedule(&timesteps);
        if conditioning.copies() == 1 {
            // The model runs for the prompt alone anyhow.
            for rule in self.guidance_rules() {
                schedule.compute_always(rule);
            }
        }
        if see.is_some() {
            for rule in 0..schedule.rules() {
                schedule.compute_always(rule);
            }
        }
        let batch = noise.shape().first().copied().unwrap_or(1);
        let fixed = self.fixed_inputs(conditioning, batch)?;
        let mut sample = match first {
            0 => noise * scheduler.initial_noise_sigma(),
            _ => noise,
        };
        match see {
            // Without a schedule every cache is held.
            Some(_) => self.form.forget()?,
            None => self.form.begin(&schedule)?,
        }
        self.latents = None;
        if see.is_none() {
            let resident = match is_whole || !self.session().provider().has_own_memory() {
                true => self.resident_run(scheduler, sample.shape(), conditioning),
                // The scheduler's memory goes from one model's device to the other's by the host.
                false => Err(LatentPlace::host("two transformers take turns")),
            };
            match resident {
                Ok((resident, run)) => {
                    self.latents = Some(LatentPlace::ON_DEVICE);
                    let clip = Course {
                        timesteps: &timesteps,
                        schedule: &schedule,
                        guidance: conditioning.guidance,
                        fixed: &fixed,
                        limit: steps.limit,
                    };
                    return self.denoise_resident(resident, &run, &clip, sample, step_noise, watch);
                }
                Err(place) => self.latents = Some(place),
            }
        }
        let mut step_milliseconds = Vec::with_capacity(timesteps.len());
        for (place, timestep) in timesteps.iter().enumerate().take(steps.limit) {
            self.stop.check()?;
            let begun = Instant::now();
            let index = first + place;
            let scaled = scheduler.scale_model_input(index, sample.clone())?;
            let output = self.step(scaled, *timestep, conditioning, &fixed, schedule.flags(place))?;
            let flags = self.broadcast(schedule.flags(place));
            sample = scheduler.step(index, output.view(), sample.view(), step_noise)?;
            let count = sample.iter().filter(|value| !value.is_finite()).count();
            if count > 0 {
                let by_model = output.iter().any(|value| !value.is_finite());
                return Err(self.not_finite((index, *timestep), count, by_model, &flags));
            }
            if let Some(see) = &mut see {
                see(index, self.form.caches()?);
            }
            let milliseconds = begun.elapsed().as_secs_f64() * 1e3;
            step_milliseconds.push(milliseconds);
            watch(&StepDone {
                index,
                timestep: *timestep,
                begun,
                milliseconds,
                flags: &flags,
                sample: Some(sample.view()),
            });
        }
        Ok(Clip {
            sample,
            step_milliseconds,
        })
    }

    /// The timestep as the model takes it beside a latent of this shape.
    fn timestep(&self, timestep: f64, latent: &[usize]) -> Tensor {
        // One a clip of the batch, or of its tokens, unless the model fixes another number.
        let open = [latent.first().copied(), tokens_of(latent)];
        let sizes = self.roles.timestep.shape.iter().zip(open);
        let count = sizes.map(|(size, open)| match size {
            Some(size) => usize::try_from(*size).unwrap_or(0),
            None => open.unwrap_or(1),
        });
        let timestep = ArrayD::from_elem(count.collect::<Vec<usize>>(), timestep / self.timestep_unit);
        Tensor::from_array(timestep).cast(type_of(&self.roles.timestep))
    }

    fn not_finite(
        &self,
        (step, timestep): (usize, f64),
        count: usize,
        by_model: bool,
        flags: &[bool],
    ) -> GenerationError {
        GenerationError::NotFinite {
            step,
            timestep,
            count,
            by_model,
            rules: self.names(flags),
            patched: self.plan.is_some(),
        }
    }

    /// One step of the model with guidance applied: the prediction for `sample`, of its shape.
    ///
    /// # Errors
    /// As [`Generator::generate`].
    fn step(
        &mut self,
        sample: ArrayD<f32>,
        timestep: f64,
        conditioning: &Conditioning,
        fixed: &[(String, Tensor)],
        flags: &[bool],
    ) -> Result<ArrayD<f32>, GenerationError> {
        let shape = sample.shape().to_vec();
        let channels = shape.get(CHANNEL_AXIS.index()).copied().unwrap_or(0);
        let copies = conditioning.copies();
        let has_own_memory = self.session().provider().has_own_memory();
        let latent = if copies == 1 {
            sample
        } else {
            repeat_batch(sample.view(), copies)?
        };
        let timestep = self.timestep(timestep, latent.shape());
        let latent = Tensor::from_array(latent).cast(type_of(&self.roles.latent));
        if has_own_memory {
            self.copied += bytes_of(&latent);
        }
        let mut inputs: Vec<(&str, &Tensor)> = vec![
            (&self.roles.latent.name, &latent),
            (&self.roles.timestep.name, &timestep),
        ];
        inputs.extend(fixed.iter().map(|(name, tensor)| (name.as_str(), tensor)));
        let outputs = self.form.step(&inputs, flags)?;
        let refuse = |found: String| GenerationError::Output {
            found,
            latent: shape.clone(),
        };
        let found = outputs.len();
        let Some((_, output)) = outputs.into_iter().next() else {
            return Err(refuse(format!("{found} tensors")));
        };
        if has_own_memory {
            self.copied += bytes_of(&output);
        }
        let output = output.into_f32();
        let output = match copies {
            1 => first_channels(output.view(), CHANNEL_AXIS, channels)?,
            _ => guide(output.view(), conditioning.guidance, CHANNEL_AXIS, channels)?,
        };
        if output.shape() == shape {
            Ok(output)
        } else {
            Err(refuse(format!("a tensor of shape {:?}", output.shape())))
        }
    }

    /// The inputs that are the same in every step, checked against the model; `clips` are made side by side.
    fn fixed_inputs(
        &self,
        conditioning: &Conditioning,
        clips: usize,
    ) -> Result<Vec<(String, Tensor)>, GenerationError> {
        let copies = conditioning.copies();
        check_batch(&self.roles.latent, copies, clips)?;
        let ports = self.session().inputs();
        let further = conditioning.inputs.iter().map(|(name, value)| {
            let port = ports.iter().find(|port| port.name == *name);
            (
                name.clone(),
                value.clone().cast(port.map_or(value.element_type(), type_of)),
            )
        });
        let mut fixed: Vec<(String, Tensor)> = further.collect();
        let texts = match copies {
            1 => vec![&conditioning.prompt],
            _ => vec![&conditioning.empty, &conditioning.prompt],
        };
        let roles = &self.roles;
        for (port, part) in [
            (&roles.text, part_embeddings as Part),
            (&roles.mask, part_mask),
            (&roles.pooled, part_pooled),
        ] {
            if let Some(port) = port {
                let stacked = stacked(port, &texts, part, clips)?;
                fixed.push((port.name.clone(), Tensor::from_array(stacked).cast(type_of(port))));
            }
        }
        Ok(fixed)
    }
}

fn bytes_of(tensor: &Tensor) -> u64 {
    (tensor.shape().iter().product::<usize>() * tensor.element_type().bytes()) as u64
}

/// The roles of a model's own inputs.
fn roles(session: &Session, plan: Option<&Plan>, given: &[&str]) -> Result<Roles, GenerationError> {
    let mut without_role = given.to_vec();
    if let Some(plan) = plan {
        without_role.push(STEP_INPUT);
        without_role.extend(plan.rules.iter().map(|rule| rule.flag.as_str()));
        without_role.extend(plan.fed_back().map(|(input, _)| input));
    }
    Roles::of(session.inputs(), &without_role)
}

/// Refuses a run through `timesteps` where `schedule` is for another one.
///
/// # Errors
/// [`GenerationError::OtherRun`].
pub fn check_steps(schedule: Option<&SchedulePlan>, timesteps: &[f64]) -> Result<(), GenerationError> {
    match schedule {
        Some(schedule) if schedule.is_for(timesteps) => Ok(()),
        schedule => Err(GenerationError::OtherRun {
            planned: described(
                schedule.map_or(0, SchedulePlan::steps),
                schedule.map_or(&[], |schedule| &schedule.timesteps),
            ),
            run: described(timesteps.len(), timesteps),
        }),
    }
}

/// A run in words.
fn described(steps: usize, timesteps: &[f64]) -> String {
    match timesteps {
        [first, .., last] => format!("{steps} steps (timesteps {first} to {last})"),
        [only] => format!("{steps} step (timestep {only})"),
        [] => format!("{steps} steps"),
    }
}

fn type_of(port: &Port) -> ElementType {
    port.element_type.unwrap_or(ElementType::Float32)
}
