//! What a person needs to know about the runtime when something does not work, as data.

use std::path::PathBuf;

use prost::Message;
use serde::Serialize;

use super::{
    cache::Cache,
    devices::{self, Cpu, Device, Gpus},
    library::{self, Library, MINIMUM_VERSION, Places, Skipped},
    load,
    usable::{self, Usability},
    wheels,
};
use crate::onnx::messages::{GraphProto, ModelProto, NodeProto};

/// The facts. Everything that needs the library is empty where there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// The library that commands use.
    pub library: Option<Library>,
    /// Why there is none, or why it does not start.
    pub problem: Option<String>,
    /// Candidates that were passed over, with the reasons.
    pub skipped: Vec<Skipped>,
    /// The oldest version that will do.
    pub required_version: String,
    /// The newest opset of the domain `ai.onnx` that the library knows officially.
    pub supported_opset: Option<i64>,
    /// The execution providers that the library was built with.
    pub providers: Vec<String>,
    /// Which of those that `--device` names can be used, and what stands in the way of the others.
    pub usable: Vec<Usability>,
    /// The devices that they offer.
    pub devices: Vec<Device>,
    /// The processor.
    pub cpu: Cpu,
    /// NVIDIA GPUs.
    pub gpus: Gpus,
    /// Threads within an operator unless `--threads` says otherwise.
    pub default_threads: usize,
    /// The cache.
    pub cache: CacheFacts,
}

/// The cache and the library in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CacheFacts {
    /// The folder of the pinned version; `None` when this account has no cache folder.
    pub folder: Option<PathBuf>,
    /// The version that `pab-patch setup` fetches.
    pub version: String,
    /// What is there.
    pub state: CacheState,
    /// What is wrong, if it is damaged.
    pub problem: Option<String>,
}

/// What is in the cache, after hashing every file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheState {
    /// Nothing: nothing was fetched yet.
    Absent,
    /// The library as it was fetched.
    Intact,
    /// Something else.
    Damaged,
}

/// Looks at everything; fetches nothing and never fails. Loads the library if there is one.
#[must_use]
pub fn examine(places: &Places) -> Facts {
    let (mut library, skipped, mut problem) = match library::discover(places) {
        Ok(discovery) => (discovery.library, discovery.skipped, None),
        Err(error) => (None, Vec::new(), Some(error.to_string())),
    };
    match &library {
        Some(found) => {
            if let Err(error) = load::load(found) {
                problem = Some(error.to_string());
                library = None;
            }
        }
        None if problem.is_none() => {
            problem = Some(
                "no ONNX Runtime was found; the next command that needs it fetches it, or run `pab-patch setup`"
                    .to_owned(),
            );
        }
        None => {}
    }
    let usable = library.is_some();
    let cpu = devices::cpu();
    Facts {
        problem,
        skipped,
        required_version: format!("{}.{}", MINIMUM_VERSION.0, MINIMUM_VERSION.1),
        supported_opset: if usable { supported_opset() } else { None },
        providers: if usable {
            devices::providers().unwrap_or_default()
        } else {
            Vec::new()
        },
        usable: if usable { usable::all() } else { Vec::new() },
        devices: if usable {
            devices::devices().unwrap_or_default()
        } else {
            Vec::new()
        },
        default_threads: cpu.physical_cores,
        cpu,
        gpus: devices::gpus(),
        cache: cache_facts(places),
        library,
    }
}

fn cache_facts(places: &Places) -> CacheFacts {
    let cache = places.cache_folder.as_deref().map(Cache::new);
    let (state, problem) = match cache.as_ref().map(Cache::verify) {
        None | Some(Ok(None)) => (CacheState::Absent, None),
        Some(Ok(Some(_))) => (CacheState::Intact, None),
        Some(Err(error)) => (CacheState::Damaged, Some(error.to_string())),
    };
    CacheFacts {
        folder: cache.map(|cache| cache.folder()),
        version: wheels::VERSION.to_owned(),
        state,
        problem,
    }
}

/// The newest opset that the loaded library knows. Its interface has no question for it, so it is given a model of
/// an opset that does not exist, and names the newest one in its refusal.
fn supported_opset() -> Option<i64> {
    let environment = load::environment().ok()?;
    let model = ModelProto::of_standard_operators(
        GraphProto {
            name: Some("opset".to_owned()),
            node: vec![NodeProto {
                op_type: Some("Identity".to_owned()),
                ..NodeProto::default()
            }],
            ..GraphProto::default()
        },
        1_000_000,
    );
    let builder = ort::session::Session::builder(environment);
    let refusal = builder
        .ok()?
        .commit_from_memory(&model.encode_to_vec())
        .err()?
        .to_string();
    let number = refusal.split("is till opset ").nth(1)?;
    number
        .chars()
        .take_while(char::is_ascii_digit)
        .collect::<String>()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ensure;

    #[test]
    fn a_working_library_is_described() {
        let library = ensure().unwrap();
        let facts = examine(&Places {
            option: Some(library.path.clone()),
            ..Places::default()
        });
        assert_eq!(facts.problem, None);
        assert_eq!(facts.library.as_ref().map(|found| &found.path), Some(&library.path));
        assert!(
            facts.supported_opset.is_some_and(|opset| opset >= 23),
            "{:?}",
            facts.supported_opset
        );
        assert!(facts.providers.contains(&"CPUExecutionProvider".to_owned()));
        assert_eq!(
            (facts.cache.folder.as_ref(), facts.cache.state),
            (None, CacheState::Absent)
        );
        let json = serde_json::to_value(&facts).unwrap();
        assert_eq!(json["library"]["origin"], "option");
        assert_eq!(json["cache"]["state"], "absent");
    }

    #[test]
    fn nothing_there_is_said_and_not_an_error() {
        let facts = examine(&Places::default());
        assert!(facts.problem.is_some_and(|problem| problem.contains("pab-patch setup")));
        assert_eq!((facts.library, facts.supported_opset), (None, None));
        let facts = examine(&Places {
            option: Some("/nowhere/libonnxruntime.so".into()),
            ..Places::default()
        });
        assert!(facts.problem.is_some_and(|problem| problem.contains("--ort-lib names")));
    }

    #[test]
    fn a_damaged_cache_is_found_by_its_hash() {
        let folder = tempfile::tempdir().unwrap();
        let library = Cache::new(folder.path()).install_for_tests("library.so", b"whole");
        std::fs::write(library, b"WHOLE").unwrap();
        let facts = examine(&Places {
            cache_folder: Some(folder.path().to_path_buf()),
            ..Places::default()
        });
        assert_eq!(facts.cache.state, CacheState::Damaged);
        assert!(
            facts
                .cache
                .problem
                .is_some_and(|problem| problem.contains("another SHA-256"))
        );
    }
}
