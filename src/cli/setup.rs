//! `pab-patch setup`: ONNX Runtime into the cache.

use super::Failure;
use super::args::SetupOptions;
use super::terminal::Terminal;
use crate::report::FilePath;
use crate::runtime::{Places, RuntimeError, VERSION, setup};
use serde::Serialize;

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    version: String,
    path: FilePath,
    fetched: bool,
}

/// Fetches ONNX Runtime unless the cache holds it intact.
pub fn run(_: &SetupOptions, terminal: &Terminal) -> Result<(), Failure> {
    let done = with_progress(terminal, |progress| setup(&Places::of_process(None), progress))?;
    let (version, path) = (done.library.version, done.library.path);
    let report = Report {
        version,
        path: path.into(),
        fetched: done.fetched,
    };
    terminal.result(&report, || {
        let how = if report.fetched { "fetched" } else { "already there" };
        format!("ONNX Runtime {} ({how}): {}", report.version, report.path.display())
    })
}

/// Runs something that may fetch ONNX Runtime, under a progress bar.
pub fn with_progress<T>(
    terminal: &Terminal,
    fetch: impl FnOnce(&dyn Fn(u64, u64)) -> Result<T, RuntimeError>,
) -> Result<T, RuntimeError> {
    let bar = terminal.bytes(format!("fetching ONNX Runtime {VERSION}"));
    let progress = |done: u64, total: u64| {
        if bar.length() != Some(total) {
            bar.set_length(total);
            if bar.is_hidden() {
                terminal.note(format!("fetching ONNX Runtime {VERSION} ({} MiB) …", total >> 20));
            }
        }
        bar.set_position(done);
    };
    let result = fetch(&progress);
    bar.finish_and_clear();
    result
}
