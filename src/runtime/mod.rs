//! Finds ONNX Runtime, makes sessions, keeps caches.
//!
//! [`ensure`] is the short way: find the library or fetch it, and load it. [`Session`] opens a model,
//! [`Denoiser`] runs it step by step and hands the caches of a patched model from each step to the next;
//! [`VariantDenoiser`] does the same with one static graph for each set of rules that a run broadcasts together.
//! Both give and take tensors on the host, or where a device has them ([`DeviceTensor`], [`Transfer`]).
//! [`doctor::examine`] gathers what a person needs to know when something does not work.

mod arena;
mod binary;
pub mod cache;
mod captured;
mod device_tensor;
pub mod devices;
pub mod doctor;
mod download;
mod drive;
mod element;
mod error;
mod extent;
mod fetch;
mod give_back;
mod held;
mod index;
mod library;
mod lifetime;
mod load;
mod needed;
mod placement;
pub mod provider;
mod python;
mod session;
mod shared_weights;
mod step;
mod tensor;
mod transfer;
pub mod usable;
mod variants;
mod webgpu;
mod weight;
mod wheels;

use std::sync::{Mutex, PoisonError};

pub use self::{
    device_tensor::{DeviceTensor, Given},
    download::Progress,
    drive::StepTable,
    element::{Element, ElementType, Elements},
    error::RuntimeError,
    extent::Extent,
    fetch::{Setup, setup},
    library::{Discovery, Library, MINIMUM_VERSION, Origin, Places, Skipped, discover},
    load::{load, loaded},
    placement::OnProcessor,
    provider::Provider,
    session::{Optimization, Options, Port, Session},
    shared_weights::{RankGraphs, SharedWeights},
    step::{CachePort, Denoiser, Feedback, StatePort},
    tensor::Tensor,
    transfer::Transfer,
    variants::VariantDenoiser,
    wheels::VERSION,
};

/// Finds the library, or fetches it into the cache when there is none; loads nothing yet.
///
/// # Errors
/// Those of [`discover`] and [`setup`].
pub fn find_or_fetch(places: &Places, progress: Progress<'_>) -> Result<Discovery, RuntimeError> {
    let discovery = discover(places)?;
    if discovery.library.is_some() {
        return Ok(discovery);
    }
    let library = setup(places, progress)?.library;
    Ok(Discovery {
        library: Some(library),
        ..discovery
    })
}

/// Finds or fetches the library for this process without further ado, and loads it; every later call is free.
///
/// # Errors
/// Those of [`find_or_fetch`] and [`load()`].
pub fn ensure() -> Result<Library, RuntimeError> {
    ensure_in(&Places::of_process(None), &|_, _| {})
}

/// As [`ensure`], with the places to look in and a report of progress.
///
/// A library that is loaded already is taken, unless `places` asks for another one by name.
///
/// # Errors
/// Those of [`find_or_fetch`] and [`load()`].
pub fn ensure_in(places: &Places, progress: Progress<'_>) -> Result<Library, RuntimeError> {
    // Threads that start together must not all fetch.
    static TURN: Mutex<()> = Mutex::new(());
    let _guard = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(library) = loaded().filter(|_| places.option.is_none()) {
        return Ok(library.clone());
    }
    let discovery = find_or_fetch(places, progress)?;
    let library = discovery.library.ok_or_else(|| RuntimeError::LibraryNotFound {
        skipped: discovery.skipped.into_iter().map(|skipped| skipped.reason).collect(),
    })?;
    load(&library)?;
    Ok(library)
}
