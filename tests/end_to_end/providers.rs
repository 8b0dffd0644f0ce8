//! Execution providers that cannot be used: the cause and what to do, with ONNX Runtime's build for GPUs.
//!
//! That build is taken from `PAB_PATCH_TEST_GPU_ORT`, a folder with `libonnxruntime.so` of `onnxruntime-gpu` (such as
//! `site-packages/onnxruntime/capi`), or from the Python environments in `VIRTUAL_ENV`; where there is none, what needs it is
//! skipped, and says so. It is not fetched here: a quarter of a gigabyte that unpacks to more, at every run of the tests. Once:
//! `pip download --no-deps onnxruntime-gpu==1.31.1 -d /tmp/gpu && unzip /tmp/gpu/*.whl 'onnxruntime/capi/lib*' -d /tmp/gpu`.
//! The driver is a stub that this test compiles with `cc`.

use crate::program::{command, failure, shipped_model, succeed};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The folder of a build for GPUs, where there is one.
fn gpu_build() -> Option<PathBuf> {
    let named = std::env::var_os("PAB_PATCH_TEST_GPU_ORT").map(PathBuf::from);
    let environment = std::env::var_os("VIRTUAL_ENV").map(PathBuf::from);
    let versions = environment.and_then(|prefix| std::fs::read_dir(prefix.join("lib")).ok());
    let versions = versions.into_iter().flatten().flatten();
    let beside = versions.map(|version| version.path().join("site-packages/onnxruntime/capi"));
    let has_cuda = |folder: &PathBuf| folder.join("libonnxruntime_providers_cuda.so").is_file();
    if let Some(named) = &named {
        assert!(
            has_cuda(named),
            "PAB_PATCH_TEST_GPU_ORT names {}, which is no such folder",
            named.display()
        );
    }
    let found = named.into_iter().chain(beside).find(has_cuda);
    if found.is_none() {
        eprintln!("SKIPPED: no onnxruntime-gpu was found; name its `capi` folder in PAB_PATCH_TEST_GPU_ORT");
    }
    found
}

/// Compiles a driver that answers as the variables `STUB_INIT`, `STUB_DEVICES` and `STUB_VERSION` say.
fn stub_driver(folder: &Path) -> PathBuf {
    let source = r#"
        #include <stdlib.h>
        #include <string.h>
        static int number(const char *name, int other) { const char *text = getenv(name); return text ? atoi(text) : other; }
        int cuInit(unsigned flags) { return flags ? 1 : number("STUB_INIT", 0); }
        int cuDriverGetVersion(int *version) { *version = number("STUB_VERSION", 13000); return 0; }
        int cuDeviceGetCount(int *count) { *count = number("STUB_DEVICES", 0); return 0; }
        int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
        int cuDeviceGetName(char *name, int length, int device) { strncpy(name, "Stub GPU", length); return device < 0; }
    "#;
    std::fs::write(folder.join("driver.c"), source).unwrap();
    let library = folder.join("libcuda.so.1");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(folder.join("driver.c"))
        .status();
    assert!(status.unwrap().success(), "cc cannot compile the stub of the driver");
    folder.to_path_buf()
}

/// Runs one step on a device, which must not succeed; what was said, in little time.
#[track_caller]
fn refused(device: &str, arrange: impl Fn(&mut Command)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("clip");
    let mut command = command([
        "run".as_ref(),
        shipped_model().as_os_str(),
        "--device".as_ref(),
        device.as_ref(),
        "--steps".as_ref(),
        "1".as_ref(),
        "-o".as_ref(),
        output.as_os_str(),
    ]);
    arrange(&mut command);
    let begun = Instant::now();
    let errors = failure(7, &mut command);
    assert!(
        begun.elapsed() < Duration::from_secs(60),
        "it took {:?}",
        begun.elapsed()
    );
    assert!(!output.exists());
    errors
}

#[test]
fn a_build_without_the_provider_is_named() {
    // Whatever build this is, none has all of these.
    let errors = ["migraphx", "cann", "qnn"].map(|device| refused(device, |_| {}));
    for (errors, title) in errors.iter().zip(["MIGraphX", "CANN", "QNN"]) {
        assert!(errors.contains(&format!("is a build without {title}")), "{errors}");
        assert!(errors.contains("pip install onnxruntime-"), "{errors}");
    }
}

#[test]
fn a_device_that_does_not_exist_is_a_wrong_argument() {
    let errors = failure(
        2,
        &mut command([
            "run".as_ref(),
            shipped_model().as_os_str(),
            "--device".as_ref(),
            "gpu".as_ref(),
        ]),
    );
    assert!(errors.contains("cuda") && errors.contains("tensorrt"), "{errors}");
}

