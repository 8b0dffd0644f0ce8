//! Weights in the memory of a device, one copy for all sessions there.

use super::SharedWeights;
use crate::runtime::device_tensor::DeviceTensor;
use crate::runtime::provider::Provider;
use crate::runtime::session::Options;
use crate::runtime::transfer::Transfer;
use crate::runtime::weight::{Held, Key, borrowed, tensor_of};
use ort::memory::{AllocatorType, MemoryInfo, MemoryType};
use ort::value::DynValue;
use std::collections::HashMap;
use std::ffi::c_void;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Providers whose sessions take weights that lie on the device already.
const ON_DEVICE: &[Provider] = &[Provider::Cuda, Provider::WebGpu];

/// Where weights are brought to a device.
pub(super) struct OnDevice {
    pub provider: Provider,
    pub device_index: u32,
    pub held: Arc<Mutex<DeviceWeights>>,
    /// Whether ONNX Runtime did not take them: each session then has its own.
    pub refused: bool,
}

/// Weights in a device's memory. Every session that was given some holds them.
pub(in crate::runtime) struct DeviceWeights {
    /// Each with the value over it that sessions are given.
    weights: HashMap<Key, (DeviceTensor, Arc<DynValue>)>,
    /// It goes last: the memory is its sessions'.
    transfer: Transfer,
}

impl fmt::Debug for DeviceWeights {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("DeviceWeights");
        shown.field("weights", &self.weights.len()).finish_non_exhaustive()
    }
}

impl SharedWeights {
    /// Bytes of weights that sessions share in a device's memory.
    #[must_use]
    pub fn bytes_on_device(&self) -> usize {
        let Some(device) = &self.device else { return 0 };
        let held = device.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.weights.values().map(|(tensor, _)| tensor.bytes()).sum()
    }

    /// Makes ready to bring weights to the device of these options.
    pub(super) fn prepare_device(&mut self, path: &Path, options: &Options) {
        let (provider, device_index) = (options.provider, options.device_index);
        let is_there = |device: &OnDevice| (device.provider, device.device_index) == (provider, device_index);
        if !ON_DEVICE.contains(&provider) || self.device.as_ref().is_some_and(is_there) {
            return;
        }
        self.device = Some(OnDevice {
            provider,
            device_index,
            held: Arc::new(Mutex::new(DeviceWeights {
                weights: HashMap::new(),
                transfer: Transfer::new(path, provider, device_index),
            })),
            refused: false,
        });
    }

    /// A value over a weight in the device's memory; none where the device takes none.
    pub(super) fn on_device(&mut self, key: Key, bytes: &Held) -> Result<Option<Arc<DynValue>>, String> {
        let Some(device) = self.device.as_ref().filter(|device| !device.refused) else {
            return Ok(None);
        };
        let (provider, device_index, held) = (device.provider, device.device_index, device.held.clone());
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, value)) = held.weights.get(&key) {
            return Ok(Some(value.clone()));
        }
        let host = tensor_of(bytes, &key.dims, key.element_type)?;
        let Ok(there) = held.transfer.upload(&host) else {
            // The session will say what is wrong with the device.
            self.device.iter_mut().for_each(|device| device.refused = true);
            return Ok(None);
        };
        let index = i32::try_from(device_index).unwrap_or(0);
        let memory = MemoryInfo::new(provider.memory(), index, AllocatorType::Device, MemoryType::Default);
        let memory = memory.map_err(|error| error.to_string())?;
        let place = (there.address() as *mut c_void, there.bytes());
        let value = Arc::new(borrowed(place, &key.dims, key.element_type, &memory)?);
        held.weights.insert(key, (there, value.clone()));
        self.hold(bytes);
        Ok(Some(value))
    }
}
