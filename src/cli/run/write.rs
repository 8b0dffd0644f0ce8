//! A clip as files: pictures, animations and arrays.

use super::options::{AnimationChoice, ArraysChoice, RunOptions};
use super::report::PictureFiles;
use crate::cli::Failure;
use crate::cli::source::picture;
use crate::quality::to_unit_range;
use crate::report::{
    Elements, FramesPerSecond, read_named, write_animation, write_apng, write_arrays, write_frames, write_mp4,
    write_safetensors,
};
use ndarray::ArrayD;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The arrays of a clip.
#[derive(Clone, Debug)]
pub struct Arrays {
    /// What it began with.
    pub noise: ArrayD<f32>,
    /// What came out of the loop.
    pub sample: ArrayD<f32>,
    /// The timesteps.
    pub timesteps: Vec<f64>,
    /// The sample after each step, `[steps, 1, ...]`, where that is wanted.
    pub samples: Option<ArrayD<f32>>,
    /// What the decoder made of it, where that is wanted.
    pub decoded: Option<ArrayD<f32>>,
}

impl Arrays {
    /// Writes them into a clip's folder.
    pub fn write(&self, folder: &Path, format: ArraysChoice) -> Result<PathBuf, Failure> {
        let path = folder.join(format.file());
        let timesteps = ndarray::aview1(&self.timesteps).into_dyn();
        let mut entries = vec![
            ("noise", Elements::Float(self.noise.view())),
            ("sample", Elements::Float(self.sample.view())),
            ("timesteps", Elements::Double(timesteps)),
        ];
        for (name, array) in [("samples", &self.samples), ("decoded", &self.decoded)] {
            entries.extend(array.iter().map(|array| (name, Elements::Float(array.view()))));
        }
        match format {
            ArraysChoice::Npz => write_arrays(&path, &entries)?,
            ArraysChoice::Safetensors => write_safetensors(&path, &entries)?,
        }
        Ok(path)
    }

    /// Reads them back out of a clip's folder; what a decoder made is left out, since it is made again.
    pub fn read(folder: &Path, format: ArraysChoice) -> Result<Arrays, Failure> {
        let path = folder.join(format.file());
        let mut arrays: BTreeMap<String, ArrayD<f64>> = read_named(&path)?.into_iter().collect();
        let single = |array: ArrayD<f64>| array.mapv(|value| value as f32);
        match (
            arrays.remove("noise"),
            arrays.remove("sample"),
            arrays.remove("timesteps"),
        ) {
            (Some(noise), Some(sample), Some(timesteps)) => Ok(Arrays {
                noise: single(noise),
                sample: single(sample),
                timesteps: timesteps.into_iter().collect(),
                samples: arrays.remove("samples").map(single),
                decoded: None,
            }),
            _ => Err(Failure::Usage(format!(
                "{}: it lacks the noise, sample or timesteps of a clip",
                path.display()
            ))),
        }
    }
}

/// Writes the frames and animations of a sample in -1 to 1; nothing where it is no picture.
pub fn write_pictures(
    folder: &Path,
    sample: &ArrayD<f32>,
    options: &RunOptions,
) -> Result<Option<PictureFiles>, Failure> {
    let rate = FramesPerSecond::new(options.sampling.fps)?;
    let scale = options.sampling.scale;
    let shown = to_unit_range(sample.view());
    let Some(pictures) = picture(&shown) else {
        return Ok(None);
    };
    let mut written = PictureFiles::default();
    for format in AnimationChoice::ALL {
        if !options.animation.contains(&format) {
            continue;
        }
        let path = folder.join(format.file());
        match format {
            AnimationChoice::Gif => write_animation(&path, pictures, rate, scale)?,
            AnimationChoice::Apng => write_apng(&path, pictures, rate, scale)?,
            AnimationChoice::Mp4 => write_mp4(&path, pictures, rate, scale)?,
        }
        written.animations.push(format.file().to_owned());
    }
    let frames = write_frames(folder, pictures)?;
    let names = frames.iter().filter_map(|path| path.file_name());
    written.frames = names.map(|name| name.to_string_lossy().into_owned()).collect();
    Ok(Some(written))
}

/// Removes the pictures of an earlier clip, which may have had more frames.
pub fn remove_earlier(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let number = name.strip_prefix("frame_").and_then(|rest| rest.strip_suffix(".png"));
        let animation = AnimationChoice::ALL.iter().any(|format| name == format.file());
        if animation || number.is_some_and(|number| number.parse::<u32>().is_ok()) {
            // What cannot be removed is in the way of the new file too, and is reported there.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
