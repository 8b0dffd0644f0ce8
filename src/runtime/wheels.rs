//! The wheels of ONNX Runtime that are fetched: pinned by name, size and SHA-256.
//!
//! All are the CPU build for CPython 3.12; which Python does not matter, since only the library is taken out.
//! Source: <https://pypi.org/simple/onnxruntime/>. PyPI has no wheel for macOS on x86_64 in this version.

/// The pinned version.
pub const VERSION: &str = "1.31.1";

/// A wheel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wheel<'a> {
    /// The operating system, as [`std::env::consts::OS`] calls it.
    pub system: &'a str,
    /// The processor architecture, as [`std::env::consts::ARCH`] calls it.
    pub architecture: &'a str,
    /// Where PyPI keeps it.
    pub url: &'a str,
    /// Its SHA-256 in hexadecimal.
    pub sha256: &'a str,
    /// Its size in bytes.
    pub size: u64,
    /// The library's file name, within `onnxruntime/capi/`.
    pub library: &'a str,
}

impl<'a> Wheel<'a> {
    /// The wheel's file name.
    pub fn file(&self) -> &'a str {
        self.url.rsplit('/').next().unwrap_or(self.url)
    }
}

pub(super) const WHEELS: &[Wheel<'static>] = &[
    Wheel {
        system: "linux",
        architecture: "x86_64",
        url: "https://files.pythonhosted.org/packages/eb/27/c6a823bac55b2977bea2027c3ec9393a2c1002cb9a09eb40354563e02730/onnxruntime-1.31.1-cp312-cp312-manylinux_2_28_x86_64.whl",
        sha256: "1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536",
        size: 23_760_988,
        library: "libonnxruntime.so.1.31.1",
    },
    Wheel {
        system: "linux",
        architecture: "aarch64",
        url: "https://files.pythonhosted.org/packages/ba/e4/1ed1a7a5f4702d899091fa2b976d377995250c307326ec8dc9ae6378aa13/onnxruntime-1.31.1-cp312-cp312-manylinux_2_28_aarch64.whl",
        sha256: "0b9a492176886992e0e875f06bc0367e333f5fff11711a2d642e18b02f3009cc",
        size: 21_420_803,
        library: "libonnxruntime.so.1.31.1",
    },
    Wheel {
        system: "macos",
        architecture: "aarch64",
        url: "https://files.pythonhosted.org/packages/0e/f7/cecc0efeeea83bff2f7789ae1b80f27fa0f0210d6d9d66d1f0031a6b5e47/onnxruntime-1.31.1-cp312-cp312-macosx_14_0_arm64.whl",
        sha256: "96dd2564b10ea7153ad9c207e7cd8e5917cb3ba521e0e0a62ac03486fdc8d56c",
        size: 20_882_125,
        library: "libonnxruntime.1.31.1.dylib",
    },
    Wheel {
        system: "windows",
        architecture: "x86_64",
        url: "https://files.pythonhosted.org/packages/45/b2/793b4051d8dc6acb379ead9b72050f0ffa283ca49a6904add2e218b83e2e/onnxruntime-1.31.1-cp312-cp312-win_amd64.whl",
        sha256: "ae8a9a351efda685cc59a66226cdefaa37a126c1d66872ca23a2de9425326130",
        size: 14_888_466,
        library: "onnxruntime.dll",
    },
    Wheel {
        system: "windows",
        architecture: "aarch64",
        url: "https://files.pythonhosted.org/packages/ed/72/09d635ab4b6137d8ac63d4911a37dad8b1ef15a77d20b65d7ed40fdca012/onnxruntime-1.31.1-cp312-cp312-win_arm64.whl",
        sha256: "fe8b9ac1ae8e894e12c47ee82e4f6dfc1835768133687257866469fda80d0bf1",
        size: 14_740_724,
        library: "onnxruntime.dll",
    },
];

/// The wheel for a platform.
pub(super) fn wheel_for(system: &str, architecture: &str) -> Option<&'static Wheel<'static>> {
    WHEELS
        .iter()
        .find(|wheel| wheel.system == system && wheel.architecture == architecture)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_a_complete_pin_of_the_version() {
        for wheel in WHEELS {
            let file = wheel.file();
            assert!(
                file.starts_with(&format!("onnxruntime-{VERSION}-")) && file.ends_with(".whl"),
                "{file}"
            );
            assert!(
                wheel.url.starts_with("https://files.pythonhosted.org/packages/"),
                "{file}"
            );
            assert!(
                wheel.sha256.len() == 64 && wheel.sha256.bytes().all(|digit| digit.is_ascii_hexdigit()),
                "{file}"
            );
            assert!(wheel.size > 10_000_000, "{file}");
            assert_eq!(
                wheel_for(wheel.system, wheel.architecture),
                Some(wheel),
                "two rows for one platform"
            );
        }
        assert_eq!(wheel_for("plan9", "x86_64"), None);
    }
}
