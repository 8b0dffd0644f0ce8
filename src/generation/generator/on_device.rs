//! The loop whose latents stay on the model's device.

use super::denoise::type_of;
use super::{Clip, Generator, StepDone};
use crate::generation::resident::{LatentPlace, Resident};
use crate::generation::{Conditioning, GenerationError};
use crate::rewrite::Plan;
use crate::runtime::{DeviceTensor, ElementType, Given, Port, Tensor};
use crate::sampler::{CHANNEL_AXIS, LinearRun, NoiseSource, Scheduler, linear_run};
use crate::schedule::Schedule;
use ndarray::ArrayD;
use std::time::Instant;

/// What the steps of a clip have in common.
pub(super) struct Course<'a> {
    pub timesteps: &'a [f64],
    pub schedule: &'a Schedule,
    /// The scale of guidance.
    pub guidance: f32,
    /// The inputs that are the same in every step.
    pub fixed: &'a [(String, Tensor)],
    /// How many steps are made at most.
    pub limit: usize,
}

impl Generator {
    /// The run as sums, and what takes its steps on the device; else where latents lie, and why.
    pub(super) fn resident_run(
        &mut self,
        scheduler: &mut dyn Scheduler,
        sample: &[usize],
        conditioning: &Conditioning,
    ) -> Result<(Resident, LinearRun), LatentPlace> {
        if !self.session().provider().has_own_memory() {
            return Err(LatentPlace::ON_DEVICE);
        }
        if !self.keep_latents {
            return Err(LatentPlace::host("it was asked for"));
        }
        let run = linear_run(scheduler)
            .map_err(|reason| LatentPlace::host(format!("the scheduler's steps are not sums: {reason}")))?;
        let fed_back: Vec<&str> = self
            .plan
            .iter()
            .flat_map(Plan::fed_back)
            .map(|(_, output)| output)
            .collect();
        let own = self.session().outputs().iter();
        let own: Vec<&Port> = own.filter(|port| !fed_back.contains(&port.name.as_str())).collect();
        let Some(output) = own.first() else {
            return Err(LatentPlace::host("the model gives nothing"));
        };
        let channels = sample.get(CHANNEL_AXIS.index()).copied().unwrap_or(0);
        let given = output.shape.get(CHANNEL_AXIS.index()).copied().flatten();
        // With learned variances there are twice as many.
        let output_channels = match given.and_then(|given| usize::try_from(given).ok()) {
            None => None,
            Some(given) if given == channels || given == 2 * channels => Some(given),
            Some(given) => return Err(LatentPlace::host(format!("the model gives {given} channels"))),
        };
        let (output, latent) = ((type_of(output), output_channels), type_of(&self.roles.latent));
        let earlier = self.resident.take();
        let copies = conditioning.copies();
        let resident = Resident::open(self.session(), earlier, &run, sample, copies, output, latent);
        Ok((resident.map_err(LatentPlace::host)?, run))
    }

    /// The steps of a clip whose latents stay on the device.
    pub(super) fn denoise_resident(
        &mut self,
        mut resident: Resident,
        run: &LinearRun,
        clip: &Course<'_>,
        sample: ArrayD<f32>,
        step_noise: &mut dyn NoiseSource,
        watch: &mut dyn FnMut(&StepDone<'_>),
    ) -> Result<Clip, GenerationError> {
        // Where a step fails, what lies on the device goes with it.
        let device_inputs = device_inputs(&mut resident, clip.fixed)?;
        resident.begin(run, sample)?;
        let mut step_milliseconds = Vec::with_capacity(clip.timesteps.len());
        for (index, timestep) in clip.timesteps.iter().enumerate().take(clip.limit) {
            self.stop.check()?;
            let begun = Instant::now();
            let allowed = clip.schedule.flags(index);
            let latent = resident.latent();
            let shape = latent.map(|latent| latent.shape().to_vec()).unwrap_or_default();
            let given_timestep = self.timestep(*timestep, &shape);
            let mut inputs: Vec<(&str, Given<'_>)> = vec![(&self.roles.timestep.name, Given::Host(&given_timestep))];
            inputs.extend(latent.map(|latent| (self.roles.latent.name.as_str(), Given::Device(latent))));
            for (name, tensor) in clip.fixed {
                let there = device_inputs.iter().find(|(found, _)| found == name);
                let given = there.map_or(Given::Host(tensor), |(_, tensor)| Given::Device(tensor));
                inputs.push((name, given));
            }
            let outputs = self.form.step_held(&inputs, allowed)?;
            let flags = self.broadcast(allowed);
            let Some((_, output)) = outputs.into_iter().next() else {
                let (found, latent) = ("no tensor".to_owned(), Vec::new());
                return Err(GenerationError::Output { found, latent });
            };
            let stepped = resident.step(run, index, &output, clip.guidance, step_noise)?;
            if !stepped.magnitude.is_finite() {
                let (sample, output) = (resident.sample()?, resident.download(&output)?);
                let count = sample.iter().filter(|value| !value.is_finite()).count();
                let by_model = output.iter().any(|value| !value.is_finite());
                // The sum alone may be too large for a float32.
                if count > 0 {
                    return Err(self.not_finite((index, *timestep), count, by_model, &flags));
                }
            }
            let milliseconds = begun.elapsed().as_secs_f64() * 1e3;
            step_milliseconds.push(milliseconds);
            let shown = match self.show_samples {
                true => Some(resident.sample()?),
                false => None,
            };
            watch(&StepDone {
                index,
                timestep: *timestep,
                begun,
                milliseconds,
                flags: &flags,
                sample: shown.as_ref().map(|sample| sample.view()),
            });
        }
        let sample = resident.sample()?;
        resident.end();
        self.resident = Some(resident);
        Ok(Clip {
            sample,
            step_milliseconds,
        })
    }
}

/// The inputs that are the same in every step, on the device: those of numbers, whose copies are worth it.
fn device_inputs(
    resident: &mut Resident,
    fixed: &[(String, Tensor)],
) -> Result<Vec<(String, DeviceTensor)>, GenerationError> {
    let of_numbers = fixed.iter().filter(|(_, tensor)| {
        matches!(
            tensor.element_type(),
            ElementType::Float32 | ElementType::Float16 | ElementType::Bfloat16
        )
    });
    of_numbers
        .map(|(name, tensor)| Ok((name.clone(), resident.upload(tensor)?)))
        .collect()
}
