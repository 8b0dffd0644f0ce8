//! NCCL's functions, from whatever `libnccl.so.2` there is, and CUDA's driver.
//!
//! The types and the driver are `cudarc`'s. Its own way to NCCL knows no file of the name that NVIDIA gives it and panics where
//! there is none, so the file is loaded here.

use std::{
    ffi::{CStr, OsString, c_char, c_int, c_void},
    sync::OnceLock,
};

use cudarc::{
    driver::sys::CUresult,
    nccl::sys::{cudaStream_t, ncclComm_t, ncclConfig_t, ncclUniqueId},
};
use libloading::Library;

use crate::collective::Element;

/// Names a file of NCCL where none of [`NAMES`] is found.
pub const VARIABLE: &str = "PAB_PATCH_NCCL_LIB";

/// What NCCL's file is called, in the loader's own folders and `LD_LIBRARY_PATH`.
const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];

/// NCCL's answers that are no errors.
pub(super) const SUCCESS: c_int = 0;
pub(super) const IN_PROGRESS: c_int = 7;

/// Sums of bytes are none of ours, so this is only for what moves as it is.
pub(super) const BYTES: c_int = 1;
pub(super) const SUM: c_int = 0;

type Reduce = unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, ncclComm_t, cudaStream_t) -> c_int;

/// What is used of NCCL. Its answers are numbers, as later versions may have some that `cudarc` has no name for.
pub(super) struct Functions {
    pub get_unique_id: unsafe extern "C" fn(*mut ncclUniqueId) -> c_int,
    pub init: unsafe extern "C" fn(*mut ncclComm_t, c_int, ncclUniqueId, c_int, *mut ncclConfig_t) -> c_int,
    pub progress: unsafe extern "C" fn(ncclComm_t, *mut c_int) -> c_int,
    pub finalize: unsafe extern "C" fn(ncclComm_t) -> c_int,
    pub destroy: unsafe extern "C" fn(ncclComm_t) -> c_int,
    pub abort: unsafe extern "C" fn(ncclComm_t) -> c_int,
    pub send: unsafe extern "C" fn(*const c_void, usize, c_int, c_int, ncclComm_t, cudaStream_t) -> c_int,
    pub receive: unsafe extern "C" fn(*mut c_void, usize, c_int, c_int, ncclComm_t, cudaStream_t) -> c_int,
    pub all_reduce: Reduce,
    pub reduce_scatter: Reduce,
    pub group_start: unsafe extern "C" fn() -> c_int,
    pub group_end: unsafe extern "C" fn() -> c_int,
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    last_error: unsafe extern "C" fn(ncclComm_t) -> *const c_char,
    _library: Library,
}

/// NCCL and the driver, or why they cannot be had.
pub(super) fn functions() -> Result<&'static Functions, String> {
    static LOADED: OnceLock<Result<Functions, String>> = OnceLock::new();
    let loaded = LOADED.get_or_init(|| {
        // SAFETY: loading the driver runs no code but its own initialisation.
        if !unsafe { cudarc::driver::sys::is_culib_present() } {
            return Err("there is no CUDA driver (libcuda.so.1): NCCL needs an NVIDIA GPU for each rank".to_owned());
        }
        load()
    });
    loaded.as_ref().map_err(Clone::clone)
}

/// NCCL alone.
fn load() -> Result<Functions, String> {
    let named = std::env::var_os(VARIABLE).filter(|name| !name.is_empty());
    let names = match named {
        Some(name) => vec![name],
        None => NAMES.map(OsString::from).to_vec(),
    };
    let mut reasons = Vec::new();
    for name in names {
        // SAFETY: loading NCCL runs no code but its own initialisation.
        match unsafe { Library::new(&name) } {
            Ok(library) => return of(library).map_err(|reason| format!("{}: {reason}", name.display())),
            Err(error) => reasons.push(error.to_string()),
        }
    }
    Err(format!(
        "NCCL cannot be loaded ({}): install it (as PyPI's nvidia-nccl-cu13), and name its libnccl.so.2 in {VARIABLE} where the \
         loader does not find it",
        reasons.join("; ")
    ))
}

