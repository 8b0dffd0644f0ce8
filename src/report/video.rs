//! Clips as MP4, by the program `ffmpeg` where it is installed.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
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

/// The frames of a film, one after the other as `ffmpeg` decodes them; `take` is given each.
///
/// # Errors
/// [`ReportError::ClipFile`] where the program is not there or cannot decode the file, and what `take` says.
pub(super) fn read_film(
    path: &Path,
    mut take: impl FnMut(RgbImage) -> Result<(), ReportError>,
) -> Result<(), ReportError> {
    let refuse = |reason: String, advice: &str| ReportError::ClipFile {
        path: path.to_owned(),
        reason,
        advice: advice.to_owned(),
    };
    // A name is never taken for an option or an address, and a film loads nothing but itself.
    let mut name = OsString::from("file:");
    name.push(path);
    let mut ffmpeg = Command::new(FFMPEG);
    ffmpeg.args([
        "-nostdin",
        "-loglevel",
        "error",
        "-protocol_whitelist",
        "file,pipe",
        "-i",
    ]);
    ffmpeg.arg(name);
    ffmpeg.args(["-map", "0:v:0", "-fps_mode", "passthrough", "-f", "image2pipe"]);
    ffmpeg.args(["-c:v", "ppm", "-pix_fmt", "rgb24", "-"]);
    ffmpeg
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = ffmpeg.spawn().map_err(|error| {
        refuse(
            format!("reading a film needs the program ffmpeg, which cannot be started ({error})"),
            "install it, or give PNG frames, a GIF, an animated PNG or an .npz",
        )
    })?;
    let taken = match child.stdout.take() {
        Some(output) => {
            let mut output = BufReader::new(output);
            let mut frames = || -> Result<(), ReportError> {
                while let Some(frame) = read_ppm(&mut output).map_err(|source| ReportError::Read {
                    path: path.to_owned(),
                    source,
                })? {
                    take(frame)?;
                }
                Ok(())
            };
            frames()
        }
        None => Ok(()),
    };
    if taken.is_err() {
        // It writes to nobody.
        let _ = child.kill();
    }
    let output = child.wait_with_output().map_err(|source| ReportError::Read {
        path: path.to_owned(),
        source,
    })?;
    taken?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let reason = said.trim().lines().last().unwrap_or("it says nothing");
        return Err(refuse(
            format!("ffmpeg failed ({}): {reason}", output.status),
            "give a file that ffmpeg (5.1 or later) can play",
        ));
    }
    Ok(())
}

/// The next picture of a stream of binary PPM with a byte a level; `None` at its end.
fn read_ppm(stream: &mut impl BufRead) -> std::io::Result<Option<RgbImage>> {
    let damaged = || std::io::Error::new(ErrorKind::InvalidData, "ffmpeg's pictures are not PPM");
    let mut header = [0_u64; 3];
    let mut line = Vec::new();
    let mut words = Vec::new();
    // `P6`, width, height and the greatest level, over one or several lines.
    while words.len() < 4 {
        line.clear();
        if stream.by_ref().take(64).read_until(b'\n', &mut line)? == 0 {
            return if words.is_empty() { Ok(None) } else { Err(damaged()) };
        }
        let text = std::str::from_utf8(&line).map_err(|_| damaged())?;
        words.extend(text.split_ascii_whitespace().map(str::to_owned));
    }
    for (number, word) in header.iter_mut().zip(words.iter().skip(1)) {
        *number = word.parse().map_err(|_| damaged())?;
    }
    let [width, height, greatest] = header;
    let sides = (u32::try_from(width), u32::try_from(height));
    let (Ok(width), Ok(height), 255, Some("P6")) = (sides.0, sides.1, greatest, words.first().map(String::as_str))
    else {
        return Err(damaged());
    };
    let size = u64::from(width) * u64::from(height) * 3;
    let mut pixels = Vec::new();
    if stream.by_ref().take(size).read_to_end(&mut pixels)? as u64 != size {
        return Err(damaged());
    }
    RgbImage::from_raw(width, height, pixels).ok_or_else(damaged).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_come_out_of_a_stream() {
        let mut stream: &[u8] = b"P6\n2 1\n255\nabcdefP6 1 1 255\nxyz";
        let first = read_ppm(&mut stream).unwrap().unwrap();
        assert_eq!((first.dimensions(), first.get_pixel(1, 0).0), ((2, 1), *b"def"));
        let second = read_ppm(&mut stream).unwrap().unwrap();
        assert_eq!((second.dimensions(), second.get_pixel(0, 0).0), ((1, 1), *b"xyz"));
        assert!(read_ppm(&mut stream).unwrap().is_none());
        for damaged in [
            &b"P6\n2 1\n255\nabc"[..],
            b"P5\n1 1\n255\nabc",
            b"P6\n1",
            b"P6\n-1 1\n255\n",
            b"\xff\n\n\n\n",
        ] {
            let mut stream = damaged;
            assert!(read_ppm(&mut stream).is_err(), "{damaged:?}");
        }
    }
}
