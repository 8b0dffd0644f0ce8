//! Clips from files: PNG frames of a folder, GIFs, animated PNGs, arrays and films.

use std::ffi::OsStr;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use image::codecs::gif::GifDecoder;
use image::codecs::png::PngDecoder;
use image::{AnimationDecoder, DynamicImage, Frames, ImageDecoder, ImageReader, Limits, Rgb32FImage};
use ndarray::{Array4, ArrayD, Axis, Ix4};

use super::ReportError;
use super::arrays::{ReadArray, parse_npy};
use super::named_arrays::{is_named, read_named_arrays};
use super::video::read_film;

/// The endings of films, which `ffmpeg` reads.
const FILMS: [&str; 6] = ["mp4", "webm", "mkv", "mov", "avi", "m4v"];
/// The endings of all files that are clips, in the order in which they are taken where a name has several: what is exact first.
const CLIPS: [&str; 12] = [
    "npz",
    "safetensors",
    "npy",
    "png",
    "apng",
    "gif",
    "mp4",
    "webm",
    "mkv",
    "mov",
    "avi",
    "m4v",
];
/// Arrays that `pab-patch run` writes, in the order in which they are taken; their values are -1 to 1.
const WRITTEN: [&str; 2] = ["decoded", "sample"];
/// Names of other arrays that are clips.
const CALLED: [&str; 4] = ["clip", "frames", "video", "arr_0"];
/// No clip may have more values than these, 8 GiB of them.
const MOST_VALUES: usize = 1 << 31;

/// What is black and what is white in an array of floats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValueRange {
    /// Black.
    pub low: f32,
    /// White.
    pub high: f32,
}

/// Where a file of an ending stands among those that are clips; `None` where it is none.
pub(super) fn clip_rank(path: &Path) -> Option<usize> {
    let ending = path.extension().and_then(OsStr::to_str)?.to_ascii_lowercase();
    CLIPS.iter().position(|known| *known == ending)
}

/// Reads a clip `[channels, frames, height, width]` with values in [0, 1]: a folder of PNG frames in the order of the numbers in
/// their names, a GIF, a PNG (animated or not), an array in an `.npz`, `.npy` or `.safetensors`, or a film that `ffmpeg` plays.
///
/// Of several arrays the one that `pab-patch run` writes is taken, `decoded` before `sample`, else one called `clip`, `frames` or
/// `video`. Bytes are levels from 0 to 255; floats are -1 to 1 where `run` wrote them and 0 to 1 else, unless `range` says so.
/// Arrays may be `[channels, frames, height, width]`, `[frames, channels, height, width]` or `[frames, height, width, channels]`
/// with 1 or 3 channels, the first that fits; an axis of 1 clip may stand before.
///
/// # Errors
/// [`ReportError::ClipFile`] for what is no such clip, [`ReportError::Array`] for a damaged array, [`ReportError::Read`] where the
/// operating system refuses.
pub fn read_clip(path: &Path, range: Option<ValueRange>) -> Result<Array4<f32>, ReportError> {
    let clip = if path.is_dir() {
        still_frames(path)?
    } else {
        let ending = path
            .extension()
            .and_then(OsStr::to_str)
            .unwrap_or_default()
            .to_ascii_lowercase();
        match ending.as_str() {
            "npy" => {
                let bytes = std::fs::read(path).map_err(|source| read_error(path, source))?;
                clip_of_array(path, parse_npy(path, &bytes)?, range, false)?
            }
            _ if is_named(path) => named_clip(path, range)?,
            "gif" => {
                let mut decoder = GifDecoder::new(open(path)?).map_err(|error| damaged(path, &error))?;
                decoder
                    .set_limits(Limits::default())
                    .map_err(|error| damaged(path, &error))?;
                animated(path, decoder.into_frames())?
            }
            "png" | "apng" => png(path)?,
            _ if FILMS.contains(&ending.as_str()) => {
                let mut frames = Stack::new(path);
                read_film(path, |frame| frames.add(&DynamicImage::from(frame).into_rgb32f()))?;
                frames.finish()?
            }
            _ => {
                // A name that says nothing: the operating system knows whether it is there.
                open(path)?;
                return Err(refuse(
                    path,
                    "its ending is none that is known".to_owned(),
                    &format!(
                        "give a folder of PNG frames, or a file that ends in {}",
                        CLIPS.join(", ")
                    ),
                ));
            }
        }
    };
    Ok(clip)
}

