//! NumPy's files: arrays out as `.npz`, tables in as `.npy`.

use std::path::Path;

use ndarray::{Array2, ArrayD, ArrayViewD};
use ndarray_npy::npy::header::Header;
use ndarray_npy::{NpzWriter, ReadNpyExt};

use super::ReportError;
use super::atomic::write_atomically;

/// The elements of an array that is written.
#[derive(Clone, Debug)]
pub enum Elements<'a> {
    /// `float32`.
    Float(ArrayViewD<'a, f32>),
    /// `float64`.
    Double(ArrayViewD<'a, f64>),
    /// `int64`.
    Integer(ArrayViewD<'a, i64>),
}

/// Writes named arrays as one compressed `.npz`, atomically. `numpy.load(path)[name]` reads them back.
///
/// # Errors
/// [`ReportError::EncodeArray`], or [`ReportError::Write`] where the operating system refuses.
pub fn write_arrays(path: &Path, arrays: &[(&str, Elements<'_>)]) -> Result<(), ReportError> {
    write_atomically(path, |file| {
        let mut archive = NpzWriter::new_compressed(file);
        for (name, elements) in arrays {
            let added = match elements {
                Elements::Float(array) => archive.add_array(*name, array),
                Elements::Double(array) => archive.add_array(*name, array),
                Elements::Integer(array) => archive.add_array(*name, array),
            };
            added.map_err(|error| encode(path, name, &error))?;
        }
        archive
            .finish()
            .map(|_| ())
            .map_err(|error| encode(path, "(end of the archive)", &error))
    })
}

fn encode(path: &Path, name: &str, error: &impl std::fmt::Display) -> ReportError {
    ReportError::EncodeArray {
        path: path.to_owned(),
        name: name.to_owned(),
        reason: error.to_string(),
    }
}

/// Reads a matrix `[rows, columns]` of numbers from a `.npy` file, such as a table of prompt embeddings
/// `[tokens, channels]`.
///
/// # Errors
/// Those of [`read_array`], and [`ReportError::Array`] where the array has not two axes.
pub fn read_matrix(path: &Path) -> Result<Array2<f32>, ReportError> {
    let array = read_array(path)?;
    let shape = array.shape().to_vec();
    array.mapv(|value| value as f32).into_dimensionality().map_err(|_| {
        refuse(
            path,
            format!("its shape is {shape:?}, not [rows, columns]"),
            "save an array with two axes",
        )
    })
}

/// The element types that [`read_array`] reads, in NumPy's notation, little-endian and of one byte.
const READABLE: &[&str] = &["'<f4'", "'<f8'", "'<i4'", "'<i8'", "'|b1'", "'|u1'"];

/// Reads an array of any shape from a `.npy` file: floats, integers or booleans, as numbers.
///
/// # Errors
/// [`ReportError::Read`] where the file cannot be opened, [`ReportError::Array`] where it is not a `.npy` file, is
/// torn, or holds elements of another type.
pub fn read_array(path: &Path) -> Result<ArrayD<f64>, ReportError> {
    let bytes = std::fs::read(path).map_err(|source| ReportError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(parse_npy(path, &bytes)?.numbers)
}

/// An array as it was read.
#[derive(Clone, Debug)]
pub(super) struct ReadArray {
    /// Its elements as numbers.
    pub numbers: ArrayD<f64>,
    /// Whether they were bytes in the file, as levels of pixels are.
    pub bytes: bool,
}

/// The array of the content of a `.npy` file; `path` names it in errors.
pub(super) fn parse_npy(path: &Path, bytes: &[u8]) -> Result<ReadArray, ReportError> {
    let refuse = |reason: String, advice: &str| refuse(path, reason, advice);
    let again = "save it again with numpy.save";
    // The header is looked at first: it can claim any size, and the reader would ask for all that memory at once.
    let mut rest: &[u8] = bytes;
    let header = match bytes.len() {
        // The header's own length field is checked against the file for the same reason.
        0..16 => return Err(refuse(format!("it has only {} bytes", bytes.len()), again)),
        _ if header_length(bytes) > bytes.len() => return Err(refuse("its header is cut off".to_owned(), again)),
        _ => Header::from_reader(&mut rest).map_err(|error| refuse(error.to_string(), again))?,
    };
    let descriptor = header.type_descriptor.to_string();
    let width = descriptor
        .trim_end_matches('\'')
        .chars()
        .next_back()
        .and_then(|digit| digit.to_digit(10));
    let Some(width) = width.filter(|_| READABLE.contains(&descriptor.as_str())) else {
        let reason = format!("its elements are {descriptor}");
        return Err(refuse(
            reason,
            "save it with `.astype(numpy.float32)`, or as float64, int32, int64 or bool",
        ));
    };
    let count = header
        .shape
        .iter()
        .try_fold(width as usize, |count, size| count.checked_mul(*size));
    if count != Some(rest.len()) {
        let reason = format!(
            "shape {:?} does not fit the {} bytes that follow the header",
            header.shape,
            rest.len()
        );
        return Err(refuse(reason, again));
    }
    let read = || -> Result<ArrayD<f64>, ndarray_npy::ReadNpyError> {
        Ok(match descriptor.as_str() {
            "'<f4'" => ArrayD::<f32>::read_npy(bytes)?.mapv(f64::from),
            "'<i4'" => ArrayD::<i32>::read_npy(bytes)?.mapv(f64::from),
            // Labels and positions are far below 2^53.
            "'<i8'" => ArrayD::<i64>::read_npy(bytes)?.mapv(|value| value as f64),
            "'|b1'" => ArrayD::<bool>::read_npy(bytes)?.mapv(f64::from),
            "'|u1'" => ArrayD::<u8>::read_npy(bytes)?.mapv(f64::from),
            _ => ArrayD::<f64>::read_npy(bytes)?,
        })
    };
    Ok(ReadArray {
        numbers: read().map_err(|error| refuse(error.to_string(), again))?,
        bytes: descriptor == "'|u1'",
    })
}

pub(super) fn refuse(path: &Path, reason: String, advice: &str) -> ReportError {
    ReportError::Array {
        path: path.to_owned(),
        reason,
        advice: advice.to_owned(),
    }
}

/// Where the header of a `.npy` file ends (NumPy's format, versions 1 to 3), by its length field.
fn header_length(bytes: &[u8]) -> usize {
    match bytes {
        [_, _, _, _, _, _, 1, _, low, high, ..] => 10 + usize::from(u16::from_le_bytes([*low, *high])),
        [_, _, _, _, _, _, _, _, a, b, c, d, ..] => usize::try_from(u32::from_le_bytes([*a, *b, *c, *d]))
            .unwrap_or(usize::MAX)
            .saturating_add(12),
        _ => usize::MAX,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use ndarray::{Array1, ArrayD, IxDyn, arr2};
    use ndarray_npy::{NpzReader, WriteNpyExt};

    use super::*;

    #[test]
    fn arrays_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clips.npz");
        let clips = ArrayD::from_shape_fn(IxDyn(&[2, 3, 1, 4]), |index| index[3] as f32 - 0.5);
        let timesteps = Array1::from(vec![981.0, 1.0]).into_dyn();
        let seeds = Array1::from(vec![3_i64, -4]).into_dyn();
        let arrays = [
            ("clips", Elements::Float(clips.view())),
            ("timesteps", Elements::Double(timesteps.view())),
            ("seeds", Elements::Integer(seeds.view())),
        ];
        write_arrays(&path, &arrays).unwrap();
        let mut archive = NpzReader::new(File::open(&path).unwrap()).unwrap();
        let read: ArrayD<f32> = archive.by_name("clips").unwrap();
        assert_eq!(read, clips);
        let read: ArrayD<i64> = archive.by_name("seeds").unwrap();
        assert_eq!(read, seeds);
        assert_eq!(archive.len(), 3);
        assert!(write_arrays(&folder.path().join("none/clips.npz"), &arrays).is_err());
    }

    #[test]
    fn a_matrix_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.npy");
        let table = arr2(&[[1.0_f32, 2.0, 3.0], [4.0, 5.0, 6.0]]);
        table.write_npy(File::create(&path).unwrap()).unwrap();
        assert_eq!(read_matrix(&path).unwrap(), table);
        table.t().write_npy(File::create(&path).unwrap()).unwrap();
        assert_eq!(read_matrix(&path).unwrap(), table.t());
    }

    #[test]
    fn every_torn_file_is_a_typed_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.npy");
        let mut bytes = Vec::new();
        arr2(&[[1.0_f32, 2.0, 3.0]]).write_npy(&mut bytes).unwrap();
        for length in 0..bytes.len() {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let message = read_matrix(&path).unwrap_err().to_string();
            assert!(
                message.contains("table.npy") && message.contains("numpy.save"),
                "{length}: {message}"
            );
        }
        bytes.push(0);
        std::fs::write(&path, &bytes).unwrap();
        assert!(read_matrix(&path).unwrap_err().to_string().contains("13 bytes"));
    }

    #[test]
    fn what_is_not_a_matrix_of_numbers_says_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.npy");
        let message = |path: &Path| read_matrix(path).unwrap_err().to_string();
        assert!(message(&path).contains("cannot read"));
        arr2(&[[1_u16]]).write_npy(File::create(&path).unwrap()).unwrap();
        assert!(message(&path).contains("its elements are '<u2'"), "{}", message(&path));
        Array1::from(vec![1.0_f32])
            .write_npy(File::create(&path).unwrap())
            .unwrap();
        assert!(message(&path).contains("its shape is [1]"), "{}", message(&path));
        std::fs::write(&path, "not an array at all, just some text").unwrap();
        assert!(message(&path).contains("not a usable array"), "{}", message(&path));
    }

    #[test]
    fn numbers_of_other_types_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("array.npy");
        let read = || read_array(&path).unwrap().into_raw_vec_and_offset().0;
        Array1::from(vec![-3_i64, 4])
            .write_npy(File::create(&path).unwrap())
            .unwrap();
        assert_eq!(read(), [-3.0, 4.0]);
        Array1::from(vec![true, false])
            .write_npy(File::create(&path).unwrap())
            .unwrap();
        assert_eq!(read(), [1.0, 0.0]);
        Array1::from(vec![0.5_f64])
            .write_npy(File::create(&path).unwrap())
            .unwrap();
        assert_eq!(read(), [0.5]);
        Array1::from(vec![7_i32])
            .write_npy(File::create(&path).unwrap())
            .unwrap();
        assert_eq!(read(), [7.0]);
    }

    #[test]
    fn a_header_that_claims_all_memory_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.npy");
        let text = "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 3), }\n";
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((text.len() as u16).to_le_bytes());
        bytes.extend(text.as_bytes());
        std::fs::write(&path, &bytes).unwrap();
        assert!(read_matrix(&path).unwrap_err().to_string().contains("does not fit"));
        let huge = [b"\x93NUMPY\x02\x00".as_slice(), &[0xff; 4], &[b' '; 40]].concat();
        std::fs::write(&path, huge).unwrap();
        assert!(read_matrix(&path).unwrap_err().to_string().contains("cut off"));
    }
}
