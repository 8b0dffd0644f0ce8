//! `pab-patch compare`: the same clips by original and patched model, with times and quality.

use super::Failure;
use super::args::{CompareOptions, FormChoice};
use super::caches::{CacheReport, CacheSettings};
use super::course::Course;
use super::patch::{Order, Request, Written, patch};
use super::run::picture;
use super::session::{
    Prompts, clip_shape, conditioning, generator, inputs, library, prompts, runtime_options, scheduler,
    variant_generator,
};
use super::terminal::Terminal;
use super::variants::{Values, Variants};
use crate::generation::{Clip, Conditioning, Generator};
use crate::quality::{compare, to_unit_range};
use crate::report::{
    Comparison, Facts, FilePath, FramesPerSecond, Measured, MeasuredClip, Pair, RuleFigures, RunFacts, RuntimeFacts,
    median_of_ratios, write_json, write_pairs,
};
use crate::runtime::{Library, Provider};
use crate::sampler::{SchedulerConfig, noise};
use ndarray::ArrayD;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// What `--json` prints: the figures, and what was written.
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
    /// The same figures as a file.
    figures: FilePath,
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
    let rate = FramesPerSecond::new(sampling.fps)?;
    let config = scheduler(&options.model, sampling, terminal)?;
    let timesteps = config.scheduler(sampling.steps)?.timesteps().to_vec();
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
    let mut sizes = super::args::sizes(&sampling.sizes);
    sizes
        .entry("batch".to_owned())
        .or_insert(if sampling.guidance() == 1.0 { 1 } else { 2 });
    let course = Course::Timesteps(timesteps.clone());
    let request = Request {
        model: &options.model,
        rules: &options.rules,
        caches: CacheSettings {
            options: &options.caches,
            sizes: sizes.into_iter().collect(),
        },
        output: &options.output,
        order: Order::new(&course, options.drive.into()),
    };
    let written = patch(&request, terminal)?;
    let library = library(&options.session, terminal)?;
    let given = inputs(&sampling.inputs)?;
    let given: Vec<&str> = given.keys().map(String::as_str).collect();
    let mut original = generator(&options.model, &options.session, &given, terminal)?;
    let mut patched = match options.form {
        FormChoice::Switch => generator(&written.model, &options.session, &given, terminal)?,
        FormChoice::Variants => variant_generator(&written.model, &options.session, &given, &timesteps, terminal)?,
    };

    let shares = shares(options, &written, &original, &prompts, terminal)?;
    let (clips, pictures) = clips(options, &config, &prompts, &mut original, &mut patched, terminal)?;
    let facts = facts(options, &written, &library, &original, &config, &timesteps, &shares)?;
    let comparison = Comparison::new(facts, clips)?;

    let figures = options.output.join("figures.json");
    write_json(&figures, &comparison)?;
    let animation = animation(options, &pictures, rate)?;
    let report = Report {
        comparison: &comparison,
        caches: &written.caches,
        patched_file: written.model.as_path().into(),
        animation: animation.map(FilePath::from),
        figures: figures.into(),
    };
    terminal.result(&report, || {
        let mut text = comparison.render(terminal.table_style());
        text.push_str(&format!("\nPatched model  {}\n", report.patched_file.display()));
        if let Some(animation) = &report.animation {
            text.push_str(&format!("Animation      {}\n", animation.display()));
        }
        text.push_str(&format!("Figures        {}\n", report.figures.display()));
        text
    })
}

/// Generates every clip by both models, in alternating order, so that a drift of the machine's speed cancels out.
fn clips(
    options: &CompareOptions,
    config: &SchedulerConfig,
    prompts: &Prompts,
    original: &mut Generator,
    patched: &mut Generator,
    terminal: &Terminal,
) -> Result<(Vec<MeasuredClip>, Vec<Both>), Failure> {
    let sampling = &options.sampling;
    let shape = clip_shape(&options.model, original, sampling)?;
    // The first runs of a session are slower: memory is allocated and weights are read from the disk.
    let first = conditioning(
        &options.model,
        prompts,
        prompt(options, prompts, 0).as_deref(),
        None,
        sampling,
    )?;
    for generator in [&mut *original, &mut *patched] {
        let mut scheduler = config.scheduler(sampling.steps)?;
        generator
            .warm_up(scheduler.as_mut(), noise(&shape, 0)?, &first)
            .map_err(Failure::of(&options.model, Failure::generation))?;
    }
    let bar = terminal.steps("generating", options.clips * 2 * sampling.steps);
    let mut measured = Vec::with_capacity(options.clips);
    let mut pictures = Vec::with_capacity(options.clips);
    for index in 0..options.clips {
        let seed = options.seed.wrapping_add(index as u64);
        let prompt = prompt(options, prompts, index);
        let conditioning = conditioning(&options.model, prompts, prompt.as_deref(), None, sampling)?;
        let noise = noise(&shape, seed)?;
        let one = |generator: &mut Generator| {
            let mut scheduler = config.scheduler(sampling.steps)?;
            generate(
                options,
                generator,
                scheduler.as_mut(),
                noise.clone(),
                &conditioning,
                &mut || bar.inc(1),
            )
        };
        let (by_original, by_patched) = if index % 2 == 0 {
            let first = one(original)?;
            (first, one(patched)?)
        } else {
            let first = one(patched)?;
            (one(original)?, first)
        };
        let both = Both {
            original: to_unit_range(by_original.sample.view()),
            patched: to_unit_range(by_patched.sample.view()),
            caption: prompt.clone().unwrap_or_else(|| format!("seed {seed}")),
        };
        let quality = match (picture(&both.original), picture(&both.patched)) {
            (Some(original), Some(patched)) => Some(compare(original, patched)?),
            _ => None,
        };
        measured.push(MeasuredClip {
            seed,
            prompt,
            original: times(&by_original),
            patched: times(&by_patched),
            quality,
        });
        pictures.push(both);
    }
    bar.finish_and_clear();
    Ok((measured, pictures))
}

