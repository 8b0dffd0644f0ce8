//! Latents that stay in the memory of the model's device from the first step to the last: what a step gives is what the next
//! takes.

use ndarray::ArrayD;
use prost::Message;
use serde::{Deserialize, Serialize};

use super::GenerationError;
use super::step_graph::{
    MAGNITUDE, NEXT_LATENT, NEXT_SAMPLE, NOISE, NUMBERS, OUTPUT, SAMPLE, StepGraph, kept, next_kept,
};
use crate::onnx::messages::DataType;
use crate::runtime::{Denoiser, DeviceTensor, ElementType, Given, Options, Session, Tensor, Transfer};
use crate::sampler::{LinearRun, NoiseSource, repeat_batch};

/// Where latents lie between the steps of a clip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatentPlace {
    /// Whether they lie in the memory of the device that runs the model. The processor's is the host's.
    pub on_device: bool,
    /// Why they went through the host's memory in every step, where the model ran elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl LatentPlace {
    /// In the memory of the model's device.
    pub(super) const ON_DEVICE: LatentPlace = LatentPlace {
        on_device: true,
        reason: None,
    };

    /// On the host, for this reason.
    pub(super) fn host(reason: impl Into<String>) -> LatentPlace {
        LatentPlace {
            on_device: false,
            reason: Some(reason.into()),
        }
    }
}

/// What runs the steps behind the model on its device.
#[derive(Debug)]
pub(super) struct Resident {
    /// They stand before the sessions and go before them.
    now: Option<Now>,
    graph: StepGraph,
    step: Denoiser,
    transfer: Transfer,
}

/// What lies on the device between two steps.
#[derive(Debug)]
struct Now {
    sample: DeviceTensor,
    latent: DeviceTensor,
    kept: Vec<DeviceTensor>,
    zeros: DeviceTensor,
}

/// What a step gave.
pub(super) struct Stepped {
    /// The sum of the sample's absolute values.
    pub magnitude: f32,
}

impl Resident {
    /// Opens what steps need beside the model. `earlier` is taken where it was made for the same.
    ///
    /// # Errors
    /// Why latents cannot stay on the device, in words.
    pub fn open(
        session: &Session,
        earlier: Option<Resident>,
        run: &LinearRun,
        sample: &[usize],
        copies: usize,
        (output_type, output_channels): (ElementType, Option<usize>),
        latent_type: ElementType,
    ) -> Result<Resident, String> {
        let onnx = |element_type: ElementType| match element_type {
            ElementType::Float32 => Ok(DataType::Float),
            ElementType::Float16 => Ok(DataType::Float16),
            ElementType::Bfloat16 => Ok(DataType::Bfloat16),
            other => Err(format!("the model's latents are {other}")),
        };
        let (output, latent) = (onnx(output_type)?, onnx(latent_type)?);
        let graph = StepGraph::new(run, sample, output_channels, copies, output, latent);
        if let Some(earlier) = earlier.filter(|earlier| earlier.graph == graph) {
            return Ok(earlier);
        }
        let options = Options {
            threads: Some(1),
            provider: session.provider(),
            device_index: session.device_index(),
            ..Options::default()
        };
        let opened = Session::open_bytes(session.model(), &graph.model().encode_to_vec(), &options);
        let step = opened.map_err(|error| format!("the scheduler's step cannot run there: {error}"))?;
        let elsewhere = step.on_processor().unwrap_or_default();
        if !elsewhere.is_empty() {
            let operators: Vec<&str> = elsewhere.iter().map(|nodes| nodes.operator.as_str()).collect();
            return Err(format!(
                "{} of the scheduler's step would run on the processor",
                operators.join(", ")
            ));
        }
        Ok(Resident {
            now: None,
            graph,
            step: Denoiser::plain(step),
            transfer: Transfer::of(session),
        })
    }

    /// A tensor on the device, for what is the same in every step.
    pub fn upload(&mut self, tensor: &Tensor) -> Result<DeviceTensor, GenerationError> {
        Ok(self.transfer.upload(tensor)?)
    }