fn read_error(path: &Path, source: std::io::Error) -> ReportError {
    ReportError::Read {
        path: path.to_owned(),
        source,
    }
}

fn refuse(path: &Path, reason: String, advice: &str) -> ReportError {
    ReportError::ClipFile {
        path: path.to_owned(),
        reason,
        advice: advice.to_owned(),
    }
}

fn damaged(path: &Path, error: &dyn std::fmt::Display) -> ReportError {
    refuse(path, error.to_string(), "write it again")
}

fn open(path: &Path) -> Result<BufReader<File>, ReportError> {
    File::open(path)
        .map(BufReader::new)
        .map_err(|source| read_error(path, source))
}

/// The PNG files of a folder that are single pictures, in the order of the numbers in their names.
pub(super) fn stills(folder: &Path) -> Result<Vec<PathBuf>, ReportError> {
    let entries = std::fs::read_dir(folder).map_err(|source| read_error(folder, source))?;
    let mut stills = Vec::new();
    for entry in entries {
        let path = entry.map_err(|source| read_error(folder, source))?.path();
        let png = path
            .extension()
            .is_some_and(|ending| ending.eq_ignore_ascii_case("png"));
        if png && path.is_file() && !is_animated(&path)? {
            stills.push(path);
        }
    }
    stills.sort_by_cached_key(|path| by_number(&path.file_name().unwrap_or_default().to_string_lossy()));
    Ok(stills)
}

/// Whether a PNG says that it is animated. What is none is found when it is read.
fn is_animated(path: &Path) -> Result<bool, ReportError> {
    let decoder = PngDecoder::new(open(path)?);
    Ok(decoder.and_then(|decoder| decoder.is_apng()).unwrap_or(false))
}

/// A name as a key by which `frame_9` stands before `frame_10`: its parts, numbers with their values.
pub(super) fn by_number(name: &str) -> Vec<(String, u64)> {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let words = rest
            .find(|character: char| character.is_ascii_digit())
            .unwrap_or(rest.len());
        let (word, behind) = rest.split_at(words);
        let digits = behind
            .find(|character: char| !character.is_ascii_digit())
            .unwrap_or(behind.len());
        let (number, behind) = behind.split_at(digits);
        parts.push((word.to_owned(), number.parse().unwrap_or(u64::MAX)));
        rest = behind;
    }
    parts
}

fn still_frames(folder: &Path) -> Result<Array4<f32>, ReportError> {
    let mut frames = Stack::new(folder);
    for path in stills(folder)? {
        let frame = ImageReader::new(open(&path)?)
            .with_guessed_format()
            .map_err(|source| read_error(&path, source))?
            .decode()
            .map_err(|error| damaged(&path, &error))?;
        frames.add(&frame.into_rgb32f())?;
    }
    frames.finish()
}

fn png(path: &Path) -> Result<Array4<f32>, ReportError> {
    let refuse = |error: image::ImageError| damaged(path, &error);
    let decoder = PngDecoder::with_limits(open(path)?, Limits::default()).map_err(refuse)?;
    if decoder.is_apng().map_err(refuse)? {
        return animated(path, decoder.apng().map_err(refuse)?.into_frames());
    }
    let mut frames = Stack::new(path);
    let still = DynamicImage::from_decoder(decoder).map_err(refuse)?;
    frames.add(&still.into_rgb32f())?;
    frames.finish()
}

fn animated(path: &Path, frames: Frames<'_>) -> Result<Array4<f32>, ReportError> {
    let mut stack = Stack::new(path);
    for frame in frames {
        let frame = frame.map_err(|error| damaged(path, &error))?;
        stack.add(&DynamicImage::from(frame.into_buffer()).into_rgb32f())?;
    }
    stack.finish()
}

