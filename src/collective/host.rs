//! The operators for hosts of ONNX Runtime that are not this program: Python, C++, anything that loads a library of custom
//! operators. What a session is told of its rank, it is told by configuration entries or environment variables.

use std::{
    ffi::{CStr, CString, c_char},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    str::FromStr,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    time::Duration,
};

use ort::{AsPointer, sys};

use super::{CollectiveError, Communicator, DEFAULT_TIMEOUT, Mesh, Nccl, Operators, Seat, groups};

/// How a session's rank gets to the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// They are threads of this process.
    Threads,
    /// They meet where rank 0 listens, `host:port`.
    Address(String),
}

/// What a session is told of its rank.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// All ranks, `pab.mesh`.
    pub mesh: Mesh,
    /// This one, `pab.rank`.
    pub rank: usize,
    /// By `pab.address` over TCP; without it, threads.
    pub way: Way,
    /// The name that the ranks of one run share, `pab.group`.
    pub group: String,
    /// How long a rank waits for others, `pab.timeout` in seconds.
    pub timeout: Duration,
    /// Whether tensors stay on the session's CUDA device and go by NCCL, `pab.nccl`.
    pub nccl: bool,
}

/// Why a session cannot have the operators.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum HostError {
    /// ONNX Runtime is too old.
    #[error(
        "the operators of pab-patch need ONNX Runtime 1.{} or later, and this is {version}",
        sys::ORT_API_VERSION
    )]
    Version {
        /// What is there.
        version: String,
    },
    /// Another copy of ONNX Runtime in this process has them already.
    #[error(
        "two copies of ONNX Runtime in one process cannot share this library; load a copy of the file for the second"
    )]
    Copies,
    /// Nothing says what a session has to know.
    #[error(
        "nothing says {what}: add the entry `{}` to the session's configuration before the operators are registered, or set {}",
        setting.entry(),
        setting.variable()
    )]
    Missing {
        /// Which.
        setting: Setting,
        /// In words.
        what: &'static str,
    },
    /// An entry that means nothing.
    #[error("`{entry}` is no entry that the operators know; there are {}", entries())]
    Unknown {
        /// Its key.
        entry: String,
    },
    /// A value that cannot be.
    #[error("`{}` is `{value}`: {reason}", setting.entry())]
    Value {
        /// Of which.
        setting: Setting,
        /// What it was.
        value: String,
        /// Why not.
        reason: String,
    },
    /// The operators could not be made.
    #[error(transparent)]
    Collective(#[from] CollectiveError),
    /// ONNX Runtime refused something.
    #[error("ONNX Runtime does not take the operators: {reason}")]
    Runtime {
        /// What it said.
        reason: String,
    },
}

/// What can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// All ranks.
    Mesh,
    /// This one.
    Rank,
    /// The name of the run.
    Group,
    /// Where rank 0 listens.
    Address,
    /// Seconds.
    Timeout,
    /// 1 or 0.
    Nccl,
}

impl Setting {
    /// All of them.
    pub const ALL: [Setting; 6] = [
        Self::Mesh,
        Self::Rank,
        Self::Group,
        Self::Address,
        Self::Timeout,
        Self::Nccl,
    ];

    /// The key of the session's configuration entry.
    #[must_use]
    pub fn entry(self) -> &'static str {
        match self {
            Self::Mesh => "pab.mesh",
            Self::Rank => "pab.rank",
            Self::Group => "pab.group",
            Self::Address => "pab.address",
            Self::Timeout => "pab.timeout",
            Self::Nccl => "pab.nccl",
        }
    }

    /// The environment variable, which counts where there is no entry.
    #[must_use]
    pub fn variable(self) -> &'static str {
        match self {
            Self::Mesh => "PAB_MESH",
            Self::Rank => "PAB_RANK",
            Self::Group => "PAB_GROUP",
            Self::Address => "PAB_ADDRESS",
            Self::Timeout => "PAB_TIMEOUT",
            Self::Nccl => "PAB_NCCL",
        }
    }
}

fn entries() -> String {
    Setting::ALL.map(Setting::entry).join(", ")
}

