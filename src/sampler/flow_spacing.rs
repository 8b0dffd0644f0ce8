//! Which noise levels a run on a flow has before they are shifted: diffusers leaves that to its pipelines.

use super::SamplerError;

/// Which noise levels a run on a flow has before they are shifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowSpacing {
    /// What the scheduler makes of the number of steps: evenly between the ends of its training levels, which a fixed
    /// shift has moved already (and moves again).
    Trained,
    /// What some pipelines give: from 1 downwards in steps of one over their number.
    Uniform,
}

/// The pipelines of diffusers that give uniform levels.
const UNIFORM: &[&str] = &[
    "AuraFlowPipeline",
    "BriaFiboPipeline",
    "ChromaPipeline",
    "FluxControlPipeline",
    "FluxFillPipeline",
    "FluxKontextPipeline",
    "FluxPipeline",
    "HunyuanImagePipeline",
    "HunyuanSkyreelsImageToVideoPipeline",
    "HunyuanVideo15ImageToVideoPipeline",
    "HunyuanVideo15Pipeline",
    "HunyuanVideoImageToVideoPipeline",
    "HunyuanVideoPipeline",
    "LTX2ImageToVideoPipeline",
    "LTX2Pipeline",
    "LTXImageToVideoPipeline",
    "LTXPipeline",
    "LongCatImagePipeline",
    "Lumina2Pipeline",
    "MotifVideoPipeline",
    "OmniGenPipeline",
    "OvisImagePipeline",
    "QwenImageEditPipeline",
    "QwenImagePipeline",
];

/// Pipelines that compute a dynamic shift and leave the levels to the scheduler begin like this.
const TRAINED: &str = "StableDiffusion3";

/// Pipelines that give levels, or a shift, by a formula that is not made here, and what is of their own.
const OTHERS: &[(&str, &str)] = &[
    ("CogView4Pipeline", "whole timesteps"),
    ("Flux2KleinPipeline", "a shift by tokens and steps"),
    ("Flux2Pipeline", "a shift by tokens and steps"),
    ("HiDreamImagePipeline", "a fixed shift"),
    ("HunyuanVideoFramepackPipeline", "a shift by tokens in an exponent"),
    ("MochiPipeline", "levels that fall linearly and then by squares"),
];

impl FlowSpacing {
    /// What a pipeline of this class gives. Where nothing is known of the class, it goes by the shift: pipelines that
    /// compute a dynamic one give uniform levels.
    ///
    /// # Errors
    /// [`SamplerError::Pipeline`] for a pipeline that goes by a formula of its own.
    pub fn of(pipeline: Option<&str>, dynamic: bool) -> Result<FlowSpacing, SamplerError> {
        let class = pipeline.unwrap_or("");
        if let Some((pipeline, own)) = OTHERS.iter().find(|(other, _)| *other == class) {
            return Err(SamplerError::Pipeline { pipeline, own });
        }
        let uniform = UNIFORM.contains(&class) || (dynamic && !class.starts_with(TRAINED));
        Ok(if uniform {
            FlowSpacing::Uniform
        } else {
            FlowSpacing::Trained
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pipeline_decides_and_else_the_shift() {
        let of = |pipeline, dynamic| FlowSpacing::of(pipeline, dynamic).unwrap();
        assert_eq!(of(Some("HunyuanVideoPipeline"), false), FlowSpacing::Uniform);
        assert_eq!(of(Some("WanPipeline"), false), FlowSpacing::Trained);
        assert_eq!(of(Some("StableDiffusion3Pipeline"), true), FlowSpacing::Trained);
        assert_eq!(of(Some("FluxInpaintPipeline"), true), FlowSpacing::Uniform);
        assert_eq!(
            (of(None, true), of(None, false)),
            (FlowSpacing::Uniform, FlowSpacing::Trained)
        );
        let message = FlowSpacing::of(Some("MochiPipeline"), false).unwrap_err().to_string();
        assert!(
            message.contains("MochiPipeline") && message.contains("--scheduler"),
            "{message}"
        );
    }
}
