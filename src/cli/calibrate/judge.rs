//! Rules on seeds and prompts that fitting never saw.

use super::state::State;
use super::studio::{Purpose, Run, Studio, error};
use crate::calibrate::{Judged, JudgedRules};
use crate::cli::Failure;
use crate::generation::{Clip, Generator};
use crate::quality::{ClipQuality, QualitySummary};
use crate::report::{median, quantile};

/// Rules with their open model, and what came of them.
struct Candidate {
    rules: String,
    fitted: bool,
    generator: Generator,
    ratios: Vec<f64>,
    mse: Vec<f64>,
    quality: Vec<Option<ClipQuality>>,
}

/// Judges the points of the frontier and the rules that they are compared with: every clip by all models, in an order that
/// changes from clip to clip.
pub fn judge(studio: &Studio<'_>, run: &Run, state: &mut State) -> Result<(), Failure> {
    let clips = studio.options.judge_clips;
    if clips == 0 {
        return Ok(());
    }
    let output = &studio.options.output;
    let fitted = state.calibration.frontier.iter().map(|point| {
        let path = output.join(&point.rules).display().to_string();
        (point.rules.clone(), path, true)
    });
    let against = studio
        .options
        .against
        .iter()
        .map(|rules| (rules.clone(), rules.clone(), false));
    let folder = tempfile::Builder::new().prefix(".pab-calibrate-").tempdir_in(output);
    let folder = folder.map_err(|source| crate::report::ReportError::Write {
        path: output.clone(),
        source,
    })?;
    let mut candidates = Vec::new();
    for (place, (rules, path, fitted)) in fitted.chain(against).enumerate() {
        let written = studio.patched(&path, run, &folder.path().join(place.to_string()))?;
        candidates.push(Candidate {
            rules,
            fitted,
            generator: studio.open(&written.model)?,
            ratios: Vec::new(),
            mse: Vec::new(),
            quality: Vec::new(),
        });
    }
    let mut original = studio.open(&studio.options.model)?;
    studio.warm_up(&mut original, run)?;
    for candidate in &mut candidates {
        studio.warm_up(&mut candidate.generator, run)?;
    }
    let models = candidates.len() + 1;
    let bar = studio.terminal.steps("judging", clips * models * run.calls());
    let mut original_times = Vec::with_capacity(clips);
    for index in 0..clips {
        let mut made: Vec<Option<Clip>> = vec![None; models];
        for turn in 0..models {
            let model = (index + turn) % models;
            let generator = match model.checked_sub(1).and_then(|place| candidates.get_mut(place)) {
                Some(candidate) => &mut candidate.generator,
                None => &mut original,
            };
            let clip = studio.clip(generator, run, Purpose::Judge, index, &bar)?;
            if let Some(place) = made.get_mut(model) {
                *place = Some(clip);
            }
        }
        let mut made = made.into_iter().flatten();
        let Some(by_original) = made.next() else { continue };
        original_times.push(by_original.milliseconds());
        for (candidate, clip) in candidates.iter_mut().zip(made) {
            let (mse, quality) = error(&by_original.sample, &clip.sample)?;
            candidate
                .ratios
                .push(by_original.milliseconds() / clip.milliseconds().max(f64::MIN_POSITIVE));
            candidate.mse.push(mse);
            candidate.quality.push(quality);
        }
    }
    bar.finish_and_clear();
    let rules = candidates.into_iter().map(|candidate| {
        let quality: Option<Vec<ClipQuality>> = candidate.quality.into_iter().collect();
        let of = |ratio| quantile(&candidate.ratios, ratio).unwrap_or(f64::NAN);
        JudgedRules {
            rules: candidate.rules,
            fitted: candidate.fitted,
            speed_up: of(0.5),
            quartiles: [of(0.25), of(0.75)],
            quality: quality.and_then(|clips| QualitySummary::of(&clips)),
            mse: candidate.mse.iter().sum::<f64>() / clips as f64,
        }
    });
    let (first, last) = (
        studio.subject(Purpose::Judge, 0).0,
        studio.subject(Purpose::Judge, clips - 1).0,
    );
    state.calibration.judged.push(Judged {
        run: run.record.clone(),
        seeds: [first, last],
        original_milliseconds: median(&original_times).unwrap_or(f64::NAN),
        rules: rules.collect(),
    });
    state.save()
}
