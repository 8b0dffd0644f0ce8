//! Against diffusers: `tests/data/sampler/ddim.npz`, made by `make_ddim.py` beside it.

use std::fs::File;
use std::path::Path;

use ndarray::{Array1, Array4, Array5, Axis, IxDyn};
use ndarray_npy::NpzReader;

use super::*;
use crate::sampler::{SeededNoise, TimestepSpacing};

fn oracle() -> NpzReader<File> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sampler/ddim.npz");
    NpzReader::new(File::open(path).unwrap()).unwrap()
}

fn configuration(options: &str) -> DdimConfig {
    read(&format!("{{{}}}", options.trim_start_matches(',')))
}

fn read(text: &str) -> DdimConfig {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).unwrap();
    let fields = Fields::new("test", &object);
    let config = DdimConfig::read(&fields).unwrap();
    assert!(fields.never_read().is_empty(), "{:?}", fields.never_read());
    config
}

/// A step of a scheduler that draws no noise.
fn step(
    scheduler: &mut Ddim,
    index: usize,
    output: ArrayViewD<'_, f32>,
    sample: ArrayViewD<'_, f32>,
) -> Result<ArrayD<f32>, SamplerError> {
    scheduler.step(index, output, sample, &mut SeededNoise::new(0))
}

#[test]
fn missing_keys_have_the_defaults_of_diffusers() {
    let config = configuration("");
    assert_eq!(config.trained, 1000);
    assert_eq!(config.limit, Limit::Clip(1.0));
    assert_eq!(config.prediction, PredictionType::Epsilon);
    assert_eq!((config.steps_offset, config.set_alpha_to_one), (0, true));
    assert_eq!(config.spacing, TimestepSpacing::Leading);
    assert_eq!(config.cumulated_alphas.len(), 1000);
    assert_eq!(config.cumulated_alphas[0], 1.0 - 0.0001);
}

/// Every run of the grid, to 1e-5 (relative where the samples are large).
///
/// With `rescale_betas_zero_snr` diffusers takes betas of 1e-5 as differences of `f32` near 1, and PyTorch's vectorised
/// square root may differ from the correctly rounded one in the last bit: its alphas differ from machine to machine by a
/// few 1e-7, which the last steps of some runs magnify a thousandfold. So there the alphas are compared by themselves
/// and the run is made with those of the oracle.
#[test]
fn runs_equal_those_of_diffusers() {
    let mut oracle = oracle();
    let (mut runs, mut rescaled) = (0, 0);
    loop {
        let Ok(config) = oracle.by_name::<_, ndarray::Ix1>(&format!("{runs}.config")) else {
            break;
        };
        let config: Array1<u8> = config;
        let text = String::from_utf8(config.to_vec()).unwrap();
        let options: serde_json::Value = serde_json::from_str(&text).unwrap();
        let mut config = read(&text);
        if options["rescale_betas_zero_snr"] == true {
            let schedule = options["beta_schedule"].as_str().unwrap();
            let theirs: Array1<f32> = oracle.by_name(&format!("rescaled.{schedule}")).unwrap();
            assert_eq!(theirs.len(), config.cumulated_alphas.len());
            for (ours, theirs) in config.cumulated_alphas.iter().zip(&theirs) {
                assert!((ours - theirs).abs() < 1e-6, "{text}: {ours}, not {theirs}");
            }
            config.cumulated_alphas = theirs.to_vec();
            rescaled += 1;
        }
        let alphas: Array1<f32> = oracle.by_name(&format!("{runs}.alphas")).unwrap();
        for (index, &alpha) in alphas.iter().enumerate() {
            let ours = config.cumulated_alphas[index * 37];
            assert!(
                (ours - alpha).abs() <= 1e-6 * alpha,
                "{text}: alpha {index}: {ours}, not {alpha}"
            );
        }
        let timesteps: Array1<i64> = oracle.by_name(&format!("{runs}.timesteps")).unwrap();
        let mut scheduler = Ddim::new(&config, timesteps.len()).unwrap();
        let ours: Vec<i64> = scheduler.timesteps().iter().map(|&timestep| timestep as i64).collect();
        assert_eq!(ours, timesteps.to_vec(), "{text}");

        let outputs: Array5<f32> = oracle.by_name(&format!("{runs}.outputs")).unwrap();
        let start: Array4<f32> = oracle.by_name(&format!("{runs}.start")).unwrap();
        let kept: Array1<i64> = oracle.by_name(&format!("{runs}.kept")).unwrap();
        let samples: Array5<f32> = oracle.by_name(&format!("{runs}.samples")).unwrap();
        let mut sample = start.into_dyn();
        let mut compared = 0;
        for (index, output) in outputs.axis_iter(Axis(0)).enumerate() {
            sample = scheduler.scale_model_input(index, sample).unwrap();
            sample = step(&mut scheduler, index, output.into_dyn(), sample.view()).unwrap();
            let Some(place) = kept.iter().position(|&step| step == index as i64) else {
                continue;
            };
            for (&ours, &theirs) in sample.iter().zip(samples.index_axis(Axis(0), place)) {
                let tolerance = 1e-5 * theirs.abs().max(1.0);
                assert!(
                    (ours - theirs).abs() <= tolerance,
                    "run {runs}, step {index}: {ours}, not {theirs}\n{text}"
                );
                compared += 1;
            }
        }
        assert_eq!(compared, samples.len());
        runs += 1;
    }
    assert!(
        runs >= 50 && rescaled >= 15 && rescaled < runs,
        "{runs} runs, {rescaled} rescaled"
    );
}

