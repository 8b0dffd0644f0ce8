//! Rules on seeds and prompts that fitting never saw.

use super::state::State;
use super::studio::{Purpose, Run, Studio, error};
use crate::calibrate::{Judged, JudgedClip, JudgedRules};
use crate::cli::Failure;
use crate::generation::{Clip, Generator};
use crate::quality::{ClipQuality, QualitySummary};
use crate::report::{ReportError, median, quantile};
use crate::rules::Rules;
use sha2::{Digest, Sha256};

/// What is judged, before its model is open.
struct Candidate {
    /// What is said of it.
    judged: JudgedRules,
    /// Rules as the command line has them; none of the original with fewer steps.
    rules: Option<String>,
    /// The run of the original with fewer steps.
    fewer: Option<Run>,
}

/// Judges the points of the frontier and what they are compared with: every clip by all models, in an order that changes from
/// clip to clip. Clips of rules that an earlier calibration judged are taken over.
pub fn judge(studio: &Studio<'_>, run: &Run, state: &mut State) -> Result<(), Failure> {
    let clips = studio.options.judge_clips;
    if clips == 0 {
        return Ok(());
    }
    let output = &studio.options.output;
    let candidates = candidates(studio, run, state)?;
    let place = resumed(studio, run, &candidates, state);
    let Some(judged) = state.calibration.judged.get(place) else {
        return Ok(());
    };
    // How many clips there are of each already.
    let done: Vec<usize> = judged.rules.iter().map(|rules| rules.clips.len()).collect();
    let begin = done.iter().copied().min().unwrap_or(clips);
    if begin >= clips {
        return Ok(());
    }
    let folder = tempfile::Builder::new().prefix(".pab-calibrate-").tempdir_in(output);
    let folder = folder.map_err(|source| ReportError::Write {
        path: output.clone(),
        source,
    })?;
    let mut original = studio.open(&studio.options.model)?;
    studio.warm_up(&mut original, run)?;
    let mut models = Vec::new();
    for (number, (candidate, done)) in candidates.iter().zip(&done).enumerate() {
        models.push(match candidate.rules.as_ref().filter(|_| *done < clips) {
            Some(rules) => {
                let written = studio.patched(rules, run, &folder.path().join(number.to_string()))?;
                let mut generator = studio.open(&written.model)?;
                studio.warm_up(&mut generator, run)?;
                Some(generator)
            }
            None => None,
        });
    }
    let count = candidates.len() + 1;
    let (done, places) = (done.as_slice(), candidates.len());
    let missing = |index: usize| (0..places).filter(move |place| done.get(*place).is_some_and(|done| *done <= index));
    let length = (begin..clips).map(|index| missing(index).count() + 1).sum::<usize>();
    let bar = studio.terminal.steps("judging", length * run.calls());
    for index in begin..clips {
        // 0 is the original.
        let wanted: Vec<usize> = std::iter::once(0)
            .chain(missing(index).map(|place| place + 1))
            .collect();
        let mut made: Vec<Option<Clip>> = vec![None; count];
        for turn in 0..wanted.len() {
            let Some(model) = wanted.get((index + turn) % wanted.len()).copied() else {
                continue;
            };
            let candidate = model.checked_sub(1);
            let run = candidate
                .and_then(|place| candidates.get(place)?.fewer.as_ref())
                .unwrap_or(run);
            let generator: &mut Generator = match candidate.and_then(|place| models.get_mut(place)) {
                Some(Some(generator)) => generator,
                _ => &mut original,
            };
            let clip = studio.clip(generator, run, Purpose::Judge, index, &bar)?;
            if let Some(place) = made.get_mut(model) {
                *place = Some(clip);
            }
        }
        let mut made = made.into_iter();
        let (Some(by_original), Some(judged)) = (made.next().flatten(), state.calibration.judged.get_mut(place)) else {
            continue;
        };
        for (rules, clip) in judged.rules.iter_mut().zip(made) {
            let Some(clip) = clip else { continue };
            let (mse, quality) = error(&by_original.sample, &clip.sample)?;
            rules.clips.push(JudgedClip {
                original_milliseconds: by_original.milliseconds(),
                milliseconds: clip.milliseconds(),
                mse,
                psnr: quality.as_ref().and_then(|quality| quality.psnr),
                ssim: quality.map(|quality| quality.ssim),
            });
            sum_up(rules);
        }
        judged.seeds[1] = judged.seeds[1].max(studio.subject(Purpose::Judge, index).0);
        let clips = judged.rules.iter().flat_map(|rules| &rules.clips);
        let times: Vec<f64> = clips.map(|clip| clip.original_milliseconds).collect();
        judged.original_milliseconds = median(&times).unwrap_or(0.0);
        state.save()?;
    }
    bar.finish_and_clear();
    Ok(())
}

