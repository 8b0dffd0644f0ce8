//! `pab-patch compare`: the same clips by original and patched model, with times and quality.

use super::Failure;
use super::args::{CompareOptions, FormChoice, RulesOptions};
use super::caches::{CacheReport, CacheSettings};
use super::course::Course;
use super::patch::{Order, Request, Written, patch};
use super::removed_work::RemovedWork;
use super::run::picture;
use super::session::{
    Prompts, check_cuda_graph, clip_shape, conditioning, generator, inputs, library, prompts, run_settings, run_sizes,
    runtime_options, scheduler, variant_generator,
};
use super::terminal::Terminal;
use super::variants::Values;
use crate::generation::{Clip, Conditioning, Generator};
use crate::quality::{compare, to_unit_range};
use crate::report::{
    CLIPS, Comparison, Facts, FilePath, FramesPerSecond, Measured, MeasuredClip, ORIGINAL, PATCHED, Pair, Provenance,
    ReportError, RuleFigures, RunFacts, RuntimeFacts, side_by_side, write_apng, write_json, write_pairs,
};
use crate::rules::DEFAULT_PRESET;
use crate::runtime::Library;
use crate::sampler::{RunSettings, SchedulerConfig, SeededNoise, noise};
use ndarray::ArrayD;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What `--json` prints of one set of rules: the figures, and what was written.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    comparison: &'a Comparison,
    /// The memory of the caches.
    caches: &'a CacheReport,
    /// The patched model.
    patched_file: FilePath,
    /// Original beside patched, where clips are pictures.
    animation: Option<FilePath>,
    /// The clips themselves, where they are pictures.
    clip_folders: Option<ClipFolders>,
    /// The same figures as a file.
    figures: FilePath,
}

/// What `--json` prints, and what `comparisons.json` holds, where there are several sets of rules.
#[derive(Serialize)]
struct Reports<'a> {
    comparisons: &'a [Report<'a>],
}

/// Folders with a file for each clip, of the same names.
#[derive(Clone, Serialize)]
struct ClipFolders {
    original: FilePath,
    patched: FilePath,
}

/// A model that was patched by one set of rules, and its clips.
struct Candidate {
    /// Where its files go.
    folder: PathBuf,
    written: Written,
    generator: Generator,
    work: RemovedWork,
    clips: Vec<MeasuredClip>,
    /// What each step of each clip broadcast: a flag for each rule.
    broadcast: Vec<Vec<bool>>,
    pictures: Vec<Both>,
}

/// A clip by both models.
struct Both {
    original: ArrayD<f32>,
    patched: ArrayD<f32>,
    caption: String,
}

