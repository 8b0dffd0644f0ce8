//! Where a Python environment keeps its `onnxruntime` package, found without importing it.

use std::{
    ffi::{OsStr, OsString},
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Prints the package's folder, or nothing. The current folder is taken off the search path: a folder that happens
/// to be called `onnxruntime` there is not the package. `find_spec` of a top-level name imports nothing.
const SCRIPT: &str = "\
import sys
sys.path[:] = [p for p in sys.path if p]
from importlib.util import find_spec
spec = find_spec('onnxruntime')
sys.stdout.write(next(iter((spec and spec.submodule_search_locations) or []), ''))
";

/// How long an interpreter may take. One that hangs must not keep a command from starting.
const PATIENCE: Duration = Duration::from_secs(10);

/// The interpreters asked, in order.
const INTERPRETERS: &[&str] = if cfg!(windows) {
    &["python.exe", "python3.exe"]
} else {
    &["python3", "python"]
};

/// The `capi` folders below an environment's prefix (`VIRTUAL_ENV`, `CONDA_PREFIX`) that exist.
pub(super) fn in_prefix(prefix: &Path) -> Vec<PathBuf> {
    let capi = Path::new("site-packages").join("onnxruntime").join("capi");
    let mut folders = vec![prefix.join("Lib").join(&capi)];
    for lib in ["lib", "lib64"] {
        let Ok(entries) = std::fs::read_dir(prefix.join(lib)) else {
            continue;
        };
        let mut versions: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        versions.sort();
        folders.extend(
            versions
                .into_iter()
                .filter(|path| is_python(path))
                .map(|path| path.join(&capi)),
        );
    }
    folders.retain(|folder| folder.is_dir());
    folders
}

fn is_python(folder: &Path) -> bool {
    folder
        .file_name()
        .and_then(OsStr::to_str)
        .is_some_and(|name| name.starts_with("python"))
}

/// Asks the interpreters on `search_path` (the value of `PATH`); the `capi` folder that the first of them knows.
///
/// `None` also when there is no Python, when it fails and when it takes too long: this is a look around, not a
/// requirement.
pub(super) fn ask(search_path: &OsStr) -> Option<PathBuf> {
    INTERPRETERS
        .iter()
        .filter_map(|name| {
            std::env::split_paths(search_path)
                .map(|folder| folder.join(name))
                .find(|path| path.is_file())
        })
        .find_map(|program| ask_one(&program, search_path, PATIENCE))
}

fn ask_one(program: &Path, search_path: &OsStr, patience: Duration) -> Option<PathBuf> {
    let mut child = Command::new(program)
        .args(["-c", SCRIPT])
        .env("PATH", search_path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let began = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if began.elapsed() < patience => std::thread::sleep(Duration::from_millis(5)),
            _ => {
                // The answer no longer matters; a process that cannot be killed cannot be helped either.
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    };
    let mut answer = Vec::new();
    // A path fits into the pipe's buffer, so the interpreter never waits for us to read.
    child.stdout.take()?.take(64 * 1024).read_to_end(&mut answer).ok()?;
    let package = PathBuf::from(os_string(answer)?);
    (status.success() && package.is_absolute()).then(|| package.join("capi"))
}

#[cfg(unix)]
fn os_string(bytes: Vec<u8>) -> Option<OsString> {
    use std::os::unix::ffi::OsStringExt;
    Some(OsString::from_vec(bytes))
}

#[cfg(not(unix))]
fn os_string(bytes: Vec<u8>) -> Option<OsString> {
    String::from_utf8(bytes).ok().map(OsString::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_searched_in_the_layouts_of_unix_and_windows() {
        let prefix = tempfile::tempdir().unwrap();
        assert!(in_prefix(prefix.path()).is_empty());
        let unix = prefix.path().join("lib/python3.11/site-packages/onnxruntime/capi");
        let other = prefix.path().join("lib/node_modules/site-packages/onnxruntime/capi");
        std::fs::create_dir_all(&unix).unwrap();
        std::fs::create_dir_all(other).unwrap();
        assert_eq!(in_prefix(prefix.path()), [unix]);
    }

    /// Writes an interpreter by way of another process: a file that this one has open for writing cannot be run while
    /// a test beside this one starts a process that inherits it.
    #[cfg(unix)]
    fn interpreter(folder: &Path, name: &str, script: &str) {
        let script = format!("#!/bin/sh\n{script}\n");
        let write = "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"";
        let mut shell = Command::new("/bin/sh");
        assert!(
            shell
                .args(["-c", write, "sh", &script])
                .arg(folder.join(name))
                .status()
                .unwrap()
                .success()
        );
    }

    #[test]
    #[cfg(unix)]
    fn the_first_interpreter_that_knows_the_package_is_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().as_os_str();
        assert_eq!(ask(path), None);
        interpreter(folder.path(), "python3", "exit 1");
        interpreter(folder.path(), "python", "printf /opt/packages/onnxruntime");
        assert_eq!(ask(path), Some(PathBuf::from("/opt/packages/onnxruntime/capi")));
        interpreter(folder.path(), "python", "printf not-absolute");
        assert_eq!(ask(path), None);
    }

    #[test]
    #[cfg(unix)]
    fn an_interpreter_that_hangs_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        interpreter(folder.path(), "python3", "exec /bin/sleep 60");
        let began = Instant::now();
        assert_eq!(
            ask_one(
                &folder.path().join("python3"),
                folder.path().as_os_str(),
                Duration::from_millis(100)
            ),
            None
        );
        assert!(began.elapsed() < Duration::from_secs(30));
    }
}
