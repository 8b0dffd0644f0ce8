//! Every scheduler against diffusers: `tests/data/sampler/schedulers.npz`, made by `make_schedulers.py` beside it, and
//! `given_levels.npz`, made by `make_given_levels.py`.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use ndarray::{Array1, ArrayD, Axis, Ix1};
use ndarray_npy::NpzReader;
use serde_json::Value;

use super::*;

/// How far samples may be from diffusers', as part of the largest value of the sample.
const TOLERANCE: f32 = 1e-5;

/// The runs by a number of steps, and those by given levels.
pub(super) const FILES: [&str; 2] = ["schedulers.npz", "given_levels.npz"];

pub(super) fn oracle(file: &str) -> NpzReader<File> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/sampler")
        .join(file);
    NpzReader::new(File::open(path).unwrap()).unwrap()
}

/// The toy model of the oracle: basic operations in `f64`, the same numbers in any language.
pub(super) fn toy(sample: &ArrayD<f32>, timestep: f64) -> ArrayD<f32> {
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
pub(super) fn relative(found: &ArrayD<f32>, expected: &ArrayD<f32>) -> f32 {
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
pub(super) struct Run {
    number: usize,
    pub(super) config: String,
    pub(super) settings: RunSettings,
}

impl Run {
    pub(super) fn read(oracle: &mut NpzReader<File>, number: usize) -> Option<Run> {
        let text = |bytes: Array1<u8>| String::from_utf8(bytes.to_vec()).unwrap();
        let config: Array1<u8> = oracle.by_name(&format!("{number}.config")).ok()?;
        let told: Array1<u8> = oracle.by_name(&format!("{number}.run")).unwrap();
        let told: Value = serde_json::from_str(&text(told)).unwrap();
        let count = |value: &Value| value.as_u64().map(|count| count as usize);
        let levels = |word: &str| {
            let numbers = told[word].as_array()?.iter();
            Some(numbers.map(|number| number.as_f64().unwrap()).collect::<Vec<f64>>())
        };
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
                levels: match (levels("timesteps"), levels("sigmas")) {
                    (Some(timesteps), _) => Some(GivenLevels::Timesteps(timesteps)),
                    // Of a pipeline they are those that it gives itself.
                    (None, sigmas) => sigmas.map(GivenLevels::Sigmas),
                },
            },
        })
    }

    pub(super) fn what(&self) -> String {
        format!("run {}, {} steps, {}", self.number, self.settings.steps, self.config)
    }
}

#[test]
fn runs_equal_those_of_diffusers() {
    let runs = equal_runs(FILES[0]);
    assert!(runs.len() == 14 && runs.values().all(|&count| count >= 5), "{runs:?}");
}

#[test]
fn runs_by_given_levels_equal_those_of_diffusers() {
    let runs = equal_runs(FILES[1]);
    assert_eq!((runs.len(), runs.values().sum::<usize>()), (8, 13), "{runs:?}");
}

/// Compares the runs of a file; how many there are of each class.
fn equal_runs(file: &str) -> BTreeMap<&'static str, usize> {
    let mut oracle = oracle(file);
    let start: ArrayD<f32> = oracle.by_name("start").unwrap();
    let draws: ArrayD<f32> = oracle.by_name("noise").unwrap();
    let mut runs: BTreeMap<&'static str, usize> = BTreeMap::new();
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
            let near = |(one, other): (&f32, &f32)| (one - other).abs() <= 1e-6 * other.max(1e-3 * most.min(1.0));
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
        if apart >= TOLERANCE {
            wrong.push(format!("{apart:e}: {}", run.what()));
        }
    }
    assert!(wrong.is_empty(), "{} runs:\n{}", wrong.len(), wrong.join("\n"));
    runs
}