/// Patches, generates, compares.
pub fn run(options: &CompareOptions, terminal: &Terminal) -> Result<(), Failure> {
    let sampling = &options.sampling;
    if options.clips == 0 {
        return Err(Failure::Usage("--clips must be at least 1".to_owned()));
    }
    check_cuda_graph(options.form, options.cuda_graph, &options.session)?;
    let rate = FramesPerSecond::new(sampling.fps)?;
    let config = scheduler(&options.model, sampling, terminal)?;
    let settings = settings(options);
    let timesteps = config.scheduler_for(&settings)?.timesteps().to_vec();
    let prompts = prompts(&options.model, sampling)?;
    // Every prompt is looked at before anything is written.
    for index in 0..options.clips.min(options.prompt.len().max(1)) {
        conditioning(
            &options.model,
            &prompts,
            prompt(options, &prompts, index).as_deref(),
            None,
            sampling,
        )?;
    }
    let several = options.rules.each();
    let folders = folders(&options.output, &several)?;
    let mut written = Vec::with_capacity(several.len());
    for (rules, folder) in several.iter().zip(&folders) {
        written.push(patched(options, rules, folder, &timesteps, terminal)?);
    }
    let library = library(&options.session, terminal)?;
    let given = inputs(&sampling.inputs)?;
    let given: Vec<&str> = given.keys().map(String::as_str).collect();
    let mut original = generator(&options.model, &options.session, &given, terminal)?;
    let values = values(options, &original, &prompts)?;
    let cuda_graph = match options.cuda_graph {
        true => {
            let prompt = prompt(options, &prompts, 0);
            let first = conditioning(&options.model, &prompts, prompt.as_deref(), None, sampling)?;
            Some(run_sizes(
                &options.model,
                &clip_shape(&options.model, &original, sampling)?,
                &first,
            )?)
        }
        false => None,
    };
    let mut candidates = Vec::with_capacity(written.len());
    for (written, folder) in written.into_iter().zip(folders) {
        let schedule = written.plan.schedule(&timesteps);
        let work = RemovedWork::measure(
            &options.model,
            &written,
            &schedule,
            &options.session,
            &values,
            options.rounds.into(),
            terminal,
        )?;
        let generator = match options.form {
            FormChoice::Switch => generator(&written.model, &options.session, &given, terminal)?,
            FormChoice::Variants => {
                let cuda_graph = cuda_graph.clone();
                variant_generator(
                    &written.model,
                    &options.session,
                    cuda_graph,
                    &given,
                    &timesteps,
                    terminal,
                )?
            }
        };
        candidates.push(Candidate {
            folder,
            written,
            generator,
            work,
            clips: Vec::with_capacity(options.clips),
            broadcast: Vec::new(),
            pictures: Vec::with_capacity(options.clips),
        });
    }
    clips(options, &config, &prompts, &mut original, &mut candidates, terminal)?;

    let mut comparisons = Vec::with_capacity(candidates.len());
    for candidate in &mut candidates {
        let facts = facts(options, candidate, &library, &original, &config)?;
        let clips = std::mem::take(&mut candidate.clips);
        let allowed = candidate.work.allowed(&candidate.broadcast);
        let mut comparison = Comparison::new(facts, clips, allowed)?;
        comparison.provenance = Some(Provenance::of_process());
        comparisons.push(comparison);
    }
    let mut reports = Vec::with_capacity(candidates.len());
    let originals = match candidates.first() {
        Some(candidate) => write_clips(options, ORIGINAL, candidate, |both| &both.original, rate)?,
        None => None,
    };
    for (candidate, comparison) in candidates.iter().zip(&comparisons) {
        reports.push(report(options, candidate, comparison, originals.as_deref(), rate)?);
    }
    if let [report] = reports.as_slice() {
        return terminal.result(report, || text(report, terminal));
    }
    let reports = Reports { comparisons: &reports };
    let file = options.output.join("comparisons.json");
    write_json(&file, &reports)?;
    terminal.result(&reports, || {
        let mut text = String::new();
        for report in reports.comparisons {
            text.push_str(&self::text(report, terminal));
            text.push('\n');
        }
        text.push_str(&side_by_side(&comparisons, terminal.table_style()));
        text.push_str(&format!("\nFigures        {}\n", file.display()));
        text
    })
}

/// The folder of each set of rules: the output folder for a single one, else one below it by the rules' name.
fn folders(output: &Path, several: &[RulesOptions]) -> Result<Vec<PathBuf>, Failure> {
    if several.len() == 1 {
        return Ok(vec![output.to_owned()]);
    }
    let mut folders: Vec<PathBuf> = Vec::with_capacity(several.len());
    for rules in several {
        let named = rules.rules.as_deref().unwrap_or(DEFAULT_PRESET);
        let folder = output.join(Path::new(named).file_stem().unwrap_or(named.as_ref()));
        if folders.contains(&folder) {
            return Err(Failure::Usage(format!(
                "--rules {named}: other rules have that name too, and each set gets a folder by its name; rename the file"
            )));
        }
        folders.push(folder);
    }
    Ok(folders)
}

