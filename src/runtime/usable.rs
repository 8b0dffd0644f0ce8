//! Whether an execution provider can be used here, and if not, why and what to do: asked before a model is opened, since
//! ONNX Runtime names the first thing that it stumbles over, and the loader of the system no more than a file.

use serde::Serialize;

use super::{
    binary,
    devices::{self, Gpus},
    load,
    needed::{folders, needed, preload},
    provider::{PROVIDERS, Row},
};

/// Why a provider cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub advice: String,
}

/// A provider of the table and what stands in its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Usability {
    /// Its name on the command line.
    pub name: &'static str,
    /// Its name in ONNX Runtime.
    pub identifier: &'static str,
    /// Whether the library that is loaded was built with it.
    pub built_in: bool,
    /// Why it cannot be used; nothing is known to stand in its way where this is empty.
    pub causes: Vec<Cause>,
}

/// The start of a library's name, and the Python package that brings it. The first that matches counts.
const PACKAGES: &[(&str, &str)] = &[
    ("libcudart.so", "nvidia-cuda-runtime"),
    ("libnvrtc.so", "nvidia-cuda-nvrtc"),
    ("libcublas", "nvidia-cublas"),
    ("libcurand.so", "nvidia-curand"),
    ("libcufft.so", "nvidia-cufft"),
    ("libcudnn", "nvidia-cudnn-cu13"),
    ("libnvinfer", "tensorrt-cu13"),
    ("libnvonnxparser", "tensorrt-cu13"),
];

/// What NVIDIA's libraries load by themselves later on, from wherever the system finds it: loaded first where it lies beside
/// them, and no matter where it does not.
const LOADED_LATER: &[&str] = &[
    "libnvrtc.so.13",
    "libcufft.so.12",
    "libcudnn_graph.so.9",
    "libcudnn_ops.so.9",
    "libcudnn_heuristic.so.9",
    "libcudnn_adv.so.9",
    "libcudnn_cnn.so.9",
    "libcudnn_engines_precompiled.so.9",
    "libcudnn_engines_runtime_compiled.so.9",
];

/// The driver's own library, of which [`devices::gpus`] speaks.
const DRIVER: &str = "libcuda.so";

/// What stands in the way of a provider's device; what the provider needs is loaded on the way.
pub(super) fn causes(row: &Row, index: u32) -> Vec<Cause> {
    let Some(library) = load::loaded() else {
        return Vec::new();
    };
    if row.build.is_none() {
        // It is a library of its own, which says itself what it lacks.
        return Vec::new();
    }
    let providers = devices::providers().unwrap_or_default();
    if !providers.iter().any(|provider| provider == row.identifier) {
        return vec![Cause {
            reason: format!(
                "{} (ONNX Runtime {}, from: {}) is a build without {}",
                library.path.display(),
                library.version,
                library.origin,
                row.title
            ),
            advice: row.source.to_owned(),
        }];
    }
    let mut causes = Vec::new();
    let own = row.library.map(|stem| library.path.with_file_name(file_name(stem)));
    let names = own.as_deref().map(needed).unwrap_or_default();
    if row.nvidia {
        causes.extend(driver(&devices::gpus(), cuda_version(&names), index));
    }
    let Some(own) = own else { return causes };
    if let Err(reason) = binary::check(&own) {
        causes.push(Cause {
            reason: format!("{} cannot be loaded: {reason}", own.display()),
            advice: "install the package that brings it again, and keep it beside ONNX Runtime's library".to_owned(),
        });
        return causes;
    }
    causes.extend(libraries(row, &names));
    causes
}

/// What is missing of the libraries that a provider needs.
fn libraries(row: &Row, names: &[String]) -> Option<Cause> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let folders = folders();
    let known = |name: &str| PACKAGES.iter().position(|(start, _)| name.starts_with(start));
    let mut wanted: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .chain(row.opened.iter().copied())
        .collect();
    wanted.retain(|name| !name.starts_with(DRIVER));
    // What others need comes first.
    wanted.sort_by_key(|name| known(name).unwrap_or(PACKAGES.len()));
    wanted.dedup();
    let missing: Vec<(&str, String)> = wanted
        .into_iter()
        // A second copy of the C++ library, from an environment of its own, would do harm.
        .filter_map(|name| {
            let places: &[_] = if known(name).is_some() { &folders } else { &[] };
            Some((name, preload(name, places).err()?))
        })
        .collect();
    if missing.is_empty() {
        if row.nvidia {
            for name in LOADED_LATER {
                let _ = preload(name, &folders);
            }
        }
        return None;
    }
    let mut packages: Vec<&str> = Vec::new();
    for package in missing
        .iter()
        .filter_map(|(name, _)| Some(PACKAGES.get(known(name)?)?.1))
    {
        if !packages.contains(&package) {
            packages.push(package);
        }
    }
    let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
    // "cannot open shared object file" says no more than that it is missing; anything else does.
    let broken = missing.iter().find(|(_, reason)| !reason.contains("No such file"));
    let broken = broken.map(|(_, reason)| format!(" ({reason})")).unwrap_or_default();
    let looked: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    let looked = match looked.is_empty() {
        true => "the system's own places".to_owned(),
        false => format!("{} and the system's own places", looked.join(", ")),
    };
    Some(Cause {
        reason: format!("{} cannot be loaded{broken}; looked for in {looked}", names.join(", ")),
        advice: match packages.is_empty() {
            true => "install what brings them, or name their folder in LD_LIBRARY_PATH".to_owned(),
            false => format!(
                "`pip install {}` into the Python environment that has ONNX Runtime, or name the folder of an installed CUDA in \
                 LD_LIBRARY_PATH",
                packages.join(" ")
            ),
        },
    })
}

