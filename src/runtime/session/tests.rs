use super::advice::{ADVICE_ELSE, unusable};
use super::*;
use crate::runtime::{ElementType, devices, ensure};

fn switch_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/runtime/switch.onnx")
}

#[test]
fn ports_and_metadata_of_a_model() {
    ensure().unwrap();
    let session = Session::open(
        &switch_model(),
        &Options {
            threads: Some(1),
            ..Options::default()
        },
    )
    .unwrap();
    let sample = &session.inputs()[0];
    assert_eq!(
        (sample.name.as_str(), sample.element_type),
        ("sample", Some(ElementType::Float32))
    );
    assert_eq!(
        (sample.shape.as_slice(), sample.symbols[0].as_str()),
        (&[None, Some(4)][..], "batch")
    );
    assert_eq!(
        session
            .outputs()
            .iter()
            .map(|port| port.name.as_str())
            .collect::<Vec<_>>()[0],
        "out"
    );
    assert_eq!(session.metadata("pab.test"), Some("a value".to_owned()));
    assert_eq!(session.metadata("nothing"), None);
    assert_eq!((session.provider(), session.fallback()), (Provider::Cpu, None));
}

#[test]
fn a_model_that_cannot_be_opened_is_named() {
    ensure().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("broken.onnx");
    let message = |options: &Options| Session::open(&model, options).unwrap_err().to_string();
    assert!(message(&Options::default()).starts_with(&format!("{} cannot be opened", model.display())));
    std::fs::write(&model, "not a model").unwrap();
    assert!(
        message(&Options::default()).contains("rotobuf"),
        "{}",
        message(&Options::default())
    );
    let none = Options {
        threads: Some(0),
        ..Options::default()
    };
    assert_eq!(message(&none), "--threads cannot be 0: a number from 1 to 1024 is");
}

#[test]
fn cuda_that_cannot_be_used_is_an_error_with_advice() {
    ensure().unwrap();
    if devices::cuda_is_promising() {
        return;
    }
    let options = Options {
        provider: Provider::Cuda,
        ..Options::default()
    };
    let error = Session::open(&switch_model(), &options).unwrap_err();
    let RuntimeError::ProviderUnusable { model, advice, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(*model, switch_model());
    assert_ne!(advice, ADVICE_ELSE, "{error}");
}

#[test]
fn advice_follows_the_message() {
    for (message, part) in [
        (
            "CUDA execution provider is not enabled in this build.",
            "onnxruntime-gpu",
        ),
        (
            "Failed to load library libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot open shared object file",
            "CUDA 13 or cuDNN",
        ),
        (
            "Failed to load library x with error: libcuda.so.1: cannot open shared object file",
            "driver is not installed",
        ),
        (
            "CUDA failure 35: CUDA driver version is insufficient",
            "older than CUDA 13",
        ),
        ("CUDA failure 999: something new", "pab-patch doctor"),
    ] {
        let error = unusable(Path::new("model.onnx"), Provider::Cuda, message.to_owned());
        assert!(error.to_string().contains(part), "{error}");
    }
    let error = unusable(
        Path::new("model.onnx"),
        Provider::Cuda,
        "Protobuf parsing failed.".to_owned(),
    );
    assert!(matches!(error, RuntimeError::Open { .. }));
}
