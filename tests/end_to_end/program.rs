//! Runs the binary, and finds the models to run it on.

use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The shipped model.
pub fn shipped_model() -> PathBuf {
    root().join("models/latte-shapes/model.onnx")
}

/// Every small Latte export.
pub fn corpus() -> Vec<PathBuf> {
    let folder = root().join("tests/data/corpus");
    let mut models: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "onnx"))
        .collect();
    models.sort();
    assert!(models.len() >= 6, "the corpus has {} models", models.len());
    models
}

/// Every small export of another architecture.
pub fn architectures() -> Vec<PathBuf> {
    let files = files_below(&root().join("tests/data/corpus"));
    let mut models: Vec<PathBuf> = files
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "onnx"))
        .filter(|path| !path.parent().is_some_and(|folder| folder.ends_with("corpus")))
        .collect();
    models.sort();
    assert!(models.len() >= 10, "there are {} exports", models.len());
    models
}

/// Whether ONNX Runtime takes an export of [`architectures`]: it refuses the masks that dynamo's attention has in some, and
/// has no kernel for another one's.
pub fn runs(path: &Path) -> bool {
    let refused = [
        "osp10.dyn23.static.onnx",
        "hunyuanimage.dyn23.static.onnx",
        "hunyuanvideo_i2v.dyn23.static.onnx",
    ];
    !refused.iter().any(|name| path.ends_with(name))
}

/// One form of the small model in `tests/data/variants`.
#[derive(Debug)]
pub struct Variant {
    /// The file.
    pub path: PathBuf,
    /// How many sites of each kind it has.
    pub sites: BTreeMap<String, usize>,
    /// Whether ONNX Runtime's CPU provider has kernels for all of it.
    pub runs: bool,
    /// Parts of what is noted about it.
    pub notes: Vec<String>,
}

/// Every form of the small model.
pub fn variants() -> Vec<Variant> {
    #[derive(serde::Deserialize)]
    struct Facts {
        sites: BTreeMap<String, usize>,
        #[serde(default = "yes")]
        runs: bool,
        #[serde(default)]
        notes: Vec<String>,
    }
    fn yes() -> bool {
        true
    }
    let folder = root().join("tests/data/variants");
    let facts = std::fs::read(folder.join("variants.json")).unwrap();
    let facts: BTreeMap<String, Facts> = serde_json::from_slice(&facts).unwrap();
    assert!(facts.len() >= 15, "there are {} variants", facts.len());
    let variant = |(name, facts): (String, Facts)| Variant {
        path: folder.join(name).with_extension("onnx"),
        sites: facts.sites,
        runs: facts.runs,
        notes: facts.notes,
    };
    facts.into_iter().map(variant).collect()
}

/// Puts a small pipeline of `tests/data/pipeline` into `place`: its own files, and those that it shares.
pub fn lay_out_pipeline(name: &str, place: &Path) {
    let data = root().join("tests/data/pipeline");
    let mut files: Vec<(PathBuf, PathBuf)> = Vec::new();
    let mut add = |from: PathBuf, to: &str| {
        for file in files_below(&from) {
            let below = file.strip_prefix(&from).unwrap().to_owned();
            files.push((file, Path::new(to).join(below)));
        }
    };
    add(data.join(name), "");
    let owner = match name {
        "pixart" => Some("latte"),
        "wan22" | "wan_ti2v" => Some("wan"),
        "ltx_timed" => Some("ltx"),
        _ => None,
    };
    if let Some(owner) = owner {
        let rest = if name == "ltx_timed" {
            "transformer"
        } else {
            "vae_decoder"
        };
        for component in ["text_encoder", "tokenizer", rest] {
            add(data.join(owner).join(component), component);
        }
    }
    let transformer = match name {
        "latte" => Some("latte.ts17.dynamic.onnx"),
        "cogvideox" => Some("cogvideox/cogvideox.ts17.static.onnx"),
        _ => None,
    };
    let corpus = root().join("tests/data/corpus");
    files.extend(transformer.map(|file| (corpus.join(file), "transformer/model.onnx".into())));
    for (file, below) in files {
        let copy = place.join(below);
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::copy(file, copy).unwrap();
    }
}

/// Threads of every session in these tests. Tests run side by side, one for each core, and threads that wait for each
/// other's operators would take the cores from one another.
pub const THREADS: usize = 1;

/// The command with these arguments.
pub fn command<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pab-patch"));
    command.args(arguments).current_dir(root());
    command.env("PAB_PATCH_THREADS", THREADS.to_string());
    command
}

/// Runs the program.
pub fn run<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Output {
    command(arguments).output().unwrap()
}

/// Runs the program, which must succeed, and returns its standard output.
pub fn succeed<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> String {
    let output = run(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "exit {:?}: {errors}", output.status.code());
    String::from_utf8(output.stdout).unwrap()
}

/// Runs the program with `--json`, which must succeed, and returns what it printed.
pub fn json<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Value {
    let arguments: Vec<_> = arguments
        .into_iter()
        .map(|argument| argument.as_ref().to_owned())
        .collect();
    let printed = succeed(
        arguments
            .iter()
            .map(|argument| argument.as_os_str())
            .chain([OsStr::new("--json")]),
    );
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"))
}

/// Runs the program, which must fail with this exit code, and returns what it said.
#[track_caller]
pub fn fail<A: AsRef<OsStr>>(code: i32, arguments: impl IntoIterator<Item = A>) -> String {
    failure(code, &mut command(arguments))
}

/// Runs a command, which must fail with this exit code, and returns what it said.
#[track_caller]
pub fn failure(code: i32, command: &mut Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{errors}");
    assert!(errors.contains("error: "), "no error is shown: {errors}");
    assert!(!errors.contains("panicked"), "{errors}");
    errors
}

/// Every path below a folder.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .flat_map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() { files_below(&path) } else { vec![path] }
        })
        .collect()
}
