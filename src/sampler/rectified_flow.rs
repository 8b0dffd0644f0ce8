//! Open-Sora's rectified flow: Liu, Gong and Liu, "Flow Straight and Fast" (2209.03003).
//!
//! The numbers follow `RFLOW` of VideoSys (`videosys/schedulers/scheduling_rflow_open_sora.py` at commit 191c275), which
//! is Open-Sora's. Neither has a configuration file of its own, so the class has a name of ours,
//! `OpenSoraRFlowScheduler`, with the parameters of `RFLOW` as keys:
//!
//! ```json
//! {"_class_name": "OpenSoraRFlowScheduler", "num_timesteps": 1000, "use_timestep_transform": true}
//! ```
//!
//! The model predicts `clean - noise`, and its timestep runs from `num_timesteps` down.

use ndarray::{ArrayD, ArrayViewD};

use super::arithmetic::{check_shapes, of_step, weighted_sum};
use super::configuration::SchedulerOptions;
use super::fields::Fields;
use super::trained::Trained;
use super::{Memory, NoiseSource, RunSettings, SamplerError, Scheduler, VideoSize};

/// The pixels of the picture that `use_timestep_transform` does not shift.
const BASE_PIXELS: f32 = 512.0 * 512.0;

/// Open-Sora's VAE makes this many latent frames of this many frames.
const LATENT_FRAMES: usize = 5;
const CHUNK_FRAMES: usize = 17;

/// The options of `RFLOW`; missing keys have its defaults.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RectifiedFlowConfig {
    timesteps: usize,
    use_discrete_timesteps: bool,
    use_timestep_transform: bool,
}

impl RectifiedFlowConfig {
    pub(super) fn read(fields: &Fields<'_>) -> Result<RectifiedFlowConfig, SamplerError> {
        // These concern training, or are options of the run.
        for key in [
            "cfg_scale",
            "loc",
            "num_sampling_steps",
            "sample_method",
            "scale",
            "transform_scale",
        ] {
            fields.has(key);
        }
        Ok(RectifiedFlowConfig {
            timesteps: fields.integer("num_timesteps", 1000, 1, Trained::MOST_TIMESTEPS)? as usize,
            use_discrete_timesteps: fields.boolean("use_discrete_timesteps", false)?,
            use_timestep_transform: fields.boolean("use_timestep_transform", false)?,
        })
    }
}

/// How far a video's size shifts its timesteps: 1 for a picture of 512 by 512.
fn shift_of(video: VideoSize) -> f32 {
    let pixels = video.height.saturating_mul(video.width) as f32;
    let frames = match video.frames {
        1 => 1,
        frames => frames / CHUNK_FRAMES * LATENT_FRAMES,
    };
    (pixels / BASE_PIXELS).sqrt() * (frames as f32).sqrt()
}

impl SchedulerOptions for RectifiedFlowConfig {
    fn scheduler(&self, run: &RunSettings) -> Result<Box<dyn Scheduler>, SamplerError> {
        Trained::check_steps(run.steps, self.timesteps)?;
        let (steps, trained) = (run.steps as f64, self.timesteps as f64);
        let even = (0..run.steps).map(|index| (1.0 - index as f64 / steps) * trained);
        let mut timesteps: Vec<f32> = even
            .map(|timestep| match self.use_discrete_timesteps {
                true => timestep.round_ties_even() as f32,
                false => timestep as f32,
            })
            .collect();
        if self.use_timestep_transform {
            let class = "OpenSoraRFlowScheduler";
            let key = "use_timestep_transform";
            let video = run.video.ok_or(SamplerError::Unknown {
                class,
                key,
                what: "the size of the video",
                advice: "give it with --video FRAMESxHEIGHTxWIDTH, in frames and pixels of the video",
            })?;
            let ratio = shift_of(video);
            if ratio <= 0.0 {
                return Err(SamplerError::Unknown {
                    class,
                    key,
                    what: "the size of the video, which must have a picture and either one frame or 17 and more",
                    advice: "give another one with --video FRAMESxHEIGHTxWIDTH",
                });
            }
            let trained = self.timesteps as f32;
            for timestep in &mut timesteps {
                let time = *timestep / trained;
                *timestep = ratio * time / (1.0 + (ratio - 1.0) * time) * trained;
            }
        }
        let ends = timesteps.iter().skip(1).copied().chain([0.0]);
        let lengths = timesteps
            .iter()
            .zip(ends)
            .map(|(begin, end)| (begin - end) / self.timesteps as f32);
        Ok(Box::new(RectifiedFlow {
            lengths: lengths.collect(),
            timesteps: timesteps.into_iter().map(f64::from).collect(),
        }))
    }
}

/// Rectified flow for a certain number of steps.
#[derive(Clone, Debug)]
struct RectifiedFlow {
    timesteps: Vec<f64>,
    /// How far each step goes, of the whole way of 1.
    lengths: Vec<f32>,
}

impl Scheduler for RectifiedFlow {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn step(
        &mut self,
        index: usize,
        model_output: ArrayViewD<'_, f32>,
        sample: ArrayViewD<'_, f32>,
        _: &mut dyn NoiseSource,
    ) -> Result<ArrayD<f32>, SamplerError> {
        let length = *of_step(&self.lengths, index)?;
        check_shapes(&model_output, &sample)?;
        weighted_sum(&[(1.0, sample), (length, model_output)])
    }

    fn memory(&mut self) -> Option<Memory<'_>> {
        Some(Memory::default())
    }
}
