//! The figures of a comparison of the original with the patched model: what was run, how long it took, how close the
//! clips are. It is the JSON that pipelines read; `Comparison::render` makes the table for people.

use serde::{Deserialize, Serialize};

use super::ReportError;
use super::provenance::Provenance;
use super::statistics::{Distribution, mean, median_of_ratios, quantile, ratio_of_medians};
use crate::quality::{ClipQuality, QualitySummary};
use crate::rules::{Adaptive, Strategy, Timing};

/// The version of the JSON that [`Comparison`] serialises to; it grows when a field changes its meaning or goes.
///
/// 2: a rule has a strategy and a timing.
const FORMAT: u32 = 2;

/// A comparison of original and patched model. All times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The version of this format.
    pub format: u32,
    /// How it was made; older files do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
    /// What was compared, and how.
    #[serde(flatten)]
    pub facts: Facts,
    /// The original model's times.
    pub original: VariantFigures,
    /// The patched model's times.
    pub patched: VariantFigures,
    /// How much faster the patched model is.
    pub speed_up: SpeedUp,
    /// How close the clips are, summed up; `null` where no clip was compared.
    pub quality: Option<QualitySummary>,
    /// One entry a clip.
    pub clips: Vec<ClipFigures>,
}

/// What was compared, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// The original model's path, or its pipeline's.
    pub model: String,
    /// The patched model's path; of two transformers the folder of both.
    pub patched_model: String,
    /// Where the rules came from: a path, or a preset's name.
    pub rules_from: String,
    /// What ran the models.
    pub runtime: RuntimeFacts,
    /// What was generated.
    pub run: RunFacts,
    /// One entry a rule.
    pub rules: Vec<RuleFigures>,
}

/// What ran the models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuntimeFacts {
    /// ONNX Runtime's version.
    pub version: String,
    /// The library's path.
    pub library: String,
    /// The execution provider, such as `CPUExecutionProvider`.
    pub provider: String,
    /// Threads within an operator.
    pub threads: usize,
}

/// What was generated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunFacts {
    /// The scheduler's class.
    pub scheduler: String,
    /// Denoising steps of each clip.
    pub steps: usize,
    /// The guidance scale; 1 is without guidance.
    pub guidance: f64,
    /// Shape of one clip as it is shown, `[channels, frames, height, width]`.
    pub clip_shape: [usize; 4],
}

/// A rule and what it came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleFigures {
    /// The rule's name.
    pub name: String,
    /// The kind of modules, such as `spatial`.
    pub kind: String,
    /// What takes the place of computing.
    #[serde(flatten)]
    pub strategy: Strategy,
    /// At which steps.
    pub timing: Timing,
    /// What decides of these steps, where the model does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<Adaptive>,
    /// How many modules the rule applies to, of all transformers.
    pub sites: usize,
    /// The share of all steps of a run in which modules of it were broadcast, 0 to 1.
    pub steps_broadcast: f64,
    /// The share of a step's work that broadcasting all these modules saves, 0 to 1; `null` where it is unknown.
    pub step_share: Option<f64>,
}

/// The times of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VariantFigures {
    /// Over all steps of all clips. For a patched model, in which some steps are short, the mean tells the speed and
    /// the median does not.
    pub step_milliseconds: Distribution,
    /// Over clips.
    pub clip_milliseconds: Distribution,
}

/// How much faster the patched model is: original time over patched time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpeedUp {
    /// The median time of a clip over the median time of a clip.
    pub ratio_of_medians: f64,
    /// The median over clips of the ratio of the two times of a clip, which were taken one after the other.
    pub median_of_ratios: f64,
    /// The lower quartile of these ratios.
    pub lower_quartile: f64,
    /// The upper quartile of these ratios.
    pub upper_quartile: f64,
    /// The mean time of a step over the mean time of a step.
    pub ratio_of_step_means: f64,
    /// What the removed work allows: the original's time over that of the static graphs without the modules that each
    /// step broadcasts, as often as each comes; `null` where they were not timed.
    pub allowed: Option<f64>,
}

/// Where `pab-patch compare` writes clips, below its output folder.
pub const CLIPS: &str = "clips";
/// The folder of the original model's clips in [`CLIPS`].
pub const ORIGINAL: &str = "original";
/// The folder of the patched model's clips in [`CLIPS`]; of several sets of rules each has one of its own name.
pub const PATCHED: &str = "patched";

