//! The processors and GPUs of this machine, as far as they can be seen without further dependencies.

use std::{
    collections::BTreeSet,
    ffi::{c_char, c_int},
};

use serde::Serialize;

use super::{error::RuntimeError, load};

/// The processor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cpu {
    /// Its model name, where the system tells it.
    pub model: Option<String>,
    /// `x86_64`, `aarch64`, ….
    pub architecture: &'static str,
    /// Hardware threads that this process may use.
    pub logical_cores: usize,
    /// Physical cores, at most as many as `logical_cores`; ONNX Runtime starts one thread for each by default.
    pub physical_cores: usize,
}

/// NVIDIA GPUs, asked of the driver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Gpus {
    /// Their names.
    pub names: Vec<String>,
    /// Why there are none.
    pub reason: Option<String>,
    /// What to do where there are none.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub advice: &'static str,
    /// The newest CUDA that the driver takes, as 1000 times its major and 10 times its minor version.
    pub driver_cuda: Option<u32>,
}

/// What the driver answers where it cannot be used (`cuda.h`, `CUresult`): the number, what it means and what to do.
const DRIVER_ERRORS: &[(c_int, &str, &str)] = &[
    (
        34,
        "libcuda.so.1 is the stub that the CUDA toolkit has for linking",
        "take its folder out of LD_LIBRARY_PATH, and install the NVIDIA driver",
    ),
    (35, "the NVIDIA driver is older than its library", UPDATE),
    (
        100,
        "the NVIDIA driver finds no GPU",
        "see what `nvidia-smi` lists; a container has to be given the GPU (`--gpus all`), and CUDA_VISIBLE_DEVICES hides GPUs; or \
         use --device cpu",
    ),
    (
        802,
        "the NVIDIA driver is not ready yet",
        "wait for it, or start the Fabric Manager (`nvidia-fabricmanager`), and try again",
    ),
    (
        803,
        "the parts of the NVIDIA driver have different versions",
        "restart the machine, or install the driver again",
    ),
    (
        804,
        "the GPU does not work with this pair of driver and library",
        UPDATE,
    ),
];
const UPDATE: &str = "update the NVIDIA driver, or use --device cpu";
const INSTALL: &str = "install the NVIDIA driver, or use --device cpu; a container needs the NVIDIA Container Toolkit";
const LOOK: &str = "see what `nvidia-smi` says, or use --device cpu";

/// A device that an execution provider of the loaded library offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Device {
    /// The execution provider.
    pub provider: String,
    /// `cpu`, `gpu` or `npu`.
    pub kind: String,
    /// The maker of the device.
    pub vendor: String,
}

/// The processor of this machine.
#[must_use]
pub fn cpu() -> Cpu {
    let logical_cores = std::thread::available_parallelism().map_or(1, usize::from);
    let information = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cores = physical_cores(&information).unwrap_or(logical_cores);
    Cpu {
        model: cpu_model(&information),
        architecture: std::env::consts::ARCH,
        logical_cores,
        physical_cores: cores.clamp(1, logical_cores),
    }
}

/// The values of a key in Linux's `/proc/cpuinfo`.
fn values<'a>(information: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    information.lines().filter_map(move |line| {
        line.split_once(':')
            .filter(|(name, _)| name.trim() == key)
            .map(|(_, value)| value.trim())
    })
}

fn physical_cores(information: &str) -> Option<usize> {
    let sockets = values(information, "physical id");
    let cores: BTreeSet<_> = sockets.zip(values(information, "core id")).collect();
    (!cores.is_empty()).then_some(cores.len())
}

fn cpu_model(information: &str) -> Option<String> {
    if let Some(model) = values(information, "model name").next() {
        return Some(model.to_owned());
    }
    if cfg!(target_os = "macos") {
        let output = std::process::Command::new("/usr/sbin/sysctl")
            .args(["-n", "machdep.cpu.brand_string"])
            .output()
            .ok()?;
        return String::from_utf8(output.stdout)
            .ok()
            .map(|model| model.trim().to_owned())
            .filter(|model| !model.is_empty());
    }
    std::env::var("PROCESSOR_IDENTIFIER").ok()
}

