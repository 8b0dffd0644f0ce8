//! The denoising loop over an open model.

use super::form::Form;
use super::resident::{LatentPlace, Resident};
use super::roles::{known_sizes, sizes_of};
use super::{Conditioning, GenerationError, Roles};
use crate::rewrite::{PLAN_KEY, Plan, STEP_INPUT};
use crate::runtime::{Denoiser, Feedback, Session, Tensor, VariantDenoiser};
use crate::sampler::{NoiseSource, Scheduler, SeededNoise};
use crate::schedule::Schedule;
use crate::stop::Stop;
use ndarray::ArrayD;
use std::collections::BTreeMap;
use std::ops::Range;

mod clip;
mod denoise;
mod on_device;
mod planned_run;

use clip::Steps;
pub use clip::{Clip, StepDone};
pub use planned_run::check_steps;

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

    /// Which rules broadcast at which step of a run through `timesteps`; nothing is broadcast by a plain model.
    pub fn schedule(&self, timesteps: &[f64]) -> Schedule {
        let of_plan = || match &self.plan {
            Some(plan) => plan.schedule(timesteps),
            None => Schedule::new(&[], timesteps),
        };
        self.followed.clone().unwrap_or_else(of_plan)
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