/// Patches the model by one set of rules.
fn patched(
    options: &CompareOptions,
    rules: &RulesOptions,
    folder: &Path,
    timesteps: &[f64],
    terminal: &Terminal,
) -> Result<Written, Failure> {
    let mut sizes = super::values::sizes(&options.sampling.sizes);
    sizes
        .entry("batch".to_owned())
        .or_insert(if options.sampling.guidance() == 1.0 { 1 } else { 2 });
    let course = Course::Timesteps(timesteps.to_vec());
    let request = Request {
        model: &options.model,
        rules,
        caches: CacheSettings {
            options: &options.caches,
            sizes: sizes.into_iter().collect(),
            given_up: None,
        },
        output: folder,
        order: Order::new(&course, options.drive.into()),
    };
    patch(&request, terminal)
}

/// Writes the figures and the animation of one set of rules.
fn report<'a>(
    options: &CompareOptions,
    candidate: &'a Candidate,
    comparison: &'a Comparison,
    originals: Option<&Path>,
    rate: FramesPerSecond,
) -> Result<Report<'a>, Failure> {
    let figures = candidate.folder.join("figures.json");
    write_json(&figures, comparison)?;
    let animation = animation(&candidate.folder, &candidate.pictures, rate, options.sampling.scale)?;
    // By the name of the rules where there are several.
    let below = candidate.folder.strip_prefix(&options.output).ok();
    let name = below
        .filter(|name| !name.as_os_str().is_empty())
        .unwrap_or(Path::new(PATCHED));
    let patched = write_clips(options, name, candidate, |both| &both.patched, rate)?;
    let clip_folders = originals.zip(patched).map(|(original, patched)| ClipFolders {
        original: original.into(),
        patched: patched.into(),
    });
    Ok(Report {
        comparison,
        caches: &candidate.written.caches,
        patched_file: candidate.written.model.as_path().into(),
        animation: animation.map(FilePath::from),
        clip_folders,
        figures: figures.into(),
    })
}

fn text(report: &Report<'_>, terminal: &Terminal) -> String {
    let mut text = report.comparison.render(terminal.table_style());
    text.push_str(&format!("\nPatched model  {}\n", report.patched_file.display()));
    if let Some(animation) = &report.animation {
        text.push_str(&format!("Animation      {}\n", animation.display()));
    }
    if let Some(clips) = &report.clip_folders {
        text.push_str(&format!(
            "Clips          {}\n               {}\n",
            clips.original.display(),
            clips.patched.display()
        ));
    }
    text.push_str(&format!("Figures        {}\n", report.figures.display()));
    text
}

