//! The hosts of `docs/hosts`, which know nothing of this library, give what it gives, to the bit.
//!
//! The Python host needs numpy and the loaded version of onnxruntime: the system's Python where it has them, else a
//! virtual environment that is made once under `target/`. Where there is no Python the test says so and passes.

use crate::checker::virtual_python;
use crate::equality::open;
use crate::program::{json, root};
use pab_patch::rewrite::Plan;
use pab_patch::runtime::{self, Denoiser, Feedback, Tensor};
use std::path::{Path, PathBuf};
use std::process::Command;

const EXPORT: &str = "tests/data/corpus/latte.ts17.static.onnx";
const SCHEDULER: &str = "tests/data/sampler/scheduler_config.json";

const RULES: &str = "
version: 1
rules:
  - { name: spatial, match: { kind: spatial }, broadcast: { range: 2, window: { timesteps: [100, 900] } } }
  - { name: temporal, match: { kind: temporal }, forecast: { order: 1, range: 3 } }
  - { name: cross, match: { kind: cross }, broadcast: { range: 6 } }
";

/// What the hosts run: the switch form by either drive, and the variants.
struct Models {
    _folder: tempfile::TempDir,
    flags: PathBuf,
    step: PathBuf,
    index: PathBuf,
}

fn models() -> Models {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.yaml");
    std::fs::write(&rules, RULES).unwrap();
    let make = |command: &[&str], name: &str| {
        let output = folder.path().join(name);
        let mut arguments: Vec<_> = command.iter().map(std::ffi::OsString::from).collect();
        arguments.extend([
            root().join(EXPORT).into(),
            "--rules".into(),
            rules.clone().into(),
            "--scheduler".into(),
            root().join(SCHEDULER).into(),
            "--steps".into(),
            "9".into(),
            "-o".into(),
            output.into(),
        ]);
        arguments
    };
    let path = |printed: serde_json::Value, key: &str| PathBuf::from(printed[key].as_str().unwrap());
    let mut by_step = make(&[], "step");
    by_step.extend(["--drive".into(), "step".into()]);
    Models {
        flags: path(json(make(&[], "flags")), "model"),
        step: path(json(by_step), "model"),
        index: path(json(make(&["variants"], "variants")), "index_file"),
        _folder: folder,
    }
}

/// The numbers of the hosts.
fn numbers(shape: &[usize], seed: u64) -> Vec<f32> {
    let number = |index: u64| {
        let mixed = ((index + seed * 1_000_003) * 2_654_435_761) % (1 << 32);
        (mixed >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..shape.iter().product::<usize>() as u64).map(number).collect()
}

/// The latents of every step, by the library.
fn expected(model: &Path) -> Vec<u8> {
    let session = open(model);
    let plan = Plan::parse(&session.metadata("pab.plan").unwrap()).unwrap();
    let mut denoiser = Denoiser::patched(session, Feedback::try_from(&plan).unwrap()).unwrap();
    let shape = [2, 4, 3, 4, 4];
    let mut latent = numbers(&shape, 1);
    let text = Tensor::new(&[2, 5, 24], numbers(&[2, 5, 24], 2)).unwrap();
    let schedule = plan.schedule.as_ref().unwrap();
    let mut bytes = Vec::new();
    for (step, timestep) in schedule.timesteps.iter().enumerate() {
        let sample = Tensor::new(&shape, latent.clone()).unwrap();
        let timestep = Tensor::new(&[2], vec![*timestep as i64; 2]).unwrap();
        let inputs = [
            ("hidden_states", &sample),
            ("timestep", &timestep),
            ("encoder_hidden_states", &text),
        ];
        let outputs = denoiser.step(&inputs, &schedule.flags(step)).unwrap();
        let prediction = outputs[0].1.clone().into_f32();
        assert_eq!(prediction.shape(), [2, 8, 3, 4, 4]);
        for (latent, predicted) in latent
            .chunks_mut(4 * 48)
            .zip(prediction.as_slice().unwrap().chunks(8 * 48))
        {
            for (latent, predicted) in latent.iter_mut().zip(predicted) {
                *latent -= 0.125 * predicted;
            }
        }
        bytes.extend(latent.iter().flat_map(|number| number.to_le_bytes()));
    }
    bytes
}

fn check(name: &str, host: impl Fn(&Path, &Path) -> Command) {
    let models = models();
    let expected = expected(&models.flags);
    assert_eq!(expected.len(), 9 * 2 * 4 * 48 * 4);
    let output = models.flags.with_file_name("latents.bin");
    for model in [&models.flags, &models.step, &models.index] {
        let run = host(model, &output).output().unwrap();
        let errors = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{name}, {}: {errors}", model.display());
        let found = std::fs::read(&output).unwrap();
        assert!(found == expected, "{name}, {}: the latents differ", model.display());
        std::fs::remove_file(&output).unwrap();
    }
}

/// A Python that has numpy and this version of onnxruntime.
pub fn python(version: &str) -> Option<PathBuf> {
    let script = format!("import numpy, onnxruntime; assert onnxruntime.__version__ == '{version}'");
    let has = |python: &str| {
        let output = Command::new(python).args(["-c", &script]).output();
        output.is_ok_and(|output| output.status.success())
    };
    let system = ["python3", "python"].into_iter().find(|python| has(python));
    let packages = [format!("onnxruntime=={version}"), "numpy".to_owned()];
    system
        .map(PathBuf::from)
        .or_else(|| virtual_python("hosts", &script, &packages))
}

#[test]
fn the_python_host() {
    let library = runtime::ensure().unwrap();
    let Some(python) = python(&library.version.to_string()) else {
        eprintln!("skipped: no Python with onnxruntime {}", library.version);
        return;
    };
    check("host.py", |model, output| {
        let mut command = Command::new(&python);
        command.arg(root().join("docs/hosts/host.py")).arg(model).arg(output);
        command
    });
}

/// Builds an example, as `cargo test --test end_to_end` alone does not, and gives its file.
pub fn example(name: &str, is_library: bool) -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_pab-patch"));
    let folder = program.parent().unwrap();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build
        .args(["build", "--quiet", "--locked", "--example", name, "--target-dir"])
        .arg(folder.parent().unwrap())
        .current_dir(root());
    if folder.ends_with("release") {
        build.arg("--release");
    }
    assert!(build.status().unwrap().success());
    use std::env::consts::{DLL_PREFIX, DLL_SUFFIX, EXE_SUFFIX};
    folder.join("examples").join(match is_library {
        true => format!("{DLL_PREFIX}{name}{DLL_SUFFIX}"),
        false => format!("{name}{EXE_SUFFIX}"),
    })
}

#[test]
fn the_rust_host() {
    let library = runtime::ensure().unwrap();
    let host = example("host", false);
    check("host.rs", |model, output| {
        let mut command = Command::new(&host);
        command.arg(model).arg(output).env("ORT_DYLIB_PATH", &library.path);
        command
    });
}