/// The NVIDIA GPUs that the driver knows. Loads the driver's library if there is one; needs none.
#[must_use]
pub fn gpus() -> Gpus {
    match ask_driver() {
        Ok(gpus) if gpus.names.is_empty() => {
            let (reason, advice) = said(100);
            Gpus {
                reason: Some(reason),
                advice,
                ..gpus
            }
        }
        Ok(gpus) => gpus,
        Err((reason, advice)) => Gpus {
            reason: Some(reason),
            advice,
            ..Gpus::default()
        },
    }
}

/// What an error of the driver means and what to do.
fn said(code: c_int) -> (String, &'static str) {
    match DRIVER_ERRORS.iter().find(|(known, ..)| *known == code) {
        Some((_, reason, advice)) => (format!("{reason} (CUDA error {code})"), advice),
        None => (format!("the NVIDIA driver failed with CUDA error {code}"), LOOK),
    }
}

/// CUDA's driver interface (`cuda.h`): every function returns 0 for success.
fn ask_driver() -> Result<Gpus, (String, &'static str)> {
    type Init = unsafe extern "system" fn(u32) -> c_int;
    type Count = unsafe extern "system" fn(*mut c_int) -> c_int;
    type Get = unsafe extern "system" fn(*mut c_int, c_int) -> c_int;
    type Name = unsafe extern "system" fn(*mut c_char, c_int, c_int) -> c_int;
    if cfg!(target_vendor = "apple") {
        return Err((
            "macOS has no NVIDIA driver".to_owned(),
            "use --device coreml or --device cpu",
        ));
    }
    let file = if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" };
    // SAFETY: this is the name under which NVIDIA's driver installs its library; its initialisers set up itself only.
    let library = unsafe { libloading::Library::new(file) }
        .map_err(|_| (format!("no NVIDIA driver ({file} cannot be loaded)"), INSTALL))?;
    let missing = |error: libloading::Error| (format!("{file} is no NVIDIA driver: {error}"), INSTALL);
    // SAFETY: the four types are those of `cuda.h`, unchanged since CUDA 2.
    let (init, count, get, name) = unsafe {
        (
            library.get::<Init>(b"cuInit\0").map_err(missing)?,
            library.get::<Count>(b"cuDeviceGetCount\0").map_err(missing)?,
            library.get::<Get>(b"cuDeviceGet\0").map_err(missing)?,
            library.get::<Name>(b"cuDeviceGetName\0").map_err(missing)?,
        )
    };
    let succeeded = |code: c_int| match code {
        0 => Ok(()),
        code => Err(said(code)),
    };
    // SAFETY: the only flag that exists is 0.
    succeeded(unsafe { init(0) })?;
    let mut devices = 0;
    // SAFETY: the pointer is to a live integer.
    succeeded(unsafe { count(&raw mut devices) })?;
    let mut names = Vec::new();
    for ordinal in 0..devices {
        let mut device = 0;
        // SAFETY: the pointer is to a live integer and the ordinal is below the count.
        succeeded(unsafe { get(&raw mut device, ordinal) })?;
        let mut text = [0_u8; 256];
        // SAFETY: the buffer is live and its length, less one for the end, is given.
        succeeded(unsafe { name(text.as_mut_ptr().cast(), 255, device) })?;
        names.push(
            text.split(|byte| *byte == 0)
                .next()
                .map(String::from_utf8_lossy)
                .unwrap_or_default()
                .into_owned(),
        );
    }
    let mut version = 0;
    // SAFETY: the type is that of `cuda.h` and the pointer is to a live integer. A driver without it is older than all.
    let asked =
        unsafe { library.get::<Count>(b"cuDriverGetVersion\0") }.is_ok_and(|ask| unsafe { ask(&raw mut version) } == 0);
    // The driver does not bear being unloaded and loaded again in one process.
    std::mem::forget(library);
    Ok(Gpus {
        names,
        driver_cuda: asked.then(|| version.unsigned_abs()),
        ..Gpus::default()
    })
}

