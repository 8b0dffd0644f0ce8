//! On a real device: the same clips as on the processor, no copies to the host, and where nodes run.
//!
//! `PAB_PATCH_TEST_DEVICE` names the device (`cuda`, `cuda:1`, `tensorrt`, `webgpu`); without it these tests are skipped, and say
//! so. `tests/gpu/run.sh` runs them.

use crate::program::{shipped_model, succeed};
use ndarray::{ArrayD, Axis};
use pab_patch::generation::{Conditioning, Generator};
use pab_patch::report::read_matrix;
use pab_patch::runtime::{self, Options, Provider, Session, provider};
use pab_patch::sampler::{SchedulerConfig, SeededNoise, noise};
use std::path::{Path, PathBuf};

/// How far a device's arithmetic may lead the clip away, as part of the largest value: float32 in another order.
const TOLERANCE: f32 = 5e-3;

fn device() -> Option<(Provider, u32)> {
    match std::env::var("PAB_PATCH_TEST_DEVICE") {
        Ok(name) => Some(provider::parse(&name).unwrap()),
        Err(_) => {
            eprintln!("SKIPPED: no device is named in PAB_PATCH_TEST_DEVICE");
            None
        }
    }
}

/// A clip of a model on a device, and the bytes of caches that went through the host.
fn clip(model: &Path, (provider, device_index): (Provider, u32)) -> (ArrayD<f32>, u64) {
    let options = Options {
        threads: Some(crate::program::THREADS),
        provider,
        device_index,
        ..Options::default()
    };
    let session = Session::open(model, &options).unwrap();
    let found: Vec<_> = session.on_processor().unwrap_or_default().iter().collect();
    for operator in found {
        eprintln!(
            "{}: on the processor: {} {}",
            model.display(),
            operator.nodes.len(),
            operator.operator
        );
    }
    let mut generator = Generator::new(session, &[]).unwrap();
    let config = SchedulerConfig::load(&shipped_model().with_file_name("scheduler/scheduler_config.json")).unwrap();
    let mut scheduler = config.scheduler(20).unwrap();
    let table = read_matrix(&shipped_model().with_file_name("prompt_table.npy")).unwrap();
    let text = |row: usize| Some(table.select(Axis(0), &[row; 4]).into());
    let conditioning = Conditioning {
        guidance: 2.0,
        prompt: text(0),
        empty: text(1),
        ..Conditioning::default()
    };
    let start = noise(&[1, 3, 8, 32, 32], 0).unwrap();
    let made = generator
        .generate(
            scheduler.as_mut(),
            start,
            &mut SeededNoise::new(0),
            &conditioning,
            &mut |_| {},
        )
        .unwrap();
    (made.sample, generator.host_copies())
}

#[test]
fn a_device_makes_the_clips_of_the_processor_and_copies_no_cache() {
    let Some(device) = device() else { return };
    runtime::ensure().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let patched = succeed([
        shipped_model().as_os_str(),
        "--rules".as_ref(),
        "latte".as_ref(),
        "-o".as_ref(),
        folder.path().as_os_str(),
        "-q".as_ref(),
    ]);
    for model in [shipped_model(), PathBuf::from(patched.trim())] {
        let (expected, _) = clip(&model, (Provider::Cpu, 0));
        let (found, copies) = clip(&model, device);
        let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let difference = (&expected - &found)
            .iter()
            .fold(0.0_f32, |largest, value| largest.max(value.abs()));
        eprintln!("{}: {:.1e} of the largest value", model.display(), difference / largest);
        assert!(difference <= TOLERANCE * largest, "{} of {largest}", difference);
        assert_eq!(copies, 0, "{} bytes of caches went through the host", copies);
    }
}