fn generate(
    options: &CompareOptions,
    generator: &mut Generator,
    scheduler: &mut dyn crate::sampler::Scheduler,
    noise: ArrayD<f32>,
    conditioning: &Conditioning,
    done: &mut dyn FnMut(),
) -> Result<Clip, Failure> {
    generator
        .generate(scheduler, noise, conditioning, &mut |_| done())
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

/// For each rule, the share of a step's time that goes when its modules are taken out of the graph: measured.
fn shares(
    options: &CompareOptions,
    written: &Written,
    original: &Generator,
    prompts: &Prompts,
    terminal: &Terminal,
) -> Result<Vec<f64>, Failure> {
    const ROUNDS: usize = 20;
    let sampling = &options.sampling;
    let conditioning = conditioning(
        &options.model,
        prompts,
        prompt(options, prompts, 0).as_deref(),
        None,
        sampling,
    )?;
    let sizes = {
        let mut sizes = super::args::sizes(&sampling.sizes);
        sizes.entry("batch".to_owned()).or_insert(conditioning.copies());
        if let Some(tokens) = conditioning.prompt.as_ref().map(|prompt| prompt.embeddings.nrows())
            && let Some(port) = &original.roles().text
            && let Some(symbol) = port.symbols.get(1).filter(|symbol| !symbol.is_empty())
        {
            sizes.entry(symbol.clone()).or_insert(tokens);
        }
        sizes
    };
    let rules = written.plan.rules.len();
    let sets: Vec<Vec<bool>> = (0..rules)
        .map(|rule| (0..rules).map(|other| other == rule).collect())
        .collect();
    let values = Values {
        sizes,
        given: conditioning.inputs,
    };
    let mut variants = Variants::open(
        &options.model,
        written,
        &options.session,
        &sets,
        &values,
        false,
        terminal,
    )?;
    let times = variants.time(ROUNDS, "timing single rules", terminal)?;
    // Ratios within a round, where the machine was in one state, and their median: robust against what else it does.
    let share =
        |removed: &Vec<f64>| median_of_ratios(removed, &times.original).map_or(0.0, |left| (1.0 - left).max(0.0));
    Ok(times.removed.iter().map(share).collect())
}

fn facts(
    options: &CompareOptions,
    written: &Written,
    library: &Library,
    original: &Generator,
    config: &SchedulerConfig,
    timesteps: &[f64],
    shares: &[f64],
) -> Result<Facts, Failure> {
    let plan = &written.plan;
    let schedule = plan.schedule(timesteps);
    let rules = plan.rules.iter().enumerate().map(|(index, rule)| {
        let kinds: BTreeSet<_> = plan.sites_of(index).map(|site| site.kind.word()).collect();
        RuleFigures {
            name: rule.name.clone(),
            kind: kinds.into_iter().collect::<Vec<_>>().join(", "),
            strategy: rule.strategy,
            timing: rule.timing.clone(),
            sites: plan.sites_of(index).count(),
            steps_broadcast: schedule.share(index),
            step_share: shares.get(index).copied(),
        }
    });
    let shape = clip_shape(&options.model, original, &options.sampling)?;
    let mut clip_shape = [1; 4];
    for (size, given) in clip_shape.iter_mut().rev().zip(shape.iter().rev()) {
        *size = *given;
    }
    let provider = match original.session().provider() {
        Provider::Cuda => "CUDAExecutionProvider",
        _ => "CPUExecutionProvider",
    };
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

fn animation(options: &CompareOptions, pictures: &[Both], rate: FramesPerSecond) -> Result<Option<PathBuf>, Failure> {
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
    let path = options.output.join("comparison.gif");
    write_pairs(&path, &pairs, rate, options.sampling.scale)?;
    Ok(Some(path))
}
