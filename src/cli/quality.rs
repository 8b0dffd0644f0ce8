//! `pab-patch quality`: how close clips are to their references.

use super::Failure;
use super::args::SessionOptions;
use super::session::{library, open};
use super::terminal::Terminal;
use super::values::range;
use crate::onnx::Model;
use crate::quality::{Heads, Lpips, MS_SSIM_SIDE, compare_fully};
use crate::report::{
    ClipPair, ClipPairs, JudgedClip, Judgement, LpipsFiles, Provenance, ValueRange, number, read_clip, read_named,
    write_json,
};
use clap::Args;
use ndarray::Axis;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub struct QualityOptions {
    /// The reference: a folder of PNG frames, a GIF, an (animated) PNG, an .npz, .npy or .safetensors, a film that ffmpeg plays; or
    /// a folder of such clips
    pub reference: PathBuf,
    /// What is compared with it; clips of two folders are matched by their names
    pub other: PathBuf,
    /// Network for LPIPS, which puts out its feature maps in order (docs/lpips/export.py writes those of the package lpips)
    #[arg(long, value_name = "NETWORK.onnx")]
    pub lpips: Option<PathBuf>,
    /// Its linear heads, arrays `lin0`, `lin1`, … in a .safetensors or .npz [default: the file beside the network]
    #[arg(long, value_name = "FILE", requires = "lpips")]
    pub lpips_heads: Option<PathBuf>,
    /// What is black and what is white in arrays of floats [default: -1,1 in those that `run` writes, else 0,1]
    #[arg(long, value_name = "LOW,HIGH", value_parser = range, allow_hyphen_values = true)]
    pub range: Option<ValueRange>,
    /// Show a line for each frame
    #[arg(long)]
    pub frames: bool,
    /// Exit with 9 where a clip's PSNR is below
    #[arg(long, value_name = "DB")]
    pub min_psnr: Option<f64>,
    /// Exit with 9 where a clip's SSIM is below
    #[arg(long, value_name = "SSIM")]
    pub min_ssim: Option<f64>,
    /// Exit with 9 where a clip's MS-SSIM is below
    #[arg(long, value_name = "MS-SSIM")]
    pub min_ms_ssim: Option<f64>,
    /// Exit with 9 where a clip's LPIPS is above
    #[arg(long, value_name = "LPIPS", requires = "lpips")]
    pub max_lpips: Option<f64>,
    /// Write the figures as JSON, for `pab-patch report`
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub session: SessionOptions,
}