/// Frames that become a clip.
struct Stack<'a> {
    path: &'a Path,
    size: (u32, u32),
    frames: usize,
    /// `[frames, height, width, channels]`.
    values: Vec<f32>,
}

impl<'a> Stack<'a> {
    fn new(path: &'a Path) -> Stack<'a> {
        Stack {
            path,
            size: (0, 0),
            frames: 0,
            values: Vec::new(),
        }
    }

    fn add(&mut self, frame: &Rgb32FImage) -> Result<(), ReportError> {
        let size = frame.dimensions();
        if self.frames == 0 {
            self.size = size;
        } else if size != self.size {
            let ((width, height), (first_width, first_height)) = (size, self.size);
            return Err(refuse(
                self.path,
                format!(
                    "frame {} has {width}x{height} pixels and the first {first_width}x{first_height}",
                    self.frames
                ),
                "give frames of one size",
            ));
        }
        if self.values.len().saturating_add(frame.as_raw().len()) > MOST_VALUES {
            return Err(refuse(
                self.path,
                format!(
                    "it is too long: {} frames take the memory of {MOST_VALUES} values",
                    self.frames
                ),
                "give a part of it",
            ));
        }
        self.values.extend_from_slice(frame.as_raw());
        self.frames += 1;
        Ok(())
    }

    fn finish(self) -> Result<Array4<f32>, ReportError> {
        if self.frames == 0 {
            return Err(refuse(
                self.path,
                "it has no frame".to_owned(),
                "give PNG frames, or a film",
            ));
        }
        let (width, height) = self.size;
        let shape = (self.frames, height as usize, width as usize, 3);
        let clip = Array4::from_shape_vec(shape, self.values).map_err(|error| damaged(self.path, &error))?;
        Ok(channels_first(clip.permuted_axes([3, 0, 1, 2])))
    }
}

/// The same clip in row-major order.
fn channels_first(clip: Array4<f32>) -> Array4<f32> {
    clip.as_standard_layout().into_owned()
}

fn named_clip(path: &Path, range: Option<ValueRange>) -> Result<Array4<f32>, ReportError> {
    let mut arrays = read_named_arrays(path)?;
    let place = |name: &&str| arrays.iter().position(|(found, _)| found == *name);
    let written = WRITTEN.iter().find_map(|name| place(&name));
    let called = CALLED.iter().find_map(|name| place(&name));
    let only = (arrays.len() == 1).then_some(0);
    let Some(chosen) = written.or(called).or(only) else {
        let names: Vec<&str> = arrays.iter().map(|(name, _)| name.as_str()).collect();
        return Err(refuse(
            path,
            format!("which of its arrays is the clip? It has {}", names.join(", ")),
            "save the clip alone, or call it `clip`",
        ));
    };
    let (_, array) = arrays.swap_remove(chosen);
    clip_of_array(path, array, range, written.is_some())
}

/// A clip from an array; `signed` where its floats are -1 to 1 unless `range` says otherwise.
fn clip_of_array(
    path: &Path,
    array: ReadArray,
    range: Option<ValueRange>,
    signed: bool,
) -> Result<Array4<f32>, ReportError> {
    let shape = array.numbers.shape().to_vec();
    let clip = axes_of(array.numbers).ok_or_else(|| {
        refuse(
            path,
            format!("its shape is {shape:?}"),
            "save one clip as [channels, frames, height, width] with 1 or 3 channels (latents have to pass the VAE's decoder first)",
        )
    })?;
    let (low, high) = match range {
        _ if array.bytes => (0.0, 255.0),
        Some(ValueRange { low, high }) => (low, high),
        None if signed => (-1.0, 1.0),
        None => (0.0, 1.0),
    };
    // What `run` writes may overshoot, as every model does. Of others, values outside show that the range is another one.
    let outside = |value: &f64| *value < f64::from(low) - 1e-3 || *value > f64::from(high) + 1e-3;
    if !signed && range.is_none() && clip.iter().any(outside) {
        return Err(refuse(
            path,
            "it has values outside 0 to 1".to_owned(),
            "say what black and white are with --range, such as --range=-1,1",
        ));
    }
    Ok(clip.mapv(|value| ((value as f32 - low) / (high - low)).clamp(0.0, 1.0)))
}

/// The array as `[channels, frames, height, width]`.
fn axes_of(mut array: ArrayD<f64>) -> Option<Array4<f64>> {
    while array.ndim() > 4 && array.len_of(Axis(0)) == 1 {
        array.index_axis_inplace(Axis(0), 0);
    }
    if array.ndim() == 3 {
        array = array.insert_axis(Axis(1));
    }
    let array = array.into_dimensionality::<Ix4>().ok()?;
    if array.is_empty() {
        return None;
    }
    let order = match array.dim() {
        (1 | 3, ..) => [0, 1, 2, 3],
        (_, 1 | 3, ..) => [1, 0, 2, 3],
        (.., 1 | 3) => [3, 0, 1, 2],
        _ => return None,
    };
    Some(array.permuted_axes(order).as_standard_layout().into_owned())
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};
    use ndarray::{Array5, IxDyn};