/// What is wrong with NVIDIA's driver or its devices, for libraries of this major version of CUDA.
fn driver(gpus: &Gpus, cuda: Option<u32>, index: u32) -> Option<Cause> {
    let cause = |reason: String, advice: &str| {
        Some(Cause {
            reason,
            advice: advice.to_owned(),
        })
    };
    if let Some(reason) = &gpus.reason {
        return cause(reason.clone(), gpus.advice);
    }
    if let (Some(driver), Some(cuda)) = (gpus.driver_cuda, cuda)
        && driver / 1000 < cuda
    {
        let (major, minor) = (driver / 1000, driver % 1000 / 10);
        return cause(
            format!("the NVIDIA driver is for CUDA {major}.{minor}, and this ONNX Runtime is built for CUDA {cuda}"),
            "update the driver, or take an ONNX Runtime that is built for that CUDA",
        );
    }
    if index as usize >= gpus.names.len() {
        let known = gpus
            .names
            .iter()
            .enumerate()
            .map(|(index, name)| format!("{index} ({name})"));
        return cause(
            format!(
                "there is no device {index}; the NVIDIA driver knows {}",
                known.collect::<Vec<_>>().join(", ")
            ),
            "take one of these; CUDA_VISIBLE_DEVICES hides devices",
        );
    }
    None
}

/// The major version of CUDA that a library is built for, by the names of those that it needs.
fn cuda_version(needed: &[String]) -> Option<u32> {
    needed
        .iter()
        .find_map(|name| name.strip_prefix("libcudart.so.")?.parse().ok())
}

/// The file of a library, from its stem.
fn file_name(stem: &str) -> String {
    format!("{}{stem}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX)
}

/// Causes as one reason and one advice.
pub(super) fn said(causes: &[Cause]) -> Option<(String, String)> {
    let (first, others) = causes.split_first()?;
    let mut advice = first.advice.clone();
    for other in others {
        advice.push_str(&format!("; besides, {}: {}", other.reason, other.advice));
    }
    Some((first.reason.clone(), advice))
}

/// Every provider of the table that the loaded library was built with, and CUDA in any case.
#[must_use]
pub fn all() -> Vec<Usability> {
    let providers = devices::providers().unwrap_or_default();
    let built_in = |row: &Row| providers.iter().any(|provider| provider == row.identifier);
    let rows = PROVIDERS.iter().filter(|row| built_in(row) || row.name == "cuda");
    rows.map(|row| Usability {
        name: row.name,
        identifier: row.identifier,
        built_in: built_in(row),
        causes: causes(row, 0),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_and_devices_are_told_apart() {
        let gpus = |names: &[&str], driver_cuda| Gpus {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            driver_cuda,
            ..Gpus::default()
        };
        assert_eq!(driver(&gpus(&["A"], Some(13000)), Some(13), 0), None);
        let reason = |gpus, index| driver(&gpus, Some(13), index).unwrap().reason;
        assert!(reason(gpus(&["A"], Some(12080)), 0).contains("for CUDA 12.8"));
        assert!(reason(gpus(&["A", "B"], Some(13010)), 2).contains("knows 0 (A), 1 (B)"));
        let none = Gpus {
            reason: Some("no NVIDIA driver".to_owned()),
            advice: "install it",
            ..Gpus::default()
        };
        assert_eq!(driver(&none, Some(13), 0).unwrap().advice, "install it");
        assert_eq!(
            cuda_version(&["libcublas.so.13".to_owned(), "libcudart.so.12".to_owned()]),
            Some(12)
        );
    }

    #[test]
    fn several_causes_are_all_said() {
        let cause = |text: &str| Cause {
            reason: format!("{text} is missing"),
            advice: format!("install {text}"),
        };
        assert_eq!(said(&[]), None);
        let (reason, advice) = said(&[cause("a"), cause("b")]).unwrap();
        assert_eq!(
            format!("{reason}; {advice}"),
            "a is missing; install a; besides, b is missing: install b"
        );
    }
}
