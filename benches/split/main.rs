//! What is shown of splits over ranks: `docs/split.md`.
//!
//!     cargo bench --bench split -- equal FOLDER…    every export below these folders over 2, 3, 4 and 8 ranks
//!     cargo bench --bench split -- bytes FOLDER…    what ranks send in a run of 50 steps
//!     cargo bench --bench split -- speed [MODEL]    two ranks of one thread against one, on the shipped model or this one
//!     cargo bench --bench split -- page             docs/split.md from what these have found
//!
//! What is found is kept in `target/split`, so that parts can be run one by one.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)] // A bench that cannot go on should stop.

mod bytes;
mod equal;
mod page;
mod ranks;
mod speed;

/// The ranges that most models are published with.
const RANGES_2_4_6: &str = "
version: 1
rules:
  - { name: spatial, match: { kind: spatial }, broadcast: { range: 2 } }
  - { name: temporal, match: { kind: temporal }, broadcast: { range: 4 } }
  - { name: cross, match: { kind: cross }, broadcast: { range: 6 } }
";

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where a part's findings are kept.
fn file(part: &str) -> PathBuf {
    root().join("target/split").join(format!("{part}.json"))
}

fn keep<T: Serialize>(part: &str, found: &T) {
    let path = file(part);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, serde_json::to_string_pretty(found).unwrap()).unwrap();
}

fn kept<T: DeserializeOwned>(part: &str) -> T {
    let path = file(part);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; run `{part}` first", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// Every export below the folders, sorted.
fn exports(folders: &[String]) -> Vec<PathBuf> {
    let mut pending: Vec<PathBuf> = folders.iter().map(PathBuf::from).collect();
    let mut found = Vec::new();
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "onnx") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let part = arguments.next();
    let folders: Vec<String> = arguments.collect();
    pab_patch::runtime::ensure().unwrap();
    match part.as_deref() {
        Some("equal") => equal::run(&folders),
        Some("bytes") => bytes::run(&folders),
        Some("speed") => speed::run(folders.first()),
        Some("page") => page::write(),
        _ => println!("say which part: equal FOLDER…, bytes FOLDER…, speed [MODEL], or page"),
    }
}
