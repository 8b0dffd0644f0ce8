//! Devices: what they can do at most, and how much of that kernels get.

use super::operator::Class;
use super::work::Work;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A device, as a roofline sees it. A file with these fields as JSON is a device, too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Where the numbers are from.
    pub source: String,
    /// Operations a second of matrix products.
    pub products: Rates,
    /// How much of that products get, 0 to 1.
    pub product_efficiency: f64,
    /// Bytes a second between memory and processor.
    pub bandwidth: f64,
    /// How much of that kernels get, 0 to 1.
    pub bandwidth_efficiency: f64,
    /// Elements a second of functions such as `Gelu` and of norms, where that can be slower than memory.
    #[serde(default)]
    pub functions: Option<f64>,
    /// How the core of an attention runs as one kernel; none where it runs as the graph has it, scores in memory.
    #[serde(default)]
    pub attention: Option<Attention>,
    /// Seconds that every kernel takes at least.
    pub kernel: f64,
    /// Bytes of its memory.
    pub memory: f64,
}

/// Operations a second, by the width of the elements.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// With elements of 32 bits and more.
    pub f32: f64,
    /// With elements of 16 bits and fewer.
    pub f16: f64,
}

/// An attention as one kernel, which keeps the scores on the chip.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attention {
    /// How much of the products' peak it gets, 0 to 1.
    pub efficiency: f64,
    /// Queries that are computed together: fewer take as long.
    pub queries: f64,
    /// Keys that are computed together.
    pub keys: f64,
}

/// A device as it is listed.
#[derive(Debug)]
pub struct Listed {
    /// Its name.
    pub name: &'static str,
    source: &'static str,
    tera_f32: f64,
    tera_f16: f64,
    giga_bandwidth: f64,
    giga_memory: f64,
    /// Bytes a second and direction between two devices of a node, in units of 10⁹.
    pub giga_link: f64,
}

/// How much of a GPU's peak large 16-bit products get in the libraries of its maker.
const GPU_PRODUCTS: f64 = 0.6;
/// How much of a GPU's bandwidth streaming kernels get.
const GPU_BANDWIDTH: f64 = 0.8;
/// Seconds of a kernel of a framework that launches them one by one.
const GPU_KERNEL: f64 = 5e-6;
/// FlashAttention-2 gets 300 to 335 TFLOP/s of an H100's 989 on long sequences (arXiv 2407.08608, figure 5); its tiles have
/// 128 queries and 64 keys.
const GPU_ATTENTION: Attention = Attention {
    efficiency: 0.3,
    queries: 128.0,
    keys: 64.0,
};

/// The devices that are known by name: peaks of the makers' data sheets, without sparsity.
#[rustfmt::skip]
pub static DEVICES: &[Listed] = &[
    Listed { name: "a100", source: "NVIDIA A100 SXM 80 GB, data sheet", tera_f32: 156.0, tera_f16: 312.0, giga_bandwidth: 2039.0, giga_memory: 80.0, giga_link: 300.0 },
    Listed { name: "h100", source: "NVIDIA H100 SXM 80 GB, data sheet", tera_f32: 494.7, tera_f16: 989.4, giga_bandwidth: 3350.0, giga_memory: 80.0, giga_link: 450.0 },
    Listed { name: "h200", source: "NVIDIA H200 SXM 141 GB, data sheet", tera_f32: 494.7, tera_f16: 989.4, giga_bandwidth: 4800.0, giga_memory: 141.0, giga_link: 450.0 },
    Listed { name: "h800", source: "NVIDIA H800 SXM 80 GB: an H100 with links of 400 GB/s in both directions together", tera_f32: 494.7, tera_f16: 989.4, giga_bandwidth: 3350.0, giga_memory: 80.0, giga_link: 200.0 },
];

impl From<&Listed> for Device {
    fn from(listed: &Listed) -> Device {
        Device {
            name: listed.name.to_owned(),
            source: listed.source.to_owned(),
            products: Rates {
                f32: listed.tera_f32 * 1e12,
                f16: listed.tera_f16 * 1e12,
            },
            product_efficiency: GPU_PRODUCTS,
            bandwidth: listed.giga_bandwidth * 1e9,
            bandwidth_efficiency: GPU_BANDWIDTH,
            functions: None,
            attention: Some(GPU_ATTENTION),
            kernel: GPU_KERNEL,
            memory: listed.giga_memory * 1e9,
        }
    }
}