/// One clip.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClipFigures {
    /// The noise's seed.
    pub seed: u64,
    /// The prompt, where there was one.
    pub prompt: Option<String>,
    /// The original model's time.
    pub original_milliseconds: f64,
    /// The patched model's time.
    pub patched_milliseconds: f64,
    /// The former over the latter.
    pub speed_up: f64,
    /// How close the patched model's clip is to the original's; `null` where it was not compared.
    pub quality: Option<ClipQuality>,
}

/// A clip as it was measured, the input of [`Comparison::new`].
#[derive(Clone, Debug, PartialEq)]
pub struct MeasuredClip {
    /// The noise's seed.
    pub seed: u64,
    /// The prompt, where there was one.
    pub prompt: Option<String>,
    /// With the original model.
    pub original: Measured,
    /// With the patched model.
    pub patched: Measured,
    /// How close the two are.
    pub quality: Option<ClipQuality>,
}

/// The times of one clip with one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// One entry a step.
    pub step_milliseconds: Vec<f64>,
    /// The whole clip.
    pub clip_milliseconds: f64,
}

impl Comparison {
    /// Computes the figures of some clips. `allowed` is the speed-up that the removed work allows, where it is known.
    ///
    /// # Errors
    /// [`ReportError::NothingMeasured`] where there is no clip or no step, or a time is not above 0.
    pub fn new(facts: Facts, clips: Vec<MeasuredClip>, allowed: Option<f64>) -> Result<Comparison, ReportError> {
        let nothing = |reason: &'static str| ReportError::NothingMeasured { reason };
        let original = figures(clips.iter().map(|clip| &clip.original))?;
        let patched = figures(clips.iter().map(|clip| &clip.patched))?;
        let originals: Vec<f64> = clips.iter().map(|clip| clip.original.clip_milliseconds).collect();
        let patcheds: Vec<f64> = clips.iter().map(|clip| clip.patched.clip_milliseconds).collect();
        let ratios: Vec<f64> = originals
            .iter()
            .zip(&patcheds)
            .map(|(original, patched)| original / patched)
            .collect();
        let known = |value: Option<f64>| value.ok_or(nothing("there is no clip"));
        let speed_up = SpeedUp {
            ratio_of_medians: known(ratio_of_medians(&originals, &patcheds))?,
            median_of_ratios: known(median_of_ratios(&originals, &patcheds))?,
            lower_quartile: known(quantile(&ratios, 0.25))?,
            upper_quartile: known(quantile(&ratios, 0.75))?,
            ratio_of_step_means: original.step_milliseconds.mean / patched.step_milliseconds.mean,
            allowed,
        };
        let qualities: Vec<ClipQuality> = clips.iter().filter_map(|clip| clip.quality.clone()).collect();
        let clips = clips.into_iter().zip(ratios).map(|(clip, speed_up)| ClipFigures {
            seed: clip.seed,
            prompt: clip.prompt,
            original_milliseconds: clip.original.clip_milliseconds,
            patched_milliseconds: clip.patched.clip_milliseconds,
            speed_up,
            quality: clip.quality,
        });
        let clips = clips.collect();
        Ok(Comparison {
            format: FORMAT,
            provenance: None,
            facts,
            original,
            patched,
            speed_up,
            quality: QualitySummary::of(&qualities),
            clips,
        })
    }
}