/// Generates every clip by all models, in an order that changes from clip to clip, so that a drift of the machine's speed
/// cancels out.
fn clips(
    options: &CompareOptions,
    config: &SchedulerConfig,
    prompts: &Prompts,
    original: &mut Generator,
    candidates: &mut [Candidate],
    terminal: &Terminal,
) -> Result<(), Failure> {
    let sampling = &options.sampling;
    let settings = settings(options);
    let shape = clip_shape(&options.model, original, sampling)?;
    // The first runs of a session are slower: memory is allocated and weights are read from the disk.
    let first = conditioning(
        &options.model,
        prompts,
        prompt(options, prompts, 0).as_deref(),
        None,
        sampling,
    )?;
    let patched = candidates.iter_mut().map(|candidate| &mut candidate.generator);
    for generator in std::iter::once(&mut *original).chain(patched) {
        let mut scheduler = config.scheduler_for(&settings)?;
        generator
            .warm_up(scheduler.as_mut(), noise(&shape, 0)?, &first)
            .map_err(Failure::of(&options.model, Failure::generation))?;
    }
    let models = candidates.len() + 1;
    let calls = config.scheduler_for(&settings)?.timesteps().len();
    let bar = terminal.steps("generating", options.clips * models * calls);
    for index in 0..options.clips {
        let seed = options.seed.wrapping_add(index as u64);
        let prompt = prompt(options, prompts, index);
        let conditioning = conditioning(&options.model, prompts, prompt.as_deref(), None, sampling)?;
        let noise = noise(&shape, seed)?;
        let mut made: Vec<Option<Clip>> = vec![None; models];
        for turn in 0..models {
            let model = (index + turn) % models;
            let (generator, mut broadcast) = match model.checked_sub(1).and_then(|place| candidates.get_mut(place)) {
                Some(candidate) => (&mut candidate.generator, Some(&mut candidate.broadcast)),
                None => (&mut *original, None),
            };
            let mut scheduler = config.scheduler_for(&settings)?;
            let done = &mut |flags: &[bool]| {
                bar.inc(1);
                if let Some(broadcast) = &mut broadcast {
                    broadcast.push(flags.to_vec());
                }
            };
            let noise = noise.clone();
            let clip = generate(options, generator, scheduler.as_mut(), noise, seed, &conditioning, done)?;
            if let Some(place) = made.get_mut(model) {
                *place = Some(clip);
            }
        }
        let mut made = made.into_iter().flatten();
        let Some(by_original) = made.next() else { continue };
        for (candidate, by_patched) in candidates.iter_mut().zip(made) {
            let both = Both {
                original: to_unit_range(by_original.sample.view()),
                patched: to_unit_range(by_patched.sample.view()),
                caption: prompt.clone().unwrap_or_else(|| format!("seed {seed}")),
            };
            let quality = match (picture(&both.original), picture(&both.patched)) {
                (Some(original), Some(patched)) => Some(compare(original, patched)?),
                _ => None,
            };
            candidate.clips.push(MeasuredClip {
                seed,
                prompt: prompt.clone(),
                original: times(&by_original),
                patched: times(&by_patched),
                quality,
            });
            candidate.pictures.push(both);
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// What schedulers are made for.
fn settings(options: &CompareOptions) -> RunSettings {
    let sampling = &options.sampling;
    run_settings(
        &options.model,
        sampling.scheduler.as_deref(),
        sampling.steps,
        &sampling.clip,
    )
}

fn generate(
    options: &CompareOptions,
    generator: &mut Generator,
    scheduler: &mut dyn crate::sampler::Scheduler,
    noise: ArrayD<f32>,
    seed: u64,
    conditioning: &Conditioning,
    done: &mut dyn FnMut(&[bool]),
) -> Result<Clip, Failure> {
    generator
        .generate(
            scheduler,
            noise,
            &mut SeededNoise::new(seed),
            conditioning,
            &mut |step| {
                done(step.flags);
            },
        )
        .map_err(Failure::of(&options.model, Failure::generation))
}

/// The prompt of a clip: those that were given in turn, else from the table.
fn prompt(options: &CompareOptions, prompts: &Prompts, index: usize) -> Option<String> {
    match (options.prompt.as_slice(), prompts) {
        ([], Prompts::Table(table)) => Some(table.sample(index)),
        ([], _) => None,
        (given, _) => given.get(index % given.len()).cloned(),
    }
}

fn times(clip: &Clip) -> Measured {
    Measured {
        step_milliseconds: clip.step_milliseconds.clone(),
        clip_milliseconds: clip.milliseconds(),
    }
}

/// What single steps are timed with.
fn values(options: &CompareOptions, original: &Generator, prompts: &Prompts) -> Result<Values, Failure> {
    let sampling = &options.sampling;
    let conditioning = conditioning(
        &options.model,
        prompts,
        prompt(options, prompts, 0).as_deref(),
        None,
        sampling,
    )?;
    let mut sizes = super::values::sizes(&sampling.sizes);
    sizes.entry("batch".to_owned()).or_insert(conditioning.copies());
    if let Some(tokens) = conditioning.prompt.as_ref().map(|prompt| prompt.embeddings.nrows())
        && let Some(port) = &original.roles().text
        && let Some(symbol) = port.symbols.get(1).filter(|symbol| !symbol.is_empty())
    {
        sizes.entry(symbol.clone()).or_insert(tokens);
    }
    Ok(Values {
        sizes,
        given: conditioning.inputs,
    })
}

fn facts(
    options: &CompareOptions,
    candidate: &Candidate,
    library: &Library,
    original: &Generator,
    config: &SchedulerConfig,
) -> Result<Facts, Failure> {
    let (written, shares) = (&candidate.written, &candidate.work.shares);
    let plan = &written.plan;
    let steps = &candidate.broadcast;
    let share = |rule: usize| {
        let broadcast = steps.iter().filter(|flags| flags.get(rule) == Some(&true)).count();
        broadcast as f64 / steps.len().max(1) as f64
    };
    let rules = plan.rules.iter().enumerate().map(|(index, rule)| {
        let kinds: BTreeSet<_> = plan.sites_of(index).map(|site| site.kind.word()).collect();
        RuleFigures {
            name: rule.name.clone(),
            kind: kinds.into_iter().collect::<Vec<_>>().join(", "),
            strategy: rule.strategy,
            timing: rule.timing.clone(),
            adaptive: rule.adaptive.clone(),
            sites: plan.sites_of(index).count(),
            steps_broadcast: share(index),
            step_share: shares.get(index).copied(),
        }
    });
    let shape = clip_shape(&options.model, original, &options.sampling)?;
    let mut clip_shape = [1; 4];
    for (size, given) in clip_shape.iter_mut().rev().zip(shape.iter().rev()) {
        *size = *given;
    }
    let provider = original.session().provider().identifier();
    Ok(Facts {
        model: options.model.display().to_string(),
        patched_model: written.model.display().to_string(),
        rules_from: plan.rules_from.clone(),
        runtime: RuntimeFacts {
            version: library.version.clone(),
            library: library.path.display().to_string(),
            provider: provider.to_owned(),
            threads: runtime_options(&options.session)
                .threads
                .unwrap_or_else(|| crate::runtime::devices::cpu().physical_cores),
        },
        run: RunFacts {
            scheduler: config.class().to_owned(),
            steps: options.sampling.steps,
            guidance: f64::from(options.sampling.guidance()),
            clip_shape,
        },
        rules: rules.collect(),
    })
}

/// Writes every clip by one of the models into a folder of its own below `clips`, exactly as it is; `None` where clips are no
/// pictures.
fn write_clips(
    options: &CompareOptions,
    name: impl AsRef<Path>,
    candidate: &Candidate,
    which: fn(&Both) -> &ArrayD<f32>,
    rate: FramesPerSecond,
) -> Result<Option<PathBuf>, Failure> {
    let folder = options.output.join(CLIPS).join(name);
    let file = |number: usize| folder.join(format!("clip_{number:03}.apng"));
    for (number, both) in candidate.pictures.iter().enumerate() {
        let Some(clip) = picture(which(both)) else {
            return Ok(None);
        };
        std::fs::create_dir_all(&folder).map_err(|source| ReportError::Write {
            path: folder.clone(),
            source,
        })?;
        write_apng(&file(number), clip, rate, 1)?;
    }
    // Those of an earlier comparison, which may have had more.
    for number in candidate.pictures.len().. {
        if std::fs::remove_file(file(number)).is_err() {
            break;
        }
    }
    Ok(Some(folder))
}

fn animation(folder: &Path, pictures: &[Both], rate: FramesPerSecond, scale: u32) -> Result<Option<PathBuf>, Failure> {
    let pairs: Option<Vec<Pair<'_>>> = pictures
        .iter()
        .map(|both| {
            Some(Pair {
                caption: &both.caption,
                original: picture(&both.original)?,
                patched: picture(&both.patched)?,
            })
        })
        .collect();
    let Some(pairs) = pairs else { return Ok(None) };
    let path = folder.join("comparison.gif");
    write_pairs(&path, &pairs, rate, scale)?;
    Ok(Some(path))
}