impl Settings {
    /// The settings that `entries` (key and value) say, and `variable` where they do not.
    ///
    /// # Errors
    /// [`HostError::Missing`], [`HostError::Unknown`] and [`HostError::Value`].
    pub fn read(entries: &[(String, String)], variable: impl Fn(&str) -> Option<String>) -> Result<Self, HostError> {
        let known = |key: &str| Setting::ALL.iter().any(|setting| setting.entry() == key);
        if let Some((entry, _)) = entries.iter().find(|(key, _)| key.starts_with("pab.") && !known(key)) {
            return Err(HostError::Unknown { entry: entry.clone() });
        }
        let find = |setting: Setting| {
            let entry = entries.iter().find(|(key, _)| key == setting.entry());
            let value = entry.map(|(_, value)| value.clone());
            value
                .or_else(|| variable(setting.variable()))
                .filter(|value| !value.is_empty())
        };
        let need = |setting: Setting, what: &'static str| find(setting).ok_or(HostError::Missing { setting, what });

        let mesh = need(Setting::Mesh, "which ranks there are (such as sequence=2)")?;
        let mesh: Mesh = parse(Setting::Mesh, &mesh, |error: CollectiveError| error.to_string())?;
        let number = need(Setting::Rank, "which rank the session is")?;
        let ranks = format!("a number from 0 to {} is needed", mesh.ranks() - 1);
        let rank: usize = parse(Setting::Rank, &number, |_: std::num::ParseIntError| ranks.clone())?;
        if rank >= mesh.ranks() {
            return Err(HostError::Value {
                setting: Setting::Rank,
                value: number,
                reason: ranks,
            });
        }
        let timeout = match find(Setting::Timeout) {
            None => DEFAULT_TIMEOUT,
            Some(value) => {
                let seconds = value.parse::<f64>().ok().filter(|seconds| *seconds > 0.0);
                let timeout = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                timeout
                    .filter(|timeout| timeout.as_secs() <= 86_400)
                    .ok_or(HostError::Value {
                        setting: Setting::Timeout,
                        value,
                        reason: "seconds are needed, more than 0 and at most 86400".to_owned(),
                    })?
            }
        };
        let nccl = match find(Setting::Nccl).as_deref() {
            None | Some("0") => false,
            Some("1") => true,
            Some(value) => {
                return Err(HostError::Value {
                    setting: Setting::Nccl,
                    value: value.to_owned(),
                    reason: "1 or 0 is needed".to_owned(),
                });
            }
        };
        Ok(Self {
            nccl,
            mesh,
            rank,
            way: find(Setting::Address).map_or(Way::Threads, Way::Address),
            group: find(Setting::Group).unwrap_or_default(),
            timeout,
        })
    }
}

fn parse<T: FromStr>(setting: Setting, value: &str, reason: impl Fn(T::Err) -> String) -> Result<T, HostError> {
    value.trim().parse().map_err(|error| HostError::Value {
        setting,
        value: value.to_owned(),
        reason: reason(error),
    })
}

impl Settings {
    /// The rank's way to the others, on the host.
    fn join(&self) -> Result<Arc<dyn Communicator>, CollectiveError> {
        Ok(match &self.way {
            Way::Threads => groups::join(&self.group, self.mesh, self.rank, self.timeout)?,
            Way::Address(address) => groups::meet(address, &self.group, self.mesh, self.rank, self.timeout)?,
        })
    }
}

/// A session of another host.
struct Place {
    settings: Settings,
    /// That of its kernels, as long as there are some.
    nccl: Mutex<Weak<Nccl>>,
}

impl Seat for Place {
    fn mesh(&self) -> Mesh {
        self.settings.mesh
    }

    fn rank(&self) -> usize {
        self.settings.rank
    }

    fn on_device(&self) -> bool {
        self.settings.nccl
    }

    fn communicator(&self) -> Result<Arc<dyn Communicator>, CollectiveError> {
        if !self.settings.nccl {
            return self.settings.join();
        }
        let mut kept = self.nccl.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(nccl) = kept.upgrade() {
            return Ok(nccl);
        }
        let nccl = Nccl::over(self.settings.join()?, self.settings.timeout)?;
        *kept = Arc::downgrade(&nccl);
        Ok(nccl)
    }
}

