//! Several arrays in one file: NumPy's `.npz` and Hugging Face's `.safetensors`.

use std::io::{Cursor, Read};
use std::path::Path;

use half::{bf16, f16};
use ndarray::{ArrayD, IxDyn};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};

use super::ReportError;
use super::arrays::{Elements, ReadArray, parse_npy, read_array, refuse};
use super::atomic::{failed, write_atomically};

/// The endings of files with several arrays.
const NPZ: &str = "npz";
const SAFETENSORS: &str = "safetensors";

/// Whether a file holds several arrays by name, by its ending.
pub fn is_named(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str());
    matches!(ending, Some(NPZ | SAFETENSORS))
}

/// Reads every array of a `.npz` or `.safetensors` file as numbers, by name.
///
/// # Errors
/// [`ReportError::Read`] where the file cannot be opened, [`ReportError::Array`] where it is damaged or holds elements of a
/// type that is not read.
pub fn read_named(path: &Path) -> Result<Vec<(String, ArrayD<f64>)>, ReportError> {
    let read = read_named_arrays(path)?;
    Ok(read.into_iter().map(|(name, array)| (name, array.numbers)).collect())
}

/// The same, with what the elements were.
pub(super) fn read_named_arrays(path: &Path) -> Result<Vec<(String, ReadArray)>, ReportError> {
    let bytes = std::fs::read(path).map_err(|source| ReportError::Read {
        path: path.to_owned(),
        source,
    })?;
    match path.extension().and_then(|ending| ending.to_str()) {
        Some(SAFETENSORS) => safetensors(path, &bytes),
        _ => npz(path, &bytes),
    }
}

/// Reads one array: a `.npy` file, the array `name` of a `.npz` or `.safetensors` file, or the only one that it has.
///
/// # Errors
/// Those of [`read_array`] and [`read_named`], and [`ReportError::Array`] where the file has no such array.
pub fn read_array_named(path: &Path, name: &str) -> Result<ArrayD<f64>, ReportError> {
    if !is_named(path) {
        return read_array(path);
    }
    let mut arrays = read_named(path)?;
    if let Some(place) = arrays.iter().position(|(found, _)| found == name) {
        return Ok(arrays.swap_remove(place).1);
    }
    let names: Vec<&str> = arrays.iter().map(|(name, _)| name.as_str()).collect();
    let reason = format!("it has no array `{name}`, only {}", names.join(", "));
    match arrays.len() {
        1 => Ok(arrays.swap_remove(0).1),
        _ => Err(refuse(path, reason, "save the array under that name")),
    }
}

fn npz(path: &Path, bytes: &[u8]) -> Result<Vec<(String, ReadArray)>, ReportError> {
    let again = "save it again with numpy.savez";
    let damaged = |error: &dyn std::fmt::Display| refuse(path, error.to_string(), again);
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|error| damaged(&error))?;
    let mut arrays = Vec::with_capacity(archive.len());
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|error| damaged(&error))?;
        let name = entry
            .name()
            .map_err(|error| damaged(&error))?
            .trim_end_matches(".npy")
            .to_owned();
        let mut content = Vec::new();
        // No more than the archive says, whatever it is packed from.
        let size = entry.size();
        entry
            .by_ref()
            .take(size)
            .read_to_end(&mut content)
            .map_err(|error| damaged(&error))?;
        arrays.push((name, parse_npy(path, &content)?));
    }
    Ok(arrays)
}

fn safetensors(path: &Path, bytes: &[u8]) -> Result<Vec<(String, ReadArray)>, ReportError> {
    let again = "save it again with safetensors.numpy.save_file";
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| refuse(path, error.to_string(), again))?;
    let read = |(name, tensor): (String, TensorView<'_>)| {
        let numbers = numbers(&tensor).ok_or_else(|| {
            let reason = format!("`{name}` has elements of type {:?}", tensor.dtype());
            refuse(
                path,
                reason,
                "save it as float32, float16, bfloat16, float64, int32, int64, uint8 or bool",
            )
        })?;
        let array = ArrayD::from_shape_vec(IxDyn(tensor.shape()), numbers);
        let read = ReadArray {
            numbers: array.map_err(|error| refuse(path, error.to_string(), again))?,
            bytes: tensor.dtype() == Dtype::U8,
        };
        Ok((name, read))
    };
    tensors.tensors().into_iter().map(read).collect()
}

/// The elements of a tensor, little-endian in the file.
fn numbers(tensor: &TensorView<'_>) -> Option<Vec<f64>> {
    fn of<const N: usize>(data: &[u8], number: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        let chunks = data.chunks_exact(N);
        chunks.filter_map(|chunk| chunk.try_into().ok()).map(number).collect()
    }
    let data = tensor.data();
    Some(match tensor.dtype() {
        Dtype::F32 => of(data, |bytes| f64::from(f32::from_le_bytes(bytes))),
        Dtype::F16 => of(data, |bytes| f16::from_le_bytes(bytes).to_f64()),
        Dtype::BF16 => of(data, |bytes| bf16::from_le_bytes(bytes).to_f64()),
        Dtype::F64 => of(data, f64::from_le_bytes),
        Dtype::I32 => of(data, |bytes| f64::from(i32::from_le_bytes(bytes))),
        // Labels and positions are far below 2^53.
        Dtype::I64 => of(data, |bytes| i64::from_le_bytes(bytes) as f64),
        Dtype::U8 | Dtype::BOOL => of(data, |[byte]: [u8; 1]| f64::from(byte)),
        _ => return None,
    })
}

