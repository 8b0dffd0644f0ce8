//! The loop over the steps of a clip, and a step of the model with guidance.

use super::clip::{Clip, StepDone, Steps};
use super::on_device::Course;
use super::{Generator, See};
use crate::generation::GenerationError;
use crate::generation::conditioning::{
    Conditioning, Part, check_batch, part_embeddings, part_mask, part_pooled, stacked,
};
use crate::generation::resident::LatentPlace;
use crate::generation::roles::tokens_of;
use crate::rules::Strategy;
use crate::runtime::{ElementType, Port, Tensor};
use crate::sampler::{CHANNEL_AXIS, NoiseSource, Scheduler, first_channels, guide, repeat_batch};
use ndarray::ArrayD;
use std::time::Instant;

impl Generator {
    /// Steps of a clip; with `see`, nothing is broadcast and it is told of the caches.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn denoise(
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
    pub(super) fn timestep(&self, timestep: f64, latent: &[usize]) -> Tensor {
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

    pub(super) fn not_finite(
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

    /// What the step that was just done broadcast, where the schedule allowed `flags`.
    pub(super) fn broadcast(&self, flags: &[bool]) -> Vec<bool> {
        let broadcast = self.form.broadcast().filter(|broadcast| broadcast.len() == flags.len());
        broadcast.unwrap_or(flags).to_vec()
    }

    /// The names of the rules whose flags are set.
    pub(super) fn names(&self, flags: &[bool]) -> Vec<String> {
        let rules = self.plan.iter().flat_map(|plan| &plan.rules);
        let set = rules.zip(flags).filter(|(_, flag)| **flag);
        set.map(|(rule, _)| rule.name.clone()).collect()
    }

    /// The rules that leave out half of the batch, as indices.
    fn guidance_rules(&self) -> Vec<usize> {
        let rules = self.plan.iter().flat_map(|plan| plan.rules.iter().enumerate());
        rules
            .filter(|(_, rule)| rule.strategy == Strategy::Guidance)
            .map(|(index, _)| index)
            .collect()
    }
}

pub(super) fn bytes_of(tensor: &Tensor) -> u64 {
    (tensor.shape().iter().product::<usize>() * tensor.element_type().bytes()) as u64
}

pub(super) fn type_of(port: &Port) -> ElementType {
    port.element_type.unwrap_or(ElementType::Float32)
}