/// The execution providers that the loaded library was built with.
///
/// # Errors
/// [`RuntimeError::NotLoaded`].
pub fn providers() -> Result<Vec<String>, RuntimeError> {
    load::environment()?;
    let api = ort::api();
    let mut names: *mut *mut c_char = std::ptr::null_mut();
    let mut count: c_int = 0;
    // SAFETY: both pointers are to live variables that receive an array which stays ours until it is released below.
    let status = unsafe { (api.GetAvailableProviders)(&raw mut names, &raw mut count) };
    // SAFETY: the status was just returned and is handed over.
    let outcome = unsafe { ort::Error::result_from_status(status) };
    if outcome.is_err() || names.is_null() {
        return Ok(Vec::new());
    }
    let length = usize::try_from(count).unwrap_or(0);
    // SAFETY: the call succeeded, so `names` points to `count` strings that end in a null byte.
    let list = unsafe { std::slice::from_raw_parts(names, length) }
        .iter()
        // SAFETY: as above.
        .map(|name| {
            unsafe { std::ffi::CStr::from_ptr(*name) }
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    // SAFETY: array and count are those that the call above gave; they are not used afterwards.
    let status = unsafe { (api.ReleaseAvailableProviders)(names, count) };
    // SAFETY: as above. Releasing cannot fail in a way that matters here.
    let _ = unsafe { ort::Error::result_from_status(status) };
    Ok(list)
}

/// The devices that the loaded library's execution providers offer.
///
/// # Errors
/// [`RuntimeError::NotLoaded`].
pub fn devices() -> Result<Vec<Device>, RuntimeError> {
    let text = |name: Result<&str, ort::Error>| name.unwrap_or("unknown").to_owned();
    let devices = load::environment()?.devices().map(|device| {
        let hardware = device.hardware_device();
        Device {
            provider: text(device.ep()),
            kind: format!("{:?}", hardware.ty()).to_lowercase(),
            vendor: text(hardware.vendor()),
        }
    });
    Ok(devices.collect())
}

/// Whether it is worth trying CUDA: the library has it, and the driver knows a GPU.
pub(super) fn cuda_is_promising() -> bool {
    let built_in =
        providers().is_ok_and(|providers| providers.iter().any(|provider| provider == "CUDAExecutionProvider"));
    built_in && !gpus().names.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_counted_once_for_all_their_threads() {
        let thread = |socket: u32, core: u32| {
            format!("processor\t: 0\nmodel name\t: A CPU @ 2 GHz\nphysical id\t: {socket}\ncore id\t\t: {core}\n\n")
        };
        let information = [thread(0, 0), thread(0, 1), thread(0, 0), thread(0, 1), thread(1, 0)].concat();
        assert_eq!(physical_cores(&information), Some(3));
        assert_eq!(cpu_model(&information), Some("A CPU @ 2 GHz".to_owned()));
        assert_eq!(physical_cores("processor : 0\n"), None);
    }

    #[test]
    fn this_machine_has_a_processor_and_its_library_runs_on_it() {
        crate::runtime::ensure().unwrap();
        let cpu = cpu();
        assert!((1..=cpu.logical_cores).contains(&cpu.physical_cores));
        assert!(
            providers()
                .unwrap()
                .iter()
                .any(|provider| provider == "CPUExecutionProvider")
        );
        assert!(devices().unwrap().iter().any(|device| device.kind == "cpu"));
        let gpus = gpus();
        assert_eq!(gpus.names.is_empty(), gpus.reason.is_some());
    }
}