fn of(library: Library) -> Result<Functions, String> {
    /// The function of this name.
    ///
    /// # Safety
    /// It must be of type `F`.
    unsafe fn find<F: Copy>(library: &Library, name: &str) -> Result<F, String> {
        // SAFETY: as the caller says.
        let symbol = unsafe { library.get::<F>(name.as_bytes()) };
        symbol
            .map(|symbol| *symbol)
            .map_err(|_| format!("it has no {name}: NCCL 2.14 or later is needed"))
    }
    // SAFETY: the types are those of nccl.h.
    unsafe {
        Ok(Functions {
            get_unique_id: find(&library, "ncclGetUniqueId")?,
            init: find(&library, "ncclCommInitRankConfig")?,
            progress: find(&library, "ncclCommGetAsyncError")?,
            finalize: find(&library, "ncclCommFinalize")?,
            destroy: find(&library, "ncclCommDestroy")?,
            abort: find(&library, "ncclCommAbort")?,
            send: find(&library, "ncclSend")?,
            receive: find(&library, "ncclRecv")?,
            all_reduce: find(&library, "ncclAllReduce")?,
            reduce_scatter: find(&library, "ncclReduceScatter")?,
            group_start: find(&library, "ncclGroupStart")?,
            group_end: find(&library, "ncclGroupEnd")?,
            error_string: find(&library, "ncclGetErrorString")?,
            last_error: find(&library, "ncclGetLastError")?,
            _library: library,
        })
    }
}

impl Functions {
    /// What an answer means.
    pub fn reason(&self, answer: c_int) -> String {
        // SAFETY: the texts are NCCL's own; it takes no communicator for the last error of this thread.
        let (error, last) = unsafe { ((self.error_string)(answer), (self.last_error)(std::ptr::null_mut())) };
        let [error, last] = [error, last].map(|text| match text.is_null() {
            true => String::new(),
            // SAFETY: the text ends with a zero.
            false => unsafe { CStr::from_ptr(text) }.to_string_lossy().trim().to_owned(),
        });
        match last.is_empty() {
            true => error,
            false => format!("{error} ({last})"),
        }
    }
}

/// NCCL's number of a type that is summed.
pub(super) fn number(element: Element) -> Option<c_int> {
    match element {
        Element::Float16 => Some(6),
        Element::Float32 => Some(7),
        Element::Float64 => Some(8),
        Element::Bfloat16 => Some(9),
        Element::Int32 | Element::Int64 | Element::Bool => None,
    }
}

/// The settings of a communicator whose calls never block, of which only that is set.
pub(super) fn nonblocking() -> ncclConfig_t {
    /// NCCL's mark of a number that nobody set.
    const UNSET: c_int = c_int::MIN;
    ncclConfig_t {
        size: size_of::<ncclConfig_t>(),
        magic: 0xcafe_beef,
        // The version that the type is of: later ones know how long it is.
        version: 22_600,
        blocking: 0,
        cgaClusterSize: UNSET,
        minCTAs: UNSET,
        maxCTAs: UNSET,
        netName: std::ptr::null(),
        splitShare: UNSET,
        trafficClass: UNSET,
    }
}

/// The driver's answer as an error.
pub(super) fn driver(answer: CUresult) -> Result<(), String> {
    match answer {
        CUresult::CUDA_SUCCESS => Ok(()),
        other => Err(format!("the driver says {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        // Where there is a driver, a file that is none is missed instead: see tests/gpu.
        // SAFETY: as above.
        if unsafe { cudarc::driver::sys::is_culib_present() } {
            return;
        }
        let reason = functions().err().unwrap();
        assert!(reason.contains("libcuda.so.1"), "{reason}");
    }

    #[test]
    fn a_file_of_nccl_has_what_is_used() {
        match std::env::var_os(VARIABLE) {
            Some(_) => assert_eq!(load().err(), None),
            None => eprintln!("SKIPPED: no NCCL is named in {VARIABLE}"),
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn another_library_is_refused_by_what_it_lacks() {
        // SAFETY: the C library is loaded anyway.
        let library = unsafe { Library::new("libc.so.6") }.unwrap();
        let reason = of(library).err().unwrap();
        assert!(reason.contains("ncclGetUniqueId"), "{reason}");
    }
}