/// What the loader finds by itself would hide what is missing.
fn without_cuda(command: &mut Command, library: &Path) {
    command.arg("--ort-lib").arg(library);
    for variable in [
        "LD_LIBRARY_PATH",
        "VIRTUAL_ENV",
        "CONDA_PREFIX",
        "CUDA_HOME",
        "CUDA_PATH",
    ] {
        command.env_remove(variable);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn every_cause_is_told_apart_and_none_is_silent() {
    let Some(library) = gpu_build() else { return };
    let folder = tempfile::tempdir().unwrap();
    let stub = stub_driver(folder.path());
    // A copy that stands alone, so that no Python packages lie beside it.
    let alone = folder.path().join("alone");
    std::fs::create_dir(&alone).unwrap();
    for entry in std::fs::read_dir(&library).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("libonnxruntime") {
            let copy = alone.join(entry.file_name());
            std::fs::hard_link(entry.path(), &copy)
                .or_else(|_| std::fs::copy(entry.path(), &copy).map(drop))
                .unwrap();
        }
    }
    let with_stub = |settings: &'static [(&'static str, &'static str)]| {
        let (alone, stub) = (alone.clone(), stub.clone());
        move |command: &mut Command| {
            without_cuda(command, &alone);
            command.env("LD_LIBRARY_PATH", &stub).envs(settings.iter().copied());
        }
    };
    // Each: device, what the driver answers, what has to be said.
    type Case = (
        &'static str,
        &'static [(&'static str, &'static str)],
        &'static [&'static str],
    );
    let cases: [Case; 6] = [
        ("cuda", &[("STUB_INIT", "100")], &["finds no GPU", "nvidia-smi"]),
        ("cuda", &[("STUB_INIT", "803")], &["different versions", "restart"]),
        (
            "cuda",
            &[("STUB_DEVICES", "1"), ("STUB_VERSION", "12080")],
            &["is for CUDA 12.8", "CUDA 13", "update"],
        ),
        (
            "cuda:2",
            &[("STUB_DEVICES", "2")],
            &["there is no device 2", "0 (Stub GPU), 1 (Stub GPU)"],
        ),
        (
            "cuda",
            &[("STUB_DEVICES", "1")],
            &["libcublasLt.so.13", "libcudnn.so.9", "pip install", "nvidia-cudnn-cu13"],
        ),
        (
            "tensorrt",
            &[("STUB_DEVICES", "1")],
            &["libnvinfer.so.10", "tensorrt-cu13"],
        ),
    ];
    for (device, settings, parts) in cases {
        let errors = refused(device, with_stub(settings));
        for part in parts {
            assert!(
                errors.contains(part),
                "{device} {settings:?}: {part:?} is not in {errors}"
            );
        }
        assert!(device != "cuda" || errors.contains("cannot run on CUDA"), "{errors}");
    }
    // Both: no driver, and no libraries either.
    if !driver_is_installed() {
        let errors = refused("cuda", |command| without_cuda(command, &alone));
        assert!(
            errors.contains("no NVIDIA driver") && errors.contains("libcudnn.so.9"),
            "{errors}"
        );
    }
    // A library that is cut off does not take the process with it.
    let cut = alone.join("libonnxruntime_providers_cuda.so");
    let whole = std::fs::read(&cut).unwrap();
    std::fs::remove_file(&cut).unwrap();
    std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let errors = refused("cuda", with_stub(&[("STUB_DEVICES", "1")]));
    assert!(errors.contains("cut off"), "{errors}");
    std::fs::remove_file(&cut).unwrap();
    let errors = refused("cuda", with_stub(&[("STUB_DEVICES", "1")]));
    assert!(errors.contains("No such file"), "{errors}");
}

fn driver_is_installed() -> bool {
    let doctor: Value = serde_json::from_str(&succeed(["doctor", "--json"])).unwrap();
    !doctor["gpus"]["reason"]
        .as_str()
        .is_some_and(|reason| reason.contains("no NVIDIA driver"))
}

#[test]
#[cfg(target_os = "linux")]
fn doctor_says_the_same() {
    let Some(library) = gpu_build() else { return };
    let folder = tempfile::tempdir().unwrap();
    let stub = stub_driver(folder.path());
    let mut doctor = command(["doctor", "--json"]);
    without_cuda(&mut doctor, &library);
    doctor.env("LD_LIBRARY_PATH", &stub).env("STUB_INIT", "100");
    let output = doctor.output().unwrap();
    let facts: Value = serde_json::from_slice(&output.stdout).unwrap();
    let cuda = facts["usable"]
        .as_array()
        .unwrap()
        .iter()
        .find(|provider| provider["name"] == "cuda")
        .unwrap();
    assert_eq!(cuda["built_in"], true);
    let reason = cuda["causes"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("finds no GPU"), "{reason}");
    let errors = refused("cuda", |command| {
        without_cuda(command, &library);
        command.env("LD_LIBRARY_PATH", &stub).env("STUB_INIT", "100");
    });
    assert!(errors.contains(reason), "{errors}");
}

/// Only the variant form on CUDA is recorded. What is missing is named before anything is read or written.
#[test]
fn cuda_graphs_elsewhere_are_refused_with_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("output");
    for subcommand in ["run", "compare"] {
        for (others, missing) in [
            (&["--device", "cuda"][..], "needs --form variants:"),
            (&["--form", "variants", "--device", "cpu"], "needs --device cuda:"),
            (&["--form", "variants"], "needs --device cuda:"),
            (&[], "needs --form variants and --device cuda:"),
        ] {
            let mut command = command([
                subcommand.as_ref(),
                shipped_model().as_os_str(),
                "--cuda-graph".as_ref(),
            ]);
            if subcommand == "compare" {
                command.args(["--rules", "latte"]);
            }
            command.args(others).arg("-o").arg(&output);
            let errors = failure(2, &mut command);
            assert!(errors.contains(missing), "{subcommand} {others:?}: {errors}");
            assert!(errors.contains("leave --cuda-graph out"), "{errors}");
            assert!(!output.exists(), "{subcommand} {others:?}");
        }
    }
}