    use super::*;
    use crate::report::{
        Elements, FramesPerSecond, write_animation, write_apng, write_arrays, write_frames, write_safetensors,
    };

    /// Few colours, so that a GIF is exact, and each at a level of eight bits.
    fn clip() -> Array4<f32> {
        Array4::from_shape_fn((3, 11, 4, 6), |(channel, frame, y, x)| {
            ((channel * 40 + frame * 20 + y * 3 + x) % 256) as f32 / 255.0
        })
    }

    fn close(one: &Array4<f32>, other: &Array4<f32>) -> bool {
        one.shape() == other.shape() && one.iter().zip(other).all(|(one, other)| (one - other).abs() < 1e-6)
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let clip = clip();
        let rate = FramesPerSecond::new(8).unwrap();
        let at = |name: &str| folder.path().join(name);
        write_frames(&at("frames"), clip.view()).unwrap();
        write_animation(&at("clip.gif"), clip.view(), rate, 1).unwrap();
        write_apng(&at("clip.apng"), clip.view(), rate, 1).unwrap();
        let written = clip.mapv(|value| value * 2.0 - 1.0).insert_axis(Axis(0)).into_dyn();
        let noise = ArrayD::<f32>::zeros(IxDyn(&[2]));
        let arrays = [
            ("noise", Elements::Float(noise.view())),
            ("sample", Elements::Float(written.view())),
        ];
        write_arrays(&at("clip.npz"), &arrays).unwrap();
        write_safetensors(&at("clip.safetensors"), &arrays).unwrap();
        for name in ["frames", "clip.gif", "clip.apng", "clip.npz", "clip.safetensors"] {
            let read = read_clip(&at(name), None).unwrap();
            assert!(close(&read, &clip), "{name}");
        }
        std::fs::rename(at("clip.apng"), at("clip.png")).unwrap();
        assert!(close(&read_clip(&at("clip.png"), None).unwrap(), &clip));
        // Torn at any place it is an error, or has fewer frames; never a panic.
        for name in ["clip.gif", "clip.png", "clip.npz"] {
            let bytes = std::fs::read(at(name)).unwrap();
            for length in (0..bytes.len() - 20).step_by(97) {
                std::fs::write(at(name), &bytes[..length]).unwrap();
                assert!(
                    read_clip(&at(name), None).map_or(true, |read| read.len_of(Axis(1)) < 11),
                    "{name} {length}"
                );
            }
        }
    }

