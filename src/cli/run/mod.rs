//! `pab-patch run`: clips by one model or pipeline.

mod batch;
mod checkpoint;
mod denoise;
mod noise;
mod options;
mod pictures;
mod prompts;
mod ranks;
mod report;
mod settings;
mod stages;
mod watch;
mod write;

pub use options::RunOptions;

use super::Failure;
use super::folder::OutputFolder;
use super::session::{check_cuda_graph, library};
use super::terminal::Terminal;
use crate::collective::is_first_process;
use crate::pipeline::{Boundary, Folder};
use crate::report::{FramesPerSecond, check_ffmpeg};
use batch::Batch;
use checkpoint::Checkpoint;
use options::AnimationChoice;
use pictures::decode;
use ranks::{Team, Wanted};
use report::{ClipReport, Report, TransformerReport};
use watch::Watch;

/// Generates and writes clips.
pub fn run(options: &RunOptions, terminal: &Terminal) -> Result<(), Failure> {
    let report = match asked(options).map_err(shown_once)? {
        None => {
            let mut batch = Batch::read(options, None, terminal)?;
            batch.patch(terminal)?;
            Some(lead(&batch, None, terminal)?)
        }
        Some(wanted) => ranks::run(options, wanted, terminal)?,
    };
    report.map_or(Ok(()), |report| terminal.result(&report, || report.text()))
}

/// Whether there are to be several ranks, once what can be wrong with the options alone is not.
fn asked(options: &RunOptions) -> Result<Option<Wanted>, Failure> {
    FramesPerSecond::new(options.sampling.fps)?;
    check_cuda_graph(options.form, options.cuda_graph, &options.session)?;
    if options.animation.contains(&AnimationChoice::Mp4) {
        check_ffmpeg(&options.output.join(AnimationChoice::Mp4.file()))?;
    }
    let wanted = Wanted::of(options)?;
    if wanted.is_some() && options.cuda_graph {
        return Err(Failure::Usage(
            "--cuda-graph is not for several ranks, which meet in every step: CUDA would repeat one without the others; leave it \
             out"
                .to_owned(),
        ));
    }
    let folder = Folder::open(&options.model).ok().filter(|_| wanted.is_some());
    if let Some(folder) = folder
        && let Some(boundary) = Boundary::of(&folder).map_err(|error| Failure::pipeline(&options.model, error))?
    {
        return Err(Failure::Usage(format!(
            "several ranks run one transformer, and {} has two (boundary_ratio {}); leave the options of ranks out",
            options.model.display(),
            boundary.ratio()
        )));
    }
    Ok(wanted)
}

/// What all processes find wrong before they know of each other, the first shows.
fn shown_once(failure: Failure) -> Failure {
    match is_first_process() {
        true => failure,
        false => Failure::Shown(Box::new(failure)),
    }
}

/// Makes the clips, as the only rank or the first.
fn lead(batch: &Batch, team: Option<&Team>, terminal: &Terminal) -> Result<Report, Failure> {
    let mut checkpoint = match batch.options.prompts {
        Some(_) => Some(Checkpoint::of(&batch.options, settings::of(batch)?)?),
        None => None,
    };
    let made = batch.make(&mut checkpoint, team, terminal);
    if let (Err(_), Some(checkpoint)) = (&made, &checkpoint)
        && !checkpoint.clips.is_empty()
    {
        let complete = checkpoint.clips.values().filter(|clip| clip.pictures.is_some()).count();
        terminal.note(format!(
            "{complete} of {} clips are complete, of {} the latents; the same command with --resume goes on from there ({})",
            batch.clips(),
            checkpoint.clips.len(),
            checkpoint.path().display()
        ));
    }
    made
}

impl Batch {
    /// Makes all clips that are not there yet.
    fn make(
        &self,
        checkpoint: &mut Option<Checkpoint>,
        team: Option<&Team>,
        terminal: &Terminal,
    ) -> Result<Report, Failure> {
        let options = &self.options;
        let mut watch = Watch::new(options.trace.is_some());
        let mut clips = self.earlier(checkpoint.as_mut());
        let missing = self.missing(&clips);
        let head = checkpoint.as_ref().and_then(|checkpoint| checkpoint.head.clone());
        let folder = OutputFolder::make(&options.output)?;
        if let Some(team) = team {
            team.agree(&missing)?;
        }
        let (head, ranks) = match head.filter(|_| missing.is_empty()) {
            Some(head) => {
                // Only to be decoded, or not even that.
                if !clips.made.is_empty() {
                    library(&options.session, terminal)?;
                }
                (head, None)
            }
            None => self.denoise(&missing, &mut clips, checkpoint, team, &mut watch, terminal)?,
        };
        let decoded = decode(options, &self.source, clips.made, checkpoint, &mut watch, terminal)?;
        clips.complete.extend(decoded);
        clips.complete.sort_by_key(|(place, _)| place.number);
        folder.keep();
        if let (Some(path), Some(trace)) = (&options.trace, watch.trace()) {
            trace.write(path)?;
        }
        let report = Report {
            model: self.source.model.as_path().into(),
            steps: self.settings.steps,
            guidance: self.source.asked_guidance(),
            head,
            transformers: self.stages.iter().filter_map(TransformerReport::of).collect(),
            ranks,
            clip: None,
            clips: Vec::new(),
        };
        let clips = clips.complete.iter();
        Ok(report.with(clips.map(|(place, record)| ClipReport::new(place, record)).collect()))
    }
}
