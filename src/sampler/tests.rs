//! Every scheduler against diffusers: `tests/data/sampler/schedulers.npz`, made by `make_schedulers.py` beside it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use ndarray::{Array1, ArrayD, Axis, Ix1};
use ndarray_npy::NpzReader;
use serde_json::Value;

use super::*;

/// How far samples may be from diffusers', as part of the largest value of the sample.
const TOLERANCE: f32 = 1e-5;

fn oracle() -> NpzReader<File> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sampler/schedulers.npz");
    NpzReader::new(File::open(path).unwrap()).unwrap()
}

/// The toy model of the oracle: basic operations in `f64`, the same numbers in any language.
fn toy(sample: &ArrayD<f32>, timestep: f64) -> ArrayD<f32> {
    let level = timestep / 1000.0;
    let output = sample.iter().enumerate().map(|(place, &sample)| {
        let sample = f64::from(sample);
        let bend = sample / (1.0 + sample.abs());
        let output = 0.75 * bend + 0.5 * level * bend * bend + 0.0625 * (place as f64 - 5.5) * (1.0 - 0.5 * level);
        output as f32
    });
    ArrayD::from_shape_vec(sample.raw_dim(), output.collect()).unwrap()
}

/// The largest difference as part of the largest value.
fn relative(found: &ArrayD<f32>, expected: &ArrayD<f32>) -> f32 {
    assert_eq!(found.shape(), expected.shape());
    let largest = expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    let mut pairs = found.iter().zip(expected);
    let apart = pairs.try_fold(0.0_f32, |most, (one, other)| {
        let apart = (one - other).abs();
        apart.is_finite().then(|| most.max(apart))
    });
    apart.map_or(f32::INFINITY, |apart| apart / largest)
}

/// A run of the oracle.
struct Run {
    number: usize,
    config: String,
    settings: RunSettings,
}

impl Run {
    fn read(oracle: &mut NpzReader<File>, number: usize) -> Option<Run> {
        let text = |bytes: Array1<u8>| String::from_utf8(bytes.to_vec()).unwrap();
        let config: Array1<u8> = oracle.by_name(&format!("{number}.config")).ok()?;
        let told: Array1<u8> = oracle.by_name(&format!("{number}.run")).unwrap();
        let told: Value = serde_json::from_str(&text(told)).unwrap();
        let count = |value: &Value| value.as_u64().map(|count| count as usize);
        Some(Run {
            number,
            config: text(config),
            settings: RunSettings {
                steps: count(&told["steps"]).unwrap(),
                tokens: count(&told["tokens"]),
                video: told["video"].as_array().map(|sizes| VideoSize {
                    frames: count(&sizes[0]).unwrap(),
                    height: count(&sizes[1]).unwrap(),
                    width: count(&sizes[2]).unwrap(),
                }),
                pipeline: told["pipeline"].as_str().map(str::to_owned),
            },
        })
    }

    fn what(&self) -> String {
        format!("run {}, {} steps, {}", self.number, self.settings.steps, self.config)
    }

    /// The options that are not the default, for the tolerance.
    fn is_nearly_singular(&self) -> bool {
        self.config.contains("\"rescale_betas_zero_snr\": true") && !self.config.contains("CogVideoX")
    }
}

#[test]
fn runs_equal_those_of_diffusers() {
    let mut oracle = oracle();
    let start: ArrayD<f32> = oracle.by_name("start").unwrap();
    let draws: ArrayD<f32> = oracle.by_name("noise").unwrap();
    let mut runs: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut worst: BTreeMap<&'static str, f32> = BTreeMap::new();
    let mut wrong = Vec::new();
    for number in 0.. {
        let Some(run) = Run::read(&mut oracle, number) else {
            break;
        };
        let config = SchedulerConfig::parse("oracle", &run.config).unwrap();
        assert!(config.ignored().is_empty(), "{:?}: {}", config.ignored(), run.what());
        let mut scheduler = match config.scheduler_for(&run.settings) {
            Ok(scheduler) => scheduler,
            Err(error) => {
                wrong.push(format!("{error}: {}", run.what()));
                continue;
            }
        };
        *runs.entry(config.class()).or_default() += 1;

        // Whole timesteps are the same; fractions, and sigmas, within the last bits of a float32.
        let timesteps: Array1<f64> = oracle.by_name(&format!("{number}.timesteps")).unwrap();
        let whole = |timestep: &f64| timestep.fract() == 0.0;
        let near = |one: f64, other: f64| (one - other).abs() <= 1e-6 * other.abs().max(1e-3);
        let same = scheduler.timesteps().len() == timesteps.len()
            && scheduler.timesteps().iter().zip(&timesteps).all(|(&one, &other)| {
                if timesteps.iter().all(whole) {
                    one == other
                } else {
                    near(one, other)
                }
            });
        if !same {
            let ours = scheduler.timesteps();
            wrong.push(format!("timesteps {ours:?}, not {timesteps}: {}", run.what()));
            continue;
        }
        if let Ok(sigmas) = oracle.by_name::<_, Ix1>(&format!("{number}.sigmas")) {
            let sigmas: Array1<f32> = sigmas;
            let ours = scheduler.sigmas();
            let most = sigmas.iter().fold(0.0_f32, |most, &sigma| most.max(sigma));
            let tolerance = if run.is_nearly_singular() { 1e-3 } else { 1e-6 };
            let near = |(one, other): (&f32, &f32)| (one - other).abs() <= tolerance * other.max(1e-3 * most.min(1.0));
            if ours.len() != sigmas.len() || !ours.iter().zip(&sigmas).all(near) {
                wrong.push(format!("sigmas {ours:?}, not {sigmas}: {}", run.what()));
                continue;
            }
        }
        let initial: Array1<f32> = oracle.by_name(&format!("{number}.initial")).unwrap();
        let ours = scheduler.initial_noise_sigma();
        assert!((ours - initial[0]).abs() <= 1e-6 * initial[0], "{ours}: {}", run.what());

        let kept: Array1<i64> = oracle.by_name(&format!("{number}.kept")).unwrap();
        let samples: ArrayD<f32> = oracle.by_name(&format!("{number}.samples")).unwrap();
        let rows = scheduler.noise_draws();
        let mut noise = GivenNoise::new(draws.slice_axis(Axis(0), (..rows).into()).to_owned());
        let mut sample = &start * ours;
        let timesteps = scheduler.timesteps().to_vec();
        let mut apart = 0.0_f32;
        for (index, timestep) in timesteps.into_iter().enumerate() {
            let scaled = scheduler.scale_model_input(index, sample.clone()).unwrap();
            let output = toy(&scaled, timestep);
            sample = scheduler.step(index, output.view(), sample.view(), &mut noise).unwrap();
            if let Some(place) = kept.iter().position(|&step| step == index as i64) {
                apart = apart.max(relative(&sample, &samples.index_axis(Axis(0), place).to_owned()));
            }
        }
        let worst = worst.entry(config.class()).or_default();
        if run.is_nearly_singular() {
            // diffusers' alphas near 0 differ from machine to machine there; see `ddim/tests.rs`.
            println!("NEAR {apart:e} {}", config.class());
            assert!(apart < 1e-3, "{apart:e}: {}", run.what());
            continue;
        }
        *worst = worst.max(apart);
        if apart >= TOLERANCE {
            wrong.push(format!("{apart:e}: {}", run.what()));
        }
    }
    println!("{worst:#?}");
    assert!(wrong.is_empty(), "{} runs:\n{}", wrong.len(), wrong.join("\n"));
    assert!(runs.len() == 14 && runs.values().all(|&count| count >= 5), "{runs:?}");
}
