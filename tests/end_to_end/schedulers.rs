//! Runs by schedulers that call the model more often than once a step, or draw noise at each.

use crate::program::{fail, json, shipped_model};
use ndarray::{ArrayD, Axis};
use ndarray_npy::{NpzReader, write_npy};
use pab_patch::sampler::{NoiseSource, SeededNoise};
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

const SHAPE: [usize; 5] = [1, 3, 8, 32, 32];

/// A configuration for the shipped model, which predicts velocities.
fn config(folder: &Path, class: &str, options: &str) -> PathBuf {
    let path = folder.join(format!("{class}.json"));
    let text = format!(
        r#"{{"_class_name": "{class}", "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
            "prediction_type": "v_prediction"{options}}}"#
    );
    std::fs::write(&path, text).unwrap();
    path
}

/// The arrays of a run of the shipped model.
fn clip(folder: &Path, config: &Path, options: &[&OsStr]) -> NpzReader<File> {
    let (model, output) = (shipped_model(), folder.join("clip"));
    let mut arguments: Vec<&OsStr> = vec!["run".as_ref(), model.as_os_str()];
    let prompt = "red circle right black";
    // Tests run side by side.
    arguments.extend(["--threads", "1"].map(OsStr::new));
    arguments.extend(["--prompt", prompt, "--steps", "4", "--scheduler"].map(OsStr::new));
    arguments.extend([config.as_os_str(), "-o".as_ref(), output.as_os_str()]);
    arguments.extend(options);
    json(arguments);
    NpzReader::new(File::open(output.join("clip.npz")).unwrap()).unwrap()
}

fn sample(folder: &Path, config: &Path, options: &[&OsStr]) -> ArrayD<f32> {
    clip(folder, config, options).by_name("sample").unwrap()
}

#[test]
fn a_step_may_call_the_model_more_often() {
    let folder = tempfile::tempdir().unwrap();
    for (class, options, calls) in [
        ("PNDMScheduler", r#", "skip_prk_steps": true"#, 5),
        ("HeunDiscreteScheduler", "", 7),
        ("UniPCMultistepScheduler", "", 4),
    ] {
        let config = config(folder.path(), class, options);
        let mut arrays = clip(folder.path(), &config, &["--every-step".as_ref()]);
        let timesteps: ArrayD<f64> = arrays.by_name("timesteps").unwrap();
        let samples: ArrayD<f32> = arrays.by_name("samples").unwrap();
        assert_eq!((timesteps.len(), samples.shape()[0]), (calls, calls), "{class}");
        // The model was trained to make pictures in about 0..1 or -1..1, and these are near it.
        let last = samples.index_axis(Axis(0), calls - 1);
        assert!(last.iter().all(|value| value.abs() < 4.0), "{class}");
    }
}

#[test]
fn noise_of_steps_is_seeded_or_given() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), "EulerAncestralDiscreteScheduler", "");
    let seed = |seed: &'static str| sample(folder.path(), &config, &["--seed".as_ref(), seed.as_ref()]);
    let first = seed("3");
    assert_eq!(seed("3"), first);
    assert_ne!(seed("4"), first);

    // The noise of three steps (the last draws none), written down and given back.
    let mut source = SeededNoise::new(3);
    let draws: Vec<ArrayD<f32>> = (0..3).map(|step| source.draw(step, &SHAPE).unwrap()).collect();
    let views: Vec<_> = draws.iter().map(|draw| draw.view()).collect();
    let file = folder.path().join("steps.npy");
    write_npy(&file, &ndarray::stack(Axis(0), &views).unwrap()).unwrap();
    let options: [&OsStr; 4] = [
        "--seed".as_ref(),
        "3".as_ref(),
        "--step-noise".as_ref(),
        file.as_os_str(),
    ];
    assert_eq!(sample(folder.path(), &config, &options), first);

    write_npy(&file, &ndarray::stack(Axis(0), &views[..2]).unwrap()).unwrap();
    let model = shipped_model();
    let errors = fail(
        2,
        [
            "run".as_ref(),
            model.as_os_str(),
            "--scheduler".as_ref(),
            config.as_os_str(),
            "--steps".as_ref(),
            "4".as_ref(),
            "--step-noise".as_ref(),
            file.as_os_str(),
        ],
    );
    assert!(errors.contains("steps.npy") && errors.contains("3 steps"), "{errors}");
}

#[test]
fn what_a_scheduler_must_know_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scheduler_config.json");
    let text = r#"{"_class_name": "OpenSoraRFlowScheduler", "use_timestep_transform": true}"#;
    std::fs::write(&path, text).unwrap();
    let model = shipped_model();
    let arguments = [
        "run".as_ref(),
        model.as_os_str(),
        "--scheduler".as_ref(),
        path.as_os_str(),
    ];
    let errors = fail(2, arguments);
    assert!(errors.contains("--video FRAMESxHEIGHTxWIDTH"), "{errors}");
    // With it there are timesteps, which this model cannot take: its input has whole numbers.
    let known = arguments.into_iter().chain(["--video".as_ref(), "51x480x854".as_ref()]);
    let errors = fail(2, known);
    assert!(
        errors.contains("`timestep`") && errors.contains("whole timesteps"),
        "{errors}"
    );
}