fn configured(class: &str, options: &str) -> Result<SchedulerConfig, SamplerError> {
    let text = format!(r#"{{"_class_name": "{class}"{options}}}"#);
    SchedulerConfig::parse("scheduler_config.json", &text)
}

/// A scheduler that must come out.
fn made(class: &str, options: &str, steps: usize) -> Box<dyn Scheduler> {
    configured(class, options).unwrap().scheduler(steps).unwrap()
}

/// Why a configuration, or a scheduler made of it, does not come out.
fn refused(class: &str, options: &str, steps: usize) -> String {
    match configured(class, options).and_then(|config| config.scheduler(steps)) {
        Ok(scheduler) => panic!("{class}{options}: {:?}", scheduler.timesteps()),
        Err(error) => error.to_string(),
    }
}

/// A class, options beside its defaults, and the model calls of 12 steps.
const CLASSES: &[(&str, &str, usize)] = &[
    ("DDIMScheduler", "", 12),
    ("DDPMScheduler", "", 12),
    ("PNDMScheduler", "", 12 + 9),
    ("PNDMScheduler", r#", "skip_prk_steps": true"#, 13),
    ("EulerDiscreteScheduler", "", 12),
    ("EulerAncestralDiscreteScheduler", "", 12),
    ("HeunDiscreteScheduler", "", 2 * 12 - 1),
    (
        "DPMSolverMultistepScheduler",
        r#", "algorithm_type": "sde-dpmsolver++""#,
        12,
    ),
    ("DPMSolverSinglestepScheduler", r#", "solver_order": 3"#, 12),
    ("UniPCMultistepScheduler", "", 12),
    ("LCMScheduler", "", 12),
    (
        "FlowMatchEulerDiscreteScheduler",
        r#", "stochastic_sampling": true"#,
        12,
    ),
    ("CogVideoXDDIMScheduler", "", 12),
    ("CogVideoXDPMScheduler", "", 12),
    ("OpenSoraRFlowScheduler", "", 12),
];

/// A whole run with the toy model.
fn run(scheduler: &mut dyn Scheduler, noise: &mut dyn NoiseSource) -> ArrayD<f32> {
    let mut sample = super::noise(&[1, 2, 3], 1).unwrap() * scheduler.initial_noise_sigma();
    for (index, timestep) in scheduler.timesteps().to_vec().into_iter().enumerate() {
        let scaled = scheduler.scale_model_input(index, sample.clone()).unwrap();
        sample = scheduler
            .step(index, toy(&scaled, timestep).view(), sample.view(), noise)
            .unwrap();
    }
    sample
}

#[test]
fn the_loop_goes_over_model_calls() {
    for (class, options, calls) in CLASSES {
        let scheduler = made(class, options, 12);
        assert_eq!(scheduler.timesteps().len(), *calls, "{class}");
        assert!(scheduler.noise_draws() <= *calls, "{class}");
        assert!(scheduler.timesteps().is_sorted_by(|one, next| one >= next) || class.starts_with("PNDM"));
    }
}

#[test]
fn one_scheduler_makes_clip_after_clip() {
    for (class, options, _) in CLASSES {
        let mut scheduler = made(class, options, 12);
        let first = run(scheduler.as_mut(), &mut SeededNoise::new(3));
        assert_eq!(run(scheduler.as_mut(), &mut SeededNoise::new(3)), first, "{class}");
        let other = run(scheduler.as_mut(), &mut SeededNoise::new(4));
        assert_eq!(other == first, scheduler.noise_draws() == 0, "{class}");
        // The draws that a scheduler says it makes are enough, and one less is not.
        let draws: Vec<ArrayD<f32>> = (0..scheduler.noise_draws())
            .map(|index| SeededNoise::new(3).draw(index, &[1, 2, 3]).unwrap())
            .collect();
        if let Some((_, fewer)) = draws.split_last() {
            let stacked = |draws: &[ArrayD<f32>]| {
                let views: Vec<_> = draws.iter().map(|draw| draw.view()).collect();
                GivenNoise::new(ndarray::stack(Axis(0), &views).unwrap())
            };
            assert_eq!(run(scheduler.as_mut(), &mut stacked(&draws)), first, "{class}");
            let given = stacked(fewer);
            assert!(given.check(draws.len(), &[1, 2, 3]).is_err(), "{class}");
        }
    }
}

#[test]
fn calls_that_cannot_be_are_errors() {
    let (small, large) = (ArrayD::zeros(vec![1, 2, 3]), ArrayD::zeros(vec![1, 4, 3]));
    let noise = &mut SeededNoise::new(0);
    for (class, options, calls) in CLASSES {
        let mut scheduler = made(class, options, 12);
        let message = scheduler
            .step(*calls, small.view(), small.view(), noise)
            .unwrap_err()
            .to_string();
        assert!(message.contains(&format!("no step {calls}")), "{class}: {message}");
        assert!(
            scheduler.step(usize::MAX, small.view(), small.view(), noise).is_err(),
            "{class}"
        );
        assert!(scheduler.scale_model_input(*calls, small.clone()).is_err(), "{class}");
        let message = scheduler
            .step(0, large.view(), small.view(), noise)
            .unwrap_err()
            .to_string();
        assert!(message.contains("[1, 4, 3]"), "{class}: {message}");
        // Another shape in the middle, or steps left out: an error of those that look back, and no panic.
        for (first, second) in [
            ((0, &small), (1, &large)),
            ((0, &small), (5, &small)),
            ((3, &small), (4, &small)),
        ] {
            for (index, sample) in [first, second] {
                let _ = scheduler.step(index, sample.view(), sample.view(), noise);
            }
        }
        for shape in [vec![], vec![0], vec![2, 0, 3]] {
            let empty = ArrayD::zeros(shape.clone());
            let next = scheduler.step(0, empty.view(), empty.view(), noise).unwrap();
            assert_eq!(next.shape(), shape, "{class}");
        }
    }
    let mut unipc = made("UniPCMultistepScheduler", "", 12);
    let message = unipc
        .step(3, small.view(), small.view(), noise)
        .unwrap_err()
        .to_string();
    assert!(message.contains("step 3"), "{message}");
}

#[test]
fn given_levels_that_an_option_decides_are_refused() {
    let timesteps = GivenLevels::Timesteps(vec![900.0, 100.0]);
    let sigmas = GivenLevels::Sigmas(vec![0.9, 0.1]);
    for (class, options, levels, part) in [
        (
            "EulerDiscreteScheduler",
            r#", "use_karras_sigmas": true"#,
            &timesteps,
            "`use_karras_sigmas`",
        ),
        (
            "EulerDiscreteScheduler",
            r#", "timestep_type": "continuous", "prediction_type": "v_prediction""#,
            &timesteps,
            "`timestep_type`",
        ),
        (
            "EulerDiscreteScheduler",
            "",
            &GivenLevels::Sigmas(vec![0.9]),
            "there is one",
        ),
        (
            "DPMSolverMultistepScheduler",
            r#", "use_flow_sigmas": true, "prediction_type": "flow_prediction""#,
            &timesteps,
            "`use_flow_sigmas`",
        ),
        ("UniPCMultistepScheduler", "", &sigmas, "`use_flow_sigmas` only"),
        ("PNDMScheduler", "", &timesteps, "a number of steps"),
        (
            "HeunDiscreteScheduler",
            "",
            &GivenLevels::Timesteps(vec![1000.0]),
            "below 1000",
        ),
    ] {
        let run = RunSettings {
            levels: Some(levels.clone()),
            ..RunSettings::of_steps(2)
        };
        let error = configured(class, options)
            .unwrap()
            .scheduler_for(&run)
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains(part), "{class}: {error}");
    }
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let cases = [
        (
            "EulerDiscreteScheduler",
            r#", "use_karras_sigmas": true, "use_beta_sigmas": true"#,
            vec!["`use_beta_sigmas`", "at most"],
        ),
        (
            "UniPCMultistepScheduler",
            r#", "prediction_type": "flow_prediction""#,
            vec!["`prediction_type`", "`use_flow_sigmas`"],
        ),
        (
            "UniPCMultistepScheduler",
            r#", "solver_p": {}"#,
            vec!["`solver_p`", "null"],
        ),
        (
            "DDPMScheduler",
            r#", "variance_type": "learned_range""#,
            vec!["`variance_type`", "\"fixed_small\""],
        ),
        (
            "DPMSolverMultistepScheduler",
            r#", "algorithm_type": "dpmsolver""#,
            vec!["`algorithm_type`", "\"sde-dpmsolver++\""],
        ),
        (
            "DPMSolverMultistepScheduler",
            r#", "use_lu_lambdas": true"#,
            vec!["`use_lu_lambdas`", "false"],
        ),
        (
            "DPMSolverMultistepScheduler",
            r#", "solver_order": 4"#,
            vec!["`solver_order`", "1 to 3"],
        ),
        (
            "PNDMScheduler",
            r#", "prediction_type": "sample""#,
            vec!["`prediction_type`", "\"epsilon\""],
        ),
        (
            "FlowMatchEulerDiscreteScheduler",
            r#", "use_dynamic_shifting": true"#,
            vec!["FlowMatchEulerDiscreteScheduler", "`use_dynamic_shifting`", "--tokens"],
        ),
        (
            "OpenSoraRFlowScheduler",
            r#", "use_timestep_transform": true"#,
            vec!["`use_timestep_transform`", "--video"],
        ),
        // What diffusers goes on with in infinities and NaN.
        (
            "UniPCMultistepScheduler",
            r#", "lower_order_final": false"#,
            vec!["step 11", "`lower_order_final`"],
        ),
        (
            "CogVideoXDDIMScheduler",
            r#", "rescale_betas_zero_snr": true, "timestep_spacing": "trailing""#,
            vec!["step 0 (timestep 999)", "v_prediction"],
        ),
    ];
    for (class, options, parts) in cases {
        let message = refused(class, options, 12);
        for part in parts {
            assert!(message.contains(part), "{message:?} does not contain {part:?}");
        }
    }
    let message = refused("PNDMScheduler", "", 3);
    assert!(
        message.contains("`skip_prk_steps`") && message.contains("4 steps or more"),
        "{message}"
    );
    let message = refused("LCMScheduler", "", 51);
    assert!(message.contains("1 to 50"), "{message}");
}

/// No number of steps makes a panic, whatever the configuration, and what comes out can be run.
#[test]
fn any_number_of_steps_is_a_scheduler_or_an_error() {
    let mut oracle = oracle(FILES[0]);
    let mut made = 0;
    for number in 0.. {
        let Some(mut run) = Run::read(&mut oracle, number) else {
            break;
        };
        let config = SchedulerConfig::parse("oracle", &run.config).unwrap();
        for steps in [0, 1, 2, 3, 61, 499, 999, 1000, 1001, usize::MAX] {
            run.settings.steps = steps;
            let Ok(scheduler) = config.scheduler_for(&run.settings) else {
                continue;
            };
            assert!(
                (1..=1000).contains(&steps) && scheduler.timesteps().len() >= steps,
                "{}",
                run.what()
            );
            assert!(
                scheduler.timesteps().iter().all(|timestep| timestep.is_finite()),
                "{}",
                run.what()
            );
            made += 1;
        }
    }
    assert!(made > 1000, "{made}");
}