/// Why there is no such device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Neither a name nor a file.
    #[error(
        "`{name}` is no device: give {known}, `measure` for the processor here, or a JSON file with the numbers of another one"
    )]
    Unknown {
        /// What was given.
        name: String,
        /// Those that are known.
        known: String,
    },
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is no device.
    #[error("{} is no device: {reason}; docs/planner.md shows one", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl Device {
    /// The device named so, or that of a JSON file.
    ///
    /// # Errors
    /// [`DeviceError`] where there is none, or its numbers make no sense.
    pub fn find(name_or_file: &str) -> Result<Device, DeviceError> {
        if let Some(listed) = DEVICES.iter().find(|listed| listed.name == name_or_file) {
            return Ok(listed.into());
        }
        let path = Path::new(name_or_file);
        if path.extension().is_none_or(|extension| extension != "json") {
            let known: Vec<&str> = DEVICES.iter().map(|listed| listed.name).collect();
            return Err(DeviceError::Unknown {
                name: name_or_file.to_owned(),
                known: known.join(", "),
            });
        }
        let text = std::fs::read_to_string(path).map_err(|source| DeviceError::Read {
            path: path.to_owned(),
            source,
        })?;
        let fault = |reason: String| DeviceError::Parse {
            path: path.to_owned(),
            reason,
        };
        let device: Device = serde_json::from_str(&text).map_err(|error| fault(error.to_string()))?;
        match device.fault() {
            Some(reason) => Err(fault(reason)),
            None => Ok(device),
        }
    }

    /// A number that no device has.
    fn fault(&self) -> Option<String> {
        let attention = self.attention.unwrap_or(GPU_ATTENTION);
        let above_zero = [
            ("products.f32", self.products.f32),
            ("products.f16", self.products.f16),
            ("bandwidth", self.bandwidth),
            ("memory", self.memory),
            ("functions", self.functions.unwrap_or(1.0)),
            ("attention.queries", attention.queries),
            ("attention.keys", attention.keys),
        ];
        let shares = [
            ("product_efficiency", self.product_efficiency),
            ("bandwidth_efficiency", self.bandwidth_efficiency),
            ("attention.efficiency", attention.efficiency),
        ];
        let wrong = |value: f64, most: f64| !(value > 0.0 && value <= most);
        let wrong_rate = above_zero.iter().find(|(_, value)| wrong(*value, f64::MAX));
        let wrong_share = shares.iter().find(|(_, value)| wrong(*value, 1.0));
        match (wrong_rate, wrong_share) {
            (Some((name, value)), _) => Some(format!("`{name}` is {value}, and must be above 0")),
            (_, Some((name, value))) => Some(format!("`{name}` is {value}, and must be above 0 and at most 1")),
            _ if !(self.kernel >= 0.0 && self.kernel < 1.0) => {
                Some(format!("`kernel` is {}, and must be from 0 to 1 second", self.kernel))
            }
            _ => None,
        }
    }

    /// Seconds that a kernel takes where one rank has this share of its operations and activations; weights are read whole.
    pub fn seconds(&self, work: &Work, share: f64) -> f64 {
        if work.class == Class::View {
            return 0.0;
        }
        let bandwidth = self.bandwidth * self.bandwidth_efficiency;
        let moved = (work.weight_bytes + work.bytes * share) / bandwidth;
        let peak = if work.bits <= 16 {
            self.products.f16
        } else {
            self.products.f32
        };
        let computed = match work.class {
            Class::Product => work.flops * share / (peak * self.product_efficiency),
            Class::Attention => {
                let kernel = self.attention.unwrap_or(Attention {
                    efficiency: self.product_efficiency,
                    queries: 1.0,
                    keys: 1.0,
                });
                work.flops * share * kernel.padding(work) / (peak * kernel.efficiency)
            }
            Class::Function => self.functions.map_or(0.0, |rate| work.elements * share / rate),
            _ => 0.0,
        };
        self.kernel + moved.max(computed)
    }
}

impl Attention {
    /// How much more is computed since tiles are computed whole.
    fn padding(&self, work: &Work) -> f64 {
        let whole = |tokens: f64, tile: f64| match tokens > 0.0 {
            true => (tokens / tile).ceil() * tile / tokens,
            false => 1.0,
        };
        work.scores.map_or(1.0, |(queries, keys)| {
            whole(queries, self.queries) * whole(keys, self.keys)
        })
    }
}
