//! A split model in a host that has only the library of operators: Python, with ranks as threads and as processes.

use crate::hosts::{example, python};
use crate::program::{root, succeed};
use pab_patch::runtime;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

const EXPORT: &str = "tests/data/corpus/latte.ts17.static.onnx";

/// Threads that ask for what cannot be, and what each is told.
const FAULTS: &str = r#"
import sys, threading
import onnxruntime
library, model = sys.argv[1:]

def said(entries, run=False):
    options = onnxruntime.SessionOptions()
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    try:
        options.register_custom_ops_library(library)
        session = onnxruntime.InferenceSession(model, options)
        if run:
            import numpy
            session.run(None, {port.name: numpy.zeros(port.shape, numpy.float32 if 'float' in port.type else numpy.int64)
                               for port in session.get_inputs()})
        return 'nothing'
    except Exception as error:
        return str(error).replace('\n', ' ')

print(said({}))
print(said({'pab.mesh': 'sequence=2', 'pab.rank': '2'}))
print(said({'pab.mesh': 'frames=2', 'pab.rank': '0'}))
print(said({'pab.mesh': 'sequence=2', 'pab.rank': '0', 'pab.ranks': '2'}))
print(said({'pab.mesh': 'sequence=2', 'pab.rank': '0', 'pab.timeout': '0.2'}, run=True))
print(said({'pab.mesh': 'sequence=2', 'pab.rank': '1', 'pab.timeout': '0.2', 'pab.address': '127.0.0.1:9'}, run=True))
print(said({'pab.mesh': 'sequence=2', 'pab.rank': '0', 'pab.nccl': '1'}))
"#;

fn numbers(output: &Path) -> Vec<f32> {
    let numbers: ndarray::ArrayD<f32> = ndarray_npy::read_npy(output).unwrap();
    numbers.into_iter().collect()
}

fn is_near(output: &Path, expected: &[f32]) {
    let found = numbers(output);
    assert_eq!(found.len(), expected.len());
    assert!(expected.iter().any(|value| *value != 0.0));
    let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= 1e-5 * largest, "{found} for {expected}");
    }
}

#[test]
fn a_split_model_in_python() {
    let library = runtime::ensure().unwrap();
    let Some(python) = python(&library.version.to_string()) else {
        eprintln!("skipped: no Python with onnxruntime {}", library.version);
        return;
    };
    let operators = example("pab_operators", true);
    let folder = tempfile::tempdir().unwrap();
    let split = folder.path().join("split");
    let export = root().join(EXPORT);
    succeed([
        "split".as_ref(),
        export.as_os_str(),
        "--plain".as_ref(),
        "--sequence".as_ref(),
        "2".as_ref(),
        "-o".as_ref(),
        split.as_os_str(),
    ]);
    let models: Vec<PathBuf> = (0..2)
        .map(|rank| split.join(format!("latte.ts17.static.rank{rank}.onnx")))
        .collect();
    let script = |output: &Path, models: &[PathBuf]| {
        let mut command = Command::new(&python);
        command
            .arg(root().join("docs/hosts/ranks.py"))
            .arg(&operators)
            .arg(output)
            .args(models);
        command
    };
    let succeeded = |output: std::process::Output| {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };

    let whole = folder.path().join("whole.npy");
    let mut alone = script(&whole, std::slice::from_ref(&export));
    succeeded(
        alone
            .env("PAB_MESH", "sequence=1")
            .env("PAB_RANK", "0")
            .output()
            .unwrap(),
    );
    let expected = numbers(&whole);

    let threads = folder.path().join("threads.npy");
    succeeded(script(&threads, &models).output().unwrap());
    is_near(&threads, &expected);

    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let outputs = [folder.path().join("0.npy"), folder.path().join("1.npy")];
    let processes: Vec<_> = (0..2)
        .map(|rank| {
            let mut command = script(&outputs[rank], &models[rank..=rank]);
            command
                .env("PAB_MESH", "sequence=2")
                .env("PAB_RANK", rank.to_string())
                .env("PAB_ADDRESS", &address);
            command.stderr(std::process::Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for (process, output) in processes.into_iter().zip(&outputs) {
        succeeded(process.wait_with_output().unwrap());
        is_near(output, &expected);
    }

    let faults = Command::new(&python)
        .args(["-c", FAULTS])
        .arg(&operators)
        .arg(&models[0])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&faults.stdout);
    let said: Vec<&str> = said.lines().collect();
    let words = [
        "pab.mesh",
        "from 0 to 1",
        "frames",
        "`pab.ranks`",
        "for rank 1, which did not come",
        "for rank 0, which did not come",
        // Where there is a GPU, nothing is wrong yet.
        if Path::new("/dev/nvidiactl").exists() {
            ""
        } else {
            "NCCL failed: there is no CUDA driver"
        },
    ];
    assert!(faults.status.success() && said.len() == words.len(), "{faults:?}");
    for (said, words) in said.iter().zip(words) {
        assert!(said.contains(words), "{said}");
    }
}
