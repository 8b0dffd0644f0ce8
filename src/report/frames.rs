//! A clip as PNG files, one a frame.

use std::path::{Path, PathBuf};

use image::codecs::png::PngEncoder;
use ndarray::ArrayView4;

use super::ReportError;
use super::atomic::{Pending, failed};
use super::picture::frame_pictures;

/// Writes the frames of a clip `[channels, frames, height, width]` in [0, 1] as `frame_000.png`, `frame_001.png`, ...
/// into a folder, which is made where it does not exist, and returns the paths in order. All frames are written to
/// temporary files before the first appears at its place; files of the same names are replaced.
///
/// # Errors
/// [`ReportError::Clip`] for a clip that cannot be shown, [`ReportError::Write`] where the operating system refuses.
pub fn write_frames(folder: &Path, clip: ArrayView4<'_, f32>) -> Result<Vec<PathBuf>, ReportError> {
    let pictures = frame_pictures(clip)?;
    std::fs::create_dir_all(folder).map_err(|source| failed(folder, source))?;
    let paths: Vec<PathBuf> = (0..pictures.len())
        .map(|index| folder.join(format!("frame_{index:03}.png")))
        .collect();
    let mut pending = Vec::with_capacity(paths.len());
    for (path, picture) in paths.iter().zip(&pictures) {
        pending.push(Pending::write(path, |file| {
            picture
                .write_with_encoder(PngEncoder::new(file))
                .map_err(|error| ReportError::Picture {
                    path: path.clone(),
                    reason: error.to_string(),
                })
        })?);
    }
    for file in pending {
        file.finish()?;
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use ndarray::Array4;

    use super::*;

    #[test]
    fn frames_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("clip/frames");
        let clip = Array4::from_shape_fn((3, 3, 4, 5), |(channel, frame, y, x)| {
            [frame as f32 / 2.0, y as f32 / 4.0, x as f32 / 5.0][channel]
        });
        let paths = write_frames(&folder, clip.view()).unwrap();
        assert_eq!(paths.len(), 3);
        assert!(paths[2].ends_with("clip/frames/frame_002.png"));
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 3);
        let picture = image::open(&paths[2]).unwrap().to_rgb8();
        assert_eq!(picture.dimensions(), (5, 4));
        assert_eq!(picture.get_pixel(3, 1).0, [255, 64, 153]);
        // Written again over the old ones.
        assert_eq!(write_frames(&folder, clip.view()).unwrap(), paths);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("taken");
        std::fs::write(&file, "").unwrap();
        let message = write_frames(&file, Array4::zeros((3, 1, 2, 2)).view())
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("taken") && message.contains("cannot write"),
            "{message}"
        );
    }
}