/// What is judged with a run: the points, the rules given for comparison, the original with fewer steps.
fn candidates(studio: &Studio<'_>, run: &Run, state: &State) -> Result<Vec<Candidate>, Failure> {
    let options = studio.options;
    let fitted = state.calibration.frontier.iter().map(|point| {
        let path = options.output.join(&point.rules).display().to_string();
        (point.rules.clone(), path, true)
    });
    let against = options
        .against
        .iter()
        .map(|rules| (rules.clone(), rules.clone(), false));
    let mut candidates = Vec::new();
    for (name, path, fitted) in fitted.chain(against) {
        candidates.push(Candidate {
            judged: JudgedRules {
                rules: name,
                sha256: digest(&Rules::find(&path)?),
                fitted,
                ..JudgedRules::default()
            },
            rules: Some(path),
            fewer: None,
        });
    }
    for steps in options
        .against_steps
        .iter()
        .copied()
        .filter(|steps| *steps < run.record.steps)
    {
        candidates.push(Candidate {
            judged: JudgedRules {
                rules: format!("{steps} steps"),
                fewer_steps: Some(steps),
                ..JudgedRules::default()
            },
            rules: None,
            fewer: Some(run.in_steps(steps)?),
        });
    }
    Ok(candidates)
}

/// A digest of rules, whatever comments and lines they have.
fn digest(rules: &Rules) -> String {
    let text = serde_json::to_string(&rules.rules).unwrap_or_default();
    let hash = Sha256::digest(text.as_bytes());
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The place of this run among those judged: what is there of the same rules and clips stays, all else begins anew.
fn resumed(studio: &Studio<'_>, run: &Run, candidates: &[Candidate], state: &mut State) -> usize {
    let first = studio.subject(Purpose::Judge, 0).0;
    let judged = &mut state.calibration.judged;
    let place = judged.iter().position(|judged| run.is(&judged.run));
    let earlier = place.and_then(|place| judged.get(place).cloned());
    let earlier = earlier.filter(|earlier| earlier.seeds[0] == first && earlier.prompts == studio.options.judge_prompt);
    let same = |candidate: &JudgedRules| {
        let mut rules = earlier.iter().flat_map(|earlier| &earlier.rules);
        rules.find(|rules| rules.sha256 == candidate.sha256 && rules.fewer_steps == candidate.fewer_steps)
    };
    let rules = candidates.iter().map(|candidate| match same(&candidate.judged) {
        Some(same) => JudgedRules {
            rules: candidate.judged.rules.clone(),
            fitted: candidate.judged.fitted,
            ..same.clone()
        },
        None => candidate.judged.clone(),
    });
    let entry = Judged {
        run: run.record.clone(),
        seeds: earlier.as_ref().map_or([first, first], |earlier| earlier.seeds),
        prompts: studio.options.judge_prompt.clone(),
        original_milliseconds: earlier.as_ref().map_or(0.0, |earlier| earlier.original_milliseconds),
        rules: rules.collect(),
    };
    match place.and_then(|place| Some((place, judged.get_mut(place)?))) {
        Some((place, slot)) => {
            *slot = entry;
            place
        }
        None => {
            judged.push(entry);
            judged.len() - 1
        }
    }
}

/// What all clips of some rules come to.
fn sum_up(rules: &mut JudgedRules) {
    let ratio = |clip: &JudgedClip| clip.original_milliseconds / clip.milliseconds.max(f64::MIN_POSITIVE);
    let ratios: Vec<f64> = rules.clips.iter().map(ratio).collect();
    let of = |share| quantile(&ratios, share).unwrap_or(0.0);
    let quality = |clip: &JudgedClip| {
        Some(ClipQuality {
            psnr: clip.psnr,
            mean_squared_error: clip.mse,
            ssim: clip.ssim?,
            ..ClipQuality::default()
        })
    };
    let clips: Option<Vec<ClipQuality>> = rules.clips.iter().map(quality).collect();
    rules.speed_up = of(0.5);
    rules.quartiles = [of(0.25), of(0.75)];
    rules.quality = clips.and_then(|clips| QualitySummary::of(&clips));
    rules.mse = rules.clips.iter().map(|clip| clip.mse).sum::<f64>() / rules.clips.len().max(1) as f64;
}
