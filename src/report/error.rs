//! Why a report could not be written, or an array not read.

use std::path::PathBuf;

/// An error of the report. Each names the file and says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The operating system refused to write.
    #[error("{}: cannot write: {source}; check that the folder exists and is writable and the disk has room", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The operating system refused to read.
    #[error("{}: cannot read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A picture could not be encoded.
    #[error("{}: cannot encode the picture: {reason}", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// The encoder's reason.
        reason: String,
    },
    /// A clip cannot be shown.
    #[error(
        "a clip of shape {shape:?} cannot be shown: {reason}; clips are [channels, frames, height, width] with 1 (grey) or 3 (RGB) channels in [0, 1] (latents have to pass the VAE's decoder first)"
    )]
    Clip {
        /// The clip's shape.
        shape: Vec<usize>,
        /// What is wrong with it.
        reason: String,
    },
    /// A picture of this size cannot be written.
    #[error(
        "a picture of {width}x{height} pixels is too large for a GIF (65535 a side); show fewer clips or scale less"
    )]
    PictureSize {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
    },
    /// The frame rate cannot be written into a GIF.
    #[error("{0} frames a second cannot be shown in a GIF; choose 1 to 50")]
    FrameRate(u32),
    /// An array file is not what it should be.
    #[error("{}: not a usable array file: {reason}; {advice}", path.display())]
    Array {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
        /// What to do.
        advice: String,
    },
    /// A file or folder is no clip that can be read.
    #[error("{}: not a usable clip: {reason}; {advice}", path.display())]
    ClipFile {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
        /// What to do.
        advice: String,
    },
    /// `ffmpeg` cannot be started.
    #[error(
        "{}: an MP4 needs the program ffmpeg, which cannot be started ({reason}); install it, or choose gif or apng with \
         --animation",
        path.display()
    )]
    NoFfmpeg {
        /// The file that was wanted.
        path: PathBuf,
        /// The operating system's reason.
        reason: String,
    },
    /// `ffmpeg` failed.
    #[error("{}: ffmpeg failed ({status}): {reason}", path.display())]
    Ffmpeg {
        /// The file.
        path: PathBuf,
        /// How it ended.
        status: String,
        /// The last line that it said.
        reason: String,
    },
    /// An array could not be encoded.
    #[error("{}: cannot write the array `{name}`: {reason}", path.display())]
    EncodeArray {
        /// The file.
        path: PathBuf,
        /// The array's name in the archive.
        name: String,
        /// The encoder's reason.
        reason: String,
    },
    /// There is no result where one was looked for.
    #[error(
        "{}: no result for a page: {reason}; give what `pab-patch compare` wrote, or the JSON of inspect, quality, bench or calibrate, or a plan",
        path.display()
    )]
    NoResult {
        /// The file or folder.
        path: PathBuf,
        /// Why it is none.
        reason: String,
    },
    /// There is nothing to report.
    #[error("there is nothing to compare: {reason}; run at least one clip with both models and one step")]
    NothingMeasured {
        /// What is missing.
        reason: &'static str,
    },
    /// A report could not be turned into JSON.
    #[error("{}: cannot write as JSON: {reason}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The serializer's reason.
        reason: String,
    },
}
