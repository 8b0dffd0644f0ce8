//! The libraries that a library of an execution provider needs: which they are, and where they lie.
//!
//! Only ELF files are read (System V gABI, chapter 5, "Dynamic Section"); elsewhere the system's loader has the word.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{binary::Fields, load};

/// The names that an ELF library gives in `DT_NEEDED`, in its order; none where the file is of another format or broken.
pub(super) fn needed(path: &Path) -> Vec<String> {
    // The file has hundreds of megabytes; of the map only the pages with the headers and the names are read.
    let Ok(file) = std::fs::File::open(path) else {
        return Vec::new();
    };
    // SAFETY: the map is read only and dropped below; libraries are not cut off while they are in use.
    match unsafe { memmap2::Mmap::map(&file) } {
        Ok(map) => names(&map).unwrap_or_default(),
        Err(_) => Vec::new(),
    }
}

fn names(bytes: &[u8]) -> Option<Vec<String>> {
    const LOAD: u32 = 1;
    const DYNAMIC: u32 = 2;
    const NEEDED: u64 = 1;
    const STRING_TABLE: u64 = 5;
    let file = Fields(bytes);
    if bytes.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (programs, size, count) = (usize::try_from(file.u64(32)?).ok()?, file.u16(54)?, file.u16(56)?);
    // Type, place in the file, address and bytes in the file of each segment.
    let mut segments = Vec::new();
    for program in 0..usize::from(count) {
        let at = programs.checked_add(program.checked_mul(usize::from(size))?)?;
        let field = |offset: usize| file.u64(at.checked_add(offset)?);
        segments.push((file.u32(at)?, field(8)?, field(16)?, field(32)?));
    }
    let &(_, dynamic, _, length) = segments.iter().find(|(kind, ..)| *kind == DYNAMIC)?;
    let dynamic = bytes.get(usize::try_from(dynamic).ok()?..)?;
    let dynamic = dynamic.get(..usize::try_from(length).ok()?)?;
    let entries: Vec<(u64, u64)> = dynamic
        .chunks_exact(16)
        .filter_map(|entry| Some((Fields(entry).u64(0)?, Fields(entry).u64(8)?)))
        .collect();
    let address = entries.iter().find(|(tag, _)| *tag == STRING_TABLE)?.1;
    let holds = |(kind, _, start, length): &&(u32, u64, u64, u64)| {
        *kind == LOAD && address >= *start && address - start < *length
    };
    let &(_, offset, start, _) = segments.iter().find(holds)?;
    let table = offset.checked_add(address - start)?;
    let needed = entries.iter().filter(|(tag, _)| *tag == NEEDED);
    needed
        .map(|(_, name)| {
            let text = bytes.get(usize::try_from(table.checked_add(*name)?).ok()?..)?;
            let text = text.split(|byte| *byte == 0).next()?;
            String::from_utf8(text.to_vec()).ok()
        })
        .collect()
}

/// Where NVIDIA's libraries may lie: in the Python packages beside `onnxruntime` and of the active environments, and
/// where CUDA's installers put them. The system's own search comes last, by name.
pub(super) fn folders() -> Vec<PathBuf> {
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let prefixes: Vec<PathBuf> = ["VIRTUAL_ENV", "CONDA_PREFIX"]
        .into_iter()
        .filter_map(variable)
        .collect();
    // site-packages/onnxruntime/capi/libonnxruntime.so → site-packages
    let beside = load::loaded().and_then(|library| library.path.ancestors().nth(3).map(Path::to_path_buf));
    let packages = beside
        .into_iter()
        .chain(prefixes.iter().flat_map(|prefix| site_packages(prefix)));
    let mut folders = Vec::new();
    for packages in packages {
        let mut parts: Vec<PathBuf> = std::fs::read_dir(packages.join("nvidia"))
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        parts.sort();
        folders.extend(parts.iter().map(|part| part.join("lib")));
        folders.push(packages.join("tensorrt_libs"));
    }
    folders.extend(prefixes.iter().map(|prefix| prefix.join("lib")));
    let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(variable);
    let homes = homes.chain(["/usr/local/cuda", "/opt/cuda"].map(PathBuf::from));
    folders.extend(homes.flat_map(|home| [home.join("lib64"), home.join("lib")]));
    let mut seen = BTreeSet::new();
    folders.retain(|folder| folder.is_dir() && seen.insert(folder.clone()));
    folders
}

/// The `site-packages` folders below the prefix of a Python environment.
fn site_packages(prefix: &Path) -> Vec<PathBuf> {
    let entries =
        std::fs::read_dir(prefix.join("lib")).map(|entries| entries.flatten().map(|entry| entry.path()).collect());
    let mut versions: Vec<PathBuf> = entries.unwrap_or_default();
    versions.sort();
    versions
        .into_iter()
        .map(|version| version.join("site-packages"))
        .collect()
}

/// Loads a library for as long as the process lives, so that the system's loader finds it loaded when another one needs
/// it: from the first of `folders` that has it, else by its name alone.
///
/// # Errors
/// What the system's loader said.
pub(super) fn preload(name: &str, folders: &[PathBuf]) -> Result<(), String> {
    let found = folders
        .iter()
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    let path = found.unwrap_or_else(|| PathBuf::from(name));
    // SAFETY: these are libraries that the provider loads in any case, found by the names that it gives; what they do
    // when they are loaded is set up themselves. None of them is ever unloaded.
    match unsafe { libloading::Library::new(&path) } {
        Ok(library) => {
            std::mem::forget(library);
            Ok(())
        }
        // What the loader said stands behind the error.
        Err(error) => Err(std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn what_the_runtime_needs_is_read_from_its_library() {
        let library = crate::runtime::ensure().unwrap();
        let needed = needed(&library.path);
        assert!(needed.iter().any(|name| name == "libc.so.6"), "{needed:?}");
        assert!(needed.iter().all(|name| name.contains(".so")), "{needed:?}");
        assert!(preload("libc.so.6", &[]).is_ok());
        assert!(preload("libnothing.so.7", &[]).unwrap_err().contains("libnothing.so.7"));
    }

    proptest! {
        #[test]
        fn no_library_makes_the_reader_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let magic = b"\x7fELF\x02\x01";
            if bytes.len() >= magic.len() {
                bytes[..magic.len()].copy_from_slice(magic);
            }
            let _ = names(&bytes);
        }
    }
}