/// Compares clip by clip.
pub fn run(options: &QualityOptions, terminal: &Terminal) -> Result<(), Failure> {
    let found = ClipPairs::of(&options.reference, &options.other)?;
    for (names, folder) in [
        (&found.reference_only, &options.other),
        (&found.other_only, &options.reference),
    ] {
        if !names.is_empty() {
            terminal.warning(format!("{} has no {}", folder.display(), names.join(", ")));
        }
    }
    let (mut lpips, files) = match &options.lpips {
        Some(network) => {
            let (lpips, files) = lpips(network, options, terminal)?;
            (Some(lpips), Some(files))
        }
        None => (None, None),
    };
    let bar = terminal.steps("comparing", found.pairs.len());
    let mut clips = Vec::with_capacity(found.pairs.len());
    for pair in &found.pairs {
        clips.push(judge(pair, options, lpips.as_mut())?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    if clips.iter().any(|clip| clip.quality.ms_ssim.is_none()) {
        terminal.note(format!(
            "MS-SSIM is left out of frames with a side below {MS_SSIM_SIDE} pixels: its window does not fit into their coarsest scale"
        ));
    }
    let paths = [&options.reference, &options.other].map(|path| path.to_string_lossy().into_owned());
    let judgement = Judgement::new(Provenance::of_process(), paths, files, clips);
    // Pairs are never empty.
    let mut judgement = judgement.ok_or_else(|| Failure::Usage("there is no clip to compare".to_owned()))?;
    judgement.reference_only = found.reference_only;
    judgement.other_only = found.other_only;
    if let Some(path) = &options.output {
        write_json(path, &judgement)?;
    }
    terminal.result(&judgement, || judgement.render(terminal.table_style(), options.frames))?;
    limits(options, &judgement)
}

fn judge(pair: &ClipPair, options: &QualityOptions, lpips: Option<&mut Lpips>) -> Result<JudgedClip, Failure> {
    let reference = read_clip(&pair.reference, options.range)?;
    let other = read_clip(&pair.other, options.range)?;
    // Grey may be stored as grey or as RGB.
    let (reference, other) = match (reference.len_of(Axis(0)), other.len_of(Axis(0))) {
        (1, 3) => (spread(&reference), other),
        (3, 1) => (reference, spread(&other)),
        _ => (reference, other),
    };
    let quality = compare_fully(reference.view(), other.view(), lpips, || ()).map_err(|error| Failure::Judging {
        reference: pair.reference.clone(),
        other: pair.other.clone(),
        error: Box::new(error),
    })?;
    Ok(JudgedClip {
        name: pair.name.clone(),
        reference: pair.reference.to_string_lossy().into_owned(),
        other: pair.other.to_string_lossy().into_owned(),
        quality,
    })
}

/// A grey clip as RGB.
fn spread(grey: &ndarray::Array4<f32>) -> ndarray::Array4<f32> {
    let (_, frames, height, width) = grey.dim();
    let rgb = grey.broadcast((3, frames, height, width));
    rgb.map_or_else(|| grey.clone(), |rgb| rgb.to_owned())
}

/// Opens the network, with the heads that were named or that stand beside it.
fn lpips(network: &Path, options: &QualityOptions, terminal: &Terminal) -> Result<(Lpips, LpipsFiles), Failure> {
    let beside = |ending: &str| Some(network.with_extension(ending)).filter(|path| path.is_file());
    let heads: PathBuf = options
        .lpips_heads
        .clone()
        .or_else(|| beside("safetensors"))
        .or_else(|| beside("npz"))
        .ok_or_else(|| {
            Failure::Usage(format!(
                "no linear heads stand beside {0} ({1}); give them with --lpips-heads, or write both with docs/lpips/export.py",
                network.display(),
                network.with_extension("safetensors").display()
            ))
        })?;
    let weights = Heads::new(&heads, read_named(&heads)?).map_err(crate::quality::QualityError::from)?;
    // Our own reader says better than ONNX Runtime what is wrong with a file.
    Model::load(network)?;
    library(&options.session, terminal)?;
    let session = open(network, &options.session, terminal)?;
    let lpips = Lpips::new(session, weights).map_err(crate::quality::QualityError::from)?;
    let files = LpipsFiles {
        network: network.to_string_lossy().into_owned(),
        heads: heads.to_string_lossy().into_owned(),
    };
    Ok((lpips, files))
}

/// Whether the worst clip is as close as it was asked to be.
fn limits(options: &QualityOptions, judgement: &Judgement) -> Result<(), Failure> {
    let mut missed = Vec::new();
    for clip in &judgement.clips {
        let quality = &clip.quality;
        let mut least = |limit: Option<f64>, measure: &str, value: f64, show: &dyn Fn(f64) -> String| {
            if let Some(limit) = limit.filter(|limit| value < *limit) {
                missed.push(format!(
                    "{}: {measure} {} is below {}",
                    clip.name,
                    show(value),
                    show(limit)
                ));
            }
        };
        let similarity = |value: f64| number::similarity(Some(value));
        let psnr = quality.psnr.unwrap_or(f64::INFINITY);
        least(options.min_psnr, "PSNR", psnr, &|value| number::decibels(Some(value)));
        least(options.min_ssim, "SSIM", quality.ssim, &similarity);
        match (options.min_ms_ssim, quality.ms_ssim) {
            (limit @ Some(_), Some(ms_ssim)) => least(limit, "MS-SSIM", ms_ssim, &similarity),
            (Some(_), None) => missed.push(format!("{}: its frames are too small for MS-SSIM", clip.name)),
            (None, _) => {}
        }
        if let (Some(limit), Some(lpips)) = (options.max_lpips, quality.lpips)
            && lpips > limit
        {
            missed.push(format!(
                "{}: LPIPS {} is above {}",
                clip.name,
                similarity(lpips),
                similarity(limit)
            ));
        }
    }
    match missed.is_empty() {
        true => Ok(()),
        false => Err(Failure::FurtherApart(missed)),
    }
}