/// Writes named arrays as one `.safetensors` file, atomically.
///
/// # Errors
/// [`ReportError::EncodeArray`], or [`ReportError::Write`] where the operating system refuses.
pub fn write_safetensors(path: &Path, arrays: &[(&str, Elements<'_>)]) -> Result<(), ReportError> {
    let encode = |name: &str, error: &dyn std::fmt::Display| ReportError::EncodeArray {
        path: path.to_owned(),
        name: name.to_owned(),
        reason: error.to_string(),
    };
    let packed = arrays.iter().map(|(name, elements)| {
        let (dtype, shape, bytes): (_, _, Vec<u8>) = match elements {
            Elements::Float(array) => (
                Dtype::F32,
                array.shape(),
                array.iter().flat_map(|value| value.to_le_bytes()).collect(),
            ),
            Elements::Double(array) => (
                Dtype::F64,
                array.shape(),
                array.iter().flat_map(|value| value.to_le_bytes()).collect(),
            ),
            Elements::Integer(array) => (
                Dtype::I64,
                array.shape(),
                array.iter().flat_map(|value| value.to_le_bytes()).collect(),
            ),
        };
        (*name, dtype, shape.to_vec(), bytes)
    });
    let packed: Vec<_> = packed.collect();
    let mut views = Vec::with_capacity(packed.len());
    for (name, dtype, shape, bytes) in &packed {
        let view = TensorView::new(*dtype, shape.clone(), bytes).map_err(|error| encode(name, &error))?;
        views.push((*name, view));
    }
    let bytes = serialize(views, None).map_err(|error| encode("(all)", &error))?;
    write_atomically(path, |file| {
        std::io::Write::write_all(file, &bytes).map_err(|source| failed(path, source))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::write_arrays;
    use ndarray::Array1;

    fn arrays() -> (ArrayD<f32>, ArrayD<f64>, ArrayD<i64>) {
        (
            ArrayD::from_shape_fn(IxDyn(&[2, 3]), |index| index[0] as f32 - 0.25 * index[1] as f32),
            Array1::from(vec![981.0, 1.0]).into_dyn(),
            Array1::from(vec![3_i64, -4]).into_dyn(),
        )
    }

    #[test]
    fn both_formats_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let (clip, timesteps, seeds) = arrays();
        let named = [
            ("clip", Elements::Float(clip.view())),
            ("timesteps", Elements::Double(timesteps.view())),
            ("seeds", Elements::Integer(seeds.view())),
        ];
        for (file, write) in [
            ("clip.npz", write_arrays as fn(&Path, &[(&str, Elements<'_>)]) -> _),
            ("clip.safetensors", write_safetensors),
        ] {
            let path = folder.path().join(file);
            assert!(is_named(&path));
            write(&path, &named).unwrap();
            assert_eq!(read_named(&path).unwrap().len(), 3, "{file}");
            assert_eq!(read_array_named(&path, "clip").unwrap(), clip.mapv(f64::from), "{file}");
            assert_eq!(read_array_named(&path, "seeds").unwrap()[[1]], -4.0, "{file}");
            let error = read_array_named(&path, "none").unwrap_err().to_string();
            assert!(error.contains(file) && error.contains("timesteps"), "{error}");
            write(&path, &named[..1]).unwrap();
            assert_eq!(read_array_named(&path, "any name").unwrap().len(), 6, "{file}");
            // Torn at any place, it is an error and no panic.
            let bytes = std::fs::read(&path).unwrap();
            for length in (0..bytes.len()).step_by(7) {
                std::fs::write(&path, &bytes[..length]).unwrap();
                assert!(read_named(&path).is_err(), "{file} cut at {length}");
            }
        }
    }

    #[test]
    fn narrow_elements_are_read_and_others_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let halves = [f16::from_f32(1.5), f16::from_f32(-2.0)].map(f16::to_le_bytes).concat();
        let view = TensorView::new(Dtype::F16, vec![2], &halves).unwrap();
        std::fs::write(&path, serialize([("x", view)], None).unwrap()).unwrap();
        assert_eq!(read_array_named(&path, "x").unwrap()[[1]], -2.0);
        let words = [0_u8; 4];
        let view = TensorView::new(Dtype::U16, vec![2], &words).unwrap();
        std::fs::write(&path, serialize([("x", view)], None).unwrap()).unwrap();
        let error = read_named(&path).unwrap_err().to_string();
        assert!(error.contains("U16") && error.contains("float32"), "{error}");
    }
}
