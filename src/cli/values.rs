//! Values of arguments, from their text.

use super::args::InputFile;
use crate::report::ValueRange;
use crate::rules::Bytes;
use crate::sampler::VideoSize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// `NAME=VALUE`.
pub fn assignment<T: std::str::FromStr>(text: &str) -> Result<(String, T), String>
where
    T::Err: std::fmt::Display,
{
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    if name.is_empty() {
        return Err("the name before `=` is empty".to_owned());
    }
    let value = value.parse().map_err(|error: T::Err| format!("`{value}`: {error}"))?;
    Ok((name.to_owned(), value))
}

/// `NAME=FILE`, or a file with several arrays alone.
pub fn input(text: &str) -> Result<InputFile, String> {
    let path = PathBuf::from(text);
    let named = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty() && !name.contains(['/', '\\']));
    match named {
        Some((name, file)) if !file.is_empty() => Ok(InputFile {
            name: Some(name.to_owned()),
            path: file.into(),
        }),
        None if crate::report::is_named(&path) => Ok(InputFile { name: None, path }),
        _ => Err("expected NAME=FILE, or a FILE.npz or FILE.safetensors with an array for each input".to_owned()),
    }
}

/// `NAME=N` with a size that a tensor can have.
pub fn size(text: &str) -> Result<(String, usize), String> {
    const LARGEST: usize = 1 << 24;
    match assignment::<usize>(text)? {
        (name, size) if (1..=LARGEST).contains(&size) => Ok((name, size)),
        (_, size) => Err(format!("{size} is no size; give 1 to {LARGEST}")),
    }
}

/// The size of a video, `FRAMESxHEIGHTxWIDTH`.
pub fn video(text: &str) -> Result<VideoSize, String> {
    const LARGEST: usize = 1 << 24;
    let sizes: Result<Vec<usize>, _> = text.split('x').map(str::parse).collect();
    match sizes.as_deref() {
        Ok(&[frames, height, width]) if [frames, height, width].iter().all(|size| (1..=LARGEST).contains(size)) => {
            Ok(VideoSize { frames, height, width })
        }
        _ => Err("expected frames, height and width, such as `51x480x854`".to_owned()),
    }
}

/// A number of bytes, as rules write it: `2GiB`, `512 MiB`, `1048576`.
pub fn bytes(text: &str) -> Result<u64, String> {
    match text.parse::<Bytes>() {
        Ok(Bytes(bytes)) => Ok(bytes),
        Err(()) => Err("expected a number and a unit, such as `512MiB` or `2GiB`".to_owned()),
    }
}

/// Bytes a second: `450GB/s`, `900 MB/s`.
pub fn rate(text: &str) -> Result<f64, String> {
    let size = text
        .trim()
        .strip_suffix("/s")
        .and_then(|size| size.parse::<Bytes>().ok());
    match size {
        Some(Bytes(bytes)) if bytes > 0 => Ok(bytes as f64),
        _ => Err("expected bytes a second, such as `450GB/s`".to_owned()),
    }
}

/// A time in seconds: `20us`, `0.5ms`, `1s`.
pub fn duration(text: &str) -> Result<f64, String> {
    // How many there are in a second: a division rounds once, a product with 0.001 twice.
    const UNITS: [(&str, f64); 4] = [("us", 1e6), ("µs", 1e6), ("ms", 1e3), ("s", 1.0)];
    let text = text.trim();
    let found = UNITS
        .iter()
        .find_map(|(unit, in_second)| Some((text.strip_suffix(unit)?.trim_end(), *in_second)));
    let seconds = found.and_then(|(digits, in_second)| Some(digits.parse::<f64>().ok()? / in_second));
    match seconds {
        Some(seconds) if (0.0..=60.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected a time of at most a minute, such as `20us` or `0.5ms`".to_owned()),
    }
}

/// A number that can be computed with.
pub fn finite(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(number) if number.is_finite() => Ok(number),
        Ok(_) => Err("expected a finite number".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// What is black and what is white, `LOW,HIGH`.
pub fn range(text: &str) -> Result<ValueRange, String> {
    let (low, high) = text.split_once(',').ok_or("expected LOW,HIGH, such as -1,1")?;
    let (low, high) = (finite(low.trim())?, finite(high.trim())?);
    match low < high {
        true => Ok(ValueRange { low, high }),
        false => Err(format!("{low} is not below {high}")),
    }
}

/// Sizes by name.
pub fn sizes(given: &[(String, usize)]) -> BTreeMap<String, usize> {
    given.iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_files_with_a_name_or_with_several() {
        let read =
            |text: &str| input(text).map(|file| (file.name.unwrap_or_default(), file.path.display().to_string()));
        assert_eq!(read("mask=m.npy"), Ok(("mask".to_owned(), "m.npy".to_owned())));
        assert_eq!(read("a=b/c=d.npz"), Ok(("a".to_owned(), "b/c=d.npz".to_owned())));
        assert_eq!(read("run=1/all.npz"), Ok(("run".to_owned(), "1/all.npz".to_owned())));
        assert_eq!(
            read("./run=1/all.npz"),
            Ok((String::new(), "./run=1/all.npz".to_owned()))
        );
        for wrong in ["m.npy", "mask=", "=m.npy", ""] {
            assert!(input(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn assignments_need_a_name_and_a_fitting_value() {
        assert_eq!(assignment::<usize>("batch=2"), Ok(("batch".to_owned(), 2)));
        for wrong in ["batch", "=2", "batch=two", "batch=0", "batch=99999999999"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert_eq!(bytes("2GiB"), Ok(2 << 30));
        assert_eq!(bytes("1.5 KiB"), Ok(1536));
        assert_eq!(bytes("10"), Ok(10));
        for wrong in ["", "GiB", "-1", "2 gib", "1e3", "99999999999GiB", "1..2"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
        assert_eq!(range("-1, 1"), Ok(ValueRange { low: -1.0, high: 1.0 }));
        for wrong in ["1", "1,0", "0,0", "0,inf", ","] {
            assert!(range(wrong).is_err(), "{wrong}");
        }
        assert_eq!((rate("450GB/s"), rate("1 MB/s")), (Ok(450e9), Ok(1e6)));
        assert_eq!(
            (duration("20us"), duration("0.5 ms"), duration("2s")),
            (Ok(2e-5), Ok(5e-4), Ok(2.0))
        );
        for wrong in ["", "450GB", "0GB/s", "-1GB/s", "GB/s"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "20", "us", "-1s", "61s", "nans"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert!(finite("nan").is_err() && finite("inf").is_err() && finite("-1.5") == Ok(-1.5));
    }
}
