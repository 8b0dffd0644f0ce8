//! Clips by the formula that the scripts in `tests/data/quality` have too, and what the scripts measured of them.

use std::path::{Path, PathBuf};

use ndarray::Array4;
use serde_json::Value;

/// A file of `tests/data/quality`.
pub fn stored(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/quality")
        .join(name)
}

/// The cases of a measure in `measures.json`.
pub fn cases(measure: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(stored("measures.json")).unwrap();
    let measures: Value = serde_json::from_str(&text).unwrap();
    measures[measure].as_array().unwrap().clone()
}

/// Pixels by the formula.
pub fn pixels(shape: [usize; 4], salt: usize) -> Array4<f32> {
    let mut index = 0_usize;
    Array4::from_shape_simple_fn(shape, || {
        index += 1;
        ((index * (7919 + 2 * salt) + index * index * 31) % 1009) as f32 / 1008.0
    })
}

/// The reference of a case, and the same with a share of noise.
pub fn clips(case: &Value) -> (Array4<f32>, Array4<f32>) {
    let shape: Vec<usize> = serde_json::from_value(case["shape"].clone()).unwrap();
    let share = case["share"].as_f64().unwrap() as f32;
    let reference = pixels(shape.clone().try_into().unwrap(), 0);
    let noise = pixels(shape.try_into().unwrap(), 5);
    let other = &reference * (1.0 - share) + &noise * share;
    (reference, other)
}