/// Adds the operators to a session's options: what `RegisterCustomOps` of a shared library does.
///
/// The operators are never freed, as ONNX Runtime does not say when the last session that has them ends.
///
/// # Safety
/// `options` and `base` are those that ONNX Runtime calls `RegisterCustomOps` with.
pub unsafe fn register(options: *mut sys::OrtSessionOptions, base: *const sys::OrtApiBase) -> sys::OrtStatusPtr {
    if options.is_null() || base.is_null() {
        return sys::OrtStatusPtr::default();
    }
    // SAFETY: as the caller says.
    let registered = catch_unwind(AssertUnwindSafe(|| unsafe { add(options, base) }));
    let reason = match registered {
        Ok(Ok(())) => return sys::OrtStatusPtr::default(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "a panic, which is a mistake in pab-patch".to_owned(),
    };
    let reason = CString::new(reason.replace('\0', " ")).unwrap_or_default();
    // SAFETY: every version of ONNX Runtime has the first version's functions, in their places.
    unsafe {
        let api = ((*base).GetApi)(1);
        match api.is_null() {
            true => sys::OrtStatusPtr::default(),
            false => ((*api).CreateStatus)(sys::OrtErrorCode::ORT_INVALID_ARGUMENT, reason.as_ptr()),
        }
    }
}

unsafe fn add(options: *mut sys::OrtSessionOptions, base: *const sys::OrtApiBase) -> Result<(), HostError> {
    // SAFETY: as the caller says.
    unsafe { take(base) }?;
    // SAFETY: as the caller says.
    let entries = unsafe { entries_of(options) }?;
    let settings = Settings::read(&entries, |name| std::env::var(name).ok())?;
    let operators = Operators::at(Arc::new(Place {
        settings,
        nccl: Mutex::default(),
    }))?;
    let domain = operators.domain().ptr().cast_mut();
    // SAFETY: the options are ONNX Runtime's, and the domain is never freed.
    said(unsafe { (ort::api().AddCustomOpDomain)(options, domain) })?;
    std::mem::forget(operators);
    Ok(())
}

/// Lets `ort` use the copy of ONNX Runtime that loads this library, instead of looking for one.
unsafe fn take(base: *const sys::OrtApiBase) -> Result<(), HostError> {
    static HOST: OnceLock<usize> = OnceLock::new();
    // SAFETY: as the caller says; ONNX Runtime's functions stay where they are as long as it is loaded.
    let api = unsafe { ((*base).GetApi)(sys::ORT_API_VERSION).as_ref() };
    let Some(api) = api else {
        // SAFETY: the text is ONNX Runtime's own.
        let version = unsafe { text(((*base).GetVersionString)()) };
        return Err(HostError::Version { version });
    };
    let host = *HOST.get_or_init(|| {
        ort::set_api(api.clone());
        ptr::from_ref(api).addr()
    });
    match host == ptr::from_ref(api).addr() {
        true => Ok(()),
        false => Err(HostError::Copies),
    }
}

/// The configuration of a session so far.
unsafe fn entries_of(options: *const sys::OrtSessionOptions) -> Result<Vec<(String, String)>, HostError> {
    let api = ort::api();
    let mut pairs = ptr::null_mut();
    // SAFETY: the options are ONNX Runtime's, and the other pointers are to locals. It owns the texts until the pairs are
    // released.
    unsafe {
        said((api.GetSessionOptionsConfigEntries)(options, &raw mut pairs))?;
        let (mut keys, mut values, mut count) = (ptr::null(), ptr::null(), 0);
        (api.GetKeyValuePairs)(pairs, &raw mut keys, &raw mut values, &raw mut count);
        let read = (0..count).map(|place| (text(*keys.add(place)), text(*values.add(place))));
        let read = read.collect();
        (api.ReleaseKeyValuePairs)(pairs);
        Ok(read)
    }
}

unsafe fn text(text: *const c_char) -> String {
    match text.is_null() {
        true => String::new(),
        // SAFETY: ONNX Runtime ends its texts with a zero.
        false => unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned(),
    }
}

fn said(status: sys::OrtStatusPtr) -> Result<(), HostError> {
    if status.0.is_null() {
        return Ok(());
    }
    // SAFETY: the status is ONNX Runtime's, and released once.
    let reason = unsafe {
        let reason = text((ort::api().GetErrorMessage)(status.0));
        (ort::api().ReleaseStatus)(status.0);
        reason
    };
    Err(HostError::Runtime { reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(entries: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<Settings, HostError> {
        let entries: Vec<_> = entries
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        Settings::read(&entries, |name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn entries_come_before_variables() {
        let settings = read(
            &[
                ("pab.mesh", "guidance=2,sequence=2"),
                ("pab.rank", "3"),
                ("session.x", "y"),
            ],
            &[("PAB_RANK", "1"), ("PAB_ADDRESS", "host:4000"), ("PAB_TIMEOUT", "2.5")],
        );
        let settings = settings.unwrap();
        assert_eq!((settings.rank, settings.mesh), (3, Mesh::new(2, 2, 1).unwrap()));
        assert_eq!(settings.way, Way::Address("host:4000".to_owned()));
        assert_eq!(settings.timeout, Duration::from_millis(2500));
        let settings = read(&[("pab.mesh", "tensor=2")], &[("PAB_RANK", "0")]).unwrap();
        assert_eq!((settings.way, settings.timeout), (Way::Threads, DEFAULT_TIMEOUT));
    }

    #[test]
    fn what_cannot_be_is_named() {
        let says = |entries: &[(&str, &str)], words: &str| {
            let error = read(entries, &[]).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        says(&[("pab.rank", "0")], "pab.mesh");
        says(&[("pab.mesh", "sequence=2")], "PAB_RANK");
        says(&[("pab.mesh", "sequence=2"), ("pab.rank", "2")], "from 0 to 1");
        says(&[("pab.mesh", "sequence=2"), ("pab.rank", "-1")], "from 0 to 1");
        says(
            &[("pab.mesh", "sequence=2"), ("pab.rank", "0"), ("pab.nccl", "yes")],
            "1 or 0",
        );
        says(&[("pab.mesh", "two"), ("pab.rank", "0")], "sequence=2");
        says(&[("pab.mesh", "sequence=2"), ("pab.ranks", "0")], "`pab.ranks`");
        for timeout in ["0", "-1", "nan", "inf", "soon"] {
            says(
                &[("pab.mesh", "sequence=2"), ("pab.rank", "0"), ("pab.timeout", timeout)],
                "seconds",
            );
        }
    }
}
