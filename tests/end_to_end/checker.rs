//! The official checker, with full shape inference, on everything that the program writes.
//!
//! It needs Python with the `onnx` package: a virtual environment is made once under `target/`. Where there is no
//! Python the test says so and passes; our own validator and ONNX Runtime have seen the files then.

use crate::program::{corpus, root, shipped_model, succeed, variants};
use std::path::PathBuf;
use std::process::Command;

const PACKAGE: &str = "onnx==1.23.2";

/// A rule for every site.
const EVERYTHING: &str = "
version: 1
rules:
  - { name: self, match: { kind: [spatial, temporal, joint] }, broadcast: { range: 2 } }
  - { name: other, match: { kind: [cross, mlp] }, broadcast: { range: 3 } }
";

fn python() -> Option<PathBuf> {
    let wanted = PACKAGE.rsplit('=').next().unwrap_or_default();
    let script = format!("import onnx; assert onnx.__version__ == '{wanted}'");
    virtual_python("checker", &script, &[PACKAGE.to_owned()])
}

/// Python of a virtual environment under `target/`, which is made and gets `packages` where `script` does not run yet;
/// `None` where that cannot be done.
pub fn virtual_python(name: &str, script: &str, packages: &[String]) -> Option<PathBuf> {
    let folder = root().join("target").join(name);
    let python = folder.join(if cfg!(windows) {
        "Scripts/python.exe"
    } else {
        "bin/python"
    });
    let works = |python: &PathBuf| {
        Command::new(python)
            .args(["-c", script])
            .output()
            .is_ok_and(|output| output.status.success())
    };
    if works(&python) {
        return Some(python);
    }
    let system = ["python3", "python"].into_iter().find(|name| {
        Command::new(name)
            .arg("--version")
            .output()
            .is_ok_and(|output| output.status.success())
    })?;
    let made = Command::new(system)
        .args(["-m", "venv"])
        .arg(&folder)
        .status()
        .is_ok_and(|status| status.success());
    let installed = made
        && Command::new(&python)
            .args(["-m", "pip", "install", "--quiet"])
            .args(packages)
            .status()
            .is_ok_and(|status| status.success());
    (installed && works(&python)).then_some(python)
}

#[test]
fn the_official_checker_accepts_what_is_written() {
    let Some(python) = python() else {
        eprintln!("skipped: no Python with the package {PACKAGE}");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut written = Vec::new();
    let rules = folder.path().join("rules.yaml");
    std::fs::write(&rules, EVERYTHING).unwrap();
    let forms = variants().into_iter().map(|variant| variant.path);
    for (index, model) in corpus().into_iter().chain(forms).chain([shipped_model()]).enumerate() {
        let output = folder.path().join(index.to_string());
        let path = succeed([
            model.as_os_str(),
            "--rules".as_ref(),
            rules.as_os_str(),
            "-o".as_ref(),
            output.as_os_str(),
        ]);
        written.push(path.trim().to_owned());
    }
    let script = "import sys, onnx\nfor path in sys.argv[1:]:\n    onnx.checker.check_model(path, full_check=True)\n    print('checked', path)\n";
    let output = Command::new(python)
        .args(["-c", script])
        .args(&written)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), written.len());
}

#[test]
fn external_data_stays_readable_for_the_official_package() {
    let Some(python) = python() else {
        eprintln!("skipped: no Python with the package {PACKAGE}");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let original = folder.path().join("model.onnx");
    let check = |script: &str, paths: &[&std::ffi::OsStr]| {
        let output = Command::new(&python).args(["-c", script]).args(paths).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let split = "import sys, onnx\nonnx.save(onnx.load(sys.argv[1]), sys.argv[2], save_as_external_data=True, \
                 location='weights.bin')\n";
    check(split, &[corpus()[0].as_os_str(), original.as_os_str()]);
    let patched = succeed([original.as_os_str()]);
    let read = "import sys, onnx\nfor path in sys.argv[1:]:\n    onnx.checker.check_model(path, full_check=True)\n    \
                onnx.load(path)\n";
    check(read, &[original.as_os_str(), patched.trim().as_ref()]);
}

/// ONNX Runtime's CPU provider cannot run it.
#[test]
fn bfloat16_is_equal_to_the_bit_in_the_reference_implementation() {
    let Some(python) = python() else {
        eprintln!("skipped: no Python with the package {PACKAGE}");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.yaml");
    std::fs::write(&rules, EVERYTHING).unwrap();
    let unrunnable: Vec<_> = variants().into_iter().filter(|variant| !variant.runs).collect();
    assert_eq!(unrunnable.len(), 1);
    for variant in unrunnable {
        let patched = succeed([
            variant.path.as_os_str(),
            "--rules".as_ref(),
            rules.as_os_str(),
            "-o".as_ref(),
            folder.path().as_os_str(),
        ]);
        let output = Command::new(&python)
            .arg(root().join("tests/oracle/run_by_reference.py"))
            .args([variant.path.as_os_str(), patched.trim().as_ref()])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
