//! Memory that is given back to the system while something else works.

use std::sync::Arc;

use memmap2::Mmap;

/// How often memory is given back while a session is opened.
#[cfg(target_os = "linux")]
const PAUSE: std::time::Duration = std::time::Duration::from_millis(5);

/// Does `work`, and gives the pages of the maps, and memory that was freed, back again and again meanwhile, and at the end.
///
/// What was read of a file stays in the system's cache either way; what is read once more is found there.
#[cfg(target_os = "linux")]
pub(super) fn giving_back<T>(maps: &[Arc<Mmap>], work: impl FnOnce() -> T) -> T {
    let give_back = || {
        for map in maps {
            // SAFETY: the map is of a file, and read-only: pages that are read again hold the same bytes. Where that fails
            // it only costs memory.
            let _ = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
        }
        trim();
    };
    let done = std::sync::atomic::AtomicBool::new(false);
    let result = std::thread::scope(|scope| {
        let helper = scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                std::thread::park_timeout(PAUSE);
                give_back();
            }
        });
        let result = work();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        helper.thread().unpark();
        result
    });
    give_back();
    result
}

/// Gives memory that was freed back to the system: glibc keeps it, and every session frees as much as its weights take, of
/// which it packs a copy before it finds that there is one.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim() {
    unsafe extern "C" {
        fn malloc_trim(pad: usize) -> std::ffi::c_int;
    }
    // SAFETY: a function of the C library that may be called at any time, from any thread.
    unsafe { malloc_trim(0) };
}

#[cfg(all(target_os = "linux", not(target_env = "gnu")))]
fn trim() {}

#[cfg(not(target_os = "linux"))]
pub(super) fn giving_back<T>(_: &[Arc<Mmap>], work: impl FnOnce() -> T) -> T {
    work()
}