    /// Begins a clip: the only time that latents are brought from the host.
    pub fn begin(&mut self, run: &LinearRun, sample: ArrayD<f32>) -> Result<(), GenerationError> {
        let scale = run.scales.first().copied().unwrap_or(1.0);
        let latent = repeat_batch((&sample * scale).view(), self.graph.copies)?;
        let latent_type = ElementType::from_onnx(self.graph.latent_type).unwrap_or(ElementType::Float32);
        let zeros = Tensor::zeros(ElementType::Float32, sample.shape());
        let transfer = &mut self.transfer;
        self.now = Some(Now {
            sample: transfer.upload(&Tensor::from_array(sample))?,
            latent: transfer.upload(&Tensor::from_array(latent).cast(latent_type))?,
            kept: (0..self.graph.kept())
                .map(|_| transfer.upload(&zeros))
                .collect::<Result<_, _>>()?,
            zeros: transfer.upload(&zeros)?,
        });
        Ok(())
    }

    /// What the model is given.
    pub fn latent(&self) -> Option<&DeviceTensor> {
        self.now.as_ref().map(|now| &now.latent)
    }

    /// The step behind the model, from what it gave.
    ///
    /// # Errors
    /// [`GenerationError::Output`] for an output of another shape, and those of the runtime and of `noise`.
    pub fn step(
        &mut self,
        run: &LinearRun,
        index: usize,
        output: &DeviceTensor,
        guidance: f32,
        noise: &mut dyn NoiseSource,
    ) -> Result<Stepped, GenerationError> {
        let shape = self.graph.sample.clone();
        let refuse = |found: String| GenerationError::Output {
            found,
            latent: shape.clone(),
        };
        if !self.graph.takes(output.shape()) {
            return Err(refuse(format!("a tensor of shape {:?}", output.shape())));
        }
        let (Some(now), Some(step)) = (&self.now, run.steps.get(index)) else {
            return Err(refuse(format!("nothing for step {index}")));
        };
        let next_scale = run.scales.get(index + 1).copied().unwrap_or(1.0);
        let numbers = self.graph.numbers(step, guidance, next_scale);
        let numbers = Tensor::new(&[numbers.len()], numbers)?;
        let fresh = match step.draws() {
            true => Some(Tensor::from_array(noise.draw(index, &shape)?)),
            false => None,
        };
        let names: Vec<String> = (0..self.graph.kept()).map(kept).collect();
        let mut given = vec![
            (OUTPUT, Given::Device(output)),
            (SAMPLE, Given::Device(&now.sample)),
            (NUMBERS, Given::Host(&numbers)),
        ];
        if self.graph.takes_noise() {
            // In a step that draws none it counts nothing.
            given.push((NOISE, fresh.as_ref().map_or(Given::Device(&now.zeros), Given::Host)));
        }
        for (name, tensor) in names.iter().zip(&now.kept) {
            given.push((name, Given::Device(tensor)));
        }
        let outputs = self.step.step_held(&given, &[], &[MAGNITUDE])?;
        let mut outputs: Vec<(String, Option<DeviceTensor>)> =
            outputs.into_iter().map(|(name, tensor)| (name, Some(tensor))).collect();
        let mut take = |name: &str| {
            let found = outputs.iter_mut().find(|(found, _)| found == name);
            let tensor = found.and_then(|(_, tensor)| tensor.take());
            tensor.ok_or_else(|| refuse(format!("no `{name}`")))
        };
        let magnitude = take(MAGNITUDE)?.to_tensor(MAGNITUDE)?.into_f32();
        let (sample, latent) = (take(NEXT_SAMPLE)?, take(NEXT_LATENT)?);
        let kept = (0..self.graph.kept()).map(|place| take(&next_kept(place)));
        let kept = kept.collect::<Result<Vec<_>, GenerationError>>()?;
        if let Some(now) = &mut self.now {
            (now.sample, now.latent, now.kept) = (sample, latent, kept);
        }
        Ok(Stepped {
            magnitude: magnitude.first().copied().unwrap_or(f32::NAN),
        })
    }

    /// The sample as it is now, on the host.
    pub fn sample(&mut self) -> Result<ArrayD<f32>, GenerationError> {
        match &self.now {
            Some(now) => Ok(self.transfer.download(&now.sample)?.into_f32()),
            None => Ok(ArrayD::zeros(self.graph.sample.clone())),
        }
    }

    /// A tensor of the device on the host.
    pub fn download(&mut self, tensor: &DeviceTensor) -> Result<ArrayD<f32>, GenerationError> {
        Ok(self.transfer.download(tensor)?.into_f32())
    }

    /// Gives up what lies on the device between steps.
    pub fn end(&mut self) {
        self.now = None;
    }

    /// Bytes of latents that came to the host unasked.
    pub fn host_copies(&self) -> u64 {
        self.step.host_copies()
    }
}