fn figures<'a>(measured: impl Iterator<Item = &'a Measured>) -> Result<VariantFigures, ReportError> {
    let nothing = |reason: &'static str| ReportError::NothingMeasured { reason };
    let (mut steps, mut clips) = (Vec::new(), Vec::new());
    for clip in measured {
        steps.extend_from_slice(&clip.step_milliseconds);
        clips.push(clip.clip_milliseconds);
    }
    if clips.iter().any(|&time| !(time > 0.0 && time.is_finite()))
        || mean(&steps).is_some_and(|mean| mean.is_nan() || mean <= 0.0)
    {
        return Err(nothing("a time is not above 0"));
    }
    Ok(VariantFigures {
        step_milliseconds: Distribution::of(&steps).ok_or(nothing("there is no step"))?,
        clip_milliseconds: Distribution::of(&clips).ok_or(nothing("there is no clip"))?,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::rules::{Broadcast, Window};

    fn quality(psnr: Option<f64>, ssim: f64) -> ClipQuality {
        ClipQuality {
            psnr,
            mean_squared_error: psnr.map_or(0.0, |psnr| 10.0_f64.powf(-psnr / 10.0)),
            ssim,
            ..ClipQuality::default()
        }
    }

    fn facts() -> Facts {
        let timing = |range| Broadcast::new(range, Window::timesteps(100.0, 800.0).unwrap()).unwrap();
        let rule = |name: &str, range, steps_broadcast, step_share| RuleFigures {
            name: name.to_owned(),
            kind: name.to_owned(),
            strategy: Strategy::Reuse,
            timing: timing(range).into(),
            adaptive: None,
            sites: 6,
            steps_broadcast,
            step_share: Some(step_share),
        };
        Facts {
            model: "models/latte-shapes/model.onnx".to_owned(),
            patched_model: "out/model.onnx".to_owned(),
            rules_from: "the paper's default".to_owned(),
            runtime: RuntimeFacts {
                version: "1.31.1".to_owned(),
                library: "/usr/lib/libonnxruntime.so".to_owned(),
                provider: "CPUExecutionProvider".to_owned(),
                threads: 2,
            },
            run: RunFacts {
                scheduler: "DDIMScheduler".to_owned(),
                steps: 2,
                guidance: 2.0,
                clip_shape: [3, 8, 32, 32],
            },
            rules: vec![
                rule("spatial", 2, 0.34, 0.2),
                rule("temporal", 3, 0.46, 0.15),
                rule("cross", 6, 0.58, 0.1),
            ],
        }
    }

    pub(crate) fn example() -> Comparison {
        let clip = |seed: u64, original: f64, patched: f64, quality: ClipQuality| MeasuredClip {
            seed,
            prompt: (seed == 3).then(|| "red circle right black".to_owned()),
            original: Measured {
                step_milliseconds: vec![original / 2.0; 2],
                clip_milliseconds: original,
            },
            patched: Measured {
                step_milliseconds: vec![patched / 4.0, patched * 3.0 / 4.0],
                clip_milliseconds: patched,
            },
            quality: Some(quality),
        };
        let clips = vec![
            clip(3, 1200.0, 1000.0, quality(Some(31.5), 0.985)),
            clip(4, 1240.0, 1000.0, quality(Some(28.25), 0.9512)),
            clip(5, 1260.0, 900.0, quality(Some(34.0), 0.9911)),
        ];
        Comparison::new(facts(), clips, Some(1.25)).unwrap()
    }

    #[test]
    fn figures_follow_from_the_clips() {
        let comparison = example();
        assert_eq!(comparison.speed_up.ratio_of_medians, 1.24);
        assert_eq!(comparison.speed_up.median_of_ratios, 1.24);
        assert_eq!(comparison.original.step_milliseconds.count, 6);
        assert_eq!(comparison.patched.step_milliseconds.min, 225.0);
        assert_eq!(comparison.speed_up.allowed, Some(1.25));
        assert_eq!(comparison.quality.as_ref().unwrap().psnr.min, Some(28.25));
        assert_eq!(comparison.clips[2].speed_up, 1.4);
    }

    #[test]
    fn the_json_is_read_back_and_its_form_is_fixed() {
        let comparison = example();
        let json = serde_json::to_string_pretty(&comparison).unwrap();
        assert_eq!(serde_json::from_str::<Comparison>(&json).unwrap(), comparison);
        insta::assert_snapshot!(json);
    }

    #[test]
    fn nothing_measured_is_an_error() {
        let message = Comparison::new(facts(), Vec::new(), None).unwrap_err().to_string();
        assert!(message.contains("nothing to compare"), "{message}");
        for (steps, time) in [(vec![], 1.0), (vec![1.0], 0.0), (vec![1.0], f64::NAN), (vec![0.0], 1.0)] {
            let measured = Measured {
                step_milliseconds: steps,
                clip_milliseconds: time,
            };
            let clip = MeasuredClip {
                seed: 0,
                prompt: None,
                original: measured.clone(),
                patched: measured,
                quality: None,
            };
            assert!(Comparison::new(facts(), vec![clip], None).is_err());
        }
    }
}
