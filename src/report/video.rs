//! Clips as MP4, by the program `ffmpeg` where it is installed.

use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use ndarray::ArrayView4;

use super::atomic::failed;
use super::picture::{draw_scaled, frame_pictures};
use super::{FramesPerSecond, ReportError};
use image::RgbImage;

/// The program.
const FFMPEG: &str = "ffmpeg";

/// Whether `ffmpeg` can be started.
///
/// # Errors
/// [`ReportError::NoFfmpeg`] where it cannot.
pub fn check_ffmpeg(path: &Path) -> Result<(), ReportError> {
    let mut probe = Command::new(FFMPEG);
    probe
        .arg("-version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    match probe.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(no_ffmpeg(path, format!("it ends with {status}"))),
        Err(error) => Err(no_ffmpeg(path, error.to_string())),
    }
}

fn no_ffmpeg(path: &Path, reason: String) -> ReportError {
    ReportError::NoFfmpeg {
        path: path.to_owned(),
        reason,
    }
}

/// Writes a clip `[channels, frames, height, width]` in [0, 1] as MP4, each pixel `scale` pixels wide (0 counts as 1), through
/// `ffmpeg` into a temporary sibling that is renamed.
///
/// # Errors
/// [`ReportError::Clip`] for a clip that cannot be shown, [`ReportError::NoFfmpeg`] where the program is not there,
/// [`ReportError::Ffmpeg`] where it fails, [`ReportError::Write`] where the operating system refuses.
pub fn write_mp4(path: &Path, clip: ArrayView4<'_, f32>, rate: FramesPerSecond, scale: u32) -> Result<(), ReportError> {
    let scale = scale.max(1);
    let frames = frame_pictures(clip)?;
    let (width, height) = frames.first().map_or((0, 0), |frame| frame.dimensions());
    let size = (width.saturating_mul(scale), height.saturating_mul(scale));
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".pab-patch-").suffix(".mp4");
    // Temporary files are private by default; a result gets the permissions of any new file, less the umask.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let written = builder
        .tempfile_in(folder)
        .map_err(|source| failed(path, source))?
        .into_temp_path();
    let mut ffmpeg = Command::new(FFMPEG);
    ffmpeg.args(["-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"]);
    ffmpeg.args([
        "-s",
        &format!("{}x{}", size.0, size.1),
        "-r",
        &rate.number().to_string(),
        "-i",
        "-",
        "-an",
    ]);
    // Players want colours at half the size, and so even sizes.
    ffmpeg.args([
        "-vf",
        "pad=ceil(iw/2)*2:ceil(ih/2)*2",
        "-pix_fmt",
        "yuv420p",
        "-movflags",
        "+faststart",
    ]);
    ffmpeg
        .arg(&written)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = ffmpeg.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => no_ffmpeg(path, error.to_string()),
        _ => failed(path, error),
    })?;
    if let Some(mut input) = child.stdin.take() {
        for frame in &frames {
            let mut picture = RgbImage::new(size.0, size.1);
            draw_scaled(&mut picture, frame, 0, 0, scale);
            // Where it ends early, it says why below.
            if input.write_all(picture.as_raw()).is_err() {
                break;
            }
        }
    }
    let output = child.wait_with_output().map_err(|source| failed(path, source))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(ReportError::Ffmpeg {
            path: path.to_owned(),
            status: output.status.to_string(),
            reason: said.trim().lines().last().unwrap_or("it says nothing").to_owned(),
        });
    }
    written.persist(path).map_err(|error| failed(path, error.error))
}