    #[test]
    fn frames_are_in_the_order_of_their_numbers() {
        let folder = tempfile::tempdir().unwrap();
        for number in [10_u8, 9, 2] {
            let picture = RgbImage::from_pixel(2, 2, Rgb([number; 3]));
            picture.save(folder.path().join(format!("f{number}.png"))).unwrap();
        }
        std::fs::write(folder.path().join("notes.txt"), "").unwrap();
        let clip = read_clip(folder.path(), None).unwrap();
        let levels: Vec<f32> = (0..3).map(|frame| (clip[[0, frame, 0, 0]] * 255.0).round()).collect();
        assert_eq!(levels, [2.0, 9.0, 10.0]);
        RgbImage::new(3, 2).save(folder.path().join("f11.png")).unwrap();
        let message = read_clip(folder.path(), None).unwrap_err().to_string();
        assert!(
            message.contains("frame 3 has 3x2 pixels and the first 2x2"),
            "{message}"
        );
        assert!(by_number("clip_9") < by_number("clip_10") && by_number("a10") < by_number("b9"));
    }

    #[test]
    fn arrays_of_every_layout_and_range_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npz");
        let clip = clip();
        let read = |array: ArrayD<f32>, name: &str, range| {
            write_arrays(&path, &[(name, Elements::Float(array.view()))]).unwrap();
            read_clip(&path, range)
        };
        let by_frames = clip.clone().permuted_axes([1, 0, 2, 3]).into_dyn();
        let last = clip.clone().permuted_axes([1, 2, 3, 0]).into_dyn();
        for array in [clip.clone().into_dyn(), by_frames, last] {
            assert!(close(
                &read(array.as_standard_layout().into_owned(), "x", None).unwrap(),
                &clip
            ));
        }
        let signed = clip.mapv(|value| value * 2.0 - 1.0).into_dyn();
        let message = read(signed.clone(), "x", None).unwrap_err().to_string();
        assert!(message.contains("--range"), "{message}");
        let range = Some(ValueRange { low: -1.0, high: 1.0 });
        assert!(close(&read(signed, "x", range).unwrap(), &clip));
        let still = clip.index_axis(Axis(1), 0).to_owned().into_dyn();
        assert_eq!(read(still, "x", None).unwrap().shape(), [3, 1, 4, 6]);
        let latent = ArrayD::<f32>::zeros(IxDyn(&[4, 5, 8, 8]));
        let message = read(latent, "sample", None).unwrap_err().to_string();
        assert!(message.contains("[4, 5, 8, 8]") && message.contains("VAE"), "{message}");
        let several = Array5::<f32>::zeros((2, 3, 4, 8, 8)).into_dyn();
        assert!(read(several, "x", None).is_err());
        let zeros = ArrayD::<f32>::zeros(IxDyn(&[3, 1, 2, 2]));
        let two = [
            ("one", Elements::Float(zeros.view())),
            ("two", Elements::Float(zeros.view())),
        ];
        write_arrays(&path, &two).unwrap();
        let message = read_clip(&path, None).unwrap_err().to_string();
        assert!(message.contains("one, two"), "{message}");
    }

    #[test]
    fn bytes_are_levels() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npy");
        let levels = ndarray::Array4::<u8>::from_shape_fn((2, 3, 4, 3), |(.., channel)| 51 * channel as u8);
        ndarray_npy::write_npy(&path, &levels).unwrap();
        let clip = read_clip(&path, None).unwrap();
        // Two frames of 3 x 4 pixels: the first axis that may be channels is the second.
        assert_eq!(clip.shape(), [3, 2, 4, 3]);
        assert!((clip[[0, 0, 0, 2]] - 0.4).abs() < 1e-6);
    }

    #[test]
    fn what_is_no_clip_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let message = |name: &str| read_clip(&folder.path().join(name), None).unwrap_err().to_string();
        assert!(message("none.gif").contains("cannot read"));
        assert!(message("none.txt").contains("cannot read"));
        std::fs::write(folder.path().join("notes.txt"), "x").unwrap();
        assert!(message("notes.txt").contains("apng"));
        assert!(message("").contains("no frame"));
        std::fs::write(folder.path().join("x.png"), "no picture").unwrap();
        assert!(message("x.png").contains("not a usable clip"));
        assert!(message("").contains("x.png"));
    }
}
