//! From latents to pictures: the decoder of a pipeline, or the sample itself where it is a picture.

use super::RunOptions;
use super::checkpoint::Checkpoint;
use super::report::{ClipPlace, ClipRecord};
use super::watch::Watch;
use super::write::{Arrays, write_pictures};
use crate::cli::Failure;
use crate::cli::source::Source;
use crate::cli::terminal::Terminal;
use crate::pipeline::Decoder;
use std::time::Instant;

/// A clip between the loop and its pictures.
pub struct Made {
    pub place: ClipPlace,
    pub arrays: Arrays,
    pub record: ClipRecord,
}

/// Decodes and writes the pictures of all clips, each recorded when it is complete.
pub fn decode(
    options: &RunOptions,
    source: &Source,
    made: Vec<Made>,
    checkpoint: &mut Option<Checkpoint>,
    watch: &mut Watch,
    terminal: &Terminal,
) -> Result<Vec<(ClipPlace, ClipRecord)>, Failure> {
    let mut decoder = match made.is_empty() {
        false => source.open_decoder(&options.session, terminal)?,
        true => None,
    };
    let bar = terminal.steps("decoding", if decoder.is_some() { made.len() } else { 0 });
    let mut complete = Vec::with_capacity(made.len());
    for clip in made {
        terminal.stop().check()?;
        complete.push(finish(options, source, clip, decoder.as_mut(), watch, terminal)?);
        bar.inc(1);
        if let (Some(checkpoint), Some((place, record))) = (checkpoint.as_mut(), complete.last()) {
            checkpoint.clips.insert(place.number, record.clone());
            checkpoint.save()?;
        }
    }
    bar.finish_and_clear();
    Ok(complete)
}

/// Writes the pictures of a clip.
pub fn finish(
    options: &RunOptions,
    source: &Source,
    clip: Made,
    decoder: Option<&mut Decoder>,
    watch: &mut Watch,
    terminal: &Terminal,
) -> Result<(ClipPlace, ClipRecord), Failure> {
    let Made {
        place,
        mut arrays,
        mut record,
    } = clip;
    let shown = match decoder {
        Some(decoder) => {
            let begun = Instant::now();
            let decoded = source.decode(decoder, arrays.sample.clone(), place.number)?;
            watch.part("decoding", begun);
            if options.decoded {
                arrays.decoded = Some(decoded.clone());
                arrays.write(&place.folder, options.arrays)?;
            }
            Some(decoded)
        }
        None if options.latents_only => None,
        None => Some(arrays.sample.clone()),
    };
    let written = match &shown {
        Some(shown) => write_pictures(&place.folder, shown, options)?,
        None => None,
    };
    if written.is_none() && !options.latents_only {
        terminal.note(format!(
            "the sample has shape {:?}, which is no RGB picture: only {} was written (latents have to pass the VAE's \
             decoder first)",
            arrays.sample.shape(),
            place.folder.join(place.arrays).display()
        ));
    }
    record.pictures = Some(written.unwrap_or_default());
    Ok((place, record))
}
