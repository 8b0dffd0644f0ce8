//! Whole denoising loops against PyTorch: the shipped model plain, and with diffusers' Pyramid Attention Broadcast.
//!
//! `models/latte-shapes/reference.npz` is made by `export.py` beside it.

use crate::program::{json, shipped_model};
use ndarray::{Array2, ArrayD, Axis, Ix1, Ix2};
use ndarray_npy::NpzReader;
use pab_patch::generation::{Conditioning, Generator};
use pab_patch::report::read_matrix;
use pab_patch::runtime::{self, Options, Provider, Session};
use pab_patch::sampler::{SchedulerConfig, SeededNoise};
use std::fs::File;
use std::path::{Path, PathBuf};

struct Reference(NpzReader<File>);

impl Reference {
    fn open() -> Reference {
        Reference(NpzReader::new(File::open(shipped_model().with_file_name("reference.npz")).unwrap()).unwrap())
    }

    fn array(&mut self, name: &str) -> ArrayD<f32> {
        self.0.by_name(name).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn tokens(&mut self) -> Vec<usize> {
        let tokens: ndarray::Array<i64, Ix2> = self.0.by_name("tokens").unwrap();
        tokens.row(0).iter().map(|token| *token as usize).collect()
    }

    fn timesteps(&mut self) -> Vec<f64> {
        let timesteps: ndarray::Array<f64, Ix1> = self.0.by_name("timesteps").unwrap();
        timesteps.to_vec()
    }
}

fn config() -> SchedulerConfig {
    SchedulerConfig::load(&shipped_model().with_file_name("scheduler/scheduler_config.json")).unwrap()
}

/// The clip that a model makes from the reference's noise and prompt.
fn clip(model: &Path, reference: &mut Reference) -> ArrayD<f32> {
    runtime::ensure().unwrap();
    let options = Options {
        threads: Some(crate::program::THREADS),
        provider: Provider::Cpu,
        ..Options::default()
    };
    let mut generator = Generator::new(Session::open(model, &options).unwrap(), &[]).unwrap();
    let table: Array2<f32> = read_matrix(&shipped_model().with_file_name("prompt_table.npy")).unwrap();
    let tokens = reference.tokens();
    let empty = vec![table.nrows() - 1; tokens.len()];
    let conditioning = Conditioning {
        guidance: 2.0,
        prompt: Some(table.select(Axis(0), &tokens).into()),
        empty: Some(table.select(Axis(0), &empty).into()),
        ..Conditioning::default()
    };
    let mut scheduler = config().scheduler(50).unwrap();
    assert_eq!(scheduler.timesteps(), reference.timesteps());
    let noise = reference.array("plain.noise");
    generator
        .generate(
            scheduler.as_mut(),
            noise,
            &mut SeededNoise::new(0),
            &conditioning,
            &mut |_| {},
        )
        .unwrap()
        .sample
}

fn largest_difference(one: &ArrayD<f32>, other: &ArrayD<f32>) -> f32 {
    assert_eq!(one.shape(), other.shape());
    one.iter()
        .zip(other)
        .map(|(one, other)| (one - other).abs())
        .fold(0.0, f32::max)
}

#[test]
fn fifty_steps_equal_pytorch() {
    let mut reference = Reference::open();
    let made = clip(&shipped_model(), &mut reference);
    let difference = largest_difference(&made, &reference.array("plain.latents_49"));
    assert!(difference < 2e-3, "{difference}");
}

#[test]
fn fifty_steps_with_broadcasts_equal_diffusers() {
    let folder = tempfile::tempdir().unwrap();
    let printed = json([
        shipped_model().as_os_str(),
        "--rules".as_ref(),
        "latte".as_ref(),
        "-o".as_ref(),
        folder.path().as_os_str(),
    ]);
    let patched = PathBuf::from(printed["model"].as_str().unwrap());
    let mut reference = Reference::open();
    let made = clip(&patched, &mut reference);
    let broadcast = reference.array("broadcast.latents_49");
    let difference = largest_difference(&made, &broadcast);
    assert!(difference < 2e-3, "{difference}");
    // Broadcasting changes the clip by much more than the two runtimes differ.
    let effect = largest_difference(&broadcast, &reference.array("plain.latents_49"));
    assert!(effect > 10.0 * difference, "{effect} against {difference}");
}