#[test]
fn timesteps_equal_those_of_diffusers() {
    let mut oracle = oracle();
    for (name, spacing) in TimestepSpacing::NAMES {
        for steps in [1, 2, 3, 7, 28, 30, 49, 99, 333, 700, 1000] {
            let theirs: Array1<i64> = oracle.by_name(&format!("spacing.{name}.{steps}")).unwrap();
            assert_eq!(
                spacing.timesteps(steps, 1000, 0),
                theirs.to_vec(),
                "{name}, {steps} steps"
            );
        }
    }
}

#[test]
fn steps_out_of_range_are_refused() {
    let config = configuration("");
    for steps in [0, 1001] {
        let message = Ddim::new(&config, steps).unwrap_err().to_string();
        assert!(
            message.contains(&format!("{steps} steps")) && message.contains("1 to 1000"),
            "{message}"
        );
    }
    let message = Ddim::new(&configuration(r#", "steps_offset": 1"#), 1000)
        .unwrap_err()
        .to_string();
    assert!(message.contains("timestep 1000, outside 0..1000"), "{message}");
    assert!(Ddim::new(&configuration(r#", "steps_offset": -1"#), 10).is_err());
    assert!(
        Ddim::new(
            &configuration(r#", "steps_offset": -1, "timestep_spacing": "trailing""#),
            10
        )
        .is_ok()
    );
}

#[test]
fn a_division_by_zero_is_refused_before_the_run() {
    let options = r#", "rescale_betas_zero_snr": true, "timestep_spacing": "trailing""#;
    let message = Ddim::new(&configuration(options), 10).unwrap_err().to_string();
    assert!(
        message.contains("step 0 (timestep 999)") && message.contains("v_prediction"),
        "{message}"
    );
    assert!(
        Ddim::new(
            &configuration(&format!(r#"{options}, "prediction_type": "v_prediction""#)),
            10
        )
        .is_ok()
    );
    let still = r#", "beta_start": 0, "prediction_type": "sample", "timestep_spacing": "linspace""#;
    assert!(
        Ddim::new(&configuration(still), 10)
            .unwrap_err()
            .to_string()
            .contains("beta_start")
    );
}

#[test]
fn shapes_and_indices_are_checked() {
    let mut ddim = Ddim::new(&configuration(""), 4).unwrap();
    let (small, large) = (ArrayD::zeros(IxDyn(&[1, 2, 3])), ArrayD::zeros(IxDyn(&[1, 4, 3])));
    let message = step(&mut ddim, 0, large.view(), small.view()).unwrap_err().to_string();
    assert!(
        message.contains("[1, 4, 3]") && message.contains("[1, 2, 3]"),
        "{message}"
    );
    let message = step(&mut ddim, 4, small.view(), small.view()).unwrap_err().to_string();
    assert!(message.contains("no step 4") && message.contains("0 to 3"), "{message}");
    assert!(ddim.scale_model_input(4, small).is_err());
}

#[test]
fn what_is_not_a_number_does_not_panic() {
    let mut ddim = Ddim::new(&configuration(r#", "thresholding": true"#), 2).unwrap();
    let strange = ArrayD::from_elem(IxDyn(&[1, 2, 2]), f32::NAN);
    assert!(
        step(&mut ddim, 0, strange.view(), strange.view())
            .unwrap()
            .iter()
            .all(|value| value.is_nan())
    );
    let empty = ArrayD::zeros(IxDyn(&[1, 0, 2]));
    assert_eq!(
        step(&mut ddim, 1, empty.view(), empty.view()).unwrap().shape(),
        [1, 0, 2]
    );
    let scalar = ArrayD::zeros(IxDyn(&[]));
    assert!(step(&mut ddim, 1, scalar.view(), scalar.view()).is_ok());
}
